"""One channel, as the broker sees it: its methods, its contents, its end."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pika import frame, spec

from pika_twisted.testing.consumer import Consumer
from pika_twisted.testing.consuming import Consuming
from pika_twisted.testing.encoding import content_frames, method_frame
from pika_twisted.testing.message import Message, QueuedMessage
from pika_twisted.testing.publishing import Publishing
from pika_twisted.testing.refusal import Refusal, reply_text
from pika_twisted.testing.topology import HANDLERS as TOPOLOGY

if TYPE_CHECKING:
    from pika_twisted.testing.session import ServerConnection

OPEN, CLOSING, CLOSED = "open", "closing", "closed"


class ServerChannel:
    """The broker's end of one channel.

    `consumers` are the client's, by tag. `state` is "open", "closing" while the client has not
    answered a Channel.Close, or "closed".
    """

    def __init__(self, connection: ServerConnection, number: int) -> None:
        self.connection = connection
        self.number = number
        self.broker = connection.broker
        self.vhost = connection.vhost
        self.state = OPEN
        self.last_queue: str | None = None
        self.reply_address: str | None = None
        self.reply_tag: str | None = None
        self.publishing = Publishing(self)
        self.consuming = Consuming(self)
        self._late = 0
        self._content: tuple[Any, frame.Header | None, list[bytes], int] | None = None

    def __repr__(self) -> str:
        return f"<ServerChannel {self.number} of {self.connection!r}: {self.state}>"

    # For tests

    @property
    def consumers(self) -> dict[str, Consumer]:
        """The consumers by tag."""
        return dict(self.consuming.consumers)

    @property
    def unacked_count(self) -> int:
        """How many deliveries of this channel have no ack."""
        return len(self.consuming.unacked)

    def cancel(self, consumer_tag: str) -> None:
        """Cancel a consumer from the broker's side: the client gets Basic.Cancel.

        :raises KeyError: the channel has no such consumer
        """
        consumer = self.consuming.consumers[consumer_tag]
        self.cancel_notify(consumer)
        consumer.queue.remove_consumer(consumer)
        self.broker.flush()

    def close(self, code: int = 406, text: str = "closed by the test", *, late: int = 0) -> None:
        """Close the channel from the broker's side.

        :param late: so many deliveries may still follow behind Channel.Close until the client has
            answered, as with a real RabbitMQ
        """
        if self.state == OPEN:
            self._refuse(code, reply_text(code, text), 0, 0, late)
            self.broker.flush()

    # Frames of the client

    def process(self, value: Any) -> None:
        """Take a frame of the client.

        :raises Refusal: of a code that closes the connection
        """
        if self.state == CLOSING:
            if isinstance(value, frame.Method):
                self._process_closing(value.method)
            return
        method: Any = None
        try:
            if isinstance(value, frame.Method):
                method = value.method
                self._process_method(method)
            elif self._content is not None:
                method = self._content[0]
                self._process_content(value, *self._content)
        except Refusal as refusal:
            class_id, method_id = ids(None if refusal.code == 541 else method)
            if refusal.hard:
                raise ConnectionRefusal(refusal, class_id, method_id) from None
            self._refuse(
                refusal.code, refusal.text, class_id, method_id, self.broker.late_deliveries
            )

    def _process_closing(self, method: Any) -> None:
        if isinstance(method, spec.Channel.Close):
            self.send(spec.Channel.CloseOk())
        elif isinstance(method, spec.Channel.CloseOk):
            self.end()

    def _process_method(self, method: Any) -> None:
        refusal = self.broker.refusal_of(method)
        if isinstance(method, spec.Basic.Publish):
            if method.immediate:
                raise Refusal(540, "immediate=true")
            if refusal is None:
                self._content = (method, None, [], 0)
                return
        if refusal is not None:
            raise refusal
        handler = _HANDLERS.get(type(method))
        if handler is None:
            raise Refusal(503, "unimplemented method")
        reply = handler(self, method)
        if reply is not None and not getattr(method, "nowait", False):
            self.send(reply)

    def _process_content(
        self, value: Any, method: Any, header: frame.Header | None, parts: list[bytes], size: int
    ) -> None:
        if isinstance(value, frame.Header):
            header = value
        else:
            parts.append(value.fragment)
            size += len(value.fragment)
        if header is not None and size >= header.body_size:
            self._content = None
            body = parts[0] if len(parts) == 1 else b"".join(parts)
            self.publishing.publish(method, header.properties, body)
        else:
            self._content = (method, header, parts, size)

    # Answers

    def send(self, method: Any) -> None:
        """Send a method."""
        self.connection.send(method_frame(self.number, method))

    def send_content(self, method: Any, properties: Any, body: bytes) -> None:
        """Send a method with a content."""
        connection = self.connection
        connection.send(
            method_frame(self.number, method)
            + content_frames(self.number, properties, body, connection.frame_max)
        )

    def check_access(self, kind: str, name: str, what: str) -> None:
        """Check a permission of the user.

        :raises Refusal: 403
        """
        self.connection.user.check(self.broker.dialect, self.vhost.name, kind, name, what)

    def queue_name(self, name: str) -> str:
        """Return the name, or for an empty one that of the queue declared last.

        :raises Refusal: none was declared
        """
        if name:
            return name
        if self.last_queue is None:
            raise Refusal(404, "no previously declared queue")
        return self.last_queue

    # Deliveries

    @property
    def takes_deliveries(self) -> bool:
        """Whether messages may be sent to the channel's consumers."""
        return self.state == OPEN or self._late > 0

    def has_room(self) -> bool:
        """Tell whether the channel takes another delivery that wants an ack."""
        return self.takes_deliveries and self.consuming.has_room()

    def deliver(self, consumer: Consumer, message: QueuedMessage) -> None:
        """Send a message to a consumer of this channel."""
        self.consuming.deliver(consumer, message)
        if self.state == CLOSING:
            self._late -= 1
            if not self._late:
                self.broker.call_later(0, self._end_late)

    def deliver_reply(self, consumer_tag: str, message: Message) -> None:
        """Send a direct reply."""
        deliver = spec.Basic.Deliver(
            consumer_tag, self.consuming.new_tag(), False, message.exchange, message.routing_key
        )
        self.send_content(deliver, message.properties, message.body)

    def cancel_notify(self, consumer: Consumer) -> None:
        """Tell the client that a consumer is gone."""
        if self.consuming.consumers.pop(consumer.tag, None) is None:
            return
        if self.state == OPEN and self.connection.has_capability("consumer_cancel_notify"):
            self.send(spec.Basic.Cancel(consumer.tag, True))

    # The end

    def _refuse(self, code: int, text: str, class_id: int, method_id: int, late: int) -> None:
        self.publishing.send_confirms()
        self.state = CLOSING
        self._content = None
        self.send(spec.Channel.Close(code, text, class_id, method_id))
        self._late = late
        if late:
            for queue in dict.fromkeys(each.queue for each in self.consumers.values()):
                queue.dispatch()
        else:
            self.consuming.end()

    def _end_late(self) -> None:
        if self.state == CLOSING:
            self.consuming.end()
            self.broker.flush()

    def close_ok(self) -> None:
        """Answer a Channel.Close of the client."""
        self.publishing.send_confirms()
        self.end()
        self.send(spec.Channel.CloseOk())

    def end(self) -> None:
        """Forget everything; the queues get back what has no ack."""
        self.state = CLOSED
        self._late = 0
        self.connection.forget_channel(self)
        self.consuming.end()


