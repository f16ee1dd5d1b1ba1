"""Whether a connection is alive: pika's heartbeat checker, to which a pause must not be silence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet import interfaces

from pika_twisted.transport.sockets import innermost

if TYPE_CHECKING:
    # pika's stubs have none of the private names that the checker is made of.
    from typing import Any as PikaHeartbeatChecker
else:
    from pika.heartbeat import HeartbeatChecker as PikaHeartbeatChecker


def is_paused(transport: Any) -> bool:
    """Whether `pauseProducing()` was called on `transport`, as far as Twisted shows it."""
    transport = innermost(transport)
    state = getattr(transport, "producerState", None)  # twisted.internet.testing transports
    if state is not None:
        return bool(state == "paused")
    reactor: Any = getattr(transport, "reactor", None)
    if interfaces.IReactorFDSet.providedBy(reactor) and hasattr(transport, "fileno"):
        return transport not in reactor.getReaders()
    return False


class HeartbeatChecker(PikaHeartbeatChecker):  # type: ignore[misc]
    """pika's checker; an interval in which our own side had paused the transport counts as alive.

    pika compares the connection's byte counter at both ends of an interval of heartbeat + 5 s.
    After a pause it gets one more interval, so a dead peer is dropped in at most two.
    """

    _was_paused = False
    _send_due = 0.0

    def _start_send_timer(self) -> None:
        if self._connection._transport is not None:  # else it has ended within the write before
            self._send_due = self._connection.seconds() + self._send_interval
            super()._start_send_timer()

    def _send_heartbeat(self) -> None:
        late = self._connection.seconds() - self._send_due
        if late >= self._timeout:
            self._connection.note_block(late)
            self._was_paused = True  # what came meanwhile is not read yet
        super()._send_heartbeat()

    def received(self) -> None:
        """A heartbeat came: for pika's log only, life is counted in octets."""
        self._heartbeat_frames_received += 1

    @property
    def bytes_received_on_connection(self) -> int:
        """The connection's counter, or one more than that: not equal to the remembered one."""
        was_paused, self._was_paused = self._was_paused, is_paused(self._connection._transport)
        received: int = self._connection.bytes_received
        return received + (1 if was_paused or self._was_paused else 0)
