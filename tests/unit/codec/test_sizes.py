"""Sizes that a peer claims and limits that a user sets, up to what 32 and 64 bits can hold.

On a 32-bit Python these are the borders of Py_ssize_t; on a 64-bit one the same claims are refused
by the limits, or waited for.
"""

from __future__ import annotations

import struct
import sys
import tracemalloc
from typing import Any

import pytest

from tests.support import wire
from tests.support.codecs import Message, load

LARGEST = sys.maxsize - 1024
CLAIMS = [2**31 - 9, 2**31 - 8, 2**31 - 1, 2**31, 2**31 + 8, 2**32 - 9, 2**32 - 8, 2**32 - 1]
IN_ONE_HAND = sys.maxsize > 2**32  # a size with its frame around it, whatever the wire says


def started(codec: Any, **limits: int) -> Any:
    decoder = codec.FrameDecoder(Message, **limits)
    decoder.feed(wire.raw_frame(8, 0, b"") + wire.method_frame(1, wire.deliver()))
    assert decoder.next_frame() is not None
    assert decoder.next_frame() is not None
    return decoder


def outcome(decoder: Any) -> Any:
    try:
        return decoder.next_frame()
    except Exception as error:
        return getattr(error, "reply_code", repr(error))


@pytest.mark.parametrize("claim", CLAIMS)
@pytest.mark.parametrize("kind", [1, 2])
def test_a_frame_that_claims_as_much_as_a_size_can_hold(codec: Any, kind: int, claim: int) -> None:
    decoder = started(codec, frame_max=2**33, max_header_size=2**33)
    decoder.feed(struct.pack(">BHI", kind, 1, claim) + bytes(50))
    assert outcome(decoder) == (None if claim + 8 <= decoder.frame_max else 501)
    if IN_ONE_HAND:
        assert decoder.buffered == 57


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_body_frame_that_claims_as_much(codec: Any, claim: int) -> None:
    decoder = started(codec, frame_max=2**33, max_message_size=2**62)
    decoder.feed(wire.raw_header(1, min(2**40, LARGEST)))
    assert decoder.next_frame() is not None
    decoder.feed(struct.pack(">BHI", 3, 1, claim) + bytes(50))
    assert outcome(decoder) in (None, 501, 505)


@pytest.mark.parametrize("claim", [*CLAIMS, 2**64 - 1])
def test_a_body_that_is_announced_as_long_as_can_be(codec: Any, claim: int) -> None:
    """What can't be held is refused like a body above the limit."""
    decoder = started(codec, max_message_size=2**64 - 1)
    decoder.feed(wire.raw_header(1, claim) + wire.raw_frame(3, 1, b"x" * 100))
    first = decoder.next_frame()
    assert isinstance(first, codec.OversizedContent) is (claim > LARGEST)
    assert decoder.max_message_size == LARGEST


@pytest.mark.parametrize("claim", CLAIMS)
@pytest.mark.parametrize("tag", [b"S", b"x", b"F", b"A"])
def test_a_field_that_claims_as_much(codec: Any, tag: bytes, claim: int) -> None:
    decoder = started(codec)
    field = b"\x01k" + tag + struct.pack(">I", claim) + b"abc"
    raw = struct.pack(">HI", 0x2000, len(field)) + field
    decoder.feed(wire.raw_header(1, 0, raw))
    with pytest.raises(Exception, match=r"headers can't be decoded: .* passes the end"):
        decoder.next_frame().properties.headers


@pytest.mark.parametrize("value", [2**31, 2**33, 2**63, 2**64, 2**70])
def test_limits_are_clamped_to_what_can_be_held(codec: Any, value: int) -> None:
    decoder = codec.FrameDecoder(
        Message, frame_max=value, max_header_size=value, max_message_size=value
    )
    largest_frame = min(LARGEST, 2**32 + 7)
    assert decoder.frame_max == decoder.max_header_size == min(value, largest_frame)
    assert decoder.max_message_size == min(value, LARGEST)
    output = codec.OutputBuffer(frame_max=value, limit=value)
    assert output.frame_max == min(value, largest_frame)
    assert output.limit == min(value, LARGEST // 2)


@pytest.mark.parametrize("value", [-1, 0, 8])
def test_an_output_frame_has_room_for_a_body(codec: Any, value: int) -> None:
    with pytest.raises(ValueError, match="frame_max must be more than 8"):
        codec.OutputBuffer(frame_max=value)


@pytest.mark.skipif(sys.maxsize > 2**32, reason="it takes 31 bits to have a sum that overflows")
@pytest.mark.parametrize("size", [2**31 // 9 + 1, 0x1CCCCCCD])
def test_frames_longer_than_any_buffer(size: int) -> None:
    """Each byte of a body in a frame of its own: nine times as much.

    Not for the reference, which would make hundreds of millions of objects.
    """
    output = load("compiled").OutputBuffer(frame_max=9)
    with pytest.raises(MemoryError):
        output.channel(1).publish("", "q", bytes(size))
    assert (len(output), output.frames) == (0, 0)
    output.channel(1).ack(1)
    assert len(output) == 21


@pytest.mark.parametrize("end", ["idle", "another in parts"])
def test_a_long_frame_in_parts_leaves_no_large_buffer(codec: Any, end: str) -> None:
    """It used to stay for the connection's life: 900 KB for each that saw such a header."""
    field = b"\x01kS" + struct.pack(">I", 899_999) + bytes(899_999)
    frame = wire.raw_header(1, 0, struct.pack(">HI", 0x2000, len(field)) + field)
    decoder = started(codec)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for begin in range(0, len(frame), 60_000):
            decoder.feed(frame[begin : begin + 60_000])
            result = decoder.next_frame()
        assert len(result.properties.headers["k"]) == 899_999
        del result
        assert decoder.next_frame() is None
        if end == "another in parts":
            decoder.feed(wire.raw_frame(8, 0, b"")[:5])
            assert decoder.next_frame() is None
        assert tracemalloc.get_traced_memory()[0] - before < 300_000
    finally:
        tracemalloc.stop()
