"""The connection: rows D18 to D21, D25, D28 to D30, D33, D40, D41, D45 to D47, D51 to D53, D55.

(D49 is in test_costs.py.)
"""

from __future__ import annotations

import copy
import inspect
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pika.channel
import pytest
from pika import exceptions, frame, spec
from twisted.internet import defer, error

from tests.support.outcome import TwistedLog, call, watch
from tests.support.peer import encoded_content, encoded_method, raw_frame
from tests.support.session import Adapter, Session

ROOT = Path(__file__).resolve().parents[2]
# A transport that knows it is paused; one of which only the reactor knows; that one below TLS.
LAYERS = ["transport", "socket", "wrapped socket"]


def broker_closes(session: Session) -> None:
    session.peer.send(0, spec.Connection.Close(320, "CONNECTION_FORCED - bye", 0, 0))
    session.turn(1)


def client_closes(session: Session) -> None:
    watch(session.protocol.close())
    while "Channel.Close" in session.peer.names():
        closing = session.peer.expect(spec.Channel.Close)
        session.peer.send(closing.channel_number, spec.Channel.CloseOk())
    session.peer.expect(spec.Connection.Close)
    session.peer.send(0, spec.Connection.CloseOk())
    session.turn(1)


def broker_goes_silent(session: Session) -> None:
    session.turn(31)


def broker_breaks_the_protocol(session: Session) -> None:
    session.peer.send_bytes(raw_frame(1, 0, b"\x00\x0a\x00\x1e", end=b"\x00"))
    session.turn(1)


# name: (how it ends, pika's class, Twisted's class, code, text)
ENDINGS: dict[str, tuple[Callable[[Session], None], type, type, int, str]] = {
    "broker": (
        broker_closes,
        exceptions.ConnectionClosedByBroker,
        error.ConnectionDone,
        320,
        "CONNECTION_FORCED - bye",
    ),
    "client": (
        client_closes,
        exceptions.ConnectionClosedByClient,
        error.ConnectionDone,
        200,
        "Normal shutdown",
    ),
    "silence": (
        broker_goes_silent,
        exceptions.AMQPHeartbeatTimeout,
        error.ConnectionLost,
        0,
        "",
    ),
    "end of stream": (
        lambda session: session.lose(error.ConnectionDone("Connection was closed cleanly.")),
        exceptions.StreamLostError,
        error.ConnectionLost,
        0,
        "closed cleanly",
    ),
    "reset": (
        lambda session: session.lose(error.ConnectionLost("reset by a cat")),
        exceptions.StreamLostError,
        error.ConnectionLost,
        0,
        "reset by a cat",
    ),
    "abort": (
        lambda session: session.lose(error.ConnectionAborted("cut by hand")),
        exceptions.StreamLostError,
        error.ConnectionLost,
        0,
        "cut by hand",
    ),
    "bad bytes": (
        broker_breaks_the_protocol,
        exceptions.AMQPConnectionError,
        error.ConnectionLost,
        501,
        "",
    ),
}


@pytest.mark.parametrize("ending", list(ENDINGS))
def test_d18_the_real_reason_is_both_pikas_and_twisteds(session: Session, ending: str) -> None:
    end, pika_class, twisted_class, code, text = ENDINGS[ending]
    session.open(heartbeat=10)

    end(session)

    reason = session.closed.result()
    assert isinstance(reason, pika_class), f"{reason!r} is no {pika_class.__name__}"
    assert isinstance(reason, twisted_class), f"{reason!r} is no {twisted_class.__name__}"
    other = {error.ConnectionDone, error.ConnectionLost} - {twisted_class}
    assert not isinstance(reason, tuple(other))
    assert len(reason.args) == 2
    assert reason.args[0] == code
    assert text in reason.args[1]
    assert isinstance(str(reason), str)
    assert pika_class.__name__ in repr(reason) or str(code) in repr(reason)
    for again in (pickle.loads(pickle.dumps(reason)), copy.copy(reason), copy.deepcopy(reason)):
        assert type(again) is type(reason)
        assert again.args == reason.args
        assert (str(again), repr(again)) == (str(reason), repr(reason))


