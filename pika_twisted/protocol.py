"""`TwistedProtocolConnection`: an AMQP connection as a Twisted protocol."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pika.connection
from pika import exceptions as pika_exceptions
from pika import frame, spec
from pika.credentials import PlainCredentials
from twisted.internet import defer, protocol
from twisted.protocols.policies import ProtocolWrapper
from twisted.python.failure import Failure

from pika_twisted.channel.channel import TwistedChannel
from pika_twisted.channel.queue import ReceivedMessage
from pika_twisted.deferreds.containers import OrderedSet
from pika_twisted.deferreds.waiters import Waiters
from pika_twisted.pika_state.connection import Connection
from pika_twisted.pika_state.timers import _TimerHandle
from pika_twisted.transport.read_gate import WaterMarks
from pika_twisted.transport.sockets import tune
from pika_twisted.transport.write_drain import WriteDrain

from ._arguments import check_parameters, check_seconds, check_whole
from ._guard import guarded
from ._reasons import as_exception, fresh_exception
from .exceptions import Reason, reason
from .stats import ConnectionStats, of_connection

__all__ = ["TwistedProtocolConnection", "_TimerHandle", "_TwistedConnectionAdapter"]


class _TwistedConnectionAdapter(Connection):
    """pika's connection, under the name that pika's own adapter gives it."""

    message_class = ReceivedMessage


class TwistedProtocolConnection(protocol.Protocol):
    """An AMQP 0-9-1 connection over a transport that Twisted connects.

    Use it with any client endpoint, `connectTCP` or `connectSSL`; host, port and TLS of the
    parameters are therefore not looked at. `ready` is a Deferred that fires with this object when
    the handshake is done, and fails with the typed reason if it isn't. Then `closed` is a Deferred
    that fires with the reason, an exception, when the connection ends. Both are None once they have
    fired; `when_ready()` and `when_closed()` answer at any time.

    :param parameters: credentials, virtual host, heartbeat and the like; pika's defaults when None
    :param custom_reactor: for timers; default is the transport's reactor
    :param direct_delivery: let the decoder put messages into their queues itself; False sends every
        frame through pika's state machine, which is slower and gives the same results
    :param buffer_size: bytes to read at a time (`transport.bufferSize`); 0 leaves the transport's
    :param max_message_size: bytes of a body; a larger message closes its channel with 311
    :param max_header_size: bytes of a content header frame; RabbitMQ doesn't fit them to frame_max
    :param max_nesting: how deep tables and arrays in headers may be nested
    :param handshake_timeout: seconds from the connected transport to `ready`; 0 for no limit
    :param close_timeout: seconds that the broker has to answer `close()`
    :param water_marks: stop reading while a consumer's queue is above them; None never stops
    :param read_interval: seconds to let pass after a read that brought messages, unless something
        waits for the broker: less CPU, more throughput, messages come that much later. None: 1 ms
        amid a flood of messages, else nothing; 0: never
    """

    def __init__(
        self,
        parameters: pika.connection.Parameters | None = None,
        custom_reactor: Any = None,
        *,
        direct_delivery: bool = True,
        buffer_size: int = 256 * 1024,
        max_message_size: int = 128 << 20,
        max_header_size: int = 1 << 20,
        max_nesting: int = 100,
        handshake_timeout: float = 15.0,
        close_timeout: float = 10.0,
        water_marks: WaterMarks | None = None,
        read_interval: float | None = None,
    ) -> None:
        check_parameters(parameters)
        check_seconds(
            handshake_timeout=handshake_timeout,
            close_timeout=close_timeout,
            read_interval=read_interval,
        )
        check_whole(
            buffer_size=buffer_size,
            max_message_size=max_message_size,
            max_header_size=max_header_size,
            max_nesting=max_nesting,
        )
        self.ready: defer.Deferred[Any] | None = defer.Deferred(self._on_ready_cancelled)
        self.ready.addCallback(lambda _: self.connectionReady())
        self.ready.addBoth(self._on_ready_fired)
        self._own_ready = self.ready
        self.closed: defer.Deferred[Any] | None = None
        #: The login with the secret that the broker took last by `update_secret()`, or None.
        self.renewed_credentials: PlainCredentials | None = None
        self._calls: Any = OrderedSet()
        self._buffer_size = buffer_size
        self._failure_observed = False  # a failure is reported without `ready`
        self._ready_waiters = Waiters()
        self._closed_waiters = Waiters()
        self._drain: WriteDrain | None = None
        self._impl = _TwistedConnectionAdapter(
            parameters,
            self._on_connection_ready,
            self._on_connection_failed,
            self._on_connection_closed,
            custom_reactor,
            direct_delivery=direct_delivery,
            max_message_size=max_message_size,
            max_header_size=max_header_size,
            max_nesting=max_nesting,
            handshake_timeout=handshake_timeout,
            close_timeout=close_timeout,
            water_marks=water_marks,
            read_interval=read_interval,
        )

    def __repr__(self) -> str:
        if self.transport is None:
            return f"<{type(self).__name__}: not connected>"
        transport = cast(Any, self.transport)
        try:
            peer = transport.getPeer()  # IAddress has neither host nor port
        except NotImplementedError:  # that of a ProcessEndpoint
            peer = transport
        where = f"{peer.host}:{peer.port}" if hasattr(peer, "host") else peer
        states = ("open", "closing", "closed")
        state = next((each for each in states if getattr(self._impl, f"is_{each}")), "opening")
        return f"<{type(self).__name__} to {where}: {state}>"

    # State

    @property
    def is_open(self) -> bool:
        """Whether channels can be opened."""
        return cast(bool, self._impl.is_open)

    @property
    def is_closed(self) -> bool:
        """Whether the connection is closed, by whichever side."""
        return cast(bool, self._impl.is_closed)

    @property
    def is_blocked(self) -> bool:
        """Whether the broker has said Connection.Blocked: it takes no publishes for now."""
        return self._impl.is_blocked

    @property
    def paused_seconds(self) -> float:
        """How long reading was paused by full consumer queues so far (see `water_marks`)."""
        return self._impl.gate.paused_seconds

    def when_ready(self) -> defer.Deferred[TwistedProtocolConnection]:
        """A new Deferred that fires with this object when it is ready, at any time.

        It fails with the reason when the connection has ended. Cancelling it cancels nothing else.
        """
        self._failure_observed = True
        return self._ready_waiters.wait()

    def when_closed(self) -> defer.Deferred[Reason]:
        """A new Deferred that fires with the reason when the connection has ended, at any time.

        The reason is an exception with `reply_code` and `reply_text`, of pika's class and Twisted's
        at once: a `pika.exceptions.ConnectionClosed`, say, which is a `ConnectionDone`.

        Cancelling it cancels nothing else.
        """
        return self._closed_waiters.wait()

    def drained(self) -> defer.Deferred[None]:
        """A Deferred that fires when the transport can take more without piling it up.

        A publisher that waits for it after each batch keeps what is unsent in memory small. It
        fails with the reason when the connection ends first.
        """
        self._impl.flush()  # within which the transport may end
        if self._drain is None:
            return defer.fail(self._not_open())
        return self._drain.wait()

    def stats(self) -> ConnectionStats:
        """What this connection has done so far, in numbers.

        Once it is closed all are 0 but `paused_seconds`, which stays what it was at the end.
        """
        return of_connection(self._impl)

    # Doing

    def connectionReady(self) -> Any:
        """Called when the handshake is done; `ready` fires with its result.

        To be overridden; may return a Deferred.
        """
        return self

    def channel(self, channel_number: int | None = None) -> defer.Deferred[TwistedChannel]:
        """Open a channel.

        :param channel_number: better left to the library; must not be in use
        :returns: a Deferred that fires with a `TwistedChannel`. It fails with
            ChannelClosedByBroker or the connection's reason when one ends first, with
            ConnectionWrongStateError when the connection is not open, with InvalidChannelNumber
            or NoFreeChannels. Cancelled, the channel is closed when it has opened.
        """
        inner: defer.Deferred[Any] = defer.Deferred()
        outer: defer.Deferred[Any] = defer.Deferred()

        def opened(pika_channel: Any) -> None:
            channel = TwistedChannel(pika_channel)
            if outer.called:
                channel.close()  # its Deferred was cancelled: it has no owner
            if not inner.called:
                inner.callback(channel)

        def ended(_pika_channel: Any, why: BaseException) -> None:
            if not inner.called:
                inner.errback(fresh_exception(why))

        def follow(result: Any) -> None:
            self._calls.discard(inner)
            if not outer.called:
                outer.callback(result)

        try:
            pika_channel = self._impl.channel(channel_number, opened)
        except Exception:
            why = self._impl.close_reason
            return defer.fail(self._not_open() if isinstance(why, BaseException) else None)
        self._calls.add(inner)
        inner.addBoth(follow)
        if not inner.called:
            if isinstance(pika_channel.close_reason, BaseException):  # within write()
                ended(pika_channel, pika_channel.close_reason)
            else:
                pika_channel.add_on_close_callback(ended)
        return outer

    def _not_open(self) -> BaseException:
        """What a call on a connection that isn't open fails with; its cause says why."""
        error = pika_exceptions.ConnectionWrongStateError(f"The connection is not open: {self!r}")
        why = self._impl.close_reason
        if isinstance(why, BaseException):
            error = pika_exceptions.ConnectionWrongStateError(f"The connection is closed: {why}")
            error.__cause__ = why
        return error

    def update_secret(
        self, new_secret: str, reason: str
    ) -> defer.Deferred[frame.Method[spec.Connection.UpdateSecretOk]]:
        """Give the broker a new password or token (Connection.UpdateSecret, RabbitMQ).

        :returns: a Deferred that fires with the frame of Connection.UpdateSecretOk
        """
        deferred: defer.Deferred[Any] = defer.Deferred(self._calls.discard)

        def updated(method_frame: frame.Method[Any]) -> None:
            self._calls.discard(deferred)
            username = getattr(self._impl.params.credentials, "username", "")
            self.renewed_credentials = PlainCredentials(username, new_secret)
            if not deferred.called:
                deferred.callback(method_frame)

        self._calls.add(deferred)
        try:
            self._impl.update_secret(new_secret, reason, updated)
        except Exception:
            self._calls.discard(deferred)
            return defer.fail()
        return deferred

    def add_on_connection_blocked_callback(
        self, callback: Callable[[TwistedProtocolConnection, frame.Method[Any]], Any]
    ) -> None:
        """Call `callback(connection, method_frame)` when the broker stops taking publishes.

        See pika.connection.Connection.add_on_connection_blocked_callback.
        """
        call = guarded(callback, "blocked callback")
        self._impl.add_on_connection_blocked_callback(
            lambda _impl, method_frame: call(self, method_frame)
        )

    def add_on_connection_unblocked_callback(
        self, callback: Callable[[TwistedProtocolConnection, frame.Method[Any]], Any]
    ) -> None:
        """Call `callback(connection, method_frame)` when the broker takes publishes again."""
        call = guarded(callback, "unblocked callback")
        self._impl.add_on_connection_unblocked_callback(
            lambda _impl, method_frame: call(self, method_frame)
        )

    def close(
        self, reply_code: int = 200, reply_text: str = "Normal shutdown"
    ) -> defer.Deferred[Reason]:
        """Close the channels, then the connection, as AMQP asks. May be called at any time.

        :returns: `closed`, or where there is none a Deferred like `when_closed()`'s: it fires with
            the reason when the connection has ended
        :raises TypeError, ShortStringTooLong: a code or text that can't be sent; nothing happens
        """
        self._failure_observed = True
        # Taken first: a transport may end within close(). A cancelled `closed` tells nothing.
        result = self.closed
        if result is None or getattr(result, "called", False):
            result = self.when_closed()
        if not self._impl.is_closed:
            self._impl.close(reply_code, reply_text)
        return result

    async def __aenter__(self) -> TwistedProtocolConnection:
        return self

    async def __aexit__(self, *_exc_info: object) -> None:
        """Close, and wait until it is closed."""
        self.close()
        # Not on `closed`, which is the user's: to cancel, to add callbacks to.
        await self.when_closed()

    # IProtocol

    def makeConnection(self, transport: Any) -> None:
        """Start the AMQP handshake on a connected transport."""
        tune(transport, self._buffer_size)
        if isinstance(transport, ProtocolWrapper) and hasattr(transport, "getPeerCertificate"):
            from .transport import hostname_check  # of TLS alone: it imports OpenSSL

            hostname_check.check_wrapped(transport)
        if type(self).dataReceived is _data_received:
            # What that comes down to, without two Python calls for each read.
            vars(self).setdefault("dataReceived", self._impl.inbound.receive)
        self._drain = WriteDrain(transport, self._impl.call_later)
        self._impl.connection_made(transport)
        super().makeConnection(transport)  # type: ignore[no-untyped-call]

    def dataReceived(self, data: bytes) -> None:
        """Take bytes from the transport, cut anywhere. Never raises."""
        self._impl.data_received(data)

    def connectionLost(self, reason: Failure = protocol.connectionDone) -> None:
        """The transport is gone: everything outstanding fails with the reason, `closed` fires."""
        drain, self._drain = self._drain, None
        self._impl.connection_lost(reason)
        # The connection has told everybody by now; this is for one that could not.
        self._fire_closed(reason)
        ready, self.ready = self.ready, None
        if ready is not None and not ready.called:
            self._fail_ready(ready, reason)
        if drain is not None:
            drain.lost(self._closed_waiters.result or reason)

    # What the connection tells us

    def _on_connection_ready(self, _connection: Any) -> None:
        ready, self.ready = self.ready, None
        if ready is not None:
            self.closed = defer.Deferred()
            ready.callback(None)
            if ready is not self._own_ready:  # assigned by a user: nothing says when it is done
                self._on_ready_fired(self)

    def _on_ready_fired(self, result: Any) -> Any:
        """Look at what `ready` came to."""
        if self._closed_waiters.concluded:
            return result  # connectionReady() was still at work when the connection ended
        self._ready_waiters.conclude(result)
        if isinstance(result, Failure) and result.check(defer.CancelledError):
            self._drop()  # while connectionReady() was still at work
        return result

    def _on_ready_cancelled(self, _ready: defer.Deferred[Any]) -> None:
        self.ready = None
        self._drop()

    def _drop(self) -> None:
        """Drop the connection: `ready` was cancelled."""
        kind = pika_exceptions.ConnectionOpenAborted
        self._impl.abort(reason(kind, 0, "ready was cancelled", orderly=False))

    def _on_connection_failed(self, _connection: Any, error: BaseException | None = None) -> None:
        if error is None:
            error = pika_exceptions.AMQPConnectionError(1)
        ready, self.ready = self.ready, None
        if ready is not None and not ready.called:
            self._fail_ready(ready, error)
        self._fire_closed(error)

    def _fail_ready(self, ready: defer.Deferred[Any], why: Any) -> None:
        ready.errback(why)
        if self._failure_observed:
            # The caller has the reason: "unhandled" in the log would be noise.
            ready.addErrback(lambda _failure: None)

    def _on_connection_closed(self, _connection: Any, why: Any) -> None:
        for call in self._calls.take():
            if not call.called:
                call.errback(fresh_exception(why))
        self._fire_closed(why)

    def _fire_closed(self, why: Any) -> None:
        """Tell everybody who waits for the end."""
        if self._closed_waiters.concluded:
            return
        value = why.value if isinstance(why, Failure) else why
        self._closed_waiters.remember(value)
        closed, self.closed = self.closed, None
        if closed is not None and not closed.called:
            closed.callback(value)
        self._closed_waiters.fire(value)
        self._ready_waiters.conclude(Failure(as_exception(value)))


# As it is here: one that was put into the class itself, to trace what comes, is called, too.
_data_received = TwistedProtocolConnection.dataReceived
