"""Nothing accepted is lost when loseConnection() follows in the same turn (DESIGN, "Outbound")."""

from __future__ import annotations

from typing import Any

import pika
from pika.spec import Basic
from twisted.application.internet import ClientService
from twisted.internet import defer

from tests.broker.env import Env, check, equal
from tests.broker.proxy import method_counts
from tests.broker.registry import scenario

ACKS = 50
VARIANTS: dict[str, dict[str, Any]] = {
    f"{where}-{handle}-{wire}": {
        "where": where,
        "handle": handle,
        "tls": {"tcp": None, "tls": True, "context": "context"}[wire],
    }
    for where in ("in_answer", "in_delivery", "outside")
    for handle in ("saved", "attribute", "close")
    for wire in ("tcp", "tls", "context")
}


def keeping(protocol_class: type) -> type:
    """A subclass that keeps the transport it was given, as other code (ClientService) does."""

    class Keeping(protocol_class):  # type: ignore[misc, valid-type]
        saved: Any = None

        def makeConnection(self, transport: Any) -> None:
            self.saved = transport
            super().makeConnection(transport)

    return Keeping


async def all_acked(env: Env, queue: str) -> None:
    """Wait until nothing is in the queue, and nothing unacknowledged that would come back."""
    counts = None
    deadline = env.reactor.seconds() + 10
    while counts != (0, 0):
        check(env.reactor.seconds() < deadline, f"{queue} has {counts} ready, unacknowledged")
        counts = await env.thread(env.control.queue_counts, env.broker.vhost, queue)


def hang_up(connection: Any, handle: str) -> None:
    """The three ways a program ends a connection with its data still on the way."""
    if handle == "saved":
        connection.saved.loseConnection()
    elif handle == "attribute":
        connection.transport.loseConnection()
    else:
        connection.close()


@scenario(own_node=True, variants=VARIANTS)
async def hang_up_in_the_same_turn(env: Env, where: str, handle: str, tls: Any) -> None:
    """50 acks and 60 publishes, some larger than a write, then the end: all of it arrives."""
    source, target = env.name(), env.name()
    _, setup = await env.open()
    for queue in (source, target):
        await setup.queue_declare(queue, durable=True)
    for number in range(ACKS - 1):
        setup.basic_publish("", source, b"%d" % number)
    protocol_class = keeping(env.implementation.TwistedProtocolConnection)
    proxy = await env.proxy(tls=bool(tls), lingers=True)
    connection, channel = await env.open(tls=tls, port=proxy.port, protocol_class=protocol_class)
    await channel.basic_qos(prefetch_count=ACKS)
    deliveries, _ = await channel.basic_consume(source)
    messages = [await env.within(5, deliveries.get(), "delivery") for _ in range(ACKS - 1)]
    bodies = [b"%d" % number for number in range(50)] + [bytes([n]) * 300_000 for n in range(10)]
    published: list[Any] = []

    def work(_: object = None) -> None:
        for message in messages:
            channel.basic_ack(message.method.delivery_tag)
        for body in bodies:
            published.append(channel.basic_publish("", target, body))
        hang_up(connection, handle)

    # Answers and deliveries wake their callbacks inside dataReceived, each on a path of its own.
    done = env.closed(connection)
    last = deliveries.get().addCallback(messages.append)
    if where == "in_delivery":
        last.addCallback(work)
    setup.basic_publish("", source, b"the last")
    await env.within(5, last, "the last delivery")
    if where == "in_answer":
        answered = channel.queue_declare(source, passive=True).addCallback(work)
        await env.within(5, answered, "the answer")
    elif where == "outside":
        await env.sleep(0.01)
        work()
    await env.within(10, done, "closed")
    await env.within(5, defer.DeferredList(published, consumeErrors=True), "publishes settled")
    await env.within(10, proxy.links[0].client_gone, "the proxy saw the end")
    counts = method_counts(proxy.links[0].from_client)
    equal(counts.get(Basic.Ack), ACKS, "acks that left")
    equal(counts.get(Basic.Publish), len(bodies), "publishes that left")
    await env.settled(target, len(bodies))
    await all_acked(env, source)
    arrived = [body for _, _, body in await env.take_all(target)]
    equal(sorted(arrived), sorted(bodies), "publishes that arrived")


