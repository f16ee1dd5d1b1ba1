"""The numbers of a connection."""

from __future__ import annotations

from pika import spec

import pika_twisted
from tests.support.outcome import watch
from tests.support.session import Session


def test_nothing_is_counted_of_a_connection_that_has_ended(session: Session) -> None:
    protocol = session.open()
    channel = session.channel()
    session.confirms(channel)
    session.publish(channel, b"x")
    session.peer.send(0, spec.Connection.Blocked("memory"))
    at_the_end = protocol.closed.addCallback(lambda _: protocol.stats())
    assert protocol.is_blocked
    session.lose()
    stats = watch(at_the_end).result()
    assert (stats.published, stats.is_blocked) == (1, True)
    assert not protocol.is_blocked
    assert protocol.stats() == pika_twisted.ConnectionStats()
