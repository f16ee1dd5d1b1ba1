"""connect(): what it takes, what it gives, and why it fails."""

from __future__ import annotations

import ssl as stdlib_ssl
from typing import Any

import pika
from pika import exceptions as pika_exceptions
from twisted.internet import defer, endpoints, error, ssl
from twisted.internet.interfaces import IHostnameResolver
from twisted.internet.protocol import Factory, Protocol
from zope.interface import implementer

import pika_twisted
from pika_twisted.connecting import failures as connect_errors
from tests.broker.env import Env, check, equal
from tests.broker.node import free_ports
from tests.broker.registry import scenario


async def works(env: Env, connection: Any) -> None:
    """It is ready: a channel opens on it."""
    env.connections.append(connection)
    check(connection.is_open, "open")
    channel = await connection.channel()
    await channel.queue_declare("", exclusive=True)


def tls_url(env: Env, **options: Any) -> str:
    url = env.broker.url(heartbeat=30, **({"ssl_options": options} if options else {}))
    url = url.replace("amqp://", "amqps://")
    return url.replace(f"@{env.broker.host}:{env.broker.port}", f"@localhost:{env.broker.tls_port}")


@scenario(interface="ours")
async def connect_by_url_parameters_endpoint_and_list(env: Env) -> None:
    """Each kind of target gives a ready connection."""
    url = env.broker.url(heartbeat=7)
    parameters = env.parameters(host=env.broker.host, port=env.broker.port)
    by_url = await pika_twisted.connect(url, reactor=env.reactor)
    equal(by_url._impl.params.heartbeat, 7, "heartbeat of the URL")
    await works(env, by_url)
    for target in (parameters, pika.URLParameters(url)):
        await works(env, await pika_twisted.connect(target, reactor=env.reactor))
    endpoint = env.endpoint()
    await works(
        env, await pika_twisted.connect(endpoint, parameters=parameters, reactor=env.reactor)
    )
    (closed,) = free_ports(1)
    nobody = env.parameters(host="127.0.0.1", port=closed)
    for _ in range(4):  # shuffled: the dead one comes first now and then
        await works(env, await pika_twisted.connect([nobody, url], reactor=env.reactor))


@scenario(interface="ours")
async def connect_closes_with_async_with(env: Env) -> None:
    """`async with` in both forms closes the connection."""
    url = env.broker.url()
    async with pika_twisted.connect(url, reactor=env.reactor) as connection:
        await works(env, connection)
    check(connection.is_closed, "closed")
    async with await pika_twisted.connect(url, reactor=env.reactor) as connection:
        await works(env, connection)
    check(connection.is_closed, "closed")


@implementer(IHostnameResolver)
class NobodyKnows:
    """Finds no host, at once: in a sandbox the real one may wait a minute for servers' answers."""

    def resolveHostName(self, receiver: Any, *_args: Any, **_more: Any) -> Any:
        receiver.resolutionBegan(self)
        receiver.resolutionComplete()
        return self


@scenario(interface="ours")
async def connect_says_why_not(env: Env) -> None:
    """Refused, unknown host, wrong login, wrong virtual host: a type for each."""

    async def why(target: Any) -> Any:
        reason = await env.failure(pika_twisted.connect(target, reactor=env.reactor))
        check(isinstance(reason, pika_exceptions.AMQPConnectionError), repr(reason))
        return reason

    (closed,) = free_ports(1)
    refused = await why(
        env.parameters(host="127.0.0.1", port=closed, connection_attempts=3, retry_delay=0.01)
    )
    check(isinstance(refused, connect_errors.ConnectionRefused), repr(refused))
    check(isinstance(refused, error.ConnectionRefusedError), repr(refused))
    equal(len(refused.attempts), 3, "attempts")
    check(f"127.0.0.1:{closed}" in str(refused), str(refused))
    known = env.reactor.installNameResolver(NobodyKnows())
    unknown = await why(env.parameters(host="no-such-host.invalid", port=1))
    env.reactor.installNameResolver(known)
    check(isinstance(unknown, connect_errors.HostNotFound), repr(unknown))
    address = {"host": env.broker.host, "port": env.broker.port}
    login = await why(env.parameters(password="wrong", connection_attempts=2, **address))
    check(isinstance(login, pika_exceptions.ProbableAuthenticationError), repr(login))
    equal(login.args[0], 403, "code")
    equal(len(login.attempts), 1, "attempts with a wrong password")
    vhost = await why(env.parameters(virtual_host="missing", **address))
    check(isinstance(vhost, pika_exceptions.ProbableAccessDeniedError), repr(vhost))
    for wrong in (5, "redis://localhost", [], b"amqp://x"):
        reason = await env.failure(pika_twisted.connect(wrong, reactor=env.reactor))
        check(isinstance(reason, (TypeError, ValueError)), repr(reason))


