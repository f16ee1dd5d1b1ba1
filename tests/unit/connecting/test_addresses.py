"""A broker's name with several addresses: the next one where TLS or AMQP fails at one."""

from __future__ import annotations

from typing import Any

import pika
import pytest
from pika import exceptions, spec
from twisted.internet import error
from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IReactorPluggableNameResolver
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from zope.interface import implementer

import pika_twisted
from tests.support.outcome import Outcome, watch
from tests.support.peer import Peer
from tests.support.transport import FakeTransport


@implementer(IReactorPluggableNameResolver)
class Reactor(MemoryReactorClock):
    """Resolves every name to its `addresses`, and keeps what is connected to."""

    def __init__(self, *addresses: str) -> None:
        super().__init__()
        self.addresses = addresses
        self.lookups = 0
        self.nameResolver: Any = self

    def resolveHostName(self, receiver: Any, _host: str, portNumber: int, **_: Any) -> Any:  # noqa: N803
        self.lookups += 1
        receiver.resolutionBegan(self)
        for each in self.addresses:
            receiver.addressResolved(IPv4Address("TCP", each, portNumber))
        receiver.resolutionComplete()
        return self

    def hosts(self) -> list[str]:
        return [client[0] for client in self.tcpClients]

    def accept(self) -> Peer:
        """The last TCP connection comes about."""
        host, port, factory, *_ = self.tcpClients[-1]
        transport = Transport(self, host)
        transport.protocol = connection = factory.buildProtocol(IPv4Address("TCP", host, port))
        peer = Peer(transport, connection, self)
        connection.makeConnection(transport)
        return peer

    def refuse(self) -> None:
        _, _, factory, *_ = self.tcpClients[-1]
        factory.clientConnectionFailed(None, Failure(error.ConnectionRefusedError()))


class Transport(FakeTransport):
    def __init__(self, reactor: Any, host: str) -> None:
        super().__init__(reactor)
        self.host = host

    def getPeer(self) -> Any:
        return IPv4Address("TCP", self.host, 5672)


def connect(reactor: Reactor, **parameters: Any) -> Outcome:
    settings = pika.ConnectionParameters("rabbit", heartbeat=0, **parameters)
    return watch(pika_twisted.connect(settings, reactor=reactor))


def test_closed_at_the_first(caplog: pytest.LogCaptureFixture) -> None:
    reactor = Reactor("192.0.2.1", "192.0.2.2")
    caplog.set_level("INFO", "pika_twisted")
    outcome = connect(reactor)
    reactor.accept().transport.lose(error.ConnectionDone())
    assert reactor.hosts() == ["192.0.2.1", "192.0.2.2"]
    assert "rabbit:5672 at 192.0.2.1 failed" in caplog.text
    peer = reactor.accept()
    peer.read()
    peer.start()
    peer.tune()
    peer.open_ok()
    assert outcome.result().is_open


def test_silent_at_the_first() -> None:
    reactor = Reactor("192.0.2.1", "192.0.2.2")
    outcome = connect(reactor, stack_timeout=5)
    peer = reactor.accept()
    reactor.advance(5.1)
    assert peer.transport.aborted
    assert reactor.hosts() == ["192.0.2.1", "192.0.2.2"]
    reactor.accept()
    reactor.advance(5.1)
    why = outcome.failure(pika_twisted.ConnectionTimedOut)
    assert [where for where, _ in why.attempts] == ["rabbit:5672 at 192.0.2.1", "rabbit:5672"]


def test_refused_at_the_others() -> None:
    reactor = Reactor("192.0.2.1", "192.0.2.2")
    outcome = connect(reactor)
    reactor.accept().transport.lose(error.ConnectionDone())
    reactor.refuse()
    reactor.advance(1)  # HostnameEndpoint looks for more of them
    why = outcome.failure(pika_twisted.ConnectionRefused)
    assert isinstance(why.attempts[0][1], exceptions.IncompatibleProtocolError)
    assert reactor.hosts() == ["192.0.2.1", "192.0.2.2"]


def test_one_address_is_asked_once() -> None:
    reactor = Reactor("192.0.2.1")
    outcome = connect(reactor)
    reactor.accept().transport.lose(error.ConnectionDone())
    outcome.failure(exceptions.IncompatibleProtocolError)
    assert (reactor.lookups, len(reactor.tcpClients)) == (1, 1)


def test_each_attempt_begins_with_all() -> None:
    reactor = Reactor("192.0.2.1", "192.0.2.2")
    connect(reactor, connection_attempts=2, retry_delay=1)
    for _ in range(2):
        for _ in range(2):
            reactor.accept().transport.lose(error.ConnectionDone())
        reactor.advance(1)
    assert reactor.hosts() == ["192.0.2.1", "192.0.2.2"] * 2


def test_a_wrong_password_is_final() -> None:
    reactor = Reactor("192.0.2.1", "192.0.2.2")
    outcome = connect(reactor, connection_attempts=3)
    peer = reactor.accept()
    peer.read()
    peer.start()
    peer.send(0, spec.Connection.Close(403, "ACCESS_REFUSED", 0, 0))
    reactor.advance(0)
    peer.transport.lose(error.ConnectionDone())
    outcome.failure(exceptions.ProbableAuthenticationError)
    assert reactor.hosts() == ["192.0.2.1"]


def test_a_service_goes_on_to_the_next() -> None:
    reactor = Reactor("192.0.2.1", "192.0.2.2")
    service = pika_twisted.RecoveringService("amqp://rabbit/?heartbeat=0", reactor=reactor)
    service.startService()
    reactor.accept().transport.lose(error.ConnectionDone())
    peer = reactor.accept()
    peer.read()
    peer.start()
    peer.tune()
    peer.open_ok()
    assert "Channel.Open" in peer.names()
    assert reactor.hosts() == ["192.0.2.1", "192.0.2.2"]
    watch(service.stopService())
    peer.transport.lose(error.ConnectionDone())
