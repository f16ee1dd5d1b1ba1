"""The recovering service under load while everything around it breaks, on a node of its own.

One minute on one reactor in an ordinary run, ten in a long one (PIKA_TWISTED_TEST_LONG=1).
"""

from __future__ import annotations

import gc
import logging
import os
import random
import resource
from typing import Any

from pika import BasicProperties
from twisted.internet import defer

from pika_twisted.recovery.service import RecoveringService
from tests.broker.env import Env, NotHere, check, equal
from tests.broker.node import Node, create_node
from tests.broker.proxy import QuietProxy
from tests.broker.registry import scenario

LONG = os.environ.get("PIKA_TWISTED_TEST_LONG") == "1"
SECONDS = 600.0 if LONG else 60.0
SHORT = 60.0  # in a long run on the other reactors
IN_FLIGHT = 200
PUBLISHES = 400  # a second, at most
QUEUES = 3


class Chaos:
    """Load on a service, and what is done to it."""

    def __init__(self, env: Env, node: Node, proxy: QuietProxy) -> None:
        self.env = env
        self.node = node
        self.proxy = proxy
        self.confirmed: set[bytes] = set()
        self.handled: dict[bytes, int] = {}
        self.outcomes: dict[str, int] = {}
        self.published = 0
        self.done: dict[str, int] = {}
        self.working = True

    def start(self) -> None:
        parameters = self.env.parameters(
            host="127.0.0.1", port=self.proxy.port, heartbeat=4, stack_timeout=3
        )
        self.service = RecoveringService(
            parameters,
            reactor=self.env.reactor,
            retry_policy=lambda attempt: min(0.05 * 2**attempt, 1) * random.uniform(0.5, 1),
            recovery_timeout=10,
        )
        self.service.startService()

    async def prepare(self) -> None:
        self.queues = [f"chaos-{number}" for number in range(QUEUES)]
        channel = self.service.channel()
        await channel.exchange_declare("chaos", "direct", durable=True)
        for queue in self.queues:
            await channel.queue_declare(queue, durable=True)
            await channel.queue_bind(queue, "chaos", queue)
        self.publisher = self.service.publisher(
            when_lost="resend", max_in_flight=IN_FLIGHT, timeout=None
        )
        self.handlings = [
            await self.service.consume(self.queues[0], self.handle, concurrency=20),
            await self.service.consume(
                self.queues[1], self.handle, concurrency=5, ack_batching=50, prefetch_count=200
            ),
        ]
        self.side = self.service.channel()
        await self.side.queue_declare("chaos-side", durable=True)
        self.side_messages, _ = await self.side.basic_consume("chaos-side", auto_ack=True)
        messages = self.service.channel(prefetch_count=100)
        self.iterated, self.iterated_tag = await messages.basic_consume(self.queues[2])
        self.iterating_channel = messages

    async def handle(self, message: Any) -> None:
        if random.random() < 0.3:
            await self.env.sleep(random.random() / 50)
        if random.random() < 0.002:
            raise RuntimeError("chaos in the handler")
        self.handled[message.body] = self.handled.get(message.body, 0) + 1

    async def iterate(self) -> None:
        """The third way to consume: `async for` and `message.ack()`."""
        async for message in self.iterated:
            self.handled[message.body] = self.handled.get(message.body, 0) + 1
            message.ack()

    async def publish(self) -> None:
        """Persistent messages, confirmed, never more than there is room for."""
        properties = BasicProperties(delivery_mode=2)
        while self.working:
            if self.publisher.waiting < IN_FLIGHT:
                for _ in range(PUBLISHES // 20):
                    body = b"%d" % self.published
                    self.published += 1
                    sent = self.publisher.publish(
                        "chaos", random.choice(self.queues), body, properties
                    )
                    sent.addCallbacks(
                        lambda _, body=body: self.confirmed.add(body), self.count_failure
                    )
            await self.env.sleep(0.05)

    def count_failure(self, failure: Any) -> None:
        name = failure.type.__name__
        self.outcomes[name] = self.outcomes.get(name, 0) + 1

    async def break_things(self, seconds: float) -> None:
        """Every few seconds something else."""
        end = self.env.reactor.seconds() + seconds
        gentle = [self.cut, self.freeze_network, self.close_all, self.delete_queue, self.cut_often]
        rude = [self.restart, self.kill]
        turn = 0
        while self.env.reactor.seconds() < end:
            await self.env.sleep(random.uniform(0.5, 2.5))
            turn += 1
            what: Any = random.choice(rude if turn % 6 == 0 else gentle)
            self.done[what.__name__] = self.done.get(what.__name__, 0) + 1
            await what()

    async def cut(self) -> None:
        for link in self.proxy.links:
            link.cut()

    async def cut_often(self) -> None:
        for _ in range(5):
            await self.env.sleep(random.uniform(0.02, 0.3))
            await self.cut()

    async def freeze_network(self) -> None:
        links = list(self.proxy.links)
        for link in links:
            link.freeze()
        await self.env.sleep(random.uniform(0.5, 3))
        for link in links:
            link.thaw() if random.random() < 0.5 else link.cut()

    async def close_all(self) -> None:
        await self.env.thread(
            self.node.evaluate,
            '[rabbit_networking:close_connection(P, "chaos")'
            " || P <- rabbit_networking:connections()]",
        )

    async def delete_queue(self) -> None:
        expression = (
            '{ok, Q} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"chaos-side">>)),'
            ' rabbit_amqqueue:delete(Q, false, false, <<"chaos">>)'
        )
        try:
            await self.env.thread(self.node.evaluate, expression)
        except Exception as error:  # not there just now
            logging.getLogger("chaos").info("%s", error)

    async def restart(self) -> None:
        await self.env.thread(self.node.stop)
        await self.env.thread(self.node.start)

    async def kill(self) -> None:
        await self.env.thread(self.node.kill)
        await self.env.thread(self.node.start)


def resident() -> int:
    """The most memory this process has had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


@scenario(own_node=True, interface="ours", timeout=SECONDS + 180)
async def service_survives_chaos(env: Env) -> None:
    """Everything published and confirmed is handled at least once; nothing hangs, nothing leaks."""
    on_epoll = "EPoll" in type(env.reactor).__name__
    if not on_epoll and not LONG:
        raise NotHere("a minute on one reactor; make test-long has it on all")
    seconds = SECONDS if on_epoll else SHORT
    logging.getLogger("pika_twisted").setLevel(logging.CRITICAL)
    node: Node = await env.thread(create_node)
    proxy = await QuietProxy(env.reactor, node.broker).start()
    chaos = Chaos(env, node, proxy)
    chaos.start()
    try:
        await run(env, chaos, seconds)
    finally:
        chaos.working = False
        await env.within(60, chaos.service.stopService(), "the service stopped")
        await proxy.stop()
        await env.thread(node.remove)
        logging.getLogger("pika_twisted").setLevel(logging.NOTSET)


async def run(env: Env, chaos: Chaos, seconds: float) -> None:
    await env.within(60, chaos.prepare(), "everything declared")
    iterating = defer.Deferred.fromCoroutine(chaos.iterate())
    publishing = defer.Deferred.fromCoroutine(chaos.publish())
    await chaos.break_things(seconds / 4)
    gc.collect()
    memory = resident()
    await chaos.break_things(seconds * 3 / 4)
    chaos.working = False
    await env.within(90, publishing, "publishing ended")
    await env.within(90, chaos.publisher.flush(), "everything confirmed")
    await env.until(
        lambda: not chaos.confirmed - chaos.handled.keys(), "everything handled", timeout=90
    )
    growth = resident() - memory
    twice = sum(1 for times in chaos.handled.values() if times > 1)
    print(
        f"chaos: {chaos.published} published, {len(chaos.confirmed)} confirmed, "
        f"{len(chaos.handled)} handled, {twice} more than once, "
        f"{chaos.service.reconnects} reconnects, {chaos.publisher.resent} sent again, "
        f"failed {chaos.outcomes}, done {chaos.done}, memory +{growth} MiB"
    )
    check(chaos.service.reconnects >= seconds / 15, f"{chaos.service.reconnects} reconnects")
    equal(len(chaos.confirmed) + sum(chaos.outcomes.values()), chaos.published, "publishes")
    equal(chaos.outcomes, {}, "failed publishes")
    check(growth < 40, f"memory grew by {growth} MiB")
    check((await chaos.side.queue_declare("chaos-side", passive=True)) is not None, "there")
    await chaos.iterating_channel.basic_cancel(chaos.iterated_tag)
    await env.within(20, iterating, "the iteration ended")
