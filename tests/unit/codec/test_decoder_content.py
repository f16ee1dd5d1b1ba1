"""Contents: body sizes at every border, several channels at once, the direct way to a backlog."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pika import frame, spec

from tests.support import feeding, shape, wire
from tests.support.codecs import EXHAUSTIVE, PROPERTIES, Direct, Message, load
from tests.support.oracle import Oracle

FRAME_MAX = 4096
STEP = FRAME_MAX - 8
BORDERS = sorted(
    {0, 1, 2}
    | {times * STEP + delta for times in (1, 2) for delta in (-2, -1, 0, 1, 2)}
    | {times * FRAME_MAX - delta for times in (1, 2) for delta in (9, 8, 7, 0)}
)
CONTENT_METHODS = {
    "deliver": wire.deliver(),
    "get-ok": spec.Basic.GetOk(7, True, "ex", "rk", 3),
    "return": spec.Basic.Return(312, "NO_ROUTE", "ex", "rk"),
    "publish": spec.Basic.Publish(0, "ex", "rk", True, False),
}


def body_of(size: int) -> bytes:
    """Octets that tell where they belong, frame ends among them."""
    return (bytes(range(256)) * (size // 256 + 1))[:size]


def joined_bodies(shapes: list[shape.Shape]) -> bytes:
    return b"".join(item[2][1] for item in shapes if item[0] == "body")


def frames_of(codec: Any, chunks: list[bytes]) -> list[Any]:
    decoder = codec.FrameDecoder(Message)
    frames = []
    for chunk in chunks:
        decoder.feed(chunk)
        frames += list(iter(decoder.next_frame, None))
    return frames


@pytest.mark.parametrize("kind", CONTENT_METHODS)
@pytest.mark.parametrize("size", BORDERS)
def test_body_sizes(make_decoder: Callable[..., Any], size: int, kind: str) -> None:
    stream = wire.content(1, body_of(size), PROPERTIES, CONTENT_METHODS[kind], STEP)
    expected = Oracle(frame_max=FRAME_MAX).trace(stream)
    assert joined_bodies(expected) == body_of(size)
    for chunks in itertools.chain(feeding.whole(stream), feeding.trailing(stream)):
        assert shape.trace(make_decoder(frame_max=FRAME_MAX), chunks) == expected
    chunks = [stream[at : at + 100] for at in range(0, len(stream), 100)]
    assert shape.trace(make_decoder(frame_max=FRAME_MAX), chunks) == expected


@pytest.mark.parametrize("size", BORDERS)
def test_body_sizes_direct(codec: Any, size: int) -> None:
    stream = wire.content(1, body_of(size), PROPERTIES, step=STEP)
    expected = (wire.deliver(), PROPERTIES, body_of(size))
    reads = [1, 7, 100, 4095, 4096, 4097, len(stream)] if size > 2 else range(1, len(stream) + 1)
    for read in reads:
        direct = Direct(codec, (1, "ct"), frame_max=FRAME_MAX)
        for at in range(0, len(stream), read):
            direct.decoder.feed(stream[at : at + read])
            assert direct.decoder.next_frame() is None
            assert direct.decoder.buffered < FRAME_MAX
        (message,) = direct.messages()
        assert type(message) is Message
        assert type(message.body) is bytes
        assert message[1:] == expected
        assert shape.of_message(message)[0] == shape.of_method(expected[0])
        assert message.channel == "channel 1"
        assert direct.decoder.take_ready() == [(1, "ct")]
        assert direct.decoder.messages_direct == 1
        assert direct.decoder.frames_direct == len(list(wire.split_frames(stream)))


@pytest.mark.parametrize("cut", ["every_cut", "byte_by_byte", "small_reads", "trailing"])
def test_small_content_any_feeding(codec: Any, cut: str) -> None:
    """Frames with empty bodies in between; direct and frame by frame."""
    stream = (
        wire.method_frame(1, wire.deliver())
        + wire.raw_header(1, 5, b"".join(PROPERTIES.encode()), weight=99)
        + wire.body_frame(1, b"")
        + wire.body_frame(1, b"ab")
        + wire.HEARTBEAT
        + wire.body_frame(1, b"")
        + wire.body_frame(1, b"cde")
    )
    expected = Oracle().trace(stream)
    for chunks in feeding.STYLES[cut](stream):
        assert shape.trace(codec.FrameDecoder(Message), chunks) == expected
        direct = Direct(codec, (1, "ct"))
        assert shape.trace(direct.decoder, chunks) == [("heartbeat", 0)]
        assert direct.messages() == [Message("channel 1", wire.deliver(), PROPERTIES, b"abcde")]
        assert direct.decoder.frames_direct == 6


def interleaved(rng: random.Random, channels: int, messages: int) -> tuple[bytes, list[int]]:
    """Contents on several channels, their frames shuffled, each channel in order."""
    queues = []
    for channel in range(1, channels + 1):
        frames: list[bytes] = []
        for number in range(messages):
            body = rng.randbytes(rng.choice([0, 1, 30, 300]))
            method = wire.deliver(f"tag-{number % 2}", number + 1)
            frames += wire.split_frames(wire.content(channel, body, PROPERTIES, method, step=64))
        queues.append(frames)
    order = []
    stream = b""
    while any(queues):
        position = rng.choice([index for index, frames in enumerate(queues) if frames])
        order.append(position + 1)
        stream += queues[position].pop(0)
        if rng.random() < 0.1:
            stream += wire.HEARTBEAT
    return stream, order


@pytest.mark.parametrize("seed", range(10))
def test_interleaved_channels(codec: Any, seed: int) -> None:
    stream, order = interleaved(random.Random(seed), channels=5, messages=4)
    expected = Oracle().trace(stream)
    assert expected[-1][0] != "error"
    assert [item[1] for item in expected if item[0] != "heartbeat"] == order
    for number in range(20):
        chunks = feeding.random_cuts(stream, number)
        assert shape.trace(codec.FrameDecoder(Message), chunks) == expected


def assembled(frames: list[Any], wanted: set[tuple[int, str]]) -> Iterator[tuple[Any, ...]]:
    """Messages put together from frames, as pika's channel does it: (key, method, props, body)."""
    pending: dict[int, list[Any]] = {}
    for item in frames:
        channel = item.channel_number
        if isinstance(item, frame.Method):
            pending[channel] = [item.method, None, b"", 0]
        elif isinstance(item, frame.Header):
            pending[channel][1] = item.properties
            pending[channel][3] = item.body_size
        elif isinstance(item, frame.Body):
            pending[channel][2] += item.fragment
        else:
            continue
        method, properties, body, size = pending[channel]
        if properties is not None and len(body) == size:
            del pending[channel]
            if (channel, method.consumer_tag) in wanted:
                yield (channel, method.consumer_tag), method, properties, body


