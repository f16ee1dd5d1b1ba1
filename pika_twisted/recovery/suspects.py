"""Which call the broker has closed the connection for.

Connection.Close names a method, and no channel. Where several calls of that method wait for their
answers, each is a suspect, and is made again alone: then the guilty one is known.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from twisted.internet import defer

from pika_twisted._reasons import blames
from pika_twisted.deferreds.containers import OrderedSet

T = TypeVar("T")


class Suspect:
    """One call, over all its attempts.

    :param method: what it asks: a class of `pika.spec`
    """

    def __init__(self, method: Any) -> None:
        self.method = method
        #: Whether it is to be made alone next time.
        self.is_suspected = False
        #: Whether the broker has closed the connection for it.
        self.is_guilty = False
        self.connection: Any = None


class Suspects:
    """The calls that wait for their answers, on all channels of a service."""

    def __init__(self) -> None:
        self._waiting = OrderedSet()
        self._alone = defer.DeferredLock()

    async def ask(self, suspect: Suspect, connection: Any, call: Callable[[], Awaitable[T]]) -> T:
        """Make a call, alone among the suspects if it is one; then look whom the broker blames."""
        alone = suspect.is_suspected
        if alone:
            await self._alone.acquire()
        suspect.connection = connection
        self._waiting.add(suspect)
        was_open = connection.is_open  # else it ends for another one
        try:
            return await call()
        except Exception as why:
            if was_open and blames(why, suspect.method):
                self._accuse(suspect, why, alone)
            raise
        finally:
            self._waiting.discard(suspect)
            if alone:
                self._alone.release()

    def _accuse(self, suspect: Suspect, why: BaseException, alone: bool) -> None:
        blamed = [
            each
            for each in self._waiting
            if each.connection is suspect.connection and blames(why, each.method)
        ]
        if len(blamed) > 1:
            for each in blamed:
                each.is_suspected = True
        # Those that were blamed with it have left by now; they have marked it.
        suspect.is_guilty = alone or not suspect.is_suspected
