"""What brokers do: die, restart, hang, close connections, run out of memory."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import termios
from typing import Any

from pika.exceptions import AMQPHeartbeatTimeout, ConnectionClosedByBroker, StreamLostError
from twisted.internet import defer, error

from tests.broker.env import Env, as_deferred, check, equal
from tests.broker.node import Node
from tests.broker.registry import scenario
from tests.broker.scenarios_faults import HEARTBEAT, SILENT_WITHIN, UNSENT
from tests.broker.victim import victim
from tests.broker.waiting import AFTER_TCP, Waiting

WIRES = (None, True)
MIB = 1 << 20


@scenario(own_node=True, interface="ours", timeout=120, beside=True)
async def broker_is_killed(env: Env) -> None:
    """kill -9 while everything waits, over TCP and TLS: a lost stream, within a second."""
    node = await victim(env)
    waiting = [await Waiting.on(env, tls=tls) for tls in WIRES]
    node.freeze()  # so that nothing of it is answered
    await env.sleep(0.1)  # its threads stop one after the other
    for each in waiting:
        each.begin()
    await env.thread(node.kill)
    since = env.reactor.seconds()  # its sockets close when its process is gone
    for each in waiting:
        await each.has_ended(StreamLostError, error.ConnectionLost, since=since)
    refused = await env.failure(env.connect())
    check(isinstance(refused, error.ConnectionRefusedError), repr(refused))


async def all_closed(env: Env, waiting: list[Waiting]) -> list[tuple[Waiting, float]]:
    """When each connection has closed: the broker ends one after the other, at its own pace."""
    moments = [
        each.connection.when_closed().addCallback(lambda _: env.reactor.seconds())
        for each in waiting
    ]
    closed = await env.within(120, defer.gatherResults(moments), "all closed")
    return list(zip(waiting, closed, strict=True))


@scenario(own_node=True, interface="ours", timeout=120, beside=True)
async def broker_restarts(env: Env) -> None:
    """A node that stops in good order says 320 first; afterwards it takes connections again."""
    node = await victim(env)
    waiting = [await Waiting.on(env, tls=tls) for tls in WIRES]
    for each in waiting:
        each.consume()
    stopping = env.thread(node.stop)
    for each, since in await all_closed(env, waiting):
        await each.has_ended(
            ConnectionClosedByBroker, error.ConnectionDone, since=since, code=320, words="shutdown"
        )
    await stopping
    await env.thread(node.start)
    await env.open()


@scenario(own_node=True, interface="ours", timeout=240, beside=True)
async def broker_closes_all_connections(env: Env) -> None:
    """`rabbitmqctl close_all_connections`: everybody has its words, within a second."""
    node = await victim(env)
    waiting = [await Waiting.on(env, tls=tls) for tls in WIRES]
    for each in waiting:
        each.consume()
    closing = env.thread(node.close_all_connections, "maintenance by the test")
    for each, since in await all_closed(env, waiting):
        await each.has_ended(
            ConnectionClosedByBroker, error.ConnectionDone, since=since, code=320,
            words="maintenance by the test",
        )  # fmt: skip
    await closing


@scenario(own_node=True, interface="ours", timeout=240, beside=True)
async def broker_refuses_a_channel(env: Env) -> None:
    """A user's limit of channels: RabbitMQ closes the connection, 530, and everybody is told."""
    node = await victim(env)
    user, password = env.broker.limited_user, env.broker.limited_password
    await env.thread(node.ctl, "set_user_limits", user, '{"max-channels": 1}')
    try:
        connection, channel = await env.open(user=user, password=password)
        # RabbitMQ counts them in a process of its own: asked at once it might let a second one in.
        counted = f'rabbit_channel_tracking:count_tracked_items_in({{user, <<"{user}">>}})'
        while await env.thread(node.evaluate, counted) != "1":
            await env.sleep(0.01)
        waiting = [connection.channel(), channel.on_closed, connection.when_closed()]
        results = await env.within(
            5, defer.DeferredList(waiting, consumeErrors=True), "everybody is told"
        )
        for _, result in results:
            reason = getattr(result, "value", result)
            check(isinstance(reason, ConnectionClosedByBroker), repr(reason))
            equal(reason.args[0], 530, "code")
            check("maximum allowed user limit" in reason.args[1], repr(reason))
    finally:
        await env.thread(node.ctl, "clear_user_limits", user, "all")


