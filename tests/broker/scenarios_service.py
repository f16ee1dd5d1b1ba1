"""The recovering service: what comes back after a lost connection, and how it stops."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from pika import exceptions
from twisted.internet import defer

import pika_twisted
from pika_twisted.recovery.service import RecoveringService
from tests.broker.env import Env, ScenarioError, check, equal
from tests.broker.registry import scenario


class Seen(dict[str, list[Any]]):
    """The events of a service, by name."""

    def __init__(self, service: RecoveringService) -> None:
        super().__init__()
        for name in (
            "connected",
            "lost",
            "recovered",
            "recovery failed",
            "queue renamed",
            "consumer cancelled",
            "blocked",
            "unblocked",
            "refused",
            "restored",
        ):
            self[name] = []
            service.add_callback(name, lambda *values, name=name: self[name].append(values))


@contextlib.asynccontextmanager
async def running(env: Env, **options: Any) -> AsyncIterator[tuple[RecoveringService, Seen, str]]:
    """A service that is started, its events, and the name of its connections."""
    name = env.name("connection")
    parameters = env.parameters(
        host=env.broker.host,
        port=options.pop("port", env.broker.port),
        client_properties={"connection_name": name},
    )
    options.setdefault("retry_policy", lambda attempt: min(0.05 * 2**attempt, 1))
    service = RecoveringService(parameters, reactor=env.reactor, **options)
    seen = Seen(service)
    service.startService()
    try:
        await env.within(20, service.when_ready(), "ready")
        yield service, seen, name
    finally:
        await env.within(20, service.stopService(), "the service stopped")


async def cut(env: Env, service: RecoveringService, seen: Seen, name: str) -> None:
    """Kill the broker's end of the connection, wait for the next one."""
    before = len(seen["recovered"])
    await env.thread(env.control.cut_connection, name)
    await env.until(lambda: len(seen["recovered"]) > before, "recovered", 15)


@scenario(own_node=True, interface="ours", timeout=60)
async def service_recovers_topology_and_consumers(env: Env) -> None:
    """Exchange, bindings, a queue the broker names, consumers: all there again after a cut."""
    setups: list[Any] = []
    async with running(env, setup=setups.append) as (service, seen, name):
        channel = service.channel(prefetch_count=50)
        exchange, fixed = env.name("exchange"), env.name()
        await channel.exchange_declare(exchange, "topic")
        await channel.queue_declare(fixed, exclusive=True)
        await channel.queue_bind(fixed, exchange, "fixed.*")
        await channel.queue_bind(fixed, exchange, "gone.*")
        await channel.queue_unbind(fixed, exchange, "gone.*")
        declared = await channel.queue_declare("", exclusive=True)
        named = declared.method.queue
        await channel.queue_bind("", exchange, "named.*")
        messages, tag = await channel.basic_consume("")
        others, _ = await channel.basic_consume(fixed, auto_ack=True)
        publisher = service.publisher()
        for round_number in range(3):
            for kind, queue in (("named", messages), ("fixed", others)):
                body = b"%d %s" % (round_number, kind.encode())
                await publisher.publish(exchange, f"{kind}.x", body)
                message = await env.within(5, queue.get(), "a message")
                equal(message.body, body, "body")
                if queue is messages:
                    message.ack()
            gone = await env.failure(publisher.publish(exchange, "gone.x", b"x"))
            check(isinstance(gone, exceptions.UnroutableError), repr(gone))
            equal(channel.current._channel.connection.is_open, True, "open")
            if round_number < 2:
                await cut(env, service, seen, name)
        equal(len(seen["queue renamed"]), 2, "renamed")
        equal(seen["queue renamed"][0][0], named, "the name before")
        await channel.queue_purge(named)  # an old name goes on to work
        await channel.basic_cancel(tag)
        equal([message async for message in messages], [], "the queue ends")
        equal((service.reconnects, len(seen["lost"]), len(setups)), (2, 2, 3), "counts")
    check(service.connection is None, "closed")
    check(
        isinstance(await env.failure(channel.queue_declare("x", durable=True)), Exception),
        "stopped",
    )


