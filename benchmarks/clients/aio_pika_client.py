"""aio-pika, on asyncio."""

from __future__ import annotations

import asyncio
from typing import Any

import aio_pika

from benchmarks import wire
from benchmarks.clients import asyncio_watch, checks
from benchmarks.peer_channel import PUBLISHED, UNACKED
from benchmarks.spec import BATCH, Spec, Stopwatch


def run(spec: Spec) -> dict[str, Any]:
    """Run one measurement."""
    asyncio_watch.refuse_other_than_consume_and_publish(spec)
    return asyncio_watch.run(session(spec))


async def session(spec: Spec) -> dict[str, Any]:
    """Connect, warm up, measure."""
    work = {"consume": consume, "publish": publish, "ack": acknowledge}[spec.case]
    async with await aio_pika.connect(spec.url) as connection:
        if spec.warmup:
            await work(connection, spec, spec.warmup_queue, spec.warmup)
        return (await work(connection, spec, spec.queue, spec.messages)).result(spec.messages)


async def consume(connection: Any, spec: Spec, queue_name: str, messages: int) -> Stopwatch:
    """Consume `messages` messages with the library's iterator."""
    channel = await connection.channel()
    await channel.set_qos(spec.prefetch)
    queue = await channel.declare_queue(queue_name, passive=True)
    watch, left, each = Stopwatch(), messages, spec.ack == "each"
    watch.start()
    iterator = queue.iterator(no_ack=not each)
    await iterator.consume()
    async for message in iterator:
        if each:
            await message.ack()
        left -= 1
        if not left:
            break
    await channel.set_qos(spec.prefetch)
    watch.stop()
    checks.last_tag(spec, message.delivery_tag, messages)
    if each:
        await check_acks(channel, spec)
    await channel.close()
    return watch


async def check_acks(channel: Any, spec: Spec) -> None:
    """Ask the peer for its books of acks."""
    if spec.live:
        return
    books = (await channel.declare_queue(UNACKED, passive=True)).declaration_result
    checks.all_acked(spec, books.message_count, books.consumer_count)


async def acknowledge(connection: Any, spec: Spec, queue_name: str, messages: int) -> Stopwatch:
    """Consume without acks, then ack one by one."""
    channel = await connection.channel()
    queue = await channel.declare_queue(queue_name, passive=True)
    iterator = queue.iterator(no_ack=False)
    await iterator.consume()
    taken: list[Any] = []
    async for message in iterator:
        taken.append(message)
        if len(taken) == messages:
            break
    watch = Stopwatch()
    watch.start()
    for message in taken:
        await message.ack()
    await channel.set_qos(0)
    watch.stop()
    await check_acks(channel, spec)
    await channel.close()
    return watch


async def publish(connection: Any, spec: Spec, queue_name: str, messages: int) -> Stopwatch:
    """Publish; with confirms a batch at a time."""
    channel = await connection.channel(publisher_confirms=bool(spec.confirm))
    if spec.confirm and not spec.live:
        await channel.declare_queue(f"confirm.{spec.confirm}")
    message = make_message(spec)
    exchange = channel.default_exchange
    watch = Stopwatch()
    watch.start()
    for start in range(0, messages, BATCH):
        size = min(BATCH, messages - start)
        if spec.confirm:
            await asyncio.gather(
                *[exchange.publish(message, queue_name, mandatory=False) for _ in range(size)]
            )
        else:
            for _ in range(size):
                await exchange.publish(message, queue_name, mandatory=False)
    await channel.set_qos(0)
    watch.stop()
    if not spec.live and messages == spec.messages:
        books = (await channel.declare_queue(PUBLISHED, passive=True)).declaration_result
        checks.all_published(spec, books.message_count, books.consumer_count)
    await channel.close()
    return watch


def make_message(spec: Spec) -> aio_pika.Message:
    """Return the message to publish."""
    body = wire.make_body(spec.size)
    if spec.properties == "none":
        return aio_pika.Message(body)
    usual = wire.make_properties(spec.properties)
    return aio_pika.Message(
        body,
        content_type=usual.content_type,
        delivery_mode=aio_pika.DeliveryMode(usual.delivery_mode),
        message_id=usual.message_id,
        timestamp=usual.timestamp,
        headers=usual.headers,
    )
