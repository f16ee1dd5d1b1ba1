"""Streams: queues that keep their messages, and consumers that read from an offset on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pika_twisted.testing.arguments import STREAM, type_name
from pika_twisted.testing.consumer import Consumer
from pika_twisted.testing.ending import Ending
from pika_twisted.testing.message import Message, QueuedMessage
from pika_twisted.testing.refusal import Refusal

if TYPE_CHECKING:
    from pika_twisted.testing.vhost import VirtualHost


class Stream:
    """A queue of type stream, in its simple form: without retention by age or size.

    It has the interface of `Queue`. `messages` are all that were ever published.
    """

    auto_delete = False
    owner = None
    type = STREAM

    def __init__(self, vhost: VirtualHost, name: str, arguments: dict[str, Any]) -> None:
        self.vhost = vhost
        self.name = name
        self.durable = True
        self.arguments = arguments
        self.consumers: list[Consumer] = []
        self.messages: list[QueuedMessage] = []
        self.unacked: list[QueuedMessage] = []
        self.paused = False
        self._times: list[float] = []
        self._dispatching = False

    def __repr__(self) -> str:
        return f"<Stream {self.name!r}: {len(self.messages)} messages>"

    @property
    def message_count(self) -> int:
        """How many messages it holds."""
        return len(self.messages)

    def publish(self, message: Message) -> bool:
        """Append a message."""
        self.messages.append(QueuedMessage(message, len(self.messages), None))
        self._times.append(self.vhost.now())
        self.dispatch()
        return True

    def get(self, no_ack: bool) -> QueuedMessage | None:
        """Refuse, as streams do."""
        raise self._unsupported("basic.get")

    def purge(self) -> int:
        """Refuse, as streams do."""
        raise self._unsupported("queue.purge")

    @property
    def consumer_count(self) -> int:
        """How many consumers it has."""
        return len(self.consumers)

    @property
    def _where(self) -> str:
        return f"queue '{self.name}' in vhost '{self.vhost.name}'"

    def _unsupported(self, what: str) -> Refusal:
        return Refusal(540, f"{what} not supported by stream queues {self._where}")

    def settle(self, message: QueuedMessage) -> None:
        """Take an ack: it is credit for another message."""

    def reject(self, message: QueuedMessage, how: Ending) -> None:
        """Take a nack: in a stream it is an ack."""

    def requeue(self, messages: list[QueuedMessage], how: Ending) -> None:
        """Take a nack: in a stream it is an ack."""

    def touch(self) -> None:
        """A stream never expires unused."""

    def add_consumer(self, consumer: Consumer) -> None:
        """Subscribe from x-stream-offset on.

        :raises Refusal: without a prefetch count, with no_ack, or with an offset that means nothing
        """
        short = self.vhost.broker.dialect.short_stream_texts
        if consumer.no_ack:
            which = f"stream {self._where}" if short else f"stream queues {self._where}"
            raise Refusal(540, f"automatic acknowledgement not supported by {which}")
        if not consumer.prefetch_count:
            which = f"stream {self._where}" if short else f"'{self._where}'"
            raise Refusal(406, f"consumer prefetch count is not set for {which}")
        consumer.offset = self._offset(consumer.arguments.get("x-stream-offset", "next"))
        self.consumers.append(consumer)

    def _offset(self, asked: Any) -> int:
        size = len(self.messages)
        if hasattr(asked, "timestamp"):  # a datetime
            since = asked.timestamp()
            return next((index for index, at in enumerate(self._times) if at >= since), size)
        if isinstance(asked, int):
            return min(asked, size) if asked >= 0 else 0
        found = {"first": 0, "last": max(0, size - 1), "next": size}.get(asked)
        if found is None:
            raise self._bad_offset(asked)
        return found

    def _bad_offset(self, asked: Any) -> Refusal:
        if not self.vhost.broker.dialect.checks_stream_offset:
            return Refusal(541)
        return Refusal(
            406,
            f"invalid arg 'x-stream-offset' for {self._where}: "
            f'{{invalid_stream_offset_arg,{{{type_name(asked)},<<"{asked}">>}}}}',
        )

    def remove_consumer(self, consumer: Consumer) -> None:
        """End a subscription."""
        if consumer in self.consumers:
            self.consumers.remove(consumer)

    def dispatch(self) -> None:
        """Deliver what consumers have credit for."""
        if self._dispatching or self.paused:
            return
        self._dispatching = True
        try:
            for consumer in list(self.consumers):
                while consumer.offset < len(self.messages) and consumer.has_room():
                    message = self.messages[consumer.offset]
                    consumer.offset += 1
                    consumer.channel.deliver(consumer, message)
        finally:
            self._dispatching = False

    def end(self) -> None:
        """Tell the consumers: the stream is gone."""
        consumers, self.consumers = self.consumers, []
        for consumer in consumers:
            consumer.channel.cancel_notify(consumer)

    def unblock(self, channel: Any) -> None:
        """Do nothing: each delivery looks who has room."""

    def forget_consumers(self) -> None:
        """Forget all consumers: their connections are gone."""
        self.consumers.clear()

    def restart(self) -> None:
        """Keep everything over a restart of the broker."""
        self.forget_consumers()
