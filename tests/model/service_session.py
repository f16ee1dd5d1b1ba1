"""Programs over a `RecoveringService`: it is cut, refused and stopped, and loses nothing.

A program is a seed here: its steps are few, and each depends on the time that has passed.
"""

from __future__ import annotations

import gc
import random
import weakref
from typing import Any

import pika
from pika import exceptions
from twisted.internet import defer, task

from pika_twisted import AlreadySettled, PublishTimeout, RecoveringService
from pika_twisted.testing import Broker
from tests.model.clock import BoundedClock, Spinning
from tests.model.records import ProvokedError
from tests.model.session import Log
from tests.model.world import failure_of

_FAULTS = ("cut", "restart", "close", "close_channel", "cancel", "refuse", "down", "freeze")
_CALLS = ("publish", "publish", "publish", "put", "put", "get", "ack", "declare", "cancel_call")


class ServiceWorld:
    """A service with a publisher, handlers and a channel of its own."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.clock: Any = BoundedClock()
        self.broker = Broker(self.clock, late_deliveries=self.chance.choice((0, 3)))
        self.complaints: list[str] = []
        self.pending: dict[defer.Deferred[Any], str] = {}
        self.cancelled: set[defer.Deferred[Any]] = set()
        self.confirmed: set[bytes] = set()
        self.handled: set[bytes] = set()
        self.acked: set[bytes] = set()
        self.held: list[Any] = []
        self.numbers = 0
        self.running = 0
        self.healed = False
        self.concurrency = self.chance.choice((1, 3))
        self.service = RecoveringService(self.broker.endpoint(), reactor=self.clock)
        self.publisher = self.service.publisher(
            when_lost=self.chance.choice(("fail", "resend")), max_in_flight=3
        )
        self.channel = self.service.channel(prefetch_count=3)
        self.queue: Any = None
        self.handling: Any = None
        self.service.startService()
        self.watch(self._set_up(), "set up")
        self.advance(1)

    def _set_up(self) -> defer.Deferred[Any]:
        async def set_up() -> None:
            for name in ("work", "mine"):
                await self.channel.queue_declare(name, durable=True)
            self.queue, _tag = await self.channel.basic_consume("mine")
            self.handling = await self.service.consume(
                "work", self._handle, concurrency=self.concurrency, timeout=2.0
            )

        return defer.Deferred.fromCoroutine(set_up())

    async def _handle(self, message: Any) -> None:
        self.running += 1
        if self.running > self.concurrency:
            self.complaints.append(f"{self.running} handlers at work")
        try:
            how = 0 if self.healed else self.chance.randrange(6)
            if how == 1:
                raise ProvokedError("in a handler")
            if how == 2:
                await task.deferLater(self.clock, 0.5)
            if how == 3:
                await task.deferLater(self.clock, 5.0)
        finally:
            self.running -= 1
        self.handled.add(message.body)

    def watch(self, deferred: defer.Deferred[Any], what: str) -> None:
        self.pending[deferred] = what

        def fired(result: Any) -> None:
            del self.pending[deferred]
            error = getattr(result, "value", None)
            if isinstance(error, BaseException) and not self._plausible(error, deferred):
                self.complaints.append(f"{what} failed with {error!r}")

        deferred.addBoth(fired)

    def _plausible(self, error: BaseException, deferred: defer.Deferred[Any]) -> bool:
        if isinstance(error, defer.CancelledError):
            return deferred in self.cancelled or not self.service.running
        lost = (
            exceptions.AMQPConnectionError,
            exceptions.ChannelClosed,
            exceptions.ConsumerCancelled,
            PublishTimeout,
        )
        return isinstance(error, lost) and "unknown delivery tag" not in str(error)

    def advance(self, seconds: float) -> None:
        end = self.clock.seconds() + seconds
        self.clock.advance(0)
        while True:
            due = [call.getTime() for call in self.clock.getDelayedCalls()]
            if not due or min(due) > end:
                break
            self.clock.advance(max(0.0, min(due) - self.clock.seconds()))
        self.clock.advance(max(0.0, end - self.clock.seconds()))

    # Steps

    def body(self) -> bytes:
        self.numbers += 1
        return b"%d" % self.numbers

    def do_publish(self) -> None:
        body = self.body()
        key = self.chance.choice(("work", "work", "mine"))
        properties = pika.BasicProperties(delivery_mode=2)

        def confirmed(result: Any) -> Any:
            self.confirmed.add(body)
            return result

        deferred = self.publisher.publish("", key, body, properties)
        self.watch(deferred.addCallback(confirmed), f"publish {body!r}")

    def do_put(self) -> None:
        properties = pika.BasicProperties(delivery_mode=2)
        key = self.chance.choice(("work", "mine"))
        body = self.body()
        if self.broker.publish("", key, body, properties):
            self.confirmed.add(body)

    def do_get(self) -> None:
        if self.queue is not None:
            self.watch(self.queue.get().addCallback(self.held.append), "get")

    def do_ack(self) -> None:
        if self.held:
            message = self.held.pop(self.chance.randrange(len(self.held)))
            error = failure_of(message.ack)
            if error is None:
                self.acked.add(message.body)
            elif not isinstance(error, AlreadySettled):
                self.complaints.append(f"ack raised {error!r}")

    def do_declare(self) -> None:
        name = self.chance.choice(("work", "mine", "other"))
        self.watch(self.channel.queue_declare(name, durable=True), "declare")

    def do_cancel_call(self) -> None:
        if self.pending:
            deferred = self.chance.choice(list(self.pending))
            if self.pending[deferred] != "set up":
                self.cancelled.add(deferred)
                deferred.cancel()

    def do_cut(self) -> None:
        self.broker.cut(reset=self.chance.random() < 0.5)

    def do_restart(self) -> None:
        self.broker.restart()

    def do_close(self) -> None:
        for connection in list(self.broker.connections):
            connection.close(320)

    def do_close_channel(self) -> None:
        for connection in list(self.broker.connections):
            for channel in list(connection.channels.values()):
                if self.chance.random() < 0.3:
                    channel.close(self.chance.choice((404, 406)), late=self.chance.choice((0, 2)))

    def do_cancel(self) -> None:
        for connection in list(self.broker.connections):
            for channel in list(connection.channels.values()):
                for tag, consumer in channel.consumers.items():
                    if not consumer.unacked:  # RabbitMQ takes those back where it cancels
                        channel.cancel(tag)

    def do_refuse(self) -> None:
        methods = ("queue.declare", "basic.consume", "basic.qos", "channel.open", "confirm.select")
        self.broker.refuse(self.chance.choice(methods), self.chance.choice((404, 403, 506)))

    def do_down(self) -> None:
        self.broker.accepts = not self.broker.accepts

    def do_freeze(self) -> None:
        if self.broker.frozen:
            self.broker.thaw()
        else:
            self.broker.freeze()

    # The end

    def finish(self) -> None:
        self.healed = True
        self.broker.accepts = True
        self.broker.thaw()
        self.advance(300)
        ready: list[Any] = []
        self.service.when_ready().addBoth(ready.append)
        self.advance(1)
        if not ready:
            self.complaints.append("the service does not become ready")
        there = {m.body for name in ("work", "mine") for m in self._all_of(name)}
        lost = self.confirmed - there - self.handled - self.acked
        lost -= {
            each.body for each in self.broker.settled if each.outcome == "acked"
        } & self.handled
        if lost:
            self.complaints.append(f"confirmed, and lost: {sorted(lost)}")
        for each in self.broker.settled:
            if each.outcome == "acked" and each.body not in self.handled | self.acked:
                self.complaints.append(f"{each.body!r} was acked, and not handled")
        if self.handling is not None and self.handling.running and self._all_of("work"):
            self.complaints.append(f"not handled: {self._all_of('work')[:3]}")
        stopped: list[Any] = []
        self.service.stopService().addBoth(stopped.append)
        self.advance(60)
        if stopped != [None]:
            self.complaints.append(f"stopService() fired with {stopped}")
        self.broker.close()
        self.advance(1)
        if self.pending:
            self.complaints.append(f"never fired: {sorted(self.pending.values())}")
        if self.clock.getDelayedCalls():
            self.complaints.append(f"delayed calls are left: {self.clock.getDelayedCalls()}")

    def _all_of(self, name: str) -> list[Any]:
        queue = self.broker.queues.get(name)
        return [] if queue is None else [*queue.messages, *queue.unacked]


def run_service(seed: int, *, collect: bool = True, steps: int = 25) -> list[str]:
    """Run the program of a seed over a service; return what must not be.

    :param collect: look at what is left in memory, too: not before Twisted's log has begun, which
        keeps its first events, and the service is in them
    """
    with Log() as log:
        world = ServiceWorld(seed)
        try:
            for _ in range(steps):
                ops = _FAULTS if world.chance.random() < 0.2 else _CALLS
                getattr(world, f"do_{world.chance.choice(ops)}")()
                if world.chance.random() < 0.5:
                    world.advance(world.chance.choice((0, 0, 0.01, 1, 10, 100)))
            world.finish()
        except Spinning as error:
            world.complaints.append(f"it spins: {error}")
        complaints = world.complaints
        service = weakref.ref(world.service)
        del world
        if collect:
            gc.collect()
        if collect and service() is not None:
            complaints.append("still in memory: the service")
    return complaints + log.lines
