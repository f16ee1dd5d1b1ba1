"""Water marks against the real broker: reading stops for full queues, and for nobody who waits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pika_twisted
from pika_twisted import WaterMarks
from pika_twisted.recovery.service import RecoveringService
from tests.broker.env import Env, check, equal
from tests.broker.registry import scenario
from tests.broker.scenarios_consume import PATHS, fill
from tests.broker.scenarios_faults import HEARTBEAT, SILENT_WITHIN, WIRES

LOW_MARKS = WaterMarks(high_messages=50, low_messages=10)
BACKLOG = 5_000
LARGE_BACKLOG = 20_000  # of messages of 1 KB: more than the kernel's buffers hold
HANDLED = 60
EITHER_PATH = {
    "direct-tcp": {**PATHS["direct"], **WIRES["tcp"]},
    "through_pika-tls": {**PATHS["through_pika"], **WIRES["tls"]},
}


class Watched:
    """A transport that is never paused while somebody asks; how often it is paused otherwise."""

    def __init__(self, transport: Any) -> None:
        self.paused = False
        self.pauses = 0
        self.asking = 0
        self.wrongly = 0
        self._pause, self._resume = transport.pauseProducing, transport.resumeProducing
        transport.pauseProducing, transport.resumeProducing = self.pause, self.resume

    def pause(self) -> None:
        self.paused = True
        self.pauses += 1
        self.wrongly += self.asking > 0
        self._pause()

    def resume(self) -> None:
        self.paused = False
        self._resume()

    async def ask(self, call: Callable[[], Any]) -> Any:
        """Make a call, after which the transport reads at once, and wait for its answer."""

        def answered(result: Any) -> Any:
            self.asking -= 1  # not when the handler goes on: asyncio's tasks do so a turn later
            return result

        self.asking += 1
        waiting = call()
        check(not self.paused, "the call was made, and its answer is not read")
        return await waiting.addBoth(answered)


@scenario(
    own_node=True,
    interface="ours",
    timeout=60,
    variants=EITHER_PATH,
)
async def handlers_call_on_the_connection_they_consume_from(
    env: Env, direct: bool, tls: Any
) -> None:
    """Concurrency 1, low marks, a large backlog: confirms, RPCs, gets, opens are all answered."""
    source, target = env.name(), env.name()
    options = {"water_marks": LOW_MARKS, "direct_delivery": direct}
    connection, consuming = await env.open(tls=tls, options=options)
    side = await connection.channel()
    for queue in (source, target):
        await side.queue_declare(queue, durable=True)
    await side.confirm_delivery()
    await fill(env, source, BACKLOG)
    watched = Watched(connection.transport)
    done: list[int] = []

    async def handler(message: Any) -> None:
        await env.sleep(0)  # a turn in which nobody asks
        ask = watched.ask
        await ask(lambda: side.basic_publish("", target, message.body, mandatory=True))
        await env.sleep(0)
        declared = await ask(lambda: side.queue_declare(target, passive=True))
        check(declared.method.message_count >= 1, f"{declared}")
        await env.sleep(0)
        fetched = await ask(lambda: side.basic_get(target, auto_ack=True))
        equal(fetched.body, message.body, "what was published just now")
        if len(done) % 10 == 0:
            channel = await ask(connection.channel)
            closed = channel.on_closed
            channel.close()
            await ask(lambda: closed)
        done.append(int(message.body))

    handling = await pika_twisted.consume(
        consuming, source, handler, prefetch_count=5_000, reactor=env.reactor
    )
    await env.until(lambda: len(done) >= HANDLED, f"{HANDLED} handled", timeout=40)
    await env.within(10, handling.stop(), "stopped")
    equal(done, list(range(len(done))), "the order")
    equal((handling.failed, watched.wrongly), (0, 0), "handlers that failed, pauses amid a call")
    check(watched.pauses >= HANDLED, f"only {watched.pauses} pauses: nothing was shown")
    check(connection.stats().paused_seconds > 0, "a pause takes time")


@scenario(own_node=True, interface="ours", timeout=60, beside=True)
async def a_long_pause_is_not_silence(env: Env) -> None:
    """Nobody takes messages for over two intervals of the heartbeat: the connection lives on."""
    queues = []
    for tls in (None, True):
        queue = env.name()
        options = {"water_marks": LOW_MARKS}
        connection, channel = await env.open(tls=tls, heartbeat=HEARTBEAT, options=options)
        await channel.queue_declare(queue, durable=True)
        await fill(env, queue, LARGE_BACKLOG, prefix=bytes(1000))
        deliveries, _ = await channel.basic_consume(queue, auto_ack=True)
        queues.append((connection, deliveries))
    await env.sleep(SILENT_WITHIN + 2)
    for connection, deliveries in queues:
        check(connection.is_open, f"{connection.is_closed and await connection.when_closed()}")
        check(connection.paused_seconds > SILENT_WITHIN, f"{connection.paused_seconds} s")
        # What it was read with comes too: 256 KiB at most, 250 messages or so.
        check(50 <= len(deliveries.pending) < 400, f"{len(deliveries.pending)} are waiting")
    for connection, deliveries in queues:
        for number in range(LARGE_BACKLOG):
            message = await deliveries.get()
            if message.body[1000:] != b"%d" % number:
                check(False, f"{message.body[1000:]!r} instead of {number}")
        equal(connection.paused_seconds, connection.stats().paused_seconds, "seconds")


@scenario(interface="ours", timeout=60)
async def service_consumers_have_water_marks(env: Env) -> None:
    """A consumer of a service, auto_ack and slow, holds 10,000 messages and one read at most."""
    total, queue = 40_000, env.name()
    _, channel = await env.open()
    await channel.queue_declare(queue, durable=True)
    await fill(env, queue, total)
    parameters = env.parameters(host=env.broker.host, port=env.broker.port)
    service = RecoveringService(parameters, reactor=env.reactor)
    env.cleanups.append(service.stopService)
    service.startService()
    deliveries, _ = await service.channel().basic_consume(queue, auto_ack=True)
    await env.until(lambda: len(deliveries.pending) >= 10_000, "the high mark", timeout=20)
    await env.sleep(0.3)
    check(len(deliveries.pending) < 16_000, f"{len(deliveries.pending)} are waiting")
    taken = 0
    while taken < total:
        for message in await env.within(10, deliveries.get_many(1_000), f"after {taken}"):
            equal(message.body, b"%d" % taken, "the order")
            taken += 1
    check(service.stats().connection.paused_seconds > 0, "it paused")


@scenario(
    own_node=True,
    interface="ours",
    timeout=60,
    variants=EITHER_PATH,
)
async def a_read_interval_makes_reads_fewer(env: Env, direct: bool, tls: Any) -> None:
    """Every message comes, in order, in reads that bring many; a call doesn't wait for a rest."""
    queue = env.name()
    options = {"read_interval": 0.5, "direct_delivery": direct}
    connection, channel = await env.open(tls=tls, options=options)
    await channel.queue_declare(queue, durable=True)
    await fill(env, queue, BACKLOG)
    watched = Watched(connection.transport)
    deliveries, _ = await channel.basic_consume(queue, auto_ack=True)
    for number in range(BACKLOG):
        message = await env.within(10, deliveries.get(), f"message {number}")
        equal(message.body, b"%d" % number, "the order")
    check(0 < watched.pauses < 30, f"{watched.pauses} rests for {BACKLOG} messages")
    # The backlog's last message may be taken when the rest behind it is over already.
    called_at_rest = 0
    for _ in range(20):
        rests = watched.pauses
        channel.basic_publish("", queue, b"one more")
        await env.within(10, deliveries.get(), "one more")
        await env.sleep(0)  # the end of the read in which the message came
        check(watched.pauses > rests, "it rests after the last message")
        called_at_rest += watched.paused
        await watched.ask(lambda: channel.queue_declare(queue, passive=True))
    check(called_at_rest > 10, f"it rested at {called_at_rest} calls of 20")
    equal(watched.wrongly, 0, "rests amid a call")
    connection.close()
    await env.within(5, connection.when_closed(), "closed")