@pytest.mark.parametrize("ending", [name for name in ENDINGS if name != "client"])
def test_d53_a_lost_connection_is_a_closed_channel_to_its_waiters(
    session: Session, ending: str
) -> None:
    """The reason the channel's Deferreds and queues get is the connection's, and ChannelClosed."""
    end, pika_class, twisted_class, code, text = ENDINGS[ending]
    session.open(heartbeat=10)
    channel = session.channel()
    queue = session.consumer(channel)
    waiting = [watch(queue.get(), "get"), watch(channel.on_closed, "on_closed")]
    session.confirms(channel)
    waiting += [watch(channel.queue_declare("q"), "queue_declare")]
    waiting += [session.publish(channel, b"x")]
    waiting += [watch(session.protocol.channel(), "channel()")]

    end(session)

    for outcome in waiting:
        reason = outcome.error or outcome.result()
        if outcome.label != "channel()":
            assert isinstance(reason, exceptions.ChannelClosed), f"{outcome.label}: {reason!r}"
        assert isinstance(reason, pika_class), f"{outcome.label}: {reason!r}"
        assert isinstance(reason, twisted_class), f"{outcome.label}: {reason!r}"
        assert reason.args[0] == code
        assert text in reason.args[1]
        pickle.loads(pickle.dumps(reason))
    watch(queue.get()).failure(exceptions.ChannelClosed)
    call(channel.queue_declare, "q").failure(exceptions.ChannelClosed)


def test_d19_a_wrong_password_is_told_with_the_brokers_words(session: Session) -> None:
    ready = watch(session.connect().ready, "ready")
    session.peer.start()
    session.peer.expect(spec.Connection.StartOk)
    text = "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN."

    session.peer.send(0, spec.Connection.Close(403, text, 0, 0))
    session.turn(1)

    reason = ready.failure(exceptions.ProbableAuthenticationError)
    assert reason.args == (403, text)


def test_d19_a_missing_vhost_is_told_with_the_brokers_words(session: Session) -> None:
    ready = watch(session.connect(virtual_host="nowhere").ready, "ready")
    session.peer.start()
    session.peer.tune(heartbeat=0)
    session.peer.expect(spec.Connection.Open)
    text = "NOT_ALLOWED - vhost nowhere not found"

    session.peer.send(0, spec.Connection.Close(530, text, 10, 40))
    session.turn(1)

    reason = ready.failure(exceptions.ProbableAccessDeniedError)
    assert reason.args == (530, text)


def test_d19_another_protocol_version_is_told(session: Session) -> None:
    ready = watch(session.connect().ready, "ready")
    session.peer.send_bytes(b"AMQP\x01\x01\x00\x0a")
    session.lose(error.ConnectionDone("Connection was closed cleanly."))

    reason = ready.failure(exceptions.IncompatibleProtocolError)
    assert isinstance(reason, exceptions.AMQPConnectionError)
    assert reason.args[0] == 0


@pytest.mark.parametrize(
    ("step", "expected"),
    [("start", exceptions.ProbableAuthenticationError), ("tune", exceptions.AMQPConnectionError)],
)
def test_d19_a_stream_that_ends_in_the_handshake(
    session: Session, step: str, expected: type[Exception]
) -> None:
    """Brokers that close without a word: what it probably means, and the transport's text."""
    ready = watch(session.connect().ready, "ready")
    session.peer.start()
    if step == "tune":
        session.peer.tune(heartbeat=0)
    session.lose(error.ConnectionLost("gone"))

    reason = ready.failure(expected)
    assert reason.args[0] == 0
    assert "gone" in reason.args[1]


@pytest.mark.parametrize("layers", LAYERS)
def test_d20_a_silent_peer_is_aborted(session: Session, layers: str) -> None:
    """Unsent data or a missing close_notify would make `loseConnection` wait for TCP's timeouts."""
    session.layers = layers
    session.open(heartbeat=10)
    session.transport.stuck = True

    session.turn(2 * (10 + 5) + 1)

    assert session.transport.aborted, "loseConnection waits for the dead peer"
    assert isinstance(session.closed.result(), exceptions.AMQPHeartbeatTimeout)


