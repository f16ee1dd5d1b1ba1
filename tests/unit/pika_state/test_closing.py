"""Closing a connection, from either side, and losing it in the middle of something."""

from __future__ import annotations

from typing import Any

import pytest
from pika import exceptions, spec
from twisted.internet import defer, error

from tests.support.outcome import call, watch
from tests.support.session import Session, bodies
from tests.support.transport import FakeTransport


def test_closing_the_connection_in_the_middle_of_a_read(session: Session) -> None:
    protocol = session.open()
    channel = session.channel()
    queue = session.consumer(channel, auto_ack=True)
    closing: list[Any] = []
    queue.get().addCallback(lambda message: closing.append(watch(protocol.close())))
    with session.peer.one_read():
        session.peer.deliver(channel, "t", b"1", b"2")
        session.peer.heartbeat()
        session.peer.deliver(channel, "t", b"3", first=3)

    session.peer.expect(spec.Channel.Close)
    session.peer.send(channel, spec.Channel.CloseOk())
    session.peer.expect(spec.Connection.Close)
    session.peer.send(0, spec.Connection.CloseOk())
    session.turn(1)

    assert isinstance(closing[0].result(), exceptions.ConnectionClosedByClient)
    # The broker has forgotten what it delivered with auto_ack: everything that came is there.
    assert bodies(queue.drain()) == [b"2", b"3"]


def test_aborting_the_transport_in_the_middle_of_a_read(session: Session) -> None:
    protocol = session.open()
    channel = session.channel()
    queue = session.consumer(channel)
    queue.get().addCallback(lambda message: protocol.transport.abortConnection())
    session.peer.deliver(channel, "t", b"1", b"2")
    session.turn()
    assert isinstance(session.closed.result(), error.ConnectionLost)
    watch(queue.get()).failure(exceptions.ChannelClosed)


@pytest.mark.parametrize(
    "ask",
    [
        lambda channel, _: channel.queue_declare("q"),
        lambda channel, _: channel.basic_get("q"),
        lambda channel, _: channel.basic_consume("q"),
        lambda channel, _: channel.confirm_delivery(),
        lambda _, protocol: protocol.channel(),
        lambda _, protocol: protocol.update_secret("token", "expiry"),
    ],
    ids=["declare", "get", "consume", "select", "channel", "secret"],
)
def test_a_connection_lost_within_the_write(session: Session, ask: Any) -> None:
    channel = session.channel()
    session.transport.write = lambda _octets: session.lose()  # type: ignore[method-assign]
    watch(ask(channel, session.protocol)).failure(exceptions.AMQPError)


def test_a_broker_that_does_not_answer_close(session: Session) -> None:
    protocol = session.open()
    channel = session.channel()
    waiting = watch(channel.queue_declare("q"))
    closing = call(protocol.close)
    session.transport.stuck = True
    session.turn(9)
    assert closing.pending
    session.turn(2)
    closing.result()
    waiting.failure(exceptions.ChannelClosed)
    assert not session.transport.connected


@pytest.mark.parametrize("dies_at", [0, 1, 2, 3])
def test_a_transport_that_ends_within_the_writes_of_close(session: Session, dies_at: int) -> None:
    protocol = session.open()
    channels = [session.channel() for _ in range(3)]
    ends = [watch(channel.on_closed) for channel in channels]
    write = session.transport.write
    left = dies_at

    def count(octets: bytes) -> None:
        nonlocal left
        write(octets)
        if left == 0:
            session.lose()
        left -= 1

    session.transport.write = count  # type: ignore[method-assign]
    closing = watch(protocol.close(200, "done"))
    if dies_at == 3:
        assert closing.pending
        session.lose()
    kind = exceptions.ConnectionClosedByClient if dies_at == 3 else exceptions.StreamLostError
    assert isinstance(closing.result(), kind)
    assert protocol.is_closed
    for ending in ends:
        assert isinstance(ending.result(), exceptions.ChannelClosed)


