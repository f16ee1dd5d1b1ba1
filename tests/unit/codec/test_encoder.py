"""Acks, rejects and publishes come out byte for byte as pika marshals them.

For what pika 1.3 and 1.4 refuse or cut, see tests/unit/codec/test_to_wire.py.
"""

from __future__ import annotations

import datetime
import enum
import random
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pika import DeliveryMode, exceptions, frame, spec

from pika_twisted.codec.errors import UnsupportedField
from tests.support import wire
from tests.support.codecs import EXHAUSTIVE, load
from tests.support.pika_versions import LONG, LOWEST, PIKA_KEEPS_LONG
from tests.support.samples import WRONG, WRONG_ARGUMENTS, P, short_text, subset, tables

TAGS = [0, 1, 255, 256, 2**31, 2**32, 2**63, 2**64 - 1]
FRAME_MAX = 4096
STEP = FRAME_MAX - 8


class IntTag(enum.IntEnum):
    SEVEN = 7


class TextValue(str, enum.Enum):
    A = "a"


@pytest.fixture
def output(codec: Any) -> Any:
    return codec.OutputBuffer(frame_max=FRAME_MAX)


def pika_publish(
    channel: int,
    exchange: Any,
    routing_key: Any,
    body: Any,
    properties: Any = None,
    mandatory: bool = False,
    frame_max: int = FRAME_MAX,
) -> bytes:
    """What pika's channel and connection write for basic_publish."""
    body = body.encode() if isinstance(body, str) else body
    method = spec.Basic.Publish(exchange=exchange, routing_key=routing_key, mandatory=mandatory)
    header = frame.Header(channel, len(body), properties or spec.BasicProperties())
    step = frame_max - 8
    fragments = [body[at : at + step] for at in range(0, len(body), step)]
    return b"".join(
        [
            frame.Method(channel, method).marshal(),
            header.marshal(),
            *(frame.Body(channel, fragment).marshal() for fragment in fragments),
        ]
    )


@pytest.mark.parametrize("number", [1, 255, 256, 65535])
def test_acks(output: Any, number: int) -> None:
    encoder = output.channel(number)
    assert encoder.number == number
    expected = b""
    for tag in TAGS:
        for first in (False, True):
            for second in (False, True):
                encoder.ack(tag, first)
                encoder.nack(tag, first, second)
                encoder.reject(tag, first)
                expected += wire.method_frame(number, spec.Basic.Ack(tag, first))
                expected += wire.method_frame(number, spec.Basic.Nack(tag, first, second))
                expected += wire.method_frame(number, spec.Basic.Reject(tag, first))
    assert len(output) == len(expected)
    assert output.frames == 3 * 4 * len(TAGS)
    assert output.take() == expected
    assert len(output) == 0
    assert output.take() == b""
    assert output.frames == 3 * 4 * len(TAGS)


def test_ack_defaults_and_keywords(output: Any) -> None:
    encoder = output.channel(1)
    encoder.ack()
    encoder.nack()
    encoder.reject(1)
    encoder.ack(None)
    encoder.nack(None)
    encoder.ack(delivery_tag=IntTag.SEVEN, multiple=True)
    encoder.nack(delivery_tag=7, multiple=False, requeue=False)
    encoder.reject(delivery_tag=7, requeue=False)
    assert output.take() == b"".join(
        wire.method_frame(1, method)
        for method in (
            spec.Basic.Ack(0),
            spec.Basic.Nack(0),
            spec.Basic.Reject(1),
            spec.Basic.Ack(0),
            spec.Basic.Nack(0),
            spec.Basic.Ack(7, True),
            spec.Basic.Nack(7, False, False),
            spec.Basic.Reject(7, False),
        )
    )


