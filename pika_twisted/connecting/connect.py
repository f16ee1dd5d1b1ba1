"""`connect()`: one ready connection, or one typed reason why there is none."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

from pika import exceptions as pika_exceptions
from twisted.internet import defer
from twisted.internet.interfaces import IReactorCore
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater

from pika_twisted.deferreds.tasks import TaskAwaitable, check_reactor
from pika_twisted.protocol import TwistedProtocolConnection
from pika_twisted.transport.sockets import abort, set_options

from .addresses import HostAddresses
from .failures import explain, is_timeout
from .options import ConnectionOptions, check_options
from .shutdown import Shutdown
from .targets import Place, maybe_await, places

__all__ = ["Connecting", "connect", "connect_any", "drop", "maybe_await"]

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
    from typing_extensions import Unpack

    _Base = defer.Deferred[TwistedProtocolConnection]  # what `await` gives, for both checkers
else:
    # Deferred is not generic at run time in Twisted 22.10.
    _Base = type("_Base", (TaskAwaitable, defer.Deferred), {})


class Connecting(_Base):
    """What `connect()` returns; `async with` waits for it, and closes the connection at the end.

    asyncio's tasks await it, too, where Twisted's asyncio reactor runs on their loop.
    """

    #: Where the connection is made.
    reactor: Any = None

    def __await__(self) -> Generator[Any, Any, TwistedProtocolConnection]:
        if not self.called:
            try:
                check_reactor(self.reactor)
            except RuntimeError:
                self.addErrback(lambda failure: failure.trap(defer.CancelledError))
                self.cancel()
                raise
        connection: TwistedProtocolConnection = yield from super().__iter__()
        return connection

    async def __aenter__(self) -> TwistedProtocolConnection:
        connection: TwistedProtocolConnection = await self
        self._connection = connection
        return connection

    async def __aexit__(self, *_exc_info: object) -> None:
        await self._connection.__aexit__()


@overload
def connect(
    target: Any = None,
    *,
    parameters: Any = None,
    credentials: Any = None,
    tls: Any = None,
    reactor: Any = None,
    **options: Unpack[ConnectionOptions],
) -> Connecting: ...


@overload
def connect(
    target: Any = None,
    *,
    parameters: Any = None,
    credentials: Any = None,
    tls: Any = None,
    reactor: Any = None,
    protocol: Callable[..., TwistedProtocolConnection],
    **options: Any,
) -> Connecting: ...


def connect(
    target: Any = None,
    *,
    parameters: Any = None,
    credentials: Any = None,
    tls: Any = None,
    reactor: Any = None,
    protocol: Callable[..., TwistedProtocolConnection] = TwistedProtocolConnection,
    **options: Any,
) -> Connecting:
    """Connect to a broker and open an AMQP connection.

    For example::

        async with pika_twisted.connect("amqps://user:password@host/vhost") as connection:
            channel = await connection.channel()

    Of pika's parameters all count here: host and port (every address of the name is tried, until
    one gives a ready connection), TLS options, `socket_timeout` for TCP, `stack_timeout` for the
    whole of one attempt at one address, `connection_attempts` and `retry_delay`, `tcp_options`.

    When the reactor stops and the connection is still open, its consumers are cancelled, so that
    `async for` ends; then the connection is closed by the program, or 1 s after it has sent
    something last, 10 s at most. What was published and acked has left by then.

    What may be a function is called without arguments at each attempt, and may return a Deferred or
    be a coroutine function: for passwords, tokens and brokers that change.

    :param target: an amqp or amqps URL, `pika.ConnectionParameters` or `URLParameters`, a Twisted
        client endpoint, a function that gives one, or a list of these, tried in shuffled order;
        pika's defaults when None
    :param parameters: `pika.ConnectionParameters` with login, virtual host and the like for
        endpoints, or alone, without a target; or a function. With `ssl_options` an endpoint that
        does no TLS itself gets it
    :param credentials: `pika.PlainCredentials` and the like, or a token as str, instead of those in
        `target` and `parameters`; or a function, which may return None for those
    :param tls: how to encrypt, instead of what `target` says: an `ssl.SSLContext`, which is used as
        it is; `pika.SSLOptions`; what `twisted.internet.ssl.optionsForClientTLS()` gives; True for
        TLS that verifies the host against the platform's authorities; or a function. None and
        False leave it to `target`
    :param reactor: the default reactor when None
    :param protocol: the class to make, or what makes one: called with `(parameters, reactor,
        **options)`
    :param options: keyword arguments of `TwistedProtocolConnection`, see `ConnectionOptions`
    :returns: a Deferred that fires with the ready `TwistedProtocolConnection`. Cancelled, it closes
        whatever was opened. It fails with ConnectionRefused, ConnectionTimedOut, HostNotFound or
        TLSFailed (all ConnectFailed), with ProbableAuthenticationError for the login and
        ProbableAccessDeniedError for the virtual host, or another AMQPConnectionError: with the
        last one where several places or attempts failed; its `attempts` has all, as (where,
        exception). TypeError, ValueError and OSError are about the arguments.
    """
    if reactor is None:
        from twisted.internet import reactor
    running = defer.Deferred.fromCoroutine(
        _connect(target, parameters, credentials, tls, reactor, protocol, options)
    )
    connecting = Connecting(lambda _: running.cancel())
    connecting.reactor = reactor
    running.addBoth(lambda result: None if connecting.called else connecting.callback(result))
    return connecting


async def _connect(
    target: Any,
    parameters: Any,
    credentials: Any,
    tls: Any,
    reactor: Any,
    make: Callable[..., TwistedProtocolConnection],
    options: dict[str, Any],
) -> TwistedProtocolConnection:
    if make is TwistedProtocolConnection:
        check_options(options)
    found = places(target, parameters, tls, reactor, credentials)
    connection: TwistedProtocolConnection = await connect_any(found, make, reactor, options)
    if IReactorCore.providedBy(reactor):  # a Clock never stops
        Shutdown(connection, reactor)
    return connection


async def connect_any(
    found: Sequence[Any], make: Callable[..., Any], reactor: Any, options: Mapping[str, Any]
) -> Any:
    """Try what `targets.places()` found, in shuffled order, until one gives a ready connection.

    After all were tried, those that may be tried again are, `connection_attempts` times.
    """
    failed: list[tuple[str, BaseException]] = []
    final: list[Any] = []
    number = 0
    while True:
        places = [place for each in found for place in await each.resolved()]
        waiting = [place for place in places if place.attempts > number and place not in final]
        for place in random.sample(waiting, len(waiting)):
            try:
                return await attempt(place, make, reactor, options, failed)
            except defer.CancelledError:
                raise  # an Exception of Twisted's, but no reason to try the next place
            except Exception as why:
                LOGGER.info("Connecting to %s failed: %s", place, why)
                failed.append((place.name, why))
                if isinstance(why, _FINAL):
                    final.append(place)
        number += 1
        again = [place for place in waiting if place.attempts > number and place not in final]
        if not again:
            break
        await deferLater(reactor, max(place.retry_delay for place in again))
    if not failed:
        raise ValueError("the list of brokers is empty")
    last = failed[-1][1]
    last.attempts = failed  # type: ignore[attr-defined]
    raise last


async def attempt(
    place: Place,
    make: Callable[..., Any],
    reactor: Any,
    options: Mapping[str, Any],
    failed: list[tuple[str, BaseException]],
) -> Any:
    """One attempt at one place: TCP, TLS, AMQP; a ready connection or a typed reason.

    Where one address of its name fails behind TCP, the next is tried; why is added to `failed`.
    """
    endpoint = place.endpoint()
    while True:
        once = _Once()
        opening = defer.Deferred.fromCoroutine(_open(place, endpoint, once, make, reactor, options))
        if place.timeout is not None:
            opening.addTimeout(place.timeout, reactor)
        try:
            return await opening
        except defer.CancelledError:
            raise
        except Exception as error:
            why = _typed(error, place, once)
            if isinstance(why, _FINAL) or not _has_next_address(endpoint, once):
                raise why from why.__cause__
            LOGGER.info("Connecting to %s at %s failed: %s", place, once.address, why)
            failed.append((f"{place} at {once.address}", why))


def _typed(why: Exception, place: Place, once: _Once) -> BaseException:
    """What an attempt failed with, as the exception for the user."""
    if once.connection is not None:
        known = once.connection._impl.close_reason  # pika's state machine may have wrapped it
        if isinstance(known, Exception) and isinstance(why, pika_exceptions.AMQPError):
            why = known
        connection = once.connection._impl
        return explain(why, place, once.stage, connection.rabbitmq_version, connection.login_size)
    # Else it is of a function of the user's, or about the options.
    return explain(why, place, once.stage) if is_timeout(why) else why


def _has_next_address(endpoint: Any, once: _Once) -> bool:
    """Whether an endpoint has another address than that at which an attempt came to TCP."""
    if once.address is None or not isinstance(endpoint, HostAddresses):
        return False
    endpoint.failed.add(once.address)
    return endpoint.has_more


async def _open(
    place: Place,
    endpoint: Any,
    once: _Once,
    make: Callable[..., Any],
    reactor: Any,
    options: Mapping[str, Any],
) -> Any:
    parameters = await place.login()
    if place.tls is not None:
        from . import tls

        layer = tls.UnlessEncrypted if place.may_be_encrypted else tls.TLSLayer
        endpoint = tls.wrapped(endpoint, await maybe_await(place.tls()), reactor, layer)
    once.connection = connection = make(parameters, reactor, **options)
    once.stage = "the TCP connection"
    try:
        await _connect_transport(endpoint, once)
        once.stage = "the TLS or AMQP handshake" if place.encrypted else "the AMQP handshake"
        set_options(connection.transport, parameters.tcp_options)
        ready = connection.ready  # asked now: TCP may have been connected and lost in one call
        await (ready if ready is not None else connection.when_ready())
    except BaseException:
        drop(connection)
        raise
    return connection


def _connect_transport(endpoint: Any, once: _Once) -> defer.Deferred[None]:
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
    inner = endpoint.connect(once)
    inner.addBoth(follow)
    return outer


class _Once(Factory):
    """Gives an endpoint the one protocol that was made for it."""

    noisy = False

    def __init__(self) -> None:
        self.connection: Any = None
        #: Where TCP came to, as `IAddress.host`; None before, and where it has none.
        self.address: str | None = None
        #: How far it has come, for the text of a timeout.
        self.stage = "asking for credentials and TLS"

    def buildProtocol(self, addr: Any) -> Any:
        """Called by the endpoint once it is connected."""
        self.address = getattr(addr, "host", None)
        self.connection.factory = self
        return self.connection


def drop(connection: Any) -> None:
    """Drop a connection that has no owner."""
    ready = connection.ready
    if ready is not None:
        ready.addErrback(lambda _: None)  # it is told that it was cancelled; we know
        ready.cancel()
    transport = connection.transport
    if transport is not None:
        abort(transport)
