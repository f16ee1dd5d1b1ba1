"""The queue object of a recovering consumer; one channel after the other fills it."""

from __future__ import annotations

from typing import Any

from pika import exceptions as pika_exceptions

from pika_twisted.channel.water_marked_queue import WaterMarkedQueue
from pika_twisted.transport.read_gate import WaterMarks

#: For a service without water marks.
_NEVER = WaterMarks(1 << 62, 1 << 61, 1 << 62, 1 << 61)

#: The consumer argument that says where in a stream to begin, and the header that says where a
#: message of a stream stands.
OFFSET = "x-stream-offset"


def offset_of(message: Any) -> int | None:
    """Return where in its stream a message stands; None for one of another queue."""
    try:
        offset = (message.properties.headers or {}).get(OFFSET)
    except (AttributeError, pika_exceptions.AMQPError):  # no message; headers that can't be decoded
        return None
    return offset if isinstance(offset, int) and not isinstance(offset, bool) else None


class LastingQueue(WaterMarkedQueue):
    """A consumer queue that knows how far a stream was handed out."""

    def __init__(self, marks: WaterMarks | None, follows_stream: bool) -> None:
        super().__init__(None, marks or _NEVER)  # type: ignore[arg-type]
        #: Whether its messages are of a stream: asked for as one, declared as one, or found out.
        self.follows_stream = follows_stream
        #: Whether it may be one without our knowing: another program has declared it.
        self.may_be_stream = True
        #: Whether that was found out only by the header of the first message.
        self.looks_like_stream = False
        self._last: Any = None
        self._has_looked = False

    def wake(self) -> None:
        """As in the base class."""
        if self.pending:
            if not self._has_looked:
                self._look_at(self.pending[0])
            if self.follows_stream:
                self._last = self.pending[-1]
        super().wake()

    def _look_at(self, first: Any) -> None:
        """Find out by the first message whether this is a stream, declared here or elsewhere."""
        self._has_looked = True
        if self.may_be_stream and not self.follows_stream and offset_of(first) is not None:
            self.follows_stream = self.looks_like_stream = True

    def forget_stream(self) -> None:
        """It only looked like a stream: its messages once came from one."""
        self.follows_stream = self.looks_like_stream = False
        self._last = None

    def next_offset(self) -> int | None:
        """Return the offset behind the last message that was handed out; None if unknown.

        To be asked before what is pending is dropped; what comes next begins anew.
        """
        last, self._last = self._last, None
        if self.pending:
            return offset_of(self.pending[0])
        offset = offset_of(last)
        return None if offset is None else offset + 1

    def attach(self, gate: Any) -> None:
        """Let a connection fill it from now on, perhaps the same as until now."""
        self.detach()
        self._gate = gate
        if self.pending:
            self.wake()

    def detach(self) -> None:
        """Pause no connection for it: nothing comes for now."""
        if self._full:
            self._full = False
            self._gate.queue_has_room(self)
