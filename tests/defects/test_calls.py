"""Calls and Deferreds: rows D08 to D11, D14 to D17, D22 to D24, D31, D34, D39, D42 and D54."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
from pika import exceptions, spec
from twisted.internet import defer

from tests.support.outcome import TwistedLog, call, run, watch
from tests.support.session import Session


def answer_declare(session: Session, channel: Any, name: str) -> None:
    session.peer.expect(spec.Queue.Declare, queue=name)
    session.peer.send(channel, spec.Queue.DeclareOk(name, 0, 0))


def test_d08_a_cancelled_call_does_not_disturb_the_channels_close(session: Session) -> None:
    channel = session.channel()
    queue = session.consumer(channel)
    getting = watch(queue.get(), "get")
    closed = watch(channel.on_closed, "on_closed")
    cancelled = channel.queue_declare("slow")
    outcome = watch(cancelled, "the cancelled call")
    others = [watch(channel.queue_declare(f"q{n}"), f"call {n}") for n in range(3)]
    cancelled.cancel()
    outcome.failure(defer.CancelledError)
    answer_declare(session, channel, "slow")  # the late reply

    session.peer.close_channel(channel, 404, "NOT_FOUND")

    for other in others:
        assert other.failure(exceptions.ChannelClosedByBroker).reply_code == 404
    getting.failure(exceptions.ChannelClosedByBroker)
    assert isinstance(closed.result(), exceptions.ChannelClosedByBroker)
    assert outcome.fired == 1


def test_d08_a_cancelled_call_does_not_disturb_the_connections_end(session: Session) -> None:
    channel = session.channel()
    cancelled = channel.queue_declare("slow")
    watch(cancelled).deferred.cancel()
    answer_declare(session, channel, "slow")
    other = watch(channel.queue_declare("q"))

    session.lose()

    other.failure(exceptions.AMQPError)
    session.closed.result()


def test_d08_cancelling_after_the_end_is_harmless(session: Session) -> None:
    channel = session.channel()
    deferreds = [channel.queue_declare(f"q{n}") for n in range(3)]
    outcomes = [watch(deferred) for deferred in deferreds]
    deferreds[1].cancel()
    session.peer.expect(spec.Queue.Declare, queue="q0")
    session.peer.send(channel, spec.Queue.DeclareOk("q0", 0, 0))
    answer_declare(session, channel, "q1")  # late and unwanted
    answer_declare(session, channel, "q2")
    for deferred in deferreds:
        deferred.cancel()

    assert [outcome.fired for outcome in outcomes] == [1, 1, 1]
    assert len(channel._calls) == 0


def test_d08_a_late_select_ok_still_turns_confirms_on(session: Session) -> None:
    channel = session.channel()
    selecting = channel.confirm_delivery()
    outcome = watch(selecting)
    session.peer.expect(spec.Confirm.Select)
    selecting.cancel()
    outcome.failure(defer.CancelledError)
    session.peer.send(channel, spec.Confirm.SelectOk())

    published = session.publish(channel, b"x")

    assert published.pending, "the broker confirms by now, the client does not wait for it"
    session.peer.ack(channel, session.peer.published_body(b"x").tag)
    assert isinstance(published.result(), spec.Basic.Ack)


def test_d08_a_late_cancel_ok_still_closes_the_queue(session: Session) -> None:
    channel = session.channel()
    queue = session.consumer(channel)
    getting = watch(queue.get())
    cancelling = channel.basic_cancel("t")
    outcome = watch(cancelling)
    session.peer.expect(spec.Basic.Cancel)
    cancelling.cancel()
    outcome.failure(defer.CancelledError)
    assert not queue.closed

    session.peer.send(channel, spec.Basic.CancelOk("t"))

    getting.failure(exceptions.ConsumerCancelled)
    assert queue.closed
    assert channel.consumer_tags == []


def test_d08_a_late_declare_ok_still_names_the_server_named_queue(session: Session) -> None:
    channel = session.channel()
    declaring = channel.queue_declare("")
    watch(declaring)
    session.peer.expect(spec.Queue.Declare)
    declaring.cancel()
    session.peer.send(channel, spec.Queue.DeclareOk("amq.gen-9", 0, 0))
    queue = session.consumer(channel, queue="")
    deleting = watch(channel.queue_delete("amq.gen-9"))
    session.peer.expect(spec.Queue.Delete)
    session.peer.send(channel, spec.Queue.DeleteOk(0))
    deleting.result()

    assert queue.closed


def test_d08_a_late_delete_ok_still_closes_the_queue(session: Session) -> None:
    channel = session.channel()
    queue = session.consumer(channel)
    deleting = channel.queue_delete("q")
    watch(deleting)
    session.peer.expect(spec.Queue.Delete)
    deleting.cancel()
    session.peer.send(channel, spec.Queue.DeleteOk(0))

    assert queue.closed


def test_d08_a_channel_opened_for_nobody_is_closed(session: Session) -> None:
    protocol = session.open()
    opening = protocol.channel()
    outcome = watch(opening)
    opened = session.peer.expect(spec.Channel.Open)
    opening.cancel()
    outcome.failure(defer.CancelledError)

    session.peer.send(opened.channel_number, spec.Channel.OpenOk())

    closing = session.peer.expect(spec.Channel.Close)
    assert closing.channel_number == opened.channel_number
    session.peer.send(opened.channel_number, spec.Channel.CloseOk())
    assert session.channel().is_open
    assert outcome.fired == 1


def test_d09_a_cancelled_channel_call_does_not_disturb_the_connections_end(
    session: Session,
) -> None:
    protocol = session.open()
    opening = protocol.channel()
    watch(opening).deferred.cancel()
    opened = session.peer.expect(spec.Channel.Open)
    session.peer.send(opened.channel_number, spec.Channel.OpenOk())
    other = watch(protocol.channel(), "the other channel()")

    session.lose()

    other.failure(exceptions.AMQPError)
    session.closed.result()


@pytest.mark.parametrize("bad", ["q" * 256, None], ids=["too long", "no string"])
def test_d10_a_basic_get_that_fails_at_once_frees_its_slot(session: Session, bad: Any) -> None:
    channel = session.channel()
    call(channel.basic_get, bad).failure(Exception)
    session.peer.expect_none()

    getting = call(channel.basic_get, "q")
    session.peer.expect(spec.Basic.Get)
    session.peer.get_ok(channel, b"body")

    assert getting.result().body == b"body"


def test_d11_the_message_of_a_cancelled_basic_get_is_requeued(session: Session) -> None:
    channel = session.channel()
    cancelled = channel.basic_get("q")
    outcome = watch(cancelled)
    session.peer.expect(spec.Basic.Get)
    cancelled.cancel()
    outcome.failure(defer.CancelledError)
    following = call(channel.basic_get, "q")

    session.peer.get_ok(channel, b"unwanted", tag=5)
    given_back = [
        (method.delivery_tag, method.requeue)
        for method in session.peer.methods()
        if isinstance(method, (spec.Basic.Reject, spec.Basic.Nack))
    ]
    assert given_back == [(5, True)]
    assert following.pending, "the next basic_get was given the cancelled one's reply"
    session.peer.expect(spec.Basic.Get)
    session.peer.get_ok(channel, b"wanted", tag=6)
    assert following.result().body == b"wanted"
    assert outcome.fired == 1


def test_d11_a_late_get_empty_is_ignored(session: Session) -> None:
    channel = session.channel()
    cancelled = channel.basic_get("q")
    outcome = watch(cancelled)
    session.peer.expect(spec.Basic.Get)
    cancelled.cancel()
    following = call(channel.basic_get, "q")

    session.peer.send(channel, spec.Basic.GetEmpty())
    assert following.pending, "the next basic_get was given the cancelled one's reply"
    session.peer.expect(spec.Basic.Get)
    session.peer.get_ok(channel, b"body")

    assert following.result().body == b"body"
    assert outcome.fired == 1


def test_d11_an_auto_acked_message_of_a_cancelled_basic_get_is_kept(session: Session) -> None:
    """The broker has forgotten it: the next auto_ack basic_get of that queue takes it."""
    channel = session.channel()
    cancelled = channel.basic_get("q", auto_ack=True)
    watch(cancelled)
    session.peer.expect(spec.Basic.Get)
    cancelled.cancel()
    session.peer.get_ok(channel, b"kept")
    session.peer.expect_none()

    for queue, auto_ack in (("q", False), ("other", True)):
        getting = call(channel.basic_get, queue, auto_ack=auto_ack)
        session.peer.expect(spec.Basic.Get)
        session.peer.send(channel, spec.Basic.GetEmpty())
        assert getting.result() is None
    getting = call(channel.basic_get, "q", auto_ack=True)

    assert getting.result().body == b"kept"
    assert getting.result().channel is channel
    again = call(channel.basic_get, "q", auto_ack=True)
    session.peer.expect(spec.Basic.Get)
    session.peer.send(channel, spec.Basic.GetEmpty())
    assert again.result() is None


def test_d14_two_flow_calls_in_flight_both_fire(session: Session) -> None:
    channel = session.channel()
    calls = [watch(channel.flow(True), f"flow {n}") for n in range(2)]
    for _ in calls:
        session.peer.expect(spec.Channel.Flow)
        session.peer.send(channel, spec.Channel.FlowOk(True))
    assert [outcome.result() for outcome in calls] == [True, True]


def test_d15_callback_deferred_fails_with_the_channel(session: Session) -> None:
    channel = session.channel()
    deferred: defer.Deferred[Any] = defer.Deferred()
    outcome = watch(deferred)
    channel.callback_deferred(deferred, [spec.Tx.SelectOk])

    session.peer.close_channel(channel, 404, "NOT_FOUND")

    assert outcome.failure(exceptions.ChannelClosedByBroker).reply_code == 404


def test_d16_callback_deferred_fires_once(session: Session) -> None:
    channel = session.channel()
    deferred: defer.Deferred[Any] = defer.Deferred()
    outcome = watch(deferred)
    channel.callback_deferred(deferred, [spec.Queue.DeclareOk, spec.Queue.PurgeOk])
    calls = [watch(channel.queue_declare("q")), watch(channel.queue_purge("q"))]
    answer_declare(session, channel, "q")
    session.peer.expect(spec.Queue.Purge)

    session.peer.send(channel, spec.Queue.PurgeOk(3))

    assert isinstance(outcome.result().method, spec.Queue.DeclareOk)
    for one in calls:
        one.result()


@pytest.mark.parametrize("observed", ["Deliver", "GetOk", "Return"])
def test_d17_observing_a_content_method_steals_nothing(session: Session, observed: str) -> None:
    channel = session.channel()
    queue = session.consumer(channel)
    returned: list[bytes] = []
    channel.add_on_return_callback(lambda message: returned.append(message.body))
    getting = watch(channel.basic_get("q"))
    deferred: defer.Deferred[Any] = defer.Deferred()
    outcome = watch(deferred)
    channel.callback_deferred(deferred, [getattr(spec.Basic, observed)])

    session.peer.deliver(channel, "t", b"delivered", b"delivered too")
    session.peer.get_ok(channel, b"got", tag=3)
    stray = spec.Basic.Return(312, "NO_ROUTE", "", "k")
    session.peer.send_content(channel, stray, b"returned")

    assert isinstance(outcome.result().method, getattr(spec.Basic, observed))
    assert [message.body for message in queue.pending] == [b"delivered", b"delivered too"]
    assert getting.result().body == b"got"
    assert returned == [b"returned"]


def test_d22_a_queued_call_that_cannot_be_encoded_fails_at_the_call(session: Session) -> None:
    channel = session.channel()
    first = watch(channel.queue_declare("q"))
    bad = [
        call(channel.queue_declare, "x" * 256),
        call(channel.queue_declare, "x", arguments={"x": object()}),
        call(channel.exchange_declare, "x" * 256),
        call(channel.basic_consume, "q", arguments={"x": object()}),
    ]
    for outcome in bad:
        outcome.failure(Exception)
    last = watch(channel.queue_purge("q"))

    answer_declare(session, channel, "q")
    session.peer.expect(spec.Queue.Purge)
    session.peer.send(channel, spec.Queue.PurgeOk(0))

    first.result()
    last.result()
    session.peer.expect_none()


def test_d22_a_queued_call_is_encoded_as_it_was_called(session: Session) -> None:
    """The caller's table may change while the call waits for its turn."""
    channel = session.channel()
    watch(channel.queue_declare("first"))
    arguments = {"x-max-length": 10}
    watch(channel.queue_declare("second", arguments=arguments))
    arguments["x-max-length"] = 20

    answer_declare(session, channel, "first")

    sent = session.peer.expect(spec.Queue.Declare, queue="second").method
    assert sent.arguments == {"x-max-length": 10}


