"""The peer's books: which deliveries were acknowledged, and what was published.

Both have a fast path that compares a whole read with the bytes it should consist of, and a slow
path that looks at one frame; both count the same things, so a client that acks out of order or
publishes messages that differ is only slower to serve, not judged differently.
"""

from __future__ import annotations

from benchmarks import wire

LARGEST_UNIT = 64 * 1024


def matching_units(data: bytes, position: int, expected: bytes, unit_size: int) -> int:
    """Return a number of units of `expected` that stand in `data` at `position`.

    All of them where all match, else at least half of those that do: callers ask again.
    """
    units = len(expected) // unit_size
    while units:
        if data.startswith(expected[: units * unit_size], position):
            return units
        units //= 2
    return 0


class AckLedger:
    """The deliveries of one channel that wait for an ack."""

    def __init__(self, channel: int) -> None:
        self.delivered = 0
        self.violations = 0
        self._lowest = 1  # lowest tag that is not acked
        self._early: set[int] = set()  # acked tags above it
        self._train = wire.acks(channel)

    @property
    def unacked(self) -> int:
        """Number of deliveries without an ack."""
        return self.delivered + 1 - self._lowest - len(self._early)

    def swallow(self, data: bytes, position: int) -> int:
        """Book the acks at `position` that come in order; return how many bytes they were."""
        size = self._train.unit_size
        taken = 0
        while not self._early:
            whole = min((len(data) - position - taken) // size, self.delivered + 1 - self._lowest)
            if whole < 1:
                break
            expected = bytes(self._train.stretch(self._lowest, whole))
            units = matching_units(data, position + taken, expected, size)
            if not units:
                break
            self._lowest += units
            taken += units * size
        return taken

    def settle(self, tag: int, multiple: bool) -> None:
        """Book one ack, nack or reject."""
        if multiple:
            self._settle_up_to(tag or self.delivered)
        elif tag < self._lowest or tag > self.delivered or tag in self._early:
            self.violations += 1
        else:
            self._early.add(tag)
            self._advance()

    def _settle_up_to(self, tag: int) -> None:
        if tag < self._lowest or tag > self.delivered:
            self.violations += 1
            return
        self._lowest = tag + 1
        self._early = {early for early in self._early if early > tag}
        self._advance()

    def _advance(self) -> None:
        while self._lowest in self._early:
            self._early.remove(self._lowest)
            self._lowest += 1


class PublishLedger:
    """The contents published on one channel."""

    def __init__(self) -> None:
        self.count = 0
        self.body_bytes = 0
        self.violations = 0
        self._missing = -1  # body bytes to come; -1 when no content is open
        self._open_size = 0
        self._raw = b""  # frames of the open content, as long as it may become a repeated unit
        self._last = b""
        self._repeated = b""
        self._unit_body = 0

    def swallow(self, data: bytes, position: int) -> int:
        """Book the contents at `position` that equal the last two; return their length."""
        if self._missing >= 0 or not self._repeated:
            return 0
        size = len(self._last)
        taken = 0
        while True:
            whole = (len(data) - position - taken) // size
            expected = self._repeated
            if whole * size < len(expected):
                expected = expected[: whole * size]
            units = matching_units(data, position + taken, expected, size)
            if not units:
                return taken
            self.count += units
            self.body_bytes += units * self._unit_body
            taken += units * size

    def method(self, raw: bytes) -> None:
        """Book a Basic.Publish frame."""
        self.violations += self._missing >= 0
        self._missing = 0
        self._raw = raw

    def header(self, raw: bytes, body_size: int) -> None:
        """Book a content header."""
        self._missing = self._open_size = body_size
        self._raw += raw
        self._finish_when_complete()

    def body(self, raw: bytes) -> None:
        """Book a body frame."""
        self._missing -= len(raw) - wire.FRAME_OVERHEAD
        if self._raw:
            self._raw = self._raw + raw if self._open_size < LARGEST_UNIT else b""
        self._finish_when_complete()

    def _finish_when_complete(self) -> None:
        if self._missing > 0:
            return
        self.violations += self._missing < 0
        self._missing = -1
        self.count += 1
        self.body_bytes += self._open_size
        if self._raw and self._raw == self._last and not self._repeated:
            self._unit_body = self._open_size
            self._repeated = self._raw * max(1, wire.BLOCK_BYTES // len(self._raw))
        elif self._raw != self._last:
            self._last = self._raw
            self._repeated = b""
