"""What seldom happens: wrong calls, errors inside, transports that are not like others."""

from __future__ import annotations

import copy
import logging
import pickle
import subprocess
import sys
from typing import Any

import pytest
from pika import exceptions, spec
from twisted import internet
from twisted.internet import defer, task
from twisted.internet.endpoints import TCP4ClientEndpoint

import pika_twisted
from pika_twisted import __main__ as main
from pika_twisted._endings import final_reason
from pika_twisted.channel import consumer as consumer_module
from pika_twisted.exceptions import ProtocolViolation, on_channel
from pika_twisted.pika_state.heartbeat import is_paused
from pika_twisted.recovery.service import RecoveringService
from pika_twisted.transport.read_gate import WaterMarks
from tests.support import peer as peer_module
from tests.support.outcome import call, run, watch
from tests.support.session import OURS, Adapter, Session
from tests.support.transport import FakeTransport

# The connection


@pytest.mark.parametrize(
    ("error", "code"),
    [(ZeroDivisionError("bug"), 541), (MemoryError(), 506)],
    ids=["bug", "memory"],
)
def test_an_error_inside_closes_the_connection(
    session: Session, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int
) -> None:
    channel = session.channel()
    declaring = call(channel.queue_declare, "q")

    def fail(_frame: Any) -> None:
        raise error

    monkeypatch.setattr(session.protocol._impl, "_process_frame", fail)
    session.peer.send(channel, spec.Queue.DeclareOk("q", 0, 0))
    assert session.peer.expect(spec.Connection.Close).method.reply_code == code
    session.turn(1)
    why = declaring.failure(exceptions.AMQPConnectionError)
    assert why.reply_code == code
    assert session.closed.result().__cause__ is error


@pytest.mark.parametrize("number", ["1", True, -1, 70_000, 1])
def test_channel_numbers_that_can_t_be(session: Session, number: Any) -> None:
    session.channel(1)
    kind = exceptions.InvalidChannelNumber if type(number) is int else TypeError
    call(session.protocol.channel, number).failure(kind)
    session.peer.expect_none(spec.Channel.Open)
    assert session.protocol.is_open


def test_a_frame_max_below_the_least(session: Session) -> None:
    protocol = session.connect()
    ready = watch(protocol.ready)
    session.peer.start()
    session.peer.tune(frame_max=4095)
    assert session.peer.expect(spec.Connection.Close).method.reply_code == 501
    session.turn(1)
    assert "4095" in str(ready.failure(exceptions.AMQPConnectionError))


def test_connected_after_it_was_closed(session: Session) -> None:
    first = session.connect()
    ready = watch(first.ready)
    session.lose()
    ready.failure(exceptions.AMQPConnectionError)
    transport = type(session.transport)(session.clock)
    transport.protocol = first
    first.makeConnection(transport)
    assert transport.aborted and not transport.writes


