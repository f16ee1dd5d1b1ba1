"""What a soak does: the recovering service, and beside it the drop-in classes, each with its log.

Both publish with confirms, consume, and open and close channels all the time, through a proxy that
cuts their connections.
"""

from __future__ import annotations

import random
from collections.abc import Generator
from typing import Any

from pika import exceptions as pika_exceptions
from twisted.internet import defer
from twisted.logger import Logger

import pika_twisted
from pika_twisted.recovery.service import RecoveringService
from tests.broker.env import Env, OneShot
from tests.soak.message_log import MessageLog

IN_FLIGHT = 200
TICK = 0.1  # seconds between two handfuls of publishes
MISSING = "soak-never-declared"

# How a call ends when its connection or channel does.
LOST = (
    pika_exceptions.AMQPConnectionError,
    pika_exceptions.ChannelClosed,
    pika_exceptions.ChannelWrongStateError,
)


_log = Logger()


class Hiccup(Exception):
    """What a handler raises now and then."""


class Load:
    """Publishes at a steady rate and opens channels, until told to stop."""

    name: str
    queues: tuple[str, ...]
    may_fail: bool  # whether a publish may fail when its connection does

    def __init__(self, env: Env, port: int, log: MessageLog, rate: float, channels: float) -> None:
        self.env = env
        self.port = port
        self.log = log
        self.rate = rate
        self.channel_pause = 1 / channels
        self.working = True
        self.reconnects = 0
        self.channels_opened = 0
        self.refused = 0
        self.interrupted = 0
        self._loops: list[defer.Deferred[None]] = []

    async def start(self) -> None:
        """Connect, and begin."""
        await self.prepare()
        self._loops += map(self.begin, (self._publish_all(), self._use_channels()))

    def begin(self, coroutine: Any) -> defer.Deferred[None]:
        """Run it beside everything else; how it fails is an error that the soak counts."""
        running = defer.ensureDeferred(coroutine)
        running.addErrback(lambda why: _log.failure("{name} ended", why, name=self.name))
        return running

    async def prepare(self) -> None:
        """Connect and consume."""
        raise NotImplementedError

    async def finish(self) -> None:
        """Publish no more, and wait until everything confirmed has come and nothing waits."""
        self.working = False
        await defer.gatherResults(self._loops)
        await self.env.until(
            lambda: not self.log.pending and not self.log.missing(),
            f"{self.name}: {self.log}",
            timeout=90,
        )

    async def stop(self) -> None:
        """Close the connection."""
        raise NotImplementedError

    def publish(self, queue: str, body: bytes, properties: Any) -> Any:
        """Publish with a confirm; the Deferred that `publish()` of this interface gives."""
        raise NotImplementedError

    async def open_channel(self) -> Any:
        """Another channel."""
        raise NotImplementedError

    def close_channel(self, channel: Any) -> None:
        """Be done with a channel, which the broker may have closed."""
        raise NotImplementedError

    def can_publish(self) -> bool:
        """Whether there is a connection, or one is waited for."""
        return True

    async def _publish_all(self) -> None:
        owed = 0.0
        while self.working and not self.log.full:
            owed += self.rate * TICK
            while owed >= 1 and not self.log.full:
                owed -= 1
                if self.can_publish() and self.log.pending < IN_FLIGHT:
                    self._publish_one()
            await self.env.sleep(TICK * random.uniform(0.5, 1.5))

    def _publish_one(self) -> None:
        number, body, properties = self.log.next_message()
        publishing = self.publish(random.choice(self.queues), body, properties)
        publishing.addCallback(self.log.settle, number, False)
        if self.may_fail:
            publishing.addErrback(self._on_lost_publish, number)
        else:
            publishing.addErrback(self.log.settle, number, True)

    def _on_lost_publish(self, failure: Any, number: int) -> None:
        failure.trap(*LOST)
        self.log.settle(failure, number, True)

    async def _use_channels(self) -> None:
        while self.working:
            try:
                await self._use_channel(self.channels_opened % 4 == 3)
            except LOST:
                self.interrupted += 1
            await self.env.sleep(self.channel_pause * random.uniform(0.5, 1.5))

    async def _use_channel(self, refused: bool) -> None:
        """Open a channel, use it a little, close it; or let the broker close it with 404."""
        channel = await self.open_channel()
        self.channels_opened += 1
        queue = f"soak-channel-{self.name}"
        try:
            if refused:
                await self._be_refused(channel)
                return
            await channel.queue_declare(queue, durable=True)
            channel.basic_publish("", queue, b"a message for get")
            await channel.basic_get(queue, auto_ack=True)
            await channel.queue_delete(queue)
        finally:
            self.close_channel(channel)

    async def _be_refused(self, channel: Any) -> None:
        try:
            await channel.queue_declare(MISSING, passive=True)
        except pika_exceptions.ChannelClosedByBroker as why:
            if why.reply_code != 404:
                raise
            self.refused += 1

    def __str__(self) -> str:
        return (
            f"{self.name}: {self.log}; {self.reconnects} reconnects, {self.channels_opened:,}"
            f" channels, {self.refused:,} refused, {self.interrupted} interrupted"
        )


