"""What users of pika's adapter, and pika's own tests of it, rely on.

In the first half pika's connection and channel are doubles, as people use them in their tests; in
the second half it is what programs that subclass or poke into the adapter do.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pika
import pytest
from pika import exceptions, spec
from pika.frame import Method
from twisted.internet import defer, error, protocol, task
from twisted.python.failure import Failure

import pika_twisted
from pika_twisted import ClosableDeferredQueue, TwistedChannel, TwistedProtocolConnection
from pika_twisted.protocol import _TimerHandle, _TwistedConnectionAdapter
from tests.support.outcome import TwistedLog, call, watch
from tests.support.session import OURS, Session

pytestmark = pytest.mark.usefixtures("twisted_log")

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def session(twisted_log: TwistedLog) -> Iterator[Session]:
    session = Session(OURS)
    yield session
    session.finish()


# The queue


def test_a_closed_flag_that_was_assigned_closes_the_queue() -> None:
    queue = ClosableDeferredQueue()
    queue.closed = LookupError("assigned")
    for outcome in (call(queue.put, None), call(queue.get)):
        assert outcome.failure(LookupError).args == ("assigned",)


def test_a_queue_is_closed_with_any_true_object_and_more_than_once() -> None:
    queue = ClosableDeferredQueue()
    waiting = watch(queue.get())
    for reason in ("first", "second"):
        queue.close(reason)
        assert queue.closed == reason
        assert queue.waiting == []
        assert queue.pending == []
    waiting.failure(Exception)


def test_a_queue_is_closed_with_a_failure() -> None:
    queue = ClosableDeferredQueue()
    waiting = watch(queue.get())
    queue.close(Failure(LookupError("as a Failure")))
    assert waiting.failure(LookupError).args == ("as a Failure",)
    assert watch(queue.get()).failure(LookupError).args == ("as a Failure",)


def test_none_is_a_sentinel_like_any_other_object() -> None:
    queue = ClosableDeferredQueue()
    waiting = watch(queue.get())
    assert queue.put(None) is None
    assert waiting.fired == 1
    assert waiting.result() is None
    queue.put(None)
    queue.put("behind")
    assert watch(queue.get()).result() is None
    assert watch(queue.get()).result() == "behind"


def test_pending_and_waiting_look_like_lists() -> None:
    queue = ClosableDeferredQueue()
    assert queue.pending == [] and queue.waiting == []
    for item in range(5):
        queue.put(item)
    assert queue.pending == [0, 1, 2, 3, 4]
    expected = [0, 1, 2, 3, 4]
    assert expected == queue.pending  # whichever side is asked first
    assert queue.pending[1:3] == [1, 2]
    assert (queue.pending[0], queue.pending[-1], len(queue.pending)) == (0, 4, 5)
    assert 3 in queue.pending and list(queue.pending) == [0, 1, 2, 3, 4]
    assert bool(queue.pending) and not queue.waiting

    empty = ClosableDeferredQueue()
    deferreds = [empty.get() for _ in range(3)]
    assert empty.waiting == deferreds
    assert empty.waiting[:2] == deferreds[:2]
    assert len(empty.waiting) == 3 and empty.waiting[0] is deferreds[0]
    assert deferreds == empty.waiting
    for deferred in deferreds:
        deferred.addErrback(lambda failure: None)


def test_limits_are_those_of_a_deferred_queue() -> None:
    queue = ClosableDeferredQueue(size=1, backlog=1)
    queue.put(1)
    with pytest.raises(defer.QueueOverflow):
        queue.put(2)
    watch(queue.get()).result()
    waiting = watch(queue.get())
    with pytest.raises(defer.QueueUnderflow):
        queue.get()
    queue.put(3)
    assert waiting.result() == 3


def test_a_queue_can_be_subclassed() -> None:
    class Counted(ClosableDeferredQueue):
        def __init__(self) -> None:
            super().__init__(backlog=5)
            self.taken = 0

        def get(self) -> Any:
            self.taken += 1
            return super().get()

    queue = Counted()
    queue.put("x")
    queue.note = "attributes too"  # type: ignore[attr-defined]
    assert watch(queue.get()).result() == "x"
    assert queue.taken == 1


# The channel over a double of pika's


class Doubled:
    """A TwistedChannel and the mock it believes to be pika's channel."""

    def __init__(self) -> None:
        self.pika = mock.Mock()
        self.channel = TwistedChannel(self.pika)

    def arguments(self, method: str) -> dict[str, Any]:
        """The keyword arguments of the only call of that method."""
        double = getattr(self.pika, method)
        double.assert_called_once()
        return dict(double.call_args[1])

    def answer(self, method: str, *args: Any) -> None:
        self.arguments(method)["callback"](*args)

    def confirming(self) -> None:
        selected = watch(self.channel.confirm_delivery())
        self.answer("confirm_delivery", Method(1, spec.Confirm.SelectOk()))
        selected.result()

    def confirm(self, method: Any) -> None:
        self.channel._on_delivery_confirmation(Method(1, method))

    def returned(self, routing_key: str, body: Any) -> None:
        method = spec.Basic.Return(312, "NO_ROUTE", "exchange", routing_key)
        callback = self.pika.add_on_return_callback.call_args[0][0]
        callback(self.pika, method, spec.BasicProperties(), body)


