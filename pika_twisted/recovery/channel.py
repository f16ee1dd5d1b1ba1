"""A channel of a service: the same object before, during and after a connection is lost."""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import Callable
from typing import Any

from pika import exceptions as pika_exceptions
from twisted.internet import defer
from twisted.internet.task import deferLater

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
from pika_twisted.channel.encoders import GoneEncoder
from pika_twisted.channel.preparation import Preparation
from pika_twisted.channel.topology import Topology
from pika_twisted.connecting.connect import maybe_await
from pika_twisted.deferreds.waiters import Waiters
from pika_twisted.exceptions import NotConnected

from .consumers import Consuming

LOGGER = logging.getLogger("pika_twisted")

#: Seconds before a channel that the broker closed, or a consumer that it cancelled, is tried again.
FIRST_DELAY = 0.1
LONGEST_DELAY = 30.0


class RecoveringChannel(Consuming, Topology):
    """Made by `RecoveringService.channel()`; its methods are those of `TwistedChannel`.

    What is declared, bound, set and consumed here is declared, bound, set and consumed again on
    each new connection, until it is deleted, unbound or cancelled here; with its last consumer
    goes an auto_delete queue, and with its last binding such an exchange, at the broker and here.
    A call waits while there is none, for at most `call_timeout` seconds, the service's unless set
    here, then fails with NotConnected; one that a lost connection has interrupted is made again on
    the next, except `basic_get()` and `basic_publish()`. A queue that the broker names ('') gets a
    new name on each connection, told by the service's event "queue renamed"; the earlier one goes
    on to work in all methods here. Transactions are not recovered.

    Messages are settled by their own `ack()`, `nack()` and `reject()`; of messages that a lost
    connection delivered these do nothing, the broker delivers them again.

    :ivar current: the TwistedChannel in use, or None
    """

    def __init__(
        self,
        service: Any,
        *,
        prefetch_count: int | None = None,
        confirm: bool = False,
        ack_batching: int = 1,
        ack_delay: float = 0,
        setup: Callable[[Any], Any] | None = None,
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
        self.current: Any = None
        #: How long a call waits for a connection; None for ever.
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
        self._reopening: defer.Deferred[Any] | None = None
        self._last_declared = ""
        #: Called with the TwistedChannel each time there is a new one.
        self.on_open: Callable[[Any], Any] | None = None

    def __repr__(self) -> str:
        return f"<RecoveringChannel {self.current or 'down'}>"

    @property
    def is_open(self) -> bool:
        """Whether a call would leave now."""
        return self.current is not None and bool(self.current.is_open)

    # Calls

    def when_open(self, timeout: float | None = None) -> defer.Deferred[Any]:
        """A Deferred that fires with the TwistedChannel in use when there is one.

        It fails with NotConnected after `timeout` seconds, or when the service stops.
        """
        if self._closed is not None:
            return defer.fail(fresh_exception(self._closed))
        if self.is_open:
            return defer.succeed(self.current)
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
        self, method: str, arguments: dict[str, Any], effect: Callable[[Any], Any] | None
    ) -> Any:
        """Make a call until it is answered; the answer is recorded."""
        arguments = copy.deepcopy(arguments)  # its user may use a table for the next call, changed
        if arguments.get("queue") == "" and method != "queue_declare":
            arguments["queue"] = self._last_declared

        def answered(answer: Any) -> Any:
            self.service.recorder.note(method, arguments, answer)
            if method == "queue_declare":
                self._last_declared = answer.method.queue
            return answer if effect is None else effect(answer)

        def ask(channel: Any) -> defer.Deferred[Any]:
            if arguments.get("queue"):
                arguments["queue"] = self.service.recorder.current_name(arguments["queue"])
            asked: defer.Deferred[Any] = defer.Deferred()  # cancelled, the answer takes its effect
            getattr(channel, method)(**arguments).addCallback(answered).chainDeferred(asked)
            return asked

        return await self._until_answered(ask)

    async def _until_answered(self, ask: Callable[[Any], Any]) -> Any:
        """Call `ask(channel)` when there is one; again when the connection was lost under it."""
        while True:
            channel = await self.when_open(self.call_timeout)
            try:
                return await ask(channel)
            except Exception as why:
                if not is_loss(why) or channel.is_open:
                    raise

    def _on_queue_declared(self, method_frame: Any) -> Any:
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
            publishing: defer.Deferred[Any] = self.current.basic_publish(
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

    # Opening, losing, closing

    def open_on(self, connection: Any) -> None:
        """Open it on the service's connection, which is in use already."""

        async def open_first() -> None:
            try:
                await self.recover_on(connection)
            except (Exception, asyncio.CancelledError) as why:
                wanted = self._closed is None  # else it was cancelled by the end of the service
                if wanted and connection is self.service.connection and connection.is_open:
                    self.service.tell("recovery failed", why)
                    self._retry(self._reopen, connection)

        self.service.run(open_first())

    async def recover_on(self, connection: Any) -> None:
        """Open a channel on this connection, and put it into the state of the last one."""
        channel = await connection.channel()
        try:
            await self._set_up(channel)
        except BaseException:
            if channel.is_open:
                channel.close()  # the next attempt opens another one
            raise
        if self._closed is not None:
            channel.close()
            return
        self.current = channel
        if self.on_open is not None:
            self.on_open(channel)
        self._waiters.fire(channel)

    async def _set_up(self, channel: Any) -> None:
        channel._ignore_late = True
        channel.add_on_close_callback(self._on_channel_closed)
        if self._ack_batching > 1:
            channel.ack_batching = self._ack_batching
            channel.ack_delay = self._ack_delay
        channel.add_on_return_callback(self._on_returned)
        for qos in list(self._qos.values()):
            await channel.basic_qos(**qos)
        if self._confirm:
            await channel.confirm_delivery()
        if self._setup is not None:
            await maybe_await(self._setup(channel))
        await self._subscribe_all(channel)
        if not channel.is_open:
            raise fresh_exception(channel._closed or NotConnected("The channel closed again"))

    def _on_channel_closed(self, channel: Any, reason: BaseException) -> None:
        channel._encoder = GoneEncoder()
        was_current = channel is self.current
        if was_current:
            self.current = None
        self._close_callbacks(self, reason)
        connection = self.service.connection
        if was_current and self._closed is None and connection is not None and connection.is_open:
            LOGGER.warning("Channel closed (%s); opening it again", reason)
            self._retry(self._reopen, connection)

    async def _reopen(self, connection: Any) -> bool:
        if connection is self.service.connection and not self.is_open and self._closed is None:
            await self.service.declare_again()
            await self.recover_on(connection)
        return True

    def _retry(self, attempt: Callable[..., Any], *arguments: Any) -> None:
        """Attempt until it works or the connection is lost, with growing pauses."""

        async def keep_trying() -> None:
            delay = FIRST_DELAY
            connection = self.service.connection
            while connection is not None and connection is self.service.connection:
                await deferLater(self.service.reactor, delay)
                delay = min(2 * delay, LONGEST_DELAY)
                if connection is not self.service.connection or not connection.is_open:
                    return
                try:
                    await attempt(*arguments)
                    return
                except (Exception, asyncio.CancelledError) as why:
                    if self._closed is not None:  # it was cancelled by the end of the service
                        return
                    self.service.tell("recovery failed", why)

        self.service.run(keep_trying())

    def close(self) -> None:
        """Close it for good: consumers end, calls that wait fail."""
        self.shut(pika_exceptions.ChannelClosedByClient(0, "Normal shutdown"))
        channel, self.current = self.current, None
        if channel is not None and channel.is_open:
            channel.close()
        self.service.forget(self)

    def shut(self, reason: BaseException) -> None:
        """Let nobody wait any more."""
        if self._closed is None:
            self._closed = reason
        self._end_consumers()
        self._waiters.fail(reason)
