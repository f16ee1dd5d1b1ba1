"""TwistedProtocolConnection: ready, closed, secrets, `async with`."""

from __future__ import annotations

from typing import Any

import pytest
from pika import exceptions, spec
from twisted.internet import defer

from tests.support.outcome import call, run, watch
from tests.support.session import Session


def test_cancelling_closed_takes_the_deferred_away_from_nobody(session: Session) -> None:
    protocol = session.open()
    deferred = protocol.closed
    deferred.cancel()
    other = watch(protocol.when_closed())
    session.lose()
    other.result()


def connect_with_work(session: Session, setting_up: defer.Deferred[Any]) -> Any:
    """A connection whose connectionReady() is at work until `setting_up` fires."""

    def factory(parameters: Any, reactor: Any) -> Any:
        protocol = session.adapter.connection(parameters, reactor)
        protocol.connectionReady = lambda: setting_up
        return protocol

    return session.connect(factory=factory)


def test_cancelling_ready_while_connection_ready_is_at_work(session: Session) -> None:
    setting_up: defer.Deferred[Any] = defer.Deferred()
    protocol = connect_with_work(session, setting_up)
    deferred = protocol.ready
    ready, waiting = watch(deferred), watch(protocol.when_ready())
    session.peer.start()
    session.peer.tune(heartbeat=0)
    session.peer.open_ok()
    assert ready.pending and waiting.pending
    deferred.cancel()
    session.turn(1)
    ready.failure(defer.CancelledError)
    waiting.failure(Exception)
    assert not session.transport.connected


def test_a_connection_lost_while_connection_ready_is_at_work(session: Session) -> None:
    setting_up: defer.Deferred[Any] = defer.Deferred()
    protocol = connect_with_work(session, setting_up)
    waiting = watch(protocol.when_ready())
    session.peer.start()
    session.peer.tune(heartbeat=0)
    session.peer.open_ok()
    session.lose()
    waiting.failure(exceptions.StreamLostError)
    setting_up.callback(protocol)
    watch(protocol.when_ready()).failure(exceptions.StreamLostError)


def test_a_waiter_for_the_connection_that_cancels_the_next(session: Session) -> None:
    protocol = session.connect()
    waiters = [protocol.when_ready() for _ in range(3)]
    outcomes = [watch(waiters[0].addBoth(lambda _: waiters[1].cancel())), *map(watch, waiters[1:])]
    session.lose()
    outcomes[1].failure(defer.CancelledError)
    outcomes[2].failure(exceptions.AMQPConnectionError)


def test_a_new_secret_whose_failure_cancels_the_next(session: Session) -> None:
    protocol = session.open()
    calls = [protocol.update_secret("token", "expiry") for _ in range(3)]
    outcomes = [watch(calls[0].addBoth(lambda _: calls[1].cancel())), *map(watch, calls[1:])]
    session.lose()
    outcomes[1].failure(defer.CancelledError)
    outcomes[2].failure(exceptions.StreamLostError)
    session.closed.result()


def test_leaving_async_with_waits_for_its_own_deferred(session: Session) -> None:
    """`closed` is the user's: what its callbacks make of it holds nobody up."""
    protocol = session.open()
    protocol.closed.addCallback(lambda _: defer.Deferred())

    async def program() -> None:
        async with protocol:
            pass

    leaving = run(program())
    session.peer.send(0, spec.Connection.CloseOk())
    session.turn()
    leaving.result()


def test_async_with(session: Session) -> None:
    protocol = session.open()

    async def using() -> None:
        async with protocol as entered:
            assert entered is protocol

    outcome = run(using())
    session.peer.expect(spec.Connection.Close)
    assert outcome.pending
    session.peer.send(0, spec.Connection.CloseOk())
    session.turn()
    outcome.result()
    assert protocol.paused_seconds == 0


def test_each_secret_has_its_own_answer(session: Session) -> None:
    protocol = session.open()
    first, second = (watch(protocol.update_secret(each, "expiry")) for each in "ab")
    session.peer.send(0, spec.Connection.UpdateSecretOk())
    first.result()
    assert second.pending
    session.peer.send(0, spec.Connection.UpdateSecretOk())
    second.result()
    assert protocol.is_open


@pytest.mark.parametrize("wrong", [("token\ud800", "expiry"), (None, "expiry"), ("token", 5)])
def test_a_secret_that_can_t_be_sent(session: Session, wrong: Any) -> None:
    protocol = session.open()
    refused = call(protocol.update_secret, *wrong).failure(TypeError)
    assert "token" not in str(refused)
    session.peer.expect_none()
    assert not protocol._impl._awaits_broker()  # else a full queue would pause nothing any more
