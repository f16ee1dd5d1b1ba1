"""From ready to closed: what fires, with what, and what becomes of everything that waits."""

from __future__ import annotations

from typing import Any

import pika
from pika.exceptions import ChannelClosed, ChannelClosedByClient, ConsumerCancelled
from twisted.internet import defer, error

from tests.broker.env import Env, check, equal
from tests.broker.registry import scenario


@scenario()
async def ready_and_closed(env: Env) -> None:
    """`ready` gives the protocol and becomes None; `closed` appears, fires with the reason."""
    connection = await env.attach()
    check(not connection.is_open, "not open before the handshake")
    ready = connection.ready
    check(isinstance(ready, defer.Deferred), f"ready: {ready!r}")
    check((await ready) is connection, "ready fires with the protocol")
    equal(connection.ready, None, "ready once it has fired")
    check(connection.is_open and not connection.is_closed, "open")
    closed = connection.closed
    check(isinstance(closed, defer.Deferred), f"closed: {closed!r}")
    connection.close()
    reason = await env.within(5, closed, "closed")
    check(isinstance(reason, error.ConnectionDone), repr(reason))
    equal(connection.closed, None, "closed once it has fired")
    check(connection.is_closed and not connection.is_open, "closed")


@scenario(interface="ours")
async def ready_and_closed_asked_at_any_time(env: Env) -> None:
    """when_ready() and when_closed() work before and after; closing twice is no error."""
    connection = await env.attach()
    early = [connection.when_ready(), connection.when_ready()]
    dropped = connection.when_ready()
    dropped.cancel()  # drops this waiter only
    check(isinstance(await env.failure(dropped), defer.CancelledError), "the cancelled waiter")
    for waiter in early:
        check((await waiter) is connection, "when_ready()")
    check((await connection.when_ready()) is connection, "when_ready() asked late")
    waiting = [connection.when_closed(), connection.when_closed()]
    answers = [connection.close(), connection.close(320, "again")]
    reasons = [await env.within(5, waiter, "when_closed()") for waiter in waiting]
    for answer in answers:
        await env.within(5, answer, "close()")
    reasons.append(await connection.when_closed())
    for reason in reasons:
        check(isinstance(reason, pika.exceptions.ConnectionClosedByClient), repr(reason))
        check(isinstance(reason, error.ConnectionDone), repr(reason))
        equal(reason.args, (200, "Normal shutdown"), "code and text")
    await env.within(1, connection.close(), "close() of a closed connection")
    check(isinstance(await env.failure(connection.channel()), Exception), "channel() fails")


@scenario()
async def close_fails_what_waits(env: Env) -> None:
    """Everything that waits when the client closes fails with the reason."""
    connection, channel = await env.open()
    queue = env.name()
    await channel.queue_declare(queue, durable=True)
    deliveries, _ = await channel.basic_consume(queue)
    observed: defer.Deferred[Any] = defer.Deferred()
    waiting: dict[str, Any] = {"get": deliveries.get()}
    if env.is_ours:
        channel.callback_deferred(observed, [pika.spec.Basic.CancelOk])
        waiting["callback_deferred"] = observed
    done = env.closed(connection)
    connection.close()
    for what, deferred in waiting.items():
        reason = await env.failure(deferred, 5)
        check(isinstance(reason, pika.exceptions.AMQPError), f"{what}: {reason!r}")
        check(isinstance(reason, ChannelClosed), f"{what} is no ChannelClosed: {reason!r}")
        equal(reason.args, (200, "Normal shutdown"), what)
    await env.within(5, done, "closed")


@scenario()
async def channel_closes_in_order(env: Env) -> None:
    """close() of a channel: state, waiters, the number of the next one."""
    connection, channel = await env.open()
    number = channel.channel_number
    queue = env.name()
    await channel.queue_declare(queue, durable=True)
    deliveries, _ = await channel.basic_consume(queue)
    waiting = deliveries.get()
    channel.close(200, "done")
    check(channel.is_closing or channel.is_closed, "closing")
    reason = await env.failure(waiting)
    check(isinstance(reason, (ChannelClosedByClient, ConsumerCancelled)), repr(reason))
    await env.until(lambda: channel.is_closed, "closed")
    await env.sleep(0)  # we were woken in the middle of the close; it ends with freeing the number
    again = await connection.channel()
    # Ours takes a number again last: what comes late for the old channel is not the new one's.
    expected = number + 1 if env.is_ours else number
    equal(again.channel_number, expected, "the number of the next channel")
    chosen = await connection.channel(77)
    equal(chosen.channel_number, 77, "the number asked for")
    if env.is_ours:
        await env.failure(connection.channel(77))
        check(chosen.is_open, "the channel that has the number lives (D24)")
        await chosen.queue_declare(queue, passive=True)