class ServiceLoad(Load):
    """`RecoveringService`: handlers, `async for` with batched acks, and a publisher."""

    name = "service"
    queues = ("soak-handled", "soak-iterated")
    may_fail = False

    async def prepare(self) -> None:
        self.service = RecoveringService(
            self.env.parameters(host="127.0.0.1", port=self.port, heartbeat=10),
            reactor=self.env.reactor,
            retry_policy=lambda attempt: min(0.1 * 2**attempt, 1.0),
            call_timeout=None,
            drain_timeout=30,
        )
        self.service.add_callback("recovered", self._on_recovered)
        self.service.startService()
        channel = self.service.channel(prefetch_count=100, ack_batching=20)
        for queue in self.queues:
            await channel.queue_declare(queue, durable=True)
        self.publisher = self.service.publisher(
            when_lost="resend", max_in_flight=IN_FLIGHT, timeout=None
        )
        await self.service.consume(
            self.queues[0], self._handle, concurrency=10, prefetch_count=50, ack_batching=10
        )
        self._messages, _ = await channel.basic_consume(self.queues[1])
        self._iterating = self.begin(self._iterate())

    def _on_recovered(self, connection: Any) -> None:
        self.reconnects += 1

    async def _handle(self, message: Any) -> None:
        if random.random() < 0.3:
            await self.env.sleep(random.random() / 50)
        if random.random() < 0.002:
            raise Hiccup("on purpose")
        self.log.take(message)

    async def _iterate(self) -> None:
        async for message in self._messages:
            self.log.take(message)
            message.ack()

    async def stop(self) -> None:
        await self.service.stopService()
        await self._iterating

    def publish(self, queue: str, body: bytes, properties: Any) -> Any:
        return self.publisher.publish("", queue, body, properties)

    async def open_channel(self) -> Any:
        return self.service.channel()

    def close_channel(self, channel: Any) -> None:
        channel.close()  # also one that the broker has closed: it would be opened again


class DropInLoad(Load):
    """The classes of pika's adapter, used as code written for it does; reconnects by hand."""

    name = "drop-in"
    queues = ("soak-drop-in",)
    may_fail = True

    async def prepare(self) -> None:
        self._connection: Any = None
        self._channel: Any = None
        self._first: defer.Deferred[None] = defer.Deferred()
        self._running = self.begin(self._run())
        await self._first

    @defer.inlineCallbacks
    def _run(self) -> Generator[Any, Any, None]:
        while self.working or self.log.missing():
            try:
                yield self._session()
            except LOST:
                self._channel = None
                self.reconnects += self.working
            yield self.env.sleep(0.2)

    @defer.inlineCallbacks
    def _session(self) -> Generator[Any, Any, None]:
        parameters = self.env.parameters(heartbeat=10)
        connection = pika_twisted.TwistedProtocolConnection(parameters, self.env.reactor)
        self._connection = connection
        yield self.env.endpoint(port=self.port).connect(OneShot(connection))
        yield connection.ready
        publishing = yield connection.channel()
        yield publishing.confirm_delivery()
        consuming = yield connection.channel()
        yield consuming.basic_qos(prefetch_count=100)
        for queue in self.queues:
            yield consuming.queue_declare(queue, durable=True)
        messages, _tag = yield consuming.basic_consume(self.queues[0])
        self._channel = publishing
        if not self._first.called:
            self._first.callback(None)
        while True:
            message = yield messages.get()
            self.log.take(message)
            message.channel.basic_ack(message.method.delivery_tag)

    async def stop(self) -> None:
        closed = self._connection.when_closed()
        self._connection.close()
        await closed
        await self._running

    def can_publish(self) -> bool:
        return self._channel is not None and self._channel.is_open

    def publish(self, queue: str, body: bytes, properties: Any) -> Any:
        return self._channel.basic_publish("", queue, body, properties)

    async def open_channel(self) -> Any:
        return await self._connection.channel()

    def close_channel(self, channel: Any) -> None:
        if channel.is_open:
            channel.close()
