"""aiormq, the library under aio-pika: callbacks on asyncio."""

from __future__ import annotations

import asyncio
from datetime import datetime, timezone
from typing import Any

import aiormq

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
    connection = await aiormq.connect(spec.url)
    if spec.warmup:
        await work(connection, spec, spec.warmup_queue, spec.warmup)
    watch = await work(connection, spec, spec.queue, spec.messages)
    await connection.close()
    return watch.result(spec.messages)


async def consume(connection: Any, spec: Spec, queue_name: str, messages: int) -> Stopwatch:
    """Consume `messages` messages in a callback."""
    channel = await connection.channel()
    await channel.basic_qos(prefetch_count=spec.prefetch)
    done = asyncio.get_running_loop().create_future()
    left, each = messages, spec.ack == "each"

    async def on_message(message: Any) -> None:
        nonlocal left
        if each:
            await channel.basic_ack(message.delivery.delivery_tag)
        left -= 1
        if not left:
            done.set_result(message.delivery.delivery_tag)

    watch = Stopwatch()
    watch.start()
    await channel.basic_consume(queue_name, on_message, no_ack=not each)
    tag = await done
    await channel.basic_qos(prefetch_count=spec.prefetch)
    watch.stop()
    checks.last_tag(spec, tag, messages)
    if each:
        await check_acks(channel, spec)
    await channel.close()
    return watch


async def check_acks(channel: Any, spec: Spec) -> None:
    """Ask the peer for its books of acks."""
    if spec.live:
        return
    books = await channel.queue_declare(UNACKED, passive=True)
    checks.all_acked(spec, books.message_count, books.consumer_count)


async def acknowledge(connection: Any, spec: Spec, queue_name: str, messages: int) -> Stopwatch:
    """Consume without acks, then ack one by one."""
    channel = await connection.channel()
    done = asyncio.get_running_loop().create_future()
    tags: list[int] = []

    async def on_message(message: Any) -> None:
        tags.append(message.delivery.delivery_tag)
        if len(tags) == messages:
            done.set_result(None)

    await channel.basic_consume(queue_name, on_message)
    await done
    watch = Stopwatch()
    watch.start()
    for tag in tags:
        await channel.basic_ack(tag)
    await channel.basic_qos(prefetch_count=0)
    watch.stop()
    await check_acks(channel, spec)
    await channel.close()
    return watch


async def publish(connection: Any, spec: Spec, queue_name: str, messages: int) -> Stopwatch:
    """Publish; with confirms a batch at a time."""
    channel = await connection.channel(publisher_confirms=bool(spec.confirm))
    if spec.confirm and not spec.live:
        await channel.queue_declare(f"confirm.{spec.confirm}")
    options = {"routing_key": queue_name, "properties": make_properties(spec)}
    body = wire.make_body(spec.size)
    watch = Stopwatch()
    watch.start()
    for start in range(0, messages, BATCH):
        size = min(BATCH, messages - start)
        if spec.confirm:
            await asyncio.gather(*[channel.basic_publish(body, **options) for _ in range(size)])
        else:
            for _ in range(size):
                await channel.basic_publish(body, **options)
    await channel.basic_qos(prefetch_count=0)
    watch.stop()
    if not spec.live and messages == spec.messages:
        books = await channel.queue_declare(PUBLISHED, passive=True)
        checks.all_published(spec, books.message_count, books.consumer_count)
    await channel.close()
    return watch


def make_properties(spec: Spec) -> Any:
    """Return the properties to publish with."""
    if spec.properties == "none":
        return None
    usual = wire.make_properties(spec.properties)
    return aiormq.spec.Basic.Properties(
        content_type=usual.content_type,
        delivery_mode=usual.delivery_mode,
        message_id=usual.message_id,
        timestamp=datetime.fromtimestamp(usual.timestamp, timezone.utc),
        headers=usual.headers,
    )
