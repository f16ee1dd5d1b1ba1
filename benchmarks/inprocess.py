"""A TwistedProtocolConnection without a socket: a case hands its bytes to ``dataReceived``.

For what a socket would hide (the chunk size, the moment of each read) or drown (a message per read
costs some ten microseconds of reactor and system calls in any client).
"""

from __future__ import annotations

import time
from typing import Any

import pika
from pika import amqp_object, frame
from pika import spec as amqp
from twisted.internet import defer, task
from twisted.internet.testing import StringTransport

from benchmarks import wire
from benchmarks.clients.twisted_client import protocol_class
from benchmarks.spec import Spec, Stopwatch, Unsupported

CONSUMER_TAG = "ctag"
SERVER_PROPERTIES = {
    "product": "benchmark",
    "version": "3.10.0",
    "capabilities": dict.fromkeys(
        (
            "publisher_confirms",
            "exchange_exchange_bindings",
            "basic.nack",
            "consumer_cancel_notify",
            "connection.blocked",
            "consumer_priorities",
            "authentication_failure_close",
            "per_consumer_qos",
            "direct_reply_to",
        ),
        True,
    ),
}
CHANNEL = 1
READ_SIZE = 64 * 1024


class NullTransport(StringTransport):
    """Drops what is written."""

    def write(self, data: bytes) -> None:
        pass

    def writeSequence(self, data: Any) -> None:
        pass


def method_bytes(channel: int, method: amqp_object.Method) -> bytes:
    """Return the frame of a method."""
    return frame.Method(channel, method).marshal()


class Loopless:
    """A connection with one channel and one consumer, and no reactor but a clock."""

    def __init__(self, client: str, acked: bool = False, heartbeat: int = 0) -> None:
        self.clock = task.Clock()
        parameters = pika.ConnectionParameters(heartbeat=heartbeat)
        self.protocol = protocol_class(client)(parameters, custom_reactor=self.clock)
        self.protocol.makeConnection(NullTransport())
        self.receive = self.protocol.dataReceived
        self._answer(0, amqp.Connection.Start(0, 9, SERVER_PROPERTIES, "PLAIN", "en_US"))
        self._answer(0, amqp.Connection.Tune(wire.CHANNEL_MAX, wire.FRAME_MAX, heartbeat))
        self._answer(0, amqp.Connection.OpenOk())
        opening = self.protocol.channel()
        self._answer(CHANNEL, amqp.Channel.OpenOk())
        self.channel = fired(opening)
        consuming = self.channel.basic_consume(
            "bench", auto_ack=not acked, consumer_tag=CONSUMER_TAG
        )
        self._answer(CHANNEL, amqp.Basic.ConsumeOk(CONSUMER_TAG))
        self.queue = fired(consuming)[0]

    def feed(self, data: bytes) -> None:
        """Receive `data` in reads as Twisted makes them by default."""
        for read in cut(data, READ_SIZE):
            self.receive(read)

    def _answer(self, channel: int, method: amqp_object.Method) -> None:
        self.receive(method_bytes(channel, method))
        self.clock.advance(0)


def fired(deferred: defer.Deferred[Any]) -> Any:
    """Return the result of a Deferred that must have fired."""
    results: list[Any] = []
    deferred.addCallback(results.append)
    if not results:
        raise RuntimeError(f"still waiting for the peer: {deferred}")
    return results[0]


def deliveries(messages: int, size: int, properties: str) -> bytes:
    """Return the bytes of `messages` deliveries, tags from 1 on."""
    train = wire.Shape(size, properties).deliveries(CHANNEL, CONSUMER_TAG, wire.FRAME_MAX)
    pieces, tag = [], 1
    while tag <= messages:
        view = train.stretch(tag, messages + 1 - tag)
        tag += len(view) // train.unit_size
        pieces.append(bytes(view))
    return b"".join(pieces)


def cut(data: bytes, size: int) -> list[bytes]:
    """Return `data` in chunks of `size` bytes."""
    return [data[start : start + size] for start in range(0, len(data), size)]


async def count_messages(loopless: Loopless, seen: list[int], each: bool) -> None:
    """Consume for ever."""
    queue, ack = loopless.queue, loopless.channel.basic_ack
    while True:
        message = await queue.get()
        seen[0] += 1
        if each:
            ack(message.method.delivery_tag)


async def time_gets(queue: Any, messages: int) -> float:
    """Return the seconds that it takes to get `messages` messages that wait already."""
    start = time.perf_counter()
    for _ in range(messages):
        await queue.get()
    return time.perf_counter() - start


def run(spec: Spec) -> dict[str, Any]:
    """Run one case in this process."""
    if spec.case == "waiting":
        return waiting(spec)
    if spec.case == "chunks":
        return chunks(spec)
    if spec.case == "backlog":
        return backlog(spec)
    raise Unsupported(f"no case {spec.case}")


def waiting(spec: Spec) -> dict[str, Any]:
    """One whole message per read, with a consumer waiting for it."""
    data = deliveries(spec.messages, spec.size, spec.properties)
    return fed(spec, cut(data, len(data) // spec.messages))


def chunks(spec: Spec) -> dict[str, Any]:
    """Messages in reads of `chunk` bytes, with a consumer waiting."""
    return fed(spec, cut(deliveries(spec.messages, spec.size, spec.properties), spec.chunk))


def fed(spec: Spec, reads: list[bytes]) -> dict[str, Any]:
    """Hand `reads` to a waiting consumer, once to warm up and once to measure."""
    watch, each = Stopwatch(), spec.ack == "each"
    for measured in (False, True):
        loopless = Loopless(spec.client, each)
        receive = loopless.receive
        seen = [0]
        task_of_consumer = defer.ensureDeferred(count_messages(loopless, seen, each))
        watch.start()
        for read in reads if measured else reads[: max(1, len(reads) // 10)]:
            receive(read)
        watch.stop()
        task_of_consumer.addErrback(lambda _failure: None)
        task_of_consumer.cancel()
    if seen[0] != spec.messages:
        raise RuntimeError(f"{seen[0]} of {spec.messages} messages arrived")
    return watch.result(spec.messages)


def backlog(spec: Spec) -> dict[str, Any]:
    """Cost of get() while `backlog` messages wait (before the first of a round of gets)."""
    loopless = Loopless(spec.client)
    step = min(spec.backlog, spec.messages)
    refill = deliveries(step, spec.size, spec.properties)
    for _ in range(spec.backlog // step):
        loopless.feed(refill)
    seconds, taken = 0.0, 0
    while taken < spec.messages:
        if taken:
            loopless.feed(refill)
        seconds += fired(defer.ensureDeferred(time_gets(loopless.queue, step)))
        taken += step
    return {"messages": taken, "cpu": seconds, "wall": seconds}
