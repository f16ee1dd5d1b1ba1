"""consume() against the real broker."""

from __future__ import annotations

import logging
from typing import Any

from twisted.internet import defer

import pika_twisted
from tests.broker.env import Env, as_deferred, check, equal
from tests.broker.registry import scenario


async def filled(env: Env, count: int, **declare: Any) -> tuple[Any, Any, str]:
    connection, channel = await env.open()
    queue = env.name()
    await channel.queue_declare(queue, durable=True, **declare)
    publisher = pika_twisted.Publisher(channel, reactor=env.reactor)
    for number in range(count):
        publisher.publish("", queue, b"%d" % number)
    await publisher.flush()
    return connection, await connection.channel(), queue


@scenario(
    interface="ours",
    timeout=60,
    variants={
        "classic": {"declare": {}},
        "quorum": {"declare": {"arguments": {"x-queue-type": "quorum"}}},
    },
)
async def handlers_keep_the_order(env: Env, declare: dict[str, Any]) -> None:
    """Every hundredth message fails at first: with concurrency 1 none overtakes it."""
    logging.getLogger("pika_twisted").setLevel(logging.CRITICAL)
    _, channel, queue = await filled(env, 500, **declare)
    done: list[int] = []
    failed: set[int] = set()

    async def handler(message: Any) -> None:
        number = int(message.body)
        if number % 100 == 50 and number not in failed:
            failed.add(number)
            raise RuntimeError("not this time")
        done.append(number)

    handling = await pika_twisted.consume(channel, queue, handler, reactor=env.reactor)
    await env.until(lambda: len(done) >= 500, "all handled", 30)
    equal(done, list(range(500)), "order")
    await env.within(10, handling.stop(), "stopped")
    equal((handling.handled, handling.failed), (500, 5), "counts")
    await env.close_channel(channel)
    await env.settled(queue, 0)
    logging.getLogger("pika_twisted").setLevel(logging.NOTSET)


@scenario(interface="ours", timeout=60)
async def handlers_work_beside_each_other(env: Env) -> None:
    """2,000 messages, 50 handlers at a time, then a stop in the middle: none lost, none twice."""
    _, channel, queue = await filled(env, 2_000)
    done: list[bytes] = []
    now = most = 0
    all_at_once: defer.Deferred[None] = defer.Deferred()

    async def handler(message: Any) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        if now == 50 and not all_at_once.called:
            all_at_once.callback(None)
        if not all_at_once.called:  # a slow broker may send one at a time
            await as_deferred(all_at_once)
        await env.sleep(0.01)
        now -= 1
        done.append(message.body)

    handling = await pika_twisted.consume(
        channel, queue, handler, concurrency=50, prefetch_count=100, reactor=env.reactor
    )
    await env.until(lambda: len(done) >= 500, "500 handled", 30)
    await env.within(10, handling.stop(), "stopped")
    at_stop = len(done)
    check(at_stop < 2_000, "stopped in the middle")
    equal(most, 50, "at a time")
    await env.settled(queue, 2_000 - at_stop)
    again = await pika_twisted.consume(channel, queue, handler, concurrency=50, reactor=env.reactor)
    await env.until(lambda: len(done) >= 2_000, "all handled", 30)
    await again.stop()
    equal(sorted(map(int, done)), list(range(2_000)), "messages")
    await env.close_channel(channel)
    await env.settled(queue, 0)
