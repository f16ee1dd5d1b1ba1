"""`ReadGate`: pauses the transport while consumer queues are full.

`prefetch_count` is the real bound of what a consumer holds: the broker stops sending by itself, and
it drops a connection that it can't write to for 30 s. Water marks are for what prefetch doesn't
bound, auto_ack consumers above all. They are close together, so that pauses are short.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, NamedTuple

from pika_twisted.deferreds.containers import OrderedSet

LOGGER = logging.getLogger("pika_twisted")


class WaterMarks(NamedTuple):
    """When a queue makes the connection stop reading, and when it goes on.

    It stops when the queue holds `high_messages`, or bodies of `high_bytes` bytes in all, and goes
    on when it holds at most `low_messages` and `low_bytes`.
    """

    high_messages: int = 10_000
    low_messages: int = 8_000
    high_bytes: int = 64 << 20
    low_bytes: int = 48 << 20

    def check(self) -> WaterMarks:
        """Itself; ValueError naming the mark that makes no sense."""
        for kind, low, high in (
            ("messages", self.low_messages, self.high_messages),
            ("bytes", self.low_bytes, self.high_bytes),
        ):
            if not 0 <= low < high:
                raise ValueError(
                    f"low_{kind}={low} must be at least 0 and below high_{kind}={high}"
                )
        return self


class ReadGate:
    """Pauses one connection's transport while queues are full.

    Never while something waits for the broker: its answer could only come through the same
    transport, and the code that empties the queue may be what waits.
    """

    def __init__(self, marks: WaterMarks | None, waiting: Callable[[], bool], clock: Any) -> None:
        self.marks = marks.check() if marks is not None else None
        self.full = OrderedSet()
        #: Whatever is true at the end of a read is followed by `after_read()`.
        self.wants_after_read: Any = self.full
        #: Reads until `on_reads()` is to be called; 0: never.
        self.reads_left = 0
        self.paused = False
        self._waiting = waiting
        self._clock = clock
        self._paused_at = 0.0
        self._paused_seconds = 0.0
        self.transport: Any = None

    @property
    def paused_seconds(self) -> float:
        """How long reading was paused, all pauses together."""
        now = self._clock() - self._paused_at if self.paused else 0.0
        return self._paused_seconds + now

    def after_read(self) -> None:
        """Pause if it is time to; called when everything that was read has been handed out."""
        if self.full and not self.paused and self.transport is not None and not self._waiting():
            self.paused = True
            self._paused_at = self._clock()
            self.transport.pauseProducing()

    def on_reads(self) -> int:
        """Look at the reads since the last call; return after how many more to look again."""
        return 0

    def resume(self) -> None:
        """Read on: the queues have room again, or something begins to wait for the broker."""
        if self.paused:
            seconds = self._clock() - self._paused_at
            self.paused = False
            self._paused_seconds += seconds
            LOGGER.debug("Reading was paused for %.3f s by full consumer queues", seconds)
            if self.transport is not None:
                self.transport.resumeProducing()

    def stay_open(self) -> None:
        """Pause no more: the transport closes, and over TLS that takes the peer's close_notify."""
        self.resume()
        self.transport = None

    def end(self) -> None:
        """The transport is gone, and a pause with it."""
        self.transport = None
        self.resume()

    def queue_has_room(self, queue: object) -> None:
        """`queue` is below its marks, or gone."""
        self.full.discard(queue)
        if not self.full:
            self.resume()
