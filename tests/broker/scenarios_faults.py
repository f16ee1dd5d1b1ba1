"""What networks do: cut, stall, trickle, split. A proxy of the tests' own stands for them.

Each fault on every reactor, over TCP and over TLS. The promise: every Deferred fires once, within
a second of the end of TCP, or within two intervals of the heartbeat where the peer is silent, with
the real reason; nothing is left behind (the runner looks).
"""

from __future__ import annotations

import os
import socket
import struct
from typing import Any

import pika
from pika.exceptions import (
    AMQPConnectionError,
    AMQPError,
    AMQPHeartbeatTimeout,
    ConnectionClosedByClient,
    StreamLostError,
)
from twisted.internet import defer, error

import pika_twisted
from pika_twisted.exceptions import HandshakeTimeout
from tests.broker.env import Env, as_deferred, check, equal
from tests.broker.proxy import Link, Proxy
from tests.broker.registry import REACTORS, scenario
from tests.broker.waiting import AFTER_TCP, Waiting

LONG = os.environ.get("PIKA_TWISTED_TEST_LONG") == "1"
WIRES: dict[str, dict[str, Any]] = {
    "tcp": {"tls": None},
    "tls": {"tls": True},
    "context": {"tls": "context"},
}
UNSENT = 20 << 20
HEARTBEAT = 1
SILENT_WITHIN = 2 * (HEARTBEAT + 5)  # pika's checker looks every heartbeat + 5 s


async def proxied(env: Env, tls: Any, **options: Any) -> Proxy:
    """A proxy that takes no part in TLS: the client's is with the broker."""
    return await env.proxy(port=env.broker.tls_port if tls else None, **options)


@scenario(
    own_node=True,
    interface="ours",
    variants={
        f"{how}-{wire}": {"how": how, **options}
        for how in ("reset", "end", "half_a_frame_and_reset")
        for wire, options in WIRES.items()
    },
)
async def cut_while_everything_waits(env: Env, how: str, tls: Any) -> None:
    """TCP ends while one Deferred of each kind waits: all fail within a second, a lost stream."""
    proxy = await proxied(env, tls)
    waiting = await Waiting.on(env, port=proxy.port, tls=tls)
    link = proxy.links[0]
    link.freeze()
    waiting.begin()
    await env.until(lambda: link.waiting["server"], "everything was written")
    if how == "half_a_frame_and_reset":  # over TLS: half a record
        frame = pika.frame.Method(1, pika.spec.Basic.CancelOk("never finished")).marshal()
        link.client.transport.write(b"\x17\x03\x03\x40\x00half" if tls else frame[:-3])
        await env.sleep(0.05)
    since = env.reactor.seconds()
    link.end() if how == "end" else link.cut()
    await waiting.has_ended(StreamLostError, AMQPConnectionError, error.ConnectionLost, since=since)


class Cutting(Link):
    """Hands on so many octets in one direction, then ends both connections."""

    def __init__(self, proxy: Proxy, to: str, octets: int, reset: bool) -> None:
        super().__init__(proxy)
        self.to = to
        self.left = octets
        self.reset = reset

    def flush(self, side: Any) -> None:
        waiting = self.waiting[side.name]
        if side.name != self.to:
            super().flush(side)
        elif side.name in self.open and waiting and self.left > 0:
            side.transport.write(bytes(waiting[: self.left]))
            self.left -= len(waiting)
            waiting.clear()
            if self.left <= 0:
                self.stop()

    def stop(self) -> None:
        # Not cut(): what was written above has to leave first.
        for side in self._open_sides():
            if self.reset:
                linger = struct.pack("ii", 1, 0)
                side.transport.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            side.transport.loseConnection()


async def session(connection: Any, bodies: tuple[bytes, ...] = (b"body",)) -> None:
    """A bit of everything, from the handshake to the close."""
    await connection.when_ready()
    channel = await connection.channel()
    await channel.confirm_delivery()
    queue = (await channel.queue_declare("", exclusive=True)).method.queue
    deliveries, tag = await channel.basic_consume(queue)
    for body in bodies:
        await channel.basic_publish("", queue, body, pika.BasicProperties(message_id="m"))
        message = await deliveries.get()
        equal((message.body, message.properties.message_id), (body, "m"), "the message")
        channel.basic_ack(message.method.delivery_tag)
    await channel.basic_cancel(tag)
    equal(await channel.basic_get(queue), None, "what is left")
    await connection.close()


#: Seconds for a session of 20 ms. After others were cut RabbitMQ 4.3 says nothing for 5.0 s, once
#: in 100 times: it has the protocol header then, and sends Connection.Start in the end.
SESSION_WITHIN = 10


