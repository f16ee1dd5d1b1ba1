"""`connect()`: one ready connection, or one typed reason why there is none."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pika import exceptions as pika_exceptions
from pika.connection import Parameters
from twisted.internet import defer
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater

from pika_twisted.protocol import TwistedProtocolConnection
from pika_twisted.transport.sockets import abort, set_options

from .failures import explain
from .targets import Place, places

__all__ = ["Connecting", "connect"]

LOGGER = logging.getLogger("pika_twisted")

#: The same answer would come again, and some brokers lock accounts.
_FINAL = (
    pika_exceptions.ProbableAuthenticationError,
    pika_exceptions.ProbableAccessDeniedError,
    pika_exceptions.AuthenticationError,
    TypeError,  # an option that the protocol's class doesn't take
    ValueError,
)


if TYPE_CHECKING:
    _Deferred = defer.Deferred[TwistedProtocolConnection]
else:
    _Deferred = defer.Deferred  # not generic at run time in Twisted 22.10


class Connecting(_Deferred):
    """What `connect()` returns; `async with` waits for it, and closes the connection at the end."""

    async def __aenter__(self) -> TwistedProtocolConnection:
        connection: TwistedProtocolConnection = await self
        self._connection = connection
        return connection

    async def __aexit__(self, *_exc_info: object) -> None:
        await self._connection.__aexit__()


def connect(
    target: Any = None,
    *,
    parameters: Parameters | None = None,
    tls: Any = None,
    reactor: Any = None,
    protocol: Callable[..., TwistedProtocolConnection] = TwistedProtocolConnection,
    **options: Any,
) -> Connecting:
    """Connect to a broker and open an AMQP connection.

    For example::

        async with pika_twisted.connect("amqps://user:password@host/vhost") as connection:
            channel = await connection.channel()

    Of pika's parameters all count here: host and port (through `HostnameEndpoint`: every address of
    the name is tried), TLS options, `socket_timeout` for TCP, `stack_timeout` for the whole of one
    attempt, `connection_attempts` and `retry_delay`, `tcp_options`.

    :param target: an amqp or amqps URL, `pika.ConnectionParameters` or `URLParameters`, a Twisted
        client endpoint, or a list of these, tried in shuffled order; pika's defaults when None
    :param parameters: login, virtual host and the like for endpoints
    :param tls: options that `twisted.internet.ssl.optionsForClientTLS()` gives, instead of those in
        `target`; True for TLS that verifies the host against the platform's authorities
    :param reactor: the default reactor when None
    :param protocol: the class to make, or what makes one: called with `(parameters, reactor,
        **options)`
    :param options: keyword arguments of `TwistedProtocolConnection`
    :returns: a Deferred that fires with the ready `TwistedProtocolConnection`. Cancelled, it closes
        whatever was opened. It fails with ConnectionRefused, ConnectionTimedOut, HostNotFound or
        TLSFailed (all ConnectFailed), with ProbableAuthenticationError for the login and
        ProbableAccessDeniedError for the virtual host, or another AMQPConnectionError: with the
        last one where several places or attempts failed; its `attempts` has all. TypeError,
        ValueError and OSError are about the arguments.
    """
    running = defer.Deferred.fromCoroutine(
        _connect(target, parameters, tls, reactor, protocol, options)
    )
    connecting = Connecting(lambda _: running.cancel())
    running.addBoth(lambda result: None if connecting.called else connecting.callback(result))
    return connecting


async def _connect(
    target: Any, parameters: Any, tls: Any, reactor: Any, make: Any, options: dict[str, Any]
) -> TwistedProtocolConnection:
    if reactor is None:
        from twisted.internet import reactor
    found = places(target, parameters, tls, reactor)
    connection: TwistedProtocolConnection = await connect_any(found, make, reactor, options)
    return connection


async def connect_any(
    found: list[Place], make: Callable[..., Any], reactor: Any, options: dict[str, Any]
) -> Any:
    """Try places in shuffled order until one gives a ready connection."""
    waiting = random.sample(found, len(found))
    failed: list[tuple[str, BaseException]] = []
    number = 0
    while waiting:
        again = []
        for place in waiting:
            try:
                return await attempt(place, make, reactor, options)
            except defer.CancelledError:
                raise  # an Exception of Twisted's, but no reason to try the next place
            except Exception as why:
                LOGGER.info("Connecting to %s failed: %s", place, why)
                failed.append((place.name, why))
                if number + 1 < place.attempts and not isinstance(why, _FINAL):
                    again.append(place)
        number += 1
        waiting = again
        if waiting:
            await deferLater(reactor, max(place.retry_delay for place in waiting))
    last = failed[-1][1]
    last.attempts = failed  # type: ignore[attr-defined]
    raise last


async def attempt(
    place: Place, make: Callable[..., Any], reactor: Any, options: dict[str, Any]
) -> Any:
    """One attempt at one place: TCP, TLS, AMQP; a ready connection or a typed reason."""
    connection = make(place.parameters, reactor, **options)
    once = _Once(connection)
    opening = defer.Deferred.fromCoroutine(_open(place, connection, once))
    if place.timeout is not None:
        opening.addTimeout(place.timeout, reactor)
    try:
        await opening
    except defer.CancelledError:
        raise
    except Exception as why:
        known = connection._impl.close_reason  # pika's state machine may have wrapped it
        if isinstance(known, Exception) and isinstance(why, pika_exceptions.AMQPError):
            why = known
        raise explain(why, place.name, once.stage, place.timeout) from None
    return connection


async def _open(place: Place, connection: Any, once: _Once) -> None:
    try:
        await _connect_transport(place, once)
        once.stage = "the AMQP handshake"
        if place.encrypted:
            once.stage = "the TLS or AMQP handshake"
        set_options(connection.transport, place.parameters.tcp_options)
        ready = connection.ready  # asked now: TCP may have been connected and lost in one call
        await (ready if ready is not None else connection.when_ready())
    except BaseException:
        drop(connection)
        raise


def _connect_transport(place: Place, once: _Once) -> defer.Deferred[None]:
    """Like the endpoint's `connect()`, but a cancel gives CancelledError.

    HostnameEndpoint makes DNSLookupError of it, others ConnectingCancelledError.
    """
    cancelled = []

    def cancel(_outer: Any) -> None:
        cancelled.append(True)
        inner.cancel()

    def follow(result: Any) -> None:
        if not cancelled and not outer.called:
            outer.callback(result)

    outer: defer.Deferred[Any] = defer.Deferred(cancel)
    inner = place.endpoint.connect(once)
    inner.addBoth(follow)
    return outer


class _Once(Factory):
    """Gives an endpoint the one protocol that was made for it."""

    noisy = False

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        #: How far it has come, for the text of a timeout.
        self.stage = "the TCP connection"

    def buildProtocol(self, addr: Any) -> Any:
        """Called by the endpoint once it is connected."""
        self.connection.factory = self
        return self.connection


async def maybe_await(result: Any) -> Any:
    """What a user's function returned: a coroutine's or a Deferred's result, else itself."""
    return await result if hasattr(result, "__await__") else result


def drop(connection: Any) -> None:
    """Leave nothing of a connection that nobody will own."""
    ready = connection.ready
    if ready is not None:
        ready.addErrback(lambda _: None)  # it is told that it was cancelled; we know
        ready.cancel()
    transport = connection.transport
    if transport is not None:
        abort(transport)
