"""Messages whose headers no client can decode sensibly, but that RabbitMQ takes and redelivers.

Each is published by a raw client of its own (the broker may close that connection), and whatever
the broker accepted must be delivered: the body as it was, its connection alive.
"""

from __future__ import annotations

import copy
import struct
from typing import Any

import pika

from tests.broker import second_client
from tests.broker.env import Env, check, equal
from tests.broker.registry import scenario
from tests.broker.scenarios_consume import PATHS

HEADERS, TIMESTAMP = 0x2000, 0x0040  # property flags of a content header


def table(content: bytes) -> bytes:
    """A field table: its length and its entries."""
    return struct.pack(">I", len(content)) + content


def header(value: bytes, key: bytes = b"k") -> bytes:
    """Properties with one header, its value given as type octet and payload."""
    return struct.pack(">H", HEADERS) + table(struct.pack(">B", len(key)) + key + value)


def nested(levels: int, opening: bytes) -> bytes:
    """A value inside so many tables (b"F") or arrays (b"A")."""
    value = b"t\x01"
    for _ in range(levels):
        value = opening + table((b"\x01n" if opening == b"F" else b"") + value)
    return value


POISON: dict[str, bytes] = {
    "header_timestamp_in_milliseconds": header(b"T" + struct.pack(">Q", 1_700_000_000_000)),
    "header_timestamp_after_year_9999": header(b"T" + struct.pack(">Q", 253_402_300_800)),
    "header_timestamp_2_63": header(b"T" + struct.pack(">Q", 1 << 63)),
    "header_timestamp_all_ones": header(b"T" + b"\xff" * 8),
    "property_timestamp_in_milliseconds": struct.pack(">HQ", TIMESTAMP, 1_700_000_000_000),
    "property_timestamp_2_63": struct.pack(">HQ", TIMESTAMP, 1 << 63),
    "600_nested_tables": header(nested(600, b"F")),
    "600_nested_arrays": header(nested(600, b"A")),
    "unknown_type": header(b"?\x00"),
    "decimal_with_scale_255": header(b"D\xff\x00\x00\x00\x01"),
    "not_a_number": header(b"d" + struct.pack(">d", float("nan"))),
    "infinity": header(b"d" + struct.pack(">d", float("inf"))),
    "key_that_is_not_utf8": header(b"t\x01", key=b"\xff\xfe"),
    "text_that_is_not_utf8": header(b"S" + table(b"\xff\xfe\x80")),
    "table_longer_than_the_frame": struct.pack(">HI", HEADERS, 1 << 30) + b"\x01kt\x01",
    "array_longer_than_its_table": header(b"A" + struct.pack(">I", 1000) + b"t\x01"),
    "flags_that_go_on": struct.pack(">HHH", 0x0001, 0x0001, 0x0000),
    "key_given_twice": struct.pack(">H", HEADERS) + table(b"\x01kt\x01\x01kt\x00"),
}

#: RabbitMQ takes these in any version; if not, the scenario shows nothing.
TAKEN = ("header_timestamp_in_milliseconds", "header_timestamp_after_year_9999")


class RawProperties(pika.BasicProperties):
    """Properties that are sent as given, whatever they mean."""

    def __init__(self, raw: bytes) -> None:
        super().__init__()
        self._raw = raw

    def encode(self) -> list[bytes]:
        return [self._raw]


def touch_everything(message: Any) -> list[str]:
    """Use every field as a careless handler would; the names of those that can't be decoded."""
    undecodable = []
    properties = message.properties
    repr(message), repr(properties), copy.copy(properties), properties == properties
    for name in ("content_type", "headers", "delivery_mode", "message_id", "timestamp", "app_id"):
        try:
            getattr(properties, name)
        except pika.exceptions.AMQPError as problem:
            check(not isinstance(problem, AttributeError), f"{name}: an AttributeError")
            check(isinstance(problem.raw, bytes), f"{name}: raw is {problem.raw!r}")
            undecodable.append(name)
    return undecodable


@scenario(variants={f"{name}-{path}": {"name": name, **options} for name in POISON
                    for path, options in PATHS.items()})  # fmt: skip
async def poison(env: Env, name: str, direct: bool) -> None:
    """Delivered, redelivered and fetched where the broker took it; the messages beside it too."""
    queue = env.name()
    connection, channel = await env.open(options={"direct_delivery": direct})
    await channel.queue_declare(queue, durable=True)
    channel.basic_publish("", queue, b"before")
    await env.settled(queue, 1)
    accepted = await env.thread(
        second_client.publish_raw, env.broker, queue, b"poison", RawProperties(POISON[name])
    )
    check(accepted or name not in TAKEN, "the broker refused it")
    channel.basic_publish("", queue, b"after")
    expected = [b"before", *([b"poison"] if accepted else []), b"after"]
    deliveries, tag = await channel.basic_consume(queue)
    for attempt in ("first", "second"):
        messages = [
            await env.within(5, deliveries.get(), f"{attempt} {body!r}") for body in expected
        ]
        equal([message.body for message in messages], expected, f"the {attempt} delivery")
        for message in messages:
            undecodable = touch_everything(message)
            check(message.body == b"poison" or not undecodable, f"{undecodable} of the good one")
            if attempt == "first":
                channel.basic_nack(message.method.delivery_tag, requeue=True)
    channel.basic_nack(message.method.delivery_tag, multiple=True, requeue=True)
    await channel.basic_cancel(tag)
    await env.close_channel(channel)
    channel = await connection.channel()
    for body in expected:
        fetched = await env.until_get(channel, queue, body)
        touch_everything(fetched)
    check(connection.is_open, "the connection lives")
