"""connect() without a network: endpoints that do as they are told."""

from __future__ import annotations

from typing import Any

import pika
import pytest
from pika import exceptions
from twisted.internet import defer, error
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.ssl import optionsForClientTLS
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from zope.interface import implementer

import pika_twisted
from pika_twisted._reasons import is_loss
from pika_twisted.channel.encoders import GoneEncoder
from pika_twisted.connecting import failures as connect_errors
from pika_twisted.connecting.targets import places
from pika_twisted.exceptions import NotConnected
from tests.support.outcome import Outcome, run, watch
from tests.support.peer import Peer
from tests.support.transport import FakeTransport


class Socket(FakeTransport):
    """With the socket options that pika's tcp_options set."""

    def __init__(self, reactor: Any) -> None:
        super().__init__(reactor)
        self.options: list[Any] = []
        self.no_delay = False

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.no_delay = enabled

    def getHandle(self) -> Any:
        return self

    def setsockopt(self, *option: Any) -> None:
        self.options.append(option)


@implementer(IStreamClientEndpoint)
class Endpoint:
    def __init__(self, clock: Clock, *results: Any) -> None:
        self.clock = clock
        self.results = list(results)  # an exception to fail with, or None: connected
        self.peers: list[Peer] = []
        self.asked: list[defer.Deferred[Any]] = []
        self.cancelled: list[Any] = []
        self.transport: Any = None

    def connect(self, factory: Any) -> defer.Deferred[Any]:
        deferred: defer.Deferred[Any] = defer.Deferred(self.cancelled.append)
        self.asked.append(deferred)
        result = self.results.pop(0) if self.results else "nothing happens"
        if isinstance(result, Exception):
            deferred.errback(result)
        elif result is None:
            connection = factory.buildProtocol(None)
            self.transport = Socket(self.clock)
            self.transport.protocol = connection
            self.peers.append(Peer(self.transport, connection, self.clock))
            connection.makeConnection(self.transport)
            deferred.callback(connection)
        return deferred

    def open(self) -> None:
        peer = self.peers[-1]
        peer.read()
        peer.start()
        peer.tune()
        peer.open_ok()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def connecting(clock: Clock, target: Any, **parameters: Any) -> tuple[Any, Outcome]:
    settings = pika.ConnectionParameters(heartbeat=0, **parameters)
    deferred = pika_twisted.connect(target, parameters=settings, reactor=clock)
    return deferred, watch(deferred, "connect()")


def test_ready(clock: Clock) -> None:
    endpoint = Endpoint(clock, None)
    options = {"TCP_KEEPINTVL": 60}
    _, outcome = connecting(clock, endpoint, tcp_options=options)
    assert outcome.pending
    endpoint.open()
    assert outcome.result().is_open
    assert endpoint.transport.no_delay
    assert len(endpoint.transport.options) == 2  # SO_KEEPALIVE and TCP_KEEPINTVL


def test_with_closes_what_it_has_opened(clock: Clock) -> None:
    endpoint = Endpoint(clock, None)
    deferred = pika_twisted.connect(
        endpoint, parameters=pika.ConnectionParameters(heartbeat=0), reactor=clock
    )

    async def using() -> Any:
        async with deferred as connection:
            return connection

    outcome = run(using())
    endpoint.open()
    peer = endpoint.peers[0]
    assert outcome.pending  # its Connection.Close waits for an answer
    peer.expect(pika.spec.Connection.Close)
    peer.send(0, pika.spec.Connection.CloseOk())
    endpoint.transport.finish()
    assert outcome.result().is_closed


def test_attempts_with_pauses_between_them(clock: Clock) -> None:
    endpoint = Endpoint(clock, error.ConnectionRefusedError(), error.ConnectionRefusedError(), None)
    _, outcome = connecting(clock, endpoint, connection_attempts=3, retry_delay=2)
    assert len(endpoint.asked) == 1
    clock.advance(1.9)
    assert len(endpoint.asked) == 1
    clock.advance(0.1)
    assert len(endpoint.asked) == 2
    clock.advance(2)
    endpoint.open()
    assert outcome.result().is_open


def test_the_last_reason_has_all_of_them(clock: Clock) -> None:
    refusing = Endpoint(clock, error.ConnectionRefusedError())
    lost = Endpoint(clock, error.DNSLookupError("no such host"))
    _, outcome = connecting(clock, [refusing, lost])
    why = outcome.failure(exceptions.AMQPConnectionError)
    assert {type(each) for _, each in why.attempts} == {
        connect_errors.ConnectionRefused,
        connect_errors.HostNotFound,
    }
    assert why in [each for _, each in why.attempts]


def test_a_wrong_password_is_not_tried_again(clock: Clock) -> None:
    endpoint = Endpoint(clock, None)
    _, outcome = connecting(clock, endpoint, connection_attempts=5)
    peer = endpoint.peers[0]
    peer.read()
    peer.start()
    peer.send(0, pika.spec.Connection.Close(403, "ACCESS_REFUSED", 0, 0))
    clock.advance(0)
    endpoint.transport.finish()
    outcome.failure(exceptions.ProbableAuthenticationError)
    clock.advance(100)
    assert len(endpoint.asked) == 1