@scenario(own_node=True, interface="ours", timeout=60)
async def service_drops_what_is_delivered_again(env: Env) -> None:
    """Messages of a dead channel are dropped from the queue, acks of them ignored; redelivered."""
    async with running(env) as (service, seen, name):
        channel = service.channel(prefetch_count=10)
        queue = env.name()
        await channel.queue_declare(queue, durable=True)
        publisher = service.publisher()
        await defer.gatherResults([publisher.publish("", queue, b"%d" % n) for n in range(10)])
        messages, _ = await channel.basic_consume(queue)
        await env.until(lambda: len(messages.pending) == 10, "all delivered")
        early = [await messages.get() for _ in range(3)]
        early[0].ack()
        await channel.queue_declare(queue, passive=True)  # the ack has reached the broker
        waiting_before = len(messages.pending)
        await cut(env, service, seen, name)
        equal(waiting_before, 7, "waiting before")
        for message in early:
            message.ack()
            message.channel.basic_ack(message.method.delivery_tag)
        later = [await env.within(5, messages.get(), "a message") for _ in range(9)]
        equal([m.body for m in later], [b"%d" % n for n in range(1, 10)], "messages")
        check(all(message.redelivered for message in later), "marked")
        for message in later:
            message.ack()
        check(channel.is_open, "no 406")
        await channel.queue_declare(queue, passive=True)
        await env.settled(queue, 0)


@scenario(own_node=True, interface="ours", timeout=60)
async def service_keeps_auto_ack_messages(env: Env) -> None:
    """What an auto_ack consumer holds when the connection is lost is handed out."""
    async with running(env) as (service, seen, name):
        channel = service.channel()
        queue = env.name()
        await channel.queue_declare(queue, durable=True)
        publisher = service.publisher()
        await defer.gatherResults([publisher.publish("", queue, b"%d" % n) for n in range(10)])
        messages, _ = await channel.basic_consume(queue, auto_ack=True)
        await env.until(lambda: len(messages.pending) == 10, "all delivered")
        await cut(env, service, seen, name)
        await publisher.publish("", queue, b"10")
        found = [(await env.within(5, messages.get(), "a message")).body for _ in range(11)]
        equal(found, [b"%d" % n for n in range(11)], "messages")


@scenario(own_node=True, interface="ours", timeout=60)
async def service_continues_a_stream(env: Env) -> None:
    """A stream consumer goes on behind the last message that was handed out."""
    async with running(env) as (service, seen, name):
        channel = service.channel(prefetch_count=20)
        stream = env.name()
        await channel.queue_declare(stream, durable=True, arguments={"x-queue-type": "stream"})
        publisher = service.publisher()
        await defer.gatherResults([publisher.publish("", stream, b"%d" % n) for n in range(100)])
        messages, _ = await channel.basic_consume(stream, arguments={"x-stream-offset": "first"})
        found: list[int] = []
        for number in range(100):
            message = await env.within(10, messages.get(), "a message")
            found.append(int(message.body))
            message.ack()
            if number in (30, 77):
                await env.until(lambda: messages.pending, "more are there")
                await cut(env, service, seen, name)
        equal(found, list(range(100)), "messages")
        await cut(env, service, seen, name)  # nothing is pending now
        await publisher.publish("", stream, b"100")
        message = await env.within(10, messages.get(), "a message")
        equal(message.body, b"100", "the next message")


