"""Declaring, binding, getting: exchanges, queues of every type, names given by the server."""

from __future__ import annotations

from typing import Any

import pika
from pika.exchange_type import ExchangeType
from twisted.internet import defer

from tests.broker.env import Env, check, equal
from tests.broker.registry import scenario

QUEUE_TYPES: dict[str, dict[str, Any]] = {
    "classic": {"durable": True},
    "exclusive": {"exclusive": True},
    "auto_delete": {"auto_delete": True, "durable": True},
    "lazy": {"durable": True, "arguments": {"x-queue-mode": "lazy"}},
    "quorum": {"durable": True, "arguments": {"x-queue-type": "quorum"}},
}


@scenario(variants={each.value: {"kind": each} for each in ExchangeType})
async def exchange_routes(env: Env, kind: ExchangeType) -> None:
    """Each exchange type takes the message that matches to the queue, and not the other."""
    _, channel = await env.open()
    exchange, queue = env.name("exchange"), env.name()
    declared = await channel.exchange_declare(exchange, kind)
    check(isinstance(declared.method, pika.spec.Exchange.DeclareOk), f"{declared}")
    await channel.exchange_declare(exchange, passive=True)
    await channel.queue_declare(queue, durable=True)
    arguments = {"x-match": "all", "colour": "red"} if kind is ExchangeType.headers else None
    key = {"topic": "stock.*.nyse", "direct": "here"}.get(kind.value, "")
    bound = await channel.queue_bind(queue, exchange, key, arguments)
    check(isinstance(bound.method, pika.spec.Queue.BindOk), f"{bound}")
    red = pika.BasicProperties(headers={"colour": "red"})
    blue = pika.BasicProperties(headers={"colour": "blue"})
    good = {"topic": "stock.ibm.nyse", "direct": "here"}.get(kind.value, "")
    channel.basic_publish(exchange, good, b"match", red)
    if kind is not ExchangeType.fanout:
        channel.basic_publish(exchange, "elsewhere", b"no match", blue)
    await env.settled(queue, 1)
    message = await channel.basic_get(queue, auto_ack=True)
    equal((message.body, message.method.exchange), (b"match", exchange), "message")
    unbound = await channel.queue_unbind(queue, exchange, key, arguments)
    check(isinstance(unbound.method, pika.spec.Queue.UnbindOk), f"{unbound}")
    channel.basic_publish(exchange, good, b"late", red)
    deleted = await channel.exchange_delete(exchange)
    check(isinstance(deleted.method, pika.spec.Exchange.DeleteOk), f"{deleted}")
    equal(await channel.basic_get(queue, auto_ack=True), None, "the queue after unbinding")


@scenario(variants={name: {"options": options} for name, options in QUEUE_TYPES.items()})
async def queue_type(env: Env, options: dict[str, Any]) -> None:
    """Declare, publish, consume, ack, purge and delete on each type of queue."""
    connection, channel = await env.open()
    queue = env.name()
    declared = await channel.queue_declare(queue, **options)
    equal(declared.method.queue, queue, "name")
    if "exclusive" not in options:
        await channel.queue_declare(queue, passive=True)
    await channel.confirm_delivery()
    persistent = pika.BasicProperties(delivery_mode=2)
    published = [
        channel.basic_publish("", queue, b"%d" % number, persistent) for number in range(50)
    ]
    await defer.gatherResults(published)
    deliveries, tag = await channel.basic_consume(queue)
    for number in range(50):
        message = await env.within(10, deliveries.get(), f"delivery {number}")
        equal(message.body, b"%d" % number, "order")
        channel.basic_ack(message.method.delivery_tag)
    if "auto_delete" in options:  # cancelling its last consumer deletes it
        await channel.basic_cancel(tag)
        return
    channel.basic_publish("", queue, b"held", persistent)
    await env.within(10, deliveries.get(), "the last delivery")
    await channel.basic_cancel(tag)
    again = await connection.channel()
    equal((await again.queue_purge(queue)).method.message_count, 0, "one is still unacknowledged")
    deleted = await again.queue_delete(queue)
    check(isinstance(deleted.method, pika.spec.Queue.DeleteOk), f"{deleted}")


