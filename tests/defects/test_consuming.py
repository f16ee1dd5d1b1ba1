"""Consuming: rows D05 to D07, D12, D13, D26, D27, D35 to D38, D43 and D44 (D50: test_costs.py)."""

from __future__ import annotations

import logging
import sys
from typing import Any

import pytest
from pika import exceptions, spec
from twisted.internet import defer

from tests.support.outcome import call, run, watch
from tests.support.session import Session, bodies


def cancel(session: Session, channel: Any, tag: str = "t") -> None:
    """Cancel a consumer and have the broker agree."""
    cancelled = watch(channel.basic_cancel(tag), f"basic_cancel {tag}")
    session.peer.expect(spec.Basic.Cancel, consumer_tag=tag)
    session.peer.send(channel, spec.Basic.CancelOk(tag))
    cancelled.result()


async def collect(queue: Any, into: list[bytes]) -> None:
    async for message in queue:
        into.append(message.body)


@pytest.mark.parametrize("auto_ack", [True, False])
def test_d05_a_closed_queue_keeps_what_was_delivered(session: Session, auto_ack: bool) -> None:
    channel = session.channel()
    queue = session.consumer(channel, auto_ack=auto_ack)
    session.peer.deliver(channel, "t", b"1", b"2", b"3")
    cancel(session, channel)

    assert bodies(queue.pending) == [b"1", b"2", b"3"]
    watch(queue.get()).failure(exceptions.ConsumerCancelled)
    assert bodies(queue.drain()) == [b"1", b"2", b"3"]
    assert queue.pending == []
    assert queue.drain() == []


def test_d05_iteration_hands_out_what_is_pending_then_ends_after_our_cancel(
    session: Session,
) -> None:
    channel = session.channel()
    queue = session.consumer(channel)
    session.peer.deliver(channel, "t", b"1", b"2", b"3")
    cancel(session, channel)
    assert bodies(queue.pending) == [b"1", b"2", b"3"]
    taken: list[bytes] = []

    run(collect(queue, taken)).result()

    assert taken == [b"1", b"2", b"3"]


def test_d05_get_many_hands_out_what_is_pending_then_the_reason(session: Session) -> None:
    channel = session.channel()
    queue = session.consumer(channel, auto_ack=True)
    session.peer.deliver(channel, "t", b"1", b"2", b"3")
    session.peer.close_channel(channel, 404, "NOT_FOUND - no queue")
    assert bodies(queue.pending) == [b"1", b"2", b"3"]

    assert bodies(watch(queue.get_many(2)).result()) == [b"1", b"2"]
    assert bodies(watch(queue.get_many(2)).result()) == [b"3"]
    watch(queue.get_many(2)).failure(exceptions.ChannelClosedByBroker)


def test_d05_an_auto_acked_backlog_survives_its_channel(session: Session) -> None:
    """The broker has forgotten these messages: nobody else will ever get them."""
    channel = session.channel()
    queue = session.consumer(channel, auto_ack=True)
    session.peer.deliver(channel, "t", b"1", b"2")
    session.lose()
    assert bodies(queue.pending) == [b"1", b"2"]
    taken: list[bytes] = []

    run(collect(queue, taken)).failure(exceptions.ChannelClosed)

    assert taken == [b"1", b"2"]


def test_d05_unacked_messages_of_a_dead_channel_are_not_handed_out(session: Session) -> None:
    """The broker redelivers them, and an ack could only fail: they stay for drain()."""
    channel = session.channel()
    queue = session.consumer(channel)
    session.peer.deliver(channel, "t", b"1", b"2")
    session.peer.close_channel(channel, 406, "PRECONDITION_FAILED")
    assert bodies(queue.pending) == [b"1", b"2"]
    taken: list[bytes] = []

    run(collect(queue, taken)).failure(exceptions.ChannelClosedByBroker)
    watch(queue.get_many(10)).failure(exceptions.ChannelClosedByBroker)
    watch(queue.get()).failure(exceptions.ChannelClosedByBroker)

    assert taken == []
    assert bodies(queue.drain()) == [b"1", b"2"]


