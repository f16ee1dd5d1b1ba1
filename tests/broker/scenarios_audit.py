"""Numbers that must balance: what was confirmed is there, what was unroutable was told, exactly.

In a long run (PIKA_TWISTED_TEST_LONG=1) with the full numbers.
"""

from __future__ import annotations

import collections
import random
from typing import Any

import pika
from pika.exceptions import UnroutableError
from twisted.internet import defer

from tests.broker.env import Env, ScenarioError, as_deferred, check, equal
from tests.broker.registry import scenario
from tests.broker.victim import LONG, victim

KINDS: dict[str, dict[str, Any]] = {"classic": {}, "quorum": {"x-queue-type": "quorum"}}
KILLS = 10 if LONG else 1
PERSISTENT = 50_000 if LONG else 5_000
BURSTS = 2_000 if LONG else 200
#: RabbitMQ writes down a quorum queue's existence with a delay of 3 s (dets files): a younger one
#: is there after kill -9, but takes nothing.
WRITE_DOWN = "[ok = dets:sync(Table) || Table <- dets:all()]"
LAST = b"the last"
PERSISTENTLY = pika.BasicProperties(delivery_mode=2)


class PublishLog:
    """What became of the publishes to one durable queue."""

    def __init__(self, env: Env, queue: str) -> None:
        self.env = env
        self.queue = queue
        self.published = 0
        self.confirmed: set[bytes] = set()
        self.failed: collections.Counter[str] = collections.Counter()

    @property
    def settled(self) -> int:
        return len(self.confirmed) + sum(self.failed.values())

    async def publish(self) -> None:
        """As fast as the network takes it, at least PERSISTENT messages, until the broker dies."""
        connection, channel = await self.env.open()
        await channel.confirm_delivery()
        while connection.is_open or self.published < PERSISTENT:
            for _ in range(500):
                self.publish_one(channel, b"%d" % self.published)
            # No more than a round's worth at a time.
            while connection.is_open and self.published - self.settled >= PERSISTENT:
                await self.env.sleep(0.01)
            await connection.drained().addErrback(lambda _: None)

    def publish_one(self, channel: Any, body: bytes) -> None:
        self.published += 1
        sent = channel.basic_publish("", self.queue, body, PERSISTENTLY)
        sent.addCallbacks(
            lambda _: self.confirmed.add(body),
            lambda failure: self.failed.update([failure.type.__name__]),
        )

    async def read_back(self) -> list[bytes]:
        """Everything that is in the queue, up to a message that is published now."""
        channel = await self.reach()
        deliveries, _ = await channel.basic_consume(self.queue, auto_ack=True)
        found: list[bytes] = []
        while LAST not in found[-1:]:
            more = await self.env.within(30, deliveries.get_many(10_000), f"after {len(found)}")
            found += [message.body for message in more]
        await channel.queue_delete(self.queue)
        return [body for body in found if body != LAST]

    async def reach(self) -> Any:
        """A channel on which the queue has taken a message.

        A quorum queue elects its leader after a restart. Until then it refuses, and RabbitMQ 3.10
        may leave a channel that it has refused once without any answer.
        """
        for _ in range(20):
            connection, channel = await self.env.open()
            await channel.confirm_delivery()
            confirm = channel.basic_publish("", self.queue, LAST, PERSISTENTLY)
            try:
                await confirm.addTimeout(3, self.env.reactor)
                return channel
            except (pika.exceptions.NackError, defer.TimeoutError):
                connection.transport.abortConnection()
                await self.env.sleep(0.1)
        raise ScenarioError(f"{self.queue} takes nothing")


@scenario(own_node=True, interface="ours", timeout=1500 if LONG else 120, beside=True)
async def no_confirmed_message_is_lost(env: Env) -> None:
    """kill -9 of the broker amid persistent publishes: what was confirmed is in the queue."""
    node = await victim(env)
    _, channel = await env.open()
    for kind, arguments in KINDS.items():
        for number in range(KILLS):
            await channel.queue_declare(f"audit-{kind}-{number}", durable=True, arguments=arguments)
    await env.thread(node.evaluate, WRITE_DOWN)
    for number in range(KILLS):
        logs = [PublishLog(env, f"audit-{kind}-{number}") for kind in KINDS]
        publishing = [as_deferred(each.publish()) for each in logs]
        enough = random.randrange(PERSISTENT // 10, PERSISTENT)
        await env.until(
            lambda: all(len(each.confirmed) >= enough for each in logs),  # noqa: B023
            f"{enough} confirmed", timeout=120,
        )  # fmt: skip
        await env.thread(node.kill)
        await env.within(20, defer.gatherResults(publishing), "publishing ended")
        await env.until(
            lambda: all(each.settled == each.published for each in logs),  # noqa: B023
            "every publish settled", timeout=1,
        )  # fmt: skip
        await env.thread(node.start)
        for each in logs:
            await check_log(env, each)


async def check_log(env: Env, log: PublishLog) -> None:
    found = await env.within(120, log.read_back(), f"{log.queue} read back")
    lost = log.confirmed - set(found)
    print(
        f"{log.queue}: {log.published} published, {len(log.confirmed)} confirmed, "
        f"failed {dict(log.failed)}, {len(found)} found, {len(lost)} confirmed and lost"
    )
    equal(lost, set(), f"confirmed and lost, of {log.queue}")
    check(set(found) <= {b"%d" % n for n in range(log.published)}, "nothing else was found")
    equal(len(found), len(set(found)), f"found in {log.queue}, each once")
    check(log.failed, "the broker was killed amid publishes")


@scenario(interface="ours", timeout=300 if LONG else 60, beside=LONG)
async def each_unroutable_publish_is_told(env: Env) -> None:
    """Bursts of 20 mandatory publishes, one in ten unroutable: none is told another's fate."""
    _, channel = await env.open()
    queue = env.name()
    await channel.queue_declare(queue, durable=True)
    await channel.confirm_delivery()
    rng = random.Random(20)
    wrong: list[str] = []
    unroutable = 0
    for burst in range(BURSTS):
        routable = [rng.randrange(10) > 0 for _ in range(20)]
        unroutable += routable.count(False)
        publishes = [
            # Half of the bodies are alike: only the order tells them apart.
            channel.basic_publish(
                "", queue if good else "nowhere-" + queue, b"%d" % (number % 10), mandatory=True
            )
            for number, good in enumerate(routable)
        ]
        results = await env.within(
            20, defer.DeferredList(publishes, consumeErrors=True), f"burst {burst}"
        )
        for number, (good, (confirmed, result)) in enumerate(zip(routable, results, strict=True)):
            if confirmed is not good:
                wrong.append(f"{burst}.{number}: {result!r}")
            elif not good:
                (returned,) = result.value.messages
                if result.check(UnroutableError) is None or returned.body != b"%d" % (number % 10):
                    wrong.append(f"{burst}.{number}: {result!r}")
    print(f"{20 * BURSTS} mandatory publishes, {unroutable} unroutable, {len(wrong)} told wrongly")
    equal(wrong, [], "told wrongly")
    await env.until_declared(channel, queue, 20 * BURSTS - unroutable)
