"""Consumers of a channel: beginning, cancelling from either side, and their ends."""

from __future__ import annotations

import gc
import logging
import weakref
from typing import Any

import pytest
from pika import exceptions, spec
from twisted.internet import defer

from pika_twisted import ClosableDeferredQueue
from pika_twisted.channel import consumer as consumer_module
from tests.support.cost import assert_grows_at_most, cpu
from tests.support.outcome import run, watch
from tests.support.peer import encoded_method
from tests.support.session import Session, bodies


def test_cancelling_the_consumer_in_the_middle_of_a_read(session: Session) -> None:
    channel = session.channel()
    queue = session.consumer(channel)
    calls: list[Any] = []
    queue.get().addCallback(lambda message: calls.append(watch(channel.basic_cancel("t"))))
    with session.peer.one_read():
        session.peer.deliver(channel, "t", b"1")
        session.peer.heartbeat()
        session.peer.deliver(channel, "t", b"2", b"3", first=2)
    session.peer.expect(spec.Basic.Cancel)
    session.peer.send(channel, spec.Basic.CancelOk("t"))
    calls[0].result()
    assert bodies(queue.drain()) == [b"2", b"3"]


def test_a_cancelled_get_takes_no_message(session: Session) -> None:
    channel = session.channel()
    queue = session.consumer(channel)
    deferreds = [queue.get() for _ in range(3)]
    outcomes = [watch(deferred) for deferred in deferreds]
    deferreds[0].cancel()
    outcomes[0].failure(defer.CancelledError)
    session.peer.deliver(channel, "t", b"1", b"2", b"3")
    assert [outcome.result().body for outcome in outcomes[1:]] == [b"1", b"2"]
    assert bodies(queue.pending) == [b"3"]


def test_a_basic_consume_cancelled_while_it_is_queued(session: Session) -> None:
    channel = session.channel()
    watch(channel.queue_declare("q"))
    consuming = channel.basic_consume("q", consumer_tag="t")
    watch(consuming)
    consuming.cancel()
    session.peer.send(channel, spec.Queue.DeclareOk("q", 0, 0))
    if "Basic.Consume" in session.peer.names():
        session.peer.expect(spec.Basic.Consume)
        session.peer.send(channel, spec.Basic.ConsumeOk("t"))
        session.peer.expect(spec.Basic.Cancel)
        session.peer.send(channel, spec.Basic.CancelOk("t"))
    assert channel.consumer_tags == []


def test_a_basic_consume_cancelled_and_then_refused(session: Session) -> None:
    channel = session.channel()
    consuming = channel.basic_consume("q", consumer_tag="t")
    outcome = watch(consuming)
    consuming.cancel()
    session.peer.close_channel(channel, 404, "NOT_FOUND - no queue 'q'")
    outcome.failure(defer.CancelledError)
    assert watch(channel.on_closed).result().reply_code == 404


def test_the_brokers_cancel_crosses_ours(session: Session) -> None:
    channel = session.channel()
    queue = session.consumer(channel)
    waiting = watch(queue.get())
    cancelling = watch(channel.basic_cancel("t"))
    session.peer.send(channel, spec.Basic.Cancel("t", True))
    session.peer.expect(spec.Basic.Cancel)
    session.peer.send(channel, spec.Basic.CancelOk("t"))
    cancelling.result()
    waiting.failure(exceptions.ConsumerCancelled)
    assert channel.consumer_tags == []


@pytest.mark.parametrize("first", ["the broker's cancel", "another of ours", "nothing"])
def test_a_consumer_begun_again_while_a_cancel_of_its_tag_is_under_way(
    session: Session, first: str
) -> None:
    channel = session.channel()
    if first != "nothing":
        session.consumer(channel)
    cancels = [watch(channel.basic_cancel("t"))]
    if first == "the broker's cancel":
        session.peer.send(channel, spec.Basic.Cancel("t", True))
    elif first == "another of ours":
        cancels.append(watch(channel.basic_cancel("t")))
        session.peer.send(channel, spec.Basic.CancelOk("t"))
    again = watch(channel.basic_consume("q", consumer_tag="t"))
    session.peer.send(channel, spec.Basic.CancelOk("t"))
    assert [cancel.result().method.NAME for cancel in cancels] == ["Basic.CancelOk"] * len(cancels)
    session.peer.expect(spec.Basic.Consume, consumer_tag="t")
    session.peer.send(channel, spec.Basic.ConsumeOk("t"))
    queue, _ = again.result()
    assert channel.consumer_tags == ["t"]
    session.peer.forget()
    session.peer.deliver(channel, "t", b"x")
    assert bodies(queue.pending) == [b"x"]
    session.peer.expect_none()


def test_a_consumer_begun_again_when_its_queue_is_deleted(session: Session) -> None:
    """By what waited for a message: the tag is free then."""
    channel = session.channel()
    queue = session.consumer(channel)
    again = watch(queue.get().addErrback(lambda _: channel.basic_consume("r", consumer_tag="t")))
    channel.queue_delete("q")
    session.peer.send(channel, spec.Queue.DeleteOk(0))
    session.peer.expect(spec.Basic.Cancel, consumer_tag="t")  # the broker's may be on its way
    session.peer.send(channel, spec.Basic.CancelOk("t"))
    session.peer.expect(spec.Basic.Consume, queue="r", consumer_tag="t")
    session.peer.send(channel, spec.Basic.ConsumeOk("t"))
    messages, _ = again.result()
    session.peer.deliver(channel, "t", b"x")
    assert bodies(messages.pending) == [b"x"]