@pytest.fixture
def doubled() -> Doubled:
    return Doubled()


def test_the_channels_callbacks_are_registered_by_name(doubled: Doubled) -> None:
    channel = doubled.channel
    doubled.pika.add_on_close_callback.assert_called_with(channel._on_channel_closed)
    doubled.pika.add_on_cancel_callback.assert_called_with(channel._on_consumer_cancelled_by_broker)
    doubled.pika.add_callback.assert_called_with(channel._on_getempty, [spec.Basic.GetEmpty], False)


def test_repr_shows_class_and_channel(doubled: Doubled) -> None:
    doubled.pika.__repr__ = lambda _self: "<a channel>"

    class Mine(TwistedChannel):
        pass

    assert repr(doubled.channel) == "<TwistedChannel channel=<a channel>>"
    assert repr(Mine(doubled.pika)) == "<Mine channel=<a channel>>"


@pytest.mark.parametrize(
    "name",
    [
        "channel_number",
        "connection",
        "is_closed",
        "is_closing",
        "is_open",
        "flow_active",
        "consumer_tags",
    ],
)
def test_attributes_are_pikas(doubled: Doubled, name: str) -> None:
    value = object()
    setattr(doubled.pika, name, value)
    assert getattr(doubled.channel, name) is value


def test_the_end_of_the_channel_reaches_what_was_put_into_it(doubled: Doubled) -> None:
    """`_calls`, `_consumers` and `_deliveries` can be replaced by whatever holds Deferreds."""
    channel = doubled.channel
    calls = channel._calls = [defer.Deferred()]
    outcome = watch(calls[0])
    consumer = mock.Mock()
    channel._consumers = {"tag": consumer}
    closed = watch(channel.on_closed)
    reason = LookupError("the end")

    channel._on_channel_closed(None, reason)

    assert outcome.failure(LookupError).args == ("the end",)
    consumer.close.assert_called_once()
    assert consumer.close.call_args[0] == (reason,)
    assert len(channel._calls) == len(channel._consumers) == len(channel._deliveries) == 0
    assert closed.result() is reason


def test_everything_fails_after_the_end(doubled: Doubled) -> None:
    channel = doubled.channel
    channel._on_channel_closed(None, LookupError("the end"))
    for outcome in (
        call(channel.basic_consume, "q"),
        call(channel.queue_declare, "q"),
        call(channel.basic_publish, "", "q", b"x"),
        call(channel.basic_get, "q"),
        call(channel.confirm_delivery),
        call(channel.basic_cancel, "tag"),
    ):
        assert outcome.failure(LookupError).args == ("the end",)
    doubled.pika.basic_publish.assert_not_called()
    doubled.pika.queue_declare.assert_not_called()


CALLS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("basic_qos", {"prefetch_count": 2}, {"prefetch_size": 0, "global_qos": False}),
    ("basic_qos", {"prefetch_size": 2}, {"prefetch_count": 0, "global_qos": False}),
    ("basic_recover", {}, {"requeue": False}),
    ("exchange_bind", {"destination": "a", "source": "b"}, {"routing_key": "", "arguments": None}),
    ("exchange_declare", {"exchange": "x", "durable": True}, {"passive": False, "internal": False}),
    ("exchange_delete", {"exchange": "x"}, {"if_unused": False}),
    ("exchange_unbind", {"destination": "a", "source": "b"}, {"routing_key": ""}),
    ("flow", {"active": True}, {}),
    ("queue_bind", {"queue": "q", "exchange": "x"}, {"routing_key": None, "arguments": None}),
    ("queue_declare", {"queue": "q"}, {"passive": False, "durable": False, "arguments": None}),
    ("queue_delete", {"queue": "q"}, {"if_unused": False, "if_empty": False}),
    ("queue_purge", {"queue": "q"}, {}),
    ("queue_unbind", {"queue": "q", "exchange": "x"}, {"routing_key": None, "arguments": None}),
    ("tx_commit", {}, {}),
    ("tx_rollback", {}, {}),
    ("tx_select", {}, {}),
]


