"""Consuming: every message counted, whatever the style of the consumer and the way of the acks."""

from __future__ import annotations

from typing import Any

import pika
from twisted.internet import defer, protocol, task

from tests.broker.env import Env, as_deferred, check, equal
from tests.broker.registry import scenario

MANY = 100_000
PATHS: dict[str, dict[str, Any]] = {
    "direct": {"direct": True},
    "through_pika": {"direct": False},  # every frame goes the long way through pika's state machine
}
ACKS: dict[str, dict[str, Any]] = {
    f"{acks}-{path}": {"acks": acks, **options}
    for acks in ("auto", "each", "multiple")
    for path, options in PATHS.items()
}


async def fill(env: Env, queue: str, total: int, prefix: bytes = b"") -> None:
    """Publish so many numbered messages, on a connection of their own, and see them arrive."""
    publisher, channel = await env.open()
    properties = pika.BasicProperties(content_type="text/plain", delivery_mode=1)
    for start in range(0, total, 2000):
        for number in range(start, min(start + 2000, total)):
            channel.basic_publish("", queue, prefix + b"%d" % number, properties)
        await env.sleep(0)  # let the reactor write, so that the burst is not held in memory
    # The passive declare is answered after the publishes before it.
    await env.until_declared(channel, queue, total)
    publisher.close()


@scenario(timeout=120, variants=ACKS)
async def consume_100_000(env: Env, acks: str, direct: bool) -> None:
    """Each message arrives once, in order; the queue is empty afterwards, all is acknowledged."""
    queue = env.name()
    _, channel = await env.open(options={"direct_delivery": direct})
    await channel.queue_declare(queue, durable=True)
    await fill(env, queue, MANY)
    await channel.basic_qos(prefetch_count=0 if acks == "auto" else 500)
    deliveries, _ = await channel.basic_consume(queue, auto_ack=acks == "auto")
    ack = channel.basic_ack
    get = deliveries.get
    for number in range(MANY):
        message = await get()
        if message.body != b"%d" % number:
            raise AssertionError(f"message {number} is {message.body!r}")
        if acks == "each":
            ack(message.method.delivery_tag)
        elif acks == "multiple" and number % 100 == 99:
            ack(message.method.delivery_tag, multiple=True)
    equal(list(deliveries.pending), [], "pending after the last message")
    await env.close_channel(channel)
    await env.settled(queue, 0)


@scenario(timeout=60, interface="ours", variants=PATHS)
async def consume_in_every_style(env: Env, direct: bool) -> None:
    """`await get()`, `async for`, `get_many()` and inlineCallbacks see the same messages."""
    total = 20_000
    queue = env.name()
    _, channel = await env.open(options={"direct_delivery": direct})
    await channel.queue_declare(queue, durable=True)
    await channel.basic_qos(prefetch_count=300)
    seen = []
    for style in (by_get, by_async_for, by_get_many, by_inline_callbacks):
        await fill(env, queue, total)
        deliveries, tag = await channel.basic_consume(queue)
        bodies: list[bytes] = []
        await as_deferred(style(channel, deliveries, bodies, total))
        await channel.basic_cancel(tag)
        equal(deliveries.drain(), [], f"left in the queue object of {style.__name__}")
        seen.append(bodies)
    equal(seen[0], [b"%d" % number for number in range(total)], "bodies through get()")
    for bodies in seen[1:]:
        check(bodies == seen[0], "each style gives the same bodies in the same order")
    await env.close_channel(channel)
    await env.settled(queue, 0)


async def by_get(channel: Any, deliveries: Any, bodies: list[bytes], total: int) -> None:
    while len(bodies) < total:
        message = await deliveries.get()
        bodies.append(message.body)
        channel.basic_ack(message.method.delivery_tag)


async def by_async_for(channel: Any, deliveries: Any, bodies: list[bytes], total: int) -> None:
    async for message in deliveries:
        bodies.append(message.body)
        channel.basic_ack(message.method.delivery_tag)
        if len(bodies) == total:
            break


async def by_get_many(channel: Any, deliveries: Any, bodies: list[bytes], total: int) -> None:
    while len(bodies) < total:
        messages = await deliveries.get_many(64)
        check(1 <= len(messages) <= 64, f"get_many(64) gave {len(messages)}")
        bodies.extend(message.body for message in messages)
        channel.basic_ack(messages[-1].method.delivery_tag, multiple=True)


@defer.inlineCallbacks
def by_inline_callbacks(channel: Any, deliveries: Any, bodies: list[bytes], total: int) -> Any:
    while len(bodies) < total:
        message = yield deliveries.get()
        bodies.append(message.body)
        yield channel.basic_ack(delivery_tag=message.method.delivery_tag)


@scenario(timeout=60)
async def callback_loop_over_a_backlog(env: Env) -> None:
    """The documented `get().addCallback(handler)` loop, `get()` first in the handler: in order."""
    total = 5000
    queue = env.name()
    _, channel = await env.open()
    await channel.queue_declare(queue, durable=True)
    await fill(env, queue, total)
    deliveries, _ = await channel.basic_consume(queue)
    await env.until(lambda: len(deliveries.pending) == total, "all are waiting", 20)
    bodies: list[bytes] = []
    done: defer.Deferred[None] = defer.Deferred()

    def handle(message: Any) -> None:
        if len(bodies) + 1 < total:
            deliveries.get().addCallback(handle).addErrback(done.errback)
        bodies.append(message.body)
        channel.basic_ack(message.method.delivery_tag)
        if len(bodies) == total:
            done.callback(None)

    deliveries.get().addCallback(handle).addErrback(done.errback)
    await done
    check(bodies == [b"%d" % number for number in range(total)], "the order of the backlog")
    await env.close_channel(channel)
    await env.settled(queue, 0)


