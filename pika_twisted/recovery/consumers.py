"""Consuming on a channel of a service: the consumers go on when the channel is another one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pika import exceptions as pika_exceptions
from twisted.internet import defer

from pika_twisted._arguments import check_auto_ack, check_table
from pika_twisted._reasons import is_loss
from pika_twisted.channel.queue import ClosableDeferredQueue

from .subscription import Subscription


class Consuming:
    """The part of `RecoveringChannel` that keeps its consumers."""

    service: Any
    current: Any
    _last_declared: str
    _qos: dict[bool, dict[str, Any]]
    _until_answered: Callable[..., Any]
    _retry: Callable[..., None]

    def __init__(self) -> None:
        self._subscriptions: dict[str, Subscription] = {}
        #: Consumers that the broker has not agreed to yet, each with who waits for its end.
        self._starting: dict[Subscription, list[defer.Deferred[None]]] = {}

    @property
    def is_open(self) -> bool:
        """Whether a call would leave now."""
        raise NotImplementedError

    @property
    def consumer_tags(self) -> list[str]:
        """The consumers that are not cancelled."""
        return list(self._subscriptions)

    def consumes_from(self, queue: str) -> bool:
        """Whether there is a consumer of this queue, or is going to be."""
        name = self.service.recorder.current_name
        return any(name(each.queue_name) == queue for each in self._wanted())

    def _wanted(self) -> list[Subscription]:
        return [each for each in (*self.subscriptions, *self._starting) if not each.ended]

    @property
    def subscriptions(self) -> list[Subscription]:
        """What is consumed here."""
        return list(self._subscriptions.values())

    def basic_consume(
        self,
        queue: str,
        auto_ack: bool = False,
        exclusive: bool = False,
        consumer_tag: str | None = None,
        arguments: dict[str, Any] | None = None,
    ) -> defer.Deferred[tuple[ClosableDeferredQueue, str]]:
        """Fires with `(queue_object, consumer_tag)`. Both stay valid on the next connections.

        When a connection is lost, messages that wait in the queue object are dropped, because they
        are delivered again; those of an auto_ack consumer stay. A stream that is consumed with
        "x-stream-offset", or was declared on this service's channels, is continued behind the last
        message that was handed out.

        It fails with DuplicateConsumerTag when another consumer of this channel has the tag, also
        one that waits to come back.
        """
        try:
            check_auto_ack("basic_consume", auto_ack)
            check_table(arguments=arguments)
        except TypeError:
            return defer.fail()
        if consumer_tag and any(each.consumer_tag == consumer_tag for each in self._wanted()):
            return defer.fail(pika_exceptions.DuplicateConsumerTag(consumer_tag))
        subscription = Subscription(
            self,
            queue or self._last_declared,
            auto_ack,
            exclusive,
            consumer_tag,
            arguments,
            self.service.water_marks,
        )
        self._starting[subscription] = []

        def started(result: Any) -> Any:
            for waiter in self._starting.pop(subscription):
                waiter.callback(None)
            if subscription.abandoned:  # cancelled by its user when the broker had been asked
                self.service.on_consumer_ended(subscription.queue_name)
            return result

        return defer.Deferred.fromCoroutine(self._consume(subscription)).addBoth(started)

    async def _consume(self, subscription: Subscription) -> tuple[ClosableDeferredQueue, str]:
        await self._until_answered(lambda channel: self._subscribe(channel, subscription))
        # The broker has answered both in order: this is what counted when the consumer began.
        subscription.qos = self._qos.get(False)
        tag: Any = subscription.consumer_tag
        if subscription.ended:
            subscription.end()
            self.service.on_consumer_ended(subscription.queue_name)
        else:
            self._subscriptions[tag] = subscription
        return subscription.queue, tag

    async def _subscribe_all(self, channel: Any) -> None:
        for subscription in self.subscriptions:
            await self._subscribe_as_before(channel, subscription)

    async def _subscribe_as_before(self, channel: Any, subscription: Subscription) -> None:
        """Subscribe with the qos that the consumer began with, which may not be the present one."""
        own, present = subscription.qos, self._qos.get(False)
        if own == present:
            await self._subscribe(channel, subscription)
            return
        # Sent at once: no other call comes in between, and gets the wrong one.
        asked = [
            channel.basic_qos(**(own or {"prefetch_count": 0})),
            defer.Deferred.fromCoroutine(self._subscribe(channel, subscription)),
            channel.basic_qos(**self._qos[False]),
        ]
        for succeeded, result in await defer.DeferredList(asked, consumeErrors=True):
            if not succeeded:
                result.raiseException()

    async def _subscribe(self, channel: Any, subscription: Subscription) -> None:
        if subscription.ended or subscription.queue.closed is not None:
            subscription.ended = True
            self.forget(subscription)
            return
        name = self.service.recorder.current_name(subscription.queue_name)
        subscription.queue_name = name
        if self.service.recorder.is_stream(name):
            subscription.queue.follows_stream = True
        await subscription.start_on(channel)
        unwanted = subscription.ended or subscription.queue.closed is not None
        if unwanted and not subscription.abandoned:
            await channel.basic_cancel(subscription.consumer_tag)

    def basic_cancel(self, consumer_tag: str = "") -> defer.Deferred[Any]:
        """Fires when the consumer is cancelled; also while there is no connection."""
        subscription = self._subscriptions.pop(consumer_tag, None)
        if subscription is None:
            return self._cancel_starting(consumer_tag)
        subscription.ended = True
        self.service.on_consumer_ended(subscription.queue_name)
        if not subscription.is_there:
            subscription.abandon()
            return defer.succeed(None)

        def lost(failure: Any) -> None:
            if not is_loss(failure.value):
                failure.raiseException()

        cancelling: defer.Deferred[Any] = subscription.channel.basic_cancel(consumer_tag)
        return cancelling.addErrback(lost)  # the channel ends the subscription, in any case

    def _cancel_starting(self, consumer_tag: str) -> defer.Deferred[None]:
        """One that is not there yet is cancelled as soon as it is."""
        cancelled: defer.Deferred[None] = defer.succeed(None)
        for subscription, waiters in self._starting.items():
            if subscription.consumer_tag == consumer_tag:
                subscription.ended = True
                if self.is_open:
                    cancelled = defer.Deferred()
                    waiters.append(cancelled)
        return cancelled

    def forget(self, subscription: Subscription) -> None:
        """A subscription has ended."""
        if self._subscriptions.get(subscription.consumer_tag or "") is subscription:
            del self._subscriptions[subscription.consumer_tag or ""]
            self.service.on_consumer_ended(subscription.queue_name)

    def on_consumer_cancelled(self, subscription: Subscription, reason: BaseException) -> None:
        """The broker cancelled a consumer: its queue was deleted, or moved to another node."""
        self.service.tell("consumer cancelled", subscription.consumer_tag, reason)
        self._retry(self._subscribe_again, subscription.channel, subscription)

    async def _subscribe_again(self, channel: Any, subscription: Subscription) -> bool:
        if not channel.is_open or subscription.ended:
            return True  # another channel does it, or nobody wants it
        await self.service.declare_again()
        if channel.is_open and not subscription.ended:
            await self._subscribe_as_before(channel, subscription)
        return True

    def _on_queue_deleted(self, method_frame: Any, queue: str) -> Any:
        recorder = self.service.recorder
        self.service.end_subscriptions(recorder.current_name(queue or self._last_declared))
        return method_frame

    def _end_consumers(self) -> None:
        for subscription in self.subscriptions:
            subscription.end()
            self.forget(subscription)
