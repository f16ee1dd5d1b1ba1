"""`read_interval`: a rest after each read that brought messages, never for one who waits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pika import spec

from tests.support.calls import Call
from tests.support.outcome import TwistedLog, watch
from tests.support.pausing import (
    MARKS,
    QUESTIONS,
    asked_amid_a_pause,
    flooded,
    is_paused,
)
from tests.support.session import Session

INTERVAL = 0.25


@pytest.fixture(params=[None, MARKS], ids=["no_marks", "marks"])
def session(adapter: Any, request: pytest.FixtureRequest) -> Iterator[Session]:
    with TwistedLog() as log:
        session = Session(adapter.with_options(read_interval=INTERVAL, water_marks=request.param))
        yield session
        session.finish()
        log.assert_empty()


def resting(session: Session) -> tuple[Any, Any]:
    queue, channel = flooded(session, 1)
    assert is_paused(session)
    return queue, channel


def test_it_rests_after_messages_for_the_interval(session: Session) -> None:
    queue, channel = flooded(session, 0)
    waiting = watch(queue.get())
    session.peer.deliver(channel, "flood", b"x")
    assert waiting.result().body == b"x", "what was read is handed out before the rest"
    assert is_paused(session)
    session.clock.advance(INTERVAL * 0.9)
    assert is_paused(session)
    session.clock.advance(INTERVAL * 0.1)
    assert not is_paused(session)
    assert not session.clock.getDelayedCalls()
    session.peer.deliver(channel, "flood", b"x")
    assert is_paused(session)
    assert session.protocol.stats().paused_seconds == 0, "no queue was full"


def test_it_does_not_rest_after_anything_else(session: Session) -> None:
    _, channel = flooded(session, 0)
    session.peer.send(0, spec.Connection.Blocked("disk"))
    session.peer.send(channel, spec.Basic.Cancel("flood", nowait=True))
    declaring = watch(channel.queue_declare("q"))
    session.peer.send(channel, spec.Queue.DeclareOk("q", 0, 0))
    declaring.result()
    assert not is_paused(session)
    assert not session.clock.getDelayedCalls()


@pytest.mark.parametrize("call", QUESTIONS, ids=[call.name for call in QUESTIONS])
def test_whoever_waits_for_the_broker_ends_the_rest(session: Session, call: Call) -> None:
    queue = asked_amid_a_pause(session, call, 1)
    assert len(queue.pending) == 2


def test_it_rests_again_when_the_answer_has_come(session: Session) -> None:
    _, channel = resting(session)
    declaring = watch(channel.queue_declare("q"))
    assert not is_paused(session)
    session.peer.send(channel, spec.Queue.DeclareOk("q", 0, 0))
    declaring.result()
    assert not is_paused(session), "that read brought no message"
    session.peer.deliver(channel, "flood", b"x", first=2)
    assert is_paused(session)


@pytest.mark.parametrize("session", [MARKS], indirect=True)
def test_a_full_queue_holds_longer_than_the_rest(session: Session) -> None:
    queue, channel = resting(session)
    session.peer.deliver(channel, "flood", *[b"x"] * 4, first=2)  # what was on its way
    session.clock.advance(INTERVAL)
    assert is_paused(session), "the rest is over, the queue is full"
    queue.drain()
    assert not is_paused(session)


@pytest.mark.parametrize("session", [MARKS], indirect=True)
def test_a_queue_emptied_amid_the_rest(session: Session) -> None:
    queue, channel = resting(session)
    session.peer.deliver(channel, "flood", *[b"x"] * 4, first=2)
    queue.drain()
    assert not is_paused(session), "whoever took the messages wants more"
    assert not session.clock.getDelayedCalls()
    session.peer.deliver(channel, "flood", b"x", first=6)
    assert is_paused(session)
    session.clock.advance(INTERVAL)
    assert not is_paused(session)


def test_a_transport_that_is_closed_is_read_to_its_end(session: Session) -> None:
    session.tls = True
    queue, channel = resting(session)
    session.protocol.transport.loseConnection()
    assert not is_paused(session)
    (left,) = session.clock.getDelayedCalls()
    assert left.getTime() > session.clock.seconds() + 1  # of a peer that takes nothing; no rest
    session.peer.deliver(channel, "flood", b"x", first=2)
    assert not is_paused(session)
    assert len(queue.pending) == 2


def test_closing_ends_the_rest(session: Session) -> None:
    _, channel = resting(session)
    closing = watch(session.protocol.close())
    assert not is_paused(session)
    session.peer.send(channel, spec.Channel.CloseOk())
    session.peer.send(0, spec.Connection.CloseOk())
    session.turn()
    closing.result()


def test_a_lost_connection_leaves_no_timer(session: Session) -> None:
    resting(session)
    session.lose()
    assert not session.clock.getDelayedCalls()


def test_without_it_nothing_rests(adapter: Any) -> None:
    session = Session(adapter)
    _, channel = flooded(session, 0)
    session.peer.deliver(channel, "flood", *[b"x"] * 10)
    assert not is_paused(session)
    assert not session.clock.getDelayedCalls()
    session.finish()


def test_messages_are_counted_on_either_way(adapter: Any) -> None:
    session = Session(adapter)
    queue, channel = flooded(session, 0)
    session.peer.deliver(channel, "flood", b"1", b"2", b"3")
    fetching = watch(channel.basic_get("q"))
    session.peer.get_ok(channel, b"4")
    fetching.result()
    assert len(queue.drain()) == 3
    assert session.protocol.stats().messages_received == 4
    session.finish()