class Silent(Factory):
    """A server that accepts and says nothing."""

    noisy = False

    def __init__(self) -> None:
        self.accepted: list[Protocol] = []
        self.received: list[bytes] = []
        self.lost = 0

    def buildProtocol(self, addr: Any) -> Protocol:
        protocol = Protocol()
        protocol.dataReceived = self.received.append  # type: ignore[method-assign]
        protocol.connectionLost = self.on_lost  # type: ignore[method-assign, assignment]
        self.accepted.append(protocol)
        return protocol

    def on_lost(self, _reason: Any) -> None:
        self.lost += 1


@scenario(interface="ours")
async def connect_to_a_silent_server(env: Env) -> None:
    """A time-out and a cancel both close what was opened."""
    server = Silent()
    port = await endpoints.TCP4ServerEndpoint(env.reactor, 0, interface="127.0.0.1").listen(server)
    try:
        target = env.parameters(host="127.0.0.1", port=port.getHost().port, stack_timeout=0.3)
        reason: Any = await env.failure(pika_twisted.connect(target, reactor=env.reactor))
        check(isinstance(reason, connect_errors.ConnectionTimedOut), repr(reason))
        check("AMQP handshake" in str(reason), str(reason))
        await env.until(lambda: server.lost == 1, "the connection closed after the time-out")
        target.stack_timeout = 30  # the rest is about cancelling: it is not to end by itself
        connecting = pika_twisted.connect(target, reactor=env.reactor)
        await env.until(lambda: len(server.accepted) == 2, "accepted")
        connecting.cancel()
        reason = await env.failure(connecting)
        check(isinstance(reason, defer.CancelledError), repr(reason))
        await env.until(lambda: server.lost == 2, "the connection closed after the cancel")
        early = pika_twisted.connect(target, reactor=env.reactor)
        early.cancel()
        check(isinstance(await env.failure(early), defer.CancelledError), "cancelled at once")
        await env.until(lambda: server.lost == len(server.accepted), "nothing is left open")
    finally:
        await port.stopListening()


@scenario(own_node=True, interface="ours")
async def connect_with_tls(env: Env) -> None:
    """TLS from a URL's files, pika's SSLOptions, Twisted's own options; it verifies."""
    context = stdlib_ssl.create_default_context(cafile=env.broker.authority)
    address = {"host": "localhost", "port": env.broker.tls_port}
    by_name = pika.SSLOptions(context)
    lenient = stdlib_ssl.SSLContext(stdlib_ssl.PROTOCOL_TLS_CLIENT)
    lenient.load_verify_locations(env.broker.authority)
    lenient.check_hostname = False
    lenient.minimum_version = stdlib_ssl.TLSVersion.TLSv1_2
    lenient.maximum_version = stdlib_ssl.TLSVersion.TLSv1_2
    off = stdlib_ssl.SSLContext(stdlib_ssl.PROTOCOL_TLS_CLIENT)
    off.check_hostname = False
    off.verify_mode = stdlib_ssl.CERT_NONE
    with_server_name = env.parameters(
        ssl_options=pika.SSLOptions(context, "localhost"), **{**address, "host": "127.0.0.1"}
    )
    good: list[tuple[Any, dict[str, Any]]] = [
        (tls_url(env, ca_certs=env.broker.authority), {}),
        (tls_url(env), {"tls": env.tls_options()}),
        (env.parameters(ssl_options=by_name, **address), {}),
        (with_server_name, {}),
        (env.parameters(ssl_options=pika.SSLOptions(lenient), **address), {}),
        (env.parameters(ssl_options=pika.SSLOptions(off), **address), {}),
        (env.endpoint(tls=True), {"parameters": env.parameters()}),
    ]
    for target, arguments in good:
        connection = await pika_twisted.connect(target, reactor=env.reactor, **arguments)
        await works(env, connection)
    stranger = stdlib_ssl.create_default_context(cafile=env.broker.stranger)
    bad: list[tuple[Any, dict[str, Any]]] = [
        (tls_url(env), {}),  # the platform knows nothing of our authority
        (tls_url(env, ca_certs=env.broker.stranger), {}),
        (env.parameters(ssl_options=pika.SSLOptions(stranger), **address), {}),
        (env.parameters(ssl_options=pika.SSLOptions(context, "example.org"), **address), {}),
        (env.parameters(**{**address, "port": env.broker.port}), {"tls": env.tls_options()}),
        (env.parameters(**address), {}),  # without TLS, to the port that wants it
    ]
    for target, arguments in bad:
        reason: Any = await env.failure(
            pika_twisted.connect(target, reactor=env.reactor, **arguments)
        )
        check(isinstance(reason, connect_errors.TLSFailed), f"{target}: {reason!r}")
        check(isinstance(reason, error.ConnectionLost), repr(reason))
    wrong: Any = await env.failure(
        pika_twisted.connect(tls_url(env), tls=object(), reactor=env.reactor)
    )
    check(isinstance(wrong, TypeError), repr(wrong))
    missing: Any = await env.failure(
        pika_twisted.connect(tls_url(env, ca_certs="/no/such/file"), reactor=env.reactor)
    )
    check(isinstance(missing, OSError), repr(missing))


