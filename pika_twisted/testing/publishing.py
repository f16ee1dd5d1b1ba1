"""What a channel does with messages that its client publishes: routing, returns, confirms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pika import spec

from pika_twisted.testing import direct_reply
from pika_twisted.testing.encoding import confirm_frame
from pika_twisted.testing.message import Message, published_message
from pika_twisted.testing.permissions import WRITE
from pika_twisted.testing.queue import Queue
from pika_twisted.testing.refusal import Refusal
from pika_twisted.testing.stream import Stream

if TYPE_CHECKING:
    from pika_twisted.testing.channel import ServerChannel

_OFF, _CONFIRM, _TX = "off", "confirm", "tx"


class Publishing:
    """The publishing side of one channel.

    `confirmed` has the delivery tags that are due, with what they get: True for an ack.
    """

    def __init__(self, channel: ServerChannel) -> None:
        self.channel = channel
        self.mode = _OFF
        self.confirmed: dict[int, bool] = {}
        self._next_tag = 0
        self._uncommitted: list[tuple[Message, Any, list[Queue | Stream]]] = []

    def select_confirms(self) -> None:
        """Confirm.Select.

        :raises Refusal: the channel is transactional
        """
        if self.mode == _TX:
            raise Refusal(406, "cannot switch from tx to confirm mode")
        self.mode = _CONFIRM

    def select_tx(self) -> None:
        """Tx.Select.

        :raises Refusal: the channel has confirms
        """
        if self.mode == _CONFIRM:
            raise Refusal(406, "cannot switch from confirm to tx mode")
        self.mode = _TX

    @property
    def transactional(self) -> bool:
        """Whether publishes and acks wait for Tx.Commit."""
        return self.mode == _TX

    def check_transactional(self) -> None:
        """:raises Refusal: the channel is not transactional."""
        if self.mode != _TX:
            raise Refusal(406, "channel is not transactional")

    def publish(self, method: Any, properties: Any, body: bytes) -> None:
        """Basic.Publish with its content.

        :raises Refusal: as RabbitMQ's
        """
        channel = self.channel
        channel.check_access("exchange", method.exchange, WRITE)
        exchange = channel.vhost.exchange(method.exchange)
        if exchange.internal:
            raise Refusal(
                403,
                f"cannot publish to internal exchange '{exchange.name}' "
                f"in vhost '{channel.vhost.name}'",
            )
        user = properties.user_id
        if user is not None and user != channel.connection.user.name:
            raise Refusal(
                406,
                f"user_id property set to '{user}' but authenticated user was "
                f"'{channel.connection.user.name}'",
            )
        properties = direct_reply.with_address(channel, properties)
        message = published_message(
            method.exchange, method.routing_key, properties, body, channel.broker.dialect
        )
        if self.mode == _CONFIRM:
            self._next_tag += 1
        if method.exchange == "" and direct_reply.is_reply_name(method.routing_key):
            direct_reply.publish(channel, message)
            self._finish(message, method, channel.broker.dialect.replies_are_routed, True)
            return
        queues = channel.vhost.route(message, exchange)
        if self.mode == _TX:
            self._uncommitted.append((message, method, queues))
        else:
            self._deliver(message, method, queues)

    def _deliver(self, message: Message, method: Any, queues: list[Queue | Stream]) -> None:
        self.channel.broker.on_published(self.channel, message, queues)
        taken = True
        if not queues:
            self._finish(message, method, False, True)
            return
        for queue in queues:
            taken = queue.publish(message) and taken
        self._finish(message, method, True, taken)

    def _finish(self, message: Message, method: Any, routed: bool, taken: bool) -> None:
        if not routed and method.mandatory:
            self.channel.send_content(
                spec.Basic.Return(312, "NO_ROUTE", method.exchange, method.routing_key),
                message.properties,
                message.body,
            )
        if self.mode == _CONFIRM:
            self.confirmed[self._next_tag] = taken
            self.channel.connection.confirms_due(self.channel)

    # Transactions

    def commit(self) -> None:
        """Publish what waits for Tx.Commit."""
        uncommitted, self._uncommitted = self._uncommitted, []
        for each in uncommitted:
            self._deliver(*each)

    def rollback(self) -> None:
        """Drop what waits for Tx.Commit."""
        self._uncommitted.clear()

    # Confirms

    def send_confirms(self) -> None:
        """Confirm what is due: those before all others with one frame, as RabbitMQ does."""
        if self.channel.broker.holds_confirms or not self.confirmed:
            return
        due, self.confirmed = self.confirmed, {}
        acked = [tag for tag, taken in due.items() if taken]
        nacked = [tag for tag, taken in due.items() if not taken]
        # The smallest tag that is not acked with these.
        cutoff = min(nacked, default=self._next_tag + 1)
        below = [tag for tag in acked if tag < cutoff]
        number = self.channel.number
        out = [confirm_frame(number, tag, False, True) for tag in nacked]
        if len(below) > 1:
            out.append(confirm_frame(number, below[-1], True, False))
        else:
            out += [confirm_frame(number, tag, False, False) for tag in below]
        out += [confirm_frame(number, tag, False, False) for tag in acked if tag >= cutoff]
        self.channel.connection.send(b"".join(out))