@pytest.mark.parametrize(("method", "given", "added"), CALLS)
def test_a_call_goes_to_pikas_method_by_keyword(
    doubled: Doubled, method: str, given: dict[str, Any], added: dict[str, Any]
) -> None:
    outcome = call(getattr(doubled.channel, method), **given)
    passed = doubled.arguments(method)
    assert {**given, **added}.items() <= passed.items()
    assert outcome.pending

    answer = mock.sentinel.answer
    passed["callback"](answer)
    assert outcome.result() is answer


def test_an_answer_of_several_arguments_is_a_tuple(doubled: Doubled) -> None:
    outcome = call(doubled.channel.queue_declare, "q")
    doubled.answer("queue_declare", "one", "two")
    assert outcome.result() == ("one", "two")


def test_a_call_that_raises_fails_its_deferred(doubled: Doubled) -> None:
    for method in ("queue_declare", "basic_consume", "basic_get", "basic_publish"):
        getattr(doubled.pika, method).side_effect = LookupError(method)
    for outcome in (
        call(doubled.channel.queue_declare, "q"),
        call(doubled.channel.basic_consume, "q"),
        call(doubled.channel.basic_get, "q"),
        call(doubled.channel.basic_publish, "", "q", b"x"),
    ):
        outcome.failure(LookupError)


def test_calls_are_kept_in_calls_until_answered(doubled: Doubled) -> None:
    outcome = call(doubled.channel.queue_purge, "q")
    (waiting,) = doubled.channel._calls
    waiting.callback("somebody else fired it")
    assert outcome.result() == "somebody else fired it"
    assert len(doubled.channel._calls) == 0


def test_consuming_from_a_double(doubled: Doubled) -> None:
    channel = doubled.channel
    outcome = call(channel.basic_consume, queue="q")
    passed = doubled.arguments("basic_consume")
    assert passed["queue"] == "q"
    passed["callback"](Method(1, spec.Basic.ConsumeOk("tag")))
    queue, tag = outcome.result()
    assert tag == "tag"
    assert channel._consumers == {"tag": queue}
    assert "tag" in channel._queue_name_to_consumer_tags["q"]

    getting = watch(queue.get())
    passed["on_message_callback"]("a channel", "a method", "properties", "body")

    assert getting.result() == (channel, "a method", "properties", "body")
    assert getting.result().channel is channel


def test_a_consume_that_waits_fails_with_the_channel(doubled: Doubled) -> None:
    outcome = call(doubled.channel.basic_consume, "q")
    doubled.channel._on_channel_closed(None, exceptions.ChannelClosedByBroker(404, "gone"))
    assert outcome.failure(exceptions.ChannelClosedByBroker).args == (404, "gone")


def test_queue_delete_closes_consumers_that_were_filed_by_hand(doubled: Doubled) -> None:
    channel = doubled.channel
    consumer = mock.Mock()
    channel._consumers = {"tag": consumer}
    channel._queue_name_to_consumer_tags["q"] = {"tag"}
    outcome = call(channel.queue_delete, queue="q")

    doubled.answer("queue_delete", Method(1, spec.Queue.DeleteOk(0)))

    outcome.result()
    assert channel._consumers == {}
    consumer.close.assert_called_once()
    assert isinstance(consumer.close.call_args[0][0], exceptions.ConsumerCancelled)


def test_basic_cancel_closes_the_one_consumer(doubled: Doubled) -> None:
    channel = doubled.channel
    consumers = {"one": mock.Mock(), "two": mock.Mock()}
    channel._consumers.update(consumers)
    channel._queue_name_to_consumer_tags.update({"q1": {"one"}, "q2": {"two"}})
    outcome = call(channel.basic_cancel, "one")
    answer = Method(1, spec.Basic.CancelOk("one"))

    doubled.answer("basic_cancel", answer)

    assert outcome.result() is answer
    consumers["one"].close.assert_called_once()
    assert isinstance(consumers["one"].close.call_args[0][0], exceptions.ConsumerCancelled)
    consumers["two"].close.assert_not_called()
    assert list(channel._consumers) == ["two"]
    assert channel._queue_name_to_consumer_tags["q1"] == set()
    assert channel._queue_name_to_consumer_tags["q2"] == {"two"}


def test_basic_cancel_of_a_tag_nobody_knows(doubled: Doubled) -> None:
    outcome = call(doubled.channel.basic_cancel, "nobody")
    doubled.answer("basic_cancel", Method(1, spec.Basic.CancelOk("nobody")))
    assert isinstance(outcome.result(), Method)


def test_a_cancel_by_the_broker_closes_the_consumer(doubled: Doubled) -> None:
    channel = doubled.channel
    consumer = mock.Mock()
    channel._consumers["tag"] = consumer
    channel._queue_name_to_consumer_tags["q"] = {"tag"}

    channel._on_consumer_cancelled_by_broker(Method(1, spec.Basic.Cancel("tag")))

    consumer.close.assert_called_once()
    assert isinstance(consumer.close.call_args[0][0], exceptions.ConsumerCancelled)
    assert channel._consumers == {}
    assert channel._queue_name_to_consumer_tags["q"] == set()
    channel._on_consumer_cancelled_by_broker(Method(1, spec.Basic.Cancel("tag")))


