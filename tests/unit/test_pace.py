"""`read_interval`: a rest after each read that brought messages, never for one who waits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from pika import spec

from pika_twisted import WaterMarks
from tests.support.outcome import TwistedLog, watch
from tests.support.session import OURS, OURS_THROUGH_PIKA, Session
from tests.unit.test_every_deferred import Call, late_answer
from tests.unit.test_water_marks import MARKS, QUESTIONS, is_paused

INTERVAL = 0.25


def paced(adapter: Any, marks: WaterMarks | None = None) -> Any:
    return replace(
        adapter,
        options={**adapter.options, "read_interval": INTERVAL, "water_marks": marks},
    )


@pytest.fixture(params=[OURS, OURS_THROUGH_PIKA], ids=["direct", "through_pika"])
def adapter(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(params=[None, MARKS], ids=["no_marks", "marks"])
def session(adapter: Any, request: pytest.FixtureRequest) -> Iterator[Session]:
    with TwistedLog() as log:
        session = Session(paced(adapter, request.param))
        yield session
        session.finish()
        log.assert_empty()


def consuming(session: Session) -> tuple[Any, Any]:
    channel = session.channel()
    return session.consumer(channel, "ct", auto_ack=True), channel


def resting(session: Session) -> tuple[Any, Any]:
    queue, channel = consuming(session)
    session.peer.deliver(channel, "ct", b"x")
    assert is_paused(session)
    return queue, channel


def test_it_rests_after_messages_for_the_interval(session: Session) -> None:
    queue, channel = consuming(session)
    waiting = watch(queue.get())
    session.peer.deliver(channel, "ct", b"x")
    assert waiting.result().body == b"x", "what was read is handed out before the rest"
    assert is_paused(session)
    session.clock.advance(INTERVAL * 0.9)
    assert is_paused(session)
    session.clock.advance(INTERVAL * 0.1)
    assert not is_paused(session)
    assert not session.clock.getDelayedCalls()
    session.peer.deliver(channel, "ct", b"x")
    assert is_paused(session)
    assert session.protocol.stats().paused_seconds == 0, "no queue was full"


def test_it_does_not_rest_after_anything_else(session: Session) -> None:
    _, channel = consuming(session)
    session.peer.send(0, spec.Connection.Blocked("disk"))
    session.peer.send(channel, spec.Basic.Cancel("ct", nowait=True))
    declaring = watch(channel.queue_declare("q"))
    session.peer.send(channel, spec.Queue.DeclareOk("q", 0, 0))
    declaring.result()
    assert not is_paused(session)
    assert not session.clock.getDelayedCalls()


@pytest.mark.parametrize("call", QUESTIONS, ids=[call.name for call in QUESTIONS])
def test_whoever_waits_for_the_broker_ends_the_rest(session: Session, call: Call) -> None:
    channel = session.channel()
    if call.prepare is not None:
        call.prepare(session, channel)
    queue, flood = resting(session)
    outcome = watch(call.start(session, channel), call.name)
    assert not is_paused(session), "the call is made: its answer has to be read"
    session.turn()
    session.peer.deliver(flood, "ct", b"more", first=2)
    assert not is_paused(session), "the answer has not come yet"
    assert outcome.pending
    late_answer(session, call, channel)
    outcome.result()
    assert len(queue.pending) == 2


def test_it_rests_again_when_the_answer_has_come(session: Session) -> None:
    _, channel = resting(session)
    declaring = watch(channel.queue_declare("q"))
    assert not is_paused(session)
    session.peer.send(channel, spec.Queue.DeclareOk("q", 0, 0))
    declaring.result()
    assert not is_paused(session), "that read brought no message"
    session.peer.deliver(channel, "ct", b"x", first=2)
    assert is_paused(session)


@pytest.mark.parametrize("session", [MARKS], indirect=True)
def test_a_full_queue_holds_longer_than_the_rest(session: Session) -> None:
    queue, channel = resting(session)
    session.peer.deliver(channel, "ct", *[b"x"] * 4, first=2)  # what was on its way
    session.clock.advance(INTERVAL)
    assert is_paused(session), "the rest is over, the queue is full"
    queue.drain()
    assert not is_paused(session)


@pytest.mark.parametrize("session", [MARKS], indirect=True)
def test_a_queue_emptied_amid_the_rest(session: Session) -> None:
    queue, channel = resting(session)
    session.peer.deliver(channel, "ct", *[b"x"] * 4, first=2)
    queue.drain()
    assert not is_paused(session), "whoever took the messages wants more"
    assert not session.clock.getDelayedCalls()
    session.peer.deliver(channel, "ct", b"x", first=6)
    assert is_paused(session)
    session.clock.advance(INTERVAL)
    assert not is_paused(session)


def test_a_transport_that_is_closed_is_read_to_its_end(session: Session) -> None:
    session.tls = True
    queue, channel = resting(session)
    session.protocol.transport.loseConnection()
    assert not is_paused(session)
    assert not session.clock.getDelayedCalls()
    session.peer.deliver(channel, "ct", b"x", first=2)
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
    _, channel = consuming(session)
    session.peer.deliver(channel, "ct", *[b"x"] * 10)
    assert not is_paused(session)
    assert not session.clock.getDelayedCalls()
    session.finish()


def test_messages_are_counted_on_either_way(adapter: Any) -> None:
    session = Session(adapter)
    queue, channel = consuming(session)
    session.peer.deliver(channel, "ct", b"1", b"2", b"3")
    fetching = watch(channel.basic_get("q"))
    session.peer.get_ok(channel, b"4")
    fetching.result()
    assert len(queue.drain()) == 3
    assert session.protocol.stats().messages_received == 4
    session.finish()