@pytest.mark.parametrize("method", ["ack", "nack", "reject"])
@pytest.mark.parametrize(
    ("tag", "error"),
    [
        (-1, ValueError),
        (2**64, ValueError),
        (2**200, ValueError),
        (True, TypeError),
        (1.0, TypeError),
        ("1", TypeError),
        (b"1", TypeError),
        ([], TypeError),
        (Decimal(1), TypeError),
    ],
)
def test_wrong_tags(output: Any, method: str, tag: Any, error: type[Exception]) -> None:
    encoder = output.channel(1)
    encoder.ack(1)
    before = len(output)
    with pytest.raises(error, match="delivery_tag"):
        getattr(encoder, method)(tag)
    assert len(output) == before
    assert output.frames == 1


@pytest.mark.parametrize(
    "size",
    [0, 1, STEP - 1, STEP, STEP + 1, FRAME_MAX, 2 * STEP - 1, 2 * STEP, 2 * STEP + 1, 100_000],
)
def test_publish_body_sizes(output: Any, size: int) -> None:
    body = random.Random(size).randbytes(size)
    output.channel(5).publish("ex", "rk", body)
    expected = pika_publish(5, "ex", "rk", body)
    assert output.frames == len(list(wire.split_frames(expected)))
    assert output.take() == expected


@pytest.mark.parametrize("own_encode", [False, True])
@pytest.mark.parametrize("frame_max", [4096, 131072])
def test_a_header_frame_above_frame_max_is_refused(
    output: Any, codec: Any, frame_max: int, own_encode: bool
) -> None:
    """A broker closes the connection for it (501), with every channel."""

    class Own(P):
        def encode(self) -> Any:
            return super().encode()

    output.frame_max = frame_max
    encoder = output.channel(1)
    kind = Own if own_encode else P
    longest = frame_max - 8 - 12 - 2 - 4 - 2 - 5  # of the frame, content header, flags and table
    for size in (longest, longest + 1):
        properties = kind(headers={"h": "x" * size})
        if size > longest:
            text = f"properties: a header frame of {frame_max + 1} octets, frame_max is {frame_max}"
            with pytest.raises(ValueError, match=text):
                encoder.publish("", "q", b"body", properties)
            assert (len(output), output.frames) == (0, 3)
        else:
            encoder.publish("", "q", b"body", properties)
            assert output.take() == pika_publish(1, "", "q", b"body", properties)


@pytest.mark.parametrize("frame_max", [9, 10, 100, 4096, 131072])
def test_publish_frame_max_is_settable(output: Any, frame_max: int) -> None:
    output.frame_max = frame_max
    output.channel(1).publish("", "q", b"0123456789" * 50)
    assert output.take() == pika_publish(1, "", "q", b"0123456789" * 50, frame_max=frame_max)


@pytest.mark.parametrize("mandatory", [False, True, 1, 0])
@pytest.mark.parametrize(
    ("exchange", "routing_key"),
    [("", ""), ("é€😀", "rk"), (b"\xff\xfe", b""), ("x" * 255, "y" * 255), ("a\x00b", "é" * 127)],
)
def test_publish_names(output: Any, exchange: Any, routing_key: Any, mandatory: Any) -> None:
    output.channel(1).publish(exchange, routing_key, b"b", None, mandatory)
    assert output.take() == pika_publish(1, exchange, routing_key, b"b", None, mandatory)


BODIES = {
    "text": "é€😀",
    "bytearray": bytearray(b"abc"),
    "memoryview": memoryview(b"abcdef")[2:4],
    "strided memoryview": memoryview(b"abcdef")[::2],
    "subclass of bytes": type("B", (bytes,), {})(b"abc"),
    "subclass of str": type("S", (str,), {})("abc"),
    "array": memoryview(bytearray(8)).cast("I"),
}


@pytest.mark.parametrize("kind", BODIES)
def test_publish_bodies(output: Any, kind: str) -> None:
    body = BODIES[kind]
    octets = body.encode() if isinstance(body, str) else bytes(body)
    output.channel(1).publish("", "q", body)
    assert output.take() == pika_publish(1, "", "q", octets)


def test_publish_copies_at_the_call(output: Any) -> None:
    body = bytearray(b"before")
    properties = spec.BasicProperties(headers={"k": "before"})
    expected = pika_publish(1, "", "q", bytes(body), properties)
    output.held = True
    output.channel(1).publish("", "q", body, properties)
    body[:] = b"after!!"
    properties.headers["k"] = "after"  # type: ignore[index]
    assert output.take() == expected


