"""Subscriptions, readiness, contents that are dropped or too large: the decoder's bookkeeping."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pika import spec

from tests.support import feeding, shape, wire
from tests.support.codecs import PROPERTIES, Direct, Message
from tests.support.oracle import Oracle

HEADER_ONLY = wire.method_frame(1, wire.deliver()) + wire.raw_header(1, 4)


def drain(decoder: Any, octets: bytes) -> list[shape.Shape]:
    return shape.trace(decoder, [octets])


def test_ready_tokens_once_in_order_of_first_message(codec: Any) -> None:
    direct = Direct(codec, (1, "a"), (1, "b"), (2, "a"))
    decoder = direct.decoder
    assert not decoder.ready
    assert decoder.take_ready() == []
    order = [(2, "a"), (1, "b"), (2, "a"), (1, "a"), (1, "b")]
    for channel, tag in order:
        decoder.feed(wire.content(channel, b"x", method=wire.deliver(tag)))
    assert not decoder.ready  # nothing was decoded yet
    assert decoder.next_frame() is None
    assert decoder.ready
    assert decoder.take_ready() == [(2, "a"), (1, "b"), (1, "a")]
    assert not decoder.ready
    assert decoder.take_ready() == []
    drain(decoder, wire.content(1, b"x", method=wire.deliver("b")))
    assert decoder.take_ready() == [(1, "b")]


def test_message_before_the_next_frame(codec: Any) -> None:
    """Messages in front of a frame are in the backlog when that frame is returned, later not."""
    direct = Direct(codec, (1, "ct"))
    stream = wire.content(1, b"1") + wire.HEARTBEAT + wire.content(1, b"2")
    direct.decoder.feed(stream)
    assert direct.decoder.next_frame() is not None
    assert [message.body for message in direct.messages()] == [b"1"]
    assert direct.decoder.take_ready() == [(1, "ct")]
    assert direct.decoder.next_frame() is None
    assert [message.body for message in direct.messages()] == [b"1", b"2"]
    assert direct.decoder.take_ready() == [(1, "ct")]


def test_other_tags_channels_and_methods_come_as_frames(codec: Any) -> None:
    direct = Direct(codec, (1, "ct"))
    stream = (
        wire.content(2, b"x")
        + wire.content(1, b"x", method=wire.deliver("other"))
        + wire.content(1, b"x", method=spec.Basic.GetOk(1, False, "", "ct", 0))
    )
    assert drain(direct.decoder, stream) == Oracle().trace(stream)
    assert direct.messages() == []
    assert direct.decoder.frames_direct == 0


@pytest.mark.parametrize("tag", ["ct", "é€", "", "x" * 255, b"\xff\xfe", b"ct"])
def test_tags(codec: Any, tag: Any) -> None:
    """Text and octets name the same tag where they are the same on the wire."""
    direct = Direct(codec)
    octets = tag.encode() if isinstance(tag, str) else tag
    backlog = codec.Backlog()
    direct.decoder.subscribe(1, tag, backlog, None, None)
    assert drain(direct.decoder, wire.content(1, b"x", method=wire.deliver(octets))) == []  # type: ignore[arg-type]
    assert len(backlog) == 1
    direct.decoder.unsubscribe(1, octets)
    assert len(drain(direct.decoder, wire.content(1, b"x", method=wire.deliver(octets)))) == 3  # type: ignore[arg-type]


def test_unsubscribe_keeps_the_content_that_has_begun(codec: Any) -> None:
    for begun in (
        wire.method_frame(1, wire.deliver()),
        HEADER_ONLY,
        HEADER_ONLY + wire.body_frame(1, b"ab"),
        HEADER_ONLY + wire.body_frame(1, b"abcd")[:9],
    ):
        direct = Direct(codec, (1, "ct"))
        whole = HEADER_ONLY + wire.body_frame(1, b"ab") + wire.body_frame(1, b"cd")
        if not whole.startswith(begun):
            whole = HEADER_ONLY + wire.body_frame(1, b"abcd")
        assert drain(direct.decoder, begun) == []
        direct.decoder.unsubscribe(1, "ct")
        direct.decoder.unsubscribe(1, "ct")
        direct.decoder.unsubscribe(9, "never")
        assert drain(direct.decoder, whole[len(begun) :]) == []
        assert [message.body for message in direct.messages()] == [b"abcd"]
        assert direct.decoder.take_ready() == [(1, "ct")]
        assert len(drain(direct.decoder, wire.content(1, b"x"))) == 3


def test_subscribe_again_replaces(codec: Any) -> None:
    direct = Direct(codec, (1, "ct"))
    drain(direct.decoder, wire.content(1, b"1"))
    second = codec.Backlog()
    direct.decoder.subscribe(1, "ct", second, "again", "token")
    drain(direct.decoder, wire.content(1, b"2"))
    assert [message.body for message in direct.messages()] == [b"1"]
    assert second == [Message("again", wire.deliver(), spec.BasicProperties(), b"2")]
    assert direct.decoder.take_ready() == [(1, "ct"), "token"]


@pytest.mark.parametrize("begun", [wire.method_frame(1, wire.deliver()), HEADER_ONLY])
def test_forget_channel(codec: Any, begun: bytes) -> None:
    direct = Direct(codec, (1, "ct"), (1, "other"), (2, "ct"))
    drain(direct.decoder, wire.content(1, b"before") + begun)
    direct.decoder.forget_channel(1)
    direct.decoder.forget_channel(1)
    direct.decoder.forget_channel(77)
    assert direct.decoder.take_ready() == [(1, "ct")]
    assert [message.body for message in direct.messages()] == [b"before"]
    # The channel number may be used again at once, and other channels go on.
    assert len(drain(direct.decoder, wire.content(1, b"x"))) == 3
    assert drain(direct.decoder, wire.content(2, b"x")) == []
    assert drain(direct.decoder, wire.body_frame(1, b"rest")) == [shape.of_error(505)]


@pytest.mark.parametrize("end", [b"\xce", b"?"])
def test_forget_channel_while_a_body_frame_is_carried(codec: Any, end: bytes) -> None:
    """Nobody takes the content: its frames are kept whole. Its place is judged before its end."""
    decoder = Direct(codec).decoder
    begun = wire.method_frame(1, wire.deliver()) + wire.raw_header(1, 5)
    body = wire.body_frame(1, b"abcde")[:-1] + end
    assert len(drain(decoder, begun + body[:9])) == 2
    decoder.forget_channel(1)
    assert drain(decoder, body[9:]) == [shape.of_error(505)]


def test_a_carried_body_frame_is_refused_as_soon_as_its_channel_has_gone(codec: Any) -> None:
    decoder = Direct(codec).decoder
    begun = wire.method_frame(1, wire.deliver()) + wire.raw_header(1, 5)
    assert len(drain(decoder, begun + wire.body_frame(1, b"abcde")[:9])) == 2
    decoder.forget_channel(1)
    assert drain(decoder, b"") == [shape.of_error(505)]


def test_forget_channel_in_the_middle_of_a_frame(codec: Any) -> None:
    """The rest of a body frame that was begun is of a content that is no more."""
    direct = Direct(codec, (1, "ct"))
    octets = HEADER_ONLY + wire.body_frame(1, b"abcd")
    drain(direct.decoder, octets[:-3])
    direct.decoder.forget_channel(1)
    assert drain(direct.decoder, octets[-3:]) in ([], [shape.of_error(505)])
    assert direct.messages() == []


def test_channel_close_drops_a_direct_content(codec: Any) -> None:
    direct = Direct(codec, (1, "ct"))
    closing = wire.method_frame(1, spec.Channel.Close(404, "x", 0, 0))
    assert len(drain(direct.decoder, HEADER_ONLY + closing)) == 1
    assert direct.messages() == []
    assert not direct.decoder.ready
    assert drain(direct.decoder, wire.content(1, b"x")) == []
    assert len(direct.messages()) == 1


def test_feed_while_draining(codec: Any) -> None:
    direct = Direct(codec, (1, "ct"))
    stream = wire.HEARTBEAT + wire.content(1, b"late")
    direct.decoder.feed(wire.HEARTBEAT * 2 + stream[:12])
    assert direct.decoder.next_frame() is not None
    direct.decoder.feed(stream[12:])
    assert len(list(iter(direct.decoder.next_frame, None))) == 2
    assert [message.body for message in direct.messages()] == [b"late"]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_like_is_copied(codec: Any, kind: Any) -> None:
    direct = Direct(codec, (1, "ct"))
    stream = wire.content(1, b"abc", PROPERTIES)
    buffer = bytearray(stream)
    direct.decoder.feed(buffer if kind is bytearray else kind(buffer))
    buffer[:] = bytes(len(buffer))
    assert direct.decoder.next_frame() is None
    assert direct.messages() == [Message("channel 1", wire.deliver(), PROPERTIES, b"abc")]


@pytest.mark.parametrize("data", [None, "text", 5, [1, 2]])
def test_feed_wants_bytes(decoder: Any, data: Any) -> None:
    with pytest.raises(TypeError):
        decoder.feed(data)
    assert shape.trace(decoder, [wire.HEARTBEAT]) == [("heartbeat", 0)]


# ------------------------------------------------------------------ max_message_size

OVERSIZED = wire.content(1, b"x" * 101, step=40)


@pytest.mark.parametrize("style", ["whole", "every_cut", "byte_by_byte", "trailing"])
def test_oversized_content(codec: Any, style: str) -> None:
    """The body is swallowed, what follows on the channel and beside it is not."""
    stream = wire.content(1, b"y" * 100) + OVERSIZED + wire.HEARTBEAT + wire.content(1, b"after")
    oracle = Oracle(max_message_size=100)
    expected = oracle.trace(stream)
    assert [item[0] for item in expected] == (
        ["method", "header", "body", "method", "oversized", "heartbeat", "method", "header", "body"]
    )
    method = shape.of_method(wire.deliver())
    for chunks in feeding.STYLES[style](stream):
        decoder = codec.FrameDecoder(Message, max_message_size=100)
        assert shape.trace(decoder, chunks) == expected
        assert decoder.frames_direct == 3  # the swallowed bodies: returned by nothing else
        direct = Direct(codec, (1, "ct"), max_message_size=100)
        assert shape.trace(direct.decoder, chunks) == [
            ("oversized", 1, method, 101, 100),
            ("heartbeat", 0),
        ]
        assert [message.body for message in direct.messages()] == [b"y" * 100, b"after"]
        assert direct.decoder.messages_direct == 2
        assert direct.decoder.frames_direct + 2 == len(list(wire.split_frames(stream)))


def test_oversized_content_object(codec: Any) -> None:
    decoder = codec.FrameDecoder(Message, max_message_size=100)
    decoder.feed(OVERSIZED)
    sent = decoder.next_frame().method
    got = decoder.next_frame()
    assert type(got) is codec.OversizedContent
    assert (got.channel_number, got.method, got.body_size, got.limit) == (1, sent, 101, 100)
    assert isinstance(got.method, spec.Basic.Deliver)
    assert repr(got).startswith("<OversizedContent channel_number=1 method=<Basic.Deliver")
    assert repr(got).endswith("body_size=101 limit=100>")


def test_oversized_content_keeps_the_sequence(make_decoder: Callable[..., Any]) -> None:
    begun = (
        wire.method_frame(1, wire.deliver()) + wire.raw_header(1, 200) + wire.body_frame(1, b"a")
    )
    for wrong in (
        wire.body_frame(1, b"b" * 200),
        wire.raw_header(1, 5),
        wire.method_frame(1, wire.deliver()),
    ):
        got = shape.trace(make_decoder(max_message_size=100), [begun + wrong])
        assert got[-1] == shape.of_error(505)
        assert got == Oracle(max_message_size=100).trace(begun + wrong)
    closing = wire.method_frame(1, spec.Channel.CloseOk())
    got = shape.trace(
        make_decoder(max_message_size=100), [begun + closing + wire.content(1, b"ok")]
    )
    assert got[-1] == ("body", 1, ("bytes", b"ok"))


def test_oversized_64_bit_claim(make_decoder: Callable[..., Any]) -> None:
    stream = wire.method_frame(1, wire.deliver()) + wire.raw_header(1, 2**64 - 1)
    for chunks in feeding.every_cut(stream + wire.body_frame(1, b"x" * 50)):
        assert shape.trace(make_decoder(), chunks)[-1][3] == 2**64 - 1


def test_limits_can_be_set_later(make_decoder: Callable[..., Any]) -> None:
    decoder = make_decoder()
    assert decoder.frame_max == 131072
    assert decoder.max_header_size == 1 << 20
    assert decoder.max_message_size == 128 << 20
    assert decoder.max_nesting == 100
    decoder.max_message_size = 3
    decoder.max_nesting = 0
    got = drain(decoder, wire.content(1, b"1234"))
    assert got[-1][0] == "oversized"
    nested = wire.headers_only(wire.sized(wire.entry(b"n", wire.nested(1))))
    assert shape.UNDECODABLE in drain(decoder, wire.content(2, b"", nested))[-1][-1]
    decoder.frame_max = 50
    decoder.max_header_size = 60
    assert len(drain(decoder, wire.raw_frame(8, 0, b"x" * 42))) == 1
    assert len(drain(decoder, wire.method_frame(3, wire.deliver()))) == 1
    assert len(drain(decoder, wire.raw_header(3, 0, bytes(40)))) == 1
    assert drain(decoder, wire.raw_frame(8, 0, b"x" * 43)) == [shape.of_error(501)]


def test_message_is_not_made_through_its_constructor(codec: Any) -> None:
    """As documented: the tuple is filled directly, so overriding __new__ has no effect."""

    class Counting(Message):
        made = 0

        def __new__(cls, *fields: Any) -> Any:
            cls.made += 1
            return super().__new__(cls, *fields)

    decoder = codec.FrameDecoder(Counting)
    backlog = codec.Backlog()
    decoder.subscribe(1, "ct", backlog, "channel", None)
    assert drain(decoder, wire.content(1, b"abc")) == []
    assert type(backlog[0]) is Counting
    assert backlog[0].body == b"abc"
    assert Counting.made == 0


def test_confirms_are_collected_in_front_of_the_next_frame(codec: Any) -> None:
    """They come as frames on other channels, and again once they are not collected any more."""
    decoder, confirms = codec.FrameDecoder(Message), []
    decoder.collect_confirms(1, confirms, "token")
    acks = [spec.Basic.Ack(1, False), spec.Basic.Nack(2, True, False), spec.Basic.Ack(3, True)]
    stream = (
        wire.method_frame(1, acks[0])
        + wire.method_frame(1, acks[1])
        + wire.HEARTBEAT
        + wire.method_frame(2, spec.Basic.Ack(9, False))
        + wire.method_frame(1, acks[2])
    )
    decoder.feed(stream)
    assert type(decoder.next_frame()).__name__ == "Heartbeat"
    assert confirms == acks[:2]
    assert [type(confirm) for confirm in confirms] == [spec.Basic.Ack, spec.Basic.Nack]
    assert decoder.take_ready() == ["token"]
    assert decoder.next_frame().channel_number == 2
    assert decoder.next_frame() is None
    assert confirms == acks
    assert decoder.take_ready() == ["token"]
    assert decoder.frames_direct == 3
    decoder.collect_confirms(1, None, None)
    decoder.feed(wire.method_frame(1, acks[0]))
    assert decoder.next_frame().method == acks[0]
    assert (len(confirms), decoder.take_ready()) == (3, [])


def test_confirms_of_a_forgotten_channel_come_as_frames(codec: Any) -> None:
    decoder, confirms = codec.FrameDecoder(Message), []
    decoder.collect_confirms(1, confirms, "token")
    decoder.forget_channel(1)
    decoder.feed(wire.method_frame(1, spec.Basic.Ack(1, False)))
    assert decoder.next_frame().method == spec.Basic.Ack(1, False)
    assert confirms == []


def test_a_confirm_inside_a_content_is_refused(codec: Any) -> None:
    direct = Direct(codec, (1, "ct"))
    confirms: list[Any] = []
    direct.decoder.collect_confirms(1, confirms, "token")
    direct.decoder.feed(HEADER_ONLY + wire.method_frame(1, spec.Basic.Ack(1, False)))
    with pytest.raises(codec.DecodeError) as caught:
        direct.decoder.next_frame()
    assert caught.value.reply_code == 505
    assert confirms == []


def test_a_burst_ends_with_false(codec: Any) -> None:
    """So that messages can be handed out before the next ones are made."""
    direct = Direct(codec, (1, "ct"))
    direct.decoder.burst = 2
    direct.decoder.feed(wire.content(1, b"x") * 5 + wire.HEARTBEAT)
    seen = []
    while (value := direct.decoder.next_frame()) is not None:
        seen.append((value, len(direct.messages())))
    assert seen[:2] == [(False, 2), (False, 4)]
    assert (type(seen[2][0]).__name__, seen[2][1]) == ("Heartbeat", 5)
    assert len(seen) == 3
