"""The world of one program: a broker, its clock, and what the program has in its hands."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from twisted.internet import defer

from pika_twisted.testing import Broker
from tests.model.clock import BoundedClock
from tests.model.program import Program, Step
from tests.model.records import (
    Channel,
    Connection,
    Consumer,
    HandlingRecord,
    ProvokedError,
    PublisherRecord,
    Watched,
)

QUEUES = ("q0", "q1", "q2")


class World:
    """What steps work on. `complaints` are what must not happen and was seen while it ran."""

    def __init__(self, program: Program) -> None:
        self.broker = Broker(BoundedClock(), late_deliveries=program.late_deliveries)
        self.clock = self.broker.reactor
        self.complaints: list[str] = []
        self.read_size = program.read_size
        self.style = program.style
        self.perform: Callable[[Step], None] = lambda step: None
        self.connections: list[Connection] = []
        self.channels: list[Channel] = []
        self.handlings: list[HandlingRecord] = []
        self.publishers: list[PublisherRecord] = []
        self.watched: list[Watched] = []
        self.ended: list[tuple[str, Channel, weakref.ref[Any]]] = []
        self.deleted: set[str] = set()
        self.cancelled_by_broker: set[tuple[Any, str]] = set()
        self.acked: set[bytes] = set()
        self.refused: set[bytes] = set()
        self.auto_seen: set[bytes] = set()
        self.auto_loss = False
        self.healed = False
        self.numbers = 0
        self.broker.run(self._prepare())
        self.broker.latency = program.latency

    async def _prepare(self) -> None:
        await self.connect()
        channel = self.channels[0].client
        for name in QUEUES:
            await channel.queue_declare(name)
        await channel.exchange_declare("h", "headers")
        await channel.queue_bind("q0", "h", arguments={"x-match": "any", "route": True})

    def connect(self) -> defer.Deferred[Any]:
        def connected(client: Any) -> defer.Deferred[Any]:
            server = client.transport.peer.protocol
            client.transport.bufferSize = self.read_size
            connection = Connection(client, server)
            self.connections.append(connection)

            def closed(reason: Any) -> None:
                connection.reason = reason

            client.when_closed().addBoth(closed)
            return self.open_channel(
                connection, self.style, self.style // 3
            ).deferred or defer.succeed(None)

        return self.broker.connect().addCallback(connected)

    def open_channel(self, connection: Connection, how: int, style: int) -> Watched:
        def opened(client: Any) -> Any:
            self.note_channel(connection, client, how, style)
            return client

        return self.watch(
            "open", connection.client.channel().addCallback(opened), connection=connection
        )

    def note_channel(self, connection: Connection, client: Any, how: int, style: int) -> Channel:
        server = connection.server.channels.get(client.channel_number)
        complete = how % 3 == 0
        if complete:
            client.ack_batching = (1, 2, 5)[style % 3]
            if client.ack_batching > 1 and style % 2:
                client.ack_delay = 0.1
        channel = Channel(client, connection, server, complete, style % 2 == 0)

        def closed(reason: Any) -> None:
            channel.reason = reason
            if any(each.auto_ack for each in channel.consumers):
                self.auto_loss = True

        client.on_closed.addBoth(closed)
        self.channels.append(channel)
        return channel

    def complain(self, text: str) -> None:
        self.complaints.append(text)

    def number(self) -> int:
        self.numbers += 1
        return self.numbers

    def watch(
        self,
        kind: str,
        deferred: defer.Deferred[Any],
        *,
        connection: Connection | None = None,
        channel: Channel | None = None,
        consumer: Consumer | None = None,
        about: Any = None,
        inside: tuple[Step, ...] = (),
    ) -> Watched:
        """Note what becomes of a Deferred; its first callback makes the steps `inside`."""
        if channel is not None and connection is None:
            connection = channel.connection
        watched = Watched(kind, deferred, connection, channel, consumer, about)
        self.watched.append(watched)

        def fired(result: Any) -> None:
            watched.note(result)
            if watched.error is not None and kind in ("consume", "basic_get") and about:
                self.auto_loss = True  # what was delivered meanwhile came for nobody
            for step in inside:
                if step.op == "boom":
                    raise ProvokedError("in a callback")
                self.perform(step)

        deferred.addBoth(fired)
        return watched

    # Messages

    def take(self, channel: Channel, message: Any, consumer: Consumer | None, auto: bool) -> None:
        """A message was handed out."""
        tag = message.method.delivery_tag
        if message.channel is not channel.client:
            self.complain(f"a message of another channel: {message!r}")
            return
        if tag in channel.seen:
            self.complain(f"handed out twice: tag {tag} {message.body!r}")
        channel.seen[tag] = message.body
        if auto:
            channel.settled.add(tag)
            self.auto_seen.add(message.body)
        channel.held.append(message)
        if consumer is not None and not message.redelivered and message.body.startswith(b"b"):
            position = int(message.body[1:])
            if position < consumer.last:
                self.complain(f"out of order: {message.body!r} after {consumer.last}")
            consumer.last = position

    def received(self, channel: Channel) -> dict[int, bytes]:
        """What has come on a channel: tag -> body."""
        tags = dict(channel.seen)
        for consumer in channel.consumers:
            for message in consumer.queue.pending:
                if message.channel is channel.client:
                    tags[message.method.delivery_tag] = message.body
                    if consumer.auto_ack:
                        channel.settled.add(message.method.delivery_tag)
                        self.auto_seen.add(message.body)
        return tags

    # Time

    def advance(self, seconds: float) -> None:
        """Advance the clock, from one delayed call to the next."""
        clock, end = self.clock, self.clock.seconds() + seconds
        clock.advance(0)
        for _ in range(20_000):
            due = [call.getTime() for call in clock.getDelayedCalls()]
            if not due or min(due) > end:
                break
            clock.advance(max(0.0, min(due) - clock.seconds()))
        else:
            self.complain("it spins: 20,000 delayed calls")
        clock.advance(max(0.0, end - clock.seconds()))

    def quieten(self) -> None:
        """Let the broker do again what it was kept from, and handlers work."""
        self.healed = True
        self.broker.latency = 0.0
        self.broker.thaw()
        self.broker.unblock()
        self.broker.release_confirms()
        self.broker.release_deliveries()


def failure_of(function: Callable[..., Any], *args: Any) -> BaseException | None:
    """Call something; return what it raised, or None."""
    try:
        function(*args)
    except Exception as error:
        return error
    return None