@scenario(own_node=True, interface="ours", timeout=60)
async def service_subscribes_again_when_cancelled(env: Env) -> None:
    """A queue deleted by somebody else, and a channel closed by an error: both come back."""
    async with running(env) as (service, seen, _name):
        channel = service.channel(prefetch_count=10)
        queue = env.name()
        await channel.queue_declare(queue, durable=True)
        messages, _ = await channel.basic_consume(queue)
        _, other = await env.open()
        await other.queue_delete(queue)
        publisher = service.publisher(timeout=5)
        await env.until(lambda: seen["consumer cancelled"], "cancelled")

        async def reaches(body: bytes) -> None:
            for _ in range(100):
                try:
                    await publisher.publish("", queue, body)
                    break
                except exceptions.UnroutableError:
                    await env.sleep(0.05)
            message = await env.within(5, messages.get(), "a message")
            equal(message.body, body, "body")
            message.ack()

        await reaches(b"after the cancel")
        wrong: Any = await env.failure(channel.queue_declare(queue, auto_delete=True))
        check(isinstance(wrong, exceptions.ChannelClosedByBroker), repr(wrong))
        equal(wrong.reply_code, 406, "code")
        await env.until(lambda: channel.is_open, "open again")
        await reaches(b"after the 406")
        equal(service.reconnects, 0, "the connection lived")


@scenario(own_node=True, interface="ours", timeout=60)
async def service_publishing_while_down(env: Env) -> None:
    """Waits, or fails, as asked; an unconfirmed publish is sent again, or fails."""
    # Down for long enough: a publish that waits for 0.1 s is to give up before it is up again.
    async with running(env, retry_policy=lambda _: 2.0) as (service, seen, name):
        queue = env.name()
        await service.channel().queue_declare(queue, durable=True)
        waits = service.publisher(when_lost="resend")
        fails = service.publisher(when_down="fail")
        short = service.publisher(timeout=0.1)
        for each in (waits, fails, short):
            await each.publish("", queue, b"first")
        await env.thread(env.control.cut_connection, name)
        await env.until(lambda: seen["lost"], "lost")
        waiting = waits.publish("", queue, b"waited")
        down: Any = await env.failure(fails.publish("", queue, b"x"))
        check(isinstance(down, exceptions.ConnectionWrongStateError), repr(down))
        late: Any = await env.failure(short.publish("", queue, b"x"))
        check(isinstance(late, pika_twisted.PublishTimeout), repr(late))
        await env.within(15, waiting, "published after the recovery")
        await env.settled(queue, 4)
        outcomes = [waits.publish("", queue, b"%d" % n) for n in range(2000)]
        cutting = env.thread(env.control.cut_connection, name)
        for outcome in outcomes:
            await env.within(10, outcome, "confirmed in the end")
        await cutting
        bodies = [body for _, _, body in await env.take_all(queue)]
        missing = {b"%d" % n for n in range(2000)} - set(bodies)
        check(not missing, f"{len(missing)} confirmed messages are missing")


@scenario(own_node=True, interface="ours", timeout=60)
async def service_stops_gracefully(env: Env) -> None:
    """stopService lets handlers finish, settles, gives back the rest; nothing lost, none twice."""
    queue = env.name()
    done: list[bytes] = []

    async def handler(message: Any) -> None:
        await env.sleep(0.05)
        done.append(message.body)

    async with running(env) as (service, _seen, _name):
        await service.channel().queue_declare(queue, durable=True)
        publisher = service.publisher()
        for number in range(200):
            publisher.publish("", queue, b"%d" % number)
        await publisher.flush()
        handling = await service.consume(queue, handler, concurrency=10, ack_batching=50)
        await env.until(lambda: len(done) >= 50, "50 handled")
        last = publisher.publish("", queue, b"last")
        await env.within(10, service.stopService(), "stopped")
        check((await env.within(1, last, "the last publish")) is not None, "confirmed")
        check(not handling.running, "stopped")
    left = {body for _, _, body in await env.take_all(queue)}
    equal(len(left) + len(done), 201, "handled and left")
    check(not left & set(done), "handled and left")