def test_d20_a_blocked_connection_is_aborted_after_its_timeout(session: Session) -> None:
    session.open(blocked_connection_timeout=20)
    session.transport.stuck = True
    session.peer.send(0, spec.Connection.Blocked("low on disk"))

    session.turn(21)

    assert session.transport.aborted, "loseConnection waits for the broker to read"
    assert isinstance(session.closed.result(), exceptions.ConnectionBlockedTimeout)


def test_d21_connection_close_is_answered(session: Session) -> None:
    session.open()
    session.peer.send(0, spec.Connection.Close(320, "CONNECTION_FORCED", 0, 0))

    session.peer.expect(spec.Connection.CloseOk)
    session.turn(1)
    assert not session.transport.connected
    session.closed.result()


def test_d25_an_exception_in_a_return_callback_is_logged(
    session: Session, twisted_log: TwistedLog
) -> None:
    channel = session.channel()
    returned: list[bytes] = []

    def broken(message: Any) -> None:
        raise ZeroDivisionError(message.body)

    channel.add_on_return_callback(broken)
    channel.add_on_return_callback(lambda message: returned.append(message.body))
    stray = spec.Basic.Return(312, "NO_ROUTE", "", "k")

    try:
        session.peer.send_content(channel, stray, b"returned")
    except ZeroDivisionError as raised:
        raise AssertionError("the callback's exception left dataReceived") from raised

    assert len(twisted_log.flush(ZeroDivisionError)) == 1
    assert returned == [b"returned"]
    declared = watch(channel.queue_declare("q"))
    session.peer.send(channel, spec.Queue.DeclareOk("q", 0, 0))
    declared.result()


def test_d28_publishing_from_a_close_handler_fails_with_the_reason(session: Session) -> None:
    channels = [session.channel(), session.channel()]
    outcomes: list[Any] = []

    def publish(_reason: Any, other: Any) -> None:
        outcomes.append(call(other.basic_publish, "", "q", b"x"))

    handled = [
        watch(closing.on_closed.addCallback(publish, other))
        for closing, other in zip(channels, reversed(channels), strict=True)
    ]

    session.lose(error.ConnectionLost("pulled the plug"))

    for outcome in handled:
        outcome.result()
    assert len(outcomes) == 2
    for outcome in outcomes:
        reason = outcome.failure(exceptions.AMQPError)
        assert "pulled the plug" in str(reason)


def test_d29_readiness_and_end_can_be_awaited_at_any_time(session: Session) -> None:
    protocol = session.connect()
    ready = watch(protocol.ready)
    assert hasattr(protocol, "when_ready"), "ready is None once it has fired"
    early = [watch(protocol.when_ready()), watch(protocol.when_ready())]
    closed = [watch(protocol.when_closed())]
    session.peer.start()
    session.peer.tune(heartbeat=0)
    assert all(outcome.pending for outcome in early)
    session.peer.open_ok()

    assert protocol.ready is None
    assert [outcome.result() for outcome in (ready, *early)] == [protocol] * 3
    assert watch(protocol.when_ready()).result() is protocol
    assert isinstance(protocol.closed, defer.Deferred)
    closed += [watch(protocol.when_closed()), watch(protocol.closed)]
    assert all(outcome.pending for outcome in closed)

    session.lose(error.ConnectionLost("gone"))

    assert protocol.closed is None
    closed.append(watch(protocol.when_closed()))
    for outcome in closed:
        assert isinstance(outcome.result(), error.ConnectionLost)
    watch(protocol.when_ready()).failure(exceptions.AMQPConnectionError)


def test_d29_a_failed_handshake_fails_every_waiter(session: Session) -> None:
    protocol = session.connect()
    ready = watch(protocol.ready)
    assert hasattr(protocol, "when_ready"), "ready is None once it has fired"
    waiting = watch(protocol.when_ready())
    closed = watch(protocol.when_closed())
    session.lose(error.ConnectionLost("gone"))

    for outcome in (ready, waiting, watch(protocol.when_ready())):
        outcome.failure(exceptions.AMQPConnectionError)
    assert isinstance(closed.result(), exceptions.AMQPConnectionError)


def test_d30_closing_twice_returns_a_deferred_each_time(session: Session) -> None:
    protocol = session.open()
    closing = [call(protocol.close), call(protocol.close)]
    session.peer.expect(spec.Connection.Close)
    session.peer.expect_none(spec.Connection.Close)
    assert all(outcome.pending for outcome in closing)

    session.peer.send(0, spec.Connection.CloseOk())
    session.turn(1)

    closing.append(call(protocol.close))
    for outcome in closing:
        outcome.result()


