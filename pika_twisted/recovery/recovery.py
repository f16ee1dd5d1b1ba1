"""Asking a connection for what was recorded, and again for what its broker refused."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any

from twisted.internet import defer

from pika_twisted._reasons import is_hard_error
from pika_twisted.deferreds.containers import OrderedSet

from .consumer import RecoveringConsumer
from .declaring import Asking
from .entities import Entity, EntityState, Queue, QueueBinding, QueueCheck
from .events import Events
from .recorder import Recorder

if TYPE_CHECKING:
    from pika_twisted.protocol import TwistedProtocolConnection

LOGGER = logging.getLogger("pika_twisted")

#: Called with a connection and a consumer that was refused on it, to subscribe it.
Subscribe = Callable[[Any, RecoveringConsumer], Coroutine[Any, Any, None]]


class Recovery:
    """Keeps each recorded entity at the broker, as far as the broker agrees.

    :param reactor: for its clock
    :param events: is told what is refused, restored and renamed
    :param run: runs a coroutine that the end of the service cancels
    :param subscribe: subscribes a consumer that was refused
    """

    def __init__(
        self,
        reactor: Any,
        events: Events,
        run: Callable[[Coroutine[Any, Any, None]], None],
        subscribe: Subscribe,
    ) -> None:
        self.recorder = Recorder()
        #: Called for each answer of the broker, with what is under way.
        self.on_progress: Callable[[str], Any] = lambda _doing: None
        self._reactor = reactor
        self._events = events
        self._run = run
        self._subscribe = subscribe
        self._connection: TwistedProtocolConnection | None = None
        self._refused = OrderedSet()
        self._timer: Any = None
        # One after the other: two at once would each find a queue missing, and have it named.
        self._declaring = defer.DeferredLock()

    # A connection

    async def declare_on(self, connection: TwistedProtocolConnection) -> None:
        """Declare everything on a new connection.

        :raises AMQPConnectionError: the connection was lost
        """
        for queue in self.recorder.queues.values():
            queue.prepare(new_connection=True)
        asking = Asking(connection, self._on_refused, self._on_answered)
        await asking.open()
        await self._ask(asking, list(self.recorder))

    def begin(self, connection: TwistedProtocolConnection) -> None:
        """Note that a connection is in use: what it refused is asked for again."""
        self._connection = connection
        for entity in self._refused:
            entity.sits_out = False
        self._schedule()

    def end(self) -> None:
        """Note that the connection in use is lost, or the attempt at one has failed."""
        self._connection = None
        self._stop_timer()
        for entity in self.recorder:
            entity.on_lost()
        for entity in list(self._refused):
            if isinstance(entity, RecoveringConsumer):  # its channel subscribes it anew
                entity.on_lost()
                self._refused.discard(entity)

    def forget(self) -> None:
        """Forget everything: the service has stopped."""
        self.end()
        self._refused = OrderedSet()
        recorder, self.recorder = self.recorder, Recorder()
        recorder.end()

    # On a connection that is in use

    async def declare_everything(self, connection: Any) -> None:
        """Declare everything once more."""
        await self._declare_again(connection, lambda: list(self.recorder))

    async def declare_for(self, connection: Any, queues: Iterable[str]) -> None:
        """Declare once more what these queues need, by whichever of their names."""
        names = list(queues)

        def needed() -> list[Entity]:
            return self.recorder.needed_by(map(self.recorder.current_name, names))

        if needed():
            await self._declare_again(connection, needed)

    async def _declare_again(self, connection: Any, wanted: Callable[[], list[Entity]]) -> None:
        async def declare() -> None:
            entities = wanted()
            for each in entities:
                if isinstance(each, Queue):
                    each.prepare(new_connection=False)
            await self._ask(Asking(connection, self._on_refused, self._on_answered), entities)

        await self._declaring.run(lambda: defer.Deferred.fromCoroutine(declare()))

    async def missing_queues(
        self, connection: Any, names: Iterable[str]
    ) -> dict[str, BaseException]:
        """Return those of these queues that can't be consumed from, each with the reason."""
        declared = self.recorder.queues
        checks = [
            QueueCheck(name)
            for name in names
            if name not in declared or declared[name].state is not EntityState.DECLARED
        ]
        asking = Asking(connection, self._on_refused, self._on_answered)
        try:
            await asking.ask(checks)
        finally:
            asking.close()
        return {each.name: each.reason for each in checks if each.reason is not None}

    def quiet(self) -> defer.Deferred[None]:
        """Return a Deferred that fires when nothing is being declared on the connection in use."""
        return self._declaring.run(lambda: None)

    async def _ask(self, asking: Asking, entities: list[Entity]) -> None:
        wanted = [each for each in entities if not each.sits_out]
        try:
            await asking.ask(each for each in wanted if not isinstance(each, QueueBinding))
            # Last: by now the queues that the broker names have their names.
            await asking.ask(each for each in wanted if isinstance(each, QueueBinding))
        finally:
            asking.close()
            self._schedule()

    # Answers

    def note(self, method: str, arguments: dict[str, Any], answer: Any) -> None:
        """Record a call that was answered by the broker."""
        before = list(self._refused)
        self.recorder.note(method, arguments, answer)
        for entity in before:
            if entity.state is EntityState.DECLARED:
                self._restored(entity)
            elif entity.state is EntityState.GONE:
                self._refused.discard(entity)

    def on_answered(self, entity: Entity, answer: Any) -> None:
        """Note that the broker has an entity."""
        entity.on_answered(answer)
        self._restored(entity)

    def _restored(self, entity: Entity) -> None:
        if entity not in self._refused:
            return
        self._refused.discard(entity)
        LOGGER.info("Restored: %s", entity)
        self._events.tell("restored", entity.status())

    def _on_answered(self, entity: Entity, answer: Any) -> None:
        self.on_progress(f"declaring {entity}")
        old = entity.name if isinstance(entity, Queue) else None
        self.on_answered(entity, answer)
        if isinstance(entity, Queue) and old is not None and entity.state is not EntityState.GONE:
            now = answer.method.queue
            if now != old:
                self.recorder.rename(entity, now)
                self._events.tell("queue renamed", old, now)

    def refuse(self, entity: Entity, reason: BaseException) -> None:
        """Note that the broker said no to an entity, and ask again later."""
        self._on_refused(entity, reason)
        self._schedule()

    def _on_refused(self, entity: Entity, reason: BaseException) -> bool:
        known = str(entity.reason)
        if entity.on_refused(reason, self._reactor.seconds()):
            return True
        if entity.state is not EntityState.REFUSED or isinstance(entity, QueueCheck):
            return False
        if is_hard_error(reason):
            entity.sits_out, entity.due = True, None
        self._refused.add(entity)
        if known != str(reason):
            when = "with the next connection" if entity.due is None else "from time to time"
            LOGGER.error("Refused: %s: %s; asking again %s", entity, reason, when)
            self._events.tell("refused", entity.status(), reason)
        return False

    # What was refused, once its pause is over

    def _schedule(self) -> None:
        self._stop_timer()
        dues = [entity.due for entity in self._refused if entity.due is not None]
        if self._connection is not None and dues:
            pause = max(0.0, min(dues) - self._reactor.seconds())
            self._timer = self._reactor.callLater(pause, self._on_due)

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def _on_due(self) -> None:
        self._timer = None
        self._run(self._ask_again())

    async def _ask_again(self) -> None:
        connection = self._connection
        if connection is None or not connection.is_open:
            return
        try:
            await self._declare_again(connection, self._take_due)
            if connection is self._connection:
                await self._subscribe_due(connection)
        except (Exception, asyncio.CancelledError) as why:  # the connection is lost, or ends
            LOGGER.debug("Asking again was cut off: %s", why)
        if connection is self._connection:
            self._schedule()

    def _take_due(self) -> list[Entity]:
        """Return what is due, with what was refused because that was missing."""
        now = self._reactor.seconds()
        due = {each for each in self._refused if each.due is not None and each.due <= now + 0.001}
        for entity in list(due):
            due.update(each for each in self.recorder.bound_to(entity) if each in self._refused)
        names = {each.name for each in due if isinstance(each, Queue)}
        for each in self._refused:
            if isinstance(each, RecoveringConsumer) and each.queue_name in names:
                each.due = now
        return [each for each in self.recorder if each in due]

    async def _subscribe_due(self, connection: Any) -> None:
        now = self._reactor.seconds()
        due = [
            each
            for each in self._refused
            if isinstance(each, RecoveringConsumer) and each.due is not None and each.due <= now
        ]
        subscribing = []
        for consumer in due:
            consumer.due = None  # under way
            retrying = self._subscribe(connection, consumer)
            subscribing.append(defer.Deferred.fromCoroutine(retrying))
        await defer.DeferredList(subscribing, consumeErrors=True)
        for consumer in due:
            if consumer.state is EntityState.GONE:
                self._refused.discard(consumer)
