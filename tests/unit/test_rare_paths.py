"""What seldom happens: wrong calls, errors inside, transports that are not like others."""

from __future__ import annotations

import logging
import pickle
from typing import Any

import pytest
from pika import exceptions, spec
from twisted.internet import defer, task

import pika_twisted
from pika_twisted import __main__ as main
from pika_twisted import consumer as consumer_module
from pika_twisted.water import WaterMarks
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
    assert not protocol._impl.outbound.can_hold  # nothing is held back that could be lost
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


def test_the_report_for_bug_reports() -> None:
    lines = main.report().splitlines()
    assert lines[0].startswith(f"pika_twisted {pika_twisted.__version__}, ")
    assert lines[1].startswith("pika ") and lines[2].startswith("Twisted ")