def test_d30_closing_before_connecting(session: Session) -> None:
    protocol = session.adapter.connection(None, session.clock)
    ready = watch(protocol.ready)

    closing = call(protocol.close)

    closing.result()
    ready.failure(exceptions.AMQPConnectionError)


def test_d30_closing_during_the_handshake(session: Session) -> None:
    protocol = session.connect()
    ready = watch(protocol.ready)
    session.peer.start()

    closing = call(protocol.close)
    session.turn(1)

    assert not session.transport.connected
    closing.result()
    ready.failure(exceptions.AMQPConnectionError)


@pytest.mark.parametrize("method", ["basic_ack", "basic_nack", "basic_reject"])
def test_d33_acking_on_a_closed_channel_names_the_reason(session: Session, method: str) -> None:
    channel = session.channel()
    session.peer.close_channel(channel, 406, "PRECONDITION_FAILED - unknown delivery tag 9")
    session.peer.forget()

    with pytest.raises(exceptions.ChannelWrongStateError) as raised:
        getattr(channel, method)(1)

    assert "406" in str(raised.value) and "unknown delivery tag 9" in str(raised.value)
    assert isinstance(raised.value.__cause__, exceptions.ChannelClosedByBroker)
    assert raised.value.__cause__.reply_code == 406
    session.peer.expect_none()


