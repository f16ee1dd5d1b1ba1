"""What a scenario is given: connections of the implementation under test, names, time, control."""

from __future__ import annotations

import secrets
import ssl as stdlib_ssl
from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import Any

import pika
from twisted.internet import defer, endpoints, protocol, ssl, threads
from twisted.python.failure import Failure

from pika_twisted.transport.tls_layer import TLSEndpoint
from tests.broker import second_client, versions
from tests.broker.broker import Broker
from tests.broker.control import Control
from tests.broker.proxy import Proxy

CLOSE_TIMEOUT = 10.0
PATIENCE = 15.0  # for what has no promised time: less than a scenario has, enough for any machine


class ScenarioError(AssertionError):
    """What was promised did not happen."""


class NotHere(Exception):
    """This broker can't do what the scenario is about; it counts as skipped, with the reason."""


class OneShot(protocol.Factory):
    """Hands one ready-made protocol to the endpoint."""

    noisy = False

    def __init__(self, instance: Any) -> None:
        self.instance = instance

    def buildProtocol(self, addr: object) -> Any:
        self.instance.factory = self
        return self.instance


class Env:
    """One per scenario; `finish()` closes and deletes what the scenario left open."""

    def __init__(self, reactor: Any, broker: Broker, implementation: ModuleType) -> None:
        self.reactor = reactor
        self.broker = broker
        self.implementation = implementation
        self.is_ours = implementation.__name__.startswith("pika_twisted")
        self.connections: list[Any] = []
        self.cleanups: list[Callable[[], Any]] = []
        self.proxies: list[Proxy] = []
        self.names: list[tuple[str, str]] = []
        self.allowed_logs: list[str] = []

    @property
    def control(self) -> Control:
        """Commands to the node (blocking ones: through env.thread)."""
        if self.broker.folder is None:
            raise ScenarioError("this scenario needs a node of our own: mark it own_node=True")
        return Control(self.broker.folder)

    def name(self, kind: str = "queue", prefix: str = "pika-twisted-test") -> str:
        """A fresh name; that of a "queue" or an "exchange" is deleted when the scenario ends."""
        name = f"{prefix}-{secrets.token_hex(6)}"
        if kind in ("queue", "exchange"):
            self.names.append((kind, name))
        return name

    def allow_log(self, text: str) -> None:
        """Errors that hold this text may be logged in this scenario."""
        self.allowed_logs.append(text)

    def needs_rabbitmq(self, connection: Any, *version: int) -> None:
        """The broker must be a RabbitMQ of at least this version."""
        text = connection._impl.server_properties.get("version", "0")
        found = tuple(int(part) for part in text.split(".")[:2] if part.isdigit())
        if found < version:
            raise NotHere(f"needs RabbitMQ {'.'.join(map(str, version))}, this is {text}")

    async def changed(self, change: str) -> bool:
        """True where the broker's version does what this entry of versions.CHANGES says."""
        return versions.has(
            versions.parse(await self.thread(second_client.version, self.broker)), change
        )

    async def smallest_frame_max(self) -> int:
        """The smallest frame_max that the broker takes."""
        return 8192 if await self.changed("frames of 8,192 bytes at least") else 4096

    # -- time

    def sleep(self, seconds: float) -> defer.Deferred[None]:
        """Fires after so many seconds of the reactor's clock."""
        waiting: defer.Deferred[None] = defer.Deferred(lambda _: call.cancel())
        call = self.reactor.callLater(seconds, waiting.callback, None)
        return waiting

    def thread(self, function: Callable[..., Any], *arguments: Any) -> defer.Deferred[Any]:
        """Run something blocking beside the reactor."""
        return threads.deferToThreadPool(
            self.reactor, self.reactor.getThreadPool(), function, *arguments
        )

    async def until(
        self, condition: Callable[[], Any], what: str, timeout: float = PATIENCE
    ) -> Any:
        """Poll until the condition is true; its value."""
        deadline = self.reactor.seconds() + timeout
        while not (value := condition()):
            if self.reactor.seconds() > deadline:
                raise ScenarioError(f"not within {timeout} s: {what}")
            await self.sleep(0.01)
        return value

    async def within(self, seconds: float, awaitable: Awaitable[Any], what: str) -> Any:
        """Await it; ScenarioError when it takes longer."""
        deferred = as_deferred(awaitable).addTimeout(seconds, self.reactor)
        try:
            return await deferred
        except defer.TimeoutError:
            raise ScenarioError(f"not within {seconds} s: {what}") from None

    async def failure(self, awaitable: Awaitable[Any], timeout: float = 10.0) -> Exception:
        """The exception it fails with; a result, or silence, is an error."""
        deferred = as_deferred(awaitable).addTimeout(timeout, self.reactor)
        try:
            result = await deferred
        except defer.TimeoutError:
            raise ScenarioError(f"neither a result nor a failure after {timeout} s") from None
        except Exception as error:
            return error
        raise ScenarioError(f"it should have failed, but gave {result!r}")

    # -- connections

    def parameters(self, **changes: Any) -> pika.ConnectionParameters:
        """pika's parameters for the broker; `user`, `password` and any of pika's own by keyword."""
        user = changes.pop("user", self.broker.user)
        password = changes.pop("password", self.broker.password)
        changes.setdefault("virtual_host", self.broker.vhost)
        changes.setdefault("heartbeat", 30)
        credentials = pika.PlainCredentials(user, password)
        return pika.ConnectionParameters(credentials=credentials, **changes)

    def endpoint(self, *, tls: Any = None, port: int | None = None) -> Any:
        """Where to connect to; `tls` is True, what optionsForClientTLS() gave, or "context".

        That is pika_twisted's own TLS, by an `ssl.SSLContext`.
        """
        if tls is None:
            return endpoints.TCP4ClientEndpoint(
                self.reactor, self.broker.host, port or self.broker.port
            )
        if tls is True:
            tls = self.tls_options()
        assert self.broker.tls_port is not None
        address = endpoints.TCP4ClientEndpoint(
            self.reactor, self.broker.host, port or self.broker.tls_port
        )
        if tls == "context":
            context = stdlib_ssl.create_default_context(cafile=self.broker.authority)
            return TLSEndpoint(address, context, "localhost", self.reactor)
        return endpoints.wrapClientTLS(tls, address)

    def tls_options(self, hostname: str = "localhost", authority: str | None = None) -> Any:
        """Verifying options: the host name, and the authority the node's certificate is from."""
        path = authority or self.broker.authority
        assert path is not None
        with open(path, "rb") as file:
            trusted = ssl.trustRootFromCertificates([ssl.Certificate.loadPEM(file.read())])
        return ssl.optionsForClientTLS(hostname, trustRoot=trusted)

    async def attach(
        self,
        *,
        tls: Any = None,
        port: int | None = None,
        protocol_class: type | None = None,
        options: dict[str, Any] | None = None,
        **parameters: Any,
    ) -> Any:
        """A protocol whose transport is connected; the AMQP handshake is under way."""
        protocol_class = protocol_class or self.implementation.TwistedProtocolConnection
        # pika's adapter knows no options; a scenario that passes some is about something else.
        options = options if options and self.is_ours else {}
        connection = protocol_class(self.parameters(**parameters), self.reactor, **options)
        self.connections.append(connection)
        await self.endpoint(tls=tls, port=port).connect(OneShot(connection))
        return connection

    async def connect(self, **arguments: Any) -> Any:
        """A ready connection; the arguments are attach()'s."""
        connection = await self.attach(**arguments)
        await self.within(20, self.ready(connection), "ready")
        return connection

    async def open(self, **arguments: Any) -> tuple[Any, Any]:
        """A ready connection and a channel on it."""
        connection = await self.connect(**arguments)
        return connection, await connection.channel()

    async def close_channel(self, channel: Any) -> None:
        """Close it and wait for the broker's answer (pika's close() returns nothing to wait on)."""
        channel.close()
        await self.until(lambda: channel.is_closed, "the channel closed")

    def ready(self, connection: Any) -> defer.Deferred[Any]:
        """Fires when the handshake is done, also when asked late where the interface has that."""
        return connection.when_ready() if self.is_ours else connection.ready

    def closed(self, connection: Any) -> defer.Deferred[Any]:
        """Fires with the reason when the connection has closed."""
        return connection.when_closed() if self.is_ours else connection.closed

    async def proxy(self, **options: Any) -> Proxy:
        """A proxy to the broker, stopped when the scenario ends."""
        self.proxies.append(await Proxy(self.reactor, self.broker, **options).start())
        return self.proxies[-1]

    # -- the broker's own view, through another client

    def count(self, queue: str) -> defer.Deferred[int]:
        """How many messages are ready in the queue."""
        return self.thread(second_client.count, self.broker, queue)

    def take_all(self, queue: str) -> defer.Deferred[list[Any]]:
        """Take every ready message out of the queue: (method, properties, body) each."""
        return self.thread(second_client.take_all, self.broker, queue)

    async def settled(self, queue: str, expected: int, timeout: float = PATIENCE) -> None:
        """Wait until the queue holds so many ready messages; acks and requeues take a moment."""
        deadline = self.reactor.seconds() + timeout
        while (found := await self.count(queue)) != expected:
            if self.reactor.seconds() > deadline:
                raise ScenarioError(f"{queue} holds {found} messages, not {expected}")
            await self.sleep(0.05)

    async def until_declared(self, channel: Any, queue: str, count: int) -> None:
        """Wait until a passive declare on this channel says that so many messages are ready."""
        deadline = self.reactor.seconds() + 30
        while True:
            found = (await channel.queue_declare(queue, passive=True)).method.message_count
            if found == count:
                return
            check(self.reactor.seconds() < deadline, f"{queue} holds {found}, not {count}")
            await self.sleep(0.05)

    async def until_first(self, channel: Any, queue: str, timeout: float = PATIENCE) -> Any:
        """basic_get, unacknowledged, until a message is there."""
        deadline = self.reactor.seconds() + timeout
        while (message := await channel.basic_get(queue)) is None:
            check(self.reactor.seconds() < deadline, f"no message in {queue!r} for {timeout} s")
            await self.sleep(0.01)
        return message

    async def until_get(
        self, channel: Any, queue: str, body: bytes, timeout: float = PATIENCE
    ) -> Any:
        """basic_get with auto_ack until a message is there; it must have this body."""
        deadline = self.reactor.seconds() + timeout
        while (message := await channel.basic_get(queue, auto_ack=True)) is None:
            check(self.reactor.seconds() < deadline, f"no message in {queue!r} for {timeout} s")
            await self.sleep(0.01)
        equal(message.body, body, "body")
        return message

    async def finish(self) -> None:
        """Close every connection still open and delete every name that was handed out."""
        for cleanup in self.cleanups:
            await defer.maybeDeferred(cleanup)
        for connection in self.connections:
            if getattr(connection, "connected", 0) and connection.is_open:
                done = self.closed(connection)
                connection.close()
                await self.within(CLOSE_TIMEOUT, done, "the connection closed at the end")
        for connection in self.connections:
            if connection.transport is not None and not connection.is_closed:
                connection.transport.abortConnection()
        for proxy in self.proxies:
            await proxy.stop()
        if self.names:
            await self.thread(second_client.delete, self.broker, self.names)


def as_deferred(awaitable: Awaitable[Any]) -> defer.Deferred[Any]:
    """A Deferred of our own for anything awaitable: cancelling it leaves the original alone."""
    if isinstance(awaitable, defer.Deferred):
        copy: defer.Deferred[Any] = defer.Deferred()

        def settle(result: Any) -> None:
            if not copy.called:
                (copy.errback if isinstance(result, Failure) else copy.callback)(result)

        awaitable.addBoth(settle)
        return copy
    return defer.Deferred.fromCoroutine(awaitable)


def check(condition: Any, message: str) -> None:
    """An assertion that also works under -O and says what was expected."""
    if not condition:
        raise ScenarioError(message)


def equal(found: Any, expected: Any, what: str) -> None:
    """Both are the same, or an error that names what was compared."""
    if found != expected:
        raise ScenarioError(f"{what}: {found!r}, expected {expected!r}")
