"""Bytes that break the protocol: the right reply code, at the right octet, good frames first.

The table is ROBUSTNESS's, as far as it is the codec's matter, plus the order of the checks where a
frame is wrong in more than one way (tests/unit/conftest.py).
"""

from __future__ import annotations

import copy
import pickle
import struct
from collections.abc import Callable
from typing import Any

import pytest
from pika import exceptions, spec

from tests.support import feeding, shape, wire
from tests.support.bad_bytes import BEGUN, DELIVER, REFUSED
from tests.support.codecs import Direct
from tests.support.oracle import Oracle

# What comes before every bad frame besides its own prefix: as if from an ordinary session.
GOOD = wire.HEARTBEAT + wire.content(2, b"good") + wire.method_frame(9, spec.Channel.OpenOk(""))


@pytest.mark.parametrize("style", ["whole", "every_cut", "byte_by_byte", "small_reads", "trailing"])
@pytest.mark.parametrize("name", REFUSED)
def test_refused(make_decoder: Callable[..., Any], name: str, style: str) -> None:
    before, bad, reply_code = REFUSED[name]
    for good in (b"", GOOD):
        if name == "protocol header mid-stream":
            good = GOOD
        oracle = Oracle()
        expected = oracle.trace(good + before)
        assert not any(item[0] == "error" for item in expected)
        expected.append(shape.of_error(reply_code))
        assert Oracle().trace(good + before + bad) == expected
        for chunks in feeding.STYLES[style](good + before + bad):
            decoder = make_decoder()
            assert shape.trace(decoder, chunks) == expected, chunks
            assert decoder.buffered == 0


def failure_of(decoder: Any) -> Any:
    """The error that ends what the decoder has."""
    with pytest.raises(exceptions.ProtocolSyntaxError) as caught:
        all(iter(decoder.next_frame, None))
    return caught.value


@pytest.mark.parametrize("name", REFUSED)
def test_stays_failed(make_decoder: Callable[..., Any], name: str) -> None:
    before, bad, reply_code = REFUSED[name]
    decoder = make_decoder()
    decoder.feed(wire.HEARTBEAT + before + bad + GOOD)
    errors = []
    for _ in range(3):
        errors.append(failure_of(decoder))
        decoder.feed(GOOD)
        assert decoder.buffered == 0
    assert {(error.reply_code, error.reply_text) for error in errors} == {
        (reply_code, errors[0].reply_text)
    }
    # Not one object raised again and again, whose traceback would grow.
    assert len({id(error) for error in errors}) == 3
    assert not decoder.ready


def test_the_exception(make_decoder: Callable[..., Any]) -> None:
    from pika_twisted.codec.errors import DecodeError

    decoder = make_decoder()
    decoder.feed(wire.raw_method(1, 0x003C0000))
    with pytest.raises(DecodeError) as caught:
        decoder.next_frame()
    error = caught.value
    assert error.args == (540, error.reply_text)
    assert error.reply_code == 540
    assert isinstance(error, exceptions.AMQPError)
    assert str(540) in str(error) and error.reply_text in str(error)
    assert "540" in repr(error)
    for same in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(same) is DecodeError
        assert same.args == error.args
        assert (same.reply_code, same.reply_text) == (540, error.reply_text)


def test_reply_texts_fit_the_wire(make_decoder: Callable[..., Any]) -> None:
    """Connection.Close carries the text in a short string, of 255 octets at most."""
    for before, bad, _ in REFUSED.values():
        decoder = make_decoder()
        decoder.feed(wire.HEARTBEAT + before + bad)
        assert 0 < len(failure_of(decoder).reply_text.encode()) <= 255


# ------------------------------------------------------------------ when it is refused

EARLY = {
    # By the first octet at the latest by the seventh.
    "unknown frame type": (b"", b"\x07\x00\x00\x00\x00\x00\x00"),
    "oversized method": (b"", b"\x01\x00\x01\xff\xff\xff\xff"),
    "oversized heartbeat": (b"", b"\x08\x00\x00\xff\xff\xff\xff"),
    "oversized header": (DELIVER, b"\x02\x00\x01\xff\xff\xff\xff"),
    "oversized body": (DELIVER + wire.raw_header(1, 1 << 40), b"\x03\x00\x01\xff\xff\xff\xff"),
    "header on channel 0": (b"", b"\x02\x00\x00\x00\x00\x00\x0e"),
    "heartbeat on a channel": (b"", b"\x08\x00\x01\x00\x00\x00\x00"),
    "body out of sequence": (b"", b"\x03\x00\x01\x00\x00\x00\x05"),
    "body too long": (BEGUN, b"\x03\x00\x01\x00\x00\x00\x06"),
}


@pytest.mark.parametrize("name", EARLY)
def test_refused_at_the_seventh_octet(make_decoder: Callable[..., Any], name: str) -> None:
    before, seven = EARLY[name]
    oracle = Oracle(max_message_size=1 << 41)
    decoder = make_decoder(max_message_size=1 << 41)
    assert shape.trace(decoder, [before]) == oracle.trace(before)
    got = shape.trace(decoder, [seven[at : at + 1] for at in range(7)])
    assert [item[0] for item in got] == ["error"]


