"""Users' callbacks, kept from breaking the connection that calls them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from twisted.logger import Logger

_log = Logger(namespace="pika_twisted")


class Callbacks:
    """Users' callbacks for one thing, called in the order in which they came."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._calls: list[tuple[Callable[..., Any], Callable[..., None]]] = []

    def __len__(self) -> int:
        return len(self._calls)

    def add(self, callback: Callable[..., Any]) -> None:
        """Add one; TypeError when it can't be called."""
        self._calls.append((callback, guarded(callback, self._what)))

    def remove(self, callback: Callable[..., Any]) -> None:
        """Remove one if it is there; the latest, of several equal ones."""
        for number in reversed(range(len(self._calls))):
            if self._calls[number][0] == callback:
                del self._calls[number]
                return

    def __call__(self, *values: Any) -> None:
        for _callback, call in list(self._calls):
            call(*values)


def guarded(callback: Callable[..., Any], what: str) -> Callable[..., None]:
    """Wrap `callback` so that an exception in it goes to the Twisted log.

    Through pika's callback manager it would skip the callbacks behind it, leave `dataReceived` and
    cost the connection. `what` names the callback in the log.

    :raises TypeError: it can't be called
    """
    if not callable(callback):
        raise TypeError(f"the {what} is called; {callback!r} can't be")

    def call(*args: Any, **kwargs: Any) -> None:
        try:
            callback(*args, **kwargs)
        except (Exception, asyncio.CancelledError):  # that of a future; it is no Exception
            _log.failure("Exception in the {what} {callback!r}", what=what, callback=callback)

    return call
