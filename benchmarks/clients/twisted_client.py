"""pika_twisted and pika's own Twisted adapter: the same code, told apart by one import."""

from __future__ import annotations

import gc
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pika
from twisted.internet import defer, endpoints, task

from benchmarks import wire
from benchmarks.clients import checks, reacting
from benchmarks.clients.twisted_styles import LOOPS
from benchmarks.peer_channel import PUBLISHED, UNACKED
from benchmarks.spec import (
    ACK_BATCH,
    ACK_DELAY,
    BATCH,
    TOGETHER,
    Spec,
    Stopwatch,
    Unsupported,
    resident_bytes,
)

Answer = dict[str, Any]
ONLY_HERE = ("for", "many")


def protocol_class(client: str) -> Any:
    """Return the TwistedProtocolConnection of one of the two packages."""
    if client == "pika":
        from pika.adapters.twisted_connection import TwistedProtocolConnection as PikaProtocol

        return PikaProtocol
    from pika_twisted import TwistedProtocolConnection

    return TwistedProtocolConnection


def run(spec: Spec) -> Answer:
    """Run one measurement under a reactor of its own."""
    if spec.client == "pika" and spec.style in ONLY_HERE:
        raise Unsupported("pika's queue has get() only")
    case = CASES.get(spec.case)
    if case is None:
        raise Unsupported(f"no case {spec.case}")

    async def session(reactor: Any) -> Answer:
        connection = await connect(reactor, spec)
        answer = await case(connection, spec)
        closed = connection.closed
        connection.close()
        try:
            await closed
        except pika.exceptions.ConnectionClosed:
            pass
        return answer

    return reacting.run(session)


async def connect(reactor: Any, spec: Spec) -> Any:
    """Return a protocol whose handshake is done."""
    parameters = pika.URLParameters(spec.url)
    endpoint = endpoints.TCP4ClientEndpoint(reactor, parameters.host, parameters.port)
    options = {"read_interval": spec.read_interval} if spec.read_interval else {}
    protocol = protocol_class(spec.client)(parameters, **options)
    await endpoints.connectProtocol(endpoint, protocol)
    await protocol.ready
    return protocol


async def turn() -> None:
    """Let the reactor run once."""
    from twisted.internet import reactor

    await task.deferLater(reactor, 0)


async def look_up(channel: Any, queue: str) -> tuple[int, int]:
    """Return the two numbers of a declare-ok: how the peer opens its books."""
    answer = await channel.queue_declare(queue, passive=True)
    return answer.method.message_count, answer.method.consumer_count


async def open_channel(connection: Any, spec: Spec) -> Any:
    """Return a channel with the prefetch of the spec."""
    channel = await connection.channel()
    await channel.basic_qos(prefetch_count=spec.prefetch)
    return channel


# consume


async def consume(connection: Any, spec: Spec) -> Answer:
    """Consume every message of the queue in the asked style."""
    if (spec.style, spec.ack) not in LOOPS:
        raise Unsupported(f"style {spec.style} has no ack mode {spec.ack}")
    if spec.warmup:
        await consume_once(connection, spec, spec.warmup_queue, spec.warmup, 1)
    return await consume_once(connection, spec, spec.queue, spec.messages, spec.channels)


