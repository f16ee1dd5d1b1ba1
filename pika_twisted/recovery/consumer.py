"""A consumer that outlives its channel: its queue object stays, the rest is made anew."""

from __future__ import annotations

import copy
import time
from datetime import datetime, timezone
from typing import Any, Protocol

from pika import exceptions as pika_exceptions
from pika import spec

from pika_twisted.channel.consumer import Consumer
from pika_twisted.channel.queue import End
from pika_twisted.transport.read_gate import WaterMarks

from .entities import Entity, EntityState
from .lasting_queue import OFFSET, LastingQueue
from .suspects import Suspect

#: Seconds before the subscription from which a stream is read that was to begin with "next", when
#: the connection was lost before its first message: clocks differ, and AMQP counts whole seconds.
_MARGIN = 2


class Owner(Protocol):
    """What a consumer tells of its end."""

    def forget(self, consumer: RecoveringConsumer) -> None:
        """It has ended for good."""

    def on_cancelled(self, consumer: RecoveringConsumer, reason: BaseException) -> None:
        """The broker cancelled it."""

    def on_channel_lost(self, consumer: RecoveringConsumer, reason: BaseException) -> None:
        """The channel that it was on is gone."""

    def on_dropped(self, messages: int) -> None:
        """So many messages were dropped, to be delivered again."""

    async def retry(self, connection: Any, consumer: RecoveringConsumer) -> None:
        """Subscribe it, which the broker has refused."""


class RecoveringConsumer(Entity):
    """What a service knows about one consumer."""

    kind = "consumer"

    def __init__(
        self,
        owner: Owner,
        queue_name: str,
        auto_ack: bool,
        exclusive: bool,
        consumer_tag: str | None,
        arguments: dict[str, Any] | None,
        marks: WaterMarks | None,
        reactor: Any,
    ) -> None:
        super().__init__()
        self.owner = owner
        self.queue_name = queue_name
        self.auto_ack = auto_ack
        self.exclusive = exclusive
        self.consumer_tag = consumer_tag
        self.arguments = copy.deepcopy(arguments or {})
        self.queue = LastingQueue(marks, OFFSET in self.arguments)
        #: It has ended: cancelled, or its queue deleted, by this client.
        self.ended = False
        #: What was set for each new consumer when it began; None: nothing.
        self.qos: dict[str, Any] | None = None
        #: The TwistedChannel that it was begun on last.
        self.channel: Any = None
        self._reactor = reactor
        self._consumer: Consumer | None = None
        #: Whether the broker closes the connection for it.
        self.suspect = Suspect(spec.Basic.Consume)
        self._was_refused = False
        self._begun: float | None = None

    def __str__(self) -> str:
        return f"consumer {self.consumer_tag!r} of queue {self.queue_name!r}"

    def __repr__(self) -> str:
        return f"<RecoveringConsumer {self.consumer_tag} to {self.queue_name!r}>"

    # States

    @property
    def is_over(self) -> bool:
        """Whether it is not to be subscribed any more."""
        return self.ended or self.queue.closed is not None

    @property
    def is_there(self) -> bool:
        """Whether the broker has agreed to it, on a channel that is open."""
        return self.state is EntityState.DECLARED and bool(self.channel.is_open)

    @property
    def is_risky(self) -> bool:
        """Whether the broker may refuse it although its queue is there.

        Such a one is subscribed on a channel of its own: a refusal closes the channel.
        """
        doubtful = self._was_refused or self.suspect.is_suspected
        return self.exclusive or doubtful or self.queue.looks_like_stream

    def on_answered(self, answer: Any) -> None:
        """As in the base class."""
        self.state = EntityState.DECLARED
        self.reason = self.due = None
        self.refusals = 0
        self._was_refused = self.suspect.is_suspected = False
        self.backoff.succeed(self._reactor.seconds())

    def on_refused(self, reason: BaseException, now: float) -> bool:
        """As in the base class."""
        self._was_refused = True
        if self.queue.looks_like_stream:
            # Its messages had the header of the stream that they were once read from.
            self.queue.forget_stream()
            self.arguments.pop(OFFSET, None)
        return super().on_refused(reason, now)

    def on_lost(self) -> None:
        """As in the base class; a new connection is asked anew."""
        if self.state is not EntityState.GONE:
            self.state = EntityState.RECORDED
            self.due = None

    # Subscribing

    async def start_on(self, channel: Any) -> None:
        """Consume on this TwistedChannel."""
        self.channel = channel
        self.state = EntityState.RECOVERING
        self._consumer = consumer = Consumer(
            channel, self.queue, self.auto_ack, channel._requeue, channel._cancel_consumer
        )
        consumer.on_end = self._on_end
        self.queue.attach(channel._channel.connection.gate)
        _queue, self.consumer_tag = await channel._start_consumer(
            consumer, self.queue_name, self.exclusive, self.consumer_tag, self.arguments or None
        )
        if self._begun is None:
            self._begun = time.time()  # a date for the broker: no reactor's clock has one

    @property
    def abandoned(self) -> bool:
        """Whether its channel cancels it, and gives back what comes, when the broker agrees."""
        return self._consumer is not None and self._consumer.abandoned

    def abandon(self) -> None:
        """End it before it is there."""
        if self._consumer is not None:
            self._consumer.abandoned = True
        self.finish()

    # The end

    def finish(self, reason: BaseException | None = None) -> None:
        """End it for good: the queue hands out what it has and ends, or fails with `reason`."""
        self.ended = True
        self.end()
        if self.queue.closed is None:
            if reason is None:
                self.queue.close(pika_exceptions.ConsumerCancelled(), end=True)
            else:
                self.queue.close(reason)

    def _on_end(self, reason: BaseException, how: End) -> None:
        """The consumer is gone at the broker, or with its channel."""
        end = how is End.CANCELLED
        if end or self.is_over:
            closed = isinstance(reason, pika_exceptions.ChannelClosed)
            self.finish(None if end or closed else reason)
            self.owner.forget(self)
            return
        if self.state is EntityState.DECLARED:
            self.state = EntityState.RECORDED
        self._drop()
        if how is End.BY_BROKER:
            self.owner.on_cancelled(self, reason)
        else:
            self.owner.on_channel_lost(self, reason)

    def _drop(self) -> None:
        """Keep what only we have; drop what the broker delivers again."""
        queue = self.queue
        if queue.follows_stream:
            self._continue_stream()
        if not self.auto_ack or queue.follows_stream:
            self.owner.on_dropped(len(queue.drain()))
        queue.detach()

    def _continue_stream(self) -> None:
        """Resume behind the last message that was handed out."""
        offset = self.queue.next_offset()
        if offset is not None:
            self.arguments[OFFSET] = offset
        elif self.arguments.get(OFFSET, "next") == "next" and self._begun is not None:
            begun = int(self._begun) - _MARGIN
            self.arguments[OFFSET] = datetime.fromtimestamp(begun, timezone.utc)
