"""Users' callbacks, kept from breaking the connection that calls them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from twisted.logger import Logger

_log = Logger(namespace="pika_twisted")


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