def test_d05_a_cancel_by_the_broker_is_raised_after_the_backlog(session: Session) -> None:
    channel = session.channel()
    queue = session.consumer(channel)
    session.peer.deliver(channel, "t", b"1", b"2")
    session.peer.send(channel, spec.Basic.Cancel("t", True))
    assert bodies(queue.pending) == [b"1", b"2"]
    taken: list[bytes] = []

    run(collect(queue, taken)).failure(exceptions.ConsumerCancelled)

    assert taken == [b"1", b"2"]


def test_d05_a_queue_of_ones_own(session: Session) -> None:
    queue = session.adapter.ClosableDeferredQueue()
    queue.put("a")
    queue.put("b")
    queue.close(RuntimeError("over"))

    assert queue.pending == ["a", "b"]
    watch(queue.get()).failure(RuntimeError)
    assert queue.drain() == ["a", "b"]


def test_d06_each_of_two_cancels_waits_for_its_own_answer(session: Session) -> None:
    channel = session.channel()
    queues = {tag: session.consumer(channel, tag, f"queue {tag}") for tag in "ab"}
    getting = {tag: watch(queue.get(), f"get {tag}") for tag, queue in queues.items()}
    calls = {tag: watch(channel.basic_cancel(tag), f"cancel {tag}") for tag in "ab"}

    for tag in "ab":
        session.peer.expect(spec.Basic.Cancel, consumer_tag=tag)
        if tag == "a":
            session.peer.send(channel, spec.Basic.CancelOk(tag))
            assert calls["a"].result().method.consumer_tag == "a"
            assert calls["b"].pending, "the second cancel fired on the first one's CancelOk"
            assert not queues["b"].closed
    session.peer.send(channel, spec.Basic.CancelOk("b"))

    assert calls["b"].result().method.consumer_tag == "b"
    for tag in "ab":
        getting[tag].failure(exceptions.ConsumerCancelled)
        assert queues[tag].closed


def test_d07_cancelling_an_unknown_tag_is_sent_and_answered(session: Session) -> None:
    channel = session.channel()
    outcome = watch(channel.basic_cancel("nobody"))
    session.peer.expect(spec.Basic.Cancel, consumer_tag="nobody")
    session.peer.send(channel, spec.Basic.CancelOk("nobody"))
    assert isinstance(outcome.result().method, spec.Basic.CancelOk)


def test_d07_cancelling_twice_never_hangs(session: Session) -> None:
    channel = session.channel()
    session.consumer(channel)
    calls = [watch(channel.basic_cancel("t"), f"cancel {n}") for n in range(2)]
    session.peer.expect(spec.Basic.Cancel)
    session.peer.send(channel, spec.Basic.CancelOk("t"))
    calls += [watch(channel.basic_cancel("t"), "cancel after CancelOk")]
    while "Basic.Cancel" in session.peer.names():
        session.peer.expect(spec.Basic.Cancel)
        session.peer.send(channel, spec.Basic.CancelOk("t"))
    for outcome in calls:
        outcome.result()


@pytest.mark.parametrize("auto_ack", [True, False])
def test_d12_deliveries_between_cancel_and_cancel_ok_reach_the_queue(
    session: Session, auto_ack: bool
) -> None:
    channel = session.channel()
    queue = session.consumer(channel, auto_ack=auto_ack)
    session.peer.deliver(channel, "t", b"before")
    cancelled = watch(channel.basic_cancel("t"))
    session.peer.expect(spec.Basic.Cancel)

    session.peer.deliver(channel, "t", b"during", first=2)

    session.peer.expect_none()
    assert bodies(queue.pending) == [b"before", b"during"]
    assert watch(queue.get()).result().body == b"before"
    session.peer.send(channel, spec.Basic.CancelOk("t"))
    cancelled.result()
    assert bodies(queue.drain()) == [b"during"]