def test_d23_a_channel_refused_before_open_ok_fails(session: Session) -> None:
    protocol = session.open()
    opening = watch(protocol.channel(), "channel()")
    opened = session.peer.expect(spec.Channel.Open)

    session.peer.close_channel(opened.channel_number, 504, "CHANNEL_ERROR - no more")

    assert opening.failure(exceptions.ChannelClosedByBroker).reply_code == 504
    session.peer.expect(spec.Channel.CloseOk)
    assert session.channel().is_open


def test_d24_a_channel_number_in_use_is_refused(session: Session) -> None:
    protocol = session.open()
    channel = session.channel(3)
    declaring = watch(channel.queue_declare("q"))

    call(protocol.channel, 3).failure(Exception)

    session.peer.expect_none(spec.Channel.Open)
    answer_declare(session, channel, "q")
    assert declaring.result().method.queue == "q"
    session.peer.close_channel(channel, 404, "NOT_FOUND")
    assert channel.is_closed
    assert session.channel(3).is_open


@pytest.mark.parametrize("moment", ["before", "after"])
def test_d31_a_channel_of_a_connection_that_is_not_open(session: Session, moment: str) -> None:
    if moment == "before":
        protocol = session.connect()
        watch(protocol.ready)
    else:
        protocol = session.open()
        session.lose()
    call(protocol.channel).failure(exceptions.ConnectionWrongStateError)


