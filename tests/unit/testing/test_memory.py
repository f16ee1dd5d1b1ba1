"""Transports in memory behave as TCP ones."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet import error, protocol, task
from twisted.python.failure import Failure

from pika_twisted.testing.memory import MemoryEndpoint, MemoryTransport, pair


class Recorder(protocol.Protocol):
    """Keeps what comes."""

    transport: MemoryTransport  # type: ignore[assignment]

    def __init__(self) -> None:
        self.reads: list[bytes] = []
        self.lost: list[type[BaseException] | None] = []

    def dataReceived(self, data: bytes) -> None:
        self.reads.append(data)

    def connectionLost(self, reason: Failure = protocol.connectionDone) -> None:
        self.lost.append(reason.type)

    @property
    def data(self) -> bytes:
        return b"".join(self.reads)


class Producer:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def pauseProducing(self) -> None:
        self.told.append("pause")

    def resumeProducing(self) -> None:
        self.told.append("resume")

    def stopProducing(self) -> None:
        self.told.append("stop")


class Ends:
    def __init__(self, latency: float = 0.0) -> None:
        self.clock = task.Clock()
        self.client, self.server = Recorder(), Recorder()
        pair(self.clock, self.client, self.server, lambda: latency)

    def turn(self, seconds: float = 0.0) -> None:
        self.clock.advance(seconds)


@pytest.fixture
def ends() -> Ends:
    return Ends()


def test_nothing_comes_inside_write(ends: Ends) -> None:
    ends.client.transport.write(b"a")
    ends.client.transport.writeSequence([b"b", b"c"])
    assert ends.server.reads == []
    ends.turn()
    assert ends.server.reads == [b"abc"]


def test_reads_have_at_most_buffer_size(ends: Ends) -> None:
    ends.server.transport.bufferSize = 4
    ends.client.transport.write(b"0123456789")
    ends.turn()
    assert ends.server.reads == [b"0123", b"4567", b"89"]


def test_latency() -> None:
    ends = Ends(2.0)
    ends.client.transport.write(b"a")
    ends.turn(1.0)
    assert ends.server.reads == []
    ends.turn(1.0)
    assert ends.server.reads == [b"a"]


def test_lose_connection_lets_data_arrive(ends: Ends) -> None:
    ends.client.transport.write(b"last")
    ends.client.transport.loseConnection()
    ends.client.transport.write(b"too late")
    assert ends.client.lost == []
    ends.turn()
    assert ends.server.data == b"last"
    assert ends.client.lost == ends.server.lost == [error.ConnectionDone]


def test_abort_connection_drops_data(ends: Ends) -> None:
    ends.client.transport.write(b"lost")
    ends.server.transport.write(b"lost, too")
    ends.client.transport.abortConnection()
    ends.turn()
    assert ends.server.data == ends.client.data == b""
    assert ends.client.lost == [error.ConnectionAborted]
    assert ends.server.lost == [error.ConnectionLost]


def test_both_may_close_at_once(ends: Ends) -> None:
    ends.client.transport.loseConnection()
    ends.server.transport.loseConnection()
    ends.turn()
    assert ends.client.lost == ends.server.lost == [error.ConnectionDone]


def test_a_paused_end_reads_later(ends: Ends) -> None:
    ends.server.transport.pauseProducing()
    ends.client.transport.write(b"a")
    ends.turn()
    assert ends.server.reads == []
    ends.server.transport.resumeProducing()
    ends.turn()
    assert ends.server.reads == [b"a"]


def test_a_full_peer_pauses_the_producer(ends: Ends) -> None:
    producer = Producer()
    ends.client.transport.registerProducer(producer, True)
    ends.server.transport.pauseProducing()
    ends.client.transport.write(bytes(1 << 16))
    assert producer.told == []
    ends.client.transport.write(b"more")
    assert producer.told == ["pause"]
    ends.server.transport.resumeProducing()
    ends.turn()
    assert producer.told == ["pause", "resume"]
    ends.server.transport.abortConnection()
    ends.turn()
    assert producer.told == ["pause", "resume", "stop"]


def test_closing_waits_for_a_full_peer(ends: Ends) -> None:
    ends.server.transport.pauseProducing()
    ends.client.transport.write(bytes(1 << 17))
    ends.client.transport.loseConnection()
    ends.turn(60)
    assert ends.client.lost == []
    ends.server.transport.resumeProducing()
    ends.turn()
    assert len(ends.server.data) == 1 << 17
    assert ends.client.lost == ends.server.lost == [error.ConnectionDone]


def test_a_pull_producer_is_asked_again(ends: Ends) -> None:
    producer = Producer()
    ends.client.transport.registerProducer(producer, False)
    assert producer.told == ["resume"]
    ends.client.transport.write(b"a")
    ends.turn()
    assert producer.told == ["resume", "resume"]
    with pytest.raises(RuntimeError, match="there is a producer already"):
        ends.client.transport.registerProducer(producer, False)


def test_a_producer_for_a_dead_transport_is_stopped(ends: Ends) -> None:
    ends.client.transport.abortConnection()
    ends.turn()
    producer = Producer()
    ends.client.transport.registerProducer(producer, True)
    assert producer.told == ["stop"]


def connect(accept: Any, factory: protocol.Factory) -> list[Any]:
    clock, result = task.Clock(), []
    endpoint = MemoryEndpoint(clock, accept, lambda: 1.0, "here")
    endpoint.connect(factory).addBoth(result.append)
    assert result == []
    clock.advance(1.0)
    return result


def test_endpoint_connects() -> None:
    server = Recorder()
    (client,) = connect(lambda: server, protocol.Factory.forProtocol(Recorder))
    assert client.transport.peer is server.transport


def test_endpoint_is_refused() -> None:
    (refused,) = connect(lambda: None, protocol.Factory.forProtocol(Recorder))
    assert refused.check(error.ConnectionRefusedError)


def test_endpoint_without_a_protocol() -> None:
    factory = protocol.Factory()
    factory.buildProtocol = lambda addr: None  # type: ignore[method-assign]
    (refused,) = connect(Recorder, factory)
    assert refused.check(error.ConnectError)


def test_endpoint_is_cancelled() -> None:
    clock, made = task.Clock(), []
    endpoint = MemoryEndpoint(clock, lambda: made.append(1), lambda: 1.0, "here")
    connecting = endpoint.connect(protocol.Factory.forProtocol(Recorder))
    connecting.addErrback(lambda _: None)
    connecting.cancel()
    clock.advance(2.0)
    assert made == []
    assert repr(endpoint) == "here"
