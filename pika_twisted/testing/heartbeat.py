"""Heartbeats of the broker: sent where there is nothing else, missed where nothing comes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pika_twisted.testing.encoding import HEARTBEAT

if TYPE_CHECKING:
    from pika_twisted.testing.session import ServerConnection

#: As RabbitMQ: two intervals without a byte of the client, in halves.
_SILENT_HALVES = 4


class Heartbeat:
    """Looks at a connection each half of its heartbeat interval.

    `sent` and `received` say whether there were bytes since it looked last.
    """

    def __init__(self, connection: ServerConnection) -> None:
        self.sent = self.received = False
        self._connection = connection
        self._silent = 0
        self._interval = 0.0
        self._timer: Any = None

    def start(self, seconds: float) -> None:
        """Begin; 0 for no heartbeats."""
        self._interval = seconds / 2
        if seconds:
            self._timer = self._connection.broker.call_later(self._interval, self._look)

    def stop(self) -> None:
        """End."""
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def _look(self) -> None:
        connection = self._connection
        self._timer = connection.broker.call_later(self._interval, self._look)
        if connection.frozen:
            return
        self._silent = 0 if self.received else self._silent + 1
        if self._silent > _SILENT_HALVES and not connection.blocked:
            connection.cut()
            return
        if not self.sent:
            connection.send(HEARTBEAT)
            connection.flush()
        self.sent = self.received = False