def test_an_error_inside_after_the_end(
    session: Session, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    channel = session.channel()

    def fail(_frame: Any) -> None:
        session.protocol._impl.abort(ConnectionError("cut"))
        raise ZeroDivisionError("bug")

    monkeypatch.setattr(session.protocol._impl, "_process_frame", fail)
    with caplog.at_level(logging.ERROR, "pika_twisted"):
        session.peer.send(channel, spec.Queue.DeclareOk("q", 0, 0))
    assert "bug" in caplog.text
    session.peer.expect_none(spec.Connection.Close)
    session.turn()
    assert "cut" in str(session.closed.result())


def test_a_frame_for_a_channel_that_is_not_there(session: Session) -> None:
    session.open()
    session.peer.send(7, spec.Queue.DeclareOk("q", 0, 0))
    close = session.peer.expect(spec.Connection.Close).method
    assert (close.reply_code, "channel 7" in close.reply_text) == (504, True)
    session.peer.send(7, spec.Queue.DeclareOk("q", 0, 0))  # nobody listens any more
    session.peer.expect_none()
    session.turn()
    assert session.closed.result().reply_code == 504


def test_a_broker_of_another_protocol(session: Session) -> None:
    ready = watch(session.connect().ready)
    session.peer.start(version=(0, 8))
    session.turn()
    ready.failure(exceptions.IncompatibleProtocolError)


def test_a_channel_s_own_reason_stays_as_it_is() -> None:
    why = exceptions.ChannelClosedByBroker(404, "NOT_FOUND")
    assert on_channel(why) is why


def test_pika_may_not_connect_it(session: Session) -> None:
    impl = session.open()._impl
    with pytest.raises(exceptions.AMQPConnectionError, match="Twisted connects"):
        impl._adapter_connect_stream()


def test_an_error_of_pika_s_ends_a_connection_as_a_violation() -> None:
    why = exceptions.UnexpectedFrameError("odd")
    told = final_reason(why, True, 0)
    assert isinstance(told, ProtocolViolation) and told.__cause__ is why
    assert "odd" in str(told)


def test_time_without_limit(session: Session) -> None:
    unlimited = session.adapter.with_options(handshake_timeout=None)
    protocol = session.connect(factory=unlimited.connection)
    ready = watch(protocol.ready)
    assert not session.clock.getDelayedCalls()
    session.turn(60)
    assert ready.pending
    session.lose()
    ready.failure(exceptions.AMQPConnectionError)


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


# The transport


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


def test_lost_while_acks_are_held_back(session: Session) -> None:
    channel = session.channel()
    channel.ack_batching = 10
    channel.ack_batching = 20  # nothing was asked for yet
    assert channel.ack_batching == 20
    queue = session.consumer(channel)
    session.peer.deliver(channel, "t", b"1")
    watch(queue.get()).result().ack()
    assert session.clock.getDelayedCalls()
    session.lose()
    assert not session.clock.getDelayedCalls()


def test_a_transport_that_tells_nothing_is_not_paused() -> None:
    assert not is_paused(object())


def test_a_transport_without_room_for_attributes() -> None:
    class Narrow(FakeTransport):
        def __setattr__(self, name: str, value: Any) -> None:
            if name.startswith("lose"):
                raise AttributeError(name)
            super().__setattr__(name, value)

    clock = task.Clock()
    protocol = OURS.connection(None, clock)
    transport = Narrow(clock)
    transport.protocol = protocol
    watch(protocol.ready)
    protocol.makeConnection(transport)
    assert not protocol._impl.outbound.buffer.can_hold  # nothing is held back that could be lost
    assert transport.writes[0].startswith(b"AMQP")
    transport.lose(ConnectionError())


# Channels


def test_observing_a_closed_channel(session: Session) -> None:
    channel = session.channel()
    session.peer.close_channel(channel, 404, "NOT_FOUND")
    observer: defer.Deferred[Any] = defer.Deferred()
    channel.callback_deferred(observer, [spec.Basic.Deliver])
    watch(observer).failure(exceptions.ChannelClosedByBroker)


def test_the_argument_that_can_t_be_encoded_is_named(session: Session) -> None:
    channel = session.channel()
    why = call(channel.queue_declare, "q", arguments=[1]).failure(TypeError)
    assert "arguments=[1]" in str(why)
    session.peer.expect_none()
    assert channel.is_open


def test_a_value_that_amqp_has_no_field_for_is_named(session: Session) -> None:
    channel = session.channel()
    why = call(channel.queue_declare, "q", arguments={"x": object()}).failure(TypeError)
    assert str(why).startswith("Queue.Declare: can't encode arguments={'x': <object ")
    assert str(why).endswith(": values of object can't be sent")
    assert isinstance(why, exceptions.UnsupportedAMQPFieldException)
    session.peer.expect_none()
    assert channel.is_open


@pytest.mark.parametrize("length", [256, 70_000])
def test_a_name_that_is_too_long_is_named(session: Session, length: int) -> None:
    channel = session.channel()
    why = call(channel.queue_bind, "q", "e", "\xfc" * (length // 2)).failure()
    assert type(why) is exceptions.ShortStringTooLong
    octets = f"a string of {length} octets, 255 is the limit"
    assert str(why) == f"Queue.Bind: routing_key: {octets}"
    why = call(channel.queue_declare, "q", arguments={"\xfc" * (length // 2): 1}).failure()
    assert str(why) == f"Queue.Declare: arguments: {octets}"
    why = call(channel.exchange_bind, "x" * length, "x" * length).failure()
    assert str(why) == f"Exchange.Bind: its arguments: {octets}"
    session.peer.expect_none()
    assert channel.is_open


def test_two_arguments_that_can_t_be_encoded(session: Session) -> None:
    channel = session.channel()
    wrong = call(channel.exchange_bind, "to", "from", routing_key=5, arguments=[1])
    assert "its arguments" in str(wrong.failure(TypeError))
    session.peer.expect_none()


def test_closing_twice_and_with_a_code_that_can_t_be(session: Session) -> None:
    channel = session.channel()
    with pytest.raises(TypeError, match=r"Channel\.Close: can't encode reply_code=70000"):
        channel.close(70_000)
    session.peer.expect_none()
    assert channel.is_open
    channel.close(200, "done")
    session.peer.expect(spec.Channel.Close)
    with pytest.raises(exceptions.ChannelWrongStateError, match=r"closing: .*done"):
        channel.close()
    call(channel.basic_publish, "", "q", b"x").failure(exceptions.ChannelWrongStateError)
    session.peer.send(channel, spec.Channel.CloseOk())
    with pytest.raises(exceptions.ChannelWrongStateError, match=r"closed: .*done"):
        channel.close()
    session.peer.expect_none()


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


@pytest.mark.parametrize(
    "add",
    [
        lambda channel, _: channel.callback_deferred(None, [spec.Basic.GetEmpty]),
        lambda channel, _: channel.add_callback(None, [spec.Basic.GetEmpty]),
        lambda channel, _: channel.add_on_close_callback(None),
        lambda channel, _: channel.add_on_flow_callback(None),
        lambda channel, _: channel.add_on_return_callback(None),
        lambda _, protocol: protocol.add_on_connection_blocked_callback(None),
        lambda _, protocol: protocol.add_on_connection_unblocked_callback(None),
    ],
)
def test_a_callback_that_is_none_is_refused(session: Session, add: Any) -> None:
    channel = session.channel()
    with pytest.raises(TypeError, match="None"):
        add(channel, session.protocol)
    session.peer.send(channel, spec.Basic.GetEmpty())
    assert session.protocol.is_open


@pytest.mark.parametrize("channels", [0, 1])
@pytest.mark.parametrize(
    ("code", "text", "words"),
    [
        (70_000, "done", "reply_code=70000"),
        ("200", "done", "reply_code='200'"),
        (None, "done", "reply_code=None"),
        (200, None, "reply_text=None"),
        (200, "\ud800", "reply_text="),
        (200, "x" * 256, "reply_text: a string of 256 octets"),
    ],
)
def test_closing_the_connection_with_what_can_t_be_sent(
    session: Session, channels: int, code: Any, text: Any, words: str
) -> None:
    protocol = session.open()
    opened = [session.channel() for _ in range(channels)]
    session.peer.forget()
    with pytest.raises((TypeError, exceptions.ShortStringTooLong), match=words):
        protocol.close(code, text)
    session.turn(11)  # longer than close_timeout
    assert protocol.is_open and all(channel.is_open for channel in opened)
    session.peer.expect_none()


def test_pika_s_channel_below_says_why_it_is_gone(session: Session) -> None:
    channel = session.channel()
    below = channel._channel
    with pytest.raises(TypeError, match="callable"):
        below.confirm_delivery("no function")
    session.peer.close_channel(channel, 404, "NOT_FOUND")
    session.peer.forget()
    for asking in (
        lambda: below.queue_declare("q"),
        lambda: below.confirm_delivery(print),
        lambda: below._rpc(spec.Basic.Qos()),
    ):
        with pytest.raises(exceptions.ChannelClosedByBroker, match="NOT_FOUND"):
            asking()
    session.peer.expect_none()


def test_a_message_that_nobody_asked_for(
    session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    channel = session.channel()
    session.peer.get_ok(channel, b"x")
    assert "nobody asked for" in caplog.text
    assert channel.is_open


def test_what_a_cancelled_get_has_fetched_is_lost_with_its_channel(
    session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    channel = session.channel()
    getting = channel.basic_get("q", auto_ack=True)
    outcome = watch(getting)
    getting.cancel()
    outcome.failure(defer.CancelledError)
    session.peer.get_ok(channel, b"x")
    session.peer.close_channel(channel, 404, "NOT_FOUND")
    assert "1 auto_ack messages of cancelled basic_get() calls are lost" in caplog.text


def test_a_queue_that_is_closed_on_a_closing_channel(session: Session) -> None:
    channel = session.channel()
    queue = session.consumer(channel)
    channel.close()
    session.peer.expect(spec.Channel.Close)
    queue.close(LookupError("enough"))
    session.peer.expect_none()
    watch(queue.get()).failure(LookupError)


def test_a_consumer_that_nobody_wants_begins_on_a_closing_channel(session: Session) -> None:
    channel = session.channel()
    consuming = channel.basic_consume("q", consumer_tag="t")
    outcome = watch(consuming)
    consuming.cancel()
    outcome.failure(defer.CancelledError)
    channel.close()
    session.peer.expect(spec.Basic.Consume)
    session.peer.expect_none()  # one call at a time
    session.peer.send(channel, spec.Basic.ConsumeOk("t"))
    session.peer.expect(spec.Channel.Close)
    session.peer.expect_none()  # which ends the consumer: no Basic.Cancel
    session.peer.send(channel, spec.Channel.CloseOk())
    watch(channel.on_closed).result()


def test_opened_by_hand(session: Session) -> None:
    """As in pika; the broker would refuse it on an open channel."""
    channel = session.channel()
    channel.open()
    assert session.peer.expect(spec.Channel.Open).channel_number == channel.channel_number


def test_a_broker_without_confirms(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(peer_module.CAPABILITIES, "publisher_confirms", False)
    channel = session.channel()
    call(channel.confirm_delivery).failure(exceptions.MethodNotImplemented)


def test_a_large_backlog_is_warned_about_once(
    session: Session, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(consumer_module, "LARGE_BACKLOG", 2)
    channel = session.channel()
    queue = session.consumer(channel)
    with caplog.at_level(logging.WARNING):
        for first in (1, 4, 7):
            session.peer.deliver(channel, "t", b"1", b"2", b"3", first=first)
    told = [record for record in caplog.records if "More than 2 messages" in record.getMessage()]
    assert len(told) == 1
    assert len(queue.drain()) == 9


# Messages and queues


def test_a_message_is_pickled_without_its_channel_s_state() -> None:
    message = pika_twisted.ReceivedMessage(None, spec.Basic.Deliver("t", 1), None, b"body")
    again = pickle.loads(pickle.dumps(message))
    assert type(again) is pika_twisted.ReceivedMessage
    assert again == message


def test_a_message_of_an_auto_ack_get_is_pickled_as_a_message(session: Session) -> None:
    channel = session.channel()
    getting = call(channel.basic_get, "q", auto_ack=True)
    session.peer.get_ok(channel, b"body")
    message = getting.result()
    kind, fields = message.__reduce__()
    assert kind is pika_twisted.ReceivedMessage
    assert pickle.loads(pickle.dumps(kind(None, *fields[1:]))).body == b"body"


def test_the_copy_of_a_message_of_an_auto_ack_get_can_t_be_acknowledged(session: Session) -> None:
    channel = session.channel()
    getting = watch(channel.basic_get("q", auto_ack=True))
    session.peer.get_ok(channel, b"x")
    session.peer.forget()
    with pytest.raises(pika_twisted.AlreadySettled):
        copy.copy(getting.result()).ack()
    session.peer.expect_none()


def test_a_queue_that_bounds_those_who_wait() -> None:
    queue = pika_twisted.ClosableDeferredQueue(backlog=1)
    first = run(anext(queue))  # type: ignore[arg-type]
    for waiting in (queue.__anext__, lambda: queue.get_many(1), queue.get):
        with pytest.raises(defer.QueueUnderflow):
            waiting()
    queue.put("message")
    assert first.result() == "message"


@pytest.mark.parametrize("way", ["get", "get_many", "__anext__", "drain", "close"])
def test_a_full_queue_that_is_emptied(way: str) -> None:
    options = {"water_marks": WaterMarks(3, 2, 1000, 900)}
    session = Session(Adapter("marked", "pika_twisted", "pika_twisted.protocol", options))
    channel = session.channel()
    queue = session.consumer(channel, auto_ack=True)
    session.peer.deliver(channel, "t", b"1", b"2", b"3")
    assert session.transport.producerState == "paused"
    arguments: tuple[Any, ...] = {"get_many": (1,), "close": (LookupError(),)}.get(way, ())
    result = getattr(queue, way)(*arguments)
    assert session.transport.producerState == "producing"
    if way == "get":
        assert watch(result).result().body == b"1"
    elif way == "get_many":
        assert [message.body for message in watch(result).result()] == [b"1"]
    elif way == "drain":
        assert [message.body for message in result] == [b"1", b"2", b"3"]
    session.finish()


def test_the_installed_reactor_is_the_default(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = session.clock
    monkeypatch.setattr(internet, "reactor", clock, raising=False)
    target = TCP4ClientEndpoint(clock, "localhost", 5672)
    assert RecoveringService(target).reactor is clock
    connecting = pika_twisted.connect([])
    watch(connecting).failure(ValueError)
    channel = session.channel()
    publisher = pika_twisted.Publisher(channel, timeout=5)
    publishing = watch(publisher.publish("", "q", b"x"))
    handling = watch(pika_twisted.consume(channel, "q", print))
    clock.advance(5)
    assert str(publishing.failure(pika_twisted.PublishTimeout)) == "not confirmed within 5 s"
    assert handling.pending  # and fails with the connection
    session.lose()
    handling.failure(exceptions.ChannelClosed)


def test_the_report_for_bug_reports() -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "pika_twisted"], capture_output=True, text=True, timeout=60
    )
    assert (printed.stdout.strip(), printed.stderr) == (main.report(), "")
    lines = main.report().splitlines()
    assert lines[0].startswith(f"pika_twisted {pika_twisted.__version__}, ")
    assert lines[1].startswith("pika ") and lines[2].startswith("Twisted ")