def test_basic_get_from_a_double(doubled: Doubled) -> None:
    outcome = call(doubled.channel.basic_get, queue="q")
    passed = doubled.arguments("basic_get")
    assert passed["queue"] == "q" and passed["auto_ack"] is False
    passed["callback"]("a channel", "a method", "properties", "body")
    assert outcome.result() == (doubled.channel, "a method", "properties", "body")
    assert isinstance(outcome.result(), pika_twisted.ReceivedMessage)


def test_a_second_basic_get_is_refused_while_one_waits(doubled: Doubled) -> None:
    first = call(doubled.channel.basic_get, "q")
    with pytest.raises(exceptions.DuplicateGetOkCallback):
        doubled.channel.basic_get("q")
    doubled.channel._on_getempty("whatever")
    assert first.result() is None
    second = call(doubled.channel.basic_get, "q")
    doubled.channel._on_getempty("whatever")
    assert second.result() is None
    doubled.channel._on_getempty("nobody asked")


def test_acks_go_to_pikas_methods_by_keyword(doubled: Doubled) -> None:
    assert doubled.channel.basic_ack() is None
    doubled.pika.basic_ack.assert_called_once_with(delivery_tag=0, multiple=False)
    doubled.channel.basic_nack("any tag")
    doubled.pika.basic_nack.assert_called_once_with(
        delivery_tag="any tag", multiple=False, requeue=True
    )
    doubled.channel.basic_reject("any tag")
    doubled.pika.basic_reject.assert_called_once_with(delivery_tag="any tag", requeue=True)


def test_publishing_without_confirms_is_done_at_once(doubled: Doubled) -> None:
    key, body = object(), object()
    outcome = call(doubled.channel.basic_publish, "exchange", routing_key=key, body=body)
    doubled.pika.basic_publish.assert_called_once_with(
        exchange="exchange", routing_key=key, body=body, properties=None, mandatory=False
    )
    outcome.result()


def test_callback_deferred_watches_through_pikas_add_callback(doubled: Doubled) -> None:
    """pika hands it the Deferred's own `callback`, which fails at the second reply (row D16)."""
    deferred: defer.Deferred[Any] = defer.Deferred()
    outcome = watch(deferred)
    doubled.channel.callback_deferred(deferred, [spec.Basic.CancelOk])
    callback, replies = doubled.pika.add_callback.call_args[0][:2]
    assert replies == [spec.Basic.CancelOk]
    answer = Method(1, spec.Basic.CancelOk("tag"))
    callback(answer)
    assert outcome.result() is answer


def test_close_passes_code_and_text(doubled: Doubled) -> None:
    doubled.channel.close()
    doubled.pika.close.assert_called_once_with(reply_code=0, reply_text="Normal shutdown")


def test_return_callbacks_get_one_message(doubled: Doubled) -> None:
    callback = mock.Mock()
    doubled.channel.add_on_return_callback(callback)
    doubled.pika.add_on_return_callback.assert_called_once()
    registered = doubled.pika.add_on_return_callback.call_args[0][0]
    registered("a channel", "a method", "properties", b"body")
    ((message,), _) = callback.call_args
    assert message == (doubled.channel, "a method", "properties", b"body")


def test_confirm_delivery_registers_by_name(doubled: Doubled) -> None:
    doubled.confirming()
    passed = doubled.arguments("confirm_delivery")
    assert passed["ack_nack_callback"] == doubled.channel._on_delivery_confirmation
    doubled.pika.add_on_return_callback.assert_called_once()


def test_confirms_on_a_double(doubled: Doubled) -> None:
    doubled.confirming()
    channel = doubled.channel
    outcomes = [call(channel.basic_publish, "exchange", f"k{n}", f"body {n}") for n in range(5)]
    assert len(channel._deliveries) == 5
    ack = spec.Basic.Ack(1)

    doubled.confirm(ack)
    assert outcomes[0].result() is ack
    doubled.confirm(spec.Basic.Nack(2))
    assert outcomes[1].failure(exceptions.NackError).messages == []
    doubled.returned("k2", "body 2")
    doubled.confirm(spec.Basic.Ack(3))
    (message,) = outcomes[2].failure(exceptions.UnroutableError).messages
    assert (message.channel, message.body) == (channel, "body 2")
    doubled.returned("k3", "body 3")
    doubled.confirm(spec.Basic.Nack(4))
    assert [m.body for m in outcomes[3].failure(exceptions.NackError).messages] == ["body 3"]
    assert len(channel._deliveries) == 1
    doubled.confirm(spec.Basic.Ack(99))  # logged
    assert outcomes[4].pending

    channel._on_channel_closed(None, LookupError("the end"))
    outcomes[4].failure(LookupError)
    assert len(channel._deliveries) == 0


