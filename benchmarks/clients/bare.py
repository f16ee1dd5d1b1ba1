"""The floor under every Twisted client: a protocol that reads what a consumer gets and drops it."""

from __future__ import annotations

from typing import Any

import pika
from pika import frame
from pika import spec as amqp
from twisted.internet import defer, endpoints, protocol, task

from benchmarks import wire
from benchmarks.clients import reacting
from benchmarks.peer_channel import flood_options
from benchmarks.spec import Spec, Stopwatch, Unsupported
from benchmarks.wire import CHANNEL_MAX, FRAME_MAX

CONSUMER_TAG = "bare"
READ_SIZE = 256 * 1024  # as pika_twisted sets it


def opening() -> bytes:
    """Return the client side of the handshake; the embedded peer takes it all at once."""
    methods = [
        (0, amqp.Connection.StartOk({}, "PLAIN", "\0guest\0guest", "en_US")),
        (0, amqp.Connection.TuneOk(CHANNEL_MAX, FRAME_MAX, 0)),
        (0, amqp.Connection.Open("/")),
    ]
    return b"AMQP\x00\x00\x09\x01" + b"".join(frame.Method(*each).marshal() for each in methods)


def consuming(channel: int, queue: str) -> bytes:
    """Return the frames that open a channel and consume on it."""
    methods: list[Any] = [
        amqp.Channel.Open(),
        amqp.Basic.Consume(queue=queue, consumer_tag=CONSUMER_TAG, no_ack=True),
    ]
    return b"".join(frame.Method(channel, method).marshal() for method in methods)


def expected_bytes(channel: int, queue: str) -> int:
    """Return how many bytes come after :func:`consuming`."""
    options = flood_options(queue)
    shape = wire.Shape(int(options["size"]), options["properties"])
    train = shape.deliveries(channel, CONSUMER_TAG, FRAME_MAX)
    answers: list[Any] = [amqp.Channel.OpenOk(), amqp.Basic.ConsumeOk(CONSUMER_TAG)]
    replies = sum(len(frame.Method(channel, answer).marshal()) for answer in answers)
    return replies + train.unit_size * int(options["n"])


class Drain(protocol.Protocol):
    """Counts bytes down and drops them."""

    def __init__(self) -> None:
        self._left = 0
        self._done: defer.Deferred[None] | None = None

    def wait_for(self, size: int) -> defer.Deferred[None]:
        """Return a Deferred that fires when `size` more bytes have come."""
        self._left = size
        self._done = defer.Deferred()
        return self._done

    def dataReceived(self, data: bytes) -> None:
        self._left -= len(data)
        if self._done is not None and self._left <= 0:
            done, self._done = self._done, None
            done.callback(None)


def run(spec: Spec) -> dict[str, Any]:
    """Receive the deliveries of a consumer without looking at them."""
    if spec.case != "consume" or spec.ack != "auto" or spec.style != "await" or spec.channels != 1:
        raise Unsupported("the bare protocol reads and drops, no more")
    if spec.live:
        raise Unsupported("the bare protocol cannot tell when a real broker is done")

    async def session(reactor: Any) -> dict[str, Any]:
        parameters = pika.URLParameters(spec.url)
        endpoint = endpoints.TCP4ClientEndpoint(reactor, parameters.host, parameters.port)
        drain = await endpoints.connectProtocol(endpoint, Drain())
        drain.transport.bufferSize = READ_SIZE
        drain.transport.write(opening())
        await task.deferLater(reactor, 0.2)  # Start, Tune and OpenOk have come
        await receive(drain, 1, spec.warmup_queue)
        watch = Stopwatch()
        watch.start()
        await receive(drain, 2, spec.queue)
        watch.stop()
        return watch.result(spec.messages)

    return reacting.run(session)


async def receive(drain: Any, channel: int, queue: str) -> None:
    """Consume one queue to its end."""
    size = expected_bytes(channel, queue)
    drain.transport.write(consuming(channel, queue))
    await drain.wait_for(size)