# ------------------------------------------------------------------ properties

HEADER_VALUES: dict[str, Any] = {
    "text": "é€",
    "octets": b"\xff\x00",
    "booleans": [True, False],
    "integers": [0, -1, 2**31 - 1, -(2**31), 2**31, max(-(2**31) - 1, LOWEST), 2**63 - 1, LOWEST],
    "long": LONG(5) if PIKA_KEEPS_LONG else 5,
    "decimals": [Decimal("3.75"), Decimal(0), Decimal("-1.5"), Decimal("100"), Decimal("1E+2")],
    "moment": datetime.datetime(2023, 11, 14, 22, 13, 20),
    "aware moment": datetime.datetime(2023, 11, 14, tzinfo=datetime.timezone.utc),
    "offset": datetime.datetime(
        2023, 11, 14, tzinfo=datetime.timezone(datetime.timedelta(hours=5))
    ),
    "table": {"a": {"b": {"c": None}}, b"\xff": 1},
    "array": [[], [None, [{}]], "x"],
    "nothing": None,
    "int enum": IntTag.SEVEN,
    "text enum": TextValue.A,
    "subclass of dict": type("D", (dict,), {})({"k": 1}),
    "empty key": {"": 1},
    "key of 255 octets": {"k" * 255: 1},
}


@pytest.mark.parametrize("kind", HEADER_VALUES)
@pytest.mark.parametrize("ours", [False, True])
def test_header_values(codec: Any, output: Any, kind: str, ours: bool) -> None:
    pikas = spec.BasicProperties(headers={"k": HEADER_VALUES[kind], "after": 1})
    properties = codec.BasicProperties(**vars(pikas)) if ours else pikas
    output.channel(1).publish("", "q", b"body", properties)
    assert output.take() == pika_publish(1, "", "q", b"body", pikas)


def test_property_subsets(codec: Any) -> None:
    """Every 5th of the 16,384 subsets (3,277; all exhaustively), as pika's and as our object."""
    output = codec.OutputBuffer()
    encoder = output.channel(1)
    for mask in range(0, 1 << 14, 1 if EXHAUSTIVE else 5):
        pikas = subset(mask, mask & 1)
        expected = pika_publish(1, "", "q", b"", pikas)
        encoder.publish("", "q", b"", pikas)
        assert output.take() == expected
        encoder.publish("", "q", b"", codec.BasicProperties(**vars(pikas)))
        assert output.take() == expected


@pytest.mark.parametrize("touch", ["untouched", "read", "changed"])
def test_forwarding_what_was_received(codec: Any, output: Any, touch: str) -> None:
    sent = subset(0b01_1111_1111_1111, 1)
    decoder = codec.FrameDecoder(tuple)
    decoder.feed(wire.content(1, b"", sent))
    decoder.next_frame()
    received = decoder.next_frame().properties
    if touch == "read":
        assert received.headers == sent.headers
    if touch == "changed":
        received.headers["a"] = sent.headers["a"] = "changed"  # type: ignore[index]
        received.priority = sent.priority = None
    output.channel(1).publish("", "q", b"body", received)
    assert output.take() == pika_publish(1, "", "q", b"body", sent)


def test_other_values_pika_takes(output: Any) -> None:
    for properties in (
        spec.BasicProperties(content_type=b"\xff", message_id=b""),
        spec.BasicProperties(delivery_mode=DeliveryMode.Persistent),
        spec.BasicProperties(delivery_mode=True, priority=IntTag.SEVEN),
        spec.BasicProperties(timestamp=2**64 - 1),
        spec.BasicProperties(headers={}),
    ):
        output.channel(1).publish("", "q", b"", properties)
        assert output.take() == pika_publish(1, "", "q", b"", properties)


class Stamped(spec.BasicProperties):
    """A subclass of somebody's that adds a field when it is sent."""

    def encode(self) -> list[bytes]:
        self.app_id = "stamped"
        return super().encode()


