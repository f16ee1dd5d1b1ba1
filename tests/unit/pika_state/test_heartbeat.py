"""Heartbeats: when one is sent, and when a silent peer counts as gone."""

from __future__ import annotations

from pika import exceptions

from pika_twisted.pika_state.heartbeat import is_paused
from tests.support.session import Session


def test_no_heartbeat_after_an_end_within_the_write_of_one(session: Session) -> None:
    session.open(heartbeat=20)
    session.transport.write = lambda _octets: session.lose()  # type: ignore[method-assign]
    session.turn(20)
    assert isinstance(session.closed.result(), exceptions.StreamLostError)
    assert not session.clock.getDelayedCalls()


def test_a_transport_that_tells_nothing_is_not_paused() -> None:
    assert not is_paused(object())