def test_d34_calls_that_fail_at_once_leave_nothing_in_the_log(
    session: Session, twisted_log: TwistedLog
) -> None:
    channel = session.channel()
    call(channel.queue_declare, "x" * 256).failure(Exception)
    call(channel.basic_qos, prefetch_count=-1).failure(Exception)
    call(channel.basic_consume, "q" * 256).failure(Exception)

    assert len(channel._calls) == 0
    session.peer.close_channel(channel, 404, "NOT_FOUND")
    assert twisted_log.flush() == []


def entries(error: BaseException) -> int:
    traceback, count = error.__traceback__, 0
    while traceback is not None:
        traceback, count = traceback.tb_next, count + 1
    return count


class Marker:
    """Something to hold a weak reference to."""


@pytest.mark.parametrize("what", ["get", "call", "publish"])
def test_d39_waiting_on_a_closed_thing_does_not_grow_its_traceback(
    session: Session, what: str
) -> None:
    channel = session.channel()
    queue = session.consumer(channel)
    session.peer.close_channel(channel, 404, "NOT_FOUND")
    wait_for = {
        "get": queue.get,
        "call": lambda: channel.queue_declare("q"),
        "publish": lambda: channel.basic_publish("", "q", b"x"),
    }[what]
    depths: list[int] = []
    markers: list[weakref.ref[Marker]] = []

    async def consumer() -> None:
        marker = Marker()
        markers.append(weakref.ref(marker))
        try:
            await wait_for()
        except exceptions.ChannelClosedByBroker as error:
            depths.append(entries(error))

    for _ in range(50):
        run(consumer()).result()
    gc.collect()

    assert max(depths) == min(depths), f"the traceback grew from {depths[0]} to {depths[-1]}"
    assert [marker() for marker in markers] == [None] * 50