@scenario(own_node=True, interface="ours", timeout=120, beside=True)
async def broker_is_frozen(env: Env) -> None:
    """SIGSTOP, idle and with 20 MB unsent: dropped in two intervals of the heartbeat."""
    node = await victim(env)
    waiting = [
        (await Waiting.on(env, tls=tls, heartbeat=HEARTBEAT), unsent)
        for tls in WIRES
        for unsent in (0, UNSENT)
    ]
    node.freeze()
    await env.sleep(0.1)
    try:
        for each, unsent in waiting:
            each.begin()
            if unsent:
                each.fill(unsent)
        for each, _ in waiting:
            await each.has_ended(
                AMQPHeartbeatTimeout, error.ConnectionLost, since=each.began,
                within=SILENT_WITHIN + AFTER_TCP,
            )  # fmt: skip
    finally:
        node.thaw()


def resident() -> int:
    """What this process has in memory now, in octets."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class PatientPublisher:
    """Publishes a MiB at a time and waits for the transport to take it."""

    def __init__(self, connection: Any, channel: Any, queue: str) -> None:
        self.connection = connection
        self.channel = channel
        self.queue = queue
        self.octets = 0
        self.confirms: list[defer.Deferred[Any]] = []
        self.working = True

    async def publish(self) -> None:
        while self.working and self.channel.is_open:
            for _ in range(16):
                sent = self.channel.basic_publish("", self.queue, bytes(MIB // 16))
                self.confirms.append(sent)
            self.octets += MIB
            await self.connection.drained()


async def set_watermark(env: Env, node: Node, fraction: float) -> None:
    await env.thread(node.evaluate, f"vm_memory_monitor:set_vm_memory_high_watermark({fraction})")


def unsent(transport: Any) -> int:
    """What the kernel has taken from a TCP transport and not brought to the peer's kernel."""
    count = fcntl.ioctl(transport.getHandle(), termios.TIOCOUTQ, struct.pack("i", 0))
    return int(struct.unpack("i", count)[0])


@scenario(own_node=True, interface="ours", timeout=120, beside=True)
async def broker_runs_out_of_memory(env: Env) -> None:
    """Blocked and Unblocked are told; a publisher that waits adds at most 32 MB meanwhile."""
    node = await victim(env)
    connection, channel = await env.open(heartbeat=HEARTBEAT)
    # Dropped as it comes, so that the node's memory stays what it is.
    arguments = {"x-max-length": 10}
    queue = (await channel.queue_declare("", exclusive=True, arguments=arguments)).method.queue
    await channel.confirm_delivery()
    # The kernel's part is the same everywhere: some hosts let it grow to 64 MB.
    connection.transport.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * MIB)
    publisher = PatientPublisher(connection, channel, queue)
    told: list[Any] = []
    connection.add_on_connection_blocked_callback(lambda *args: told.append((*args, resident())))
    connection.add_on_connection_unblocked_callback(lambda *args: told.append(args))
    publishing = as_deferred(publisher.publish())
    try:
        await env.until(lambda: publisher.octets > 16 * MIB, "publishing", timeout=20)
        await set_watermark(env, node, 0.0)
        await env.until(lambda: told, "blocked")
        check(connection.is_blocked and connection.stats().is_blocked, "is_blocked")
        await env.sleep(2 * HEARTBEAT + 1)
        octets, memory = publisher.octets, resident()
        await env.sleep(0.5)
        equal(publisher.octets, octets, "octets after it has come to a stop")
        held = unsent(connection.transport)
    finally:
        publisher.working = False
        await set_watermark(env, node, 0.4)
    await env.until(lambda: len(told) == 2, "unblocked")
    check(not connection.is_blocked, "not blocked any more")
    await env.within(10, publishing, "the publisher goes on")
    results = await env.within(
        20, defer.DeferredList(publisher.confirms, consumeErrors=True), "every confirm came"
    )
    equal([result for good, result in results if not good], [], "publishes that failed")
    (blocked, why, memory_then), (unblocked, _) = told
    check(blocked is unblocked is connection and why.method.reason, f"{told}")
    added = (memory - memory_then + held) / MIB
    print(f"memory alarm: {added:.1f} MiB added by a publisher, {held / MIB:.1f} of it kernel's")
    check(added <= 32, f"{added:.1f} MiB added")
