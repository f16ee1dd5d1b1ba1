"""The publisher and batched acks against the real broker."""

from __future__ import annotations

from typing import Any

from pika import exceptions
from twisted.internet import defer

import pika_twisted
from tests.broker.env import Env, check, equal
from tests.broker.registry import scenario


@scenario(interface="ours", timeout=60)
async def publisher_confirms_20000(env: Env) -> None:
    """20,000 publishes, 100 in flight, every tenth unroutable: each is told the truth."""
    _, channel = await env.open()
    queue = env.name()
    await channel.queue_declare(queue, durable=True)
    publisher = pika_twisted.Publisher(channel, max_in_flight=100, reactor=env.reactor)
    wrong = []
    most = 0

    def settled(result: Any, number: int) -> None:
        nonlocal most
        most = max(most, publisher.in_flight)
        returned = getattr(result, "check", lambda _: None)(exceptions.UnroutableError)
        if (returned is not None) != (number % 10 == 0):
            wrong.append((number, result))

    for number in range(20_000):
        key = queue if number % 10 else "nobody-" + queue
        publisher.publish("", key, b"%d" % number).addBoth(settled, number)
    await env.within(40, publisher.flush(), "all confirmed")
    equal(wrong, [], "wrong outcomes")
    check(most <= 100, f"{most} in flight")
    equal((publisher.confirmed, publisher.failed), (18_000, 2_000), "counts")
    await env.settled(queue, 18_000)


@scenario(interface="ours", timeout=60)
async def ack_batching_settles_everything(env: Env) -> None:
    """20,000 messages acked in a batch, out of order, some refused: the queue ends empty."""
    _, channel = await env.open()
    queue = env.name()
    await channel.queue_declare(queue, durable=True)
    for number in range(20_000):
        channel.basic_publish("", queue, b"%d" % number)
    await env.settled(queue, 20_000, timeout=20)
    _, batching = await env.open()
    batching.ack_batching = True
    await batching.basic_qos(prefetch_count=500)
    messages, _ = await batching.basic_consume(queue)
    held: list[Any] = []
    refused = 0
    acked = 0
    while acked < 20_000:
        message = await env.within(10, messages.get(), "a message")
        number = int(message.body)
        if number % 1000 == 999 and not message.redelivered:
            message.nack()
            refused += 1
        elif number % 7 == 3:
            held.append(message)
        else:
            message.ack()
            acked += 1
        if len(held) >= 40 or acked + len(held) == 20_000:
            acked += len(held)
            while held:
                held.pop().ack()
    equal(refused, 20, "refused")
    check(batching.is_open, "the channel lives")
    ledger = batching._ledger
    check(
        ledger.acks_out < 0.9 * ledger.acks_in, f"{ledger.acks_out} acks left of {ledger.acks_in}"
    )
    await env.close_channel(batching)
    await env.settled(queue, 0)
    with_double = await env.failure(defer.maybeDeferred(message.ack))
    check(isinstance(with_double, exceptions.AMQPError), repr(with_double))


ENDS = {end: {"end": end} for end in ("channel", "connection", "transport")}


@scenario(interface="ours", variants=ENDS)
async def ack_delay_leaves_nothing_unacked(env: Env, end: str) -> None:
    """A consumer that has its prefetch goes on after the delay; what is held leaves at the end."""
    _, setup = await env.open()
    queue = env.name()
    await setup.queue_declare(queue, durable=True)
    for number in range(530):
        setup.basic_publish("", queue, b"%d" % number)
    await env.settled(queue, 530)
    connection, channel = await env.open()
    channel.ack_batching = 1000
    channel.ack_delay = 0.02
    await channel.basic_qos(prefetch_count=100)
    began = env.reactor.seconds()
    messages, _ = await channel.basic_consume(queue)
    for number in range(530):
        if number == 500:
            channel.ack_delay = 1  # the last 30 are not to leave by themselves
        message = await env.within(5, messages.get(), "a message")
        equal((message.body, message.redelivered), (b"%d" % number, False), "message")
        message.ack()
    stats = connection.stats()
    equal(stats.acks, 530, "acks")
    most = 5 + (env.reactor.seconds() - began) / 0.02  # one after each delay
    check(5 <= stats.acks_sent <= most, f"{stats.acks_sent} Basic.Acks, {most:.0f} expected")
    check(channel._ledger._held > 0, "some are held")
    done = env.closed(connection)
    if end == "channel":
        await env.close_channel(channel)
    elif end == "connection":
        connection.close()
        await env.within(5, done, "closed")
    else:
        connection.transport.loseConnection()
        await env.within(5, done, "closed")
    while (await setup.queue_declare(queue, passive=True)).method.consumer_count:
        await env.sleep(0.01)  # until the broker has seen the end, and taken back what is unacked
    equal(await env.count(queue), 0, "messages that were given back")


@scenario(interface="ours")
async def settling_twice_costs_no_channel(env: Env) -> None:
    """ack() twice, of an auto_ack message, of a fetched one: errors here, none at the broker."""
    _, channel = await env.open()
    queue = env.name()
    await channel.queue_declare(queue, durable=True)
    for number in range(4):
        await channel.basic_publish("", queue, b"%d" % number)
    first = await env.until_first(channel, queue)
    fetched = await env.within(5, channel.basic_get(queue, auto_ack=True), "a message")
    manual, tag = await channel.basic_consume(queue)
    second = await env.within(5, manual.get(), "a message")
    third = await env.within(5, manual.get(), "a message")
    first.ack()
    second.ack()
    third.nack()
    again = await env.within(5, manual.get(), "the refused one")
    check(again.redelivered and not third.redelivered, "redelivered")
    again.ack()
    for message in (first, fetched, second, third, again):
        for settle in (message.ack, message.nack, message.reject):
            reason: Any = await env.failure(defer.maybeDeferred(settle))
            check(isinstance(reason, pika_twisted.AlreadySettled), repr(reason))
    await channel.basic_cancel(tag)
    check(channel.is_open, "the channel lives")
    await env.close_channel(channel)
    await env.settled(queue, 0)