@pytest.mark.parametrize("limit", [4096, 8192, 131072])
def test_limit_is_the_whole_frame(make_decoder: Callable[..., Any], limit: int) -> None:
    """frame_max counts the eight octets around the payload (AMQP 0-9-1, 4.2.3)."""
    limits = {"frame_max": limit, "max_header_size": 0, "max_message_size": 1 << 30}
    begun = DELIVER + wire.raw_header(1, 1 << 20)
    header_fill = wire.headers_only(wire.sized(wire.entry(b"k", b"S" + wire.sized(b"x" * 10))))
    fitting = {
        "method": (b"", wire.raw_method(1, spec.Basic.CancelOk.INDEX, bytes(limit - 8 - 4))),
        "heartbeat": (b"", wire.raw_frame(8, 0, bytes(limit - 8))),
        "body": (begun, wire.body_frame(1, bytes(limit - 8))),
        "header": (DELIVER, wire.raw_header(1, 0, header_fill.ljust(limit - 8 - 12, b"\0"))),
    }
    for before, octets in fitting.values():
        assert len(octets) == limit
        got = shape.trace(make_decoder(**limits), [before + octets])
        assert got == Oracle(**limits).trace(before + octets)
        assert got[-1][0] != "error"
        size = struct.pack(">I", limit - 7)
        longer = before + octets[:3] + size + octets[7:-1] + b"\0\xce"
        assert shape.trace(make_decoder(**limits), [longer])[-1] == shape.of_error(501)


def test_headers_have_their_own_limit(make_decoder: Callable[..., Any]) -> None:
    """RabbitMQ was seen to send an 83,916-octet header frame at a negotiated 4,096."""
    value = b"S" + wire.sized(b"x" * 83_000)
    big = wire.raw_header(1, 3, wire.headers_only(wire.sized(wire.entry(b"k", value))))
    stream = DELIVER + big + wire.body_frame(1, b"abc")
    for at in (1, 7, 100, len(DELIVER) + 9, len(DELIVER) + 4096):
        got = shape.trace(make_decoder(frame_max=4096), [stream[:at], stream[at:]])
        assert [item[0] for item in got] == ["method", "header", "body"]
    limits = {"frame_max": 4096, "max_header_size": len(big) - 1}
    assert shape.trace(make_decoder(**limits), [stream])[-1] == shape.of_error(501)
    limits = {"frame_max": len(big), "max_header_size": 10}
    assert shape.trace(make_decoder(**limits), [stream])[-1][0] == "body"


# ------------------------------------------------------------------ direct deliveries

CONTENT_REFUSED = [name for name, (_, _, code) in REFUSED.items() if code in (501, 505)]


@pytest.mark.parametrize("style", ["whole", "every_cut", "byte_by_byte"])
@pytest.mark.parametrize("name", CONTENT_REFUSED)
def test_refused_in_a_direct_content(codec: Any, name: str, style: str) -> None:
    """The same codes, the messages before it delivered, the broken one never."""
    before, bad, reply_code = REFUSED[name]
    good = wire.content(1, b"good") + wire.HEARTBEAT
    whole_before = before.count(b"abcde") + (1 if name == "body of an empty content" else 0)
    for chunks in feeding.STYLES[style](good + before + bad):
        direct = Direct(codec, (1, "ct"))
        got = shape.trace(direct.decoder, chunks)
        assert got[-1] == shape.of_error(reply_code)
        bodies = [message.body for message in direct.messages()]
        assert bodies[0] == b"good"
        assert len(bodies) == 1 + whole_before
        assert direct.decoder.take_ready() == [(1, "ct")]
        with pytest.raises(exceptions.ProtocolSyntaxError):
            direct.decoder.next_frame()


# ------------------------------------------------------------------ bounded buffering


def test_partial_frames_are_all_that_is_buffered(make_decoder: Callable[..., Any]) -> None:
    stream = wire.content(1, b"x" * 9000, step=4000) + wire.HEARTBEAT
    for size in (1, 3, 1000, 4096):
        decoder = make_decoder(frame_max=4096)
        frames_done = 0
        seen = 0
        for at in range(0, len(stream), size):
            decoder.feed(stream[at : at + size])
            frames_done += len(shape.drained(decoder))
            seen = min(at + size, len(stream))
            consumed = len(b"".join(list(wire.split_frames(stream))[:frames_done]))
            assert decoder.buffered == seen - consumed
        assert decoder.buffered == 0


def test_direct_bodies_are_not_buffered(codec: Any) -> None:
    """They stream into the message: at most a frame is ever held beside it."""
    direct = Direct(codec, (1, "ct"))
    stream = wire.content(1, bytes(1 << 20))
    for at in range(0, len(stream), 50_000):
        direct.decoder.feed(stream[at : at + 50_000])
        assert direct.decoder.next_frame() is None
        assert direct.decoder.buffered <= 131072
    assert len(direct.messages()) == 1
    assert direct.decoder.buffered == 0


def test_nothing_is_kept_after_an_error(make_decoder: Callable[..., Any]) -> None:
    decoder = make_decoder()
    decoder.feed(b"\x07" + bytes(1 << 20))
    assert shape.drained(decoder) == [shape.of_error(501)]
    for _ in range(100):
        decoder.feed(bytes(1 << 20))
        assert decoder.buffered == 0