@pytest.mark.parametrize("ending", ["transport", "broker"])
def test_the_reason_of_a_close_that_ends_within_its_write(session: Session, ending: str) -> None:
    protocol = session.open()
    write = session.transport.write

    def write_and_end(octets: bytes) -> None:
        write(octets)
        if ending == "transport":
            session.lose()
        else:
            session.peer.send(0, spec.Connection.CloseOk())

    session.transport.write = write_and_end  # type: ignore[method-assign]
    closing = watch(protocol.close(200, "done"))
    session.turn()
    why = closing.result()
    assert isinstance(why, exceptions.ConnectionClosedByClient)
    assert why.args == (200, "done")
    assert isinstance(why, error.ConnectionDone)


def test_a_transport_that_can_neither_be_aborted_nor_say_where_it_leads(session: Session) -> None:
    """That of a ProcessEndpoint, say: a tunnel."""
    protocol = session.open()

    class Pipe(FakeTransport):
        abortConnection = property()  # type: ignore[assignment]  # hidden

        def getPeer(self) -> Any:
            raise NotImplementedError

    session.transport.__class__ = Pipe
    assert "Pipe" in repr(protocol)
    closing = watch(protocol.close())
    session.peer.send(0, spec.Connection.CloseOk())
    session.turn(1)
    closing.result()


def test_close_waits_for_the_end_also_when_closed_was_cancelled(session: Session) -> None:
    protocol = session.open()
    protocol.closed.cancel()
    session.closed.failure(defer.CancelledError)
    closing = watch(protocol.close())
    assert closing.pending
    session.peer.send(0, spec.Connection.CloseOk())
    session.turn()
    assert isinstance(closing.result(), exceptions.ConnectionClosedByClient)


def test_closing_when_the_transport_ends_while_acks_are_written(session: Session) -> None:
    channel = session.channel()
    channel.ack_batching = True
    session.consumer(channel)
    session.peer.deliver(channel, "t", b"1")
    channel.basic_ack(1)
    session.transport.write = lambda _octets: session.lose()  # type: ignore[method-assign]
    assert isinstance(watch(session.protocol.close()).result(), exceptions.StreamLostError)


def test_closing_what_the_broker_has_closed(session: Session) -> None:
    """Its reason stays, and the transport has no more time than before."""
    session.channel()
    session.peer.send(0, spec.Connection.Close(320, "CONNECTION_FORCED", 0, 0))
    session.peer.forget()
    session.transport.stuck = True
    closing = watch(session.protocol.close())
    session.peer.expect_none()
    session.turn(1)
    why = closing.result()
    assert isinstance(why, exceptions.ConnectionClosedByBroker)
    assert why.reply_code == 320


@pytest.mark.parametrize("by", ["broker", "refusal"])
def test_the_reason_of_an_end_within_the_write_of_the_last_method(
    session: Session, by: str
) -> None:
    session.open()
    session.transport.write = lambda _octets: session.lose()  # type: ignore[method-assign]
    if by == "broker":
        session.peer.send(0, spec.Connection.Close(320, "CONNECTION_FORCED", 0, 0))
        assert session.closed.result().reply_code == 320
    else:
        session.peer.send_bytes(b"\x09")
        assert session.closed.result().reply_code == 501


@pytest.mark.parametrize("channels", [0, 1])
@pytest.mark.parametrize(
    ("code", "text", "words"),
    [
        (70_000, "done", "reply_code=70000"),
        ("200", "done", "reply_code='200'"),
        (None, "done", "reply_code=None"),
        (200, None, "reply_text=None"),
        (200, "\ud800", "reply_text="),
        (200, "x" * 256, "reply_text: a string of 256 octets"),
    ],
)
def test_closing_the_connection_with_what_can_t_be_sent(
    session: Session, channels: int, code: Any, text: Any, words: str
) -> None:
    protocol = session.open()
    opened = [session.channel() for _ in range(channels)]
    session.peer.forget()
    with pytest.raises((TypeError, exceptions.ShortStringTooLong), match=words):
        protocol.close(code, text)
    session.turn(11)  # longer than close_timeout
    assert protocol.is_open and all(channel.is_open for channel in opened)
    session.peer.expect_none()
