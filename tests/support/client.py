"""A client that does whatever chance says, and remembers every Deferred it was given."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from pika import exceptions, spec
from twisted.internet import defer, error

from tests.support.model import BrokerModel
from tests.support.outcome import Outcome, watch
from tests.support.session import Session

T = TypeVar("T")


class Chance(Protocol):
    """What is used of random.Random."""

    def random(self) -> float: ...
    def choice(self, options: Sequence[T], /) -> T: ...
    def sample(self, options: Sequence[T], /, k: int) -> list[T]: ...
    def randrange(self, start: int, stop: int | None = None, /) -> int: ...


QUEUES = ["red", "green", "blue"]


class Client:
    """Its calls, and what the broker does, are chosen by `step()`."""

    def __init__(self, session: Session, chance: Chance) -> None:
        self.session = session
        self.chance = chance
        self.protocol = session.open()
        self.broker = BrokerModel(session.peer)
        self.broker.queues = {name: deque() for name in QUEUES}
        self.outcomes: list[Outcome] = []
        self.deferreds: list[defer.Deferred[Any]] = []
        self.channels: list[Any] = []
        self.queues: list[Any] = []
        self.taken: list[bytes] = []
        self.ackable: list[tuple[Any, int, bytes]] = []
        self.rejected: list[bytes] = []
        self.all_read = False
        self.abandoned_auto_acks = False
        self.count = 0

    # Bookkeeping.

    def keep(self, deferred: Any, label: str) -> defer.Deferred[Any]:
        self.deferreds.append(deferred)
        self.outcomes.append(watch(deferred, f"{len(self.outcomes)} {label}"))
        return deferred

    def take(self, message: Any, manual: bool) -> Any:
        if message is not None:
            self.taken.append(message.body)
            if manual:
                self.ackable.append((message.channel, message.method.delivery_tag, message.body))
        return message

    def body(self) -> bytes:
        self.count += 1
        return b"message %d" % self.count

    def any_channel(self) -> Any:
        usable = [channel for channel in self.channels if channel.is_open]
        return self.chance.choice(usable) if usable else None

    # Calls; each returns without complaint whatever state things are in.

    def open_channel(self) -> None:
        if len(self.channels) < 6:
            self.keep(self.protocol.channel().addCallback(self.opened), "channel()")

    def opened(self, channel: Any) -> Any:
        self.channels.append(channel)
        self.keep(channel.on_closed, "on_closed")
        return channel

    def declare(self) -> None:
        if channel := self.any_channel():
            name = self.chance.choice([*QUEUES, "", "other", "other", "x" * 256])
            self.keep(channel.queue_declare(name), f"queue_declare {name[:5]!r}")

    def purge(self) -> None:
        if channel := self.any_channel():
            # Not a queue with messages that have to be accounted for.
            self.keep(channel.queue_purge("other"), "queue_purge")

    def delete(self) -> None:
        if channel := self.any_channel():
            self.keep(channel.queue_delete("other"), "queue_delete")

    def qos(self) -> None:
        if channel := self.any_channel():
            self.keep(channel.basic_qos(prefetch_count=20), "basic_qos")

    def confirms(self) -> None:
        if channel := self.any_channel():
            self.keep(channel.confirm_delivery(), "confirm_delivery")

    def publish(self) -> None:
        if channel := self.any_channel():
            for _ in range(self.chance.randrange(1, 4)):
                key = self.chance.choice([*QUEUES, "nowhere", "k" * 256])
                mandatory = self.chance.random() < 0.5
                deferred = channel.basic_publish("", key, self.body(), mandatory=mandatory)
                self.keep(deferred, "basic_publish")

    def consume(self) -> None:
        if channel := self.any_channel():
            auto_ack = self.chance.random() < 0.5
            name = self.chance.choice([*QUEUES * 3, "other"])

            def consuming(result: Any) -> Any:
                self.queues.append((result[0], not auto_ack, channel, result[1]))
                return result

            deferred = channel.basic_consume(name, auto_ack=auto_ack)
            self.keep(deferred.addCallback(consuming), f"basic_consume auto_ack={auto_ack}")

    def cancel_consumer(self) -> None:
        if self.queues:
            _, _, channel, tag = self.chance.choice(self.queues)
            if channel.is_open:
                self.keep(channel.basic_cancel(tag), "basic_cancel")

    def get_from_queue(self) -> None:
        if self.queues:
            queue, manual, _, _ = self.chance.choice(self.queues)
            for _ in range(self.chance.randrange(1, 4)):
                self.keep(queue.get().addCallback(self.take, manual), "get")

    def get_many(self) -> None:
        if self.queues:
            queue, manual, _, _ = self.chance.choice(self.queues)

            def took(messages: Any) -> Any:
                for message in messages:
                    self.take(message, manual)
                return messages

            self.keep(queue.get_many(5).addCallback(took), "get_many")

    def await_get(self) -> None:
        """As most programs take messages: in a coroutine, which nothing else looks into."""
        if self.queues:
            queue, manual, _, _ = self.chance.choice(self.queues)

            async def awaiting() -> None:
                self.take(await queue.get(), manual)

            @defer.inlineCallbacks
            def yielding() -> Any:
                self.take((yield queue.get()), manual)

            deferred = defer.ensureDeferred(awaiting()) if manual else yielding()
            self.keep(deferred, "await get")

    def iterate(self) -> None:
        if self.queues:
            queue, manual, _, _ = self.chance.choice(self.queues)
            count = self.chance.randrange(1, 6)

            async def iterating() -> None:
                taken = 0
                async for message in queue:
                    self.take(message, manual)
                    taken += 1
                    if taken == count:
                        break

            self.keep(defer.ensureDeferred(iterating()), "async for")

    def basic_get(self) -> None:
        if channel := self.any_channel():
            auto_ack = self.chance.random() < 0.5
            try:
                deferred = channel.basic_get(self.chance.choice(QUEUES), auto_ack=auto_ack)
            except exceptions.DuplicateGetOkCallback:
                return
            self.keep(
                deferred.addCallback(self.take, not auto_ack), f"basic_get auto_ack={auto_ack}"
            )

    def ack(self) -> None:
        for _ in range(min(len(self.ackable), 3)):
            channel, tag, body = self.ackable.pop(self.chance.randrange(len(self.ackable)))
            if channel.is_open:
                if self.chance.random() < 0.7:
                    channel.basic_ack(tag)
                else:
                    self.rejected.append(body)
                    channel.basic_reject(tag)

    def observe(self) -> None:
        if channel := self.any_channel():
            deferred: defer.Deferred[Any] = defer.Deferred()
            replies = self.chance.sample(
                [spec.Basic.Deliver, spec.Basic.GetOk, spec.Basic.GetEmpty, spec.Queue.DeclareOk], 2
            )
            channel.callback_deferred(deferred, replies)
            self.keep(deferred, "callback_deferred")

    def cancel_something(self) -> None:
        waiting = [d for d, o in zip(self.deferreds, self.outcomes, strict=True) if o.pending]
        closed = {id(channel.on_closed) for channel in self.channels}
        waiting = [deferred for deferred in waiting if id(deferred) not in closed]
        if waiting:
            chosen = self.chance.choice(waiting)
            label = self.outcomes[self.deferreds.index(chosen)].label
            if "auto_ack=True" in label:
                self.abandoned_auto_acks = True
            chosen.cancel()

    def close_channel(self) -> None:
        if channel := self.any_channel():
            channel.close()

    def close_queue(self) -> None:
        if self.queues:
            self.chance.choice(self.queues)[0].close(LookupError("the user has enough"))

    # What the broker does.

    def broker_puts(self) -> None:
        for _ in range(self.chance.randrange(1, 6)):
            self.broker.put(self.chance.choice(QUEUES), self.body())

    def broker_closes_channel(self) -> None:
        if self.broker.channels:
            self.broker.close_channel(self.chance.choice(list(self.broker.channels)))

    def broker_cancels(self) -> None:
        consumers = [
            (number, tag)
            for number, channel in self.broker.channels.items()
            for tag in channel.consumers
        ]
        if consumers:
            self.broker.cancel(*self.chance.choice(consumers))

    def wire(self) -> None:
        self.broker.work()
        self.broker.send(self.chance.choice([1, 7, 20, 100, 1000, 10**6]))

    # The whole.

    def step(self) -> None:
        often: list[Callable[[], None]] = [self.wire] * 12
        often += [self.publish, self.get_from_queue, self.consume, self.broker_puts] * 3
        often += [self.declare, self.basic_get, self.ack, self.get_many, self.open_channel] * 2
        often += [self.await_get, self.iterate] * 2
        often += [self.confirms, self.cancel_something, self.observe, self.qos]
        rare = [self.delete, self.purge, self.cancel_consumer, self.close_channel, self.close_queue]
        rare += [self.broker_closes_channel, self.broker_cancels]
        self.chance.choice(rare if self.chance.random() < 0.06 else often)()

    def settle(self) -> None:
        """Let everything that is on its way arrive."""
        while True:
            self.broker.work()
            if not self.broker.outgoing or not self.session.transport.connected:
                return
            self.broker.send(10**9)

    def end(self) -> None:
        how = self.chance.choice(["client", "broker", "lost", "settled and lost", "half a frame"])
        if how == "settled and lost":
            self.settle()
            self.all_read = True
        elif how == "client":
            self.keep(self.protocol.close(), "close()")
            for _ in range(20):
                self.settle()
                self.session.turn()
        elif how == "broker":
            self.broker.work()
            self.broker.close()
            self.settle()
            self.session.turn(1)
        elif how == "half a frame":
            self.broker.work()
            self.broker.send(max(len(self.broker.outgoing) - 3, 0))
        self.session.lose(error.ConnectionLost("the end"))