@scenario(timeout=60)
async def stream_queue(env: Env) -> None:
    """A stream is read twice from its first entry, and from an offset; acks are credit there."""
    connection, publisher = await env.open()
    env.needs_rabbitmq(connection, 3, 9)
    queue = env.name()
    arguments = {"x-queue-type": "stream"}
    await publisher.queue_declare(queue, durable=True, arguments=arguments)
    await publisher.confirm_delivery()
    total = 2000
    confirms = [publisher.basic_publish("", queue, b"%d" % number) for number in range(total)]
    await defer.gatherResults(confirms)
    connection = await env.connect()
    for offset, first in (("first", 0), (0, 0), (1500, 1500)):
        channel = await connection.channel()
        await channel.basic_qos(prefetch_count=100)
        start = {"x-stream-offset": offset}
        deliveries, tag = await channel.basic_consume(queue, arguments=start)
        position = first
        while position < total:
            message = await env.within(10, deliveries.get(), f"entry {position}")
            equal(message.body, b"%d" % position, "entry")
            equal(message.properties.headers["x-stream-offset"], position, "offset header")
            channel.basic_ack(message.method.delivery_tag)
            position += 1
        await channel.basic_cancel(tag)
        await env.close_channel(channel)


@scenario()
async def exchange_to_exchange(env: Env) -> None:
    """A binding between exchanges carries messages until it is removed."""
    _, channel = await env.open()
    source, destination, queue = env.name("exchange"), env.name("exchange"), env.name()
    await channel.exchange_declare(source, "topic")
    await channel.exchange_declare(destination, "fanout")
    await channel.queue_declare(queue, durable=True)
    await channel.queue_bind(queue, destination)
    bound = await channel.exchange_bind(destination, source, "a.#")
    check(isinstance(bound.method, pika.spec.Exchange.BindOk), f"{bound}")
    channel.basic_publish(source, "a.b.c", b"through")
    channel.basic_publish(source, "b.c", b"not through")
    await env.settled(queue, 1)
    unbound = await channel.exchange_unbind(destination, source, "a.#")
    check(isinstance(unbound.method, pika.spec.Exchange.UnbindOk), f"{unbound}")
    channel.basic_publish(source, "a.b.c", b"too late")
    message = await channel.basic_get(queue, auto_ack=True)
    equal((message.body, message.method.routing_key), (b"through", "a.b.c"), "message")
    equal(await channel.basic_get(queue, auto_ack=True), None, "after unbinding")


@scenario()
async def server_named_queue(env: Env) -> None:
    """The empty name stands for the queue declared last on the channel, in every call."""
    _, channel = await env.open()
    exchange = env.name("exchange")
    await channel.exchange_declare(exchange, "fanout")
    name = (await channel.queue_declare("", exclusive=True)).method.queue
    check(name.startswith("amq.gen-"), name)
    await channel.queue_bind("", exchange)
    channel.basic_publish(exchange, "", b"one")
    await env.until_get(channel, "", b"one")
    channel.basic_publish(exchange, "", b"two")
    deliveries, tag = await channel.basic_consume("", auto_ack=True)
    equal((await env.within(5, deliveries.get(), "delivery")).body, b"two", "body")
    waiting = deliveries.get()
    await channel.queue_delete(name)
    reason = await env.failure(waiting)
    check(isinstance(reason, pika.exceptions.ConsumerCancelled), repr(reason))
    check(tag not in channel.consumer_tags, "the consumer of a deleted queue is forgotten")


@scenario()
async def get_counts_down(env: Env) -> None:
    """basic_get: message_count, redelivered, None when empty, and acks of what was got."""
    _, channel = await env.open()
    queue = env.name()
    await channel.queue_declare(queue, durable=True)
    equal(await channel.basic_get(queue), None, "an empty queue")
    for number in range(5):
        channel.basic_publish("", queue, b"%d" % number)
    await env.settled(queue, 5)
    for number in range(5):
        message = await channel.basic_get(queue)
        check(isinstance(message.method, pika.spec.Basic.GetOk), repr(message.method))
        check(message.channel is channel, "the message names the TwistedChannel")
        equal(message.body, b"%d" % number, "body")
        equal(message.method.message_count, 4 - number, "messages left")
        check(not message.method.redelivered, "not redelivered")
    channel.basic_nack(message.method.delivery_tag, multiple=True, requeue=True)
    await env.settled(queue, 5)
    message = await channel.basic_get(queue)
    check(message.method.redelivered, "redelivered")
    channel.basic_ack(message.method.delivery_tag)
    await env.close_channel(channel)
    await env.settled(queue, 4)


@scenario()
async def purge_and_delete_count(env: Env) -> None:
    """Purge and delete say how many messages went; the conditions of delete are obeyed."""
    connection, channel = await env.open()
    queue = env.name()
    await channel.queue_declare(queue, durable=True)
    for _ in range(7):
        channel.basic_publish("", queue, b"x")
    await env.settled(queue, 7)
    equal((await channel.queue_purge(queue)).method.message_count, 7, "purged")
    channel.basic_publish("", queue, b"x")
    await env.settled(queue, 1)
    error = await env.failure(channel.queue_delete(queue, if_empty=True))
    equal(error.reply_code, 406, "deleting a queue that is not empty")
    channel = await connection.channel()
    equal((await channel.queue_delete(queue)).method.message_count, 1, "deleted")
