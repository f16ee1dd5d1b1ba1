"""What a service tells whoever wants to know."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.logger import Logger

from pika_twisted._guard import guarded

#: The events that `add_callback()` knows, each with what its callbacks are called with.
EVENTS = {
    "connected": "connection",
    "lost": "reason",
    "recovering": "",
    "recovered": "connection",
    "recovery failed": "reason",
    "blocked": "reason",
    "unblocked": "",
    "consumer cancelled": "consumer_tag, reason",
    "queue renamed": "old, new",
}


class Events:
    """Callbacks by event, each event in the Twisted log too."""

    _log = Logger(namespace="pika_twisted")

    def __init__(self) -> None:
        self._callbacks: dict[str, list[Callable[..., Any]]] = {name: [] for name in EVENTS}

    def add_callback(self, event: str, callback: Callable[..., Any]) -> None:
        """Call `callback` on each `event`. What it raises, and every event, is in Twisted's log.

        The events, with what callbacks are called with: "connected" (connection), "lost" (reason),
        "recovering", "recovered" (connection), "recovery failed" (reason), "blocked" (reason),
        "unblocked", "consumer cancelled" (consumer_tag, reason), "queue renamed" (old, new).
        "connected" is the first connection, "recovered" each later one, with everything on it.
        """
        if event not in self._callbacks:
            raise ValueError(f"{event!r} is none of the events {', '.join(EVENTS)}")
        self._callbacks[event].append(guarded(callback, f"callback for {event!r}"))

    def tell(self, event: str, *values: Any) -> None:
        """Something happened: to the log and to whoever wants to know."""
        # As text: a log that keeps its events (Twisted's own, before logging has begun: 65,536 of
        # them) would keep every connection there ever was.
        text = ", ".join(map(repr, values))
        self._log.info("{service}: {event} {values}", service=repr(self), event=event, values=text)
        for callback in list(self._callbacks[event]):
            callback(*values)