@scenario(own_node=True, interface="ours", timeout=60)
async def service_handlers_go_on(env: Env) -> None:
    """consume() through four lost connections: each message handled at least once."""
    async with running(env) as (service, seen, name):
        queue = env.name()
        await service.channel().queue_declare(queue, durable=True)
        done: dict[bytes, int] = {}

        async def handler(message: Any) -> None:
            await env.sleep(0.001)
            done[message.body] = done.get(message.body, 0) + 1

        await service.consume(queue, handler, concurrency=5)
        publisher = service.publisher(when_lost="resend")
        outcomes = []
        for number in range(2000):
            outcomes.append(publisher.publish("", queue, b"%d" % number))
            if number % 400 == 399:
                await cut(env, service, seen, name)
        for outcome in outcomes:
            await env.within(10, outcome, "confirmed")
        await env.until(lambda: len(done) == 2000, "all handled", 20)
        await env.settled(queue, 0)


@scenario(own_node=True, interface="ours", timeout=60)
async def service_retries_what_is_refused(env: Env) -> None:
    """What can't be declared is tried again by itself, told by one event; then it is there."""
    async with running(env) as (service, seen, name):
        channel = service.channel()
        queue = env.name()
        await channel.queue_declare(queue, durable=True)
        _, other = await env.open()
        await other.queue_delete(queue)
        # Not what the service will declare.
        await other.queue_declare(queue, durable=True, auto_delete=True)
        await cut(env, service, seen, name)
        ((entity, reason),) = seen["refused"]
        equal((entity.kind, str(entity)), ("queue", f"queue {queue!r}"), "which")
        equal(reason.reply_code, 406, "why")
        await env.until(lambda: service.stats().refused[0].refusals >= 3, "refused three times", 15)
        equal((len(seen["refused"]), len(seen["recovery failed"])), (1, 0), "told once")
        check(channel.is_open, "the channel goes on")
        await other.queue_delete(queue)
        await env.until(lambda: seen["restored"], "restored", 15)
        equal(str(seen["restored"][0][0]), f"queue {queue!r}", "which")
        await channel.queue_declare(queue, passive=True)


@scenario(own_node=True, interface="ours", timeout=60)
async def service_consumer_that_can_t_come_back_costs_no_other(env: Env) -> None:
    """Three consumers on one channel, the queue of one is gone: nothing is delivered twice."""
    async with running(env) as (service, seen, name):
        channel = service.channel(prefetch_count=10)
        _, other = await env.open()
        queues = [env.name() for _ in range(3)]
        handled: dict[str, list[tuple[bytes, bool]]] = {queue: [] for queue in queues}

        async def handle(queue: str, messages: Any) -> None:
            async for message in messages:
                handled[queue].append((message.body, message.redelivered))
                message.ack()

        for queue in queues:
            await other.queue_declare(queue, durable=True)
            messages, _ = await channel.basic_consume(queue)
            defer.ensureDeferred(handle(queue, messages))
        await other.confirm_delivery()

        async def reach(body: bytes) -> None:
            for queue in (queues[0], queues[2]):
                for number in range(20):
                    await other.basic_publish("", queue, body + b"%d" % number)

        await reach(b"before ")
        await env.until(lambda: len(handled[queues[0]]) == len(handled[queues[2]]) == 20, "handled")
        await other.queue_delete(queues[1])
        await env.until(lambda: seen["refused"], "refused")
        await cut(env, service, seen, name)
        await reach(b"after ")
        await env.until(lambda: len(handled[queues[0]]) == len(handled[queues[2]]) == 40, "handled")
        await env.sleep(2)  # several attempts
        for queue in (queues[0], queues[2]):
            equal(len(handled[queue]), 40, "each once")
            check(not any(again for _, again in handled[queue]), "none was delivered twice")
        (refused,) = service.stats().refused
        check(refused.kind == "consumer" and queues[1] in refused.name, repr(refused))
        await other.queue_declare(queues[1], durable=True)
        await other.basic_publish("", queues[1], b"back")
        await env.until(lambda: handled[queues[1]], "the third is back", 15)
        equal((service.stats().refused, service.reconnects), ((), 1), "restored")
        check("connected" in seen and len(seen["restored"]) >= 1, "told")


