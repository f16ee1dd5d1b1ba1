"""What may be said about where, as whom and how to connect; and what is asked at every attempt."""

from __future__ import annotations

import ssl
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pika
import pytest
from pika import exceptions, spec
from twisted.internet import defer, endpoints, error
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from zope.interface import implementer

import pika_twisted
from pika_twisted.connecting.connect import connect_any
from pika_twisted.connecting.targets import places, read_url
from pika_twisted.exceptions import BrokerLimit
from tests.support.authority import Authority
from tests.support.outcome import Outcome, watch
from tests.support.peer import Peer
from tests.support.transport import FakeTransport

pytestmark = pytest.mark.filterwarnings("ignore:Passing HostnameEndpoint a reactor")


@implementer(IStreamClientEndpoint)
class Endpoint:
    """Connects at once; `peers` are at the other ends."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.peers: list[Peer] = []

    def connect(self, factory: Any) -> Any:
        transport = FakeTransport(self.clock)
        protocol = transport.protocol = factory.buildProtocol(None)
        self.peers.append(Peer(transport, protocol, self.clock))
        protocol.makeConnection(transport)
        return defer.succeed(protocol)

    def logins(self) -> list[bytes]:
        """The SASL responses of the new connections; each is closed then, and tried again."""
        found = []
        for peer in self.peers:
            if peer.transport.connected:
                peer.read()
                peer.start()
                found += [each.response for each in peer.methods() if hasattr(each, "response")]
                peer.send(0, spec.Connection.Close(320, "CONNECTION_FORCED", 0, 0))
                peer.transport.lose(error.ConnectionDone())
                self.clock.advance(1)
        return found


def connect(clock: Clock, target: Any, **options: Any) -> Outcome:
    return watch(pika_twisted.connect(target, reactor=clock, **options))


@pytest.fixture
def clock() -> Clock:
    return Clock()


def three_times() -> pika.ConnectionParameters:
    return pika.ConnectionParameters(connection_attempts=3, retry_delay=0.5, heartbeat=0)


# Functions


def test_credentials_are_asked_at_each_attempt(clock: Clock) -> None:
    endpoint, tokens = Endpoint(clock), iter("abc")
    waiting: list[defer.Deferred[Any]] = []

    def later() -> Any:
        waiting.append(defer.Deferred())
        return waiting[-1]

    outcome = connect(clock, endpoint, parameters=three_times(), credentials=lambda: next(tokens))
    assert endpoint.logins() == [b"\0\0a", b"\0\0b", b"\0\0c"]
    assert isinstance(outcome.failure(), exceptions.AMQPConnectionError)
    endpoint = Endpoint(clock)
    connect(clock, endpoint, parameters=three_times(), credentials=later)
    assert not endpoint.peers
    waiting[0].callback(pika.PlainCredentials("user", "later"))
    assert endpoint.logins() == [b"\0user\0later"]
    waiting[1].callback(None)
    assert endpoint.logins() == [b"\0guest\0guest"]  # the parameters' own


def test_functions_that_fail_or_never_answer(clock: Clock) -> None:
    endpoint = Endpoint(clock)

    def fails() -> Any:
        raise LookupError("no vault")

    assert "no vault" in str(connect(clock, endpoint, credentials=fails).failure(LookupError))
    parameters = pika.ConnectionParameters(stack_timeout=5)
    for name in ("credentials", "tls"):
        silent: dict[str, Any] = {name: defer.Deferred}
        outcome = connect(clock, endpoint, parameters=parameters, **silent)
        clock.advance(5)
        why = outcome.failure(pika_twisted.ConnectionTimedOut)
        assert "asking for credentials and TLS" in str(why)
    wrong = connect(clock, endpoint, credentials=lambda: ("user", "password"))
    assert "not tuple" in str(wrong.failure(TypeError))
    wrong = connect(clock, endpoint, tls=lambda: "yes")
    assert "not str" in str(wrong.failure(TypeError))
    assert not endpoint.peers


def test_target_and_parameters_are_asked_at_each_attempt(clock: Clock) -> None:
    found = [Endpoint(clock) for _ in range(3)]
    left = iter(found)

    async def where() -> Any:
        return [next(left)]

    connect(clock, where, parameters=three_times())
    for endpoint in found:
        assert len(endpoint.logins()) == 1
    endpoint, users = Endpoint(clock), iter("ab")

    def who() -> Any:
        return pika.ConnectionParameters(
            credentials=pika.PlainCredentials(next(users), "p"),
            connection_attempts=2,
            retry_delay=0,
        )

    connect(clock, endpoint, parameters=who)
    assert endpoint.logins() == [b"\0a\0p", b"\0b\0p"]


def test_files_are_read_at_each_attempt(clock: Clock, tmp_path: Path) -> None:
    first, second = Authority(tmp_path), Authority(tmp_path, "second")
    options = quote(repr({"ca_certs": str(first.file)}))
    (place,) = places(f"amqps://h/?ssl_options={options}", None, None, MemoryReactorClock())

    def subject() -> Any:
        made = defer.ensureDeferred(place.tls())
        (each,) = watch(made).result().context.get_ca_certs()
        return each["subject"][0][0][1]

    assert subject() == "test authority"
    first.file.write_bytes(second.file.read_bytes())
    assert subject() == "second"


# TLS that was asked for


def test_an_endpoint_gets_the_tls_of_its_parameters(clock: Clock, tmp_path: Path) -> None:
    """It sent the password in the clear."""
    for parameters in (
        pika.URLParameters("amqps://user:password@broker.example/"),
        pika.ConnectionParameters(
            "broker.example", ssl_options=pika.SSLOptions(ssl.create_default_context())
        ),
    ):
        endpoint = Endpoint(clock)
        connect(clock, endpoint, parameters=parameters)
        sent = b"".join(endpoint.peers[0].transport.writes)
        assert sent[:1] == b"\x16" and b"AMQP" not in sent  # a TLS handshake record
        assert b"broker.example" in sent


@pytest.mark.parametrize("tls", [0, "", (), 1.5])
def test_tls_is_never_less_than_true_by_accident(clock: Clock, tls: Any) -> None:
    options = pika.SSLOptions(ssl.create_default_context())
    for target in (pika.ConnectionParameters(ssl_options=options), "amqps://h/", "amqp://h/"):
        why = connect(MemoryReactorClock(), target, tls=tls).failure(TypeError)
        assert str(why).startswith("tls is True, an ssl.SSLContext")


def test_a_context_needs_a_name(clock: Clock) -> None:
    context = ssl.create_default_context()
    endpoint = Endpoint(clock)
    for tls in (context, True, pika.SSLOptions(context)):
        why = connect(clock, endpoint, tls=tls).failure(TypeError)
        assert "host name" in str(why) or "server_hostname" in str(why)
    connect(clock, endpoint, tls=pika.SSLOptions(context, "broker.example"))
    assert b"broker.example" in b"".join(endpoint.peers[0].transport.writes)


# What is wrong at the call


TCP = endpoints.TCP4ClientEndpoint(MemoryReactorClock(), "broker", 5672)
WRONG: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
    ("amqp://u:S3/cr3t@h/", {}, ValueError, "percent-encode"),
    ("amqp://u:S3?cr3t@h/", {}, ValueError, "percent-encode"),
    ("amqp://u:S3#cr3t@h/", {}, ValueError, "percent-encode"),
    ("amqp://u:p@h/?heartbeat=x", {}, ValueError, "its option heartbeat has a wrong value"),
    ("amqps://h/?ssl_options={'a'", {}, ValueError, "a dict as Python writes it"),
    ("amqp://h/", {"parameters": three_times()}, TypeError, "parameters are for endpoints"),
    (three_times(), {"parameters": three_times()}, TypeError, "parameters are for endpoints"),
    (TCP, {"parameters": "amqp://h/"}, TypeError, r"pika_twisted\.connect\(url\)"),
    (TCP, {"parameters": {}}, TypeError, "parameters are .* not dict"),
    ("amqp://h/", {"heartbeat": 30}, TypeError, r"\?heartbeat=\.\.\..*heartbeat=\.\.\."),
    ("amqp://h/", {"bufer_size": 1}, TypeError, "no option bufer_size; buffer_size is one"),
    ("amqp://h/" + "v" * 256, {}, ValueError, "virtual_host has 256 bytes"),
    ("amqp://h/", {"credentials": 5}, TypeError, "credentials are .* not int"),
]


@pytest.mark.parametrize(("target", "options", "kind", "text"), WRONG)
def test_wrong_arguments(target: Any, options: Any, kind: type[Exception], text: str) -> None:
    reactor = MemoryReactorClock()
    why = watch(pika_twisted.connect(target, reactor=reactor, **options)).failure(kind)
    with pytest.raises(kind, match=text):
        raise why
    assert "S3" not in str(why)
    assert not reactor.tcpClients


UNSENDABLE: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"client_properties": {"a": object()}}, TypeError, "client_properties: 'a' .* object"),
    ({"client_properties": {"a": [{1}]}}, TypeError, "client_properties: 'a' .* list"),
    ({"client_properties": {"a" * 256: 1}}, ValueError, "client_properties: 'aaa"),
    ({"credentials": pika.PlainCredentials("u", 5)}, TypeError, "the password is a str, not int"),  # type: ignore[arg-type]
    ({"credentials": pika.PlainCredentials(None, "p\0")}, ValueError, "the password has a NUL"),  # type: ignore[arg-type]
    ({"virtual_host": "é" * 128}, ValueError, "virtual_host has 256 bytes"),
    ({"locale": "x" * 256}, ValueError, "locale has 256 bytes"),
]


@pytest.mark.parametrize(("parameters", "kind", "text"), UNSENDABLE)
def test_parameters_that_can_t_be_sent(parameters: Any, kind: type[Exception], text: str) -> None:
    wrong = pika.ConnectionParameters(**parameters)
    reactor = MemoryReactorClock()
    calls: list[Any] = [
        lambda: watch(pika_twisted.connect(wrong, reactor=reactor)).failure(kind),
        lambda: pika_twisted.RecoveringService(wrong, reactor=reactor),
        lambda: pika_twisted.TwistedProtocolConnection(wrong),
    ]
    for call in calls:
        with pytest.raises(kind, match=text):
            raise call()
    assert not reactor.tcpClients


def test_a_url_s_parts_are_read_as_pika_reads_them() -> None:
    password = "/?#@:%&=+ é"
    parameters, options = read_url(
        f"amqps://us%40er:{quote(password, safe='')}@[::1]:5/a%2Fb?heartbeat=7&ssl_options="
        + quote(repr({"ca_certs": "/a b&c"}))
    )
    credentials: Any = parameters.credentials
    assert (credentials.username, credentials.password) == ("us@er", password)
    assert (parameters.host.strip("[]"), parameters.port) == ("::1", 5)
    assert (parameters.virtual_host, parameters.heartbeat) == ("a/b", 7)
    assert options == {"ca_certs": "/a b&c"}


# Limits of brokers


def test_a_login_that_is_too_long_for_the_broker(clock: Clock) -> None:
    endpoint = Endpoint(clock)
    parameters = three_times()
    parameters.credentials = pika.PlainCredentials("", "x" * 4000)
    outcome = connect(clock, endpoint, parameters=parameters)
    (peer,) = endpoint.peers
    peer.read()
    peer.start()
    assert not [name for name in peer.names() if name == "Connection.StartOk"]
    peer.transport.finish()
    why = outcome.failure(BrokerLimit, ValueError, exceptions.AMQPConnectionError)
    assert "RabbitMQ before 4.1 takes 4,096" in str(why)
    assert len(endpoint.peers) == 1


def test_a_long_login_is_sent_to_those_that_may_take_it(clock: Clock) -> None:
    for product, version in (("RabbitMQ", "4.1.0"), ("LavinMQ", "1.2")):
        endpoint = Endpoint(clock)
        parameters = pika.ConnectionParameters(credentials=pika.PlainCredentials("", "x" * 4000))
        connect(clock, endpoint, parameters=parameters)
        (peer,) = endpoint.peers
        peer.read()
        properties = {"product": product, "version": version}
        peer.send(0, spec.Connection.Start(0, 9, properties, "PLAIN", "en_US"))
        assert "Connection.StartOk" in peer.names()
        peer.transport.lose(error.ConnectionDone())


def test_a_login_that_is_too_long_for_any(clock: Clock) -> None:
    """RabbitMQ 4.1 and later only close TCP, after 3 s: it read as a wrong password."""
    endpoint = Endpoint(clock)
    parameters = three_times()
    parameters.credentials = pika.PlainCredentials("", "x" * 9000)
    outcome = connect(clock, endpoint, parameters=parameters)
    (peer,) = endpoint.peers
    peer.read()
    properties = {"product": "RabbitMQ", "version": "4.3.6"}
    peer.send(0, spec.Connection.Start(0, 9, properties, "PLAIN", "en_US"))
    peer.read()
    peer.transport.lose(error.ConnectionLost())
    why = outcome.failure(BrokerLimit)
    assert "RabbitMQ takes 8,192 since 4.1" in str(why)


def test_a_frame_max_that_the_broker_refuses(clock: Clock) -> None:
    endpoint = Endpoint(clock)
    parameters = pika.ConnectionParameters()
    parameters._frame_max = 4096  # pika 1.5 refuses that itself
    outcome = connect(clock, endpoint, parameters=parameters)
    (peer,) = endpoint.peers
    peer.read()
    properties = {"product": "RabbitMQ", "version": "4.1.2"}
    peer.send(0, spec.Connection.Start(0, 9, properties, "PLAIN", "en_US"))
    peer.tune()
    peer.read()
    peer.transport.lose(error.ConnectionLost())
    why = outcome.failure(BrokerLimit)
    assert "no frame_max below 8,192 since 4.1, and the parameters ask for 4,096" in str(why)


# What the errors say


def refused(clock: Clock, *stages: Any, host: str = "broker", port: int = 5672) -> Any:
    """What connect() to a host fails with after these methods of the broker, and its end."""
    parameters = pika.ConnectionParameters(host, port, "/orders")
    (place,) = places(parameters, None, None, MemoryReactorClock())
    endpoint = Endpoint(clock)
    place = replace(place, endpoint=lambda: endpoint)
    make = pika_twisted.TwistedProtocolConnection
    outcome = watch(defer.ensureDeferred(connect_any([place], make, clock, {})))
    (peer,) = endpoint.peers
    peer.read()
    for stage in stages:
        stage(peer)
        peer.read()
    peer.transport.lose(error.ConnectionDone("Connection was closed cleanly."))
    return outcome.failure(exceptions.AMQPConnectionError)


@pytest.mark.parametrize(
    ("port", "text"),
    [
        (15672, "broker:15672 does not speak AMQP 0-9-1: .*port 15672 is mostly for .*HTTP; AMQP"),
        (25672, "port 25672 is mostly for Erlang distribution"),
        (4369, "epmd"),
        (5672, "broker:5672 does not speak AMQP 0-9-1: .*is it the broker's AMQP port"),
    ],
)
def test_a_port_that_is_not_amqp_s(clock: Clock, port: int, text: str) -> None:
    why = refused(clock, port=port)
    assert isinstance(why, exceptions.IncompatibleProtocolError)
    with pytest.raises(exceptions.IncompatibleProtocolError, match=text):
        raise why


def test_the_login_and_the_virtual_host_are_named(clock: Clock) -> None:
    def close(code: int, text: str) -> Any:
        return lambda peer: peer.send(0, spec.Connection.Close(code, text, 0, 0))

    why = refused(clock, Peer.start, close(403, "ACCESS_REFUSED - Login was refused."))
    assert isinstance(why, exceptions.ProbableAuthenticationError)
    text = "broker:5672 refused the login: ACCESS_REFUSED - Login was refused; are user and"
    assert why.args[0] == 403 and why.args[1].startswith(text)
    why = refused(clock, Peer.start, Peer.tune, close(530, "NOT_ALLOWED - vhost /orders not found"))
    assert isinstance(why, exceptions.ProbableAccessDeniedError)
    text = "broker:5672 refused the virtual host '/orders': NOT_ALLOWED - vhost /orders not found;"
    assert why.args[0] == 530 and why.args[1].startswith(text)
    assert isinstance(why, error.ConnectionDone)