def test_d13_a_cancelled_basic_consume_leaves_no_consumer(session: Session) -> None:
    channel = session.channel()
    consuming = channel.basic_consume("q", consumer_tag="t")
    outcome = watch(consuming)
    session.peer.expect(spec.Basic.Consume)
    consuming.cancel()
    outcome.failure(defer.CancelledError)

    session.peer.send(channel, spec.Basic.ConsumeOk("t"))
    session.peer.expect(spec.Basic.Cancel, consumer_tag="t")
    session.peer.deliver(channel, "t", b"7", b"8", first=7)
    given_back = sorted(
        method.delivery_tag
        for method in session.peer.methods()
        if isinstance(method, (spec.Basic.Reject, spec.Basic.Nack)) and method.requeue
    )
    session.peer.send(channel, spec.Basic.CancelOk("t"))

    assert given_back == [7, 8]
    assert channel.consumer_tags == []
    assert channel._consumers == {}
    assert session.consumer(channel, "t").pending == []


def test_d13_auto_acked_messages_of_a_cancelled_basic_consume_are_counted_in_the_log(
    session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    """Never nacked: a nack of a tag the broker does not wait for closes the channel."""
    channel = session.channel()
    consuming = channel.basic_consume("q", consumer_tag="t", auto_ack=True)
    watch(consuming)
    session.peer.expect(spec.Basic.Consume)
    consuming.cancel()
    session.peer.send(channel, spec.Basic.ConsumeOk("t"))
    session.peer.expect(spec.Basic.Cancel, consumer_tag="t")

    with caplog.at_level(logging.INFO):
        session.peer.deliver(channel, "t", b"1", b"2", b"3")
        session.peer.expect_none(spec.Basic.Reject, spec.Basic.Nack)
        session.peer.send(channel, spec.Basic.CancelOk("t"))

    logged = [r.getMessage() for r in caplog.records if r.name.startswith("pika_twisted")]
    assert [text for text in logged if "3" in text], logged


def declare(session: Session, channel: Any, name: str, given: str) -> None:
    declared = watch(channel.queue_declare(name))
    session.peer.expect(spec.Queue.Declare, queue=name)
    session.peer.send(channel, spec.Queue.DeclareOk(given, 0, 0))
    assert declared.result().method.queue == given


def delete(session: Session, channel: Any, name: str) -> None:
    deleted = watch(channel.queue_delete(name))
    session.peer.expect(spec.Queue.Delete)
    session.peer.send(channel, spec.Queue.DeleteOk(0))
    deleted.result()


@pytest.mark.parametrize("declared_as", ["", "named"])
def test_d26_the_empty_name_is_the_last_declared_queue(session: Session, declared_as: str) -> None:
    """Consumed as '', deleted by its real name."""
    channel = session.channel()
    real_name = declared_as or "amq.gen-1"
    declare(session, channel, declared_as, real_name)
    queue = session.consumer(channel, queue="")
    waiting = watch(queue.get())

    delete(session, channel, real_name)

    waiting.failure(exceptions.ConsumerCancelled)
    assert queue.closed


def test_d26_deleted_as_the_empty_name(session: Session) -> None:
    """The other way round; and a queue declared later takes the empty name over."""
    channel = session.channel()
    declare(session, channel, "", "amq.gen-1")
    first = session.consumer(channel, "first", "amq.gen-1")
    declare(session, channel, "later", "later")
    second = session.consumer(channel, "second", "later")

    delete(session, channel, "")

    assert second.closed
    assert not first.closed


@pytest.mark.parametrize("messages", [3000])
def test_d27_the_documented_loop_takes_any_backlog_in_order(
    session: Session, messages: int
) -> None:
    channel = session.channel()
    queue = session.consumer(channel)
    session.peer.deliver(channel, "t", *(b"%d" % n for n in range(messages)))
    taken: list[bytes] = []
    depths: list[int] = []

    def depth() -> int:
        frame, count = sys._getframe(), 0
        while frame is not None:
            frame, count = frame.f_back, count + 1  # type: ignore[assignment]
        return count

    def handle(message: Any) -> None:
        following = queue.get()
        following.addCallback(handle)
        following.addErrback(lambda failure: None)  # the end of the connection
        taken.append(message.body)
        depths.append(depth())

    queue.get().addCallback(handle)
    session.turn()

    assert taken == [b"%d" % n for n in range(messages)], f"{len(taken)} taken"
    assert max(depths) - min(depths) < 50
    session.peer.deliver(channel, "t", b"one more", b"and another", first=messages + 1)
    assert taken[messages:] == [b"one more", b"and another"]


def test_d35_the_queue_name_index_shrinks(session: Session) -> None:
    channel = session.channel()
    for n in range(20):
        session.consumer(channel, f"t{n}", f"q{n}")
    assert len(channel._queue_name_to_consumer_tags) == 20
    for n in range(10):
        cancel(session, channel, f"t{n}")
    for n in range(10, 15):
        delete(session, channel, f"q{n}")
    for n in range(15, 20):
        session.peer.send(channel, spec.Basic.Cancel(f"t{n}", True))

    assert len(channel._queue_name_to_consumer_tags) == 0


@pytest.mark.parametrize("auto_ack", [True, False])
def test_d36_a_queue_closed_by_its_user_cancels_its_consumer(
    session: Session, auto_ack: bool, caplog: pytest.LogCaptureFixture
) -> None:
    channel = session.channel()
    queue = session.consumer(channel, auto_ack=auto_ack)
    queue.close(RuntimeError("enough"))
    session.peer.expect_none()

    with caplog.at_level(logging.INFO):
        session.peer.deliver(channel, "t", b"1", b"2")
        session.peer.expect(spec.Basic.Cancel, consumer_tag="t")
        session.peer.deliver(channel, "t", b"3", first=3)
        session.peer.send(channel, spec.Basic.CancelOk("t"))
    session.turn()

    session.peer.expect_none()
    assert bodies(queue.drain()) == [b"1", b"2", b"3"]
    assert channel.consumer_tags == []
    logged = [r.getMessage() for r in caplog.records if r.name.startswith("pika_twisted")]
    assert len(logged) == 1, logged
    watch(queue.get()).failure(RuntimeError)


def test_d37_waiters_fail_in_the_order_they_came(session: Session) -> None:
    queue = session.adapter.ClosableDeferredQueue()
    order: list[int] = []
    for n in range(4):
        queue.get().addErrback(lambda _failure, n=n: order.append(n))
    queue.close(RuntimeError("over"))
    assert order == [0, 1, 2, 3]


def test_d38_close_without_a_reason_never_leaves_the_queue_half_closed(session: Session) -> None:
    queue = session.adapter.ClosableDeferredQueue()
    waiting = [watch(queue.get()) for _ in range(2)]
    try:
        queue.close(None)
    except TypeError:
        # Refused: then the queue is as open as before.
        assert queue.closed is None
        queue.put("x")
        assert waiting[0].result() == "x"
        assert waiting[1].pending
    except Exception as error:
        raise AssertionError(f"close(None) raised {error!r}") from error
    else:
        assert queue.closed
        for outcome in (*waiting, watch(queue.get())):
            outcome.failure(Exception)


@pytest.mark.parametrize(
    "bad",
    [{"queue": "q" * 256}, {"arguments": {"x": object()}}, {"arguments": {"k" * 300: 1}}],
    ids=["queue", "value", "key"],
)
def test_d43_a_failed_basic_consume_leaves_nothing_behind(
    session: Session, bad: dict[str, Any]
) -> None:
    channel = session.channel()
    call(channel.basic_consume, **{"queue": "q", "consumer_tag": "t", **bad}).failure(Exception)
    session.peer.expect_none()

    assert channel.consumer_tags == []
    queue = session.consumer(channel, "t")
    session.peer.deliver(channel, "t", b"1")
    assert bodies(queue.pending) == [b"1"]


def test_d44_a_deleted_queues_consumers_are_not_listed(session: Session) -> None:
    channel = session.channel()
    queues = [session.consumer(channel, tag) for tag in "ab"]
    other = session.consumer(channel, "c", "other")
    assert sorted(channel.consumer_tags) == ["a", "b", "c"]

    delete(session, channel, "q")

    assert channel.consumer_tags == ["c"]
    assert all(queue.closed for queue in queues)
    assert not other.closed
