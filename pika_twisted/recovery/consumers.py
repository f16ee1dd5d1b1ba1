"""The consumers of a channel of a service: they go on when the channel is another one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pika import exceptions as pika_exceptions
from pika import spec
from twisted.internet import defer
from twisted.internet.task import deferLater

from pika_twisted._arguments import check_auto_ack, check_table
from pika_twisted._reasons import is_loss
from pika_twisted.channel.queue import ClosableDeferredQueue
from pika_twisted.deferreds.containers import OrderedSet

from .consumer import RecoveringConsumer
from .entities import EntityState, by_value, is_refusal

if TYPE_CHECKING:
    from .channel import RecoveringChannel

LOGGER = logging.getLogger("pika_twisted")


class ConsumerRefused(Exception):
    """The broker closed the channel for one of its consumers, which has been told."""


class Consumers:
    """Keeps the consumers of one `RecoveringChannel`, and subscribes them again.

    Those of which the broker may say no although their queue is there are subscribed on channels
    of their own: a refusal closes the channel, and with it every consumer on it.
    """

    def __init__(self, owner: RecoveringChannel) -> None:
        self._owner = owner
        self._service = owner.service
        self._by_tag: dict[str, RecoveringConsumer] = {}
        #: Consumers that the broker has not agreed to yet, each with who waits for its end.
        self._starting: dict[RecoveringConsumer, list[defer.Deferred[None]]] = {}
        #: Channels beside the owner's, each for a risky consumer.
        self._apart = OrderedSet()

    def __iter__(self) -> Any:
        return iter(list(self._by_tag.values()))

    @property
    def tags(self) -> list[str]:
        """The tags of the consumers that are not cancelled."""
        return list(self._by_tag)

    def consume_from(self, queue: str) -> bool:
        """Whether one consumes from this queue, or is going to."""
        name = self._service.recorder.current_name
        return any(name(each.queue_name) == queue for each in self._wanted())

    def _wanted(self) -> list[RecoveringConsumer]:
        return [each for each in (*self, *self._starting) if not each.ended]

    # Calls

    def consume(
        self,
        queue: str,
        auto_ack: bool,
        exclusive: bool,
        consumer_tag: str | None,
        arguments: dict[str, Any] | None,
    ) -> defer.Deferred[tuple[ClosableDeferredQueue, str]]:
        """As `RecoveringChannel.basic_consume()`."""
        try:
            check_auto_ack("basic_consume", auto_ack)
            check_table(arguments=arguments)
        except TypeError:
            return defer.fail()
        if consumer_tag and any(each.consumer_tag == consumer_tag for each in self._wanted()):
            return defer.fail(pika_exceptions.DuplicateConsumerTag(consumer_tag))
        consumer = RecoveringConsumer(
            self,
            queue,
            auto_ack,
            exclusive,
            consumer_tag,
            arguments,
            self._service.water_marks,
            self._service.reactor,
        )
        self._starting[consumer] = []

        def started(result: Any) -> Any:
            for waiter in self._starting.pop(consumer):
                waiter.callback(None)
            if consumer.abandoned:  # cancelled by its user when the broker had been asked
                self._service._on_consumer_ended(consumer.queue_name)
            return result

        return defer.Deferred.fromCoroutine(self._begin(consumer)).addBoth(started)

    async def _begin(self, consumer: RecoveringConsumer) -> tuple[ClosableDeferredQueue, str]:
        def subscribe(channel: Any) -> defer.Deferred[None]:
            return defer.Deferred.fromCoroutine(self._subscribe(channel, consumer))

        await self._owner._until_answered(subscribe, "basic_consume", spec.Basic.Consume)
        # The broker has answered both in order: this is what counted when the consumer began.
        consumer.qos = self._owner._qos.get(False)
        tag: Any = consumer.consumer_tag
        if consumer.ended:
            consumer.finish()
            self._service._on_consumer_ended(consumer.queue_name)
        else:
            self._by_tag[tag] = consumer
        return consumer.queue, tag

    def cancel(self, consumer_tag: str) -> defer.Deferred[Any]:
        """As `RecoveringChannel.basic_cancel()`."""
        consumer = self._by_tag.pop(consumer_tag, None)
        if consumer is None:
            return self._cancel_starting(consumer_tag)
        consumer.ended = True
        self._service._on_consumer_ended(consumer.queue_name)
        if not consumer.is_there:
            consumer.abandon()
            return defer.succeed(None)

        def lost(failure: Any) -> None:
            if not is_loss(failure.value):
                failure.raiseException()

        cancelling: defer.Deferred[Any] = consumer.channel.basic_cancel(consumer_tag)
        return cancelling.addErrback(lost)  # the channel ends the consumer, in any case

    def _cancel_starting(self, consumer_tag: str) -> defer.Deferred[None]:
        """Cancel one that is not there yet as soon as it is."""
        cancelled: defer.Deferred[None] = defer.succeed(None)
        for consumer, waiters in self._starting.items():
            if consumer.consumer_tag == consumer_tag:
                consumer.ended = True
                if self._owner.is_open:
                    cancelled = defer.Deferred()
                    waiters.append(cancelled)
        return cancelled

    # Subscribing again

    async def subscribe_all(self, channel: Any, connection: Any) -> None:
        """Subscribe what a new channel is to have; what the broker refuses is told, and left out.

        :param channel: a TwistedChannel that is set up, on which nothing is consumed yet
        :raises ConsumerRefused: the channel was closed for a consumer; the others need another one
        """
        wanted = [each for each in self if each.state is EntityState.RECORDED and not each.is_over]
        calm = [each for each in wanted if not each.is_risky]
        if len(calm) > 1:
            calm = await self._without_missing(connection, calm)
        await self._start_here(channel, calm)
        await self._start_all_apart(connection, [each for each in wanted if each.is_risky])

    async def _without_missing(
        self, connection: Any, consumers: Iterable[RecoveringConsumer]
    ) -> list[RecoveringConsumer]:
        """Ask for the queues of consumers that share a channel; refuse those that have none."""
        name = self._service.recorder.current_name
        consumers = list(consumers)
        names = {name(each.queue_name): None for each in consumers}
        missing = await self._service._recovery.missing_queues(connection, names)
        there = []
        for each in consumers:
            reason = missing.get(name(each.queue_name))
            if reason is None:
                there.append(each)
            else:
                self._refuse(each, reason)
        return there

    async def _start_here(self, channel: Any, consumers: list[RecoveringConsumer]) -> None:
        """Subscribe those with the same prefetch at once; the present one is set in the end."""
        present = now = self._owner._qos.get(False)
        groups: dict[Any, list[RecoveringConsumer]] = {}
        for consumer in consumers:
            groups.setdefault(by_value(consumer.qos or {}), []).append(consumer)
        for group in groups.values():
            if group[0].qos != now:
                now = group[0].qos
                await channel.basic_qos(**(now or {"prefetch_count": 0}))
            await self._start_group(channel, group)
        if now != present:
            await channel.basic_qos(**(present or {"prefetch_count": 0}))

    async def _start_group(self, channel: Any, group: list[RecoveringConsumer]) -> None:
        starting = [defer.Deferred.fromCoroutine(self._alone(channel, each)) for each in group]
        refusal: BaseException | None = None
        results: Any = await defer.DeferredList(starting, consumeErrors=True)
        for each, (succeeded, result) in zip(group, results, strict=True):
            if succeeded:
                continue
            if refusal is None:  # answered in their order: the first is the culprit
                refusal = result.value
                self._on_failed(each, result.value)
            else:
                each.on_lost()
        if refusal is not None:
            if is_refusal(refusal):
                raise ConsumerRefused() from refusal
            raise refusal

    def _on_failed(self, consumer: RecoveringConsumer, why: BaseException) -> None:
        """A Basic.Consume failed: the broker said no, or the connection is lost."""
        if is_refusal(why):
            self._refuse(consumer, why)
        elif consumer.suspect.is_guilty:
            # Each attempt would end the connection, for all the others.
            LOGGER.error("The broker closed the connection for %s, which ends: %s", consumer, why)
            self._service._events.tell("refused", consumer.status(), why)
            consumer.finish(why)
            self.forget(consumer)
        else:
            consumer.on_lost()

    def _refuse(self, consumer: RecoveringConsumer, reason: BaseException) -> None:
        self._service._recovery.refuse(consumer, reason)

    async def _start_all_apart(
        self, connection: Any, consumers: Iterable[RecoveringConsumer]
    ) -> None:
        starting = [
            defer.Deferred.fromCoroutine(self.start_apart(connection, each)) for each in consumers
        ]
        results: Any = await defer.DeferredList(starting, consumeErrors=True)
        for succeeded, result in results:
            if not succeeded:
                result.raiseException()

    async def start_apart(self, connection: Any, consumer: RecoveringConsumer) -> None:
        """Subscribe a consumer on a channel of its own; a refusal is told, and does not raise."""
        channel = await connection.channel()
        self._apart.add(channel)
        channel.add_on_close_callback(lambda *_: self._apart.discard(channel))
        try:
            await self._owner._set_up(channel)
            if consumer.qos != self._owner._qos.get(False):
                await channel.basic_qos(**(consumer.qos or {"prefetch_count": 0}))
            await self._alone(channel, consumer)
        except (Exception, asyncio.CancelledError) as why:
            self._on_failed(consumer, why)
            if channel.is_open:
                channel.close()
            if not is_refusal(why):
                raise
        else:
            if consumer.is_over and channel.is_open:
                channel.close()

    async def retry(self, connection: Any, consumer: RecoveringConsumer) -> None:
        """Subscribe one that the broker has refused."""
        if consumer.is_over:
            self.forget(consumer)
            return
        recovery = self._service._recovery
        if getattr(consumer.reason, "reply_code", 0) == spec.NOT_FOUND:
            await recovery.declare_for(connection, [consumer.queue_name])
        if consumer.state is EntityState.REFUSED and not consumer.is_over:
            await self.start_apart(connection, consumer)

    async def _alone(self, channel: Any, consumer: RecoveringConsumer) -> None:
        """Subscribe a consumer, after other suspects if it is one."""
        await self._service._suspects.ask(
            consumer.suspect, channel.connection, lambda: self._subscribe(channel, consumer)
        )

    async def _subscribe(self, channel: Any, consumer: RecoveringConsumer) -> None:
        if consumer.is_over:
            consumer.ended = True
            self.forget(consumer)
            return
        name = self._service.recorder.current_name(consumer.queue_name)
        consumer.queue_name = name
        recorder = self._service.recorder
        consumer.queue.may_be_stream = name not in recorder.queues
        if recorder.is_stream(name):
            consumer.queue.follows_stream = True
        await consumer.start_on(channel)
        if not consumer.is_over:
            if channel.is_open:
                self._service._recovery.on_answered(consumer, None)
        elif not consumer.abandoned:
            await channel.basic_cancel(consumer.consumer_tag)

    # Ends

    def forget(self, consumer: RecoveringConsumer) -> None:
        """Note that a consumer has ended for good."""
        consumer.end()
        if self._by_tag.get(consumer.consumer_tag or "") is consumer:
            del self._by_tag[consumer.consumer_tag or ""]
            self._service._on_consumer_ended(consumer.queue_name)

    def on_dropped(self, messages: int) -> None:
        """Count messages that are delivered again."""
        self._service._totals.dropped += messages

    def on_channel_lost(self, consumer: RecoveringConsumer, reason: BaseException) -> None:
        """Note that the channel of a consumer is gone; the owner's next one has it again."""
        connection = self._service.connection
        alone = consumer.channel in self._apart
        if alone and connection is not None and connection.is_open:
            self._refuse(consumer, reason)
            self._owner._tell_closed(reason)

    def on_cancelled(self, consumer: RecoveringConsumer, reason: BaseException) -> None:
        """The broker cancelled a consumer: its queue is gone, has moved, or lost patience."""
        self._service._events.tell("consumer cancelled", consumer.consumer_tag, reason)
        LOGGER.warning("The broker cancelled %s; subscribing again", consumer)
        self._service._run(self._come_back(consumer, consumer.channel))

    async def _come_back(self, consumer: RecoveringConsumer, channel: Any) -> None:
        service = self._service
        now = service.reactor.seconds()
        await deferLater(service.reactor, consumer.backoff.fail(now))
        connection = service.connection

        def is_ours() -> bool:  # else another channel does it, or it has ended
            return bool(
                channel.is_open and consumer.state is EntityState.RECORDED and not consumer.is_over
            )

        if not is_ours():
            return
        try:
            await service._recovery.declare_for(connection, [consumer.queue_name])
            there = is_ours() and await self._without_missing(connection, [consumer])
            if not there or not is_ours():
                return
            if consumer.is_risky or consumer.channel in self._apart:
                await self.start_apart(connection, consumer)
            else:
                await self._subscribe_as_before(channel, consumer)
        except (Exception, asyncio.CancelledError) as why:
            if is_refusal(why) and consumer.state in (EntityState.RECOVERING, EntityState.RECORDED):
                self._refuse(consumer, why)
            elif self._owner._closed is None and channel.is_open:
                service._events.tell("recovery failed", why)
                self._refuse(consumer, why)
            elif consumer.state is EntityState.RECOVERING:  # lost: the next channel has it
                self._on_failed(consumer, why)

    async def _subscribe_as_before(self, channel: Any, consumer: RecoveringConsumer) -> None:
        """Subscribe on a channel in use, with the qos that the consumer began with."""
        own, present = consumer.qos, self._owner._qos.get(False)
        # RabbitMQ 4.3 keeps the tag of a consumer that it cancels for its delivery timeout.
        asked = [channel.basic_cancel(consumer.consumer_tag)]
        # Sent at once: no other call comes in between, and gets the wrong prefetch.
        if own != present:
            asked.append(channel.basic_qos(**(own or {"prefetch_count": 0})))
        asked.append(defer.Deferred.fromCoroutine(self._subscribe(channel, consumer)))
        if own != present:
            asked.append(channel.basic_qos(**(present or {"prefetch_count": 0})))
        for succeeded, result in await defer.DeferredList(asked, consumeErrors=True):
            if not succeeded:
                result.raiseException()

    def end_those_of(self, queue: str) -> None:
        """Note that a queue was deleted by this client."""
        for consumer in self:
            if consumer.queue_name == queue:
                consumer.finish()
                self.forget(consumer)

    def finish(self) -> None:
        """End all of them: the channel is closed for good."""
        for consumer in self:
            consumer.finish()
            self.forget(consumer)
        for channel in self._apart.take():
            if channel.is_open:
                channel.close()
