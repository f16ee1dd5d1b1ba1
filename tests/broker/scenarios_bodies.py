"""Bodies and headers of every size, byte for byte, through publish, consume, get and return."""

from __future__ import annotations

import datetime
import decimal
import random
from typing import Any

import pika

from tests.broker.env import Env, check, equal
from tests.broker.registry import scenario
from tests.broker.scenarios_consume import PATHS

MIB = 1 << 20
FRAME_MAX = 131072
ROOM = FRAME_MAX - 8  # what one body frame carries
BORDERS = (0, 1, 7, 8, 9, 4087, 4088, 4089, ROOM - 1, ROOM, ROOM + 1, 2 * ROOM - 1, 2 * ROOM,
           2 * ROOM + 1, 3 * ROOM, MIB, 3 * MIB + 17)  # fmt: skip

_noise = random.Random(20260101).randbytes(4 * MIB + 4099)


def body_of(size: int, seed: int = 0) -> bytes:
    """`size` bytes in which no part repeats in step with frames or reads (the period is odd)."""
    start = seed * 37 % 4096
    return (_noise[start:] + _noise * (size // len(_noise) + 1))[:size]


@scenario(timeout=60, variants=PATHS)
async def bodies_at_every_border(env: Env, direct: bool) -> None:
    """Each size around the frame borders, consumed and fetched, is what was published."""
    _, channel = await env.open(options={"direct_delivery": direct})
    queue = env.name()
    await channel.queue_declare(queue, durable=True)
    deliveries, tag = await channel.basic_consume(queue, auto_ack=True)
    for size in BORDERS:
        channel.basic_publish("", queue, body_of(size, size))
    for size in BORDERS:
        message = await env.within(10, deliveries.get(), f"a body of {size}")
        equal(len(message.body), size, "size")
        check(type(message.body) is bytes and message.body == body_of(size, size), "content")
    await channel.basic_cancel(tag)
    for size in BORDERS:
        channel.basic_publish("", queue, body_of(size, size))
    for size in BORDERS:
        await env.until_get(channel, queue, body_of(size, size))


@scenario(timeout=120, variants={f"{size >> 20}_MiB": {"size": size} for size in
                                 (16 * MIB, 64 * MIB)})  # fmt: skip
async def huge_bodies(env: Env, size: int) -> None:
    """Published, consumed and fetched byte for byte, one after the other and interleaved."""
    connection, channel = await env.open()
    queue, small = env.name(), env.name()
    for name in (queue, small):
        await channel.queue_declare(name, durable=True)
    body = body_of(size)
    deliveries, tag = await channel.basic_consume(queue, auto_ack=True)
    other = await connection.channel()
    ticks, _ = await other.basic_consume(small, auto_ack=True)
    channel.basic_publish("", queue, body)
    other.basic_publish("", small, b"beside it")
    message = await env.within(60, deliveries.get(), "the body consumed")
    check(message.body == body, f"{len(message.body)} bytes came back, {size} expected, or altered")
    equal((await env.within(30, ticks.get(), "the small one")).body, b"beside it", "small")
    await channel.basic_cancel(tag)
    del message
    channel.basic_publish("", queue, body)
    found = None
    while found is None:
        found = await channel.basic_get(queue, auto_ack=True)
    check(found.body == body, f"{len(found.body)} bytes were fetched, {size} expected, or altered")


@scenario(timeout=60)
async def smallest_frames(env: Env) -> None:
    """The smallest frame_max cuts bodies into many frames, in both directions."""
    frame_max = await env.smallest_frame_max()
    _, channel = await env.open(frame_max=frame_max)
    queue = env.name()
    await channel.queue_declare(queue, durable=True)
    deliveries, _ = await channel.basic_consume(queue, auto_ack=True)
    payload = frame_max - 8
    sizes = (0, 1, payload - 1, payload, payload + 1, 2 * payload, 100_000, MIB)
    for size in sizes:
        channel.basic_publish("", queue, body_of(size, size))
    for size in sizes:
        message = await env.within(10, deliveries.get(), f"a body of {size}")
        check(message.body == body_of(size, size), f"{len(message.body)} bytes, {size} expected")


@scenario()
async def bodies_given_otherwise(env: Env) -> None:
    """A text body is sent as UTF-8; a bytearray is copied at the call."""
    _, channel = await env.open()
    queue = env.name()
    await channel.queue_declare(queue, durable=True)
    channel.basic_publish("", queue, "Gr\u00fc\u00dfe \U0001f407")
    await env.until_get(channel, queue, "Gr\u00fc\u00dfe \U0001f407".encode())
    if env.is_ours:
        changing = bytearray(b"as it was")
        channel.basic_publish("", queue, changing)
        changing[:] = b"changed!!"
        channel.basic_publish("", queue, memoryview(b"a view"))
        await env.until_get(channel, queue, b"as it was")
        await env.until_get(channel, queue, b"a view")


EVERY_FIELD: dict[str, Any] = {
    "text": "caf\u00e9", "empty": "", "yes": True, "no": False, "none": None,
    "byte": 7, "negative": -7, "int32": 2**31 - 1, "int64": -(2**62),
    "bytes": b"\x00\xff\xfe", "decimal": decimal.Decimal("3.14"),
    "when": datetime.datetime(2024, 2, 29, 12, 30, 15, tzinfo=datetime.timezone.utc),
    "table": {"inner": {"deeper": [1, {"x": "y"}]}}, "array": [1, "two", [3, None], False],
}  # fmt: skip


@scenario(variants=PATHS)
async def properties_come_back_equal(env: Env, direct: bool) -> None:
    """All fourteen properties with headers of every type: as pika's own client decodes them."""
    _, channel = await env.open(options={"direct_delivery": direct})
    queue = env.name()
    await channel.queue_declare(queue, durable=True)
    sent = pika.BasicProperties(
        content_type="application/json", content_encoding="gzip", headers=EVERY_FIELD,
        delivery_mode=2, priority=3, correlation_id="c-1", reply_to="back", expiration="60000",
        message_id="m-1", timestamp=1_700_000_000, type="t", user_id=env.broker.user,
        app_id="tests", cluster_id="c",
    )  # fmt: skip
    deliveries, tag = await channel.basic_consume(queue, auto_ack=True)
    channel.basic_publish("", queue, b"x", sent)
    consumed = await env.within(5, deliveries.get(), "delivery")
    await channel.basic_cancel(tag)
    channel.basic_publish("", queue, b"x", sent)
    await env.settled(queue, 1)
    [(_, witnessed, _)] = await env.take_all(queue)
    check(isinstance(consumed.properties, pika.BasicProperties), repr(type(consumed.properties)))
    equal(consumed.properties, witnessed, "properties")
    equal(consumed.properties.headers, witnessed.headers, "headers")


@scenario()
async def headers_larger_than_frame_max(env: Env) -> None:
    """RabbitMQ sends 80 KiB of headers in one frame to a consumer with the smallest frame_max."""
    _, publisher = await env.open()
    _, consumer = await env.open(frame_max=await env.smallest_frame_max())
    queue = env.name()
    await publisher.queue_declare(queue, durable=True)
    headers = {f"header-{number}": "v" * 200 for number in range(390)}
    for number in range(3):
        publisher.basic_publish(
            "", queue, b"%d" % number, pika.BasicProperties(headers={**headers, "n": number})
        )
    await env.settled(queue, 3)
    deliveries, _ = await consumer.basic_consume(queue)
    for number in range(3):
        message = await env.within(5, deliveries.get(), f"message {number}")
        equal(message.properties.headers, {**headers, "n": number}, "headers")
        consumer.basic_ack(message.method.delivery_tag)
    await env.close_channel(consumer)
    await env.settled(queue, 0)


@scenario()
async def headers_that_outgrow_by_dead_lettering(env: Env) -> None:
    """x-death makes a header frame of nearly frame_max longer than frame_max; it is delivered."""
    _, channel = await env.open(frame_max=FRAME_MAX)
    queue, dead = env.name(), env.name()
    await channel.queue_declare(dead, durable=True)
    arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead}
    await channel.queue_declare(queue, arguments=arguments, durable=True)
    # 8 of the frame, 14 of the content header, 4 of the table, 1 + 1 + 1 + 4 of the entry.
    headers = {"k": "v" * (FRAME_MAX - 34)}
    channel.basic_publish("", queue, b"dies", pika.BasicProperties(headers=headers))
    message = await env.until_first(channel, queue)
    equal(message.properties.headers, headers, "headers before")
    channel.basic_nack(message.method.delivery_tag, requeue=False)
    deliveries, _ = await channel.basic_consume(dead)
    letter = await env.within(5, deliveries.get(), "the dead letter")
    equal(letter.body, b"dies", "body")
    equal(letter.properties.headers["k"], headers["k"], "the long header")
    equal(letter.properties.headers["x-death"][0]["reason"], "rejected", "x-death")
