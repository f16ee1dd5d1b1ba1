"""Attempts that end: delivery limits, delay queues, dead letters, at a real broker."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pika_twisted
from tests.broker.env import Env, equal
from tests.broker.registry import scenario


@contextmanager
def quietly() -> Iterator[None]:
    """Without a traceback in the log for each attempt."""
    logger = logging.getLogger("pika_twisted")
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(logging.NOTSET)


class Work:
    """A handler that fails for b"poison", and notes what it is called with."""

    def __init__(self) -> None:
        self.calls: list[bytes] = []
        self.done: list[bytes] = []

    async def handle(self, message: Any) -> None:
        self.calls.append(message.body)
        if message.body == b"poison":
            raise ValueError("no way")
        self.done.append(message.body)


async def published(channel: Any, queue: str) -> None:
    await channel.confirm_delivery()
    for body in (b"poison", b"good 1", b"good 2"):
        await channel.basic_publish("", queue, body)


@scenario(
    interface="ours", timeout=60, variants={"one": {"concurrency": 1}, "five": {"concurrency": 5}}
)
async def a_queue_s_delivery_limit_counts(env: Env, concurrency: int) -> None:
    """A limit of 3 on a quorum queue: the poison message is dead-lettered, the others handled."""
    _, channel = await env.open()
    queue, dead = env.name(), env.name()
    await channel.queue_declare(dead, durable=True)
    arguments = {
        "x-queue-type": "quorum",
        "x-delivery-limit": 3,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": dead,
    }
    await channel.queue_declare(queue, durable=True, arguments=arguments)
    await published(channel, queue)
    _, consuming = await env.open()
    work = Work()
    with quietly():
        handling = await pika_twisted.consume(
            consuming, queue, work.handle, concurrency=concurrency, reactor=env.reactor
        )
        await env.settled(dead, 1)
        await env.within(10, handling.stop(), "stopped")
    equal(sorted(work.done), [b"good 1", b"good 2"], "handled")
    equal(work.calls.count(b"poison"), 6 if concurrency == 1 else 4, "attempts")
    await env.settled(queue, 0)


@scenario(
    interface="ours",
    timeout=60,
    variants={"classic": {"queue_type": "classic"}, "quorum": {"queue_type": "quorum"}},
)
async def attempts_end_without_a_delay_queue(env: Env, queue_type: str) -> None:
    """Five attempts over redeliveries, then the message is published with the reason."""
    _, channel = await env.open()
    queue, dead = env.name(), env.name()
    await channel.queue_declare(dead, durable=True)
    await channel.queue_declare(queue, durable=True, arguments={"x-queue-type": queue_type})
    await published(channel, queue)
    _, consuming = await env.open()
    work = Work()
    with quietly():
        handling = await pika_twisted.consume(
            consuming,
            queue,
            work.handle,
            max_attempts=5,
            on_give_up=pika_twisted.DeadLetter("", dead),
            reactor=env.reactor,
        )
        await env.settled(dead, 1)
        await env.within(10, handling.stop(), "stopped")
    equal((work.calls.count(b"poison"), handling.given_up), (5, 1), "attempts")
    letter = await channel.basic_get(dead, auto_ack=True)
    equal(letter.properties.headers["x-failure-reason"], "ValueError: no way", "the reason")
    equal(letter.properties.headers["x-failure-attempts"], 5, "attempts in the header")
    equal(sorted(work.done), [b"good 1", b"good 2"], "handled")
    await env.settled(queue, 0)


@scenario(
    interface="ours",
    timeout=60,
    variants={"classic": {"queue_type": "classic"}, "quorum": {"queue_type": "quorum"}},
)
async def attempts_end_with_a_delay_queue(env: Env, queue_type: str) -> None:
    """Three attempts, 0.5 s apart at the broker; two consumers, each of which counts by x-death."""
    _, channel = await env.open()
    delay = await pika_twisted.declare_delay_queue(channel, env.name(), 0.5, queue_type=queue_type)
    await published(channel, delay.queue)
    work = Work()
    handlings = []
    with quietly():
        begin = env.reactor.seconds()
        for _ in range(2):
            _, consuming = await env.open()
            handlings.append(
                await pika_twisted.consume(
                    consuming,
                    delay.queue,
                    work.handle,
                    max_attempts=3,
                    retry_delay=delay,
                    reactor=env.reactor,
                )
            )
        await env.settled(delay.dead_letter_queue, 1)
        took = env.reactor.seconds() - begin
        for handling in handlings:
            await env.within(10, handling.stop(), "stopped")
    equal(work.calls.count(b"poison"), 3, "attempts")
    equal(took >= 1, True, f"two delays of 0.5 s ({took:.2f} s)")
    letter = await channel.basic_get(delay.dead_letter_queue, auto_ack=True)
    equal(letter.properties.headers["x-failure-attempts"], 3, "attempts in the header")
    for name in (delay.queue, delay.delay_queue, delay.dead_letter_queue):
        await env.settled(name, 0)
        await channel.queue_delete(name)