@scenario(own_node=True, interface="ours")
async def connect_with_a_client_certificate(env: Env) -> None:
    """A peer that demands one gets it from a URL's files; without one the error says what to do."""
    from twisted.python.filepath import FilePath

    folder = FilePath(env.broker.folder)
    pem = b"".join(
        folder.child(name).getContent()
        for name in ("server.pem", "server.key")
        if folder.child(name).exists()
    )
    check(pem, f"no certificate in {[path.basename() for path in folder.children()]}")
    own = ssl.PrivateCertificate.loadPEM(pem)
    assert env.broker.authority is not None
    with open(env.broker.authority, "rb") as file:
        authority = ssl.Certificate.loadPEM(file.read())
    server = Silent()
    endpoint = endpoints.SSL4ServerEndpoint(
        env.reactor, 0, own.options(authority), interface="127.0.0.1"
    )
    port = await endpoint.listen(server)
    try:
        number = port.getHost().port
        files = {
            "ca_certs": env.broker.authority,
            "certfile": folder.child("server.pem").path,
            "keyfile": folder.child("server.key").path,
        }
        url = tls_url(env, **files).replace(f":{env.broker.tls_port}", f":{number}")
        connecting = pika_twisted.connect(url, reactor=env.reactor)
        await env.until(lambda: server.received, "the AMQP header through verified TLS")
        equal(server.received[0], b"AMQP\0\0\x09\x01", "the AMQP header")
        connecting.cancel()
        await env.failure(connecting)
        # One in the user's own context, which could not be read out of it, with the login for it.
        context = stdlib_ssl.create_default_context(cafile=env.broker.authority)
        context.load_cert_chain(files["certfile"], files["keyfile"])
        server.received.clear()
        external = env.parameters(
            host="localhost", port=number, ssl_options=pika.SSLOptions(context)
        )
        external.credentials = pika.credentials.ExternalCredentials()
        connecting = pika_twisted.connect(external, reactor=env.reactor)
        await env.until(lambda: server.received, "the AMQP header through the context's TLS")
        start = pika.spec.Connection.Start(0, 9, {}, "PLAIN EXTERNAL", "en_US")
        transport: Any = server.accepted[-1].transport
        transport.write(pika.frame.Method(0, start).marshal())
        await env.until(lambda: len(server.received) > 1, "Connection.StartOk")
        login: Any = pika.frame.decode_frame(server.received[1])[1]
        equal((login.method.mechanism, login.method.response), ("EXTERNAL", b""), "the login")
        connecting.cancel()
        await env.failure(connecting)
        del files["certfile"], files["keyfile"]
        url = tls_url(env, **files).replace(f":{env.broker.tls_port}", f":{number}")
        reason: Any = await env.failure(pika_twisted.connect(url, reactor=env.reactor))
        check(isinstance(reason, connect_errors.TLSFailed), repr(reason))
        check("clientCertificate" in str(reason), str(reason))
    finally:
        await port.stopListening()
