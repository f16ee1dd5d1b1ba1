"""A channel of a service: the same object before, during and after a connection is lost."""

from __future__ import annotations

import copy
import functools
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pika import exceptions as pika_exceptions
from pika import spec
from twisted.internet import defer

from pika_twisted._arguments import (
    check_ack_delay,
    check_auto_ack,
    check_callable,
    check_prefetch_count,
    check_whole,
)
from pika_twisted._guard import Callbacks, guarded
from pika_twisted._reasons import fresh_exception, is_loss
from pika_twisted.channel.acknowledging import BATCH
from pika_twisted.channel.channel import TwistedChannel
from pika_twisted.channel.preparation import Preparation
from pika_twisted.channel.queue import ClosableDeferredQueue
from pika_twisted.channel.topology import Topology
from pika_twisted.connecting.connect import maybe_await
from pika_twisted.deferreds.waiters import Waiters
from pika_twisted.exceptions import NotConnected

from .consumer import RecoveringConsumer
from .consumers import Consumers
from .opening import Opening
from .suspects import Suspect

if TYPE_CHECKING:
    from .service import RecoveringService

LOGGER = logging.getLogger("pika_twisted")

#: Calls after whose answer an entity is not declared again.
_ENDS = ("exchange_delete", "exchange_unbind", "queue_delete", "queue_unbind")