@scenario(own_node=True, variants={"tcp": {"tls": None}, "tls": {"tls": True}})
async def stopping_a_client_service(env: Env, tls: Any) -> None:
    """Twisted's ClientService hangs up by itself, from a handler's callback too."""
    source, target = env.name(), env.name()
    _, setup = await env.open()
    for queue in (source, target):
        await setup.queue_declare(queue, durable=True)
    setup.basic_publish("", source, b"the last one")
    await env.settled(source, 1)
    connections: list[Any] = []

    def build() -> Any:
        connection = env.implementation.TwistedProtocolConnection(env.parameters(), env.reactor)
        connections.append(connection)
        return connection

    proxy = await env.proxy(tls=bool(tls), lingers=True)
    service = ClientService(
        env.endpoint(tls=tls, port=proxy.port), _Factory(build), clock=env.reactor
    )
    env.cleanups.append(service.stopService)
    service.startService()
    await service.whenConnected()
    connection = connections[0]
    await env.within(5, env.ready(connection), "ready")
    done = env.closed(connection)
    channel = await connection.channel()
    deliveries, _ = await channel.basic_consume(source)
    stopping: list[Any] = []

    def handle(message: Any) -> None:
        for number in range(100):
            channel.basic_publish("", target, b"%d" % number).addErrback(lambda _: None)
        channel.basic_ack(message.method.delivery_tag)
        stopping.append(service.stopService())

    await env.within(5, deliveries.get().addCallback(handle), "handled")
    await env.within(5, stopping[0], "the service stopped")
    await env.within(5, done, "closed")
    await env.settled(target, 100)
    await all_acked(env, source)


class _Factory:
    """The least ClientService asks of a factory."""

    noisy = False

    def __init__(self, build: Any) -> None:
        self._build = build

    def doStart(self) -> None:
        pass

    def doStop(self) -> None:
        pass

    def buildProtocol(self, addr: object) -> Any:
        return self._build()


@scenario(own_node=True, variants={"tcp": {"tls": None}, "tls": {"tls": True}})
async def confirmed_then_hung_up(env: Env, tls: Any) -> None:
    """A publish whose confirm came stays; the acks made in the confirm's callback arrive."""
    source, target = env.name(), env.name()
    _, setup = await env.open()
    for queue in (source, target):
        await setup.queue_declare(queue, durable=True)
    setup.basic_publish("", source, b"one")
    proxy = await env.proxy(tls=bool(tls), lingers=True)
    connection, channel = await env.open(tls=tls, port=proxy.port)
    await channel.confirm_delivery()
    deliveries, _ = await channel.basic_consume(source)
    message = await env.within(5, deliveries.get(), "delivery")
    done = env.closed(connection)

    def settle(_: object) -> None:
        channel.basic_ack(message.method.delivery_tag)
        connection.transport.loseConnection()

    confirm = channel.basic_publish("", target, b"one", pika.BasicProperties(delivery_mode=2))
    await env.within(5, confirm.addCallback(settle), "confirmed")
    await env.within(5, done, "closed")
    await env.settled(target, 1)
    await all_acked(env, source)


@scenario()
async def acks_and_calls_stay_in_order(env: Env) -> None:
    """Publishes, acks and RPCs of one turn reach the broker in the order they were made."""
    _, channel = await env.open()
    queue = env.name()
    await channel.queue_declare(queue, durable=True)
    for number in range(100):
        channel.basic_publish("", queue, b"%d" % number)
    purging = channel.queue_purge(queue)
    channel.basic_publish("", queue, b"after the purge")
    equal((await purging).method.message_count, 100, "purged")
    message = await env.until_first(channel, queue)
    equal(message.body, b"after the purge", "what is left")