class Duck:
    """No subclass at all."""

    INDEX = spec.BasicProperties.INDEX

    def encode(self) -> list[bytes]:
        return [b"\x80", b"\x00", b"\x01x"]


def test_own_encode_is_honoured(output: Any) -> None:
    output.channel(1).publish("", "q", b"", Stamped(type="t"))
    expected = spec.BasicProperties(type="t", app_id="stamped")
    assert output.take() == pika_publish(1, "", "q", b"", expected)
    output.channel(1).publish("", "q", b"", Duck())
    assert output.take() == pika_publish(1, "", "q", b"", spec.BasicProperties(content_type="x"))


def test_own_encode_may_fail(output: Any) -> None:
    class Failing(spec.BasicProperties):
        def encode(self) -> list[bytes]:
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        output.channel(1).publish("", "q", b"", Failing())
    assert (len(output), output.frames) == (0, 0)


@pytest.mark.parametrize("ours", [False, True])
@pytest.mark.parametrize("name", WRONG_ARGUMENTS)
def test_wrong_arguments(codec: Any, output: Any, name: str, ours: bool) -> None:
    arguments, error, named = WRONG_ARGUMENTS[name]
    if ours and len(arguments) == 4 and isinstance(arguments[3], P):
        arguments = (*arguments[:3], codec.BasicProperties(**vars(arguments[3])))
    encoder = output.channel(1)
    encoder.publish("ex", "rk", b"before")
    before = len(output)
    with pytest.raises(error) as caught:
        encoder.publish(*arguments)
    assert named in str(caught.value)
    assert len(output) == before
    assert output.frames == 3
    encoder.ack(1)
    expected = pika_publish(1, "ex", "rk", b"before") + wire.method_frame(1, spec.Basic.Ack(1))
    assert output.take() == expected


def test_unsupported_fields_are_both(output: Any) -> None:
    with pytest.raises(UnsupportedField) as caught:
        output.channel(1).publish("", "q", b"", P(headers={"k": 1.5j}))
    error = caught.value
    assert isinstance(error, TypeError)
    assert isinstance(error, exceptions.UnsupportedAMQPFieldException)
    assert error.args == (str(error), 1.5j)
    assert "complex" in str(error)
    assert "complex" in repr(error)


def test_endless_headers(output: Any) -> None:
    """A dictionary inside itself: an error as any other, no crash."""
    headers: dict[str, Any] = {}
    headers["self"] = headers
    with pytest.raises((*WRONG, RecursionError)):
        output.channel(1).publish("", "q", b"", P(headers=headers))
    assert len(output) == 0


# ------------------------------------------------------------------ the buffer


def test_whether_to_flush(codec: Any) -> None:
    output = codec.OutputBuffer(limit=1000)
    encoder = output.channel(1)
    assert output.held is False
    assert encoder.ack(1) is True
    assert encoder.publish("", "q", b"") is True
    output.take()
    output.held = True
    assert encoder.ack(1) is False
    assert encoder.nack(1) is False
    assert encoder.reject(1) is False
    assert encoder.publish("", "q", b"") is False
    assert encoder.publish("", "q", b"x" * 1000) is True
    assert encoder.ack(1) is True
    output.take()
    while len(output) + 21 < 1000:
        assert encoder.ack(1) is False
    assert encoder.ack(1) is True
    assert len(output) >= 1000
    output.take()
    assert encoder.ack(1) is False
    output.held = False
    assert encoder.ack(1) is True


def test_a_channel_that_is_not_open_encodes_nothing(output: Any) -> None:
    """The connection says so through ``open``; arguments aren't even looked at then."""
    encoder = output.channel(1)
    assert encoder.open
    encoder.open = False
    output.held = True
    assert encoder.ack(1) is True
    assert encoder.nack(1) is True
    assert encoder.reject(1) is True
    assert encoder.publish(None, None, None) is True
    assert (len(output), output.frames) == (0, 0)
    encoder.open = True
    assert encoder.ack(1) is False
    assert output.frames == 1


