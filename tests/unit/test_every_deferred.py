"""Every Deferred of the package x every way it can end: it fires once, with the real reason.

The rows are generated: one `Call` for each Deferred-returning method, one function for each ending.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pika import exceptions, spec
from twisted.internet import defer, error

from pika_twisted import ClosableDeferredQueue, TwistedChannel, TwistedProtocolConnection
from tests.support.calls import CALLS, Call, late_answer
from tests.support.outcome import Outcome, watch
from tests.support.session import Session

calls = pytest.mark.parametrize("call", CALLS, ids=[call.name for call in CALLS])


def begin(session: Session, call: Call) -> tuple[Any, Outcome]:
    """The call is under way: its request is written, nothing is answered."""
    channel = session.channel()
    if call.prepare is not None:
        call.prepare(session, channel)
    outcome = watch(call.start(session, channel), call.name)
    session.turn()
    assert outcome.pending
    return channel, outcome


#: Their endings are those of the connection, and the handshake's below.
OF_THE_CONNECTION = {"close", "when_closed", "when_ready"}


def test_no_method_is_forgotten() -> None:
    """Whatever is said to return a Deferred has a row."""
    rows = {call.name.split()[0].rpartition(".")[2].removesuffix("()") for call in CALLS}
    for kind in (TwistedProtocolConnection, TwistedChannel, ClosableDeferredQueue):
        returning = {
            name
            for name, method in vars(kind).items()
            if not name.startswith("_")
            and "Deferred" in str(getattr(method, "__annotations__", {}).get("return"))
        }
        assert returning
        assert returning - OF_THE_CONNECTION <= rows, kind


@calls
def test_the_answer_fires_it(session: Session, call: Call) -> None:
    channel, outcome = begin(session, call)
    late_answer(session, call, channel)
    outcome.result()
    session.lose()
    assert outcome.fired == 1


@calls
def test_cancelled_before_the_answer(session: Session, call: Call) -> None:
    channel, outcome = begin(session, call)
    outcome.deferred.cancel()
    outcome.failure(defer.CancelledError)
    late_answer(session, call, channel)
    assert session.protocol.is_open, "the late answer cost the connection"
    assert channel.is_open
    # The next call is not confused by the answer that came late.
    declaring = watch(channel.queue_declare("next"))
    session.turn()
    if "Basic.Cancel" in session.peer.names():  # a consumer that nobody waits for is cancelled
        session.peer.send(channel, spec.Basic.CancelOk("t"))
    session.peer.send(channel, spec.Queue.DeclareOk("next", 0, 0))
    declaring.result()
    session.lose()
    assert outcome.fired == 1


@calls
def test_cancelled_after_the_answer(session: Session, call: Call) -> None:
    channel, outcome = begin(session, call)
    late_answer(session, call, channel)
    outcome.deferred.cancel()
    outcome.result()
    session.lose()
    assert outcome.fired == 1


@calls
def test_the_client_closes_the_channel(session: Session, call: Call) -> None:
    channel, outcome = begin(session, call)
    channel.close()
    session.turn()
    answered_first = "Channel.Close" not in session.peer.names()
    if answered_first:  # synchronous methods of a channel go one at a time
        late_answer(session, call, channel)
    session.peer.expect(spec.Channel.Close)
    session.peer.send(channel, spec.Channel.CloseOk())
    assert channel.is_closed
    if answered_first:
        outcome.result()
    elif call.on_channel:
        outcome.failure(exceptions.ChannelClosedByClient)
    session.lose()
    assert outcome.fired == 1


@calls
def test_the_broker_closes_the_channel(session: Session, call: Call) -> None:
    channel, outcome = begin(session, call)
    session.peer.send(channel, spec.Channel.Close(406, "PRECONDITION_FAILED", 0, 0))
    if call.on_channel:
        reason = outcome.failure(exceptions.ChannelClosedByBroker)
        assert reason.args == (406, "PRECONDITION_FAILED")
    session.peer.expect(spec.Channel.CloseOk)
    session.lose()
    assert outcome.fired == 1


#: How the broker says no to one call without closing its channel, and what the call fails with.
REFUSALS: dict[str, tuple[Callable[[Session, Any], None], type[Exception]]] = {
    "basic_publish with confirms": (
        lambda session, channel: session.peer.send(channel, spec.Basic.Nack(1)),
        exceptions.NackError,
    ),
    "queue.get": (
        lambda session, channel: session.peer.send(channel, spec.Basic.Cancel("t")),
        exceptions.ConsumerCancelled,
    ),
    "channel()": (
        lambda session, _channel: session.peer.send(7, spec.Channel.Close(504, "no", 0, 0)),
        exceptions.ChannelClosedByBroker,
    ),
}
REFUSALS["queue.get_many"] = REFUSALS["async for"] = REFUSALS["queue.get"]


@pytest.mark.parametrize("name", list(REFUSALS))
def test_the_broker_refuses(session: Session, name: str) -> None:
    (call,) = [each for each in CALLS if each.name == name]
    refuse, kind = REFUSALS[name]
    channel, outcome = begin(session, call)
    refuse(session, channel)
    outcome.failure(kind)
    assert channel.is_open
    session.lose()
    assert outcome.fired == 1


@calls
def test_the_connection_is_lost(session: Session, call: Call) -> None:
    _channel, outcome = begin(session, call)
    session.lose(error.ConnectionLost("reset"))
    reason = outcome.failure(exceptions.AMQPConnectionError, error.ConnectionLost)
    assert isinstance(reason, exceptions.ChannelClosed) or not call.on_channel
    assert reason.args[0] == 0
    assert outcome.fired == 1


@calls
def test_the_broker_closes_the_connection(session: Session, call: Call) -> None:
    _channel, outcome = begin(session, call)
    session.peer.send(0, spec.Connection.Close(320, "CONNECTION_FORCED", 0, 0))
    session.turn()
    reason = outcome.failure(exceptions.ConnectionClosedByBroker, error.ConnectionDone)
    assert reason.args == (320, "CONNECTION_FORCED")
    session.peer.expect(spec.Connection.CloseOk)
    assert outcome.fired == 1


@calls
def test_the_client_closes_the_connection(session: Session, call: Call) -> None:
    channel, outcome = begin(session, call)
    closed = watch(session.protocol.close())
    session.turn()
    for name in list(session.protocol._impl._channels):
        session.peer.send(name, spec.Channel.CloseOk())
    if session.transport.connected:
        session.peer.send(0, spec.Connection.CloseOk())
    session.turn(11)  # what still waits for a request in front of it is cut by the close timeout
    closed.result()
    outcome.failure(exceptions.AMQPError)
    assert channel.is_closed
    assert outcome.fired == 1


@calls
def test_the_peer_breaks_the_protocol(session: Session, call: Call) -> None:
    _channel, outcome = begin(session, call)
    session.peer.send_bytes(b"\x09\x00\x00\x00\x00\x00\x00\xce")
    session.turn()
    reason = outcome.failure(exceptions.AMQPConnectionError, error.ConnectionLost)
    assert reason.args[0] == spec.FRAME_ERROR
    assert session.peer.expect(spec.Connection.Close).method.reply_code == spec.FRAME_ERROR
    assert outcome.fired == 1


@pytest.mark.parametrize("stage", ["nothing", "Start", "Tune"])
@pytest.mark.parametrize("name", ["ready", "when_ready", "when_closed", "close"])
def test_the_handshake_is_never_done(session: Session, name: str, stage: str) -> None:
    protocol = session.connect()
    ready = watch(protocol.ready, "ready")
    outcomes = [ready]
    if name in ("when_ready", "when_closed"):
        outcomes.append(watch(getattr(protocol, name)(), name))
    if stage != "nothing":
        session.peer.start("RabbitMQ")
    if stage == "Tune":
        session.peer.tune()
    if name == "close":
        outcomes.append(watch(protocol.close(), "close"))
    session.turn(16)
    assert not session.transport.connected
    for outcome in outcomes:
        assert outcome.fired == 1, outcome.label
    ready.failure(exceptions.AMQPConnectionError)
    watch(protocol.when_ready()).failure(exceptions.AMQPConnectionError)
    assert isinstance(watch(protocol.when_closed()).result(), exceptions.AMQPConnectionError)
