"""What differs between the releases of pika that the tests run with."""

from __future__ import annotations

import struct

from pika import data, spec

from pika_twisted.codec.values import LongLong

#: What 64-bit integers in tables are, with any pika.
LONG = LongLong

#: Whether pika sends them as 64-bit integers again; 1.5 does not.
PIKA_KEEPS_LONG = LongLong.__module__.startswith("pika.")


def _reads(tag: bytes, payload: bytes) -> object:
    """What pika makes of a value in a table."""
    entry = b"\x01k" + tag + payload
    return data.decode_table(struct.pack(">I", len(entry)) + entry, 0)[0]["k"]


#: The entries of `tests.differences` that this pika doesn't have: it decides as we do.
GONE = {
    name
    for name, is_gone in {
        "float": _reads(b"d", struct.pack(">d", 3.75)) == 3.75,  # since 1.5
        "pika 1.3 integers and timestamps": _reads(b"b", b"\xff") == -1,  # since 1.4
    }.items()
    if is_gone
}


def _tag_of(value: int) -> bytes:
    """The type that pika gives to a value: behind the flags, a table's length and an empty key."""
    return b"".join(spec.BasicProperties(headers={"": value}).encode())[7:8]


#: The lowest integer that pika sends as RabbitMQ reads it; 1.3 makes "L" of those below.
LOWEST = -(2**31) if _tag_of(-(2**40)) == b"L" else -(2**63)
