"""Octets that break the protocol, and message properties that lie: what the codec has to judge.

Data only: the codec's tests feed it to decoders, `bad_talks` sends it to connections.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

from pika import spec

from pika_twisted.codec.values import Timestamp
from tests.support import wire

DELIVER = wire.method_frame(1, wire.deliver())
BEGUN = DELIVER + wire.raw_header(1, 5)
HALF = BEGUN + wire.body_frame(1, b"ab")
TUNE = struct.pack(">I", spec.Connection.Tune.INDEX)

# name -> (good octets in front, bad ones, reply code)
REFUSED: dict[str, tuple[bytes, bytes, int]] = {
    # 501 FRAME_ERROR
    "wrong end of a method": (b"", wire.raw_frame(1, 0, TUNE + bytes(8), end=0xCD), 501),
    "wrong end of a header": (DELIVER, wire.raw_header(1, 0)[:-1] + b"\x00", 501),
    "wrong end of a body": (BEGUN, wire.body_frame(1, b"abcde")[:-1] + b"\xcf", 501),
    "wrong end of a heartbeat": (b"", wire.HEARTBEAT[:-1] + b"\x00", 501),
    "frame type 0": (b"", wire.raw_frame(0, 0, b""), 501),
    "frame type 4": (b"", wire.raw_frame(4, 0, b""), 501),
    "frame type 255": (b"", wire.raw_frame(255, 1, b"abc"), 501),
    "an HTTP reply": (b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", 501),
    "almost a protocol header": (b"", b"AMQX\x00\x00\x09\x01", 501),
    "a TLS alert": (b"", b"\x15\x03\x01\x00\x02\x02\x28", 501),
    "empty method frame": (b"", wire.raw_frame(1, 1, b""), 501),
    "method frame of 3 octets": (b"", wire.raw_frame(1, 1, b"\x00\x3c\x00"), 501),
    "protocol header mid-stream": (b"", wire.PROTOCOL_HEADER, 501),
    "header of class 0": (DELIVER, wire.raw_header(1, 0, class_id=0), 501),
    "header of class 50": (DELIVER, wire.raw_header(1, 0, class_id=50), 501),
    "header of 11 octets": (DELIVER, wire.raw_frame(2, 1, bytes(11)), 501),
    "empty header": (DELIVER, wire.raw_frame(2, 1, b""), 501),
    "heartbeat on channel 1": (b"", wire.raw_frame(8, 1, b""), 501),
    "heartbeat on channel 65535": (b"", wire.raw_frame(8, 65535, b"x"), 501),
    "content header on channel 0": (b"", wire.raw_header(0, 5), 501),
    "body on channel 0": (b"", wire.body_frame(0, b"x"), 501),
    "method above frame_max": (b"", b"\x01\x00\x01" + struct.pack(">I", 131072 - 7), 501),
    "heartbeat above frame_max": (b"", b"\x08\x00\x00\xff\xff\xff\xff", 501),
    "body above frame_max": (
        DELIVER + wire.raw_header(1, 1 << 20),
        b"\x03\x00\x01" + struct.pack(">I", 131072 - 7),
        501,
    ),
    "header above its limit": (
        DELIVER,
        b"\x02\x00\x01" + struct.pack(">I", (1 << 20) - 7),
        501,
    ),
    # 502 SYNTAX_ERROR
    "no arguments": (b"", wire.raw_method(1, spec.Basic.Deliver.INDEX), 502),
    "cut short string": (b"", wire.raw_method(1, spec.Basic.CancelOk.INDEX, b"\x04abc"), 502),
    "cut integer": (b"", wire.raw_method(1, spec.Basic.Ack.INDEX, b"\x00" * 7), 502),
    "cut routing key": (
        b"",
        wire.raw_method(1, spec.Basic.Deliver.INDEX, b"\x01c" + bytes(9) + b"\x01e\x05key"),
        502,
    ),
    "cut long string": (
        b"",
        wire.raw_method(0, spec.Connection.Secure.INDEX, struct.pack(">I", 4) + b"abc"),
        502,
    ),
    "4 GiB long string": (
        b"",
        wire.raw_method(0, spec.Connection.Secure.INDEX, b"\xff\xff\xff\xff" + b"abc"),
        502,
    ),
    "table past the end": (
        b"",
        wire.raw_method(0, spec.Connection.Start.INDEX, b"\x00\x09\x00\x00\x00\x05\x01aV"),
        502,
    ),
    "unknown field type": (
        b"",
        wire.raw_method(
            0,
            spec.Connection.Start.INDEX,
            b"\x00\x09" + wire.sized(wire.entry(b"a", b"?")) + bytes(8),
        ),
        502,
    ),
    # 540 NOT_IMPLEMENTED
    "unknown method": (b"", wire.raw_method(1, 0x003C0000), 540),
    "unknown class": (b"", wire.raw_method(1, 0x00010001), 540),
    "unknown method of Connection": (b"", wire.raw_method(0, 0x000A0001), 540),
    # 503 COMMAND_INVALID
    "Connection.Tune on channel 1": (b"", wire.raw_method(1, spec.Connection.Tune.INDEX), 503),
    "Channel.OpenOk on channel 0": (
        b"",
        wire.method_frame(0, spec.Channel.OpenOk("")),
        503,
    ),
    "Basic.Deliver on channel 0": (b"", wire.method_frame(0, wire.deliver()), 503),
    # 505 UNEXPECTED_FRAME
    "body without a method": (b"", wire.body_frame(1, b"x"), 505),
    "empty body without a method": (b"", wire.body_frame(1, b""), 505),
    "body without a header": (DELIVER, wire.body_frame(1, b"x"), 505),
    "header without a method": (b"", wire.raw_header(1, 0), 505),
    "second header": (BEGUN, wire.raw_header(1, 5), 505),
    "second header after a body": (HALF, wire.raw_header(1, 3), 505),
    "header after a whole content": (
        BEGUN + wire.body_frame(1, b"abcde"),
        wire.raw_header(1, 0),
        505,
    ),
    "header after an ordinary method": (
        wire.method_frame(1, spec.Basic.CancelOk("ct")),
        wire.raw_header(1, 0),
        505,
    ),
    "body longer than announced": (BEGUN, wire.body_frame(1, b"abcdef"), 505),
    "last body longer": (HALF, wire.body_frame(1, b"cdef"), 505),
    "body after the last": (BEGUN + wire.body_frame(1, b"abcde"), wire.body_frame(1, b"f"), 505),
    "body of an empty content": (DELIVER + wire.raw_header(1, 0), wire.body_frame(1, b""), 505),
    "new content before the header": (DELIVER, DELIVER, 505),
    "new content before the body": (BEGUN, DELIVER, 505),
    "new content in the body": (HALF, DELIVER, 505),
    "other content method in the body": (
        HALF,
        wire.method_frame(1, spec.Basic.GetOk(1, False, "", "", 0)),
        505,
    ),
    "method before the header": (DELIVER, wire.method_frame(1, spec.Basic.QosOk()), 505),
    "method in the body": (HALF, wire.method_frame(1, spec.Basic.CancelOk("ct")), 505),
    "body on another channel": (HALF, wire.body_frame(2, b"cde"), 505),
    # wrong in two ways
    "unknown type above the limit": (b"", b"\x07\x00\x00\xff\xff\xff\xff", 501),
    "body out of sequence above the limit": (b"", b"\x03\x00\x01\xff\xff\xff\xff", 501),
    "body on channel 0 out of sequence": (b"", wire.body_frame(0, b""), 501),
    "body out of sequence with a wrong end": (b"", wire.body_frame(1, b"x")[:-1] + b"\0", 505),
    "unknown method with a wrong end": (b"", wire.raw_method(1, 0x00010001)[:-1] + b"\0", 501),
    "unknown method on channel 0": (b"", wire.raw_method(0, 0x003C0000), 540),
    "unknown method in a content": (HALF, wire.raw_method(1, 0x003C0000), 540),
    "Connection method in a content": (HALF, wire.raw_method(1, spec.Connection.Tune.INDEX), 503),
    "cut arguments in a content": (HALF, wire.raw_method(1, spec.Basic.CancelOk.INDEX), 505),
    "cut arguments on channel 0": (b"", wire.raw_method(0, spec.Basic.CancelOk.INDEX), 503),
    "cut arguments of Channel.Close in a content": (
        HALF,
        wire.raw_method(1, spec.Channel.Close.INDEX),
        502,
    ),
    "header of another class out of sequence": (b"", wire.raw_header(1, 0, class_id=1), 501),
    "short header out of sequence": (b"", wire.raw_frame(2, 1, bytes(5)), 501),
}

# Messages whose properties lie, or say what pika can't read.

BEFORE = spec.BasicProperties.FLAG_CONTENT_TYPE | spec.BasicProperties.FLAG_CONTENT_ENCODING
HEADERS = spec.BasicProperties.FLAG_HEADERS
AFTER = spec.BasicProperties.FLAG_DELIVERY_MODE | spec.BasicProperties.FLAG_MESSAGE_ID
ALL = BEFORE | HEADERS | AFTER


def flags(bits: int) -> bytes:
    return struct.pack(">H", bits)


def around(table: bytes) -> bytes:
    """Properties with good fields in front of the headers and behind them."""
    return flags(ALL) + b"\x03a/b\x02gz" + table + b"\x02" + b"\x02id"


def headers(value: bytes) -> bytes:
    return around(wire.sized(wire.entry(b"ok", b"t\x01") + wire.entry(b"k", value)))


class Poison(NamedTuple):
    raw: bytes
    bad: str | None  # the first field that can't be read; None: all can
    value: Any = None  # headers["k"], where they can be read


def timestamp(seconds: int) -> bytes:
    return b"T" + struct.pack(">Q", seconds)


POISON: dict[str, Poison] = {
    "timestamp in milliseconds": Poison(
        headers(timestamp(1_700_000_000_000)), None, Timestamp(1_700_000_000_000)
    ),
    "timestamp in year 10000": Poison(
        headers(timestamp(253402300800)), None, Timestamp(253402300800)
    ),
    "timestamp of 2**63": Poison(headers(timestamp(2**63)), None, Timestamp(2**63)),
    "timestamp of 2**64 - 1": Poison(headers(timestamp(2**64 - 1)), None, Timestamp(2**64 - 1)),
    "infinite double": Poison(headers(b"d" + struct.pack(">d", float("inf"))), None, float("inf")),
    "600 nested tables": Poison(headers(wire.nested(600)), "headers"),
    "600 nested arrays": Poison(headers(wire.nested(600, b"A")), "headers"),
    "unknown field type": Poison(headers(b"Q1234"), "headers"),
    "table length too long": Poison(around(wire.sized(b"\x01aV", 4000)), "headers"),
    "table length of 4 GiB": Poison(around(wire.sized(b"\x01aV", 2**32 - 1)), "headers"),
    "table length cuts an entry": Poison(around(wire.sized(b"\x01aI\0\0\0\1", 5)), "headers"),
    "string longer than its table": Poison(headers(b"S" + wire.sized(b"abc", 60)), "headers"),
    "array longer than its table": Poison(headers(b"A" + wire.sized(b"VV", 60)), "headers"),
    "array length cuts a value": Poison(headers(b"A" + wire.sized(b"I\0\0\0\1", 3)), "headers"),
    "value without octets": Poison(headers(b"l\x00"), "headers"),
    "key past the end": Poison(around(wire.sized(b"\xffk")), "headers"),
    "absent data": Poison(flags(ALL) + b"\x03a/b\x02gz", "headers"),
    "absent message id": Poison(headers(b"V")[:-3], "message_id"),
    "short string past the end": Poison(headers(b"V")[:-3] + b"\x20id", "message_id"),
    "no property flags": Poison(b"", "content_type"),
    "half the property flags": Poison(b"\xe0", "content_type"),
    "continued property flags": Poison(b"\x00\x01\x00\x00", "content_type"),
    "60,000 continuation words": Poison(b"\xff\xff" * 60_000 + b"\0\0", "content_type"),
    "cut timestamp": Poison(flags(BEFORE | 1 << 6) + b"\x03a/b\x02gz" + b"\0" * 7, "timestamp"),
    "cut last field": Poison(flags(1 << 2) + b"\x05abcd", "cluster_id"),
}