def test_defaults(codec: Any) -> None:
    output = codec.OutputBuffer()
    assert (output.frame_max, output.held, output.frames, len(output)) == (131072, False, 0, 0)
    encoder = output.channel(1)
    output.held = True
    assert encoder.publish("", "q", b"x" * 60_000) is False
    assert encoder.publish("", "q", b"x" * 6_000) is True


@pytest.mark.parametrize("before", [0, 1, 21, 1000, 60_000])
@pytest.mark.parametrize("what", ["header", "body", "routing key", "table"])
def test_growing_at_every_border(codec: Any, what: str, before: int) -> None:
    """Every length of one part, in a buffer that is filled otherwise: none grows it too little."""
    sizes = {
        "routing key": range(256),
        "table": range(0, 600, 7),
    }.get(what, [*range(0, 1400, 3), *range(4000, 4200), 70_000])
    for size in sizes:
        output = codec.OutputBuffer(frame_max=131072)
        output.held = True
        encoder = output.channel(1)
        filling = pika_publish(1, "", "", bytes(before), frame_max=131072) if before else b""
        if before:
            encoder.publish("", "", bytes(before))
        key, body, headers = "q", b"", None
        if what == "routing key":
            key = "k" * size
        elif what == "body":
            body = bytes(size)
        elif what == "header":
            headers = {"k": "v" * size}
        else:
            headers = {str(number): None for number in range(size)}
        properties = P(headers=headers)
        encoder.publish("", key, body, properties)
        assert output.take() == filling + pika_publish(
            1, "", key, body, properties, frame_max=131072
        )
        output.channel(1).ack(1)
        assert output.take() == wire.method_frame(1, spec.Basic.Ack(1))


@pytest.mark.parametrize("limit", [1, 20, 21, 22, 100, 65536])
def test_many_small_frames(codec: Any, limit: int) -> None:
    """The buffer grows under acks, whatever its limit; taking starts it anew."""
    output = codec.OutputBuffer(limit=limit)
    output.held = True
    encoder = output.channel(1)
    for count in (1, 2, 3, 100, 5000, 7):
        for tag in range(count):
            encoder.ack(tag)
        expected = b"".join(wire.method_frame(1, spec.Basic.Ack(tag)) for tag in range(count))
        assert output.take() == expected


def test_channels_share_the_buffer_in_order(output: Any) -> None:
    first, second = output.channel(1), output.channel(2)
    second.ack(1)
    first.publish("", "q", b"x")
    second.reject(2)
    assert output.take() == (
        wire.method_frame(2, spec.Basic.Ack(1))
        + pika_publish(1, "", "q", b"x")
        + wire.method_frame(2, spec.Basic.Reject(2))
    )


def test_take_gives_bytes_of_its_own(output: Any) -> None:
    output.channel(1).ack(1)
    taken = output.take()
    assert type(taken) is bytes
    output.channel(1).ack(2)
    assert taken == wire.method_frame(1, spec.Basic.Ack(1))


@pytest.mark.parametrize("name", ["reference", "compiled"])
def test_any_publish(name: str) -> None:
    codec = load(name)
    texts = st.none() | short_text
    octets = st.none() | st.integers(0, 255)
    properties = st.builds(
        P,
        headers=st.none() | tables,
        delivery_mode=octets,
        priority=octets,
        timestamp=st.none() | st.integers(0, 2**64 - 1),
        **dict.fromkeys(("content_type", "reply_to", "message_id", "cluster_id"), texts),
    )

    @settings(max_examples=150)
    @given(short_text, short_text, st.binary(max_size=300), properties, st.integers(9, 200))
    def check(exchange: str, key: str, body: bytes, sent: P, frame_max: int) -> None:
        output = codec.OutputBuffer(frame_max=frame_max)
        expected = pika_publish(3, exchange, key, body, sent, False, frame_max)
        output.channel(3).publish(exchange, key, body, sent)
        assert output.take() == expected
        output.channel(3).publish(exchange, key, body, codec.BasicProperties(**vars(sent)))
        assert output.take() == expected

    check()