def test_multiple_confirms_on_a_double(doubled: Doubled) -> None:
    doubled.confirming()
    outcomes = [call(doubled.channel.basic_publish, "exchange", "k", "body") for _ in range(3)]
    doubled.confirm(spec.Basic.Ack(2, True))
    assert [outcome.fired for outcome in outcomes] == [1, 1, 0]
    assert all(isinstance(outcome.result(), spec.Basic.Ack) for outcome in outcomes[:2])
    doubled.confirm(spec.Basic.Ack(3))
    outcomes[2].result()


# The protocol over a double of pika's connection


@pytest.fixture
def conn() -> Iterator[TwistedProtocolConnection]:
    """A protocol whose `_impl` was replaced."""
    connection = TwistedProtocolConnection()
    connection._impl = mock.Mock()
    ready = connection.ready
    assert ready is not None
    yield connection
    ready.addErrback(lambda failure: None)


def test_octets_go_to_the_implementation(conn: TwistedProtocolConnection) -> None:
    data: Any = object()
    conn.dataReceived(data)
    conn._impl.data_received.assert_called_once_with(data)


def test_the_transport_goes_to_the_implementation(conn: TwistedProtocolConnection) -> None:
    transport = mock.Mock()
    conn.connectionMade = mock.Mock()  # type: ignore[method-assign]
    conn.makeConnection(transport)
    conn._impl.connection_made.assert_called_once_with(transport)
    conn.connectionMade.assert_called_once_with()
    assert conn.transport is transport
    assert conn.connected


def test_channel_asks_the_implementation(conn: TwistedProtocolConnection) -> None:
    pika_channel = mock.Mock()
    conn._impl.channel.side_effect = lambda number, callback: callback(pika_channel)
    channel = call(conn.channel).result()
    assert isinstance(channel, TwistedChannel)
    assert channel._channel is pika_channel
    call(conn.channel, 7).result()
    assert conn._impl.channel.call_args[0][0] == 7


def test_a_waiting_channel_fails_with_the_connection(conn: TwistedProtocolConnection) -> None:
    conn._on_connection_ready("whoever")
    outcome = call(conn.channel)
    assert outcome.pending
    conn._on_connection_closed("whoever", LookupError("the end"))
    outcome.failure(LookupError)
    assert len(conn._calls) == 0


def test_ready_fires_once_with_what_connection_ready_returns() -> None:
    class Mine(TwistedProtocolConnection):
        def connectionReady(self) -> Any:
            return deferred

    deferred: defer.Deferred[Any] = defer.Deferred()
    conn = Mine()
    ready = watch(conn.ready)
    conn._on_connection_ready("whoever")
    conn._on_connection_ready("again")
    assert ready.pending and conn.ready is None
    deferred.callback("set up")
    assert ready.result() == "set up"
    late = TwistedProtocolConnection()
    late.connectionReady = mock.Mock(return_value="late")  # type: ignore[method-assign]
    outcome = watch(late.ready)
    late._on_connection_ready(None)
    late.connectionReady.assert_called_once_with()
    assert outcome.result() == "late"


def test_a_failure_in_connection_ready_is_readys(session: Session) -> None:
    class Mine(TwistedProtocolConnection):
        def connectionReady(self) -> Any:
            raise LookupError("no such exchange")

    protocol_ = session.connect(factory=Mine)
    ready = watch(protocol_.ready)
    session.peer.start()
    session.peer.tune(heartbeat=0)
    session.peer.open_ok()
    ready.failure(LookupError)


def test_a_connection_that_fails_to_open(conn: TwistedProtocolConnection) -> None:
    ready = watch(conn.ready)
    conn._on_connection_failed(None)
    conn._on_connection_failed(None)
    ready.failure(exceptions.AMQPConnectionError)


def test_a_lost_connection_fails_ready_and_may_be_lost_again(
    conn: TwistedProtocolConnection,
) -> None:
    ready = watch(conn.ready)
    reason: Any = Failure(LookupError("cut"))
    conn.connectionLost(reason)
    conn._impl.connection_lost.assert_called_with(reason)
    assert conn.ready is None
    ready.failure(LookupError)
    conn.connectionLost(reason)


def test_connection_lost_with_a_plain_exception(conn: TwistedProtocolConnection) -> None:
    ready = watch(conn.ready)
    conn.connectionLost(LookupError("no Failure"))  # type: ignore[arg-type]
    ready.failure(LookupError)