class ConnectionRefusal(Exception):
    """A refusal that closes the connection, and the ids of the method that it is about."""

    def __init__(self, refusal: Refusal, class_id: int = 0, method_id: int = 0) -> None:
        super().__init__(refusal.text)
        self.code = refusal.code
        self.text = refusal.text
        self.class_id = class_id
        self.method_id = method_id


def ids(method: Any) -> tuple[int, int]:
    """Return class and method id, as a Close method names them."""
    return (0, 0) if method is None else (method.INDEX >> 16, method.INDEX & 0xFFFF)


def _close(channel: ServerChannel, _method: Any) -> None:
    channel.close_ok()


def _flow(_channel: ServerChannel, method: Any) -> Any:
    if not method.active:
        raise Refusal(540, "active=false")
    return spec.Channel.FlowOk(True)


def _confirm_select(channel: ServerChannel, _method: Any) -> Any:
    channel.publishing.select_confirms()
    return spec.Confirm.SelectOk()


def _tx_select(channel: ServerChannel, _method: Any) -> Any:
    channel.publishing.select_tx()
    return spec.Tx.SelectOk()


def _tx_commit(channel: ServerChannel, _method: Any) -> Any:
    channel.publishing.check_transactional()
    channel.publishing.commit()
    channel.consuming.commit()
    return spec.Tx.CommitOk()


def _tx_rollback(channel: ServerChannel, _method: Any) -> Any:
    channel.publishing.check_transactional()
    channel.publishing.rollback()
    channel.consuming.rollback()
    return spec.Tx.RollbackOk()


def _recover(channel: ServerChannel, method: Any) -> None:
    channel.consuming.check_recover(method)
    channel.send(spec.Basic.RecoverOk())  # before what is redelivered
    channel.consuming.recover()


def _recover_async(channel: ServerChannel, method: Any) -> None:
    channel.consuming.check_recover(method)
    channel.consuming.recover()


def _nothing(_channel: ServerChannel, _method: Any) -> None:
    """An answer of the client to what the broker sent."""


def _second_open(_channel: ServerChannel, _method: Any) -> None:
    raise Refusal(504, "second 'channel.open' seen")


_HANDLERS: dict[type[Any], Callable[..., Any]] = {
    **TOPOLOGY,
    spec.Channel.Open: _second_open,
    spec.Channel.Close: _close,
    spec.Channel.CloseOk: _nothing,
    spec.Channel.Flow: _flow,
    spec.Channel.FlowOk: _nothing,
    spec.Confirm.Select: _confirm_select,
    spec.Tx.Select: _tx_select,
    spec.Tx.Commit: _tx_commit,
    spec.Tx.Rollback: _tx_rollback,
    spec.Basic.Qos: lambda channel, method: channel.consuming.qos(method),
    spec.Basic.Consume: lambda channel, method: channel.consuming.consume(method),
    spec.Basic.Cancel: lambda channel, method: channel.consuming.cancel(method),
    spec.Basic.CancelOk: _nothing,
    spec.Basic.Get: lambda channel, method: channel.consuming.get(method),
    spec.Basic.Ack: lambda channel, method: channel.consuming.ack(method),
    spec.Basic.Nack: lambda channel, method: channel.consuming.nack(method),
    spec.Basic.Reject: lambda channel, method: channel.consuming.reject(method),
    spec.Basic.Recover: _recover,
    spec.Basic.RecoverAsync: _recover_async,
}
