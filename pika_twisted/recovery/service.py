"""`RecoveringService`: a connection that comes back, with everything that was on it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, cast

from pika.connection import Parameters
from twisted.application.internet import ClientService, backoffPolicy
from twisted.internet import defer
from twisted.internet.task import deferLater

from pika_twisted._arguments import check_callable, check_seconds, check_some_seconds
from pika_twisted._reasons import fresh_exception
from pika_twisted.channel.queue import ReceivedMessage
from pika_twisted.connecting import connect as connecting
from pika_twisted.connecting.targets import places
from pika_twisted.consuming.handlers import Handling, consume
from pika_twisted.deferreds.containers import OrderedSet
from pika_twisted.exceptions import NotConnected
from pika_twisted.protocol import TwistedProtocolConnection
from pika_twisted.publisher import Publisher
from pika_twisted.transport.read_gate import WaterMarks

from .channel import RecoveringChannel
from .client_service import Link, LinkEndpoint, LinkFactory
from .events import EVENTS, Events
from .publisher import RecoveringPublisher
from .recorder import Recorder
from .totals import Tally

LOGGER = logging.getLogger("pika_twisted")

_MARKS = WaterMarks()

WAIT = "wait"
FAIL = "fail"
RESEND = "resend"


class RecoveringService(Events, Tally, ClientService):
    """A Twisted service that keeps an AMQP connection and recovers it.

    For example::

        service = RecoveringService("amqps://user:password@host/vhost")
        service.startService()                      # or service.setServiceParent(application)
        channel = service.channel(prefetch_count=100)
        await channel.queue_declare("work", durable=True)
        queue, tag = await channel.basic_consume("work")
        async for message in queue:                 # goes on over lost connections
            ...
            message.ack()

    On each new connection channels are opened, exchanges, queues and bindings declared, prefetch
    and confirm mode set and consumers subscribed again, from what was called on the channels of
    this service. A connection on which that fails is dropped, and the whole is tried again after
    a pause that grows (`retry_policy`).

    :param target: as of `connect()`; one of several brokers is chosen anew each time
    :param setup: called on each connection with a TwistedChannel of its own, before anything else
        is declared; may return a Deferred or a coroutine; a failure counts as a failed connection
    :param retry_policy: as ClientService's; default is 0.2 s doubling to 30 s, plus up to 1 s
    :param call_timeout: seconds that a call of a channel waits for a connection; None for ever
    :param recovery_timeout: seconds that declaring and subscribing again may take
    :param drain_timeout: seconds that `stopService()` gives handlers and publishers to finish
    :param water_marks: as of TwistedProtocolConnection, but on by default
    :param options: further keyword arguments of TwistedProtocolConnection
    """

    def __init__(
        self,
        target: Any = None,
        *,
        parameters: Parameters | None = None,
        tls: Any = None,
        setup: Callable[[Any], Any] | None = None,
        retry_policy: Callable[[int], float] | None = None,
        call_timeout: float | None = 30.0,
        recovery_timeout: float = 60.0,
        drain_timeout: float = 10.0,
        water_marks: WaterMarks | None = _MARKS,
        protocol: Callable[..., TwistedProtocolConnection] = TwistedProtocolConnection,
        reactor: Any = None,
        **options: Any,
    ) -> None:
        check_seconds(call_timeout=call_timeout)
        check_callable(setup=setup)
        check_some_seconds(recovery_timeout=recovery_timeout, drain_timeout=drain_timeout)
        Events.__init__(self)
        Tally.__init__(self)
        if reactor is None:
            from twisted.internet import reactor
        self.reactor = reactor
        self.call_timeout = call_timeout
        self.drain_timeout = drain_timeout
        self.water_marks = water_marks
        #: The connection in use, or None.
        self.connection: Any = None
        #: Why there is none: how the last attempt failed, or the last connection ended.
        self.trouble: BaseException | None = None
        self.recorder = Recorder()
        self._failed_in_a_row = 0
        self._setup = setup
        self._recovery_timeout = recovery_timeout
        self._make = protocol
        self._options = {"water_marks": water_marks, **options}
        self._channels = OrderedSet()
        self._running = OrderedSet()
        self._connected_before = False
        self._shutdown_trigger: Any = None
        self._stops = 0  # under way
        #: Started again while it stops: the publishers and channels that end all the same.
        self._before_restart: tuple[list[Publisher], list[RecoveringChannel]] | None = None
        # Made once, so that a wrong argument fails here and not in each attempt.
        self._places = places(target, parameters, tls, reactor)
        if protocol is TwistedProtocolConnection:
            protocol(None, reactor, **self._options)
        self._name = ", ".join(map(str, self._places))
        ClientService.__init__(
            self,
            LinkEndpoint(self._name, self._establish),  # type: ignore[arg-type]
            LinkFactory(),  # type: ignore[arg-type]
            retryPolicy=retry_policy or backoffPolicy(0.1, 30.0, 2.0),
            clock=reactor,
        )

    def __repr__(self) -> str:
        state = "connected" if self.connection is not None else "not connected"
        return f"<RecoveringService {self._name}: {state}>"

    # For users

    def channel(
        self,
        *,
        prefetch_count: int | None = None,
        confirm: bool = False,
        ack_batching: int = 1,
        ack_delay: float = 0,
        setup: Callable[[Any], Any] | None = None,
    ) -> RecoveringChannel:
        """A channel that is opened again on each connection; usable at once, its calls wait.

        :param ack_batching: as of `TwistedChannel`, on each connection; so is `ack_delay`
        :param setup: called with the TwistedChannel each time it was opened
        """
        channel = RecoveringChannel(
            self,
            prefetch_count=prefetch_count,
            confirm=confirm,
            ack_batching=ack_batching,
            ack_delay=ack_delay,
            setup=setup,
        )
        self._add_channel(channel)
        return channel

    def consume(
        self, queue: str, handler: Callable[[ReceivedMessage], Any], **options: Any
    ) -> defer.Deferred[Handling]:
        """Run a handler for each message of a queue, on a channel of its own.

        :param options: as of the function `consume()`, and `ack_batching` and `ack_delay`, as of
            `channel()`; with a delay let `prefetch_count` be four times `ack_batching`, or more
        :returns: a Deferred that fires with the `Handling`, which goes on over lost connections. It
            waits for the first connection as long as it takes.
        """
        channel = self.channel(
            ack_batching=options.pop("ack_batching", 1), ack_delay=options.pop("ack_delay", 0)
        )
        channel.call_timeout = None  # a worker that is started before its broker works all the same
        starting = consume(channel, queue, handler, reactor=self.reactor, **options)

        def started(handling: Handling) -> Handling:
            self._handlings.add(handling)
            handling.when_stopped().addErrback(lambda _: None).addBoth(ended, handling)
            return handling

        def ended(_result: Any, handling: Handling) -> None:
            self._keep_handling(handling)
            channel.close()

        def failed(failure: Any) -> Any:
            channel.close()
            return failure

        return starting.addCallbacks(started, failed)

    def publisher(
        self, *, when_down: str = WAIT, when_lost: str = FAIL, **options: Any
    ) -> Publisher:
        """A `Publisher` on a channel of its own, on one connection after the other.

        :param when_down: "wait" for a connection (bounded by `max_waiting` and `timeout`, 30 s
            unless given), or "fail" with ConnectionWrongStateError
        :param when_lost: what becomes of a publish that was not confirmed when the connection was
            lost: "fail" with the reason, or "resend" (the broker may then have it twice)
        :param options: as of `Publisher`; its `close()` closes the channel, too
        """
        if when_down not in (WAIT, FAIL) or when_lost not in (FAIL, RESEND):
            raise ValueError('when_down is "wait" or "fail", when_lost is "fail" or "resend"')
        options.setdefault("timeout", 30.0)
        channel = RecoveringChannel(self)

        def ended(publisher: Publisher) -> None:
            self._keep_publisher(publisher)
            channel.close()

        publisher = RecoveringPublisher(
            wait_when_down=when_down == WAIT,
            resend_when_lost=when_lost == RESEND,
            why_down=self._why_down,
            on_end=ended,
            reactor=self.reactor,
            **options,
        )
        self._publishers.add(publisher)
        channel.on_open = publisher.go_on
        self._add_channel(channel)
        return publisher

    def _why_down(self) -> BaseException | None:
        if self.connection is not None:
            return None
        if self.trouble is None and not self.running:
            return NotConnected("startService() was not called")
        return self.trouble

    def when_ready(self) -> defer.Deferred[TwistedProtocolConnection]:
        """A Deferred that fires with the connection when there is one with everything on it.

        It fails with CancelledError when the service stops.
        """
        return self.whenConnected()

    def whenConnected(  # noqa: N802
        self,
        failAfterFailures: int | None = None,  # noqa: N803
    ) -> defer.Deferred[Any]:
        """As ClientService's: fires with the TwistedProtocolConnection."""
        ask = super().whenConnected
        connected = self._in_a_turn_of_its_own(None)
        connected.addCallback(lambda _: ask(failAfterFailures))
        connected.addCallback(lambda link: link.connection)
        return connected.addBoth(self._in_a_turn_of_its_own)

    def _in_a_turn_of_its_own(self, result: Any) -> defer.Deferred[Any]:
        """Let what waits for a result go on a little later.

        ClientService fires its Deferreds from within its state machine, which refuses
        `stopService()` and `whenConnected()` until it is done.
        """
        return deferLater(self.reactor, 0, lambda: result)

    # IService

    def startService(self) -> None:  # noqa: N802
        """Connect, and stay connected.

        While it stops this means: once it has, and with the channels that are made from now on.
        """
        if self._stops:
            if self._before_restart is None:
                self._before_restart = (list(self._publishers), list(self._channels))
            return
        if not self.running and self.parent is None:
            # Alone, nobody else would stop it in good order. An Application does.
            self._shutdown_trigger = self.reactor.addSystemEventTrigger(
                "before", "shutdown", self._stop_with_reactor
            )
        if not self.running:
            self._begin_down_time()
        super().startService()

    def _stop_with_reactor(self) -> Any:
        self._shutdown_trigger = None
        return self.stopService() if self.running else None

    def stopService(self) -> defer.Deferred[None]:  # noqa: N802
        """Stop consuming, let handlers and publishers finish, settle, close.

        Its channels are closed for good; a service that is started again begins with new ones.

        :returns: a Deferred that fires when the connection is closed: at the latest after
            `drain_timeout`, 1 s more where a handler goes on although it was cancelled, and
            `close_timeout` of the connection where the broker is silent
        """
        trigger, self._shutdown_trigger = self._shutdown_trigger, None
        if trigger is not None:
            self.reactor.removeSystemEventTrigger(trigger)
        self._before_restart = None
        self._stops += 1

        def start_again(result: Any) -> Any:
            self._stops -= 1
            if not self._stops and self._before_restart is not None:
                self._before_restart = None
                self.startService()
            return result

        stopped: defer.Deferred[None] = defer.Deferred()  # cancelled, it leaves the rest alone
        defer.Deferred.fromCoroutine(self._stop()).addBoth(start_again).chainDeferred(stopped)
        return stopped

    async def _stop(self) -> None:
        deadline = self.reactor.seconds() + self.drain_timeout
        await defer.DeferredList([each.stop(self.drain_timeout) for each in list(self._handlings)])
        if self.connection is not None:
            for publisher in list(self._publishers):
                left = max(0.0, deadline - self.reactor.seconds())
                flushing = publisher.flush().addTimeout(left, self.reactor)
                await flushing.addErrback(lambda _: None)
        stopped = NotConnected("The service is stopped")
        publishers, channels = self._before_restart or (self._publishers, self._channels)
        for publisher in list(publishers):
            publisher.close(stopped)
        for channel in list(channels):
            channel.shut(stopped)
            self.forget(channel)
        for running in list(self._running):
            running.cancel()
        # This may be an event's callback, within ClientService's state machine.
        await self._in_a_turn_of_its_own(None)
        self._end_down_time()
        await super().stopService()
        await self._in_a_turn_of_its_own(None)

    # For the channels of this service

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Run something that the end of the service cancels."""
        running = defer.Deferred.fromCoroutine(coroutine)
        self._running.add(running)

        def ended(result: Any) -> None:
            self._running.discard(running)

        running.addBoth(ended)

    def forget(self, channel: RecoveringChannel) -> None:
        """A channel was closed for good."""
        self._channels.discard(channel)

    def end_subscriptions(self, queue: str) -> None:
        """A queue was deleted by this client."""
        for channel in list(self._channels):
            for subscription in channel.subscriptions:
                if subscription.queue_name == queue:
                    subscription.end()
                    channel.forget(subscription)

    def on_consumer_ended(self, queue: str) -> None:
        """A consumer of this queue was cancelled by this client, or its channel closed for good."""
        name = self.recorder.current_name(queue)
        if not any(channel.consumes_from(name) for channel in self._channels):
            self.recorder.on_last_consumer_ended(name)

    async def declare_again(self) -> None:
        """Declare everything that was recorded on the connection in use."""
        await self.recorder.declare_again(self.connection, self._on_renamed)

    # The connection

    def _add_channel(self, channel: RecoveringChannel) -> None:
        self._channels.add(channel)
        connection = self.connection
        restarting = self._before_restart is not None  # the next connection will have it
        if connection is not None and connection.is_open and not restarting:
            channel.open_on(connection)

    async def _establish(self) -> TwistedProtocolConnection:
        """One attempt: connect, and bring everything back."""
        self.tell("recovering")
        try:
            connection = await connecting.connect_any(
                self._places, self._make, self.reactor, self._options
            )
            recovering = defer.Deferred.fromCoroutine(self._recover(connection))
            try:
                await recovering.addTimeout(self._recovery_timeout, self.reactor)
                if connection.is_closed:
                    raise fresh_exception(await connection.when_closed())
            except BaseException:
                self.connection = None
                self._keep_connection(connection)
                connecting.drop(connection)
                raise
        except (Exception, asyncio.CancelledError) as why:
            if self.running:  # else it was cancelled by the end of the service
                self.failed_attempts += 1
                self.trouble = fresh_exception(why)
                self._failed_in_a_row += 1
                if self._failed_in_a_row == 1:
                    # Twisted's log has each, but is seen only where it is begun; a warning always.
                    LOGGER.warning("No usable connection to %s: %s; trying again", self._name, why)
                self.tell("recovery failed", why)
            raise
        self._on_connected(connection)
        return cast(TwistedProtocolConnection, connection)

    async def _recover(self, connection: Any) -> None:
        connection.add_on_connection_blocked_callback(
            lambda _connection, frame: self.tell("blocked", frame.method.reason)
        )
        connection.add_on_connection_unblocked_callback(lambda *_: self.tell("unblocked"))
        if self._setup is not None:
            await connecting.maybe_await(self._setup(await connection.channel()))
        declaring = await connection.channel()
        await self.recorder.declare_on(declaring, self._on_renamed)
        declaring.close()
        self.connection = connection  # channels made from now on see to themselves
        for channel in list(self._channels):
            await channel.recover_on(connection)

    def _on_renamed(self, old: str, new: str) -> None:
        self.tell("queue renamed", old, new)

    def _on_connected(self, connection: Any) -> None:
        self.connection = connection
        self.trouble = None
        self._failed_in_a_row = 0
        connection.when_closed().addCallback(self._on_lost, connection)
        self._end_down_time()
        first, self._connected_before = not self._connected_before, True
        self.reconnects += not first
        # Later: then ClientService knows of the connection, and may be told to stop.
        self.reactor.callLater(0, self.tell, "connected" if first else "recovered", connection)

    def _on_lost(self, reason: Any, connection: Any) -> None:
        self._keep_connection(connection)
        if connection is self.connection:
            self.connection = None
        self.trouble = fresh_exception(reason)
        if self.running:
            self._begin_down_time()
            self.tell("lost", reason)


__all__ = ["EVENTS", "Link", "RecoveringService"]