async def consume_once(
    connection: Any, spec: Spec, queue_name: str, messages: int, channels: int
) -> Answer:
    """Consume `messages` messages, spread over `channels` channels, and measure it."""
    opened = [await open_channel(connection, spec) for _ in range(channels)]
    watch = Stopwatch()
    watch.start()
    if channels == 1:
        tag = await drain(opened[0], spec, queue_name, messages)
        checks.last_tag(spec, tag, messages)
    else:
        drains = [drain(one, spec, queue_name, messages // channels) for one in opened]
        await defer.gatherResults([defer.ensureDeferred(coroutine) for coroutine in drains])
    watch.stop()
    for channel in opened:
        if spec.ack != "auto" and not spec.live:
            checks.all_acked(spec, *await look_up(channel, UNACKED))
        channel.close()
    return watch.result(messages)


async def drain(channel: Any, spec: Spec, queue_name: str, messages: int) -> int:
    """Consume on one channel; return the last delivery tag."""
    if spec.ack in TOGETHER:
        channel.ack_batching = True
    if spec.ack == "delayed":
        channel.ack_delay = ACK_DELAY
    queue, _tag = await channel.basic_consume(queue_name, auto_ack=spec.ack == "auto")
    tag = await LOOPS[spec.style, spec.ack](queue, channel, messages)
    if spec.ack != "auto":
        await channel.basic_qos(prefetch_count=spec.prefetch)
    return tag


# ack


async def acknowledge(connection: Any, spec: Spec) -> Answer:
    """Ack messages that were consumed before: the cost of basic_ack alone."""
    if spec.warmup:
        await acknowledge_once(connection, spec, spec.warmup_queue, spec.warmup)
    return await acknowledge_once(connection, spec, spec.queue, spec.messages)


async def acknowledge_once(connection: Any, spec: Spec, queue_name: str, messages: int) -> Answer:
    """Consume without acks, then ack one by one, a batch per turn of the reactor."""
    channel = await open_channel(connection, spec)
    queue, _tag = await channel.basic_consume(queue_name)
    tags = []
    for _ in range(messages):
        message = await queue.get()
        tags.append(message.method.delivery_tag)
    watch = Stopwatch()
    watch.start()
    for start in range(0, messages, ACK_BATCH):
        for tag in tags[start : start + ACK_BATCH]:
            channel.basic_ack(tag)
        await turn()
    await channel.basic_qos(prefetch_count=0)
    watch.stop()
    if not spec.live:
        checks.all_acked(spec, *await look_up(channel, UNACKED))
    channel.close()
    return watch.result(messages)


# publish


async def publish(connection: Any, spec: Spec) -> Answer:
    """Publish in batches; with confirms each batch is awaited before the next."""
    batch = publish_confirmed if spec.confirm else publish_batch
    if spec.warmup:
        await publish_once(connection, spec, spec.warmup_queue, spec.warmup, batch)
    return await publish_once(connection, spec, spec.queue, spec.messages, batch)


async def publish_once(
    connection: Any,
    spec: Spec,
    queue_name: str,
    messages: int,
    batch: Callable[..., Awaitable[None]],
) -> Answer:
    """Publish `messages` messages on a new channel and measure it."""
    channel = await open_channel(connection, spec)
    if spec.confirm:
        await channel.confirm_delivery()
        if not spec.live:
            await channel.queue_declare(f"confirm.{spec.confirm}")
    body = wire.make_body(spec.size)
    properties = None if spec.properties == "none" else wire.make_properties(spec.properties)
    watch = Stopwatch()
    watch.start()
    for start in range(0, messages, BATCH):
        await batch(channel, queue_name, body, properties, min(BATCH, messages - start))
    await channel.basic_qos(prefetch_count=0)
    watch.stop()
    if not spec.live and messages == spec.messages:
        checks.all_published(spec, *await look_up(channel, PUBLISHED))
    channel.close()
    return watch.result(messages)


async def publish_batch(
    channel: Any, queue_name: str, body: bytes, properties: Any, messages: int
) -> None:
    """Publish without confirms; the Deferreds have fired already and are dropped."""
    for _ in range(messages):
        channel.basic_publish("", queue_name, body, properties)
    await turn()


async def publish_confirmed(
    channel: Any, queue_name: str, body: bytes, properties: Any, messages: int
) -> None:
    """Publish, then wait for the confirm of each message."""
    confirms = [channel.basic_publish("", queue_name, body, properties) for _ in range(messages)]
    for confirm in confirms:
        await confirm


# memory and garbage collection


async def backlog_filled(channel: Any, queue_name: str, messages: int) -> Any:
    """Return a queue object in which `messages` messages wait."""
    queue, _tag = await channel.basic_consume(queue_name, auto_ack=True)
    while len(queue.pending) < messages:
        await turn()
    return queue


async def memory(connection: Any, spec: Spec) -> Answer:
    """Resident bytes per message that waits in a queue."""
    channel = await open_channel(connection, spec)
    warm = await backlog_filled(channel, spec.warmup_queue, spec.warmup)
    while warm.pending:
        await warm.get()
    channel.close()
    channel = await open_channel(connection, spec)
    gc.collect()
    before = resident_bytes()
    queue = await backlog_filled(channel, spec.queue, spec.messages)
    grown = resident_bytes() - before
    return {"messages": len(queue.pending), "bytes": grown / spec.messages}


async def collection(connection: Any, spec: Spec) -> Answer:
    """Time of a full cyclic collection with nothing and with many messages queued."""
    empty = fastest_collection()
    channel = await open_channel(connection, spec)
    queue = await backlog_filled(channel, spec.queue, spec.messages)
    return {"messages": len(queue.pending), "empty": empty, "full": fastest_collection()}


def fastest_collection(repeats: int = 7) -> float:
    """Return the seconds of the fastest of some full collections."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        gc.collect()
        times.append(time.perf_counter() - start)
    return min(times)


CASES: dict[str, Callable[[Any, Spec], Awaitable[Answer]]] = {
    "consume": consume,
    "ack": acknowledge,
    "publish": publish,
    "memory": memory,
    "gc": collection,
}
