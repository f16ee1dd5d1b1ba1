"""Every limit on what a peer can make a connection hold or wait for: settable, and in effect."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from pika import exceptions, spec

from pika_twisted import TwistedProtocolConnection
from pika_twisted.exceptions import HandshakeTimeout, UndecodableProperties
from pika_twisted.pika_state.channel import MOST_UNKNOWN_CONSUMERS
from tests.support import wire
from tests.support.outcome import call, watch
from tests.support.session import Session


def limited(session: Session, **limits: Any) -> Any:
    """What makes a connection with these limits."""
    return session.adapter.with_options(**limits).connection


def test_the_defaults() -> None:
    parameters = inspect.signature(TwistedProtocolConnection).parameters
    defaults = {
        "max_message_size": 128 << 20,
        "max_header_size": 1 << 20,
        "max_nesting": 100,
        "handshake_timeout": 15.0,
        "close_timeout": 10.0,
    }
    assert {name: parameters[name].default for name in defaults} == defaults


def with_headers(table: bytes) -> bytes:
    return wire.content(1, b"body", wire.headers_only(wire.sized(table)), wire.deliver("t"))


@pytest.mark.parametrize(("limit", "fits"), [(200_000, True), (199_000, False)])
def test_max_header_size(session: Session, limit: int, fits: bool) -> None:
    session.open(factory=limited(session, max_header_size=limit))
    queue = session.consumer(session.channel())
    table = wire.entry(b"k", b"S" + wire.sized(b"x" * 199_900))
    session.peer.send_bytes(with_headers(table))
    assert len(queue.pending) == fits
    if not fits:
        assert session.peer.expect(spec.Connection.Close).method.reply_code == 501
        session.turn(1)


@pytest.mark.parametrize(
    ("limits", "depth", "fits"),
    [
        ({}, 100, True),
        ({}, 101, False),
        ({"max_nesting": 3}, 3, True),
        ({"max_nesting": 3}, 4, False),
    ],
)
def test_max_nesting(session: Session, limits: dict[str, int], depth: int, fits: bool) -> None:
    """Depth is that of the values in the headers; the headers themselves are a table."""
    session.open(factory=limited(session, **limits))
    queue = session.consumer(session.channel())
    session.peer.send_bytes(with_headers(wire.entry(b"k", wire.nested(depth))))
    (message,) = queue.pending
    assert message.body == b"body"
    if fits:
        assert "k" in message.properties.headers
    else:
        with pytest.raises(UndecodableProperties):
            message.properties.headers
    assert session.protocol.is_open


@pytest.mark.parametrize(("limit", "fits"), [(1000, True), (999, False), (0, False)])
def test_max_message_size(session: Session, limit: int, fits: bool) -> None:
    session.open(factory=limited(session, max_message_size=limit))
    channel = session.channel()
    queue = session.consumer(channel)
    session.peer.send_bytes(wire.content(1, bytes(1000), method=wire.deliver("t")))
    assert len(queue.pending) == fits
    if not fits:
        close = session.peer.expect(spec.Channel.Close).method
        assert close.reply_code == 311
        assert f"1000 bytes is larger than max_message_size={limit}" in close.reply_text
        session.peer.send(channel, spec.Channel.CloseOk())
    assert session.protocol.is_open


@pytest.mark.parametrize("seconds", [3, 40])
def test_handshake_timeout(session: Session, seconds: int) -> None:
    ready = watch(session.connect(factory=limited(session, handshake_timeout=seconds)).ready)
    session.turn(seconds - 1)
    session.peer.start()
    assert ready.pending
    session.turn(2)
    reason = ready.failure(HandshakeTimeout)
    assert f"handshake_timeout={seconds}" in reason.args[1]
    assert session.transport.aborted


def test_no_handshake_timeout(session: Session) -> None:
    ready = watch(session.connect(factory=limited(session, handshake_timeout=0)).ready)
    session.turn(1000)
    assert ready.pending
    session.lose()
    ready.failure(exceptions.AMQPConnectionError)


@pytest.mark.parametrize("seconds", [2, 30])
def test_close_timeout(session: Session, seconds: int) -> None:
    protocol = session.open(factory=limited(session, close_timeout=seconds))
    closing = call(protocol.close)
    session.transport.stuck = True
    session.turn(seconds - 1)
    assert closing.pending
    session.turn(2)
    assert isinstance(closing.result(), exceptions.ConnectionClosedByClient)
    assert session.transport.aborted


def test_the_transport_s_own_close_ends_with_a_peer_that_is_frozen(session: Session) -> None:
    """`transport.loseConnection()`, as ClientService calls it, waited for TCP's own timers."""
    protocol = session.open(factory=limited(session, close_timeout=8))
    closed = watch(protocol.when_closed())
    session.transport.stuck = True
    protocol.transport.loseConnection()
    session.turn(3.9)
    assert not session.transport.aborted
    session.turn(4)
    assert session.transport.aborted
    why = closed.result()
    assert isinstance(why, exceptions.StreamLostError)
    assert "took no data for 8 s after loseConnection()" in str(why)


def test_the_transport_s_own_close_waits_for_a_slow_peer(session: Session) -> None:
    protocol = session.open(factory=limited(session, close_timeout=8))
    socket = session.transport
    socket.stuck = True
    socket.dataBuffer, socket.offset, socket._tempDataLen = bytes(1000), 0, 500
    protocol.transport.loseConnection()
    for _ in range(20):
        session.turn(4)
        socket.offset += 10
    assert not socket.aborted
    session.turn(8)
    assert socket.aborted
    session.turn(0)


def test_unknown_consumers_that_are_cancelled_at_a_time(session: Session) -> None:
    """A peer that makes up consumer tags fills nothing with calls; each is nacked all the same."""
    channel = session.channel()
    session.peer.forget()

    def deliver(tag: str) -> list[str]:
        session.peer.send_bytes(wire.content(1, b"x", method=wire.deliver(tag)))
        names = session.peer.names()
        session.peer.forget()
        return names

    assert deliver("stranger 0") == ["Basic.Nack", "Basic.Cancel"]
    for number in [0, *range(1, 150)]:
        assert deliver(f"stranger {number}") == ["Basic.Nack"]
    assert len(channel._channel._blocked) == MOST_UNKNOWN_CONSUMERS - 1
    for number in range(MOST_UNKNOWN_CONSUMERS):
        session.peer.send(channel, spec.Basic.CancelOk(f"stranger {number}"))
    session.peer.forget()
    assert deliver("stranger 149") == ["Basic.Nack", "Basic.Cancel"]
    assert channel.is_open


def test_a_peer_that_says_nothing(session: Session) -> None:
    ready = watch(session.connect().ready)
    session.turn(14)
    assert ready.pending
    session.turn(2)
    ready.failure(exceptions.AMQPConnectionError)
    assert session.transport.aborted


def test_time_without_limit(session: Session) -> None:
    unlimited = session.adapter.with_options(handshake_timeout=None)
    protocol = session.connect(factory=unlimited.connection)
    ready = watch(protocol.ready)
    assert not session.clock.getDelayedCalls()
    session.turn(60)
    assert ready.pending
    session.lose()
    ready.failure(exceptions.AMQPConnectionError)
