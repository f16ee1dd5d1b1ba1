"""Consumer queues with water marks: full ones make the connection stop reading."""

from __future__ import annotations

from typing import Any

from twisted.internet import defer

from pika_twisted.transport.read_gate import ReadGate, WaterMarks

from .queue import ClosableDeferredQueue


def queue_for(gate: ReadGate) -> ClosableDeferredQueue:
    """Return the queue of a new consumer on the connection that `gate` belongs to."""
    return ClosableDeferredQueue() if gate.marks is None else WaterMarkedQueue(gate, gate.marks)


class WaterMarkedQueue(ClosableDeferredQueue):
    """A consumer queue that tells a `ReadGate` when it is full and when it has room again."""

    def __init__(self, gate: ReadGate, marks: WaterMarks) -> None:
        super().__init__()
        self._gate = gate
        self._marks = marks
        self._full = False

    def wake(self) -> None:
        """As in the base class; the queue may be full afterwards."""
        super().wake()
        pending, marks = self.pending, self._marks
        if self._full or self.closed is not None:
            return
        if len(pending) >= marks.high_messages or pending.body_bytes >= marks.high_bytes:
            self._full = True
            self._gate.full.add(self)

    def _taken(self) -> None:
        pending, marks = self.pending, self._marks
        if self.closed is not None or (
            len(pending) <= marks.low_messages and pending.body_bytes <= marks.low_bytes
        ):
            self._full = False
            self._gate.queue_has_room(self)

    def get(self) -> defer.Deferred[Any]:
        """As in the base class."""
        deferred = super().get()
        if self._full:
            self._taken()
        return deferred

    def get_many(self, max_messages: int) -> defer.Deferred[list[Any]]:
        """As in the base class."""
        deferred = super().get_many(max_messages)
        if self._full:
            self._taken()
        return deferred

    def __anext__(self) -> Any:
        awaitable = super().__anext__()
        if self._full:
            self._taken()
        return awaitable

    def drain(self) -> list[Any]:
        """As in the base class."""
        messages = super().drain()
        if self._full:
            self._taken()
        return messages

    def close(self, reason: Any, *, deliverable: bool = True, end: bool = False) -> None:
        """As in the base class; a closed queue pauses nothing."""
        super().close(reason, deliverable=deliverable, end=end)
        if self._full:
            self._taken()