def test_d39_every_deferred_has_an_exception_of_its_own(session: Session) -> None:
    channel = session.channel()
    queue = session.consumer(channel)
    outcomes = [watch(queue.get()), watch(queue.get())]
    outcomes += [watch(channel.queue_declare(f"q{n}")) for n in range(2)]

    session.peer.close_channel(channel, 404, "NOT_FOUND")

    errors = [outcome.failure(exceptions.ChannelClosedByBroker) for outcome in outcomes]
    assert len({id(error) for error in errors}) == len(errors)
    assert {error.args for error in errors} == {(404, "NOT_FOUND")}


def test_d42_basic_get_on_a_closing_channel_sends_nothing(session: Session) -> None:
    channel = session.channel()
    channel.close()
    session.peer.expect(spec.Channel.Close)

    getting = call(channel.basic_get, "q")

    session.peer.expect_none()
    getting.failure(exceptions.AMQPChannelError)
    session.peer.send(channel, spec.Channel.CloseOk())
    assert channel.is_closed


def test_d54_a_cancel_without_answer_leaves_no_tag_behind(session: Session) -> None:
    """pika's own channel can cancel with nowait; the tag is free again after that."""
    channel = session.channel()
    session.consumer(channel)
    channel._channel.basic_cancel("t")
    if not session.peer.expect(spec.Basic.Cancel).method.nowait:
        session.peer.send(channel, spec.Basic.CancelOk("t"))

    again = call(channel.basic_consume, "q", consumer_tag="t")
    session.peer.expect(spec.Basic.Consume)
    session.peer.send(channel, spec.Basic.ConsumeOk("t"))

    queue, _tag = again.result()
    session.peer.deliver(channel, "t", b"x")
    assert [message.body for message in queue.pending] == [b"x"]
