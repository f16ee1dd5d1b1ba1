"""TLS by `ssl.MemoryBIO` as a Twisted transport; its peer is an `ssl` server in memory."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import interfaces
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from pika_twisted.transport import tls_layer
from tests.support.authority import Authority


class Wire(StringTransport):
    """The transport below: closes when it is told to finish, as a socket whose peer reads does."""

    aborted = False

    def abortConnection(self) -> None:
        self.aborted = True


class Inner(Protocol):
    """The protocol above: keeps what it gets, call by call."""

    def __init__(self, greeting: bytes = b"") -> None:
        self.greeting = greeting
        self.pieces: list[bytes] = []
        self.lost: Any = None
        self.on_data: Any = None

    def connectionMade(self) -> None:
        if self.greeting:
            self.transport.write(self.greeting)  # type: ignore[union-attr, call-arg]

    def dataReceived(self, data: bytes) -> None:
        self.pieces.append(data)
        if self.on_data is not None:
            self.on_data()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        assert self.lost is None
        self.lost = reason.value


class Session:
    """A layer, what is above and below it, and a server that it talks to."""

    def __init__(
        self, folder: Path, hostname: str = "localhost", greeting: bytes = b"", **server: Any
    ) -> None:
        authority = Authority(folder)
        certificate, key, _ = authority.issue("server")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        context.set_alpn_protocols(["amqp"])
        for name, value in server.items():
            setattr(context, name, value)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.server = context.wrap_bio(self.incoming, self.outgoing, server_side=True)
        self.shaken = False
        client = ssl.create_default_context(cafile=str(authority.file))
        client.set_alpn_protocols(["amqp"])
        self.clock = Clock()
        self.inner = Inner(greeting)
        factory = tls_layer.TLSFactory(
            client, hostname, Factory.forProtocol(lambda: self.inner), self.clock
        )
        self.layer: Any = factory.buildProtocol(None)
        self.wire = Wire()
        self.received = b""
        self.layer.makeConnection(self.wire)

    def turn(self, size: int = 1 << 20) -> None:
        """Carry what either side has written, until neither has more."""
        for _ in range(50):
            sent = self.wire.value()
            self.wire.clear()
            if sent:
                self.incoming.write(sent)
            self._serve()
            answer = self.outgoing.read()
            for start in range(0, len(answer), size):
                self.layer.dataReceived(answer[start : start + size])
            if not (answer or self.wire.value()):
                return
        raise AssertionError("they never end")

    def _serve(self) -> None:
        try:
            if not self.shaken:
                self.server.do_handshake()
                self.shaken = True
            while True:
                data = self.server.read(1 << 16)
                if not data:
                    break
                self.received += data
        except (ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            pass

    def lose(self, why: BaseException | None = None) -> Any:
        """End the transport below; returns what the protocol above is told."""
        self.layer.connectionLost(Failure(why or ConnectionDone()))
        assert not self.clock.getDelayedCalls()
        return self.inner.lost


@pytest.fixture
def session(tmp_path: Path) -> Session:
    made = Session(tmp_path, greeting=b"hello")
    made.turn()
    assert made.shaken
    return made


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_both_ways_cut_anywhere(tmp_path: Path, size: int) -> None:
    session = Session(tmp_path, greeting=b"early ")
    body = bytes(range(256)) * 200
    session.turn(size)
    session.layer.writeSequence([body, b"!"])
    session.server.write(body)
    session.turn(size)
    assert session.received == b"early " + body + b"!"
    assert b"".join(session.inner.pieces) == body


def test_records_that_come_together_are_one_piece(session: Session) -> None:
    for number in range(300):
        session.server.write(b"%04d" % number)
    session.turn()
    assert session.inner.pieces == [b"".join(b"%04d" % number for number in range(300))]


def test_a_large_body_is_encrypted_in_pieces(session: Session) -> None:
    body = bytes(3 << 20)
    written: list[int] = []
    keep = session.wire.write
    session.wire.write = lambda data: (written.append(len(data)), keep(data))[1]  # type: ignore[method-assign]
    session.layer.write(body)
    assert max(written) < 200 * 1024
    session.turn()
    assert session.received == b"hello" + body


def test_a_large_read_is_delivered_in_bounded_pieces(session: Session) -> None:
    session.server.write(bytes(1 << 20))
    session.turn()
    assert sum(map(len, session.inner.pieces)) == 1 << 20
    assert max(map(len, session.inner.pieces)) <= tls_layer.GATHERED


def test_close_sends_everything_and_close_notify(session: Session) -> None:
    session.layer.write(b"last")
    session.layer.loseConnection()
    assert session.wire.disconnecting
    session.layer.write(b"too late")
    session.turn()
    assert session.received == b"hellolast"
    assert session.server.read(1) == b""  # close_notify, not a cut
    assert isinstance(session.lose(), ConnectionDone)


def test_close_within_the_handshake_waits_for_what_was_written(tmp_path: Path) -> None:
    session = Session(tmp_path, greeting=b"hello")
    session.layer.loseConnection()
    assert not session.wire.disconnecting
    session.turn()
    assert session.received == b"hello"
    assert session.wire.disconnecting
    assert isinstance(session.lose(), ConnectionDone)
    nothing = Session(tmp_path)
    nothing.layer.loseConnection()
    assert nothing.wire.disconnecting


def test_what_comes_while_it_closes_is_delivered(session: Session) -> None:
    session.layer.loseConnection()
    session.server.write(b"a confirm")
    session.turn()
    assert session.inner.pieces == [b"a confirm"]


def test_an_abort_delivers_nothing_more(session: Session) -> None:
    session.inner.on_data = session.layer.abortConnection
    session.server.write(bytes(tls_layer.GATHERED * 3))
    session.turn()
    assert len(session.inner.pieces) == 1
    assert session.wire.aborted
    assert isinstance(session.lose(), ConnectionDone)


def test_an_abort_at_connection_made(tmp_path: Path) -> None:
    class Aborting(Inner):
        def connectionMade(self) -> None:
            self.transport.abortConnection()  # type: ignore[union-attr]

    session = Session(tmp_path)
    session.wire.clear()
    factory = Factory.forProtocol(Aborting)
    layer: Any = tls_layer.TLSFactory(
        ssl.create_default_context(), "localhost", factory, session.clock
    ).buildProtocol(None)
    layer.makeConnection(session.wire)
    assert session.wire.aborted and not session.wire.value()


def test_the_peer_closes(session: Session) -> None:
    session.server.write(b"last")
    with pytest.raises(ssl.SSLWantReadError):
        session.server.unwrap()
    session.turn()
    assert session.inner.pieces == [b"last"]
    assert session.wire.disconnecting
    session.clock.advance(tls_layer.LINGER - 0.1)
    assert not session.wire.aborted
    session.clock.advance(0.2)
    assert session.wire.aborted  # a peer that does not read
    assert isinstance(session.lose(), ConnectionDone)


def test_a_cut_is_a_loss(session: Session) -> None:
    assert isinstance(session.lose(), ConnectionLost)


def test_a_cut_within_the_handshake_is_an_error_of_tls(tmp_path: Path) -> None:
    session = Session(tmp_path)
    assert isinstance(session.lose(), ssl.SSLEOFError)


def test_a_broken_record_ends_it(session: Session) -> None:
    session.server.write(b"good")
    good = session.outgoing.read()
    session.layer.dataReceived(good[:-1] + bytes([good[-1] ^ 1]))
    assert session.inner.pieces == []
    assert session.wire.value()  # the alert
    assert session.wire.disconnecting
    session.layer.dataReceived(b"more of it")
    session.layer.write(b"nothing")
    session.clock.advance(1)
    assert session.wire.aborted
    why = session.lose()
    assert isinstance(why, ssl.SSLError) and "BAD_RECORD_MAC" in str(why)


def test_the_wrong_name_is_refused_with_an_alert(tmp_path: Path) -> None:
    session = Session(tmp_path, hostname="broker.example", greeting=b"secret")
    with pytest.raises(ssl.SSLError, match=r"(?i)bad.certificate|unknown"):
        session.turn()
    assert session.received == b""
    assert isinstance(session.lose(), ssl.SSLCertVerificationError)


def test_what_is_known_of_the_peer(session: Session) -> None:
    assert interfaces.ISSLTransport.providedBy(session.layer)
    assert session.layer.negotiatedProtocol == b"amqp"
    certificate = session.layer.getPeerCertificate().to_cryptography()
    assert certificate.subject.rfc4514_string() == "CN=localhost"
    assert session.layer.getHandle().version() == "TLSv1.3"


class Producer:
    def __init__(self) -> None:
        self.calls: list[str] = []

    def pauseProducing(self) -> None:
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        self.calls.append("resume")

    def stopProducing(self) -> None:
        self.calls.append("stop")


def test_a_producer_waits_for_the_handshake(tmp_path: Path) -> None:
    session, producer = Session(tmp_path), Producer()
    session.layer.registerProducer(producer, True)
    assert session.wire.producer is producer
    session.layer.write(b"one")
    session.layer.write(b"two")
    assert producer.calls == ["pause"]
    session.turn()
    assert producer.calls == ["pause", "resume"]
    session.layer.loseConnection()
    session.layer.write(b"three")  # allowed until it unregisters
    assert not session.wire.disconnecting
    session.layer.unregisterProducer()
    assert session.wire.producer is None and session.wire.disconnecting
    session.turn()
    assert session.received == b"onetwothree"
    session.layer.registerProducer(producer, True)
    assert producer.calls[-1] == "stop"


def test_half_of_it_closes(session: Session) -> None:
    session.wire.loseWriteConnection = lambda: None  # type: ignore[attr-defined]
    session.layer.loseWriteConnection()
    session.layer.write(b"nothing")
    session.turn()
    assert session.server.read(1) == b""
    session.server.write(b"still read")
    session.turn()
    assert session.inner.pieces == [b"still read"]


def test_tls_only_where_there_is_none(tmp_path: Path) -> None:
    session = Session(tmp_path)
    inner = Inner(b"plain")
    factory = tls_layer.TLSFactory(
        ssl.create_default_context(), "localhost", Factory.forProtocol(lambda: inner), session.clock
    )
    factory.protocol = tls_layer.UnlessEncrypted  # type: ignore[assignment]
    encrypted: Any = Wire()
    encrypted.getPeerCertificate = None
    factory.buildProtocol(None).makeConnection(encrypted)  # type: ignore[no-untyped-call]
    assert encrypted.value() == b"plain"
    plain = Wire()
    factory.buildProtocol(None).makeConnection(plain)  # type: ignore[no-untyped-call]
    assert b"plain" not in plain.value() and plain.value()[:1] == b"\x16"  # a handshake record