class RecoveringChannel(Topology):
    """Made by `RecoveringService.channel()`; its methods are those of `TwistedChannel`.

    What is declared, bound, set and consumed here is declared, bound, set and consumed again on
    each new connection, until it is deleted, unbound or cancelled here; with its last consumer
    goes an auto_delete queue, and with its last binding such an exchange, at the broker and here.
    What the broker refuses then is told by the service's event "refused", and asked for again by
    itself after a pause that grows.

    A call waits while there is no connection; one that a lost connection has interrupted is made
    again on the next, except `basic_get()` and `basic_publish()`. All that takes at most
    `call_timeout` seconds, the service's unless set here; then the call fails with NotConnected. A
    call to which the broker says no fails with the broker's reason and is not made again, also
    when the broker closes the whole connection for it.

    A queue that the broker names ('') may get a new name on another connection, told by the
    service's event "queue renamed"; the earlier ones go on to work in all methods here.
    Transactions are not recovered.

    Messages are settled by their own `ack()`, `nack()` and `reject()`; of messages that a lost
    connection delivered these do nothing, the broker delivers them again. The same holds for
    `basic_ack()`, `basic_nack()` and `basic_reject()` of the TwistedChannel that brought them.

    :ivar current: the TwistedChannel in use, or None
    :ivar call_timeout: how many seconds a call may take, waiting included; None for no limit
    """

    def __init__(
        self,
        service: RecoveringService,
        *,
        prefetch_count: int | None = None,
        confirm: bool = False,
        ack_batching: int = 1,
        ack_delay: float = 0,
        setup: Callable[[TwistedChannel], Any] | None = None,
    ) -> None:
        # What fails here would fail on each connection, and be the end of it.
        if prefetch_count is not None:
            check_prefetch_count(prefetch_count)
        if isinstance(ack_batching, bool):
            ack_batching = BATCH if ack_batching else 1
        check_whole(ack_batching=ack_batching)
        if ack_batching < 1:
            raise ValueError(f"ack_batching is True or a number above 0, not {ack_batching}")
        check_ack_delay(ack_delay, ack_batching)
        check_callable(setup=setup)
        super().__init__()
        self.service = service
        self.current: TwistedChannel | None = None
        self.call_timeout: float | None = service.call_timeout
        self._ack_batching = ack_batching
        self._ack_delay = ack_delay
        self._confirm = confirm
        self._setup = setup
        self._qos: dict[bool, dict[str, Any]] = {}
        if prefetch_count is not None:
            self._qos[False] = {"prefetch_count": prefetch_count}
        self._return_callbacks: list[Callable[[Any], Any]] = []
        self._close_callbacks = Callbacks("channel close callback")
        self._waiters = Waiters()
        self._preparation = Preparation()
        self._closed: BaseException | None = None
        self._last_declared = ""
        self._consumers = Consumers(self)
        self._opening = Opening(self)
        #: The last TwistedChannel that was closed for a call.
        self._refused_on: TwistedChannel | None = None
        #: Called with the TwistedChannel each time there is a new one.
        self._on_open: Callable[[TwistedChannel], Any] | None = None

    def __repr__(self) -> str:
        return f"<RecoveringChannel {self.current or 'down'}>"

    @property
    def is_open(self) -> bool:
        """Whether a call would leave now."""
        return self.current is not None and _is_usable(self.current)

    @property
    def consumer_tags(self) -> list[str]:
        """The tags of the consumers that are not cancelled."""
        return self._consumers.tags

    @property
    def subscriptions(self) -> list[RecoveringConsumer]:
        """What is consumed here."""
        return list(self._consumers)

    # Calls

    def when_open(self, timeout: float | None = None) -> defer.Deferred[TwistedChannel]:
        """Return a Deferred that fires with the TwistedChannel in use when there is one.

        It fails with NotConnected after `timeout` seconds, or when the service stops.
        """
        if self._closed is not None:
            return defer.fail(fresh_exception(self._closed))
        if self.is_open:
            return defer.succeed(self.current)  # type: ignore[arg-type]
        waiter = self._waiters.wait()
        if timeout is not None:
            clock = self.service.reactor
            waiter.addTimeout(timeout, clock, lambda *_: self._give_up(timeout))
        return waiter

    def _give_up(self, seconds: float) -> None:
        """Raise NotConnected, with what is known of why."""
        service = self.service
        if service.connection is not None:
            raise NotConnected(f"The channel has not been open for {seconds:g} s")
        text, why = f"The service has had no connection for {seconds:g} s", service._why_down()
        raise NotConnected(text if why is None else f"{text}: {why}") from service.trouble

    def _call(
        self, name: str, effect: Callable[[Any], Any] | None = None, **arguments: Any
    ) -> defer.Deferred[Any]:
        return defer.Deferred.fromCoroutine(self._ask(name, arguments, effect))

    async def _ask(
        self, name: str, arguments: dict[str, Any], effect: Callable[[Any], Any] | None
    ) -> Any:
        """Make a call until it is answered; the answer is recorded."""
        arguments = copy.deepcopy(arguments)  # its user may use a table for the next call, changed
        if arguments.get("queue") == "" and name != "queue_declare":
            arguments["queue"] = self._last_declared
        service = self.service

        def answered(answer: Any) -> Any:
            if name == "queue_declare":
                self._last_declared = answer.method.queue
            # First: it may know a queue by a name that is forgotten with the queue.
            result = answer if effect is None else effect(answer)
            service._recovery.note(name, arguments, answer)
            return result

        def ask(channel: TwistedChannel) -> defer.Deferred[Any]:
            if arguments.get("queue"):
                arguments["queue"] = service.recorder.current_name(arguments["queue"])
            asked: defer.Deferred[Any] = defer.Deferred()  # cancelled, the answer takes its effect
            getattr(channel, name)(**arguments).addCallback(answered).chainDeferred(asked)
            return asked

        if name not in _ENDS:
            return await self._until_answered(ask, name)
        with service.recorder.leaving(name, arguments):
            await service._recovery.quiet()  # what is being declared now would come back behind it
            return await self._until_answered(ask, name)

    async def _until_answered(
        self, ask: Callable[[TwistedChannel], Any], name: str, method: Any = None
    ) -> Any:
        """Call `ask(channel)` when there is one; again when the connection was lost under it."""
        asked: list[TwistedChannel] = []
        suspect = Suspect(method or _METHODS[name])
        repeating = defer.Deferred.fromCoroutine(self._repeat(ask, suspect, asked))
        seconds = self.call_timeout
        if seconds is not None:

            def late(*_: Any) -> None:
                if asked and self.is_open:
                    raise NotConnected(f"{name}() has had no answer for call_timeout={seconds:g} s")
                self._give_up(seconds)

            repeating.addTimeout(seconds, self.service.reactor, late)
        return await repeating

    async def _repeat(
        self, ask: Callable[[TwistedChannel], Any], suspect: Suspect, asked: list[TwistedChannel]
    ) -> Any:
        while True:
            channel = await self.when_open()
            asked.append(channel)
            try:
                return await self.service._suspects.ask(
                    suspect, channel.connection, functools.partial(ask, channel)
                )
            except Exception as why:
                if isinstance(why, pika_exceptions.ChannelClosedByBroker):
                    # Told the oldest first, whose refusal it is; those behind it are made again.
                    if self._refused_on is channel:
                        continue
                    self._refused_on = channel
                    raise
                if not is_loss(why) or _is_usable(channel) or suspect.is_guilty:
                    raise

    def _on_queue_declared(self, method_frame: Any) -> Any:
        return method_frame

    def _on_queue_deleted(self, method_frame: Any, queue: str) -> Any:
        recorder = self.service.recorder
        self.service._end_consumers_of(recorder.current_name(queue or self._last_declared))
        return method_frame

    def basic_qos(
        self, prefetch_size: int = 0, prefetch_count: int = 0, global_qos: bool = False
    ) -> defer.Deferred[Any]:
        """As `TwistedChannel.basic_qos()`; set again on each connection.

        Each consumer gets what was set for it: without `global_qos` what it was before it began.
        """
        qos: dict[str, Any] = {
            "prefetch_size": prefetch_size,
            "prefetch_count": prefetch_count,
            "global_qos": global_qos,
        }

        def keep(answer: Any) -> Any:
            self._qos[global_qos] = qos
            return answer

        return self._call("basic_qos", keep, **qos)

    def confirm_delivery(self) -> defer.Deferred[Any]:
        """Fires with Confirm.SelectOk; selected again on each connection."""
        self._confirm = True
        return self._call("confirm_delivery")

    def basic_consume(
        self,
        queue: str,
        auto_ack: bool = False,
        exclusive: bool = False,
        consumer_tag: str | None = None,
        arguments: dict[str, Any] | None = None,
    ) -> defer.Deferred[tuple[ClosableDeferredQueue, str]]:
        """Fires with `(queue_object, consumer_tag)`. Both stay valid on the next connections.

        When a connection is lost, or the broker cancels the consumer, messages that wait in the
        queue object are dropped, because they are delivered again; those of an auto_ack consumer
        stay. A stream is continued behind the last message that was handed out; it is known by
        "x-stream-offset" in `arguments`, by its declaration on this service's channels, or by the
        header of its first message.

        It fails with DuplicateConsumerTag when another consumer of this channel has the tag, also
        one that waits to come back.
        """
        return self._consumers.consume(
            queue or self._last_declared, auto_ack, exclusive, consumer_tag, arguments
        )

    def basic_cancel(self, consumer_tag: str = "") -> defer.Deferred[Any]:
        """Fires when the consumer is cancelled; also while there is no connection."""
        return self._consumers.cancel(consumer_tag)

    def basic_get(self, queue: str, auto_ack: bool = False) -> defer.Deferred[Any]:
        """Fires with a message, or None; fails with the reason when the connection is lost."""
        try:
            check_auto_ack("basic_get", auto_ack)
        except TypeError:
            return defer.fail()
        name = self.service.recorder.current_name(queue or self._last_declared)
        opening = self.when_open(self.call_timeout)
        return opening.addCallback(lambda channel: channel.basic_get(name, auto_ack))

    def basic_publish(
        self,
        exchange: str,
        routing_key: str,
        body: bytes,
        properties: Any = None,
        mandatory: bool = False,
    ) -> defer.Deferred[Any]:
        """As `TwistedChannel.basic_publish()`; waits for a connection.

        What waits is the message as it is at the call; one that can't be sent fails at the call.
        For bounds, and for sending again what a lost connection left unconfirmed, there is the
        service's `publisher()`.
        """
        if self.is_open:
            publishing: defer.Deferred[Any] = self.current.basic_publish(  # type: ignore[union-attr]
                exchange, routing_key, body, properties, mandatory
            )
            return publishing
        try:
            kept = self._preparation.copied(exchange, routing_key, body, properties, mandatory)
        except Exception:
            return defer.fail()
        opening = self.when_open(self.call_timeout)
        return opening.addCallback(lambda channel: channel.basic_publish(*kept))

    # Callbacks

    def add_on_return_callback(self, callback: Callable[[Any], Any]) -> None:
        """As `TwistedChannel.add_on_return_callback()`, on every connection."""
        self._return_callbacks.append(guarded(callback, "return callback"))

    def _on_returned(self, message: Any) -> None:
        for callback in list(self._return_callbacks):
            callback(message)

    def add_on_close_callback(self, callback: Callable[[Any, BaseException], Any]) -> None:
        """Call `callback(channel, reason)` each time the TwistedChannel in use is lost."""
        self._close_callbacks.add(callback)

    def remove_on_close_callback(self, callback: Callable[[Any, BaseException], Any]) -> None:
        """Undo `add_on_close_callback()`; nothing where it was not added."""
        self._close_callbacks.remove(callback)

    def _tell_closed(self, reason: BaseException) -> None:
        self._close_callbacks(self, reason)

    # Opening, losing, closing

    async def _set_up(self, channel: TwistedChannel) -> None:
        """Make a new TwistedChannel what this one is."""
        channel.ignore_late_acks()
        if self._ack_batching > 1:
            channel.ack_batching = self._ack_batching
            channel.ack_delay = self._ack_delay
        channel.add_on_return_callback(self._on_returned)
        self.service._watch_sizes(channel)
        for qos in list(self._qos.values()):
            await channel.basic_qos(**qos)
        if self._confirm:
            await channel.confirm_delivery()
        if self._setup is not None:
            await maybe_await(self._setup(channel))

    async def _subscribe_all(self, channel: TwistedChannel, connection: Any) -> None:
        """Subscribe the consumers on a TwistedChannel that is set up."""
        await self._consumers.subscribe_all(channel, connection)

    def _use(self, channel: TwistedChannel) -> None:
        """Take a TwistedChannel that is set up into use."""
        self.current = channel
        if self._on_open is not None:
            self._on_open(channel)
        self._waiters.fire(channel)

    def close(self) -> None:
        """Close it for good: consumers end, calls that wait fail."""
        self._shut(pika_exceptions.ChannelClosedByClient(0, "Normal shutdown"))
        channel, self.current = self.current, None
        if channel is not None and channel.is_open:
            channel.close()
        self.service._forget(self)

    def _consumes_from(self, queue: str) -> bool:
        """Whether there is a consumer of this queue, or is going to be."""
        return self._consumers.consume_from(queue)

    def _end_consumers_of(self, queue: str) -> None:
        """Note that a queue was deleted by this client."""
        self._consumers.end_those_of(queue)

    def _shut(self, reason: BaseException) -> None:
        """Fail what waits, end what is consumed."""
        if self._closed is None:
            self._closed = reason
        self._consumers.finish()
        self._waiters.fail(reason)


def _is_usable(channel: TwistedChannel) -> bool:
    """Whether a call would leave; channels are told one by one that their connection is lost."""
    return channel.is_open and bool(channel.connection.is_open)


#: What each call asks, for whether the broker blames it.
_METHODS = {
    "exchange_declare": spec.Exchange.Declare,
    "exchange_delete": spec.Exchange.Delete,
    "exchange_bind": spec.Exchange.Bind,
    "exchange_unbind": spec.Exchange.Unbind,
    "queue_declare": spec.Queue.Declare,
    "queue_bind": spec.Queue.Bind,
    "queue_unbind": spec.Queue.Unbind,
    "queue_purge": spec.Queue.Purge,
    "queue_delete": spec.Queue.Delete,
    "basic_qos": spec.Basic.Qos,
    "basic_recover": spec.Basic.Recover,
    "flow": spec.Channel.Flow,
    "confirm_delivery": spec.Confirm.Select,
    "tx_select": spec.Tx.Select,
    "tx_commit": spec.Tx.Commit,
    "tx_rollback": spec.Tx.Rollback,
}
