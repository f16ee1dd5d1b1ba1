"""drained(): when it fires, and how it fails."""

from __future__ import annotations

from typing import Any

import pytest
from pika import exceptions, spec
from twisted.internet import defer

from tests.support.outcome import call, watch
from tests.support.session import Session


@pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])
def test_drained_when_the_transport_ends_within_its_write(session: Session, tls: bool) -> None:
    session.tls = tls
    protocol = session.open()
    session.transport.write = lambda _octets: session.lose()  # type: ignore[method-assign]
    watch(protocol.drained()).failure(exceptions.StreamLostError)


def test_drained_when_the_transport_ends_while_what_waits_is_written(session: Session) -> None:
    channel = session.channel()
    session.transport.write = lambda _octets: session.lose()  # type: ignore[method-assign]
    draining = []

    def within_a_read(_frame: Any) -> None:
        channel.basic_ack(1)
        draining.append(watch(session.protocol.drained()))

    channel.add_callback(within_a_read, [spec.Basic.GetEmpty])
    session.peer.send(channel, spec.Basic.GetEmpty())
    draining[0].failure(exceptions.ConnectionWrongStateError)


def test_drained_asked_again_within_its_write(session: Session) -> None:
    """A transport may deliver within `write()`, and who gets that may want to wait as well."""
    protocol = session.open()
    write, again = session.transport.write, []

    def write_and_ask(octets: bytes) -> None:
        session.transport.write = write  # type: ignore[method-assign]
        write(octets)
        again.append(watch(protocol.drained()))

    session.transport.write = write_and_ask  # type: ignore[method-assign]
    watch(protocol.drained()).result()
    again[0].result()


@pytest.mark.parametrize("ended", [False, True], ids=["drained", "lost"])
def test_a_waiter_for_the_drain_that_cancels_the_next(session: Session, ended: bool) -> None:
    protocol = session.open()
    session.transport.fill()
    waiters = [protocol.drained() for _ in range(3)]
    outcomes = [watch(waiters[0].addBoth(lambda _: waiters[1].cancel())), *map(watch, waiters[1:])]
    if ended:
        session.lose()
        outcomes[2].failure(exceptions.StreamLostError)
    else:
        session.transport.drain()
        outcomes[2].result()
    outcomes[1].failure(defer.CancelledError)
    assert [outcome.fired for outcome in outcomes] == [1, 1, 1]


def test_drained_where_the_user_has_a_producer(session: Session) -> None:
    protocol = session.open()
    session.transport.registerProducer(object(), True)
    call(protocol.drained).failure(RuntimeError)


def test_lost_while_a_tls_transport_is_asked_whether_it_is_full(session: Session) -> None:
    session.tls = True
    protocol = session.open()
    drained = watch(protocol.drained())
    assert drained.pending  # until the turn has ended
    session.lose()
    drained.failure(exceptions.AMQPConnectionError)