@pytest.mark.parametrize("wrapped", [False, True])
def test_closed_fires_once_with_the_reason(conn: TwistedProtocolConnection, wrapped: bool) -> None:
    conn._on_connection_ready("whoever")
    closed = watch(conn.closed)
    reason = LookupError("the end")
    conn._on_connection_closed("whoever", Failure(reason) if wrapped else reason)
    conn._on_connection_closed("whoever", reason)
    assert closed.result() is reason
    assert conn.closed is None


def test_closed_fires_with_whatever_was_given(conn: TwistedProtocolConnection) -> None:
    conn._on_connection_ready("whoever")
    closed = watch(conn.closed)
    conn._on_connection_closed("whoever", "a text")
    assert closed.result() == "a text"


def test_close_is_passed_on_while_open(conn: TwistedProtocolConnection) -> None:
    conn._impl.is_closed = False
    conn.closed = mock.sentinel.assigned
    assert conn.close() is mock.sentinel.assigned
    conn._impl.close.assert_called_once_with(200, "Normal shutdown")
    conn._impl.close.reset_mock()
    conn._impl.is_closed = True
    conn.close()
    conn._impl.close.assert_not_called()
    conn.closed = None


def test_open_and_closed_are_the_implementations(conn: TwistedProtocolConnection) -> None:
    conn._impl.is_open, conn._impl.is_closed = mock.sentinel.open, mock.sentinel.closed
    assert conn.is_open is mock.sentinel.open
    assert conn.is_closed is mock.sentinel.closed


def test_ready_and_closed_can_be_assigned() -> None:
    conn = TwistedProtocolConnection()
    own, conn.ready = conn.ready, defer.Deferred()
    ready = watch(conn.ready)
    conn._on_connection_ready(None)
    ready.result()
    assert conn.ready is None and isinstance(conn.closed, defer.Deferred)
    conn.closed = defer.Deferred()
    closed = watch(conn.closed)
    conn._on_connection_closed(None, LookupError("x"))
    assert isinstance(closed.result(), LookupError)
    assert not own.called


# The connection adapter


@pytest.fixture
def impl() -> Any:
    return _TwistedConnectionAdapter(None, None, None, None, task.Clock())


def test_the_adapter_writes_to_its_transport(impl: Any) -> None:
    transport = mock.Mock()
    impl.connection_made(transport)
    assert impl._transport is transport
    assert impl.connection_state == impl.CONNECTION_PROTOCOL
    impl._adapter_emit_data(b"octets")
    transport.write.assert_called_with(b"octets")
    impl._adapter_disconnect_stream()
    transport.loseConnection.assert_called_once_with()


def test_the_adapters_input_goes_through_on_data_available(impl: Any) -> None:
    impl._on_data_available = mock.Mock()
    impl.data_received(b"octets")
    impl._on_data_available.assert_called_once_with(b"octets")


def test_the_adapter_hears_of_the_end(impl: Any) -> None:
    impl._on_stream_terminated = mock.Mock()
    reason = Failure(LookupError("cut"))
    impl.connection_lost(reason)
    impl._on_stream_terminated.assert_called_with(reason.value)
    assert impl._transport is None


def test_an_orderly_end_is_kept_as_the_error(impl: Any) -> None:
    impl._on_stream_terminated = mock.Mock()
    reason = Failure(error.ConnectionDone())
    impl.connection_lost(reason)
    impl._on_stream_terminated.assert_called_with(None)
    assert impl._error is reason.value


def test_the_adapters_timers_run_on_its_reactor(impl: Any) -> None:
    called = mock.Mock()
    cancelled = impl._adapter_call_later(5, called)
    kept = impl._adapter_call_later(5, called)
    assert [cancelled._handle, kept._handle] == impl._reactor.getDelayedCalls()
    impl._adapter_remove_timeout(cancelled)
    impl._reactor.advance(5)
    called.assert_called_once_with()
    assert impl._reactor.getDelayedCalls() == []


def test_without_a_reactor_the_global_one_is_used() -> None:
    from twisted.internet import reactor

    impl = _TwistedConnectionAdapter(None, None, None, None, None)
    timer = impl._adapter_call_later(5, mock.Mock())
    assert timer._handle in reactor.getDelayedCalls()  # type: ignore[attr-defined]
    impl._adapter_remove_timeout(timer)
    assert timer._handle not in reactor.getDelayedCalls()  # type: ignore[attr-defined]
    callback = mock.Mock()
    with mock.patch.object(reactor, "callFromThread") as call_from_thread:
        impl._adapter_add_callback_threadsafe(callback)
    call_from_thread.assert_called_once_with(callback)
    impl._transport = mock.Mock()
    impl.close()