def cuts(env: Env, total: int, sample: int) -> list[tuple[int, bool]]:
    """Where to cut, and whether with a reset.

    Everywhere in a long run, else at about `sample` places, others on each reactor.
    """
    names = [f"twisted.internet.{name}reactor" for name in REACTORS]
    own = names.index(type(env.reactor).__module__)
    step = 1 if LONG else total // sample
    places = range(1 + own * step // len(names), total + 1, step)
    return [(octets, (number + own) % 2 == 0) for number, octets in enumerate(places)]


@scenario(
    own_node=True,
    interface="ours",
    timeout=1500 if LONG else 60,
    beside=LONG,
    variants={
        f"to_the_{to}-{wire}": {"to": to, **options}
        for to in ("client", "server")
        for wire, options in WIRES.items()
    },
)
async def cut_at_every_octet(env: Env, to: str, tls: Any) -> None:
    """A session cut after n octets ends within a second with a reason, whatever n is."""
    limit, reset = 1 << 30, False
    proxy = await proxied(env, tls, link=lambda proxy: Cutting(proxy, to, limit, reset))

    async def run() -> tuple[Link, bool]:
        where = f"cut after {limit} octets"
        proxy.links.clear()
        connection = await env.attach(port=proxy.port, tls=tls)
        env.connections.remove(connection)
        closed, done = connection.when_closed(), True
        try:
            await env.within(SESSION_WITHIN, session(connection), f"the session ended, {where}")
        except AMQPError:
            done = False
        reason = await env.within(AFTER_TCP, closed, f"closed, {where}")
        check(isinstance(reason, AMQPError), f"{where}: {reason!r}")
        check(isinstance(reason, error.ConnectionClosed), f"{where}: {reason!r}")
        return proxy.links[0], done

    link, done = await run()
    check(done, "the session that is not cut")
    total = len(link.from_server if to == "client" else link.from_client)
    check(total > 400, f"only {total} octets to the {to}")
    for limit, reset in cuts(env, total, 30 if tls else 100):  # noqa: B007
        _, done = await run()
        # In the last frames, of closing the channel and the connection, a cut is a close too.
        check(not done or tls or limit > total - 100, f"the session went on after {limit} octets")


@scenario(
    own_node=True,
    interface="ours",
    timeout=300 if LONG else 60,
    beside=LONG,
    variants=WIRES,
)
async def connect_cut_at_every_octet(env: Env, tls: Any) -> None:
    """connect() fails, wherever the handshake is cut, and leaves nothing behind."""
    limit, reset = 1 << 30, False
    proxy = await proxied(env, tls, link=lambda proxy: Cutting(proxy, "client", limit, reset))
    endpoint = env.endpoint(tls=tls, port=proxy.port)

    def connect() -> Any:
        return pika_twisted.connect(endpoint, parameters=env.parameters(), reactor=env.reactor)

    connection = await connect()
    total = len(proxy.links[0].from_server)
    await connection.close()
    for limit, reset in cuts(env, total - 1, 20 if tls else 50):  # noqa: B007
        try:
            what = f"connect(), cut after {limit} octets"
            connection = await env.within(SESSION_WITHIN, connect(), what)
        except AMQPConnectionError as reason:
            check(isinstance(reason, error.ConnectionClosed), f"after {limit}: {reason!r}")
        else:  # the session tickets of TLS are not needed
            check(tls and limit > total - 1_000, f"connected, cut after {limit} of {total}")
            await connection.close()


class Dripping(Link):
    """Hands on one octet in every other turn of the reactor: the receiver reads in between."""

    dripping = False

    def side_opened(self, side: Any) -> None:
        side.transport.setTcpNoDelay(True)
        super().side_opened(side)

    def flush(self, side: Any) -> None:
        if not self.dripping:
            self.dripping = True
            self.proxy.reactor.callLater(0, self.proxy.reactor.callLater, 0, self.drip)

    def drip(self) -> None:
        self.dripping = False
        for side in self._open_sides():
            waiting = self.waiting[side.name]
            if waiting:
                side.transport.write(bytes(waiting[:1]))
                del waiting[:1]
        if any(self.waiting[side.name] for side in self._open_sides()):
            self.flush(self.client)


def counting(protocol_class: type) -> type:
    """A subclass that counts what it is given: reads and octets."""

    class Counting(protocol_class):  # type: ignore[misc, valid-type]
        reads = octets = 0

        def dataReceived(self, data: bytes) -> None:
            self.reads += 1
            self.octets += len(data)
            super().dataReceived(data)

    return Counting


@scenario(own_node=True, interface="ours", variants=WIRES)
async def split_at_every_octet(env: Env, tls: Any) -> None:
    """A session of which each octet comes by itself is the same session."""
    proxy = await proxied(env, tls, link=Dripping)
    connection = await env.attach(
        port=proxy.port, tls=tls,
        protocol_class=counting(env.implementation.TwistedProtocolConnection),
    )  # fmt: skip
    await env.within(20, session(connection, (b"", b"body", bytes(300))), "the session ended")
    reason = await connection.when_closed()
    check(isinstance(reason, ConnectionClosedByClient), repr(reason))
    if not tls:  # TLS hands on a record when it is whole
        check(connection.reads > 0.9 * connection.octets, f"{connection.reads} reads")


class Slow(Link):
    """Hands on so many octets every tenth of a second."""

    step = 600
    waking = False

    def flush(self, side: Any) -> None:
        if not self.waking:
            self.waking = True
            self.proxy.reactor.callLater(0.1, self.wake)

    def wake(self) -> None:
        self.waking = False
        for side in self._open_sides():
            waiting = self.waiting[side.name]
            if waiting:
                side.transport.write(bytes(waiting[: self.step]))
                del waiting[: self.step]
        if any(self.waiting[side.name] for side in self._open_sides()):
            self.flush(self.client)


@scenario(own_node=True, interface="ours", timeout=60, beside=True)
async def a_slow_network_is_not_a_dead_one(env: Env) -> None:
    """A message that trickles in for longer than two intervals of the heartbeat arrives."""
    proxies = [await proxied(env, tls, link=Slow) for tls in (None, True)]
    begun = env.reactor.seconds()
    sessions = [
        session(await env.attach(port=proxy.port, tls=tls, heartbeat=HEARTBEAT), (bytes(40_000),))
        for proxy, tls in zip(proxies, (None, True), strict=True)
    ]
    await env.within(50, defer.gatherResults([as_deferred(each) for each in sessions]), "arrived")
    took = env.reactor.seconds() - begun
    check(took > SILENT_WITHIN, f"only {took:.1f} s: nothing was shown")


@scenario(own_node=True, interface="ours", timeout=60, beside=True)
async def a_silent_peer_is_dropped(env: Env) -> None:
    """A black hole, idle and with 20 MB unsent: dropped in two intervals of the heartbeat."""
    silent = []
    for tls in (None, True):
        proxy = await proxied(env, tls)
        for unsent in (0, UNSENT):
            waiting = await Waiting.on(env, port=proxy.port, tls=tls, heartbeat=HEARTBEAT)
            proxy.links[-1].freeze(deaf=True)
            waiting.begin()
            if unsent:
                waiting.fill(unsent)
            silent.append(waiting)
    for waiting in silent:
        await waiting.has_ended(
            AMQPHeartbeatTimeout, error.ConnectionLost, since=waiting.began,
            within=SILENT_WITHIN + AFTER_TCP,
        )  # fmt: skip


STAGES = {"nothing": 0, "Start": 1, "Tune": 2}


class Stalling(Link):
    """Hands on so many frames of the broker's, then nothing."""

    def __init__(self, proxy: Proxy, frames: int) -> None:
        super().__init__(proxy)
        self.left = frames

    def flush(self, side: Any) -> None:
        if side is self.client and not self.left:
            return
        # In the handshake the broker writes one frame at a time and waits for the answer.
        self.left -= side is self.client and bool(self.waiting["client"])
        super().flush(side)


@scenario(own_node=True, interface="ours")
async def a_handshake_that_stalls(env: Env) -> None:
    """Silence at each step of the handshake ends at `handshake_timeout`, over TLS too."""
    stalled = []

    async def stall(frames: int, wire: Any = None, **options: Any) -> None:
        proxy = await env.proxy(link=lambda proxy: Stalling(proxy, frames), **options)
        begun = env.reactor.seconds()
        connection = await env.attach(port=proxy.port, tls=wire, options={"handshake_timeout": 0.5})
        # Asked here: on a slow machine the first has ended before the last has begun.
        ready, closed = as_deferred(connection.ready), connection.when_closed()
        took = connection.when_closed().addCallback(lambda _: env.reactor.seconds() - begun)
        stalled.append((ready, closed, took))

    for frames in STAGES.values():
        await stall(frames)
        await stall(frames, True, tls=True)
    await stall(0, True, port=env.broker.tls_port)  # not even TLS begins
    for ready, closed, took in stalled:
        for each in (await env.failure(ready, 5), await closed):
            check(isinstance(each, HandshakeTimeout), repr(each))
            check(isinstance(each, error.ConnectionLost), repr(each))
            check("handshake_timeout=0.5" in str(each), str(each))
        seconds = await took
        check(0.4 < seconds < 0.5 + 2 * AFTER_TCP, f"{seconds:.2f} s")


@scenario(own_node=True, interface="ours", variants=WIRES)
async def a_close_that_nobody_answers(env: Env, tls: Any) -> None:
    """close() to a dead peer ends at `close_timeout`, with and without unsent data."""
    proxy = await proxied(env, tls)
    everything = []
    for unsent in (0, UNSENT):
        options = {"close_timeout": 0.5}
        waiting = await Waiting.on(env, port=proxy.port, tls=tls, options=options)
        proxy.links[-1].freeze(deaf=True)
        waiting.begin()
        if unsent:
            waiting.fill(unsent)
        everything.append(waiting)
    since = env.reactor.seconds()  # not before: 20 MB keep a slow reactor busy
    for waiting in everything:
        waiting.watch("close()", waiting.connection.close(320, "enough"))
    for waiting in everything:
        await waiting.has_ended(
            ConnectionClosedByClient, error.ConnectionLost, since=since, within=0.5 + AFTER_TCP,
            code=320, words="enough",
        )  # fmt: skip
