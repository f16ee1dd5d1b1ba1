"""`TwistedChannel`: the methods of an AMQP channel, returning Deferreds.

Methods that ask and get one answer are in `topology`; publishing, and settling by the message, have
a module each. What they have in common is `_call()`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from pika import exceptions as pika_exceptions
from pika import frame, spec, validators
from twisted.internet import defer

from pika_twisted import _instruments
from pika_twisted._arguments import check_auto_ack
from pika_twisted._guard import Callbacks, guarded
from pika_twisted._reasons import fresh_exception
from pika_twisted.deferreds.containers import OrderedSet
from pika_twisted.deferreds.lazy import succeeded
from pika_twisted.pika_state.channel import Channel
from pika_twisted.stats import ChannelCounts

from .acknowledging import Settling
from .consumer import Consumer
from .consumers import Consumers, QueuesByTag, TagsByQueue
from .encoders import GoneEncoder, PlainEncoder
from .getting import Gets
from .publishing import Publishing
from .queue import ClosableDeferredQueue, End, ReceivedMessage
from .topology import Topology
from .water_marked_queue import queue_for

LOGGER = logging.getLogger("pika_twisted")


class TwistedChannel(Topology, Publishing, Settling):
    """An AMQP channel whose methods return Deferreds.

    A method that pika gives a callback returns a Deferred here, which fires with what the callback
    would get. When the channel closes, whatever is outstanding fails with the reason, which is a
    `pika.exceptions.ChannelClosed`. Every Deferred may be cancelled: the request stays with the
    broker and its effects take place, only the Deferred isn't fired any more.

    `on_closed` is a Deferred that fires with that reason, as an exception, when the channel closes.

    See pika.channel.Channel for what the parameters mean to the broker.
    """

    def __init__(self, channel: Any) -> None:
        super().__init__()
        self._channel = channel
        self._closed: BaseException | None = None
        self._calls: Any = OrderedSet()
        self._records = Consumers()
        self._gets = Gets(channel.basic_get, self._on_indirect, self._requeue)
        self._last_declared = ""
        #: How many Basic.Recover wait for their answer.
        self._recovering = 0
        self._observers = OrderedSet()
        self._close_callbacks = Callbacks("channel close callback")
        self._encoder: Any = (
            channel.encoder if isinstance(channel, Channel) else PlainEncoder(channel)
        )
        if isinstance(channel, Channel):
            channel.twisted_channel = self
            channel.encoder.flush = channel.flush
            self._shorten(channel.encoder)
            if "basic_publish" in vars(channel):  # a tool has wrapped it, for spans perhaps
                channel.publish = self.basic_publish
                self.basic_publish = channel.basic_publish  # type: ignore[method-assign]
        self.on_closed: defer.Deferred[Any] = defer.Deferred()
        channel.add_callback(self._on_getempty, [spec.Basic.GetEmpty], False)
        channel.add_on_close_callback(self._on_channel_closed)
        channel.add_on_cancel_callback(self._on_consumer_cancelled_by_broker)
        _instruments.on_channel(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} channel={self._channel!r}>"

    def _shorten(self, encoder: Any) -> None:
        """Let the two calls made for each message go straight into C, unless they are overridden.

        That is 0.06 instead of 0.1 us for an ack, and 0.3 instead of 0.5 us for a publish. The rare
        cases come back to the methods of this class.
        """
        if type(self).basic_ack is TwistedChannel.basic_ack:
            encoder.slow_ack = self.basic_ack
            self.basic_ack = encoder.basic_ack  # type: ignore[method-assign]
        if type(self).basic_publish is TwistedChannel.basic_publish:
            encoder.slow_publish = self.basic_publish
            encoder.succeeded = succeeded
            self.basic_publish = encoder.basic_publish  # type: ignore[method-assign]

    # State

    @property
    def channel_number(self) -> int:
        """The number of the channel on its connection."""
        return cast(int, self._channel.channel_number)

    @property
    def connection(self) -> Any:
        """pika's connection object below this channel."""
        return self._channel.connection

    @property
    def is_opening(self) -> bool:
        """Whether the broker has not yet answered Channel.Open."""
        return cast(bool, self._channel.is_opening)

    @property
    def is_open(self) -> bool:
        """Whether the channel can be used."""
        return cast(bool, self._channel.is_open)

    @property
    def is_closing(self) -> bool:
        """Whether `close()` was called and the broker has not yet answered."""
        return cast(bool, self._channel.is_closing)

    @property
    def is_closed(self) -> bool:
        """Whether the channel is closed, by whichever side."""
        return cast(bool, self._channel.is_closed)

    @property
    def flow_active(self) -> bool:
        """Whether deliveries flow, as the broker's last answer to `flow()` said."""
        return cast(bool, self._channel.flow_active)

    @property
    def consumer_tags(self) -> list[str]:
        """The tags of the consumers that are not cancelled."""
        return cast("list[str]", self._channel.consumer_tags)

    # What pika's own tests of its adapter look at, and fill

    @property
    def _consumers(self) -> Any:
        return QueuesByTag(self._records)

    @_consumers.setter
    def _consumers(self, queues: Mapping[str, Any]) -> None:
        self._records.take_all()
        self._consumers.update(queues)

    @property
    def _queue_name_to_consumer_tags(self) -> Any:
        return TagsByQueue(self._records)

    def _on_getempty(self, _method_frame: Any) -> None:
        self._gets.on_empty()

    # What all calls have in common

    def _call(
        self, name: str, effect: Callable[[Any], Any] | None = None, **arguments: Any
    ) -> defer.Deferred[Any]:
        if self._closed:
            return defer.fail(fresh_exception(self._closed))
        inner: defer.Deferred[Any] = defer.Deferred()
        if effect is not None:
            inner.addCallback(effect)

        def answered(*args: Any) -> None:
            if not inner.called:
                inner.callback(args[0] if len(args) == 1 else args)

        # Kept before it is written: the connection may be lost within write().
        outer = self._answer_to(inner, defer.Deferred())
        try:
            getattr(self._channel, name)(callback=answered, **arguments)
        except Exception:
            self._calls.discard(inner)
            return defer.fail()
        return outer

    def _answer_to(
        self, inner: defer.Deferred[Any], outer: defer.Deferred[Any]
    ) -> defer.Deferred[Any]:
        """Let `outer`, the user's, follow `inner`, which is failed when the channel closes.

        Two Deferreds, so that the broker's answer takes its effect, in the callbacks of the inner
        one, also when the user has cancelled the outer one.
        """

        def follow(result: Any) -> None:
            self._calls.discard(inner)
            if not outer.called:
                outer.callback(result)  # a Failure makes it fail

        self._calls.add(inner)
        inner.addBoth(follow)
        return outer

    def callback_deferred(
        self, deferred: defer.Deferred[Any], replies: Sequence[type[Any]]
    ) -> None:
        """Fire `deferred` with the next frame whose method is one of `replies`.

        It fires once and is then forgotten; it is failed with the reason when the channel closes
        first. Watching takes nothing away from anybody: a watched Basic.GetOk, say, still ends the
        `basic_get()` it answers.
        """
        if not isinstance(deferred, defer.Deferred):
            raise TypeError(f"deferred must be a Deferred, not {deferred!r}")
        replies = list(replies)

        def fire(method_frame: frame.Method[Any]) -> None:
            if not deferred.called:
                deferred.callback(method_frame)

        def forget(result: Any) -> Any:
            if deferred in self._observers:
                self._observers.discard(deferred)
                self._channel.remove_callback(fire, replies)
            return result

        if self._closed:
            deferred.errback(fresh_exception(self._closed))
            return
        self._channel.add_callback(fire, replies, False)
        self._observers.add(deferred)
        deferred.addBoth(forget)  # also where it is cancelled

    # Callbacks

    def add_callback(
        self,
        callback: Callable[[frame.Method[Any]], Any],
        replies: Sequence[type[Any]],
        one_shot: bool = True,
    ) -> None:
        """Call `callback(method_frame)` for frames whose method is one of `replies`.

        With `one_shot` only for the next one of each. See pika.channel.Channel.add_callback.
        """
        self._channel.add_callback(guarded(callback, "frame callback"), replies, one_shot)

    def add_on_close_callback(
        self, callback: Callable[[TwistedChannel, BaseException], Any]
    ) -> None:
        """Call `callback(channel, reason)` when the channel closes, with this TwistedChannel."""
        self._close_callbacks.add(callback)

    def remove_on_close_callback(
        self, callback: Callable[[TwistedChannel, BaseException], Any]
    ) -> None:
        """Undo `add_on_close_callback()`; nothing where it was not added."""
        self._close_callbacks.remove(callback)

    def add_on_flow_callback(self, callback: Callable[[frame.Method[Any]], Any]) -> None:
        """Call `callback(method_frame)` when the broker sends Channel.Flow."""
        self._channel.add_on_flow_callback(guarded(callback, "flow callback"))

    # Acknowledging

    def basic_ack(self, delivery_tag: int | None = 0, multiple: bool = False) -> None:
        """Acknowledge a message, or with `multiple` all up to it (tag 0: all outstanding).

        It leaves with the next write, in order, at the latest when this turn of the reactor ends.

        :raises ChannelWrongStateError: the channel isn't open; its `__cause__` says why
        :raises TypeError, ValueError: the tag is not an int between 0 and 2**64 - 1

        AMQP 0-9-1 1.8.3.13; see pika.channel.Channel.basic_ack.
        """
        if self._encoder.ack(delivery_tag, multiple):
            self._channel.flush()

    def basic_nack(
        self, delivery_tag: int | None = None, multiple: bool = False, requeue: bool = True
    ) -> None:
        """Refuse a message, or with `multiple` all up to it; RabbitMQ's extension of reject.

        A `delivery_tag` of None means 0. Errors as `basic_ack()`.
        """
        if self._encoder.nack(0 if delivery_tag is None else delivery_tag, multiple, requeue):
            self._channel.flush()

    def basic_reject(self, delivery_tag: int | None, requeue: bool = True) -> None:
        """Refuse one message; without `requeue` it is dropped or dead-lettered.

        Errors as `basic_ack()`. AMQP 0-9-1 1.8.3.14; see pika.channel.Channel.basic_reject.
        """
        if self._encoder.reject(delivery_tag, requeue):
            self._channel.flush()

    # Consuming

    def basic_get(
        self, queue: str, auto_ack: bool = False
    ) -> defer.Deferred[ReceivedMessage[spec.Basic.GetOk] | None]:
        """Fetch one message; `queue` may be '' for the queue declared last on this channel.

        :returns: a Deferred that fires with a `ReceivedMessage` (its method is a Basic.GetOk), or
            with None when the queue is empty. Cancelled, a message that still comes is requeued; an
            auto_ack one is kept for the next auto_ack `basic_get()` of that queue.
        :raises DuplicateGetOkCallback: another `basic_get()` of this channel is waiting
        """
        self._gets.raise_if_waiting()
        if self._closed:
            return defer.fail(fresh_exception(self._closed))
        try:
            check_auto_ack("basic_get", auto_ack)
            validators.require_string(queue, "queue")
        except TypeError:
            return defer.fail()
        getting = self._gets.get(self, queue, queue or self._last_declared, auto_ack)
        self._has_received = self._has_received or self._gets.under_way > 0
        return getting

    def basic_consume(
        self,
        queue: str,
        auto_ack: bool = False,
        exclusive: bool = False,
        consumer_tag: str | None = None,
        arguments: dict[str, Any] | None = None,
    ) -> defer.Deferred[tuple[ClosableDeferredQueue, str]]:
        """Start a consumer; `queue` may be '' for the queue declared last on this channel.

        :returns: a Deferred that fires with `(queue_object, consumer_tag)`; the
            `ClosableDeferredQueue` gets a `ReceivedMessage` per message, whose method is a
            Basic.Deliver. It fails with a ChannelClosed when the broker refuses. Cancelled, the
            consumer is cancelled at the broker and what was delivered is requeued.
        """
        if self._closed:
            return defer.fail(fresh_exception(self._closed))
        try:
            check_auto_ack("basic_consume", auto_ack)
        except TypeError:
            return defer.fail()
        ours = isinstance(self._channel, Channel)
        messages = queue_for(self._channel.connection.gate) if ours else ClosableDeferredQueue()
        consumer = Consumer(self, messages, auto_ack, self._requeue, self._cancel_consumer)
        return self._start_consumer(consumer, queue, exclusive, consumer_tag, arguments)

    def _start_consumer(
        self,
        consumer: Consumer,
        queue: str,
        exclusive: bool,
        consumer_tag: str | None,
        arguments: dict[str, Any] | None,
    ) -> defer.Deferred[tuple[ClosableDeferredQueue, str]]:
        inner: defer.Deferred[Any] = defer.Deferred()

        def consuming(method_frame: frame.Method[Any]) -> None:
            consumer.consumer_tag = method_frame.method.consumer_tag
            consumer.queue_name = queue or self._last_declared
            if consumer.abandoned:
                self._cancel_consumer(consumer)
            else:
                self._add_consumer(consumer)
            inner.callback((consumer.queue, consumer.consumer_tag))

        def abandon(_outer: defer.Deferred[Any]) -> None:
            consumer.abandoned = True

        outer = self._answer_to(inner, defer.Deferred(abandon))
        try:
            self._channel.basic_consume(
                queue=queue,
                on_message_callback=consumer.on_message,
                auto_ack=consumer.auto_ack,
                exclusive=exclusive,
                consumer_tag=consumer_tag,
                arguments=arguments,
                callback=consuming,
            )
        except Exception:
            self._calls.discard(inner)
            return defer.fail()
        self._has_received = True
        return outer

    def _add_consumer(self, consumer: Consumer) -> None:
        tag = consumer.consumer_tag
        assert tag is not None
        self._records.add(consumer)
        if isinstance(self._channel, Channel):
            self._channel.subscribe(tag, consumer.queue.pending, self, consumer)
        self._note_mode(tag, consumer.auto_ack)
        if self._ledger is not None:
            self._note_deliveries(consumer)

    def _remove_consumer(self, consumer_tag: str, reason: BaseException, how: End) -> None:
        """Close the queue of a consumer for which nothing more comes."""
        record = self._records.pop(consumer_tag)
        if record is not None:
            record.close(reason, how)

    def _cancel_consumer(self, consumer: Consumer) -> None:
        """Cancel a consumer whose user is gone: cancelled `basic_consume()` or closed the queue."""
        tag = consumer.consumer_tag
        if tag is None or not self._channel.is_open:
            return
        cancelled = self._call("basic_cancel", self._on_consumer_cancelled, consumer_tag=tag)
        # The channel's end does it too.
        cancelled.addBoth(lambda _result: consumer.report_dropped())

    def _requeue(self, delivery_tag: int) -> None:
        """Give a message back that has no user here, unless `basic_recover()` does so."""
        if self._channel.is_open and not self._recovering:
            self.basic_nack(delivery_tag)

    def basic_cancel(
        self, consumer_tag: str = ""
    ) -> defer.Deferred[frame.Method[spec.Basic.CancelOk]]:
        """Cancel a consumer. Its queue object is closed when the broker has answered.

        Messages that come until then still reach the queue, and what is in it stays there for
        `async for`, `get_many()` and `drain()`.

        :returns: a Deferred that fires with the frame of Basic.CancelOk, also for a tag that is not
            known (any more)
        """
        return self._call(
            "basic_cancel",
            lambda method_frame: self._on_consumer_cancelled(method_frame, End.CANCELLED),
            consumer_tag=consumer_tag,
        )

    def _on_consumer_cancelled(
        self, method_frame: frame.Method[Any], how: End = End.BY_BROKER
    ) -> frame.Method[Any]:
        """A Basic.CancelOk, or the broker's own Basic.Cancel."""
        tag = method_frame.method.consumer_tag
        self._remove_consumer(tag, pika_exceptions.ConsumerCancelled(), how)
        return method_frame

    def _on_consumer_cancelled_by_broker(
        self, method_frame: frame.Method[Any]
    ) -> frame.Method[Any]:
        LOGGER.info("The broker cancelled a consumer: %r", method_frame.method)
        consumer = self._records.get(method_frame.method.consumer_tag)
        self._on_consumer_cancelled(method_frame)
        if (
            consumer is not None
            and isinstance(self._channel, Channel)
            and self._channel.connection.times_out_deliveries
        ):
            consumer.give_back()
        return method_frame

    def _on_queue_declared(self, method_frame: Any) -> Any:
        if isinstance(method_frame, frame.Method):
            self._last_declared = method_frame.method.queue
        return method_frame

    def _on_queue_deleted(self, method_frame: Any, queue: str) -> Any:
        name = queue or self._last_declared
        for consumer_tag in sorted(self._records.tags_of(name)):
            reason = pika_exceptions.ConsumerCancelled(f"Queue {name} was deleted.")
            self._channel.on_queue_deleted(consumer_tag)  # first: its user may take the tag again
            self._remove_consumer(consumer_tag, reason, End.BY_BROKER)
        return method_frame

    def basic_recover(self, requeue: bool = False) -> defer.Deferred[Any]:
        """Ask for all messages that aren't acknowledged to be delivered again.

        They can't be acknowledged any more from this call on. Fires with Basic.RecoverOk. RabbitMQ
        knows only `requeue=True`: otherwise the Deferred fails with MethodNotImplemented there,
        nothing is sent.
        """
        before = self._recovering
        self._recovering += 1
        answer = super().basic_recover(requeue)
        if answer.called:
            self._recovering = before  # it was refused here, or answered within write()
        else:
            self._void_open_tags()
        return answer

    def _on_recovered(self, method_frame: Any) -> Any:
        self._recovering -= 1
        self._void_open_tags()
        return method_frame

    def _void_open_tags(self) -> None:
        """What has come is given back by the broker: an ack of it would close the channel."""
        if self._ledger is not None:
            if isinstance(self._channel, Channel):
                self._channel.connection.flush()  # acks that are held back
            self._ledger.void()

    # The end

    def open(self) -> None:
        """Open the channel; the connection has done so already."""
        self._channel.open()

    def close(self, reply_code: int = 0, reply_text: str = "Normal shutdown") -> None:
        """Close the channel; `on_closed` fires when the broker has answered.

        What is delivered until then is dropped, for the broker delivers it again; not so with
        auto_ack: then it reaches its queue.

        :raises ChannelWrongStateError: it is closed or closing already
        :raises TypeError, ShortStringTooLong: a code or text that can't be sent; nothing happens
        """
        self._channel.close(reply_code=reply_code, reply_text=reply_text)

    def _queues(self) -> list[ClosableDeferredQueue]:
        return self._records.queues()

    def _counts(self) -> ChannelCounts:
        ledger = self._ledger
        acks, acks_sent = (0, 0) if ledger is None else (ledger.acks_in, ledger.acks_out)
        return ChannelCounts(self._confirms.last_number, acks, acks_sent)

    def _on_channel_closed(self, _channel: Any, reason: BaseException) -> None:
        """Everything that is outstanding learns why, the oldest first."""
        self._closed = reason
        if isinstance(self._encoder, PlainEncoder):
            self._encoder.open = False
        if isinstance(self._channel, Channel):
            connection = self._channel.connection
            connection.past_channels = connection.past_channels.plus(self._counts())
        if self._ignore_late:
            self._encoder = GoneEncoder()
            self._channel.encoder.has_ledger = True  # so that basic_ack() comes by here
        calls, self._calls = self._calls, OrderedSet()
        observers, self._observers = self._observers, OrderedSet()
        records = self._records.take_all()
        for deferred in (*calls, *self._gets.give_up(), *observers):
            if not deferred.called:
                deferred.errback(fresh_exception(reason))
        self._confirms.fail_all(reason)
        for record in records:
            record.close(reason, End.CHANNEL_CLOSED)
        if not self.on_closed.called:
            self.on_closed.callback(reason)
        self._close_callbacks(self, reason)