@scenario(timeout=60)
async def two_connections_200_channels(env: Env) -> None:
    """200 channels on two connections, all opened at once, each consuming its own queue."""
    connections = [await env.connect(), await env.connect()]
    channels = await env.within(
        20,
        defer.gatherResults([connections[n % 2].channel() for n in range(200)]),
        "200 channels opened",
    )
    equal([channel.channel_number for channel in channels[::2]], list(range(1, 101)), "numbers")
    names = [(await channel.queue_declare("", exclusive=True)).method.queue for channel in channels]
    equal(len(set(names)), 200, "queues")
    consumers = await defer.gatherResults([channel.basic_consume("") for channel in channels])
    for number in range(20):
        for position, channel in enumerate(channels):
            # To the queue of a channel on the same connection, another one for each number.
            target = names[(position + 2 * number) % 200]
            channel.basic_publish("", target, b"%d %d" % (position, number))
    for position, (deliveries, _) in enumerate(consumers):
        found = set()
        for _ in range(20):
            message = await env.within(10, deliveries.get(), f"delivery on channel {position}")
            check(message.channel is channels[position], "the message names its channel")
            channels[position].basic_ack(message.method.delivery_tag)
            found.add(message.body)
        expected = {b"%d %d" % ((position - 2 * n) % 200, n) for n in range(20)}
        equal(found, expected, f"messages on channel {position}")
    for channel in channels[:100]:
        channel.close()
    await env.until(lambda: all(channel.is_closed for channel in channels[:100]), "100 closed")
    check(all(channel.is_open for channel in channels[100:]), "the others are open")


@scenario()
async def channel_max_is_kept(env: Env) -> None:
    """More channels than agreed: a failure, and the connection lives."""
    connection = await env.connect(channel_max=5)
    channels = [await connection.channel() for _ in range(5)]
    reason = await env.failure(defer.maybeDeferred(connection.channel))
    check(isinstance(reason, pika.exceptions.NoFreeChannels), repr(reason))
    await env.close_channel(channels[2])
    equal((await connection.channel()).channel_number, 3, "the number that became free")


@scenario(timeout=40, variants={"tcp": {"tls": None}})
async def heartbeats_keep_it_alive(env: Env, tls: Any) -> None:
    """Idle for four times the heartbeat of one second, the connection still works."""
    connection, channel = await env.open(tls=tls, heartbeat=1)
    await env.sleep(4)
    check(connection.is_open, "open")
    await channel.queue_declare("", exclusive=True)


@scenario(own_node=True)
async def closed_by_the_broker(env: Env) -> None:
    """`rabbitmqctl close_connection`: 320 reaches everybody who waits, once, soon (D18, D21)."""
    name = env.name("connection")
    connection, channel = await env.open(client_properties={"connection_name": name})
    queue = env.name()
    await channel.queue_declare(queue, durable=True)
    deliveries, _ = await channel.basic_consume(queue)
    waiting, done = deliveries.get(), env.closed(connection)
    await env.thread(env.control.close_connection, name, "maintenance by the test")
    reason: Any = await env.within(5, done, "closed")
    if env.is_ours:
        for each in (reason, await env.failure(waiting, 1)):
            check(isinstance(each, pika.exceptions.ConnectionClosedByBroker), repr(each))
            check(isinstance(each, error.ConnectionDone), repr(each))
            equal(each.args[0], 320, "code")
            check("maintenance by the test" in each.args[1], repr(each))
    else:
        await env.failure(waiting, 1)


@scenario(own_node=True)
async def cut_by_the_broker(env: Env) -> None:
    """The broker's end dies without a word: a lost connection, code 0, to everybody who waits."""
    name = env.name("connection")
    connection, channel = await env.open(client_properties={"connection_name": name})
    queue = env.name()
    await channel.queue_declare(queue, durable=True)
    deliveries, _ = await channel.basic_consume(queue)
    waiting, done = deliveries.get(), env.closed(connection)
    await env.thread(env.control.cut_connection, name)
    reason: Any = await env.within(2, done, "closed")
    waited: Any = await env.failure(waiting, 1)
    if env.is_ours:
        for each in (reason, waited):
            check(isinstance(each, pika.exceptions.AMQPConnectionError), repr(each))
            check(isinstance(each, error.ConnectionLost), repr(each))
            equal(each.args[0], 0, "code")
        check(isinstance(waited, ChannelClosed), repr(waited))
