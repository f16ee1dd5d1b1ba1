"""What differs between the releases of pika that the tests run with."""

from __future__ import annotations

from pika import spec

from pika_twisted.codec.values import LongLong

#: What 64-bit integers in tables are, with any pika.
LONG = LongLong

#: Whether pika sends them as 64-bit integers again; 1.5 does not.
PIKA_KEEPS_LONG = LongLong.__module__.startswith("pika.")


def _tag_of(value: int) -> bytes:
    """The type that pika gives to a value: behind the flags, a table's length and an empty key."""
    return b"".join(spec.BasicProperties(headers={"": value}).encode())[7:8]


#: The lowest integer that pika sends as RabbitMQ reads it; 1.3 makes "L" of those below.
LOWEST = -(2**31) if _tag_of(-(2**40)) == b"L" else -(2**63)
