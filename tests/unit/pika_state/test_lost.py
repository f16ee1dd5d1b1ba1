"""What a lost connection says, in its reason and in `logging`; a reactor that was blocked."""

from __future__ import annotations

import logging

import pytest
from pika import exceptions, spec
from twisted.internet import error

from tests.support.session import Session


@pytest.fixture(autouse=True)
def level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pika_twisted")


def told(caplog: pytest.LogCaptureFixture, words: str) -> list[tuple[int, str]]:
    """What was logged with these words: level and text."""
    return [
        (record.levelno, record.getMessage())
        for record in caplog.records
        if record.name == "pika_twisted" and words in record.getMessage()
    ]


def test_a_lost_connection_is_a_warning(session: Session, caplog: pytest.LogCaptureFixture) -> None:
    channel = session.channel()
    session.consumer(channel)
    session.lose()
    ((level, text),) = [each for each in told(caplog, "") if each[0] >= logging.WARNING]
    assert level == logging.WARNING
    assert text == f"Connection to localhost:5672 lost: {session.closed.result()}"


def test_a_close_by_the_broker_is_a_warning(
    session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    session.open()
    session.peer.send(0, spec.Connection.Close(320, "CONNECTION_FORCED - restart", 0, 0))
    session.turn(1)
    text = "Connection to localhost:5672 lost: (320) CONNECTION_FORCED - restart"
    assert told(caplog, "lost") == [(logging.WARNING, text)]


def test_a_close_by_the_client_is_none(session: Session, caplog: pytest.LogCaptureFixture) -> None:
    session.open().close()
    session.peer.send(0, spec.Connection.CloseOk())
    session.turn(1)
    assert not told(caplog, "lost")


def test_a_refusal_is_told_once(session: Session, caplog: pytest.LogCaptureFixture) -> None:
    session.open()
    session.peer.send_bytes(b"\xff" * 8)
    session.turn(1)
    assert [level for level, _ in told(caplog, "") if level >= logging.WARNING] == [logging.ERROR]


def test_a_blocked_reactor_is_named(session: Session, caplog: pytest.LogCaptureFixture) -> None:
    """A handler that blocks for longer than the heartbeat: the broker sees a dead client."""
    session.open(heartbeat=2)
    session.clock.advance(0.5)
    session.clock.advance(9.0)  # the timer of a heartbeat was due after 1 s
    note = "the reactor was blocked for 8.5 s; heartbeat is 2 s"
    assert [level for level, text in told(caplog, note)] == [logging.WARNING]
    session.lose(error.ConnectionLost("Connection reset by peer"))
    reason = session.closed.result()
    assert isinstance(reason, exceptions.StreamLostError)
    assert note in str(reason)
    assert note in told(caplog, "lost")[0][1]


def test_what_came_during_a_block_is_read_before_the_peer_counts_as_dead(session: Session) -> None:
    """Its timers run before the sockets are read."""
    session.open(heartbeat=2)
    session.clock.advance(30.0)
    assert session.transport.connected
    session.turn(6)
    assert session.transport.connected
    session.turn(10)
    assert isinstance(session.closed.result(), exceptions.AMQPHeartbeatTimeout)


def test_a_block_of_long_ago_is_not_the_reason(session: Session) -> None:
    session.open(heartbeat=2)
    session.clock.advance(9.0)
    for _ in range(20):
        session.peer.heartbeat()
        session.turn(1)
    session.lose()
    assert "blocked" not in str(session.closed.result())
