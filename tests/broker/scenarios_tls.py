"""TLS: verified connections carry everything; a peer that can't be trusted is named as such."""

from __future__ import annotations

from typing import Any

import pika
from pika.exceptions import AMQPConnectionError
from twisted.internet import error

from tests.broker.env import Env, check, equal
from tests.broker.registry import scenario
from tests.broker.scenarios_bodies import BORDERS, MIB, body_of
from tests.broker.scenarios_consume import fill


@scenario(
    timeout=60, own_node=True, variants={"twisted": {"tls": True}, "context": {"tls": "context"}}
)
async def tls_carries_everything(env: Env, tls: Any) -> None:
    """Bodies at every frame border, 16 MiB, and 20,000 messages acked one by one, over TLS."""
    _, channel = await env.open(tls=tls)
    queue, counted = env.name(), env.name()
    await channel.queue_declare(queue, durable=True)
    await channel.queue_declare(counted, durable=True)
    deliveries, _ = await channel.basic_consume(queue, auto_ack=True)
    sizes = (*BORDERS, 16 * MIB)
    for size in sizes:
        channel.basic_publish("", queue, body_of(size, size))
    for size in sizes:
        message = await env.within(20, deliveries.get(), f"a body of {size}")
        check(message.body == body_of(size, size), f"{len(message.body)} bytes, {size} expected")
    total = 20_000
    await fill(env, counted, total)
    await channel.basic_qos(prefetch_count=500)
    deliveries, _ = await channel.basic_consume(counted)
    for number in range(total):
        message = await deliveries.get()
        equal(message.body, b"%d" % number, "body")
        channel.basic_ack(message.method.delivery_tag)
    await env.close_channel(channel)
    await env.settled(counted, 0)


async def refused(env: Env, connection: Any, *words: str) -> None:
    """`ready` fails soon, as a connection error with the transport's words in it."""
    reason: Any = await env.failure(env.ready(connection), 5)
    check(isinstance(reason, AMQPConnectionError), repr(reason))
    if env.is_ours:
        check(isinstance(reason, error.ConnectionLost), f"not Twisted's too: {reason!r}")
        equal(reason.args[0], 0, "no AMQP code was exchanged")
        text = str(reason).lower()
        check(any(word in text for word in words), f"none of {words} in {reason!r}")


@scenario(own_node=True)
async def tls_wrong_host_name(env: Env) -> None:
    """A certificate for another host is refused."""
    connection = await env.attach(tls=env.tls_options("broker.example.org"))
    await refused(env, connection, "verif", "mismatch")


@scenario(own_node=True)
async def tls_unknown_authority(env: Env) -> None:
    """A certificate from an authority the client does not know is refused."""
    options = env.tls_options("localhost", env.broker.stranger)
    await refused(env, await env.attach(tls=options), "certificate verify failed")


@scenario(own_node=True)
async def tls_to_a_plaintext_peer(env: Env) -> None:
    """TLS spoken to the plain port fails at once."""
    connection = await env.attach(tls=True, port=env.broker.port)
    await refused(env, connection, "ssl", "tls", "wrong version", "record")


@scenario(own_node=True)
async def plaintext_to_a_tls_peer(env: Env) -> None:
    """AMQP spoken to the TLS port fails at once, as a connection error."""
    connection = await env.attach(port=env.broker.tls_port)
    reason = await env.failure(env.ready(connection), 10)
    check(isinstance(reason, AMQPConnectionError), repr(reason))


@scenario(own_node=True, variants={"twisted": {"tls": True}, "context": {"tls": "context"}})
async def tls_closes_in_order(env: Env, tls: Any) -> None:
    """close() over TLS gives the client's reason, soon."""
    connection, channel = await env.open(tls=tls)
    queue = env.name()
    await channel.queue_declare(queue, durable=True)
    done = env.closed(connection)
    connection.close()
    reason = await env.within(3, done, "closed")
    check(isinstance(reason, error.ConnectionDone), repr(reason))
    if env.is_ours:
        check(isinstance(reason, pika.exceptions.ConnectionClosedByClient), repr(reason))
