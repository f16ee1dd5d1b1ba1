"""Frames as bytes: what the embedded peer sends, and what it expects back.

The peer has to be several times cheaper per message than the fastest client it measures, and it is
written in Python. So nothing is encoded per message: a :class:`Train` is a block of equal-sized
units (one unit is a whole delivery, or a single ack) in which only the bytes that count upward
differ, and those are patched for a whole block at once with strided slice assignments, which run
in C. Comparing what a client sent with such a block verifies thousands of acks with one memcmp.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from pika import frame, spec

FRAME_OVERHEAD = 8
FRAME_MAX = 131072  # what RabbitMQ proposes, and so does the peer
CHANNEL_MAX = 2047
ACK_TAG = 0x1122334455667788  # placeholders, found and patched in an encoded unit
MESSAGE_ID = "0f1e2d3c4b5a6978"
TIMESTAMP = 1_700_000_000
HEX_DIGITS = b"0123456789abcdef"
ALL_BYTES = bytes(range(256))

# A block that fits into the second-level cache next to the kernel's copy of it.
BLOCK_BYTES = 256 * 1024

PROPERTY_SETS = ("usual", "repeat", "none")


def make_properties(kind: str, message_id: str = MESSAGE_ID) -> spec.BasicProperties:
    """Return the properties of a benchmark message.

    ``usual`` has a message_id of its own in each message, ``repeat`` the same one in all of them.
    """
    if kind == "none":
        return spec.BasicProperties()
    return spec.BasicProperties(
        content_type="application/json",
        delivery_mode=1,
        message_id=message_id,
        timestamp=TIMESTAMP,
        headers={"source": "sensor-17", "attempt": 3, "traced": True},
    )


def make_body(size: int) -> bytes:
    """Return a body of `size` bytes that is not all one byte."""
    return (ALL_BYTES * (size // 256 + 1))[:size]


def content_frames(
    channel: int, properties: spec.BasicProperties, body: bytes, frame_max: int
) -> bytes:
    """Return the header frame and the body frames of one content."""
    pieces = [frame.Header(channel, len(body), properties).marshal()]
    step = frame_max - FRAME_OVERHEAD
    for start in range(0, len(body), step):
        pieces.append(frame.Body(channel, body[start : start + step]).marshal())
    return b"".join(pieces)


@dataclass(frozen=True)
class Counter:
    """A run of bytes of each unit that spells the unit's number, `bits` bits in each byte."""

    offset: int
    bits: int
    width: int
    alphabet: bytes

    def columns(self) -> Iterator[tuple[int, int]]:
        """Yield (offset in the unit, shift of the number) for each byte of the run."""
        for index in range(self.width):
            yield self.offset + index, self.bits * (self.width - 1 - index)


def binary_counter(unit: bytes) -> Counter:
    """Return the counter of the 64-bit delivery tag in `unit`."""
    return Counter(unit.index(struct.pack(">Q", ACK_TAG)), 8, 8, ALL_BYTES)


def text_counter(unit: bytes) -> Counter:
    """Return the counter of the hexadecimal message_id in `unit`."""
    return Counter(unit.index(MESSAGE_ID.encode()), 4, len(MESSAGE_ID), HEX_DIGITS)


class Train:
    """Stretches of an endless sequence of numbered units, as bytes, built in blocks."""

    def __init__(
        self, unit: bytes, counters: list[Counter], block_bytes: int = BLOCK_BYTES
    ) -> None:
        self.unit_size = len(unit)
        self.per_block = 1
        while self.per_block * 2 * self.unit_size <= block_bytes:
            self.per_block *= 2
        self._block = bytearray(unit * self.per_block)
        self._columns = [
            (offset, shift, counter.bits, counter.alphabet)
            for counter in counters
            for offset, shift in counter.columns()
        ]
        self._first_values = [-1] * len(self._columns)
        self._base = -1

    def stretch(self, first: int, limit: int) -> memoryview:
        """Return units `first`, `first` + 1, ... as one view: at least one and at most `limit`.

        The view shows other units after the next call: use it up before.
        """
        base = first - first % self.per_block
        if base != self._base:
            self._renumber(base)
        start = first - base
        stop = min(self.per_block, start + limit)
        return memoryview(self._block)[start * self.unit_size : stop * self.unit_size]

    def _renumber(self, base: int) -> None:
        for index, (offset, shift, bits, alphabet) in enumerate(self._columns):
            value = (base >> shift) & ((1 << bits) - 1)
            if value != self._first_values[index]:
                self._first_values[index] = value
                self._block[offset :: self.unit_size] = self._column(value, shift, alphabet)
        self._base = base

    def _column(self, value: int, shift: int, alphabet: bytes) -> bytes:
        # Both are powers of two: the byte is the same in the whole block, or it counts evenly.
        run = 1 << shift
        if run >= self.per_block:
            return alphabet[value : value + 1] * self.per_block
        values = [(value + step) % len(alphabet) for step in range(self.per_block // run)]
        return b"".join(alphabet[number : number + 1] * run for number in values)


@dataclass(frozen=True)
class Shape:
    """What a benchmark message looks like."""

    size: int = 100
    properties: str = "usual"
    routing_key: str = "bench"

    def deliveries(self, channel: int, consumer_tag: str, frame_max: int) -> Train:
        """Return the endless train of this message's deliveries to one consumer."""
        deliver = spec.Basic.Deliver(consumer_tag, ACK_TAG, False, "", self.routing_key)
        content = content_frames(
            channel, make_properties(self.properties), make_body(self.size), frame_max
        )
        unit = frame.Method(channel, deliver).marshal() + content
        counters = [binary_counter(unit)]
        if self.properties == "usual":
            counters.append(text_counter(unit))
        return Train(unit, counters)


def acks(channel: int) -> Train:
    """Return the endless train of single acks on `channel`, a consumer's or a broker's."""
    unit = frame.Method(channel, spec.Basic.Ack(ACK_TAG, False)).marshal()
    return Train(unit, [binary_counter(unit)], 32 * 1024)
