"""`RecoveringService`: a connection that comes back, with everything that was on it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any, Literal

from pika.connection import Parameters
from twisted.application.internet import ClientService, backoffPolicy
from twisted.internet import defer
from twisted.internet.task import deferLater

from pika_twisted._arguments import check_callable, check_seconds, check_some_seconds
from pika_twisted.channel.channel import TwistedChannel
from pika_twisted.channel.queue import ReceivedMessage
from pika_twisted.connecting.connect import connect_any
from pika_twisted.connecting.options import ServiceOptions, check_options
from pika_twisted.connecting.targets import places
from pika_twisted.consuming.handlers import Handling, consume
from pika_twisted.deferreds.containers import OrderedSet
from pika_twisted.deferreds.waiters import Waiters
from pika_twisted.exceptions import NotConnected
from pika_twisted.protocol import TwistedProtocolConnection
from pika_twisted.publisher import Publisher
from pika_twisted.stats import ServiceStats
from pika_twisted.transport.read_gate import WaterMarks

from .attempts import Attempts, Login
from .channel import RecoveringChannel
from .client_service import Link, LinkEndpoint, LinkFactory
from .consumer import RecoveringConsumer
from .entities import Entity
from .events import EVENTS, EventName, Events
from .life import Life, Phase
from .oversized import CLOSE, REJECT, Oversized
from .publisher import RecoveringPublisher
from .recorder import Recorder
from .recovery import Recovery
from .suspects import Suspects
from .totals import Totals

if TYPE_CHECKING:
    from typing_extensions import Unpack

LOGGER = logging.getLogger("pika_twisted")

_MARKS = WaterMarks()

WAIT: Literal["wait"] = "wait"
FAIL: Literal["fail"] = "fail"
RESEND: Literal["resend"] = "resend"


class RecoveringService(ClientService):
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

    On each new connection exchanges, queues and bindings are declared, channels opened, prefetch
    and confirm mode set and consumers subscribed again, from what was called on the channels of
    this service. What the broker refuses then is told by the event "refused" and in the log, stands
    in `stats()`, and is asked for again by itself, after a pause that grows from 0.1 to 30 s; the
    rest goes on without it. A consumer whose Basic.Consume makes the broker close the whole
    connection ends, and its queue object fails with the reason.

    Losses are WARNING in Python's `logging` (logger "pika_twisted"), what is refused is ERROR,
    connections and what comes back are INFO.

    :param target: as of `connect()`, a function included, which is called at each attempt; one of
        several brokers is chosen anew each time
    :param parameters: as of `connect()`
    :param credentials: as of `connect()`. Where neither this nor `target` nor `parameters` is a
        function, a secret that the broker took by `update_secret()` is used from then on
    :param tls: as of `connect()`
    :param setup: called on each connection with a TwistedChannel of its own, before anything else
        is declared; may return a Deferred or a coroutine; a failure counts as a failed connection
    :param retry_policy: as ClientService's: called with the number of attempts in a row that have
        failed, or led to a connection that was lost within 10 s, it gives the seconds until the
        next one. Default is 0.2 s doubling to 30 s, plus up to 1 s
    :param call_timeout: seconds that a call of a channel may take, waiting for a connection and
        being made again after a loss included; None for no limit
    :param recovery_timeout: seconds without an answer after which a new connection is given up
        while it is declared and subscribed on
    :param drain_timeout: seconds that `stopService()` gives handlers and publishers to finish
    :param water_marks: as of TwistedProtocolConnection, but on by default
    :param oversized: what becomes of a message for a consumer that is larger than
        `max_message_size`: "close" closes its channel, which is opened again after a pause that
        grows, and the message stays in its queue; "reject" rejects it, so that it is dead-lettered
        if its queue has a dead-letter exchange, and dropped else. Both tell "message too large"
    :param protocol: the class to make, or what makes one: called with `(parameters, reactor,
        **options)`
    :param reactor: the default reactor when None
    :param options: further keyword arguments of TwistedProtocolConnection
    """

    def __init__(
        self,
        target: Any = None,
        *,
        parameters: Parameters | Callable[[], Any] | None = None,
        credentials: Any = None,
        tls: Any = None,
        setup: Callable[[TwistedChannel], Any] | None = None,
        retry_policy: Callable[[int], float] | None = None,
        call_timeout: float | None = 30.0,
        recovery_timeout: float = 60.0,
        drain_timeout: float = 10.0,
        water_marks: WaterMarks | None = _MARKS,
        oversized: Literal["close", "reject"] = CLOSE,
        protocol: Callable[..., TwistedProtocolConnection] = TwistedProtocolConnection,
        reactor: Any = None,
        **options: Unpack[ServiceOptions],
    ) -> None:
        check_seconds(call_timeout=call_timeout)
        check_callable(setup=setup, retry_policy=retry_policy)
        check_some_seconds(recovery_timeout=recovery_timeout, drain_timeout=drain_timeout)
        if oversized not in (CLOSE, REJECT):
            raise ValueError(f'oversized is "close" or "reject", not {oversized!r}')
        if reactor is None:
            from twisted.internet import reactor
        self.reactor = reactor
        self.call_timeout = call_timeout
        self.drain_timeout = drain_timeout
        self.water_marks = water_marks
        #: The connection in use, or None.
        self.connection: TwistedProtocolConnection | None = None
        #: Why there is none: how the last attempt failed, or the last connection ended.
        self.trouble: BaseException | None = None
        login = Login(credentials, asked=callable(target) or callable(parameters))
        settings: dict[str, Any] = {"water_marks": water_marks, **options}
        # Made once, so that a wrong argument fails here and not in each attempt.
        found = places(target, parameters, tls, reactor, login.credentials)
        if protocol is TwistedProtocolConnection:
            check_options(settings)
            protocol(None, reactor, **settings)
        self._name = ", ".join(map(str, found))
        self._events = Events(self)
        self._totals = Totals(reactor)
        self._oversized = Oversized(self._events, oversized)
        self._recovery = Recovery(reactor, self._events, self._run, self._retry_consumer)
        self._attempts = Attempts(
            self,
            lambda: connect_any(found, protocol, reactor, settings),
            login,
            setup,
            recovery_timeout,
            retry_policy or backoffPolicy(0.1, 30.0, 2.0),
        )
        self._suspects = Suspects()
        self._running = OrderedSet()
        self._phase = Phase.STOPPED
        self._life = Life()
        #: Of a service that was started again while it stops.
        self._next_life: Life | None = None
        self._stop_waiters = Waiters()
        self._shutdown_trigger: Any = None
        ClientService.__init__(
            self,
            LinkEndpoint(self._name, self._attempts.establish),  # type: ignore[arg-type]
            LinkFactory(),  # type: ignore[arg-type]
            retryPolicy=self._attempts.pause,
            clock=reactor,
        )

    def __repr__(self) -> str:
        state = "connected" if self.connection is not None else "not connected"
        return f"<RecoveringService {self._name}: {state}>"

    # For users

    @property
    def recorder(self) -> Recorder:
        """What was declared and bound on the channels of this service."""
        return self._recovery.recorder

    @property
    def reconnects(self) -> int:
        """Connections after the first."""
        return self._totals.reconnects

    @property
    def failed_attempts(self) -> int:
        """Attempts that led to no connection."""
        return self._totals.failed_attempts

    @property
    def dropped(self) -> int:
        """Messages dropped from consumers' queues, to be delivered again."""
        return self._totals.dropped

    def stats(self) -> ServiceStats:
        """Return what this service has done since its start, in numbers."""
        return self._totals.stats(self.connection, self._entities())

    def add_callback(self, event: EventName, callback: Callable[..., Any]) -> None:
        """Call `callback` on each `event`. What it raises, and every event, is in Twisted's log.

        The events, with what callbacks are called with: "connected" (connection), "lost" (reason),
        "recovering", "recovered" (connection), "recovery failed" (reason), "blocked" (reason),
        "unblocked", "consumer cancelled" (consumer_tag, reason), "queue renamed" (old, new),
        "refused" (entity, reason), "restored" (entity), "message too large" (consumer_tag, size,
        limit).

        "connected" is the first connection, "recovered" each later one, with everything on it that
        the broker has agreed to. "refused" is told for each exchange, queue, binding and consumer
        that the broker refuses to have again, once, and once more for each other reason;
        "restored" when it is there after all. Their `entity` is an `EntityStatus`.

        :param event: the name of the event
        :param callback: called with the values of the event
        :raises ValueError: there is no such event
        :raises TypeError: the callback can't be called
        """
        self._events.add_callback(event, callback)

    def channel(
        self,
        *,
        prefetch_count: int | None = None,
        confirm: bool = False,
        ack_batching: int = 1,
        ack_delay: float = 0,
        setup: Callable[[TwistedChannel], Any] | None = None,
    ) -> RecoveringChannel:
        """Make a channel that is opened again on each connection; usable at once, its calls wait.

        :param prefetch_count: as of `basic_qos()`; None sets nothing
        :param confirm: whether to put it into confirm mode
        :param ack_batching: as of `TwistedChannel`, on each connection; so is `ack_delay`
        :param ack_delay: seconds, see `ack_batching`
        :param setup: called with the TwistedChannel each time one was opened
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

        :param queue: the name of the queue
        :param handler: as of the function `consume()`
        :param options: as of the function `consume()`, and `ack_batching` and `ack_delay`, as of
            `channel()`; with a delay let `prefetch_count` be four times `ack_batching`, or more
        :returns: a Deferred that fires with the `Handling`, which goes on over lost connections. It
            waits for the first connection as long as it takes. It fails with the broker's reason,
            which is logged as an ERROR too, when the broker refuses.
        """
        channel = self.channel(
            ack_batching=options.pop("ack_batching", 1), ack_delay=options.pop("ack_delay", 0)
        )
        channel.call_timeout = None  # a worker that is started before its broker works all the same
        life = self._collecting
        starting = consume(channel, queue, handler, reactor=self.reactor, **options)

        def started(handling: Handling) -> Handling:
            life.handlings.add(handling)
            self._totals.handlings.add(handling)
            handling.when_stopped().addErrback(lambda _: None).addBoth(ended, handling)
            return handling

        def ended(_result: Any, handling: Handling) -> None:
            life.discard(handling)
            self._totals.keep_handling(handling)
            channel.close()

        def failed(failure: Any) -> Any:
            stopped = self._phase is not Phase.RUNNING and failure.check(NotConnected)
            if not stopped and not failure.check(defer.CancelledError):
                LOGGER.error("Consuming from %r could not be begun: %s", queue, failure.value)
            channel.close()
            return failure

        return starting.addCallbacks(started, failed)

    def publisher(
        self,
        *,
        when_down: Literal["wait", "fail"] = WAIT,
        when_lost: Literal["fail", "resend"] = FAIL,
        **options: Any,
    ) -> Publisher:
        """Make a `Publisher` on a channel of its own, on one connection after the other.

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
        life = self._collecting

        def ended(publisher: Publisher) -> None:
            life.discard(publisher)
            self._totals.keep_publisher(publisher)
            channel.close()

        publisher = RecoveringPublisher(
            wait_when_down=when_down == WAIT,
            resend_when_lost=when_lost == RESEND,
            why_down=self._why_down,
            on_end=ended,
            reactor=self.reactor,
            **options,
        )
        life.publishers.add(publisher)
        self._totals.publishers.add(publisher)
        channel._on_open = publisher.go_on
        self._add_channel(channel)
        return publisher

    def when_ready(self) -> defer.Deferred[TwistedProtocolConnection]:
        """Return a Deferred that fires with the connection when it is there and recovered.

        It fails with CancelledError when the service stops.
        """
        return self.whenConnected()

    def whenConnected(  # noqa: N802
        self,
        failAfterFailures: int | None = None,  # noqa: N803
    ) -> defer.Deferred[Any]:
        """As ClientService's: fires with the TwistedProtocolConnection.

        :param failAfterFailures: after so many failed attempts it fails with the last reason
        """
        ask = super().whenConnected
        connected = self._next_turn(None)
        connected.addCallback(lambda _: ask(failAfterFailures))
        connected.addCallback(lambda link: link.connection)
        return connected.addBoth(self._next_turn)

    def _next_turn(self, result: Any) -> defer.Deferred[Any]:
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
        if self._phase is Phase.STOPPING:
            self._phase, self._next_life = Phase.RESTARTING, Life()
        if self._phase is not Phase.STOPPED:
            return
        self._phase = Phase.RUNNING
        if self.parent is None:
            # Alone, nothing else would stop it in good order. An Application does.
            self._shutdown_trigger = self.reactor.addSystemEventTrigger(
                "before", "shutdown", self._stop_with_reactor
            )
        self._totals.begin_down_time()
        super().startService()

    def _stop_with_reactor(self) -> Any:
        self._shutdown_trigger = None
        return self.stopService() if self.running else None

    def stopService(self) -> defer.Deferred[None]:  # noqa: N802
        """Stop consuming, let handlers and publishers finish, settle, close.

        Its channels are closed for good, what was declared on them is forgotten; a service that is
        started again begins with new ones.

        :returns: a Deferred that fires when the connection is closed: at the latest after
            `drain_timeout`, 1 s more where a handler goes on although it was cancelled, and
            `close_timeout` of the connection where the broker is silent
        """
        trigger, self._shutdown_trigger = self._shutdown_trigger, None
        if trigger is not None:
            self.reactor.removeSystemEventTrigger(trigger)
        stopped: defer.Deferred[None] = self._stop_waiters.wait()  # cancelled, the rest goes on
        if self._phase is Phase.RESTARTING:
            late, self._next_life = self._next_life, None
            if late is not None:
                self._end_life(late)
        if self._phase in (Phase.STOPPING, Phase.RESTARTING):
            self._phase = Phase.STOPPING
            return stopped
        self._phase = Phase.STOPPING
        defer.Deferred.fromCoroutine(self._stop()).addBoth(self._on_stopped)
        return stopped

    async def _stop(self) -> None:
        life = self._life
        deadline = self.reactor.seconds() + self.drain_timeout
        await defer.DeferredList([each.stop(self.drain_timeout) for each in list(life.handlings)])
        if self.connection is not None:
            for publisher in list(life.publishers):
                left = max(0.0, deadline - self.reactor.seconds())
                flushing = publisher.flush().addTimeout(left, self.reactor)
                await flushing.addErrback(lambda _: None)
        self._end_life(life)
        for running in list(self._running):
            running.cancel()
        # This may be an event's callback, within ClientService's state machine.
        await self._next_turn(None)
        self._totals.end_down_time()
        await super().stopService()
        await self._next_turn(None)

    def _end_life(self, life: Life) -> None:
        """Close what is left of a life."""
        stopped = NotConnected("The service is stopped")
        for publisher in list(life.publishers):
            publisher.close(stopped)
        for channel in list(life.channels):
            channel._shut(stopped)
            life.discard(channel)

    def _on_stopped(self, result: Any) -> None:
        restarting = self._phase is Phase.RESTARTING
        self._end_life(self._life)  # what was made while it stopped
        self._recovery.forget()
        self._phase = Phase.STOPPED
        self._life, self._next_life = self._next_life or Life(), None
        if restarting:
            self.startService()
        self._stop_waiters.fire(result)

    # For the channels of this service

    @property
    def _collecting(self) -> Life:
        """The life to which what is made now belongs."""
        return self._next_life or self._life

    @property
    def _channels(self) -> OrderedSet:
        return self._collecting.channels

    @property
    def _callbacks(self) -> dict[str, list[Callable[..., Any]]]:
        return self._events.callbacks

    def _entities(self) -> Iterator[Entity]:
        """All that was recorded, consumers included."""
        yield from self.recorder
        for channel in list(self._life.channels):
            yield from channel.subscriptions

    def _why_down(self) -> BaseException | None:
        if self.connection is not None:
            return None
        if self.trouble is None and not self.running:
            return NotConnected("startService() was not called")
        return self.trouble

    def _run(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Run something that the end of the service cancels."""
        running = defer.Deferred.fromCoroutine(coroutine)
        self._running.add(running)

        def ended(result: Any) -> None:
            self._running.discard(running)

        running.addBoth(ended)

    def _forget(self, channel: RecoveringChannel) -> None:
        """Forget a channel that was closed for good."""
        self._life.discard(channel)
        if self._next_life is not None:
            self._next_life.discard(channel)

    def _end_consumers_of(self, queue: str) -> None:
        """Note that a queue was deleted by this client."""
        for channel in list(self._life.channels):
            channel._end_consumers_of(queue)

    def _on_consumer_ended(self, queue: str) -> None:
        """Note that a consumer was cancelled by this client, or its channel closed for good."""
        name = self.recorder.current_name(queue)
        if not any(each._consumes_from(name) for each in self._life.channels):
            self.recorder.on_last_consumer_ended(name)

    async def _retry_consumer(self, connection: Any, consumer: RecoveringConsumer) -> None:
        await consumer.owner.retry(connection, consumer)

    def _watch_sizes(self, channel: TwistedChannel) -> None:
        """Look after messages that are too large for a channel."""
        self._oversized.watch(channel)

    # The connection

    def _add_channel(self, channel: RecoveringChannel) -> None:
        self._channels.add(channel)
        connection = self.connection
        restarting = self._next_life is not None  # the next connection will have it
        if connection is not None and connection.is_open and not restarting:
            channel._opening.open_on(connection)


__all__ = ["EVENTS", "Link", "RecoveringService"]
