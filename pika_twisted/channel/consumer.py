"""One consumer of a channel, from Basic.Consume until nothing more can come for it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from pika_twisted.codec.errors import UndecodableProperties
from pika_twisted.deferreds.lazy import Waker

from .queue import ClosableDeferredQueue, End, ReceivedMessage, stock_wake

LOGGER = logging.getLogger("pika_twisted")

#: A backlog worth a warning: some 50 MB of small messages.
LARGE_BACKLOG = 100_000


def is_of_stream(properties: Any) -> bool:
    """Whether these are the properties of a message that a stream delivered."""
    try:
        headers = properties.headers
    except UndecodableProperties:
        return False
    return isinstance(headers, dict) and "x-stream-offset" in headers


class Consumer(Waker):  # pyright: ignore[reportGeneralTypeIssues]
    """Puts what the broker delivers into a queue; gives it back when the consumer was abandoned.

    `stop` is called at most once, with this consumer, when it has to be cancelled at the broker
    although `basic_cancel()` was not called: its user closed the queue.
    """

    def __init__(
        self,
        channel: Any,
        queue: ClosableDeferredQueue,
        auto_ack: bool,
        requeue: Callable[[int], Any],
        stop: Callable[[Consumer], Any],
    ) -> None:
        # The decoder calls us: an object between the two would be a cycle, and keep a queue and its
        # messages until the collector looks.
        super().__init__(queue._turns)
        self.channel = channel
        self.auto_ack = auto_ack
        self.consumer_tag: str | None = None
        self.queue_name = ""
        self.queue = queue
        #: The Deferred of `basic_consume()` was cancelled: the queue has no owner.
        self.abandoned = False
        #: The user closed the queue while messages were still coming.
        self.stopping = False
        #: Called instead of closing the queue, which its new owner does then.
        self.on_end: Callable[..., Any] | None = None
        # A queue that does more when it is woken is told each time.
        self.simple = type(queue).wake is stock_wake
        self._requeue = requeue
        self._stop = stop
        self._dropped = 0
        self._warned = False

    def on_message(self, _channel: Any, method: Any, properties: Any, body: bytes) -> None:
        """Take a message that came through pika's state machine."""
        self.channel._on_indirect(method, self.auto_ack)
        if self.abandoned:
            self._turn_back(method.delivery_tag)
        else:
            self.queue.pending.append(ReceivedMessage(self.channel, method, properties, body))
            self.wake()

    def wake(self) -> None:
        """Hand out what the decoder, or `on_message()`, put into the queue."""
        queue = self.queue
        if queue.closed is None:
            queue.wake()
            if not self._warned and len(queue.pending) > LARGE_BACKLOG:
                self._warn()
            return
        self.queue.pending.track()
        if not self.stopping:
            self.stopping = True
            LOGGER.warning(
                "Queue of consumer %s was closed while messages came; cancelling the consumer. "
                "What still comes is kept for drain()",
                self.consumer_tag,
            )
            self._stop(self)

    def _has_brought(self, message: Any) -> bool:
        return isinstance(message, ReceivedMessage) and message.channel is self.channel

    def _warn(self) -> None:
        self._warned = True
        if type(self.queue) is ClosableDeferredQueue:
            LOGGER.warning(
                "More than %d messages wait in the queue of consumer %s. Bound them with "
                "basic_qos(prefetch_count=...) and manual acks, or pass "
                "water_marks=pika_twisted.WaterMarks() to TwistedProtocolConnection",
                LARGE_BACKLOG,
                self.consumer_tag,
            )

    def close_queue(self, reason: BaseException, how: End) -> None:
        """Close the queue unless the user did so."""
        if self.on_end is not None:
            self.on_end(reason, how)
        elif not self.stopping:
            # What needs an ack is delivered again; an ack of it here could only fail.
            deliverable = how is not End.CHANNEL_CLOSED or self.auto_ack
            self.queue.close(reason, deliverable=deliverable, end=how is End.CANCELLED)

    def give_back(self) -> None:
        """Nack what waits: the broker cancelled this consumer, and has others for it.

        A delivery that timed out has gone to another consumer already. Not so messages of a stream,
        which stay where they are and are not delivered again.
        """
        if self.auto_ack:
            return
        for message in self.queue.drain():
            if not self._has_brought(message) or is_of_stream(message.properties):
                self.queue.pending.append(message)
            else:
                self._requeue(message.method.delivery_tag)

    def _turn_back(self, delivery_tag: int) -> None:
        # A nack of a tag that was acknowledged at delivery closes the channel (406).
        if self.auto_ack:
            self._dropped += 1
        else:
            self._requeue(delivery_tag)

    def report_dropped(self) -> None:
        """Say how many auto_ack messages came after the consumer was abandoned."""
        if self._dropped:
            LOGGER.warning(
                "%d auto_ack messages were delivered to consumer %s after its basic_consume() was "
                "cancelled; they are lost",
                self._dropped,
                self.consumer_tag,
            )
