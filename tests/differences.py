"""Where this package's codec decides otherwise than ``pika.frame.decode_frame``, and why.

This is the whole list. The differential tests compare every outcome with the oracle
(tests/support/oracle.py), which is ``decode_frame`` itself, run frame by frame with exactly these
differences put in; whatever isn't listed has to come out as pika has it. Each difference has a
test that it is real (tests/unit/codec/test_decoder_differences.py): pika does otherwise for
its example, ours does as said.

Three kinds:

- FIELDS: a value inside a table is read differently, or refused. Recognised while pika decodes,
  by functions put around its field readers for the time of the call.
- FRAMES: a frame is refused with a reply code. Recognised from its octets and from what came
  before it on its channel, in this order: the first that applies decides the code.
- OBJECTS: what came out is of another class.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from pika import spec

from pika_twisted.codec.values import Timestamp
from tests.support import shape, wire
from tests.support.pika_versions import LONG


@dataclass(frozen=True)
class Difference:
    name: str
    reason: str
    example: bytes  # a stream that shows it
    reply_code: int | None = None
    recognise: Callable[[Seen], bool] | None = None


@dataclass
class Content:
    """What is known of a content on its way in."""

    method: shape.Shape
    missing: int | None = None  # body octets; None until the header has come
    swallowed: bool = False


@dataclass
class Seen:
    """One frame at the head of the stream, as far as it is there."""

    frame_type: int
    channel: int
    size: int
    limit: int
    content: Content | None
    payload: bytes | None = None
    end: int = 0

    @property
    def method_id(self) -> int:
        assert self.payload is not None
        return int.from_bytes(self.payload[:4], "big")

    def is_complete(self, frame_type: int) -> bool:
        return self.payload is not None and self.frame_type == frame_type


def _connection_method_elsewhere(seen: Seen) -> bool:
    of_connection = seen.method_id >> 16 == spec.Connection.INDEX
    return of_connection and seen.channel != 0


def _other_method_on_channel_0(seen: Seen) -> bool:
    of_connection = seen.method_id >> 16 == spec.Connection.INDEX
    return not of_connection and seen.channel == 0


def _interrupts_content(seen: Seen) -> bool:
    ends = (spec.Channel.Close.INDEX, spec.Channel.CloseOk.INDEX)
    return seen.content is not None and seen.method_id not in ends


_METHOD = wire.method_frame(1, wire.deliver())
_CONTENT_START = _METHOD + wire.raw_header(1, 5)

# --------------------------------------------------------------------------- refused frames

# By the seven octets every frame begins with; the payload is never awaited.
ANNOUNCED = [
    Difference(
        "unknown frame type",
        "pika waits for the whole frame, then raises; the type is known at the first octet",
        b"\x05\x00\x00\x7f\xff\xff\xff",
        501,
        lambda seen: seen.frame_type not in (1, 2, 3, 8),
    ),
    Difference(
        "heartbeat on a channel",
        "pika takes it for one of channel 0; the specification (4.2.7) demands a close",
        wire.raw_frame(8, 1, b""),
        501,
        lambda seen: seen.frame_type == 8 and seen.channel != 0,
    ),
    Difference(
        "content on channel 0",
        "pika hands it on and ignores it; channel 0 carries no content",
        wire.raw_header(0, 0),
        501,
        lambda seen: seen.frame_type in (2, 3) and seen.channel == 0,
    ),
    Difference(
        "frame above the limit",
        "pika buffers whatever length the peer claims, up to 4 GiB",
        b"\x01\x00\x01\x7f\xff\xff\xff",
        501,
        lambda seen: seen.size + 8 > seen.limit,
    ),
    Difference(
        "body out of sequence",
        "decode_frame knows no sequence; pika's channel raises AttributeError for it",
        wire.body_frame(1, b"abc"),
        505,
        lambda seen: (
            seen.frame_type == 3 and (seen.content is None or seen.content.missing is None)
        ),
    ),
    Difference(
        "body longer than announced",
        "decode_frame knows no sequence; pika's channel notices after it was buffered",
        _CONTENT_START + wire.body_frame(1, b"abcdef"),
        505,
        lambda seen: (
            seen.frame_type == 3
            and seen.content is not None
            and seen.content.missing is not None
            and seen.size > seen.content.missing
        ),
    ),
]

# When the whole frame is there.
COMPLETE = [
    Difference(
        "wrong frame end",
        "pika raises InvalidFrameError, without a reply code",
        wire.raw_frame(8, 0, b"", end=0),
        501,
        lambda seen: seen.end != wire.FRAME_END,
    ),
    Difference(
        "method frame without an id",
        "pika raises struct.error",
        wire.raw_frame(1, 1, b"\x00\x3c\x00"),
        501,
        lambda seen: seen.is_complete(1) and seen.size < 4,
    ),
    Difference(
        "unknown method",
        "pika raises KeyError",
        wire.raw_method(1, 0x003C00FF),
        540,
        lambda seen: seen.is_complete(1) and seen.method_id not in spec.methods,
    ),
    Difference(
        "Connection method on a channel",
        "decode_frame doesn't look at the channel; pika's connection ignores it",
        wire.raw_method(1, spec.Connection.CloseOk.INDEX),
        503,
        lambda seen: seen.is_complete(1) and _connection_method_elsewhere(seen),
    ),
    Difference(
        "channel's method on channel 0",
        "decode_frame doesn't look at the channel; pika's connection ignores it",
        wire.raw_method(0, spec.Channel.CloseOk.INDEX),
        503,
        lambda seen: seen.is_complete(1) and _other_method_on_channel_0(seen),
    ),
    Difference(
        "method inside a content",
        "decode_frame knows no sequence; pika's channel then mixes two messages' bodies",
        _CONTENT_START + wire.raw_method(1, spec.Basic.CancelOk.INDEX, b"\x00"),
        505,
        lambda seen: seen.is_complete(1) and _interrupts_content(seen),
    ),
    Difference(
        "short content header",
        "pika raises struct.error",
        _METHOD + wire.raw_frame(2, 1, b"\x00\x3c\x00\x00"),
        501,
        lambda seen: seen.is_complete(2) and seen.size < 12,
    ),
    Difference(
        "content header of an unknown class",
        "pika raises KeyError",
        _METHOD + wire.raw_header(1, 0, class_id=61),
        501,
        lambda seen: seen.is_complete(2) and seen.payload[:2] != b"\x00\x3c",  # type: ignore[index]
    ),
    Difference(
        "header out of sequence",
        "decode_frame knows no sequence; pika's channel loses the first content",
        wire.raw_header(1, 0),
        505,
        lambda seen: (
            seen.is_complete(2) and (seen.content is None or seen.content.missing is not None)
        ),
    ),
]

# --------------------------------------------------------------------------- fields


def _in_header(table: bytes) -> bytes:
    return _METHOD + wire.raw_header(1, 0, wire.headers_only(table))


FIELDS = {
    difference.name: difference
    for difference in [
        Difference(
            "float",
            "pika 1.x cuts floats and doubles to integers (3.75 to 3) and fails on nan; "
            "its main branch does not",
            _in_header(wire.sized(wire.entry(b"f", b"d" + struct.pack(">d", 3.75)))),
        ),
        Difference(
            "late timestamp",
            "beyond year 9999 pika 1.x raises; RabbitMQ accepts such messages, for instance with "
            "milliseconds instead of seconds, so they are given as an integer, which is sent as a "
            "timestamp again",
            _in_header(wire.sized(wire.entry(b"t", b"T" + struct.pack(">Q", 1_700_000_000_000)))),
        ),
        Difference(
            "pika 1.3 integers and timestamps",
            "pika 1.3.2 has b and B swapped, l unsigned and timestamps without a time zone; "
            "1.5 marks no 64-bit integers; values don't depend on the pika that is installed: "
            "they are 1.4's",
            _in_header(wire.sized(wire.entry(b"b", b"b\xff"))),
        ),
        Difference(
            "length past the end",
            "pika cuts the string and goes on: a routing key comes out shortened. A length never "
            "reaches past the frame, table or array that holds it",
            wire.raw_method(1, spec.Basic.CancelOk.INDEX, b"\x05abc"),
        ),
        Difference(
            "nested too deep",
            "pika recurses as deep as the peer likes; max_nesting levels (100) are enough",
            _in_header(wire.sized(wire.entry(b"n", wire.nested(101)))),
        ),
        Difference(
            "continued property flags",
            "pika reads 60,000 flag words in 0.4 s; no property is announced beyond the first",
            _METHOD + wire.raw_header(1, 0, b"\x00\x01\x00\x00"),
        ),
        Difference(
            "undecodable properties",
            "pika's connection dies of one message; here reading the bad field raises, the message "
            "is delivered",
            _in_header(wire.sized(wire.entry(b"q", b"?"))),
        ),
        Difference(
            "undecodable arguments",
            "pika raises struct.error and others, without a reply code",
            wire.raw_method(1, spec.Basic.Deliver.INDEX, b"\x00"),
            502,
        ),
        Difference(
            "Connection.UpdateSecret",
            "pika can't decode it: TypeError, and the secret in an attribute of another name",
            wire.method_frame(0, spec.Connection.UpdateSecret("secret", "why")),
        ),
    ]
}


def _timestamp(seconds: int) -> datetime | int:
    late = seconds > 253402300799  # 9999-12-31T23:59:59Z
    return Timestamp(seconds) if late else datetime.fromtimestamp(seconds, timezone.utc)


# Type tags read otherwise than by (some release of) pika: layout, and what the value becomes.
AMENDED: dict[bytes, tuple[str, Callable[[Any], Any]]] = {
    b"f": (">f", float),
    b"d": (">d", float),
    b"b": (">b", int),
    b"B": (">B", int),
    b"l": (">q", LONG),
    b"L": (">q", LONG),
    b"T": (">Q", _timestamp),
}


def amendment(kind: bytes, ours: Any, pika_failed: bool) -> str:
    """Which difference it is when pika reads another value for this tag than ours."""
    if kind in (b"f", b"d"):
        return "float"
    return (
        "late timestamp"
        if pika_failed or isinstance(ours, Timestamp)
        else "pika 1.3 integers and timestamps"
    )


# --------------------------------------------------------------------------- objects

OBJECTS = {
    "light methods": "Basic.Deliver, GetOk and Return come as subclasses of pika's, equal to them",
    "lazy properties": "BasicProperties come as a subclass of pika's, equal to it, that keeps raw",
    "no cyclic collection": "the compiled methods and properties are invisible to the cyclic "
    "collector, so that a long queue costs it nothing; a cycle through an attribute that a user "
    "sets on one of them is never collected",
    "OversizedContent": "comes instead of a header that announces more than max_message_size, its "
    "body frames are swallowed",
}

ALL = [*ANNOUNCED, *COMPLETE, *FIELDS.values()]
