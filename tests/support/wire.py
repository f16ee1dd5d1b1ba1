"""Frames, tables and methods as octets, written by hand or with pika: what the codec tests feed."""

from __future__ import annotations

import inspect
import struct
from collections.abc import Iterator
from typing import Any

from pika import frame, spec

FRAME_END = 0xCE
HEARTBEAT = b"\x08\x00\x00\x00\x00\x00\x00\xce"
PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"


def raw_frame(frame_type: int, channel: int, payload: bytes, end: int = FRAME_END) -> bytes:
    return struct.pack(">BHI", frame_type, channel, len(payload)) + payload + bytes([end])


def method_frame(channel: int, method: Any) -> bytes:
    return frame.Method(channel, method).marshal()


def raw_method(channel: int, index: int, arguments: bytes = b"") -> bytes:
    return raw_frame(spec.FRAME_METHOD, channel, struct.pack(">I", index) + arguments)


def raw_header(
    channel: int,
    body_size: int,
    properties: bytes = b"\x00\x00",
    class_id: int = 60,
    weight: int = 0,
) -> bytes:
    payload = struct.pack(">HHQ", class_id, weight, body_size) + properties
    return raw_frame(spec.FRAME_HEADER, channel, payload)


def body_frame(channel: int, fragment: bytes) -> bytes:
    return raw_frame(spec.FRAME_BODY, channel, fragment)


def deliver(tag: str = "ct", delivery_tag: int = 1) -> spec.Basic.Deliver:
    return spec.Basic.Deliver(tag, delivery_tag, False, "amq.topic", "a.key")


def content(
    channel: int,
    body: bytes,
    properties: spec.BasicProperties | bytes = b"\x00\x00",
    method: Any = None,
    step: int = 131072 - 8,
) -> bytes:
    """Method, header and body frames of one message, the body cut every ``step`` octets."""
    if isinstance(properties, spec.BasicProperties):
        properties = b"".join(properties.encode())
    cuts = range(0, len(body), step)
    return b"".join(
        [
            method_frame(channel, method or deliver()),
            raw_header(channel, len(body), properties),
            *(body_frame(channel, body[cut : cut + step]) for cut in cuts),
        ]
    )


# Tables by hand: what pika's encoder can't say.


def short_string(octets: bytes) -> bytes:
    return bytes([len(octets)]) + octets


def sized(octets: bytes, size: int | None = None) -> bytes:
    """Octets behind their 32-bit length, or behind a wrong one."""
    return struct.pack(">I", len(octets) if size is None else size) + octets


def entry(key: bytes, value: bytes) -> bytes:
    """A table's entry; ``value`` begins with its type tag."""
    return short_string(key) + value


def nested(depth: int, kind: bytes = b"F") -> bytes:
    """A value of ``depth`` tables (or arrays) inside each other."""
    value = b"V"
    for _ in range(depth):
        inner = entry(b"n", value) if kind == b"F" else value
        value = kind + sized(inner)
    return value


def headers_only(table: bytes) -> bytes:
    """Properties that hold one table and nothing else."""
    return struct.pack(">H", spec.BasicProperties.FLAG_HEADERS) + table


def split_frames(octets: bytes) -> Iterator[bytes]:
    """Cut a good stream into its frames."""
    while octets:
        end = 8 if octets.startswith(b"AMQP") else 8 + struct.unpack_from(">I", octets, 3)[0]
        yield octets[:end]
        octets = octets[end:]


# Every method of pika.spec with values for all its arguments.

_INTEGERS = {
    "version_major": 8,
    "version_minor": 8,
    "ticket": 16,
    "channel_max": 16,
    "heartbeat": 16,
    "reply_code": 16,
    "class_id": 16,
    "method_id": 16,
    "prefetch_count": 16,
    "frame_max": 32,
    "prefetch_size": 32,
    "message_count": 32,
    "consumer_count": 32,
    "delivery_tag": 64,
}
_TABLES = {"server_properties", "client_properties", "arguments"}
_LONG_STRINGS = {
    "mechanisms",
    "locales",
    "response",
    "challenge",
    "new_secret",
    "channel_id",
}
TABLE = {"product": "RabbitMQ", "n": -5, "flags": {"basic.nack": True, "none": None}, "a": [1, "x"]}
VARIANTS = ("small", "typical", "large", "binary")
_COLUMNS = (*VARIANTS, "brief")  # brief: something in everything, for streams to be multiplied


def integer_bits(name: str) -> int:
    return _INTEGERS[name]


def argument(name: str, default: Any, variant: str, position: int) -> Any:
    """A value for one argument: the kind follows from its name, which pika.spec uses alike."""
    index = _COLUMNS.index(variant)
    if name in _INTEGERS:
        bits = _INTEGERS[name]
        return (0, 7 + position, (1 << bits) - 1, 1 << (bits - 1), 1)[index]
    if name in _TABLES:
        large = {"k" * 255: "v" * 300, "deep": {"d": {"e": [[]]}}}
        return ({}, TABLE, large, {"b": b"\xff"}, {"k": "é"})[index]
    if isinstance(default, bool) or name == "active":
        return (False, position % 2 == 0, True, position % 3 == 0, True)[index]
    if name in _LONG_STRINGS:
        return ("", "PLAIN AMQPLAIN", "ü" * 200, b"\x00\xff\xce", "L")[index]
    return ("", f"{name}-é", "x" * 255, b"\xff\xfe\xce", "é")[index]


def method_samples() -> Iterator[tuple[str, Any]]:
    """(name and variant, method) for all 66 methods, each with four sets of arguments."""
    for method in spec.methods.values():
        for variant in VARIANTS if inspect.signature(method).parameters else VARIANTS[:1]:
            yield f"{method.NAME}-{variant}", method_sample(method, variant)


def method_sample(method: type, variant: str) -> Any:
    parameters = inspect.signature(method).parameters.values()
    return method(
        *(
            argument(parameter.name, parameter.default, variant, position)
            for position, parameter in enumerate(parameters)
        )
    )


def channel_for(method: Any) -> int:
    """The channel a method may come on: 0 for the Connection class, another for the rest."""
    return 0 if method.INDEX >> 16 == spec.Connection.INDEX else 3