@pytest.mark.parametrize("refusal", [None, error.AlreadyCalled, error.AlreadyCancelled])
def test_a_timer_can_be_cancelled_at_any_time(refusal: Any) -> None:
    handle = mock.Mock()
    handle.cancel.side_effect = refusal
    timer = _TimerHandle(handle)
    timer.cancel()
    timer.cancel()
    handle.cancel.assert_called_once_with()
    assert timer._handle is None


# What programs do


def test_both_constructor_arguments_are_optional() -> None:
    for conn in (
        TwistedProtocolConnection(),
        TwistedProtocolConnection(pika.ConnectionParameters()),
        TwistedProtocolConnection(parameters=pika.URLParameters("amqp://u:p@h/v")),
        TwistedProtocolConnection(None, task.Clock()),
        TwistedProtocolConnection(custom_reactor=task.Clock()),
    ):
        conn.ready.addErrback(lambda failure: None)  # type: ignore[union-attr]
        assert conn._impl.params.host
        assert not conn.is_open


def test_the_implementation_tells_its_state_and_counts(session: Session) -> None:
    conn = session.open(virtual_host="v", product="RabbitMQ")
    impl = conn._impl
    assert (impl.is_open, impl.is_closing, impl.is_closed) == (True, False, False)
    assert (conn.is_open, conn.is_closed) == (True, False)
    assert impl.params.virtual_host == "v"
    assert impl.server_properties["product"] == "RabbitMQ"
    assert impl.publisher_confirms and impl.basic_nack
    channel = session.channel()
    queue = session.consumer(channel)
    counts = (impl.bytes_received, impl.frames_received, impl.bytes_sent, impl.frames_sent)
    written = sum(map(len, session.transport.writes))

    session.peer.deliver(channel, "t", b"body")
    channel.basic_ack(1)
    session.publish(channel, b"body")
    session.turn()

    assert len(queue.pending) == 1
    assert impl.frames_received - counts[1] == 3
    assert impl.bytes_received > counts[0]
    assert impl.frames_sent - counts[3] == 4
    assert impl.bytes_sent - counts[2] == sum(map(len, session.transport.writes)) - written
    session.lose()
    assert (impl.is_open, impl.is_closed, conn.is_open, conn.is_closed) == (
        False,
        True,
        False,
        True,
    )


def test_the_implementation_takes_blocked_callbacks(session: Session) -> None:
    conn = session.open()
    told: list[Any] = []
    conn._impl.add_on_connection_blocked_callback(lambda *args: told.append(args))
    conn._impl.add_on_connection_unblocked_callback(lambda *args: told.append(args))
    session.peer.send(0, spec.Connection.Blocked("memory"))
    session.peer.send(0, spec.Connection.Unblocked())
    assert [args[0] for args in told] == [conn._impl, conn._impl]
    assert isinstance(told[0][1], Method)
    assert told[0][1].method.reason == "memory"


def test_subclasses_may_use_their_names_on_the_protocol(session: Session) -> None:
    """Programs have set these for years; what we keep on the instance must not collide."""
    taken = object()

    class Mine(TwistedProtocolConnection):
        name = "mine"
        factory = taken

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            for attribute in names:
                setattr(self, attribute, taken)

    names = ["_channel", "_publish_channel", "_consumers", "_confirms", "connection"]
    names += ["_queue", "_queues", "_parameters", "_deferred", "_closed", "_ready"]
    conn = session.open(factory=Mine)
    channel = session.channel()
    queue = session.consumer(channel)
    session.confirms(channel)
    session.peer.deliver(channel, "t", b"body")
    published = session.publish(channel, b"x")
    session.peer.ack(channel, 1)

    assert watch(queue.get()).result().body == b"body"
    published.result()
    conn._channel, conn.connected = channel, 1
    assert all(getattr(conn, attribute) is taken for attribute in names if attribute != "_channel")
    assert (conn.name, conn.factory) == ("mine", taken)
    session.lose()
    session.closed.result()


def test_channel_and_connected_may_be_replaced_on_the_protocol(session: Session) -> None:
    conn = session.open()
    channel = session.channel()
    conn.channel = channel  # fedora-messaging and others keep their channel there
    conn.connected = 0
    declared = watch(channel.queue_declare("q"))
    session.peer.send(channel, spec.Queue.DeclareOk("q", 0, 0))
    declared.result()
    session.lose()
    session.closed.result()


def test_attributes_can_be_set_on_channels(session: Session) -> None:
    channel = session.channel()
    channel.anything = 1
    channel.on_message = print
    assert vars(channel)["anything"] == 1


