"""A consumer that outlives its channel: its queue object stays, the rest is made anew."""

from __future__ import annotations

import copy
from typing import Any

from pika import exceptions as pika_exceptions

from pika_twisted.channel.consumer import Consumer
from pika_twisted.channel.water_marked_queue import WaterMarkedQueue
from pika_twisted.transport.read_gate import WaterMarks

#: For a service without water marks.
_NEVER = WaterMarks(1 << 62, 1 << 61, 1 << 62, 1 << 61)

_OFFSET = "x-stream-offset"


class LastingQueue(WaterMarkedQueue):
    """The queue object of a recovering consumer; one channel after the other fills it."""

    def __init__(self, marks: WaterMarks | None) -> None:
        super().__init__(None, marks or _NEVER)  # type: ignore[arg-type]
        #: For a stream: the last message that came.
        self.follows_stream = False
        self.last: Any = None

    def wake(self) -> None:
        """As in the base class."""
        if self.follows_stream and self.pending:
            self.last = self.pending[-1]
        super().wake()

    def attach(self, gate: Any) -> None:
        """The connection that fills it from now on, perhaps the same as until now."""
        self.detach()
        self._gate = gate
        if self.pending:
            self.wake()

    def detach(self) -> None:
        """Nothing comes for now: no connection has to be paused for it."""
        if self._full:
            self._full = False
            self._gate.queue_has_room(self)


class Subscription:
    """What a service knows about one consumer."""

    def __init__(
        self,
        owner: Any,
        queue_name: str,
        auto_ack: bool,
        exclusive: bool,
        consumer_tag: str | None,
        arguments: dict[str, Any] | None,
        marks: WaterMarks | None,
    ) -> None:
        self.owner = owner
        self.queue_name = queue_name
        self.auto_ack = auto_ack
        self.exclusive = exclusive
        self.consumer_tag = consumer_tag
        self.arguments = copy.deepcopy(arguments or {})
        self.queue = LastingQueue(marks)
        self.queue.follows_stream = _OFFSET in self.arguments
        #: Nobody wants it any more: cancelled, or its queue deleted, by this client.
        self.ended = False
        #: What was set for each new consumer when it began; None: nothing.
        self.qos: dict[str, Any] | None = None
        #: The TwistedChannel that it was begun on last.
        self.channel: Any = None
        self._consumer: Consumer | None = None

    def __repr__(self) -> str:
        return f"<Subscription {self.consumer_tag} to {self.queue_name!r}>"

    async def start_on(self, channel: Any) -> None:
        """Consume on this TwistedChannel."""
        self.channel = channel
        self._consumer = consumer = Consumer(
            channel, self.queue, self.auto_ack, channel._requeue, channel._cancel_consumer
        )
        consumer.on_end = self._on_end
        self.queue.attach(channel._channel.connection.gate)
        _queue, self.consumer_tag = await channel._start_consumer(
            consumer, self.queue_name, self.exclusive, self.consumer_tag, self.arguments or None
        )

    @property
    def is_there(self) -> bool:
        """Whether the broker has agreed to it, on a channel that is open."""
        channel = self.channel
        if channel is None or not channel.is_open:
            return False
        return channel._details.get(self.consumer_tag) is self._consumer

    @property
    def abandoned(self) -> bool:
        """Whether its channel cancels it, and gives back what comes, when the broker agrees."""
        return self._consumer is not None and self._consumer.abandoned

    def abandon(self) -> None:
        """End it before it is there."""
        if self._consumer is not None:
            self._consumer.abandoned = True
        self.end()

    def end(self, reason: BaseException | None = None) -> None:
        """Nothing more comes: the queue hands out what it has and ends, or fails."""
        self.ended = True
        if self.queue.closed is None:
            if reason is None:
                self.queue.close(pika_exceptions.ConsumerCancelled(), end=True)
            else:
                self.queue.close(reason)

    def _on_end(
        self, reason: BaseException, *, deliverable: bool | None = None, end: bool = False
    ) -> None:
        """The consumer is gone at the broker, or with its channel."""
        if end or self.ended or self.queue.closed is not None:
            self.end(None if end or isinstance(reason, pika_exceptions.ChannelClosed) else reason)
            self.owner.forget(self)
        elif deliverable is None:
            self.owner.on_consumer_cancelled(self, reason)
        else:
            self._on_channel_lost()

    def _on_channel_lost(self) -> None:
        """Keep what only we have; drop what the broker delivers again."""
        queue = self.queue
        if queue.follows_stream:
            first = queue.pending[0] if queue.pending else None
            self._continue_at(first, queue.last)
        if not self.auto_ack or queue.follows_stream:
            self.owner.service.dropped += len(queue.drain())
        queue.detach()

    def _continue_at(self, first: Any, last: Any) -> None:
        """Resume a stream at the first message nobody has taken, else behind the last."""
        for message, step in ((first, 0), (last, 1)):
            if message is not None:
                try:
                    offset = (message.properties.headers or {}).get(_OFFSET)
                except pika_exceptions.AMQPError:  # headers that can't be decoded
                    continue
                if isinstance(offset, int):
                    self.arguments[_OFFSET] = offset + step
                    return
