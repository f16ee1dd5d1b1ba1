"""Full consumer queues pause the transport, and never at the cost of anybody who waits."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pika import spec

from pika_twisted import ConnectionStats, WaterMarks
from pika_twisted.channel import consumer
from tests.support.calls import Call
from tests.support.outcome import TwistedLog, watch
from tests.support.pausing import (
    MARKS,
    QUESTIONS,
    asked_amid_a_pause,
    flooded,
    is_paused,
)
from tests.support.session import OURS, Session


@pytest.fixture
def session(adapter: Any) -> Iterator[Session]:
    with TwistedLog() as log:
        session = Session(adapter.with_options(water_marks=MARKS))
        yield session
        session.finish()
        log.assert_empty()


@pytest.mark.parametrize("call", QUESTIONS, ids=[call.name for call in QUESTIONS])
def test_reading_goes_on_while_anybody_waits_for_the_broker(session: Session, call: Call) -> None:
    queue = asked_amid_a_pause(session, call, 5)
    assert is_paused(session), "nobody waits any more, and the queue is full"
    assert len(queue.pending) == 6


def test_closing_the_connection_reads_on(session: Session) -> None:
    flooded(session)
    closing = watch(session.protocol.close())
    session.turn()
    assert not is_paused(session)
    for number in list(session.protocol._impl._channels):
        session.peer.send(number, spec.Channel.CloseOk())
    assert not is_paused(session)
    session.peer.send(0, spec.Connection.CloseOk())
    session.turn()
    closing.result()


def test_a_cancelled_call_is_still_a_question(session: Session) -> None:
    """Its late answer takes effect, and has to be read before those of other calls."""
    channel = session.channel()
    flooded(session)
    declaring = watch(channel.queue_declare("q"))
    declaring.deferred.cancel()
    assert not is_paused(session)
    declaring.failure(Exception)
    session.peer.send(channel, spec.Queue.DeclareOk("q", 0, 0))
    assert is_paused(session)


TAKES: dict[str, Callable[[Any], Any]] = {
    "get": lambda queue: [watch(queue.get()).result() for _ in range(3)],
    "get_many": lambda queue: watch(queue.get_many(3)).result(),
    "drain": lambda queue: queue.drain(),
    "close": lambda queue: queue.close(RuntimeError("enough")),
}


@pytest.mark.parametrize("take", list(TAKES))
def test_reading_goes_on_at_the_low_mark(session: Session, take: str) -> None:
    queue, channel = flooded(session)
    assert is_paused(session)
    TAKES[take](queue)
    assert not is_paused(session)
    if take != "close":
        session.peer.deliver(channel, "flood", *[b"x"] * 5)
        assert is_paused(session)


def test_between_the_marks_nothing_changes(session: Session) -> None:
    queue, channel = flooded(session, 3)
    assert not is_paused(session)
    session.peer.deliver(channel, "flood", b"fourth")
    assert is_paused(session)
    watch(queue.get()).result()
    assert is_paused(session), "three left: below the high mark, above the low one"
    watch(queue.get()).result()
    assert not is_paused(session)


def test_bytes_count_as_well(session: Session) -> None:
    queue, channel = flooded(session, 1)
    session.peer.deliver(channel, "flood", bytes(999))
    assert is_paused(session)
    watch(queue.get_many(2)).result()
    assert not is_paused(session)


def test_one_full_queue_is_enough(session: Session) -> None:
    first, _ = flooded(session)
    channel = session.channel()
    second = session.consumer(channel, "other", auto_ack=True)
    session.peer.deliver(channel, "other", *[b"x"] * 4)
    first.drain()
    assert is_paused(session)
    second.drain()
    assert not is_paused(session)


@pytest.mark.parametrize("full_when", ["before", "after"])
def test_a_transport_that_is_closed_is_read_to_its_end(session: Session, full_when: str) -> None:
    """As ClientService closes it; over TLS it would wait for ever for the peer's close_notify."""
    session.tls = True
    queue, channel = flooded(session, 5 if full_when == "before" else 0)
    assert is_paused(session) == (full_when == "before")
    session.protocol.transport.loseConnection()
    assert not is_paused(session)
    session.peer.deliver(channel, "flood", *[b"x"] * 5, first=6)
    assert not is_paused(session)
    assert len(queue.pending) >= 5


def test_a_pause_is_counted(session: Session) -> None:
    queue, _ = flooded(session, 0)
    gate = session.protocol._impl.gate
    gate._clock = lambda: now  # it looks at time.monotonic()
    now = 10.0
    session.peer.deliver(queue_channel(session), "flood", *[b"x"] * 4)
    now = 12.5
    assert session.protocol.stats().paused_seconds == 2.5
    queue.drain()
    now = 20.0
    assert session.protocol.paused_seconds == 2.5


def test_a_pause_ends_with_the_connection(session: Session) -> None:
    """Also where the full queue goes on, as a recovering channel's does."""
    queue, channel = flooded(session, 0)
    channel._records.get("flood").on_end = lambda *_args, **_how: None
    gate = session.protocol._impl.gate
    gate._clock = lambda: now
    now = 10.0
    session.peer.deliver(channel, "flood", *[b"x"] * 4)
    now = 12.5
    session.lose()
    now = 20.0
    assert len(queue.pending) == 4
    assert queue.closed is None
    assert session.protocol.stats() == ConnectionStats(paused_seconds=2.5)
    queue.drain()
    assert session.protocol.paused_seconds == 2.5


def queue_channel(session: Session) -> Any:
    (channel,) = session.protocol._impl._channels.values()
    return channel.twisted_channel


@pytest.mark.parametrize("marks", [None, WaterMarks()], ids=["no_marks", "marks"])
def test_a_large_backlog_is_warned_of_once(
    adapter: Any, marks: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert consumer.LARGE_BACKLOG == 100_000
    monkeypatch.setattr(consumer, "LARGE_BACKLOG", 10)
    session = Session(adapter.with_options(water_marks=marks))
    with caplog.at_level(logging.WARNING, "pika_twisted"):
        queue, channel = flooded(session, 10)
        assert not caplog.records
        for _ in range(3):
            session.peer.deliver(channel, "flood", b"x", b"x")
        queue.drain()
        session.peer.deliver(channel, "flood", *[b"x"] * 20)
        texts = [record.getMessage() for record in caplog.records]
    session.finish()
    assert len(texts) == (marks is None), texts
    if marks is None:
        assert "prefetch_count" in texts[0]
        assert "water_marks=pika_twisted.WaterMarks()" in texts[0]


@pytest.mark.parametrize(
    ("marks", "named"),
    [
        (WaterMarks(high_messages=5, low_messages=5), "low_messages=5"),
        (WaterMarks(high_bytes=1), "high_bytes=1"),
        (WaterMarks(low_messages=-1), "low_messages=-1"),
    ],
)
def test_marks_that_make_no_sense(marks: WaterMarks, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        OURS.with_options(water_marks=marks).connection()
