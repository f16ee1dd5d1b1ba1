"""Classic and quorum queues."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pika_twisted.testing.arguments import QUORUM
from pika_twisted.testing.consumer import Consumer, insert
from pika_twisted.testing.ending import LOST, NACK, REJECT, Ending
from pika_twisted.testing.message import Message, QueuedMessage
from pika_twisted.testing.ready import Ready, quorum_ready
from pika_twisted.testing.refusal import Refusal, in_exclusive_use

if TYPE_CHECKING:
    from pika_twisted.testing.vhost import VirtualHost


class Queue:
    """A queue: its messages, who consumes them, and its rules.

    `owner` is the connection that an exclusive queue belongs to, None otherwise.
    """

    def __init__(
        self,
        vhost: VirtualHost,
        name: str,
        kind: str,
        *,
        durable: bool = False,
        auto_delete: bool = False,
        owner: Any = None,
        arguments: dict[str, Any] | None = None,
    ) -> None:
        self.vhost = vhost
        self.name = name
        self.type = kind
        self.durable = durable
        self.auto_delete = auto_delete
        self.owner = owner
        self.arguments = arguments = arguments or {}
        self.consumers: list[Consumer] = []
        #: Those that may have room, the next one first, and those that had none at their turn.
        self._waiting: list[Consumer] = []
        self._blocked: list[Consumer] = []
        self.paused = False
        self._dialect = vhost.broker.dialect
        self._active: Consumer | None = None  # with x-single-active-consumer
        self._single = bool(arguments.get("x-single-active-consumer"))
        if kind == QUORUM:
            self._ready = quorum_ready(self._dialect.quorum_priorities)
        else:
            self._ready = Ready(arguments.get("x-max-priority", 0))
        self._got: set[int] = set()  # of a quorum queue: positions of what Basic.Get took
        self._unacked: dict[int, QueuedMessage] = {}
        self._next_position = 0
        self._dispatching = False
        self._expiry: Any = None
        self._unused: Any = None
        self._max_length: int | None = arguments.get("x-max-length")
        self._max_bytes: int | None = arguments.get("x-max-length-bytes")
        self._overflow: str = arguments.get("x-overflow", "drop-head")
        self._ttl: int | None = arguments.get("x-message-ttl")
        self._delivery_limit: int | None = arguments.get("x-delivery-limit")
        if kind == QUORUM and self._delivery_limit is None:
            self._delivery_limit = self._dialect.delivery_limit
        if self._delivery_limit is not None and self._delivery_limit < 0:
            self._delivery_limit = None
        self._expires: int | None = arguments.get("x-expires")
        self.touch()

    def __repr__(self) -> str:
        return f"<Queue {self.name!r}: {len(self._ready)} ready, {len(self._unacked)} unacked>"

    # To look at

    @property
    def messages(self) -> list[QueuedMessage]:
        """The messages that wait for a consumer, the next one first."""
        return list(self._ready)

    @property
    def unacked(self) -> list[QueuedMessage]:
        """The messages that were delivered and not settled, in the order of their arrival."""
        return sorted(self._unacked.values(), key=lambda each: each.position)

    @property
    def message_count(self) -> int:
        """How many wait for a consumer."""
        return len(self._ready)

    @property
    def consumer_count(self) -> int:
        """How many consumers it says it has: in a quorum queue each unsettled Basic.Get is one."""
        return len(self.consumers) + len(self._got)

    # Messages

    def publish(self, message: Message) -> bool:
        """Take a message; False where the length limit refuses it."""
        if self._overflow != "drop-head" and self._is_full(message):
            if self._overflow == "reject-publish-dlx":
                self.vhost.dead_letter(self, QueuedMessage(message, 0, None), "maxlen")
            return False
        self._next_position += 1
        queued = QueuedMessage(message, self._next_position, self._expires_at(message))
        direct = None if len(self._ready) or self.paused else self._next_consumer()
        self._ready.append(queued)
        if direct is not None:  # also what would expire at once
            direct.channel.deliver(direct, self._take(direct.no_ack))
        else:
            self.dispatch()
            self._drop_surplus()
        return True

    def get(self, no_ack: bool) -> QueuedMessage | None:
        """Take the next message for Basic.Get.

        :raises Refusal: from a quorum queue with a single active consumer
        """
        if self._single and self.type == QUORUM:
            raise Refusal(
                405,
                f"cannot obtain access to locked queue '{self.name}' in vhost "
                f"'{self.vhost.name}'. basic.get operations are not supported by "
                f"{self._dialect.quorum_name} queues with single active consumer",
            )
        self._drop_expired()
        self.touch()
        message = self._take(no_ack) if len(self._ready) else None
        if message is not None and not no_ack and self.type == QUORUM:
            self._got.add(message.position)
        self._drop_expired_if_any_may()
        return message

    def settle(self, message: QueuedMessage) -> None:
        """Forget a message that was delivered: it was acked."""
        self._give_back(message)

    def _give_back(self, message: QueuedMessage) -> bool:
        self._got.discard(message.position)
        return self._unacked.pop(message.position, None) is not None

    def reject(self, message: QueuedMessage, how: Ending) -> None:
        """Dead-letter a message that was delivered, or drop it."""
        if self._give_back(message):
            redelivered = how is REJECT and self._dialect.rejected_is_redelivered
            self.vhost.dead_letter(self, message, "rejected", redelivered)

    def requeue(self, messages: list[QueuedMessage], how: Ending) -> None:
        """Take back messages that were delivered.

        What a consumer gives back to a quorum queue without a delivery limit goes to its end.
        """
        failed = self._dialect.nack_counts or how is not NACK
        for message in messages:
            if not self._give_back(message):
                continue
            message.redelivered = True
            message.acquired_count += 1
            message.delivery_count += failed
            if self._delivery_limit is not None and message.delivery_count > self._delivery_limit:
                self.vhost.dead_letter(self, message, "delivery_limit")
            elif self.type == QUORUM and self._delivery_limit is None and how is not LOST:
                self._ready.append(message)
            else:
                self._ready.put_back(message)
        if self.type != QUORUM:
            self._drop_surplus()
        self.dispatch()
        self._drop_surplus()

    def purge(self) -> int:
        """Drop what waits; return how many."""
        return len(self._ready.clear())

    def _take(self, no_ack: bool) -> QueuedMessage:
        message = self._ready.popleft()
        if not no_ack:
            self._unacked[message.position] = message
        return message

    def _is_full(self, message: Message) -> bool:
        if self._max_length is not None and len(self._ready) >= self._max_length:
            return True
        return self._max_bytes is not None and self._ready_bytes() >= self._max_bytes

    def _ready_bytes(self) -> int:
        return sum(len(each.body) for each in self._ready)

    def _drop_surplus(self) -> None:
        if self._overflow != "drop-head":
            return
        while len(self._ready) and (
            (self._max_length is not None and len(self._ready) > self._max_length)
            or (self._max_bytes is not None and self._ready_bytes() > self._max_bytes)
        ):
            self.vhost.dead_letter(self, self._ready.drop_head(), "maxlen")

    # Expiry

    def _expires_at(self, message: Message) -> float | None:
        limits = [each for each in (self._ttl, message.expiration) if each is not None]
        return self.vhost.now() + min(limits) / 1000 if limits else None

    def _drop_expired(self) -> None:
        """Dead-letter what has expired at the head; look again when the next one there does."""
        now, dropped = self.vhost.now(), True
        while dropped:
            dropped = False
            for message in list(self._ready.heads()):
                if message.expires_at is not None and message.expires_at <= now:
                    self._ready.remove(message)
                    self.vhost.dead_letter(self, message, "expired")
                    dropped = True
        due = [each.expires_at for each in self._ready.heads() if each.expires_at is not None]
        self._expiry = self._again(self._expiry, min(due) - now if due else None, self._on_expiry)

    def _on_expiry(self) -> None:
        self._expiry = None
        self._drop_expired()
        self.vhost.broker.flush()

    def _again(self, call: Any, delay: float | None, what: Callable[[], None]) -> Any:
        if call is not None and call.active():
            call.cancel()
        return None if delay is None else self.vhost.broker.call_later(delay, what)

    def touch(self) -> None:
        """The queue is in use: x-expires counts from now."""
        if self._expires is not None:
            delay = None if self.consumers else self._expires / 1000
            self._unused = self._again(self._unused, delay, self._on_unused)

    def _on_unused(self) -> None:
        self._unused = None
        self.vhost.delete_queue(self)
        self.vhost.broker.flush()

    # Consumers

    def add_consumer(self, consumer: Consumer) -> None:
        """Subscribe.

        :raises Refusal: there is an exclusive consumer, or this would be one beside others
        """
        taken = any(each.exclusive for each in self.consumers)
        refused = taken or (consumer.exclusive and (self.consumers or self._single))
        if refused and self.type != QUORUM:  # which do not know exclusive consumers
            raise in_exclusive_use(self.vhost.name, self.name)
        insert(self.consumers, consumer)
        insert(self._waiting, consumer)
        self.touch()
        if self._single and self._active is None:
            self._active = consumer

    def remove_consumer(self, consumer: Consumer) -> None:
        """End a subscription; an auto_delete queue goes with its last one."""
        if consumer not in self.consumers:
            return
        self.consumers.remove(consumer)
        (self._waiting if consumer in self._waiting else self._blocked).remove(consumer)
        if consumer is self._active:
            self._active = self.consumers[0] if self.consumers else None
        self.touch()
        if self.auto_delete and not self.consumers:
            self.vhost.delete_queue(self)
        else:
            self.dispatch()

    def dispatch(self) -> None:
        """Deliver what can be delivered."""
        if self._dispatching:
            return
        self._dispatching = True
        try:
            self._drop_expired_if_any_may()
            while len(self._ready) and not self.paused:
                consumer = self._next_consumer()
                if consumer is None:
                    break
                message = self._take(consumer.no_ack)
                consumer.channel.deliver(consumer, message)
        finally:
            self._dispatching = False
        self._drop_expired_if_any_may()

    def _drop_expired_if_any_may(self) -> None:
        if self._expiry is not None or any(
            each.expires_at is not None for each in self._ready.heads()
        ):
            self._drop_expired()

    def _next_consumer(self) -> Consumer | None:
        if self._single:
            active = self._active
            return active if active is not None and active.has_room() else None
        while self._waiting:
            consumer = self._waiting.pop(0)
            if consumer.has_room():
                insert(self._waiting, consumer)
                return consumer
            self._blocked.append(consumer)
        return None

    def unblock(self, channel: Any) -> None:
        """Let consumers of a channel have their turn again, behind all others."""
        for consumer in [each for each in self._blocked if each.channel is channel]:
            if consumer.has_room():
                self._blocked.remove(consumer)
                insert(self._waiting, consumer)

    # The end

    def forget_consumers(self) -> None:
        """Forget all consumers: their connections are gone."""
        self.consumers.clear()
        self._waiting.clear()
        self._blocked.clear()
        self._active = None

    def end(self) -> None:
        """Stop timers and tell the consumers: the queue is gone."""
        for call in (self._expiry, self._unused):
            if call is not None and call.active():
                call.cancel()
        self._expiry = self._unused = self._expires = None
        self._ready.clear()
        self._unacked.clear()
        consumers, self.consumers = self.consumers, []
        self._waiting.clear()
        self._blocked.clear()
        for consumer in consumers:
            consumer.channel.cancel_notify(consumer)

    def restart(self) -> None:
        """Keep what a durable queue keeps over a restart of the broker."""
        self.forget_consumers()
        kept = [each for each in (*self.unacked, *self._ready) if self._keeps(each)]
        for message in self.unacked:
            message.redelivered = True
            message.delivery_count += 1
        self._unacked.clear()
        self._ready.clear()
        for message in sorted(kept, key=lambda each: each.position):
            self._ready.append(message)
        self._drop_expired()

    def _keeps(self, message: QueuedMessage) -> bool:
        return self.type == QUORUM or message.message.persistent
