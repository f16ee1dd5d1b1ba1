"""Reads that pace themselves: rests of 1 ms amid a flood of small reads, and only there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pika import spec

from pika_twisted.transport.pacing import FloodGate
from tests.support.outcome import TwistedLog, watch
from tests.support.pausing import flooded, is_paused
from tests.support.session import Session

LOOK = FloodGate.LOOK_EVERY
REST = FloodGate.REST


class Flood:
    """A consumer, and reads with messages for it."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.queue, self.channel = flooded(session, 0)
        self._sent = 0

    def read(self, messages: int) -> None:
        if messages:
            bodies = [b"x"] * messages
            self.session.peer.deliver(self.channel, "flood", *bodies, first=self._sent + 1)
            self._sent += messages
        else:
            self.session.peer.send_bytes(b"\x08\0\0\0\0\0\0\xce")  # a heartbeat

    def reads(self, count: int, messages: int, seconds: float) -> bool:
        """So many reads, with a time between two; whether there was a rest."""
        rested = False
        for _ in range(count):
            self.session.clock.advance(seconds)
            self.read(messages)
            if is_paused(self.session):
                rested = True
                self.session.clock.advance(REST)
        return rested

    def begin(self) -> None:
        """A flood, up to its first rest."""
        for _ in range(3 * LOOK):
            self.session.clock.advance(0.0001)
            self.read(6)
            if is_paused(self.session):
                return
        raise AssertionError("no rest amid a flood")


@pytest.fixture
def flood(adapter: Any) -> Iterator[Flood]:
    with TwistedLog() as log:
        session = Session(adapter)
        yield Flood(session)
        session.finish()
        log.assert_empty()


@pytest.mark.parametrize(
    ("messages", "seconds"),
    [
        pytest.param(1, 0.0002, id="5,000 a second"),
        pytest.param(3, 0.0002, id="15,000 a second"),
        pytest.param(30, 0.001, id="30,000 a second in large reads"),
        pytest.param(200, 0.001, id="200,000 a second in large reads"),
        pytest.param(10, 0.0, id="a clock that stands still"),
    ],
)
def test_below_a_flood_nothing_rests(flood: Flood, messages: int, seconds: float) -> None:
    assert not flood.reads(5 * LOOK, messages, seconds)
    assert not flood.session.clock.getDelayedCalls()


@pytest.mark.parametrize(("messages", "seconds"), [(6, 0.0001), (45, 0.0005)])
def test_a_flood_is_found(flood: Flood, messages: int, seconds: float) -> None:
    assert flood.reads(3 * LOOK, messages, seconds)


def test_amid_a_flood_each_read_is_followed_by_a_rest(flood: Flood) -> None:
    flood.begin()
    for _ in range(100):
        assert is_paused(flood.session)
        flood.session.clock.advance(REST)
        assert not is_paused(flood.session)
        flood.read(60)


def test_a_rest_that_brings_little_is_the_last(flood: Flood) -> None:
    flood.begin()
    flood.session.clock.advance(REST)
    flood.read(FloodGate.FEW - 1)
    assert not is_paused(flood.session)
    assert not flood.session.clock.getDelayedCalls()
    assert not flood.reads(LOOK - 1, 1, 0.001)


def test_a_question_ends_the_rest_and_there_is_none_until_the_answer(flood: Flood) -> None:
    flood.begin()
    declaring = watch(flood.channel.queue_declare("q"))
    assert not is_paused(flood.session)
    flood.read(60)
    assert not is_paused(flood.session)
    flood.session.peer.send(flood.channel, spec.Queue.DeclareOk("q", 0, 0))
    declaring.result()
    assert flood.reads(3 * LOOK, 6, 0.0001), "the flood goes on"


def test_rests_that_make_the_rate_fall_are_given_up(flood: Flood) -> None:
    """As with a small prefetch: the broker waits for acks while we rest."""
    flood.begin()
    rests = 0
    for _ in range(2 * FloodGate.COMPARE_AFTER):
        if is_paused(flood.session):
            rests += 1
            flood.session.clock.advance(REST)
        flood.session.clock.advance(0.0001)
        flood.read(FloodGate.FEW)
    assert rests == FloodGate.COMPARE_AFTER
    flood.session.clock.advance(0.0)
    assert not flood.reads(int(FloodGate.FIRST_BREAK / 0.0001) - 2 * LOOK, 6, 0.0001)
    assert flood.reads(3 * LOOK, 6, 0.0001), "it tries again after a while"


def test_zero_switches_it_off(adapter: Any) -> None:
    session = Session(adapter.with_options(read_interval=0))
    flood = Flood(session)
    assert not flood.reads(5 * LOOK, 6, 0.0001)
    session.finish()


def test_a_lost_connection_leaves_no_timer(flood: Flood) -> None:
    flood.begin()
    flood.session.lose()
    assert not flood.session.clock.getDelayedCalls()
