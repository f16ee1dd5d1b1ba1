"""What a channel does with messages for its client: consumers, deliveries, acks, prefetch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from pika import spec

from pika_twisted.testing import direct_reply
from pika_twisted.testing.arguments import CLASSIC, QUORUM, STREAM, type_name
from pika_twisted.testing.consumer import Consumer
from pika_twisted.testing.encoding import copied_properties
from pika_twisted.testing.ending import ACK, LOST, NACK, REJECT, Ending
from pika_twisted.testing.message import QueuedMessage
from pika_twisted.testing.permissions import READ
from pika_twisted.testing.queue import Queue
from pika_twisted.testing.refusal import Refusal
from pika_twisted.testing.stream import Stream

if TYPE_CHECKING:
    from pika_twisted.testing.channel import ServerChannel

ACKED, REJECTED, REQUEUED = "acked", "rejected", "requeued"  # what tests see of it


class Unacked(NamedTuple):
    """A delivery without ack; `consumer` is None for one of Basic.Get."""

    queue: Queue | Stream
    message: QueuedMessage
    consumer: Consumer | None


class Consuming:
    """The consuming side of one channel; `unacked` by delivery tag."""

    def __init__(self, channel: ServerChannel) -> None:
        self.channel = channel
        self.consumers: dict[str, Consumer] = {}
        self.unacked: dict[int, Unacked] = {}
        self.prefetch_count = 0
        self.global_prefetch_count = 0
        self._in_flight = 0  # unacked deliveries to consumers
        self._next_tag = 0
        self._uncommitted: list[tuple[dict[int, Unacked], Ending, bool]] = []

    # Prefetch

    def qos(self, method: Any) -> Any:
        """Basic.Qos: for consumers to come, or with `global` for the channel."""
        if method.prefetch_size:
            raise Refusal(540, f"prefetch_size!=0 ({method.prefetch_size})")
        if method.global_qos:
            self.global_prefetch_count = method.prefetch_count
            self._unblock(each.queue for each in self.consumers.values())
        else:
            self.prefetch_count = method.prefetch_count
        return spec.Basic.QosOk()

    def has_room(self) -> bool:
        """Tell whether the channel's own limit allows one more delivery."""
        limit = self.global_prefetch_count
        return not limit or self._in_flight < limit

    # Consumers

    def consume(self, method: Any) -> Any:
        """Basic.Consume; the reply leaves before the first delivery."""
        channel = self.channel
        tag = method.consumer_tag or channel.broker.generated_name("amq.ctag-")
        if tag in self.consumers or tag == channel.reply_tag:
            raise Refusal(530, f"attempt to reuse consumer tag '{tag}'")
        if method.queue == direct_reply.NAME:
            direct_reply.consume(channel, tag, method.no_ack)
            return spec.Basic.ConsumeOk(tag)
        name = channel.queue_name(method.queue)
        channel.check_access("queue", name, READ)
        queue = channel.vhost.usable_queue(name, channel.connection)
        arguments = method.arguments or {}
        where = f"queue '{name}' in vhost '{channel.vhost.name}'"
        priority = arguments.get("x-priority", 0)
        if isinstance(priority, bool) or not isinstance(priority, int):
            raise Refusal(
                406,
                f"invalid arg 'x-priority' for {where}: "
                f'"expected integer, got {type_name(priority)}"',
            )
        if queue.type == QUORUM and self.global_prefetch_count:
            raise Refusal(540, f"{where} does not support global qos")
        consumer = Consumer(
            tag,
            queue,
            channel,
            no_ack=method.no_ack,
            exclusive=method.exclusive,
            prefetch_count=self.prefetch_count,
            arguments=arguments,
        )
        queue.add_consumer(consumer)
        self.consumers[tag] = consumer
        if not method.nowait:
            channel.send(spec.Basic.ConsumeOk(tag))
        queue.dispatch()
        return None

    def cancel(self, method: Any) -> Any:
        """Basic.Cancel; a tag without a consumer is fine."""
        tag = method.consumer_tag
        consumer = self.consumers.pop(tag, None)
        if consumer is not None:
            consumer.queue.remove_consumer(consumer)
        elif tag == self.channel.reply_tag:
            direct_reply.end(self.channel)
        return spec.Basic.CancelOk(tag)

    # Deliveries

    def deliver(self, consumer: Consumer, message: QueuedMessage) -> None:
        """Send a message to a consumer."""
        tag = self._new_tag(consumer.queue, message, consumer, consumer.no_ack)
        deliver = spec.Basic.Deliver(
            consumer.tag, tag, message.redelivered, message.exchange, message.routing_key
        )
        properties = _delivered_properties(consumer.queue, message, False)
        self.channel.send_content(deliver, properties, message.body)

    def get(self, method: Any) -> Any:
        """Basic.Get."""
        name = self.channel.queue_name(method.queue)
        self.channel.check_access("queue", name, READ)
        queue = self.channel.vhost.usable_queue(name, self.channel.connection)
        message = queue.get(method.no_ack)
        if message is None:
            return spec.Basic.GetEmpty()
        tag = self._new_tag(queue, message, None, method.no_ack)
        reply = spec.Basic.GetOk(
            tag, message.redelivered, message.exchange, message.routing_key, queue.message_count
        )
        self.channel.send_content(reply, _delivered_properties(queue, message, True), message.body)
        return None

    def new_tag(self) -> int:
        """Return the next delivery tag."""
        self._next_tag += 1
        return self._next_tag

    def _new_tag(
        self, queue: Queue | Stream, message: QueuedMessage, consumer: Consumer | None, no_ack: bool
    ) -> int:
        tag = self.new_tag()
        if no_ack:
            self.channel.broker.on_settled(queue, message, ACKED)
            return tag
        self.unacked[tag] = Unacked(queue, message, consumer)
        if consumer is not None:
            consumer.unacked += 1
            self._in_flight += 1
        return tag

    # Acks

    def ack(self, method: Any) -> None:
        """Basic.Ack."""
        self._settle(method.delivery_tag, method.multiple, ACK, False)

    def nack(self, method: Any) -> None:
        """Basic.Nack."""
        self._settle(method.delivery_tag, method.multiple, NACK, method.requeue)

    def reject(self, method: Any) -> None:
        """Basic.Reject."""
        self._settle(method.delivery_tag, False, REJECT, method.requeue)

    def _settle(self, tag: int, multiple: bool, how: Ending, requeue: bool) -> None:
        taken = self._take(tag, multiple)
        if self.channel.publishing.transactional:
            self._uncommitted.append((taken, how, requeue))
        else:
            self._finish(taken, how, requeue)

    def _take(self, tag: int, multiple: bool) -> dict[int, Unacked]:
        if multiple and tag == 0:
            taken, self.unacked = self.unacked, {}
            return taken
        if tag not in self.unacked:
            raise Refusal(406, f"unknown delivery tag {tag}")
        if not multiple:
            return {tag: self.unacked.pop(tag)}
        taken = {each: self.unacked[each] for each in sorted(self.unacked) if each <= tag}
        for each in taken:
            del self.unacked[each]
        return taken

    def _finish(self, taken: dict[int, Unacked], how: Ending, requeue: bool) -> None:
        outcome = ACKED if how is ACK else REQUEUED if requeue else REJECTED
        groups: dict[Any, list[Unacked]] = {}
        for tag, each in taken.items():
            self.channel.broker.on_settled(each.queue, each.message, outcome)
            groups.setdefault(_group(tag, each, how), []).append(each)
        for key in sorted(groups):
            self._finish_group(groups[key], how, outcome)
        if self.global_prefetch_count:
            self._unblock(each.queue for each in self.consumers.values())

    def _finish_group(self, group: list[Unacked], how: Ending, outcome: str) -> None:
        """End deliveries that a queue is told of at once: they are of one queue, but when lost."""
        for _queue, _message, consumer in group:
            if consumer is not None:
                # A consumer that has taken the tag of a cancelled one gets the room.
                self.consumers.get(consumer.tag, consumer).unacked -= 1
                self._in_flight -= 1
        queues = dict.fromkeys(each.queue for each in group)
        for queue in queues:
            queue.unblock(self.channel)
            messages = [each.message for each in group if each.queue is queue]
            if outcome == REQUEUED:
                queue.requeue(messages, how)
                continue
            for message in messages:
                if outcome == ACKED:
                    queue.settle(message)
                else:
                    queue.reject(message, how)
            queue.dispatch()

    def _unblock(self, queues: Iterable[Queue | Stream]) -> None:
        for queue in dict.fromkeys(queues):
            queue.unblock(self.channel)
            queue.dispatch()

    @staticmethod
    def check_recover(method: Any) -> None:
        """Check Basic.Recover.

        :raises Refusal: it wants all redelivered to the same consumers
        """
        if not method.requeue:
            raise Refusal(540, "requeue=false")

    def recover(self) -> None:
        """Basic.Recover: requeue all deliveries without ack."""
        taken, self.unacked = self.unacked, {}
        self._finish(taken, NACK, True)

    # Transactions

    def commit(self) -> None:
        """Carry out the acks that wait for Tx.Commit."""
        uncommitted, self._uncommitted = self._uncommitted, []
        for each in uncommitted:
            self._finish(*each)

    def rollback(self) -> None:
        """Take back the acks that wait for Tx.Commit: these messages may be acked again."""
        for taken, *_how in self._uncommitted:
            self.unacked.update(taken)
        self._uncommitted.clear()

    # The end

    def end(self) -> None:
        """End all consumers and requeue what has no ack: the channel is gone."""
        self.rollback()
        consumers, self.consumers = self.consumers, {}
        for consumer in consumers.values():
            consumer.queue.remove_consumer(consumer)
        taken, self.unacked = self.unacked, {}
        if taken:
            self._finish(dict(sorted(taken.items())), LOST, True)
        direct_reply.end(self.channel)