def test_deleting_a_queue_whose_consumer_the_broker_cancels_first(session: Session) -> None:
    channel = session.channel()
    queue = session.consumer(channel)
    deleting = watch(channel.queue_delete("q"))
    session.peer.send(channel, spec.Basic.Cancel("t", True))
    session.peer.send(channel, spec.Queue.DeleteOk(0))
    deleting.result()
    watch(queue.get()).failure(exceptions.ConsumerCancelled)
    assert session.consumer(channel, "t", "q").pending == []


def test_the_end_of_many_consumers_costs_each_the_same(session: Session) -> None:
    session.open()

    def end(count: int) -> float:
        channel = session.channel()
        for number in range(count):
            session.consumer(channel, f"t{number}", f"q{number}")
        session.peer.forget()
        number = channel.channel_number
        cancels = [encoded_method(number, spec.Basic.Cancel(f"t{n}", True)) for n in range(count)]
        spent = cpu(lambda: session.peer.send_bytes(b"".join(cancels)))
        assert channel.consumer_tags == [] and not channel._queue_name_to_consumer_tags
        channel.close()
        session.peer.send(channel, spec.Channel.CloseOk())
        return spent

    assert_grows_at_most(end, 200)


def test_a_queue_its_user_closed_and_then_cancels(session: Session) -> None:
    channel = session.channel()
    queue = session.consumer(channel)
    queue.close(LookupError("enough"))
    cancelling = watch(channel.basic_cancel("t"))
    session.peer.deliver(channel, "t", b"1")
    while "Basic.Cancel" in session.peer.names():
        session.peer.expect(spec.Basic.Cancel)
        session.peer.send(channel, spec.Basic.CancelOk("t"))
    cancelling.result()
    assert bodies(queue.drain()) == [b"1"]
    watch(queue.get()).failure(LookupError)


@pytest.mark.parametrize("by", ["client", "broker", "channel"])
def test_a_waiting_iteration_ends_after_our_own_cancel_only(session: Session, by: str) -> None:
    channel = session.channel()
    queue = session.consumer(channel)
    taken: list[bytes] = []

    async def consume() -> None:
        async for message in queue:
            taken.append(message.body)

    running = run(consume())
    session.peer.deliver(channel, "t", b"1")
    if by == "client":
        watch(channel.basic_cancel("t"))
        session.peer.deliver(channel, "t", b"2", first=2)
        session.peer.send(channel, spec.Basic.CancelOk("t"))
        running.result()
        assert taken == [b"1", b"2"]
    elif by == "broker":
        session.peer.send(channel, spec.Basic.Cancel("t", True))
        running.failure(exceptions.ConsumerCancelled)
    else:
        session.peer.close_channel(channel, 404, "NOT_FOUND")
        running.failure(exceptions.ChannelClosedByBroker)


@pytest.mark.parametrize("auto_ack", [False, True], ids=["acks", "auto_ack"])
def test_what_comes_for_a_channel_that_closes(session: Session, auto_ack: bool) -> None:
    """Dropped, as the specification says; but kept where the broker would not send it again."""
    channel = session.channel()
    queue = session.consumer(channel, auto_ack=auto_ack)
    session.peer.deliver(channel, "t", b"1", b"2")
    channel.close()
    session.peer.deliver(channel, "t", b"3", b"4", first=3)
    kept = [b"1", b"2", b"3", b"4"] if auto_ack else [b"1", b"2"]
    assert [message.body for message in queue.pending] == kept
    session.peer.send(channel, spec.Channel.CloseOk())
    assert [message.body for message in queue.drain()] == kept


def test_what_comes_for_a_consumer_that_begins_while_its_channel_closes(session: Session) -> None:
    channel = session.channel()
    consuming = watch(channel.basic_consume("q", consumer_tag="t"))
    channel.close()
    session.peer.send(channel, spec.Basic.ConsumeOk("t"))
    session.peer.deliver(channel, "t", b"1", b"2")
    assert consuming.result()[0].pending == []


@pytest.mark.parametrize("end", ["cancel", "close", "lost"])
def test_an_ended_consumer_is_gone_without_the_collector(session: Session, end: str) -> None:
    """Its queue may hold as many messages as memory takes; they go with the last reference."""
    channel = session.channel()
    queue = session.consumer(channel)
    session.peer.deliver(channel, "t", b"nobody takes it")
    assert len(queue.pending) == 1
    reference = weakref.ref(queue)
    gc.disable()
    try:
        if end == "cancel":
            channel.basic_cancel("t")
            session.peer.send(channel, spec.Basic.CancelOk("t"))
        elif end == "close":
            channel.close()
            session.peer.send(channel, spec.Channel.CloseOk())
        else:
            session.lose()
        session.peer.forget()
        del queue
        assert reference() is None
    finally:
        gc.enable()


def test_methods_put_into_the_class_of_queues_are_called(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    for name in ["get", "wake"]:
        stock = getattr(ClosableDeferredQueue, name)

        def watched(queue: Any, name: str = name, stock: Any = stock) -> Any:
            calls.append(name)
            return stock(queue)

        monkeypatch.setattr(ClosableDeferredQueue, name, watched)
    channel = session.channel()
    queue = session.consumer(channel)
    message = watch(queue.get(), "get")
    session.peer.deliver(channel, "t", b"body")
    assert message.result().body == b"body"
    assert calls == ["get", "wake"]


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