@scenario()
async def nack_and_requeue(env: Env) -> None:
    """nack and reject with requeue come back marked; without, they go to the dead letters."""
    _, channel = await env.open()
    queue, dead = env.name(), env.name()
    arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead}
    await channel.queue_declare(dead, durable=True)
    await channel.queue_declare(queue, arguments=arguments, durable=True)
    for number in range(4):
        channel.basic_publish("", queue, b"%d" % number)
    deliveries, _ = await channel.basic_consume(queue)
    first = [await env.within(5, deliveries.get(), "first delivery") for _ in range(4)]
    channel.basic_nack(first[0].method.delivery_tag, requeue=True)
    channel.basic_reject(first[1].method.delivery_tag, requeue=True)
    again = [await env.within(5, deliveries.get(), "second delivery") for _ in range(2)]
    equal(sorted(message.body for message in again), [b"0", b"1"], "requeued")
    check(all(message.method.redelivered for message in again), "they are marked redelivered")
    channel.basic_nack(first[3].method.delivery_tag, multiple=True, requeue=False)
    channel.basic_reject(again[0].method.delivery_tag, requeue=False)
    channel.basic_ack(again[1].method.delivery_tag)
    await env.settled(dead, 3)
    letters = {body for _, _, body in await env.take_all(dead)}
    equal(letters, {b"2", b"3", again[0].body}, "dead letters")


@scenario()
async def recover_redelivers(env: Env) -> None:
    """basic_recover(requeue=True) brings every unacknowledged message back, marked."""
    _, channel = await env.open()
    queue = env.name()
    await channel.queue_declare(queue, durable=True)
    for number in range(10):
        channel.basic_publish("", queue, b"%d" % number)
    deliveries, _ = await channel.basic_consume(queue)
    for number in range(10):
        await env.within(5, deliveries.get(), f"delivery {number}")
    answer = await channel.basic_recover(requeue=True)
    check(isinstance(answer.method, pika.spec.Basic.RecoverOk), f"{answer}")
    for number in range(10):
        message = await env.within(5, deliveries.get(), f"redelivery {number}")
        check(message.method.redelivered, "marked redelivered")
        channel.basic_ack(message.method.delivery_tag)


@scenario(variants={"per_consumer": {"shared": False}, "per_channel": {"shared": True}})
async def qos_limits_what_is_out(env: Env, shared: bool) -> None:
    """With a prefetch of 10 the eleventh message comes only after an ack."""
    _, channel = await env.open()
    queue = env.name()
    await channel.queue_declare(queue, durable=True)
    for number in range(100):
        channel.basic_publish("", queue, b"%d" % number)
    answer = await channel.basic_qos(prefetch_count=10, global_qos=shared)
    check(isinstance(answer.method, pika.spec.Basic.QosOk), f"{answer}")
    first, _ = await channel.basic_consume(queue)
    second, _ = await channel.basic_consume(queue)
    each = not shared or await env.changed("prefetch is for each consumer")
    expected = 20 if each else 10
    await env.settled(queue, 100 - expected)
    await env.until(lambda: len(first.pending) + len(second.pending) == expected, "the prefetch")
    source = first if first.pending else second
    message = await source.get()
    await env.sleep(0.2)
    equal(len(first.pending) + len(second.pending), expected - 1, "nothing more without an ack")
    channel.basic_ack(message.method.delivery_tag)
    await env.until(lambda: len(first.pending) + len(second.pending) == expected, "one more")


@defer.inlineCallbacks
def run(connection: Any, queue_name: str, handled: list[Any]) -> Any:
    """The shape of the consumer in pika's documentation; nothing in it knows whose classes run."""
    channel = yield connection.channel()
    yield channel.exchange_declare(exchange="amq.topic", exchange_type="topic", passive=True)
    yield channel.queue_declare(queue=queue_name, durable=True, auto_delete=False, exclusive=False)
    yield channel.queue_bind(exchange="amq.topic", queue=queue_name, routing_key=queue_name)
    yield channel.basic_qos(prefetch_count=1)
    queue_object, _ = yield channel.basic_consume(queue=queue_name, auto_ack=False)
    loop = task.LoopingCall(read, queue_object, handled)
    loop.start(0)


@defer.inlineCallbacks
def read(queue_object: Any, handled: list[Any]) -> Any:
    ch, method, properties, body = yield queue_object.get()
    if body:
        handled.append((body, properties.content_type))
    yield ch.basic_ack(delivery_tag=method.delivery_tag)


@scenario()
async def documented_consumer(env: Env) -> None:
    """ClientCreator, `ready`, inlineCallbacks, LoopingCall: only the import was swapped."""
    # Nobody listens to the Deferred of the loop's start(), which fails with the last get().
    env.allow_log("Unhandled error in Deferred")
    env.allow_log("ChannelClosedByClient")
    queue = env.name()
    total = 200
    protocol_class = env.implementation.TwistedProtocolConnection
    creator = protocol.ClientCreator(env.reactor, protocol_class, env.parameters())
    connecting = creator.connectTCP(env.broker.host, env.broker.port)
    connection = await connecting
    env.connections.append(connection)
    handled: list[Any] = []
    await connection.ready.addCallback(run, queue, handled)
    _, channel = await env.open()
    properties = pika.BasicProperties(content_type="text/plain")
    for number in range(total):
        channel.basic_publish("amq.topic", queue, b"%d" % number, properties)
    await env.until(lambda: len(handled) == total, "all were handled")
    equal(handled, [(b"%d" % number, "text/plain") for number in range(total)], "messages")
    await env.settled(queue, 0)
