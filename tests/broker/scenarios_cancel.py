"""Consumers that end: by the client, by the broker, in a burst, with messages still on the way."""

from __future__ import annotations

from typing import Any

import pika

from tests.broker.env import Env, check, equal
from tests.broker.registry import scenario
from tests.broker.scenarios_consume import PATHS


@scenario(variants=PATHS)
async def cancel_by_client(env: Env, direct: bool) -> None:
    """get() fails once cancelled; the broker no longer delivers; unacked messages go back."""
    _, channel = await env.open(options={"direct_delivery": direct})
    queue = env.name()
    await channel.queue_declare(queue, durable=True)
    deliveries, tag = await channel.basic_consume(queue)
    equal(channel.consumer_tags, [tag], "consumer tags")
    waiting = deliveries.get()
    answer = await channel.basic_cancel(tag)
    check(isinstance(answer.method, pika.spec.Basic.CancelOk), f"{answer}")
    reason = await env.failure(waiting)
    check(isinstance(reason, pika.exceptions.ConsumerCancelled), repr(reason))
    reason = await env.failure(deliveries.get())
    check(isinstance(reason, pika.exceptions.ConsumerCancelled), repr(reason))
    equal(channel.consumer_tags, [], "consumer tags")
    channel.basic_publish("", queue, b"stays")
    await env.settled(queue, 1)


@scenario(
    timeout=60,
    interface="ours",
    variants={
        f"{'auto' if auto_ack else 'manual'}-{path}": {"auto_ack": auto_ack, **options}
        for auto_ack in (True, False)
        for path, options in PATHS.items()
    },
)
async def cancel_under_load_loses_nothing(env: Env, auto_ack: bool, direct: bool) -> None:
    """20 rounds of publish, consume, take some, cancel: taken plus left is what was sent."""
    rounds, each = 20, 400
    queue = env.name()
    connection, channel = await env.open(options={"direct_delivery": direct})
    await channel.queue_declare(queue, durable=True)
    taken: list[bytes] = []
    for number in range(rounds):
        for message in range(each):
            channel.basic_publish("", queue, b"%d %d" % (number, message))
        channel = await connection.channel()
        await channel.basic_qos(prefetch_count=200)
        deliveries, tag = await channel.basic_consume(queue, auto_ack=auto_ack)
        for _ in range(number * 7):
            message = await env.within(10, deliveries.get(), "a delivery")
            taken.append(message.body)
            if not auto_ack:
                channel.basic_ack(message.method.delivery_tag)
        await channel.basic_cancel(tag)
        for message in deliveries.drain():  # what the broker had sent until its CancelOk
            taken.append(message.body)
            if not auto_ack:
                channel.basic_ack(message.method.delivery_tag)
        await env.close_channel(channel)
        channel = await connection.channel()
    # What was published last, on a channel of its own, may still be on its way to the queue.
    await env.settled(queue, rounds * each - len(taken))
    left = [body for _, _, body in await env.take_all(queue)]
    equal(len(taken) + len(left), rounds * each, "taken and left")
    equal(len({*taken, *left}), rounds * each, "each exactly once")


@scenario(variants=PATHS)
async def cancel_by_broker(env: Env, direct: bool) -> None:
    """Deleting a queue ends its consumer with ConsumerCancelled, and no other."""
    _, channel = await env.open(options={"direct_delivery": direct})
    _, other = await env.open()
    doomed, kept = env.name(), env.name()
    for queue in (doomed, kept):
        await channel.queue_declare(queue, durable=True)
    deliveries, _ = await channel.basic_consume(doomed)
    living, living_tag = await channel.basic_consume(kept)
    waiting, alive = deliveries.get(), living.get()
    await other.queue_delete(doomed)
    reason = await env.failure(waiting)
    check(isinstance(reason, pika.exceptions.ConsumerCancelled), repr(reason))
    await env.failure(deliveries.get())
    equal(channel.consumer_tags, [living_tag], "consumer tags")
    check(channel.is_open, "the channel lives")
    other.basic_publish("", kept, b"still here")
    equal((await env.within(5, alive, "the other consumer")).body, b"still here", "body")


