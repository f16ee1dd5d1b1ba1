"""Asking the broker for many entities at a time, so that a refusal costs only the refused one."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from pika import exceptions as pika_exceptions
from twisted.internet import defer

from pika_twisted._reasons import blames, fresh_exception

from .entities import Entity

LOGGER = logging.getLogger("pika_twisted")

#: How many questions may be unanswered. What is behind a refused one is asked again, so more would
#: be dear where much is refused; at a round trip of 50 ms it allows 10,000 a second.
WINDOW = 500

#: Called with what was refused and why; returns whether to ask at once in another way.
OnRefused = Callable[[Entity, BaseException], bool]
#: Called with what the broker has agreed to, and the frame of its answer.
OnAnswered = Callable[[Entity, Any], Any]


class Asking:
    """Asks on channels of its own, one after the other: each refusal closes one.

    :param connection: the connection to ask on
    :param on_refused: called with each refused entity and the reason
    :param on_answered: called with each entity that the broker agrees to, and its answer
    """

    def __init__(self, connection: Any, on_refused: OnRefused, on_answered: OnAnswered) -> None:
        self._connection = connection
        self._on_refused = on_refused
        self._on_answered = on_answered
        self._burst: _Burst | None = None

    async def open(self) -> _Burst:
        """Open the next channel; `ask()` does so where it needs one."""
        channel = await self._connection.channel()
        self._burst = _Burst(channel, self._on_refused, self._on_answered)
        return self._burst

    async def ask(self, entities: Iterable[Entity]) -> None:
        """Ask for entities in their order, until each is answered or refused.

        :raises AMQPConnectionError: the connection was lost. Where the broker closed it for one of
            the entities, that one has been refused
        """
        waiting = deque(entities)
        while waiting:
            burst = self._burst
            if burst is None or not burst.is_open:
                burst = await self.open()
            await burst.ask(waiting)

    def close(self) -> None:
        """Close the last channel."""
        if self._burst is not None and self._burst.is_open:
            self._burst.channel.close()


class _Burst:
    """The questions on one channel, up to the first refusal."""

    def __init__(self, channel: Any, on_refused: OnRefused, on_answered: OnAnswered) -> None:
        self.channel = channel
        self._on_refused = on_refused
        self._on_answered = on_answered
        self._waiting: deque[Entity] = deque()
        self._asked: deque[Entity] = deque()
        self._done: defer.Deferred[None] | None = None
        channel.add_on_close_callback(self._closed)

    @property
    def is_open(self) -> bool:
        return bool(self.channel.is_open)

    def ask(self, waiting: deque[Entity]) -> defer.Deferred[None]:
        """Ask for what waits; it is left there, without the culprit, after a refusal."""
        self._waiting = waiting
        done: defer.Deferred[None] = defer.Deferred()
        self._done = done
        self._write()
        return done

    def _write(self) -> None:
        """Keep the window full."""
        while self._waiting and len(self._asked) < WINDOW and self.is_open:
            entity = self._waiting.popleft()
            if not entity.is_wanted:  # deleted meanwhile
                continue
            entity.on_asked()
            self._asked.append(entity)  # first: a transport may end, or bring the answer, within
            try:
                self.channel._channel.ask(entity.method(), self._answered)
            except (TypeError, ValueError, pika_exceptions.ShortStringTooLong) as why:
                self._asked.remove(entity)
                self._on_refused(entity, why)
        if not self._asked and self.is_open:
            self._finish(None)

    def _answered(self, answer: Any) -> None:
        if not self._asked:  # nothing was asked: the peer's own idea
            return
        entity = self._asked.popleft()
        self._on_answered(entity, answer)
        if not self._asked or len(self._asked) <= WINDOW // 2:
            self._write()

    def _closed(self, _channel: Any, reason: BaseException) -> None:
        asked, self._asked = self._asked, deque()
        if asked:
            culprit = asked[0]
            refused = isinstance(reason, pika_exceptions.ChannelClosedByBroker)
            if refused or blames(reason, culprit.method()):
                asked.popleft()
                if self._on_refused(culprit, reason):
                    asked.appendleft(culprit)
        for entity in asked:
            entity.on_lost()
        self._waiting.extendleft(reversed(asked))
        self._finish(None if isinstance(reason, pika_exceptions.ChannelClosedByBroker) else reason)

    def _finish(self, reason: BaseException | None) -> None:
        done, self._done = self._done, None
        if done is None or done.called:
            return
        if reason is None:
            done.callback(None)
        else:
            done.errback(fresh_exception(reason))
