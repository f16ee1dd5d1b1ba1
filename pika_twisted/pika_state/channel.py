"""pika's channel state machine with what is wrong in it put right.

Besides `connection` the only module that touches pika's private names. What differs from
`pika.channel.Channel`:

- a synchronous method is encoded when it is called, not when its turn comes: an argument that
  can't be encoded fails that call instead of the connection;
- answers find their own request: several cancels, gets and flows may be under way at once;
- a consumer that is being cancelled still gets its messages until CancelOk;
- a failed call leaves nothing registered.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import pika.channel
from pika import exceptions as pika_exceptions
from pika import frame, spec, validators
from pika.callback import CallbackManager

from pika_twisted._reasons import fresh_exception
from pika_twisted.codec.methods import encode_method
from pika_twisted.exceptions import on_channel

if TYPE_CHECKING:
    # pika's stubs have none of the private names that this module is about.
    from typing import Any as PikaChannel
else:
    from pika.channel import Channel as PikaChannel

LOGGER = logging.getLogger("pika_twisted")

#: So many unknown consumers are cancelled at a time; a peer could make up any number of them.
MOST_UNKNOWN_CONSUMERS = 100

#: So many of their deliveries are given back one by one, 2 MB of nacks, before the broker has
#: answered a cancel; a peer that never reads would have them all lie in memory.
MOST_UNKNOWN_DELIVERIES = 100_000


#: What may be asked many at a time, and the answer to each.
_TOGETHER: dict[type[Any], type[Any]] = {
    spec.Exchange.Declare: spec.Exchange.DeclareOk,
    spec.Exchange.Bind: spec.Exchange.BindOk,
    spec.Exchange.Unbind: spec.Exchange.UnbindOk,
    spec.Exchange.Delete: spec.Exchange.DeleteOk,
    spec.Queue.Declare: spec.Queue.DeclareOk,
    spec.Queue.Bind: spec.Queue.BindOk,
    spec.Queue.Unbind: spec.Queue.UnbindOk,
    spec.Queue.Delete: spec.Queue.DeleteOk,
}


class Channel(PikaChannel):  # type: ignore[misc]
    """One AMQP channel of a `Connection`, which makes it."""

    _blocking: Any
    _closing_reason: Any

    def __init__(
        self, connection: Any, channel_number: int, on_open_callback: Callable[..., Any] | None
    ) -> None:
        super().__init__(connection, channel_number, on_open_callback)
        #: Encodes acks and publishes straight into the connection's output buffer.
        self.encoder = connection.outbound.buffer.channel(channel_number)
        self.encoder.open = False
        #: The TwistedChannel around it.
        self.twisted_channel: Any = None
        #: Why the channel is gone, once it is.
        self.close_reason: BaseException | None = None
        #: What is told of confirms, in confirm mode.
        self.on_confirm: Callable[[frame.Method[Any]], Any] | None = None
        #: What `basic_publish()` calls when a tool has wrapped it.
        self.publish: Callable[..., Any] | None = None
        self._confirms_watched = False
        #: How many publishes wait for their confirm.
        self.unconfirmed: Callable[[], int] = lambda: 0
        self._gets: deque[Callable[..., Any]] = deque()
        #: Called with a content above `max_message_size`; whether the channel may go on without it.
        self.on_oversized: Callable[[Any], bool] | None = None
        #: What was asked without waiting for the answer of the one before, the oldest first.
        self._together: deque[tuple[type[Any], Callable[..., Any] | None]] = deque()
        self._awaits_together = False
        #: How many Basic.Consume have been sent and not answered: they may follow each other.
        self._consumes = 0
        self._on_select_sent: Callable[[], Any] | None = None
        self._auto_ack_tags: set[Any] = set()  # of consumers that are subscribed
        #: Whether any consumer of it was one with auto_ack.
        self.ever_auto_ack = False
        self._unknown_consumers: set[Any] = set()  # that are being cancelled
        self._unknown_deliveries = 0  # since the last one was
        # Consumers that ended with their queue; the broker's Basic.Cancel is still to come.
        self._cancel_due: set[Any] = set()
        self._observed = False  # Basic.Deliver is watched: no direct delivery
        self._direct: dict[str, tuple[Any, object, object]] = {}

    # Sending

    def flush(self) -> None:
        """Write what the encoder holds; the slow path of each ack.

        :raises ChannelWrongStateError: the channel isn't open; nothing was encoded then
        """
        if not self.encoder.open:
            why = self.close_reason or self._closing_reason
            state = self._STATE_NAMES[self._state].lower()
            text = f"Channel is {state}." if why is None else f"Channel is {state}: {why}"
            raise pika_exceptions.ChannelWrongStateError(text) from why
        self.connection.outbound.call_made()

    def awaits_answer(self) -> bool:
        """Whether a call on this channel waits for its answer; publishes aside."""
        return bool(self._blocking or self._gets)

    def _raise_if_not_open(self) -> None:
        if self.close_reason is not None:
            raise fresh_exception(self.close_reason)
        super()._raise_if_not_open()

    def _rpc(
        self,
        method: Any,
        callback: Callable[..., Any] | None = None,
        acceptable_replies: Sequence[Any] | None = None,
        encoded: bytes | None = None,
    ) -> None:
        # pika calls this again, with the items of an entry of `_blocked`, when its turn comes.
        if self.is_closed:
            self._raise_if_not_open()
        if encoded is None:
            limit = self.connection.outbound.buffer.frame_max
            encoded = encode_method(self.channel_number, method, limit)
        if self._blocking and not self._may_follow(method):
            self._blocked.append([method, callback, acceptable_replies, encoded])
            return
        if acceptable_replies and type(method) in _TOGETHER:
            self._ask_together(method, callback, encoded)
            return
        # First all that is there for the answer: a transport may give it within write().
        if isinstance(method, spec.Basic.Consume) and acceptable_replies:
            self._consumes += 1
        for reply in acceptable_replies or ():
            self._blocking = method.NAME
            kind, arguments = reply if isinstance(reply, tuple) else (reply, None)
            for call in (self._on_synchronous_complete, callback):
                if call is not None:
                    self.callbacks.add(self.channel_number, kind, call, arguments=arguments)
        if isinstance(method, spec.Confirm.Select) and self._on_select_sent is not None:
            self._on_select_sent()
        self.connection._output_marshaled_frames([encoded])
        self.connection.asks(self)

    def ask(self, method: Any, callback: Callable[[frame.Method[Any]], Any]) -> None:
        """Send a method that declares or binds; `callback` is called with its answer.

        :raises TypeError, ValueError: an argument that can't be sent, which the text names
        """
        self._rpc(method, callback, [_TOGETHER[type(method)]])

    def _may_follow(self, method: Any) -> bool:
        """Whether a method may be sent before the one that was sent last is answered."""
        if self._blocked:  # those have come first
            return False
        if self._together:
            return type(method) in _TOGETHER
        # Consumers are told apart by their tags.
        return bool(self._blocking == method.NAME == spec.Basic.Consume.NAME)

    def _ask_together(
        self, method: Any, callback: Callable[..., Any] | None, encoded: bytes
    ) -> None:
        """Send one of many declares and binds, which take one round trip together.

        A broker answers the methods of a channel in their order, so each belongs to the oldest.
        """
        if not self._awaits_together:
            self._awaits_together = True
            for kind in _TOGETHER.values():
                self.callbacks.add(self.channel_number, kind, self._on_together, one_shot=False)
        self._blocking = method.NAME
        self._together.append((_TOGETHER[type(method)], callback))
        self.connection._output_marshaled_frames([encoded])
        self.connection.asks(self)

    def _on_together(self, method_frame: frame.Method[Any]) -> None:
        if not self._together or self._together[0][0] is not type(method_frame.method):
            LOGGER.error("An answer that nothing asked for: %r", method_frame)
            return
        _, callback = self._together.popleft()
        if not self._together:
            self._on_synchronous_complete(method_frame)
        if callback is not None:
            callback(method_frame)

    def _on_synchronous_complete(self, method_frame: frame.Method[Any]) -> None:
        """Send what has waited for this answer, unless others are still to come before it."""
        if isinstance(method_frame.method, spec.Basic.ConsumeOk):
            self._consumes -= 1
            if self._consumes > 0:
                return
        super()._on_synchronous_complete(method_frame)

    def _set_state(self, connection_state: int) -> None:
        super()._set_state(connection_state)
        self.encoder.open = connection_state == self.OPEN and self.close_reason is None

    def basic_publish(
        self,
        exchange: str,
        routing_key: str,
        body: bytes,
        properties: spec.BasicProperties | None = None,
        mandatory: bool = False,
    ) -> Any:
        """See pika.channel.Channel.basic_publish; `publish`, where there is one, does it.

        A tool that wraps this method calls it, and so reaches what counts confirms.
        """
        if self.publish is not None:
            return self.publish(exchange, routing_key, body, properties, mandatory)
        return super().basic_publish(exchange, routing_key, body, properties, mandatory)

    # Methods whose answers pika mixes up, or that it sends too eagerly

    def basic_consume(
        self,
        queue: str,
        on_message_callback: Callable[..., Any],
        auto_ack: bool = False,
        exclusive: bool = False,
        consumer_tag: str | None = None,
        arguments: dict[str, Any] | None = None,
        callback: Callable[..., Any] | None = None,
    ) -> str:
        """See pika.channel.Channel.basic_consume; a call that fails registers nothing."""
        consumer_tag = consumer_tag or str(self._generate_consumer_tag())
        if consumer_tag in self._cancel_due and self.is_open:
            # RabbitMQ closes the connection (530) for a tag that it hasn't let go of.
            self._send_cancel(consumer_tag, lambda _: self._cancel_due.discard(consumer_tag))
        known = consumer_tag in self._consumers
        try:
            super().basic_consume(
                queue, on_message_callback, auto_ack, exclusive, consumer_tag, arguments, callback
            )
        except Exception:
            if not known:
                self._cleanup_consumer_ref(consumer_tag)
            raise
        if auto_ack:
            self._auto_ack_tags.add(consumer_tag)
            self.ever_auto_ack = True
        return consumer_tag

    def basic_cancel(
        self, consumer_tag: str = "", callback: Callable[..., Any] | None = None
    ) -> None:
        """See pika.channel.Channel.basic_cancel; it is always sent, each on its own CancelOk."""
        validators.require_string(consumer_tag, "consumer_tag")
        self._raise_if_not_open()
        consumer = self._consumers.get(consumer_tag)

        def answered(method_frame: frame.Method[Any]) -> None:
            # Else it ended before, and the next one of that tag waits for this answer.
            if self._consumers.get(consumer_tag) is consumer:
                self.forget_consumer(consumer_tag)
            if callback is not None:
                callback(method_frame)

        self._send_cancel(consumer_tag, answered)

    def _send_cancel(self, consumer_tag: Any, answered: Callable[..., Any]) -> None:
        self._rpc(
            spec.Basic.Cancel(consumer_tag=consumer_tag, nowait=False),
            answered,
            [(spec.Basic.CancelOk, {"consumer_tag": consumer_tag})],
        )

    def basic_get(self, queue: str, callback: Callable[..., Any], auto_ack: bool = False) -> None:
        """See pika.channel.Channel.basic_get; the broker answers in order, so several may wait."""
        validators.require_string(queue, "queue")
        validators.require_callback(callback)
        self._raise_if_not_open()
        get = encode_method(self.channel_number, spec.Basic.Get(queue=queue, no_ack=auto_ack))
        self._gets.append(callback)
        self.connection._output_marshaled_frames([get])
        self.connection.asks(self)

    def basic_qos(
        self,
        prefetch_size: int = 0,
        prefetch_count: int = 0,
        global_qos: bool = False,
        callback: Callable[..., Any] | None = None,
    ) -> None:
        """See pika.channel.Channel.basic_qos."""
        if prefetch_size:
            self._require_not_rabbitmq("basic_qos(prefetch_size > 0)")
        super().basic_qos(prefetch_size, prefetch_count, global_qos, callback)

    def basic_recover(
        self, requeue: bool = False, callback: Callable[..., Any] | None = None
    ) -> None:
        """See pika.channel.Channel.basic_recover."""
        if not requeue:
            self._require_not_rabbitmq("basic_recover(requeue=False)")
        super().basic_recover(requeue, callback)

    def flow(self, active: bool, callback: Callable[..., Any] | None = None) -> None:
        """See pika.channel.Channel.flow; each call gets its own answer."""
        self._raise_if_not_open()
        validators.rpc_completion_callback(callback)
        if not active:
            self._require_not_rabbitmq("flow(active=False)")

        def answered(method_frame: frame.Method[Any]) -> None:
            self.flow_active = method_frame.method.active
            if callback is not None:
                callback(self.flow_active)

        self._rpc(spec.Channel.Flow(active), answered, [spec.Channel.FlowOk])

    def _require_not_rabbitmq(self, call: str) -> None:
        """RabbitMQ closes the whole connection (540) for these; refuse them at the call."""
        if self.connection.is_rabbitmq:
            raise pika_exceptions.MethodNotImplemented(f"RabbitMQ does not implement {call}")

    def confirm_delivery(
        self,
        ack_nack_callback: Callable[..., Any],
        callback: Callable[..., Any] | None = None,
        on_sent: Callable[[], Any] | None = None,
    ) -> None:
        """See pika.channel.Channel.confirm_delivery.

        `on_sent` runs when Confirm.Select is written, which is where the broker starts counting.
        """
        if not callable(ack_nack_callback):
            raise TypeError(f"ack_nack_callback must be callable, got {ack_nack_callback!r}")
        self._raise_if_not_open()
        nowait = validators.rpc_completion_callback(callback)
        if not (self.connection.publisher_confirms and self.connection.basic_nack):
            raise pika_exceptions.MethodNotImplemented("The broker knows no publisher confirms")
        self._on_select_sent = on_sent
        self.on_confirm = ack_nack_callback
        self.connection.confirms(self)
        self._rpc(spec.Confirm.Select(nowait), callback, [] if nowait else [spec.Confirm.SelectOk])

    def collect_confirms(self, arrived: list[Any], token: object) -> None:
        """Have confirms put there by the decoder, unless they are watched."""
        if not self._confirms_watched:
            self.connection.collect_confirms(self.channel_number, arrived, token)

    def take_confirm(self, method_frame: frame.Method[Any]) -> None:
        """A Basic.Ack or Basic.Nack of the broker, in confirm mode."""
        if self._confirms_watched:
            self.callbacks.process(self.channel_number, method_frame.method, self, method_frame)
        assert self.on_confirm is not None
        self.on_confirm(method_frame)

    def open(self) -> None:
        """See pika.channel.Channel.open; not again when it is gone: another one has its number."""
        if self.close_reason is not None:
            self.flush()  # raises, with the reason
        super().open()

    def close(self, reply_code: int = 0, reply_text: str = "Normal shutdown") -> None:
        """See pika.channel.Channel.close. Channel.Close ends its consumers; none is cancelled."""
        closing = spec.Channel.Close(reply_code, reply_text, 0, 0)
        encoded = encode_method(self.channel_number, closing)
        # Acks held back: the encoder takes none of a closing channel. The transport may end within.
        self.connection.flush()
        if self.is_closed or self.is_closing:
            self.flush()  # raises, with the reason
        LOGGER.info("Closing channel %d (%s): %r", self.channel_number, reply_code, reply_text)
        self._closing_reason = pika_exceptions.ChannelClosedByClient(reply_code, reply_text)
        self._set_state(self.CLOSING)
        self._rpc(closing, self._on_closeok, [spec.Channel.CloseOk], encoded)
        for consumer_tag in list(self._direct):  # _on_deliver() looks at what still comes
            self.deliver_indirectly(consumer_tag)

    # Consumers

    def subscribe(self, consumer_tag: str, backlog: Any, channel: object, token: object) -> None:
        """Let the decoder put this consumer's messages straight into `backlog`."""
        if self.is_closing:
            return  # see _on_deliver()
        self._direct[consumer_tag] = (backlog, channel, token)
        if not self._observed:
            self.connection.subscribe(self.channel_number, consumer_tag, backlog, channel, token)

    def last_delivery_tag(self) -> int:
        """Return the tag of the latest message that the decoder itself has put into a backlog."""
        return int(self.connection.last_delivery_tag(self.channel_number))

    def deliver_indirectly(self, consumer_tag: str) -> None:
        """Send what comes for this consumer through its callback, message by message."""
        if self._direct.pop(consumer_tag, None) is not None:
            self.connection.unsubscribe(self.channel_number, consumer_tag)

    def on_queue_deleted(self, consumer_tag: str) -> None:
        """Forget a consumer whose queue this channel deleted: the broker cancels it later."""
        self.forget_consumer(consumer_tag)
        if self.connection.consumer_cancel_notify:
            self._cancel_due.add(consumer_tag)

    def forget_consumer(self, consumer_tag: str) -> None:
        """Take note that the broker sends nothing more for this consumer."""
        self._cleanup_consumer_ref(consumer_tag)
        self._auto_ack_tags.discard(consumer_tag)
        if self._direct.pop(consumer_tag, None) is not None:
            self.connection.unsubscribe(self.channel_number, consumer_tag)

    def add_callback(
        self,
        callback: Callable[..., Any],
        replies: Sequence[type[Any]],
        one_shot: bool = True,
    ) -> None:
        """See pika.channel.Channel.add_callback; a callback for deliveries sees each."""
        if self.is_closed:
            return
        super().add_callback(callback, replies, one_shot)
        if spec.Basic.Ack in replies or spec.Basic.Nack in replies:
            self._confirms_watched = True
            self.connection.collect_confirms(self.channel_number, None, None)
        if spec.Basic.Deliver in replies and not self._observed:
            self._observed = True
            for consumer_tag in self._direct:
                self.connection.unsubscribe(self.channel_number, consumer_tag)

    def remove_callback(self, callback: Callable[..., Any], replies: Sequence[type[Any]]) -> None:
        """Undo `add_callback()`."""
        for reply in replies:
            self.callbacks.remove(str(self.channel_number), reply, callback)
        if self._observed and not self.callbacks.pending(self.channel_number, spec.Basic.Deliver):
            self._observed = False
            for consumer_tag, subscription in self._direct.items():
                self.connection.subscribe(self.channel_number, consumer_tag, *subscription)

    def _on_deliver(
        self, method_frame: frame.Method[Any], header_frame: frame.Header, body: bytes
    ) -> None:
        method = method_frame.method
        if self.is_closing and method.consumer_tag not in self._auto_ack_tags:
            return  # it is delivered again; a peer that never answers Channel.Close fills no queue
        deliver = self._consumers.get(method.consumer_tag)
        if deliver is not None:
            deliver(self, method, header_frame.properties, body)
            return
        if not self.is_open:
            return
        self._unknown_deliveries += 1
        if self._unknown_deliveries > MOST_UNKNOWN_DELIVERIES:
            text = "deliveries go on for a consumer that is not there, and that was cancelled"
            LOGGER.error("Closing channel %d: %s", self.channel_number, text)
            self.close(spec.NOT_ALLOWED, text)  # which gives them all back
            return
        # A nack of a tag that the broker counts as acknowledged would close the channel.
        if not self.ever_auto_ack:
            self.basic_nack(method.delivery_tag)
        self._cancel_unknown(method.consumer_tag)

    def _cancel_unknown(self, consumer_tag: Any) -> None:
        """Cancel a consumer that is not known; its tag is the peer's, which may not even be UTF-8.

        Once until the broker answers: else each of its deliveries would leave a call here.
        """
        unknown = self._unknown_consumers
        if consumer_tag in unknown or len(unknown) >= MOST_UNKNOWN_CONSUMERS:
            return

        def cancelled(_method_frame: frame.Method[Any]) -> None:
            unknown.discard(consumer_tag)
            self._unknown_deliveries = 0

        LOGGER.error("Deliveries for an unknown consumer; cancelling it: %r", consumer_tag)
        unknown.add(consumer_tag)
        self._send_cancel(consumer_tag, cancelled)

    def refuse_content(self, content: Any) -> None:
        """A message above `max_message_size`: the decoder drops it, the channel can't go on."""
        text = (
            f"a message of {content.body_size} bytes is larger than "
            f"max_message_size={content.limit}"
        )
        self._content_assembler = pika.channel.ContentFrameAssembler()
        if self.on_oversized is not None and self.is_open and self.on_oversized(content):
            return
        LOGGER.error("Closing channel %d: %s", self.channel_number, text)
        if self.is_open:
            self.close(spec.CONTENT_TOO_LARGE, text)

    # Answers

    def _on_getok(
        self, method_frame: frame.Method[Any], header_frame: frame.Header, body: bytes
    ) -> None:
        if self._gets:
            self._gets.popleft()(self, method_frame.method, header_frame.properties, body)
        else:
            LOGGER.error("Basic.GetOk without a Basic.Get: %r", method_frame)

    def _on_getempty(self, method_frame: frame.Method[Any]) -> None:
        if self._gets:
            self._gets.popleft()

    def take_cancel(self, consumer_tag: Any) -> bool:
        """Answer the broker's Basic.Cancel; whether it concerns a consumer that is there.

        RabbitMQ sends one behind DeleteOk to a channel that deleted the queue of its consumer. The
        tag may have been taken again by then, which it was before the broker saw Basic.Consume.
        """
        if consumer_tag in self._cancel_due:
            self._cancel_due.discard(consumer_tag)
            return False
        if consumer_tag in self._consumers and self.is_open:
            # Since 4.3 a delivery that times out cancels its consumer, which keeps its tag until
            # this answer. 4.3.0 to 4.3.6 don't say that they take Basic.CancelOk.
            if self.connection.accept_consumer_cancel_ok:
                self._send_method(spec.Basic.CancelOk(consumer_tag))
            elif self.connection.times_out_deliveries:
                self._send_cancel(consumer_tag, lambda _: None)
        return True

    def _on_cancel(self, method_frame: frame.Method[Any]) -> None:
        self.forget_consumer(method_frame.method.consumer_tag)

    def lose(self, why: BaseException) -> None:
        """The connection is gone: refuse every call from now on, before anybody is told."""
        self.close_reason = on_channel(why)
        self.encoder.open = False

    def _on_close_meta(self, reason: BaseException | None) -> None:
        super()._on_close_meta(on_channel(reason) if reason is not None else None)

    def _transition_to_closed(self) -> None:
        self.close_reason = self.close_reason or self._closing_reason
        super()._transition_to_closed()

    def _cleanup(self) -> None:
        self._direct.clear()
        self._auto_ack_tags.clear()
        self._cancel_due.clear()
        self._gets.clear()
        self._together.clear()
        super()._cleanup()
        # The connection's belong to whichever channel has the number next.
        self.callbacks = CallbackManager()