@scenario(interface="ours")
async def cancel_by_broker_keeps_what_came(env: Env) -> None:
    """Messages delivered before the queue was deleted are handed out by drain()."""
    _, channel = await env.open()
    _, other = await env.open()
    queue = env.name()
    await channel.queue_declare(queue, durable=True)
    deliveries, _ = await channel.basic_consume(queue, auto_ack=True)
    for number in range(10):
        other.basic_publish("", queue, b"%d" % number)
    await env.until(lambda: len(deliveries.pending) == 10, "ten are waiting")
    await other.queue_delete(queue)
    await env.until(lambda: deliveries.closed is not None, "the queue object closed")
    await env.failure(deliveries.get())
    bodies = [message.body for message in deliveries.drain()]
    equal(bodies, [b"%d" % number for number in range(10)], "drained")


@scenario(interface="ours")
async def two_cancels_in_flight(env: Env) -> None:
    """Each fires on its own CancelOk and closes its own queue (D06)."""
    _, channel = await env.open()
    queue = env.name()
    await channel.queue_declare(queue, durable=True)
    first, first_tag = await channel.basic_consume(queue)
    second, second_tag = await channel.basic_consume(queue)
    waiting = [first.get(), second.get()]
    answers = [channel.basic_cancel(first_tag), channel.basic_cancel(second_tag)]
    for answer, tag in zip(answers, (first_tag, second_tag), strict=True):
        frame = await env.within(5, answer, "CancelOk")
        equal(frame.method.consumer_tag, tag, "the tag in CancelOk")
    for get in waiting:
        reason = await env.failure(get, 2)
        check(isinstance(reason, pika.exceptions.ConsumerCancelled), repr(reason))


@scenario(interface="ours")
async def cancel_of_an_unknown_tag(env: Env) -> None:
    """It fires, never hangs, and the channel goes on (D07)."""
    _, channel = await env.open()
    queue = env.name()
    await channel.queue_declare(queue, durable=True)
    await env.within(5, channel.basic_cancel("nobody-has-this"), "CancelOk for an unknown tag")
    _, tag = await channel.basic_consume(queue)
    await channel.basic_cancel(tag)
    await env.within(5, channel.basic_cancel(tag), "CancelOk for a tag already cancelled")
    await channel.queue_declare(queue, passive=True)


@scenario(interface="ours")
async def user_closes_the_queue(env: Env) -> None:
    """Closing the queue object cancels the consumer at the next delivery; drain() has it (D36)."""
    _, channel = await env.open()
    queue = env.name()
    await channel.queue_declare(queue, durable=True)
    deliveries, tag = await channel.basic_consume(queue)
    deliveries.close(RuntimeError("enough"))
    channel.basic_publish("", queue, b"late")
    await env.until(lambda: tag not in channel.consumer_tags, "the consumer is cancelled")
    drained = deliveries.drain()
    equal([message.body for message in drained], [b"late"], "drained")
    channel.basic_ack(drained[0].method.delivery_tag)
    await channel.queue_declare(queue, passive=True)


@scenario()
async def exclusive_consumer(env: Env) -> None:
    """A second consumer beside an exclusive one is refused with 403, on its channel only."""
    connection, channel = await env.open()
    queue = env.name()
    await channel.queue_declare(queue, durable=True)
    deliveries, _ = await channel.basic_consume(queue, exclusive=True)
    second = await connection.channel()
    error: Any = await env.failure(second.basic_consume(queue))
    check(isinstance(error, pika.exceptions.ChannelClosedByBroker), repr(error))
    equal(error.reply_code, 403, "code")
    channel.basic_publish("", queue, b"x")
    equal((await env.within(5, deliveries.get(), "delivery")).body, b"x", "the first consumer")
