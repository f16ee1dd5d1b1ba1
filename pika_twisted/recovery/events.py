"""What a service tells: to its users' callbacks, to the Twisted log and to Python's logging."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Literal

from twisted.logger import Logger

from pika_twisted._guard import guarded

LOGGER = logging.getLogger("pika_twisted")

EventName = Literal[
    "connected",
    "lost",
    "recovering",
    "recovered",
    "recovery failed",
    "blocked",
    "unblocked",
    "consumer cancelled",
    "queue renamed",
    "refused",
    "restored",
    "message too large",
]

#: The events that `add_callback()` knows, each with what its callbacks are called with.
EVENTS: dict[EventName, str] = {
    "connected": "connection",
    "lost": "reason",
    "recovering": "",
    "recovered": "connection",
    "recovery failed": "reason",
    "blocked": "reason",
    "unblocked": "",
    "consumer cancelled": "consumer_tag, reason",
    "queue renamed": "old, new",
    "refused": "entity, reason",
    "restored": "entity",
    "message too large": "consumer_tag, size, limit",
}


class Events:
    """Callbacks by event, each event in the Twisted log too.

    :param of: for the log: what the events are of
    """

    _log = Logger(namespace="pika_twisted")

    def __init__(self, of: object = "service") -> None:
        self._of = of
        self.callbacks: dict[str, list[Callable[..., Any]]] = {name: [] for name in EVENTS}

    def add_callback(self, event: str, callback: Callable[..., Any]) -> None:
        """Call `callback` on each `event`, whose exceptions go to the Twisted log.

        :raises ValueError: there is no such event
        :raises TypeError: the callback can't be called
        """
        if event not in self.callbacks:
            raise ValueError(f"{event!r} is none of the events {', '.join(EVENTS)}")
        self.callbacks[event].append(guarded(callback, f"callback for {event!r}"))

    def tell(self, event: EventName, *values: Any) -> None:
        """Tell an event to the Twisted log and to the callbacks."""
        # As text: a log that keeps its events (Twisted's own, before logging has begun: 65,536 of
        # them) would keep every connection there ever was.
        text = ", ".join(map(repr, values))
        name = repr(self._of)
        self._log.info("{service}: {event} {values}", service=name, event=event, values=text)
        for callback in list(self.callbacks[event]):
            callback(*values)