@scenario(own_node=True, interface="ours", timeout=60)
async def service_fails_a_call_with_the_broker_s_reason(env: Env) -> None:
    """A call for which the broker closes the whole connection is not made again."""
    async with running(env) as (service, seen, _name):
        channel = service.channel()
        queue, exchange = env.name(), env.name("exchange")
        await channel.queue_declare(queue, exclusive=True)
        why: Any = await env.failure(channel.exchange_declare(exchange, "no-such-type"))
        hard = isinstance(why, exceptions.ConnectionClosedByBroker)  # up to RabbitMQ 4.0
        check(hard or isinstance(why, exceptions.ChannelClosedByBroker), repr(why))
        equal(why.reply_code, 503 if hard else 406, "code")
        if hard:
            await env.until(lambda: seen["recovered"], "recovered", 15)
        await channel.queue_declare(queue, passive=True)
        equal((service.reconnects, list(service.recorder.exchanges)), (int(hard), []), "once")


@scenario(interface="ours", timeout=60)
async def service_with_a_wrong_login(env: Env) -> None:
    """It tries on, tells why, and stops at once when asked to."""
    parameters = env.parameters(host=env.broker.host, port=env.broker.port, password="wrong")
    service = RecoveringService(parameters, reactor=env.reactor, retry_policy=lambda _: 0.05)
    seen = Seen(service)
    service.startService()
    reason: Any = await env.failure(service.whenConnected(failAfterFailures=2))
    check(isinstance(reason, exceptions.ProbableAuthenticationError), repr(reason))
    check(len(seen["recovery failed"]) >= 2, "told")
    waiting = service.when_ready()
    calling = service.channel().queue_declare("x", durable=True)
    await env.within(5, service.stopService(), "stopped")
    check(isinstance(await env.failure(waiting), defer.CancelledError), "when_ready()")
    check(isinstance(await env.failure(calling), pika_twisted.NotConnected), "a call")
    if service.running:
        raise ScenarioError("still running")


@scenario(own_node=True, interface="ours", timeout=60)
async def service_counts(env: Env) -> None:
    """stats() of connection and service, over a lost connection."""
    async with running(env) as (service, seen, name):
        channel = service.channel(ack_batching=100, prefetch_count=500)
        queue = env.name()
        await channel.queue_declare(queue, durable=True)
        publisher = service.publisher()
        for _ in range(1000):
            publisher.publish("", queue, b"x" * 100)
        await publisher.flush()
        messages, _ = await channel.basic_consume(queue)
        # All are there, so that the acks are of one turn, however the broker sends.
        await env.until(lambda: len(messages.pending) == 500, "prefetched")
        for _ in range(400):
            (await messages.get()).ack()
        await env.until(lambda: len(messages.pending) == 500, "prefetched again")
        now = service.connection.stats()
        equal(now.messages_received, 900, "received")
        equal((now.queued_messages, now.queued_bytes, now.consumers), (500, 50_000, 1), "queued")
        equal((now.published, now.unconfirmed, now.acks), (1000, 0, 400), "published and acked")
        check(0 < now.acks_sent < 200, f"{now.acks_sent} acks sent")
        check(now.bytes_received > 90_000 and now.bytes_sent > 100_000, repr(now))
        check(now.frames_received > 2700 and now.frames_sent > 3000, repr(now))
        await channel.queue_declare(queue, passive=True)
        await cut(env, service, seen, name)
        for _ in range(600):
            (await env.within(5, messages.get(), "a message")).ack()
        total = service.stats()
        equal((total.reconnects, total.dropped, total.confirmed), (1, 500, 1000), "service")
        equal(total.connection.messages_received, 1500, "received in all")
        equal((total.connection.acks, total.connection.published), (1000, 1000), "acked in all")
        check(total.connected and 0 < total.down_seconds < 10, repr(total))
