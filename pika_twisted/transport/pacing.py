"""Reading less often: rests between reads, so that the next read brings more.

A broker that floods a consumer wakes it for every few messages. Over loopback TCP from a RabbitMQ
on the same two cores that is a read for 6 messages, 3.1 us of CPU each, of which 2.7 us are the
kernel's wake-up and Twisted's turn of the reactor; with a rest of 1 ms a read brings 220, for
0.7 us each, and the cores that are left to the broker give a quarter more messages per second.

Below a flood a rest costs latency and saves nothing: at 1,000 messages a second a fixed one took
54 us of CPU a message instead of 28. So by default `FloodGate` rests only amid a flood.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .read_gate import ReadGate, WaterMarks


class RestingGate(ReadGate):
    """A `ReadGate` that can also rest between two reads.

    As for full queues: not while something waits for the broker, and no longer than until then.

    :param messages: how many messages have come so far
    :param call_later: runs something after some seconds, and returns what has a `cancel()`
    """

    def __init__(
        self,
        marks: WaterMarks | None,
        waiting: Callable[[], bool],
        clock: Any,
        messages: Callable[[], int],
        call_later: Callable[[float, Callable[[], Any]], Any],
    ) -> None:
        super().__init__(marks, waiting, clock)
        self._messages = messages
        self._call_later = call_later
        self._seen = 0
        self._resting: Any = None

    def new_messages(self) -> int:
        """Return how many messages have come since the last call."""
        seen, self._seen = self._seen, self._messages()
        return self._seen - seen

    def rest(self, seconds: float) -> None:
        """Read nothing for so long, unless reading has stopped already or something waits."""
        if self._resting is not None or self.paused or self.transport is None or self._waiting():
            return
        self._resting = self._call_later(seconds, self._read_on)
        self.transport.pauseProducing()

    def resume(self) -> None:
        """Read on, and rest no longer."""
        resting = self._resting
        if resting is not None:
            resting.cancel()
            self._read_on()
        super().resume()

    def _read_on(self) -> None:
        self._resting = None
        if not self.paused and self.transport is not None:
            self.transport.resumeProducing()


class IntervalGate(RestingGate):
    """Rests for `interval` seconds after each read that brought messages (`read_interval`)."""

    def __init__(self, interval: float, *rest: Any) -> None:
        super().__init__(*rest)
        self._interval = interval
        self.wants_after_read = True

    def after_read(self) -> None:
        """Pause or rest if it is time to."""
        super().after_read()
        if self.new_messages():
            self.rest(self._interval)


class FloodGate(RestingGate):
    """Rests for 1 ms after each read, amid a flood only.

    A flood is a high rate that comes in many small reads. It is looked for every `LOOK_EVERY`
    reads; while it lasts, after each. It has ended when a rest brings few messages. Where rests
    make the rate fall, as with a small prefetch, which keeps the broker waiting for acks, there are
    none for a while.
    """

    #: Reads between two looks: amid 12,500 reads a second that is one every 5 ms.
    LOOK_EVERY = 64
    #: Messages a second that make a flood. Below, a rest of 1 ms brings fewer than 20.
    RATE = 20_000
    #: Seconds between two reads: where they are further apart a rest of 1 ms spares few of them. A
    #: publisher that sends every millisecond is no flood, however much it sends.
    OFTEN = 0.0006
    #: With more messages to a read on average its overhead of 2.7 us is next to nothing.
    LARGE_READ = 200
    #: Seconds. Poll and epoll count in milliseconds.
    REST = 0.001
    #: A rest that brings fewer has found the end of the flood: `RATE` for 1 ms brings 20.
    FEW = 8
    #: Reads with rests after which the rate is compared with that before.
    COMPARE_AFTER = 32
    #: The part of the rate before that has to be left.
    WORTH = 0.8
    #: Seconds without a rest after one was not worth it: the first time, and at most.
    FIRST_BREAK, LONGEST_BREAK = 0.2, 10.0

    def __init__(self, *rest: Any) -> None:
        super().__init__(*rest)
        self.reads_left = self.LOOK_EVERY
        self._began = 0.0
        self._count = 0  # of the messages since then
        self._reads = 0  # with rests, since then
        self._rate = 0.0  # before the rests; 0: there are none
        self._break = self.FIRST_BREAK
        self._no_rest_before = 0.0

    def on_reads(self) -> int:
        """Look at the reads since the last call; return after how many more to look again."""
        return self._amid_flood() if self._rate else self._look_for_flood()

    def _look_for_flood(self) -> int:
        now, count = self._clock(), self.new_messages()
        seconds, self._began = now - self._began, now
        if seconds <= 0 or now < self._no_rest_before:
            return self.LOOK_EVERY
        often = seconds < self.LOOK_EVERY * self.OFTEN
        if often and self.RATE * seconds <= count < self.LOOK_EVERY * self.LARGE_READ:
            self._rate = count / seconds
            self._count = self._reads = 0
            self.rest(self.REST)
            return 1
        return self.LOOK_EVERY

    def _amid_flood(self) -> int:
        count = self.new_messages()
        if count < self.FEW and not self._waiting():
            return self._end()
        self._count += count
        self._reads += 1
        if self._reads == self.COMPARE_AFTER:
            now = self._clock()
            seconds, self._began = now - self._began, now
            if self._count < self._rate * seconds * self.WORTH:
                self._no_rest_before = now + self._break
                self._break = min(2 * self._break, self.LONGEST_BREAK)
                return self._end()
            self._break = self.FIRST_BREAK
            self._count = self._reads = 0
        self.rest(self.REST)
        return 1

    def _end(self) -> int:
        self._rate = 0.0
        self._began = self._clock()
        return self.LOOK_EVERY