def _group(tag: int, delivery: Unacked, how: Ending) -> tuple[str, int, int, str]:
    """Return what tells apart deliveries that RabbitMQ ends one after the other, in its order."""
    if how is LOST:
        return "", 0, 0, ""
    consumer = delivery.consumer
    if consumer is None:
        return delivery.queue.name, 0, tag, ""
    return delivery.queue.name, 1, 0, consumer.tag


def _delivered_properties(queue: Queue | Stream, message: QueuedMessage, got: bool) -> Any:
    """Return the properties that a consumer gets, with the headers of the queue's type."""
    if queue.type == CLASSIC:
        return message.properties
    dialect = queue.vhost.broker.dialect
    changes: dict[str, Any] = {}
    headers = dict(message.message.headers)
    if queue.type == STREAM:
        headers["x-stream-offset"] = message.position
        if dialect.streams_have_delivery_mode:
            changes["delivery_mode"] = message.properties.delivery_mode or 1
    else:
        if message.delivery_count or (got and dialect.counts_from_zero):
            headers["x-delivery-count"] = message.delivery_count
        if message.acquired_count and dialect.has_acquired_count:
            headers["x-acquired-count"] = message.acquired_count
    if headers:
        changes["headers"] = headers
    return copied_properties(message.properties, **changes)
