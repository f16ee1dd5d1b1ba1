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
    await feeder.queue_declare(busy)
    await feeder.queue_declare(calm)
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
