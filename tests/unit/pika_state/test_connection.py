"""The connection's state machine: its handshake, errors inside, frames out of place."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from pika import exceptions, spec

from tests.support.outcome import call, watch
from tests.support.session import Session


@pytest.mark.parametrize(
    ("error", "code"),
    [(ZeroDivisionError("bug"), 541), (MemoryError(), 506)],
    ids=["bug", "memory"],
)
def test_an_error_inside_closes_the_connection(
    session: Session, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int
) -> None:
    channel = session.channel()
    declaring = call(channel.queue_declare, "q")

    def fail(_frame: Any) -> None:
        raise error

    monkeypatch.setattr(session.protocol._impl, "_process_frame", fail)
    session.peer.send(channel, spec.Queue.DeclareOk("q", 0, 0))
    assert session.peer.expect(spec.Connection.Close).method.reply_code == code
    session.turn(1)
    why = declaring.failure(exceptions.AMQPConnectionError)
    assert why.reply_code == code
    assert session.closed.result().__cause__ is error


def test_a_frame_max_below_the_least(session: Session) -> None:
    protocol = session.connect()
    ready = watch(protocol.ready)
    session.peer.start()
    session.peer.tune(frame_max=4095)
    assert session.peer.expect(spec.Connection.Close).method.reply_code == 501
    session.turn(1)
    assert "4095" in str(ready.failure(exceptions.AMQPConnectionError))


def test_connected_after_it_was_closed(session: Session) -> None:
    first = session.connect()
    ready = watch(first.ready)
    session.lose()
    ready.failure(exceptions.AMQPConnectionError)
    transport = type(session.transport)(session.clock)
    transport.protocol = first
    first.makeConnection(transport)
    assert transport.aborted and not transport.writes


def test_an_error_inside_after_the_end(
    session: Session, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    channel = session.channel()

    def fail(_frame: Any) -> None:
        session.protocol._impl.abort(ConnectionError("cut"))
        raise ZeroDivisionError("bug")

    monkeypatch.setattr(session.protocol._impl, "_process_frame", fail)
    with caplog.at_level(logging.ERROR, "pika_twisted"):
        session.peer.send(channel, spec.Queue.DeclareOk("q", 0, 0))
    assert "bug" in caplog.text
    session.peer.expect_none(spec.Connection.Close)
    session.turn()
    assert "cut" in str(session.closed.result())


def test_a_frame_for_a_channel_that_is_not_there(session: Session) -> None:
    session.open()
    session.peer.send(7, spec.Queue.DeclareOk("q", 0, 0))
    close = session.peer.expect(spec.Connection.Close).method
    assert (close.reply_code, "channel 7" in close.reply_text) == (504, True)
    session.peer.send(7, spec.Queue.DeclareOk("q", 0, 0))  # nobody listens any more
    session.peer.expect_none()
    session.turn()
    assert session.closed.result().reply_code == 504


def test_a_broker_of_another_protocol(session: Session) -> None:
    ready = watch(session.connect().ready)
    session.peer.start(version=(0, 8))
    session.turn()
    ready.failure(exceptions.IncompatibleProtocolError)


def test_pika_may_not_connect_it(session: Session) -> None:
    impl = session.open()._impl
    with pytest.raises(exceptions.AMQPConnectionError, match="Twisted connects"):
        impl._adapter_connect_stream()