@pytest.mark.parametrize("seed", range(30 if EXHAUSTIVE else 10))
def test_direct_equals_frame_by_frame(codec: Any, seed: int) -> None:
    """The same stream both ways; tags without a subscription still come as frames."""
    rng = random.Random(seed)
    stream, _ = interleaved(rng, channels=4, messages=6)
    wanted = {(1, "tag-0"), (1, "tag-1"), (2, "tag-0"), (4, "tag-1")}
    chunks = feeding.random_cuts(stream, seed)
    through_frames = list(assembled(frames_of(codec, chunks), wanted))
    direct = Direct(codec, *sorted(wanted))
    others = shape.trace(direct.decoder, chunks)
    for key in wanted:
        expected = [message for message in through_frames if message[0] == key]
        got = list(direct.backlogs[key])
        assert [shape.of_message(message) for message in got] == [
            shape.of_message(message) for message in expected
        ]
        assert got == [(f"channel {key[0]}", *message[1:]) for message in expected]
    total = sum(1 for _ in wire.split_frames(stream))
    assert direct.decoder.frames_direct + len(others) == total
    assert direct.decoder.messages_direct == len(through_frames)
    taken = set().union(*({id(m) for m in backlog} for backlog in direct.backlogs.values()))
    assert len(taken) == len(through_frames)
    method_shapes = [item[2] for item in others if item[0] == "method"]
    assert all(("str", "tag-0") in item or ("str", "tag-1") in item for item in method_shapes)


@pytest.mark.parametrize("name", ["reference", "compiled"])
def test_any_bodies_any_cuts(name: str) -> None:
    codec = load(name)

    @settings(max_examples=150)
    @given(
        st.lists(st.tuples(st.integers(1, 3), st.binary(max_size=400)), min_size=1, max_size=5),
        st.integers(1, 500),
        st.integers(0, 1 << 30),
    )
    def check(messages: list[tuple[int, bytes]], step: int, seed: int) -> None:
        stream = b"".join(wire.content(*message, PROPERTIES, step=step) for message in messages)
        chunks = feeding.random_cuts(stream, seed)
        assert shape.trace(codec.FrameDecoder(Message), chunks) == Oracle().trace(stream)
        direct = Direct(codec, *((channel, "ct") for channel in (1, 2, 3)))
        assert shape.trace(direct.decoder, chunks) == []
        for channel in (1, 2, 3):
            bodies = [message.body for message in direct.messages(channel)]
            assert bodies == [body for number, body in messages if number == channel]

    check()


def test_channel_close_ends_a_content(make_decoder: Callable[..., Any]) -> None:
    for ending in (spec.Channel.Close(404, "gone", 0, 0), spec.Channel.CloseOk()):
        for begun in (
            wire.method_frame(1, wire.deliver()),
            wire.method_frame(1, wire.deliver()) + wire.raw_header(1, 5),
            wire.method_frame(1, wire.deliver()) + wire.raw_header(1, 5) + wire.body_frame(1, b"a"),
        ):
            stream = begun + wire.method_frame(1, ending) + wire.content(1, b"next")
            expected = Oracle().trace(stream)
            assert expected[-1][0] == "body"
            for chunks in feeding.every_cut(stream):
                assert shape.trace(make_decoder(), chunks) == expected


def test_protocol_header(make_decoder: Callable[..., Any]) -> None:
    """A broker that wants another version sends its own first; pika turns 0 into its default."""
    for octets in (wire.PROTOCOL_HEADER, b"AMQP\x00\x01\x00\x00", b"AMQP\x03\x00\x00\x00"):
        expected = [shape.of_frame(frame.decode_frame(octets)[1])]
        for style in ("whole", "every_cut", "byte_by_byte"):
            for chunks in feeding.STYLES[style](octets):
                assert shape.trace(make_decoder(), chunks) == expected
        stream = octets + wire.HEARTBEAT
        assert shape.trace(make_decoder(), [stream]) == [*expected, ("heartbeat", 0)]


def test_heartbeats(make_decoder: Callable[..., Any]) -> None:
    for payload in (b"", b"payload", b"\xce" * 100):
        stream = wire.raw_frame(8, 0, payload) * 3
        for chunks in feeding.every_cut(stream):
            assert shape.trace(make_decoder(), chunks) == [("heartbeat", 0)] * 3