def test_an_option_that_can_t_be_is_not_tried_again(clock: Clock) -> None:
    endpoint = Endpoint(clock)
    settings = pika.ConnectionParameters(connection_attempts=5)
    deferred = pika_twisted.connect(endpoint, parameters=settings, reactor=clock, nonsense=1)
    assert "nonsense" in str(watch(deferred).failure(TypeError))
    assert not clock.getDelayedCalls()


@pytest.mark.parametrize("stage", ["TCP", "handshake"])
def test_one_attempt_has_stack_timeout(clock: Clock, stage: str) -> None:
    endpoint = Endpoint(clock, *([] if stage == "TCP" else [None]))
    _, outcome = connecting(clock, endpoint, stack_timeout=5)
    clock.advance(4.9)
    assert outcome.pending
    clock.advance(0.2)
    why = outcome.failure(connect_errors.ConnectionTimedOut)
    assert stage in str(why) and "within 5 s" in str(why)
    if stage == "handshake":
        assert endpoint.transport.aborted


@pytest.mark.parametrize("results", [[], [None]], ids=["TCP", "handshake"])
def test_cancelled(clock: Clock, results: list[Any]) -> None:
    endpoint = Endpoint(clock, *results)
    deferred, outcome = connecting(clock, endpoint, stack_timeout=None)
    deferred.cancel()
    outcome.failure(defer.CancelledError)
    if results:
        assert endpoint.transport.aborted
        endpoint.transport.finish()
    else:
        assert endpoint.cancelled == endpoint.asked
    assert not clock.getDelayedCalls()


@pytest.mark.parametrize("results", [[], [None]], ids=["TCP", "handshake"])
def test_cancelled_with_other_places_and_attempts_left(clock: Clock, results: list[Any]) -> None:
    places = [Endpoint(clock, *results), Endpoint(clock, *results)]
    deferred, outcome = connecting(clock, places, connection_attempts=3, retry_delay=1)
    deferred.cancel()
    outcome.failure(defer.CancelledError)
    clock.advance(100)
    assert sum(len(endpoint.asked) for endpoint in places) == 1


def test_an_unknown_reason_says_how_far_it_came(clock: Clock) -> None:
    _, outcome = connecting(clock, Endpoint(clock, OSError(5, "the cable is cut")))
    why = outcome.failure(connect_errors.ConnectFailed)
    assert "the TCP connection failed" in str(why) and "the cable is cut" in str(why)


def test_tls_true_needs_a_name(clock: Clock) -> None:
    deferred = pika_twisted.connect(Endpoint(clock), tls=True, reactor=clock)
    assert "no host name" in str(watch(deferred).failure(TypeError))


def test_what_counts_as_a_loss() -> None:
    closed = exceptions.ChannelClosedByBroker(404, "NOT_FOUND")
    wrong = exceptions.ChannelWrongStateError("closed")
    assert is_loss(wrong)
    wrong.__cause__ = closed
    assert not is_loss(wrong)
    assert not is_loss(closed)
    assert is_loss(exceptions.StreamLostError("gone"))
    assert not is_loss(NotConnected("stopped"))
    assert str(NotConnected("stopped")) == "stopped"
    encoder = GoneEncoder()
    assert encoder.ack(1) is encoder.publish("", "q", b"") is False


def test_a_silent_handshake_may_be_that_of_tls(clock: Clock) -> None:
    endpoint = Endpoint(clock, None)
    deferred = pika_twisted.connect(
        endpoint,
        parameters=pika.ConnectionParameters(heartbeat=0, stack_timeout=5),
        tls=optionsForClientTLS("broker.example"),
        reactor=clock,
    )
    outcome = watch(deferred)
    clock.advance(5)
    why = outcome.failure(connect_errors.ConnectionTimedOut)
    assert "the TLS or AMQP handshake" in str(why)
    assert b"broker.example" in b"".join(endpoint.transport.writes)  # a ClientHello
    assert endpoint.transport.aborted


@pytest.mark.filterwarnings("ignore:Passing HostnameEndpoint a reactor")  # Twisted 22.10
@pytest.mark.parametrize(
    ("url", "user", "password"),
    [
        ("amqp://user@host:1/a%2Fb?heartbeat=0", "user", ""),
        ("amqp://@host:1/a%2Fb?heartbeat=0", "", ""),
        ("amqp://us%40er:p%40ss@host:1/a%2Fb?heartbeat=0", "us@er", "p@ss"),
        ("amqp://host:1/a%2Fb?heartbeat=0", "guest", "guest"),
    ],
)
def test_a_url_may_have_no_password(url: str, user: str, password: str) -> None:
    (place,) = places(url, None, None, MemoryReactorClock())
    parameters = place.parameters
    credentials: Any = parameters.credentials
    assert (credentials.username, credentials.password) == (user, password)
    assert (place.name, parameters.virtual_host, parameters.heartbeat) == ("host:1", "a/b", 0)


@pytest.mark.filterwarnings("ignore:Passing HostnameEndpoint a reactor")  # Twisted 22.10
def test_by_default_it_is_pika_s_place() -> None:
    reactor = MemoryReactorClock()
    (place,) = places(None, None, None, reactor)
    assert (str(place), place.encrypted) == ("localhost:5672", False)
    (place,) = places(None, pika.ConnectionParameters("broker.example", 5), None, reactor)
    assert str(place) == "broker.example:5"
