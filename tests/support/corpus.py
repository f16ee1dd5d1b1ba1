"""Short streams that between them hold every method, field type and content frame.

For the tests that multiply: all splits into two and three, every octet changed to every other.
"""

from __future__ import annotations

import struct

from pika import spec

from tests.support import wire

# One of every field type (RabbitMQ's errata), the sized ones nested.
EVERY_FIELD = b"".join(
    wire.entry(key, value)
    for key, value in (
        (b"t", b"t\x01"),
        (b"b", b"b\xfe"),
        (b"B", b"B\xfe"),
        (b"s", b"s\xff\xfe"),
        (b"U", b"U\xff\xfe"),
        (b"u", b"u\xff\xfe"),
        (b"I", b"I\xff\xff\xff\xfe"),
        (b"i", b"i\xff\xff\xff\xfe"),
        (b"l", b"l" + struct.pack(">q", -2)),
        (b"L", b"L" + struct.pack(">q", -2)),
        (b"f", b"f" + struct.pack(">f", 3.75)),
        (b"d", b"d" + struct.pack(">d", 3.75)),
        (b"D", b"D" + struct.pack(">Bi", 2, 375)),
        (b"T", b"T" + struct.pack(">Q", 1_700_000_000)),
        (b"S", b"S" + wire.sized("é".encode())),
        (b"x", b"x" + wire.sized(b"\xff")),
        (b"V", b"V"),
        (b"A", b"A" + wire.sized(b"Vt\x00A" + wire.sized(b"B\x01"))),
        (b"F", b"F" + wire.sized(wire.entry(b"n", b"V"))),
    )
)

ALL_PROPERTIES = b"".join(
    spec.BasicProperties(
        content_type="a/b",
        content_encoding="gz",
        headers={"k": "v"},
        delivery_mode=2,
        priority=9,
        correlation_id="c",
        reply_to="r",
        expiration="1",
        message_id="m",
        timestamp=1_700_000_000,
        type="t",
        user_id="u",
        app_id="a",
        cluster_id="x",
    ).encode()
)


def method_frames() -> dict[str, bytes]:
    """The 66 methods, each with something short in every argument."""
    samples = {method.NAME: wire.method_sample(method, "brief") for method in spec.methods.values()}
    return {
        name: wire.method_frame(wire.channel_for(method), method)
        for name, method in samples.items()
    }


def contents() -> dict[str, bytes]:
    get_ok = spec.Basic.GetOk(2, True, "ex", "rk", 1)
    returned = spec.Basic.Return(312, "NO_ROUTE", "ex", "rk")
    return {
        "content, all properties": wire.content(1, b"body", ALL_PROPERTIES),
        "content, all fields": wire.content(2, b"", wire.headers_only(wire.sized(EVERY_FIELD))),
        "content, two bodies": wire.content(1, b"abcdef", method=get_ok, step=3),
        "content, interleaved": (
            wire.method_frame(1, wire.deliver("a"))
            + wire.method_frame(2, returned)
            + wire.raw_header(2, 1)
            + wire.raw_header(1, 2)
            + wire.body_frame(1, b"x")
            + wire.HEARTBEAT
            + wire.body_frame(2, b"y")
            + wire.body_frame(1, b"z")
        ),
        "protocol header": wire.PROTOCOL_HEADER + wire.HEARTBEAT,
    }


def streams() -> dict[str, bytes]:
    return {**method_frames(), **contents()}