def test_the_classes_are_what_isinstance_says(session: Session) -> None:
    conn = session.open()
    channel = session.channel()
    queue = session.consumer(channel)
    session.peer.deliver(channel, "t", b"body")
    message = watch(queue.get()).result()
    assert isinstance(conn, TwistedProtocolConnection) and isinstance(conn, protocol.Protocol)
    assert isinstance(channel, TwistedChannel)
    assert isinstance(queue, ClosableDeferredQueue) and isinstance(queue, defer.DeferredQueue)
    assert isinstance(message, pika_twisted.ReceivedMessage) and isinstance(message, tuple)
    assert isinstance(message.method, spec.Basic.Deliver)
    assert isinstance(message.properties, spec.BasicProperties)
    assert type(message.body) is bytes
    assert message.channel is channel


def test_a_factory_builds_the_protocol_as_always(session: Session) -> None:
    class Factory(protocol.ClientFactory):
        protocol = TwistedProtocolConnection

    factory = Factory()
    conn = factory.buildProtocol(None)
    assert isinstance(conn, TwistedProtocolConnection)
    assert conn.factory is factory
    conn.ready.addErrback(lambda failure: None)


def test_return_callbacks_hear_of_every_return_also_with_confirms(session: Session) -> None:
    channel = session.channel()
    returned: list[Any] = []
    channel.add_on_return_callback(returned.append)
    session.confirms(channel)
    outcome = session.publish(channel, b"unroutable", mandatory=True)
    session.peer.give_back(channel, session.peer.published_body(b"unroutable"))
    session.peer.ack(channel, 1)
    (message,) = outcome.failure(exceptions.UnroutableError).messages
    assert [one.body for one in returned] == [b"unroutable"]
    assert message.channel is channel and returned[0].channel is channel


def test_a_consumer_as_in_pikas_documentation(session: Session) -> None:
    """inlineCallbacks, a queue, an ack for each message; only the import is another."""
    taken: list[bytes] = []

    @defer.inlineCallbacks
    def run(connection: Any) -> Any:
        channel = yield connection.channel()
        yield channel.exchange_declare(exchange="topic_link", exchange_type="topic")
        yield channel.queue_declare(queue="hello", auto_delete=False, exclusive=False)
        yield channel.queue_bind(exchange="topic_link", queue="hello", routing_key="hello.world")
        yield channel.basic_qos(prefetch_count=1)
        queue_object, _consumer_tag = yield channel.basic_consume(queue="hello", auto_ack=False)
        while True:
            ch, method, _properties, body = yield queue_object.get()
            taken.append(body)
            yield ch.basic_ack(delivery_tag=method.delivery_tag)

    conn = session.open()
    running = watch(run(conn))
    peer = session.peer
    for expected, answer in (
        (spec.Channel.Open, spec.Channel.OpenOk()),
        (spec.Exchange.Declare, spec.Exchange.DeclareOk()),
        (spec.Queue.Declare, spec.Queue.DeclareOk("hello", 0, 0)),
        (spec.Queue.Bind, spec.Queue.BindOk()),
        (spec.Basic.Qos, spec.Basic.QosOk()),
    ):
        peer.expect(expected)
        peer.send(1, answer)
    tag = peer.expect(spec.Basic.Consume).method.consumer_tag
    peer.send(1, spec.Basic.ConsumeOk(tag))
    peer.deliver(1, tag, b"one", b"two")
    assert taken == [b"one", b"two"]
    assert [peer.expect(spec.Basic.Ack).method.delivery_tag for _ in range(2)] == [1, 2]
    peer.deliver(1, tag, b"three", first=3)
    assert taken[2:] == [b"three"]
    session.lose()
    running.failure(exceptions.ChannelClosed, error.ConnectionLost)


def test_other_brokers_are_asked_what_rabbitmq_refuses(session: Session) -> None:
    session.open(product="Qpid")
    channel = session.channel()
    calls = [
        call(channel.basic_recover),
        call(channel.flow, False),
        call(channel.basic_qos, prefetch_size=1),
    ]
    session.peer.expect(spec.Basic.Recover)
    session.peer.send(channel, spec.Basic.RecoverOk())
    session.peer.expect(spec.Channel.Flow)
    session.peer.send(channel, spec.Channel.FlowOk(False))
    session.peer.expect(spec.Basic.Qos)
    session.peer.send(channel, spec.Basic.QosOk())
    assert calls[1].result() is False
    for outcome in calls:
        outcome.result()


def test_pikas_adapter_is_never_imported() -> None:
    """pika 2.0 will not have it."""
    code = (
        "import sys, pkgutil, importlib, pika_twisted\n"
        "for module in pkgutil.iter_modules(pika_twisted.__path__, 'pika_twisted.'):\n"
        "    try:\n"
        "        importlib.import_module(module.name)\n"
        "    except ImportError as missing:\n"  # TLS is optional
        "        assert missing.name in ('OpenSSL', 'service_identity'), missing\n"
        "assert 'pika.adapters.twisted_connection' not in sys.modules\n"
        "assert 'twisted.internet.reactor' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
