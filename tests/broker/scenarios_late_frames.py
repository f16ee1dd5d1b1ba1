"""What a correct broker sends late: behind its Channel.Close, its CancelOk, its DeleteOk."""

from __future__ import annotations

from typing import Any

from pika import exceptions
from twisted.internet import defer

from tests.broker.env import Env, check, equal
from tests.broker.registry import scenario


async def refuse(channel: Any, queue: Any, how: str) -> BaseException:
    """Make the broker close the channel; returns its reason."""
    try:
        if how == "404":
            await channel.queue_declare("pika-twisted no such queue", passive=True)
        channel.basic_ack(1)  # it was acknowledged before: 406
        while True:
            message = await queue.get()
            channel.basic_ack(message.method.delivery_tag)
    except exceptions.ChannelClosedByBroker as reason:
        return reason


@scenario(interface="ours", variants={"404": {"how": "404"}, "406": {"how": "406"}})
async def deliveries_behind_channel_close(env: Env, how: str) -> None:
    """The broker closes a busy channel 20 times; nothing else on the connection notices."""
    busy, calm = env.name(), env.name()
    _, feeder = await env.open()
    await feeder.queue_declare(busy, durable=True)
    await feeder.queue_declare(calm, durable=True)
    connection = await env.connect()
    other = await connection.channel()
    calm_queue, _ = await other.basic_consume(calm, auto_ack=True)
    feeding = True

    async def feed() -> None:
        while feeding:
            for _ in range(50):
                feeder.basic_publish("", busy, b"x" * 100)
            await env.sleep(0.001)

    fed = defer.ensureDeferred(feed())
    numbers = []
    for _ in range(20):
        channel = await connection.channel()
        numbers.append(channel.channel_number)
        await channel.basic_qos(prefetch_count=200)
        queue, _ = await channel.basic_consume(busy, consumer_tag="the same")
        for _ in range(300):
            message = await env.within(10, queue.get(), "a delivery")
            channel.basic_ack(message.method.delivery_tag)
        reason: Any = await env.within(10, defer.ensureDeferred(refuse(channel, queue, how)), how)
        equal(reason.reply_code, int(how), "the code")
        await env.sleep(0.02)
        check(connection.is_open, f"the connection is closed: {connection}")
    feeding = False
    await fed
    equal(len(set(numbers)), 20, "a number for each channel")
    check(connection.stats().late_frames > 0, "the broker sent nothing behind its Channel.Close")
    feeder.basic_publish("", calm, b"still there")
    message = await env.within(10, calm_queue.get(), "the other consumer's message")
    equal(message.body, b"still there", "the other consumer")


@scenario(interface="ours")
async def a_tag_taken_again_after_its_queue_was_deleted(env: Env) -> None:
    """The broker's Basic.Cancel behind DeleteOk ends the consumer before, not the new one."""
    connection = await env.connect()
    for round_ in range(30):
        channel = await connection.channel()
        channel.ack_batching = 1
        queue = env.name()
        await channel.queue_declare(queue, durable=True)
        await channel.basic_consume(queue, consumer_tag="fixed", auto_ack=True)
        await channel.queue_delete(queue)
        declared = channel.queue_declare(queue, durable=True)
        messages, _ = await channel.basic_consume(queue, consumer_tag="fixed", auto_ack=True)
        await declared
        channel.basic_publish("", queue, b"hello")
        message = await env.within(5, messages.get(), f"the message of round {round_}")
        equal(message.body, b"hello", "the body")
        await channel.queue_delete(queue)
        await env.close_channel(channel)


@scenario(interface="ours", timeout=200.0)
async def a_delivery_that_times_out_costs_its_consumer_only(env: Env) -> None:
    """RabbitMQ 4.3 cancels the consumer and keeps its tag: it can be taken again at once."""
    connection = await env.connect()
    env.needs_rabbitmq(connection, 4, 3)
    slow, calm = env.name(), env.name()
    channel, other = await connection.channel(), await connection.channel()
    arguments = {"x-queue-type": "quorum", "x-consumer-timeout": 1000}
    await channel.queue_declare(slow, durable=True, arguments=arguments)
    await other.queue_declare(calm, durable=True)
    calm_queue, _ = await other.basic_consume(calm, auto_ack=True)
    await channel.basic_qos(prefetch_count=10)
    for number in range(3):
        channel.basic_publish("", slow, b"%d" % number)
    queue, tag = await channel.basic_consume(slow, consumer_tag="fixed")
    first = await env.within(10, queue.get(), "the first message")
    await env.until(lambda: queue.closed is not None, "the consumer is cancelled", 150)
    check(isinstance(queue.closed, exceptions.ConsumerCancelled), repr(queue.closed))
    equal(len(queue.pending), 0, "what still waits of the cancelled consumer")
    again, _ = await channel.basic_consume(slow, consumer_tag=tag)
    bodies = set()
    while len(bodies) < 3:
        message = await env.within(30, again.get(), f"the rest of {bodies}")
        bodies.add(message.body)
        channel.basic_ack(message.method.delivery_tag)
    check(first.body in bodies, "the message that timed out comes again")
    check(channel.is_open and connection.is_open, "channel and connection are open")
    other.basic_publish("", calm, b"still there")
    message = await env.within(10, calm_queue.get(), "the other consumer's message")
    equal(message.body, b"still there", "the other consumer")
    await channel.queue_delete(slow)
    await other.queue_delete(calm)