def test_d40_importing_installs_no_reactor(adapter: Adapter) -> None:
    code = (
        f"import sys, {adapter.module_name}; "
        "assert 'twisted.internet.reactor' not in sys.modules, 'a reactor is installed'"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr.splitlines()[-1]


def test_d40_the_transports_reactor_is_used_when_none_is_given(session: Session) -> None:
    def without_reactor(parameters: Any, _reactor: Any) -> Any:
        return session.adapter.connection(parameters)

    session.open(heartbeat=10, factory=without_reactor)
    assert session.clock.getDelayedCalls(), "the heartbeat runs on another reactor"
    session.turn(31)
    assert isinstance(session.closed.result(), exceptions.AMQPHeartbeatTimeout)


def test_d41_cancelling_ready_drops_the_connection(session: Session) -> None:
    protocol = session.connect()
    deferred = protocol.ready
    ready = watch(deferred)
    session.peer.start()

    deferred.cancel()
    session.turn(1)

    ready.failure(defer.CancelledError)
    assert not session.transport.connected, "the connection is open and nobody's"


def test_d41_cancelling_when_ready_drops_only_that_waiter(session: Session) -> None:
    protocol = session.connect()
    ready = watch(protocol.ready)
    assert hasattr(protocol, "when_ready"), "only ready, whose cancel leaves the connection open"
    deferred = protocol.when_ready()
    gave_up, stays = watch(deferred), watch(protocol.when_ready())

    deferred.cancel()
    session.turn()
    session.peer.start()
    session.peer.tune(heartbeat=0)
    session.peer.open_ok()

    gave_up.failure(defer.CancelledError)
    assert stays.result() is protocol
    assert ready.result() is protocol
    assert protocol.is_open


def refused(session: Session, code: int) -> None:
    """The client has refused what it got: said so, closed, and told everybody."""
    close = session.peer.expect(spec.Connection.Close).method
    assert close.reply_code == code, f"{close.reply_code} {close.reply_text}"
    session.turn(1)
    assert not session.transport.connected
    reason = session.closed.result()
    assert isinstance(reason, exceptions.AMQPConnectionError)
    assert reason.args[0] == code
    assert reason.args[1]


#: The smallest frame_max that can be asked for: 4,096 of AMQP; 8,192 since pika 1.5.
SMALLEST = spec.FRAME_MIN_SIZE


@pytest.mark.parametrize("kind", [1, 3], ids=["method", "body"])
def test_d45_a_frame_above_frame_max_is_refused_at_its_seventh_byte(
    session: Session, kind: int
) -> None:
    session.open(frame_max=SMALLEST)
    channel = session.channel()
    pending = watch(channel.queue_declare("q"))
    session.peer.expect(spec.Queue.Declare)
    claim = bytes([kind, 0, 1]) + (2**32 - 1).to_bytes(4, "big")

    session.peer.send_bytes(claim[:6])
    session.peer.expect_none()
    session.peer.send_bytes(claim[6:])

    refused(session, 501)
    assert pending.failure(exceptions.AMQPError).args[0] == 501


def test_d45_the_limit_is_the_whole_frame(session: Session) -> None:
    """All of them pass, with the 7 octets of the header and the last one; one more does not."""
    session.open(frame_max=SMALLEST)
    channel = session.channel()
    queue = session.consumer(channel)
    body = bytes(SMALLEST - 8)
    deliver = spec.Basic.Deliver("t", 1, False, "", "q")
    session.peer.send_bytes(encoded_content(1, deliver, body, frame_max=SMALLEST))
    assert [message.body for message in queue.pending] == [body]

    session.peer.send_bytes(raw_frame(3, 1, bytes(SMALLEST - 7))[:7])

    refused(session, 501)


DELIVER = encoded_method(1, spec.Basic.Deliver("t", 1, False, "", "q"))
HEADER = frame.Header(1, 10, spec.BasicProperties()).marshal()
HALF = frame.Body(1, b"01234").marshal()
DECLARE_OK = encoded_method(1, spec.Queue.DeclareOk("q", 0, 0))


@pytest.mark.parametrize(
    "data",
    [
        DELIVER + HEADER + HALF + DELIVER + HEADER + HALF + HALF,
        DELIVER + DELIVER + HEADER + HALF + HALF,
        DELIVER + HEADER + DECLARE_OK,
        DELIVER + HALF,
        HALF,
        HEADER,
        DELIVER + HEADER + HEADER,
        DELIVER + HEADER + HALF + HALF + HALF,
    ],
    ids=[
        "delivery in a body",
        "delivery for a header",
        "method for a body",
        "body for a header",
        "body alone",
        "header alone",
        "second header",
        "body too long",
    ],
)
def test_d46_content_out_of_order_is_refused(session: Session, data: bytes) -> None:
    channel = session.channel()
    queue = session.consumer(channel, auto_ack=True)
    session.peer.deliver(channel, "t", b"good")
    watch(channel.queue_declare("q"))
    session.peer.expect(spec.Queue.Declare)

    session.peer.send_bytes(data)

    refused(session, 505)
    taken = [message.body for message in queue.pending]
    assert taken[:1] == [b"good"]
    assert set(taken[1:]) <= {b"0123401234"}


@pytest.mark.parametrize("layers", LAYERS)
def test_d47_a_paused_transport_is_not_a_silent_peer(session: Session, layers: str) -> None:
    """Nothing arrives because the user reads nothing; the heartbeats wait in the socket."""
    session.layers = layers
    protocol = session.open(heartbeat=10)
    protocol.transport.pauseProducing()
    session.turn(120)
    assert protocol.is_open, "the client killed its own connection"

    protocol.transport.resumeProducing()
    for _ in range(4):
        session.peer.heartbeat()
        session.turn(10)
    assert protocol.is_open

    session.turn(31)  # and silence is still silence
    assert isinstance(session.closed.result(), exceptions.AMQPHeartbeatTimeout)


def test_d47_a_large_frame_that_trickles_in_is_not_silence(session: Session) -> None:
    protocol = session.open(heartbeat=10)
    channel = session.channel()
    queue = session.consumer(channel)
    deliver = spec.Basic.Deliver("t", 1, False, "", "q")
    data = encoded_content(1, deliver, bytes(100))

    for start in range(len(data)):
        assert protocol.is_open, "bytes were coming in all the time"
        session.peer.send_bytes(data[start : start + 1])
        session.turn(5)

    assert [len(message.body) for message in queue.pending] == [100]


def test_d51_the_seeds_defaults_are_there(adapter: Adapter) -> None:
    def defaults(name: str) -> dict[str, Any]:
        parameters = inspect.signature(getattr(adapter.TwistedChannel, name)).parameters
        return {key: parameter.default for key, parameter in list(parameters.items())[1:]}

    assert defaults("exchange_unbind") == {
        "destination": None,
        "source": None,
        "routing_key": "",
        "arguments": None,
    }
    assert defaults("queue_unbind") == {
        "queue": inspect.Parameter.empty,
        "exchange": None,
        "routing_key": None,
        "arguments": None,
    }
    assert defaults("basic_nack") == {"delivery_tag": None, "multiple": False, "requeue": True}
    assert defaults("flow") == {"active": True}


def test_d51_no_delivery_tag_means_zero(session: Session) -> None:
    channel = session.channel()
    try:
        channel.basic_nack(delivery_tag=None, multiple=True)
    except Exception as raised:
        raise AssertionError(f"delivery_tag=None is refused: {raised!r}") from raised
    sent = session.peer.expect(spec.Basic.Nack).method
    assert (sent.delivery_tag, sent.multiple, sent.requeue) == (0, True, True)


def test_d52_channel_callbacks_get_the_wrapper(session: Session) -> None:
    channel = session.channel()
    told: dict[str, tuple[Any, ...]] = {}
    missing = {"add_callback", "add_on_close_callback", "add_on_flow_callback", "is_opening"} - set(
        dir(channel)
    )
    assert not missing, f"TwistedChannel has no {sorted(missing)}"
    channel.add_on_flow_callback(lambda *args: told.setdefault("flow", args))
    channel.add_callback(lambda *args: told.setdefault("empty", args), [spec.Basic.GetEmpty])
    channel.add_on_close_callback(lambda *args: told.setdefault("close", args))

    session.peer.send(channel, spec.Channel.Flow(False))
    getting = watch(channel.basic_get("q"))
    session.peer.send(channel, spec.Basic.GetEmpty())
    assert getting.result() is None
    assert channel.is_opening is False
    session.peer.close_channel(channel, 404, "NOT_FOUND")

    assert sorted(told) == ["close", "empty", "flow"]
    for args in told.values():
        assert not any(isinstance(argument, pika.channel.Channel) for argument in args)
    assert told["close"][0] is channel
    assert isinstance(told["close"][1], exceptions.ChannelClosedByBroker)
    assert isinstance(told["empty"][-1].method, spec.Basic.GetEmpty)
    assert not hasattr(channel, "add_on_cancel_callback"), "fedora-messaging would fire twice"


def test_d52_a_callback_can_be_permanent(session: Session) -> None:
    channel = session.channel()
    assert hasattr(channel, "add_callback"), "the texts point to it"
    once: list[Any] = []
    always: list[Any] = []
    channel.add_callback(once.append, [spec.Basic.GetEmpty])
    channel.add_callback(always.append, [spec.Basic.GetEmpty], one_shot=False)
    for _ in range(2):
        getting = watch(channel.basic_get("q"))
        session.peer.send(channel, spec.Basic.GetEmpty())
        getting.result()
    assert (len(once), len(always)) == (1, 2)


def test_d52_the_secret_can_be_updated(session: Session) -> None:
    protocol = session.open()
    assert hasattr(protocol, "update_secret"), "only through _impl"
    updating = call(protocol.update_secret, "new token", "expiry")
    sent = session.peer.expect(spec.Connection.UpdateSecret).method
    assert (sent.new_secret, sent.reason) == ("new token", "expiry")
    assert updating.pending
    session.peer.send(0, spec.Connection.UpdateSecretOk())
    updating.result()

    updating = call(protocol.update_secret, "newer", "expiry")
    session.lose()
    updating.failure(exceptions.AMQPConnectionError)
    call(protocol.update_secret, "newest", "expiry").failure(exceptions.AMQPConnectionError)


@pytest.mark.parametrize(
    ("method", "arguments", "named"),
    [
        ("basic_recover", {}, "requeue"),
        ("basic_recover", {"requeue": False}, "requeue"),
        ("flow", {"active": False}, "active"),
        ("basic_qos", {"prefetch_size": 1}, "prefetch_size"),
    ],
)
def test_d55_what_rabbitmq_closes_the_connection_for_fails_at_the_call(
    session: Session, method: str, arguments: dict[str, Any], named: str
) -> None:
    channel = session.channel()

    outcome = call(getattr(channel, method), **arguments)

    session.peer.expect_none()
    assert named in str(outcome.failure(exceptions.MethodNotImplemented))
