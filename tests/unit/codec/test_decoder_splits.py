"""The outcome doesn't depend on how the octets are cut, nor on what stands behind them.

71 streams, 66 of them one method each: 1,733 splits into two parts, and every pair of cuts makes
54,446 into three (32,080 in the ordinary run, which leaves out the longest stream). The numbers are
asserted below; all of it for each codec.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import corpus, feeding, shape, wire
from tests.support.codecs import EXHAUSTIVE, Direct, Message, load
from tests.support.oracle import Oracle

STREAMS = corpus.streams()
Chunkings = Callable[[bytes], Any]


def check_chunkings(codec: Any, chunkings: Chunkings, streams: dict[str, bytes] = STREAMS) -> int:
    """Feed every stream in every way; how many there were."""
    count = 0
    for name, stream in streams.items():
        expected = Oracle().trace(stream)
        assert expected[-1][0] != "error", name
        for chunks in chunkings(stream):
            assert shape.trace(codec.FrameDecoder(Message), chunks) == expected, (name, chunks)
            count += 1
    return count


def test_every_cut_in_two(codec: Any) -> None:
    # Lower bounds here and below: an empty generator would pass without them.
    assert check_chunkings(codec, feeding.every_cut) > 1_000


def test_every_cut_in_three(codec: Any) -> None:
    if EXHAUSTIVE:
        assert check_chunkings(codec, feeding.three_parts) > 30_000
    else:
        short = {name: stream for name, stream in STREAMS.items() if len(stream) < 200}
        assert check_chunkings(codec, feeding.three_parts, short) > 20_000


def test_byte_by_byte_and_small_reads(codec: Any) -> None:
    assert check_chunkings(codec, feeding.byte_by_byte) == len(STREAMS)
    assert check_chunkings(codec, feeding.small_reads) == 8 * len(STREAMS)


def test_every_cut_direct(codec: Any) -> None:
    """The same for contents that go to a backlog, in two and three parts."""
    stream = wire.content(1, b"body", corpus.ALL_PROPERTIES)
    frames = shape.trace(codec.FrameDecoder(Message), [stream])
    count = 0
    for chunkings in (feeding.every_cut, feeding.three_parts, feeding.small_reads):
        for chunks in chunkings(stream):
            direct = Direct(codec, (1, "ct"))
            assert shape.trace(direct.decoder, chunks) == []
            (message,) = direct.messages()
            assert shape.of_message(message) == (frames[0][2], frames[1][3], ("bytes", b"body"))
            count += 1
    assert count > 7_000


def test_feeding_everything_before_draining(codec: Any) -> None:
    """Chunks that pile up undrained are no other case."""
    for name, stream in STREAMS.items():
        expected = Oracle().trace(stream)
        for seed in range(20):
            decoder = codec.FrameDecoder(Message)
            for chunk in feeding.random_cuts(stream, seed):
                decoder.feed(chunk)
            assert shape.drained(decoder) == expected, name
            assert decoder.buffered == 0


def test_empty_chunks(codec: Any) -> None:
    for stream in STREAMS.values():
        decoder = codec.FrameDecoder(Message)
        chunks = [b"", *(stream[at : at + 1] for at in range(len(stream))), b""]
        interspersed = [piece for chunk in chunks for piece in (chunk, b"")]
        assert shape.trace(decoder, interspersed) == Oracle().trace(stream)


def first_frame(codec: Any, octets: bytes) -> Any:
    """The shape of what comes first out of a decoder, and how many octets are left behind it."""
    decoder = codec.FrameDecoder(Message)
    decoder.feed(octets)
    try:
        item = decoder.next_frame()
    except Exception as error:
        return type(error).__name__, getattr(error, "reply_code", None)
    return None if item is None else shape.of_frame(item)


SUFFIXES = [b"\x00" * 40, b"\xff" * 40, b"\xce" * 40, wire.HEARTBEAT]


@pytest.mark.parametrize("suffix", SUFFIXES, ids=["00", "ff", "ce", "heartbeat"])
def test_bytes_after_a_frame_do_not_matter(codec: Any, suffix: bytes) -> None:
    """Good frames, and frames whose arguments were cut: the octets behind don't fill the gap.

    An over-read of one octet past the end of a bytes object meets its terminating NUL, which no
    sanitizer sees; octets behind it in the same chunk are another value.
    """
    for name, octets in corpus.method_frames().items():
        channel, payload = int.from_bytes(octets[1:3], "big"), octets[7:-1]
        for size in range(len(payload) + 1):
            cut = wire.raw_frame(1, channel, payload[:size])
            expected = first_frame(codec, cut)
            assert first_frame(codec, cut + suffix) == expected, (name, size)
            assert first_frame(codec, b"".join([cut, suffix])[: len(cut) + 1]) == expected


@pytest.mark.parametrize("suffix", SUFFIXES, ids=["00", "ff", "ce", "heartbeat"])
def test_bytes_after_properties_do_not_matter(codec: Any, suffix: bytes) -> None:
    start = wire.method_frame(1, wire.deliver())
    every_field = wire.headers_only(wire.sized(corpus.EVERY_FIELD))
    for raw in (corpus.ALL_PROPERTIES, every_field):
        for size in range(len(raw) + 1):
            stream = start + wire.raw_header(1, 0, raw[:size])
            expected = Oracle().trace(stream)
            assert expected[-1][0] == "header"
            decoder = codec.FrameDecoder(Message)
            decoder.feed(stream + suffix)
            decoder.next_frame()
            assert shape.of_frame(decoder.next_frame()) == expected[-1], size


@pytest.mark.parametrize("name", ["reference", "compiled"])
def test_any_streams_any_cuts(name: str) -> None:
    codec = load(name)
    parts = [octets for key, octets in STREAMS.items() if key not in UNFINISHED]

    @settings(max_examples=300)
    @given(st.lists(st.sampled_from(parts), min_size=1, max_size=8), st.integers(0, 1 << 30))
    def check(chosen: list[bytes], seed: int) -> None:
        stream = b"".join(chosen)
        expected = Oracle().trace(stream)
        chunks = feeding.random_cuts(stream, seed)
        assert shape.trace(codec.FrameDecoder(Message), chunks) == expected

    check()


# Streams that can't stand in front of others: a content without its header, a protocol header.
UNFINISHED = {"Basic.Deliver", "Basic.GetOk", "Basic.Return", "Basic.Publish", "protocol header"}


def test_random_octets(codec: Any) -> None:
    """Noise, and noise behind good frames, gives what the oracle says, in every cut."""
    import random

    rng = random.Random(20)
    good = list(STREAMS.values())
    for _ in range(3000 if EXHAUSTIVE else 600):
        noise = rng.randbytes(rng.randrange(1, 60))
        if rng.random() < 0.5:
            noise = bytes([rng.choice([1, 2, 3, 8])]) + b"\x00\x01\x00\x00\x00" + noise
        stream = rng.choice(good) + noise
        expected = Oracle().trace(stream)
        for seed in range(3):
            chunks = feeding.random_cuts(stream, seed)
            assert shape.trace(codec.FrameDecoder(Message), chunks) == expected, stream
