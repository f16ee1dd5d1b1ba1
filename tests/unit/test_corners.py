"""Corners of the rows of tests/defects that pika's adapter gets right or can't be asked about."""

from __future__ import annotations

import asyncio
import gc
import re
import weakref
from typing import Any

import pytest
from pika import exceptions, spec
from twisted.internet import defer, error

from pika_twisted import AlreadySettled, ClosableDeferredQueue, TwistedChannel
from tests.support.cost import assert_grows_at_most, cpu
from tests.support.outcome import TwistedLog, call, run, watch
from tests.support.peer import encoded_content, encoded_method
from tests.support.session import Session
from tests.support.transport import FakeTransport


def bodies(messages: Any) -> list[bytes]:
    return [message.body for message in messages]


# Nothing that was accepted is lost when the transport is closed in the same turn


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("inside", [False, True])
def test_what_was_accepted_leaves_before_the_end(session: Session, tls: bool, inside: bool) -> None:
    """ClientService calls `loseConnection()` on the transport, past everything of ours."""
    session.tls = tls
    protocol = session.open()
    channel = session.channel()
    queue = session.consumer(channel)
    session.peer.forget()
    published: list[Any] = []

    def work(message: Any) -> None:
        channel.basic_ack(message.method.delivery_tag)
        published.append(call(channel.basic_publish, "", "q", b"answer"))
        protocol.transport.loseConnection()

    if inside:
        queue.get().addCallback(work)
        session.peer.deliver(channel, "t", b"question")
    else:
        session.peer.deliver(channel, "t", b"question")
        queue.get().addCallback(work)
    written = b"".join(session.transport.writes)

    published[0].result()
    assert encoded_method(1, spec.Basic.Ack(1, False)) in written
    assert b"answer" in written
    assert session.transport.late_writes == []


def test_acks_and_calls_keep_their_order(session: Session) -> None:
    channel = session.channel()
    queue = session.consumer(channel)
    calls: list[Any] = []

    def work(message: Any) -> None:
        channel.basic_ack(message.method.delivery_tag)
        calls.append(watch(channel.queue_purge(f"q{message.method.delivery_tag}")))
        calls.append(session.publish(channel, message.body))

    for _ in range(2):
        queue.get().addCallback(work)
    session.peer.deliver(channel, "t", b"one", b"two")
    # The second purge waits for the answer of the first.
    assert session.peer.names() == [
        "Basic.Ack",
        "Queue.Purge",
        "Basic.Publish",
        "Basic.Ack",
        "Basic.Publish",
    ]


def test_a_burst_of_acks_leaves_in_one_write(session: Session) -> None:
    channel = session.channel()
    queue = session.consumer(channel)
    for _ in range(50):
        queue.get().addCallback(lambda message: channel.basic_ack(message.method.delivery_tag))
    before = len(session.transport.writes)
    session.peer.deliver(channel, "t", *[b"x"] * 50)
    assert len(session.transport.writes) - before == 1
    assert len([name for name in session.peer.names() if name == "Basic.Ack"]) == 50


# Users' callbacks that change everything while a read is being taken apart


def test_closing_the_connection_in_the_middle_of_a_read(session: Session) -> None:
    protocol = session.open()
    channel = session.channel()
    queue = session.consumer(channel, auto_ack=True)
    closing: list[Any] = []
    queue.get().addCallback(lambda message: closing.append(watch(protocol.close())))
    with session.peer.one_read():
        session.peer.deliver(channel, "t", b"1", b"2")
        session.peer.heartbeat()
        session.peer.deliver(channel, "t", b"3", first=3)

    session.peer.expect(spec.Channel.Close)
    session.peer.send(channel, spec.Channel.CloseOk())
    session.peer.expect(spec.Connection.Close)
    session.peer.send(0, spec.Connection.CloseOk())
    session.turn(1)

    assert isinstance(closing[0].result(), exceptions.ConnectionClosedByClient)
    # The broker has forgotten what it delivered with auto_ack: everything that came is there.
    assert bodies(queue.drain()) == [b"2", b"3"]


def test_aborting_the_transport_in_the_middle_of_a_read(session: Session) -> None:
    protocol = session.open()
    channel = session.channel()
    queue = session.consumer(channel)
    queue.get().addCallback(lambda message: protocol.transport.abortConnection())
    session.peer.deliver(channel, "t", b"1", b"2")
    session.turn()
    assert isinstance(session.closed.result(), error.ConnectionLost)
    watch(queue.get()).failure(exceptions.ChannelClosed)


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


def test_octets_that_arrive_inside_a_callback_wait_for_their_turn(session: Session) -> None:
    channel = session.channel()
    queue = session.consumer(channel)
    taken: list[bytes] = []

    def work(message: Any) -> None:
        taken.append(message.body)
        if message.body == b"1":
            session.peer.deliver(channel, "t", b"4", first=4)
            assert taken == [b"1"]

    for _ in range(4):
        queue.get().addCallback(work)
    with session.peer.one_read():
        session.peer.deliver(channel, "t", b"1", b"2")
        session.peer.heartbeat()
        session.peer.deliver(channel, "t", b"3", first=3)
    assert taken == [b"1", b"2", b"3", b"4"]


@pytest.mark.parametrize(
    ("ask", "answer"),
    [
        (lambda channel: channel.queue_declare("q"), spec.Queue.DeclareOk("q", 0, 0)),
        (lambda channel: channel.basic_get("q"), spec.Basic.GetEmpty()),
        (lambda channel: channel.basic_consume("q", consumer_tag="t"), spec.Basic.ConsumeOk("t")),
        (lambda channel: channel.confirm_delivery(), spec.Confirm.SelectOk()),
    ],
    ids=["declare", "get", "consume", "select"],
)
def test_an_answer_that_comes_within_the_write(session: Session, ask: Any, answer: Any) -> None:
    channel = session.channel()
    write = session.transport.write

    def write_and_answer(octets: bytes) -> None:
        session.transport.write = write  # type: ignore[method-assign]
        write(octets)
        session.peer.send(channel, answer)

    session.transport.write = write_and_answer  # type: ignore[method-assign]
    asking = watch(ask(channel))
    asking.result()
    following = watch(channel.queue_purge("q"))
    session.peer.send(channel, spec.Queue.PurgeOk(0))
    following.result()


@pytest.mark.parametrize(
    "ask",
    [
        lambda channel, _: channel.queue_declare("q"),
        lambda channel, _: channel.basic_get("q"),
        lambda channel, _: channel.basic_consume("q"),
        lambda channel, _: channel.confirm_delivery(),
        lambda _, protocol: protocol.channel(),
        lambda _, protocol: protocol.update_secret("token", "expiry"),
    ],
    ids=["declare", "get", "consume", "select", "channel", "secret"],
)
def test_a_connection_lost_within_the_write(session: Session, ask: Any) -> None:
    channel = session.channel()
    session.transport.write = lambda _octets: session.lose()  # type: ignore[method-assign]
    watch(ask(channel, session.protocol)).failure(exceptions.AMQPError)


def test_a_channel_opened_while_another_one_closes(session: Session) -> None:
    """The number is free again when the close handlers run."""
    protocol = session.open()
    channel = session.channel()
    opening: list[Any] = []
    channel.on_closed.addCallback(lambda reason: opening.append(call(protocol.channel)))
    session.peer.close_channel(channel, 404, "NOT_FOUND")
    opened = session.peer.expect(spec.Channel.Open)
    session.peer.send(opened.channel_number, spec.Channel.OpenOk())
    assert opening[0].result().is_open


def test_the_number_of_a_closed_channel_can_be_asked_for(session: Session) -> None:
    for _ in range(3):
        channel = session.channel(5)
        queue = session.consumer(channel)
        session.peer.deliver(channel, "t", b"x")
        assert bodies(queue.pending) == [b"x"]
        channel.close()
        session.peer.expect(spec.Channel.Close)
        session.peer.deliver(channel, "t", b"late", first=2)
        session.peer.send(channel, spec.Channel.CloseOk())
        assert channel.is_closed


def test_publishing_again_from_a_failed_publish(session: Session) -> None:
    channel = session.channel()
    session.confirms(channel)
    again: list[Any] = []

    def retry(failure: Any) -> None:
        again.append(call(channel.basic_publish, "", "q", b"again"))

    for n in range(3):
        channel.basic_publish("", "q", b"%d" % n).addErrback(retry)
    session.lose()
    assert len(again) == 3
    for outcome in again:
        outcome.failure(exceptions.ChannelClosed)


def test_a_handler_that_raises_hides_nothing_from_the_others(
    session: Session, twisted_log: TwistedLog
) -> None:
    channel = session.channel()
    queue = session.consumer(channel)
    told: list[Any] = []

    def broken(*args: Any) -> None:
        raise ZeroDivisionError

    channel.add_on_close_callback(broken)
    channel.add_on_close_callback(lambda *args: told.append("close"))
    channel.on_closed.addCallback(broken)
    queue.get().addErrback(broken)
    waiting = [watch(queue.get()), watch(channel.queue_declare("q"))]
    session.peer.close_channel(channel, 404, "NOT_FOUND")

    for outcome in waiting:
        outcome.failure(exceptions.ChannelClosedByBroker)
    assert told == ["close"]
    assert session.protocol.is_open
    del channel, queue, waiting
    assert len(twisted_log.flush(ZeroDivisionError)) >= 1


# Observing deliveries, which ends direct delivery while it lasts


@pytest.mark.parametrize("cut", ["method", "header", "half body"])
def test_an_observer_that_comes_in_the_middle_of_a_message(session: Session, cut: str) -> None:
    channel = session.channel()
    queue = session.consumer(channel)
    getting = [watch(queue.get()) for _ in range(4)]

    def message(tag: int) -> bytes:
        return encoded_content(1, spec.Basic.Deliver("t", tag, False, "", "q"), b"body %d" % tag)

    method = len(encoded_method(1, spec.Basic.Deliver("t", 1, False, "", "q")))
    position = {"method": method, "header": method + 22, "half body": len(message(1)) - 3}[cut]
    session.peer.send_bytes(message(1)[:position])
    observed: defer.Deferred[Any] = defer.Deferred()
    observing = watch(observed)
    channel.callback_deferred(observed, [spec.Basic.Deliver])
    session.peer.send_bytes(message(1)[position:])
    session.peer.send_bytes(message(2) + message(3)[:position])
    session.peer.send_bytes(message(3)[position:] + message(4))

    assert [outcome.result().body for outcome in getting] == [b"body %d" % n for n in (1, 2, 3, 4)]
    assert observing.result().method.delivery_tag in (1, 2)


def test_a_permanent_observer_sees_each_delivery(session: Session) -> None:
    channel = session.channel()
    queue = session.consumer(channel)
    seen: list[int] = []
    channel.add_callback(
        lambda method_frame: seen.append(method_frame.method.delivery_tag),
        [spec.Basic.Deliver],
        one_shot=False,
    )
    session.peer.deliver(channel, "t", b"1", b"2", b"3")
    late = session.consumer(channel, "u")
    session.peer.deliver(channel, "u", b"4", first=4)
    assert seen == [1, 2, 3, 4]
    assert bodies(queue.pending) == [b"1", b"2", b"3"]
    assert bodies(late.pending) == [b"4"]


# Cancelling


def test_a_cancelled_publish_keeps_its_number(session: Session) -> None:
    channel = session.channel()
    session.confirms(channel)
    deferreds = [channel.basic_publish("", "q", b"%d" % n) for n in range(4)]
    outcomes = [watch(deferred) for deferred in deferreds]
    deferreds[1].cancel()
    session.peer.ack(channel, 2)
    session.peer.ack(channel, 3, multiple=True)
    assert [outcome.fired for outcome in outcomes] == [1, 1, 1, 0]
    outcomes[1].failure(defer.CancelledError)
    outcomes[2].result()
    session.peer.ack(channel, 4)
    outcomes[3].result()


@pytest.mark.parametrize("auto_ack", [False, True])
def test_a_cancelled_basic_get_when_the_channel_ends(session: Session, auto_ack: bool) -> None:
    channel = session.channel()
    cancelled = channel.basic_get("q", auto_ack=auto_ack)
    outcome = watch(cancelled)
    cancelled.cancel()
    following = call(channel.basic_get, "q", auto_ack=auto_ack)
    session.lose()
    outcome.failure(defer.CancelledError)
    following.failure(exceptions.ChannelClosed)


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


def test_cancelling_closed_takes_the_deferred_away_from_nobody(session: Session) -> None:
    protocol = session.open()
    deferred = protocol.closed
    deferred.cancel()
    other = watch(protocol.when_closed())
    session.lose()
    other.result()


# Cancels that cross


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


# Returns


def test_large_bodies_that_differ_in_the_middle_are_told_apart(session: Session) -> None:
    channel = session.channel()
    session.confirms(channel)
    large = [bytes(3000) + b"%d" % n + bytes(3000) for n in range(3)]
    outcomes = [session.publish(channel, body, mandatory=True) for body in large]
    session.peer.give_back(channel, session.peer.published_body(large[1]))
    session.peer.ack(channel, 3, multiple=True)
    assert [outcome.error is not None for outcome in outcomes] == [False, True, False]


def test_a_return_callback_that_publishes_again(session: Session) -> None:
    channel = session.channel()
    session.confirms(channel)
    again: list[Any] = []
    channel.add_on_return_callback(
        lambda message: again.append(session.publish(channel, b"again", mandatory=True))
    )
    first = session.publish(channel, b"first", mandatory=True)
    with session.peer.one_read():
        session.peer.give_back(channel, session.peer.published_body(b"first"))
        session.peer.ack(channel, 1)
    first.failure(exceptions.UnroutableError)
    session.peer.ack(channel, 2)
    again[0].result()


def test_text_bodies_are_utf8_and_still_matched(session: Session) -> None:
    channel = session.channel()
    session.confirms(channel)
    outcome = session.publish(channel, "größe", mandatory=True)  # type: ignore[arg-type]
    session.peer.give_back(channel, session.peer.published_body("größe".encode()))
    session.peer.ack(channel, 1)
    outcome.failure(exceptions.UnroutableError)


def test_a_mutable_body_is_taken_as_it_was(session: Session) -> None:
    channel = session.channel()
    session.confirms(channel)
    body = bytearray(b"before")
    outcome = session.publish(channel, body, mandatory=True)  # type: ignore[arg-type]
    body[:] = b"after!"
    session.peer.give_back(channel, session.peer.published_body(b"before"))
    session.peer.ack(channel, 1)
    outcome.failure(exceptions.UnroutableError)


# Time


def test_a_broker_that_does_not_answer_close(session: Session) -> None:
    protocol = session.open()
    channel = session.channel()
    waiting = watch(channel.queue_declare("q"))
    closing = call(protocol.close)
    session.transport.stuck = True
    session.turn(9)
    assert closing.pending
    session.turn(2)
    closing.result()
    waiting.failure(exceptions.ChannelClosed)
    assert not session.transport.connected


def test_a_peer_that_says_nothing(session: Session) -> None:
    ready = watch(session.connect().ready)
    session.turn(14)
    assert ready.pending
    session.turn(2)
    ready.failure(exceptions.AMQPConnectionError)
    assert session.transport.aborted


@pytest.mark.parametrize("ending", ["reset", "broker", "client"])
def test_endings_within_a_read_with_messages(session: Session, ending: str) -> None:
    """What came before the end is delivered, what comes after Connection.Close is not."""
    protocol = session.open()
    channel = session.channel()
    queue = session.consumer(channel, auto_ack=True)
    taken: list[bytes] = []

    async def consume() -> None:
        async for message in queue:
            taken.append(message.body)

    running = run(consume())
    if ending == "client":
        watch(protocol.close())
    with session.peer.one_read():
        session.peer.deliver(channel, "t", b"1", b"2")
        if ending == "broker":
            session.peer.send(0, spec.Connection.Close(320, "bye", 0, 0))
            session.peer.deliver(channel, "t", b"never", first=3)
        elif ending == "client":
            session.peer.send(channel, spec.Channel.CloseOk())
            session.peer.send(0, spec.Connection.CloseOk())
    session.turn(1)
    if ending == "reset":
        session.lose()
    assert taken == [b"1", b"2"]
    running.failure(exceptions.ChannelClosed)


# What mutations of the package have shown to be untested elsewhere


def test_tag_zero_with_multiple_confirms_everything(session: Session) -> None:
    channel = session.channel()
    session.confirms(channel)
    outcomes = [session.publish(channel, b"%d" % n) for n in range(3)]
    session.peer.ack(channel, 0, multiple=True)
    for outcome in outcomes:
        outcome.result()


def test_confirm_delivery_once_it_is_on_sends_nothing(session: Session) -> None:
    channel = session.channel()
    session.confirms(channel)
    call(channel.confirm_delivery).result()
    session.peer.expect_none()


def test_a_fired_callback_deferred_is_forgotten(session: Session) -> None:
    channel = session.channel()
    pending = channel._channel.callbacks.pending(1, spec.Basic.Deliver)
    for _ in range(3):
        deferred: defer.Deferred[Any] = defer.Deferred()
        observing = watch(deferred)
        channel.callback_deferred(deferred, [spec.Basic.Deliver, spec.Basic.GetEmpty])
        getting = watch(channel.basic_get("q"))
        session.peer.send(channel, spec.Basic.GetEmpty())
        observing.result()
        getting.result()
    assert channel._channel.callbacks.pending(1, spec.Basic.Deliver) == pending
    queue = session.consumer(channel)
    session.peer.deliver(channel, "t", b"x")
    assert bodies(queue.pending) == [b"x"]
    session.lose()


def test_waiting_consumers_get_what_came_before_bad_octets(session: Session) -> None:
    channel = session.channel()
    queue = session.consumer(channel)
    getting = [watch(queue.get()) for _ in range(3)]
    with session.peer.one_read():
        session.peer.deliver(channel, "t", b"1", b"2")
        session.peer.send_bytes(b"\x09\x00\x01\x00\x00\x00\x00\xce")
    assert [outcome.result().body for outcome in getting[:2]] == [b"1", b"2"]
    assert session.peer.expect(spec.Connection.Close).method.reply_code == 501
    session.turn(1)
    assert getting[2].failure(exceptions.ChannelClosed).args[0] == 501


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


# Layers of transports


@pytest.mark.parametrize("layers", ["transport", "socket", "wrapped socket"])
@pytest.mark.parametrize("size", [None, 0, 12345])
def test_the_read_size_is_set_where_octets_are_read(
    session: Session, layers: str, size: int | None
) -> None:
    """Set on a TLS transport it would stay there: the socket below reads as before."""
    session.layers = layers
    options = {} if size is None else {"buffer_size": size}

    def factory(parameters: Any, reactor: Any) -> Any:
        return session.adapter.TwistedProtocolConnection(parameters, reactor, **options)

    session.open(factory=factory)
    expected = {None: 256 * 1024, 0: 2**16}.get(size, size)
    assert session.transport.bufferSize == expected


# What a user has kept of a channel before the channel changed its ways


def test_a_publish_method_kept_from_before_confirm_delivery(session: Session) -> None:
    channel = session.channel()
    publish = channel.basic_publish
    assert call(publish, "", "q", b"unconfirmed").result() is None
    session.confirms(channel)
    confirmed = call(publish, "", "q", b"confirmed")
    assert confirmed.pending
    session.peer.send(1, spec.Basic.Ack(1, False))
    assert confirmed.result() == spec.Basic.Ack(1, False)


def test_an_ack_method_kept_from_before_the_first_look_at_acks(session: Session) -> None:
    """`message.ack()` begins to mind what is settled; nothing goes past it then."""
    channel = session.channel()
    queue = session.consumer(channel)
    ack = channel.basic_ack
    got: list[Any] = []
    for _ in range(2):
        queue.get().addCallback(got.append)
    session.peer.deliver(channel, "t", b"one", b"two")
    got[0].ack()
    with pytest.raises(AlreadySettled):
        ack(1)
    ack(2)
    assert [name for name in session.peer.names() if name == "Basic.Ack"] == ["Basic.Ack"] * 2


def test_overridden_methods_are_the_ones_that_are_called(session: Session) -> None:
    class Mine(TwistedChannel):
        def basic_ack(self, delivery_tag: int | None = 0, multiple: bool = False) -> None:
            seen.append(("ack", delivery_tag))
            super().basic_ack(delivery_tag, multiple)

        def basic_publish(self, *args: Any, **kwargs: Any) -> Any:
            seen.append(("publish", args))
            return super().basic_publish(*args, **kwargs)

    seen: list[Any] = []
    channel = Mine(session.channel()._channel)
    channel.basic_ack(7)
    assert call(channel.basic_publish, "", "q", b"x").result() is None
    assert seen == [("ack", 7), ("publish", ("", "q", b"x"))]
    assert session.peer.names()[-2:] == ["Basic.Ack", "Basic.Publish"]


def test_watched_confirms_settle_all_the_same(session: Session) -> None:
    """Whoever watches Basic.Ack sees each, and takes it away from nobody."""
    channel = session.channel()
    session.confirms(channel)
    first = session.publish(channel, b"one")
    seen: list[Any] = []
    channel.add_callback(seen.append, [spec.Basic.Ack], one_shot=False)
    second = session.publish(channel, b"two")
    session.peer.send(1, spec.Basic.Ack(1, False))
    session.peer.send(1, spec.Basic.Ack(2, False))
    assert [frame.method.delivery_tag for frame in seen] == [1, 2]
    assert (first.result().delivery_tag, second.result().delivery_tag) == (1, 2)


def test_a_confirm_whose_callback_ends_the_channel(
    session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    """The confirms behind it in the same read speak of publishes that have failed by then."""
    channel = session.channel()
    session.confirms(channel)
    first = channel.basic_publish("", "q", b"one")
    first.addCallback(lambda _: session.lose())
    second = session.publish(channel, b"two")
    with session.peer.one_read():
        session.peer.ack(channel, 1)
        session.peer.ack(channel, 2)
    second.failure(exceptions.AMQPConnectionError)
    assert "not outstanding" not in caplog.text


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


@pytest.mark.parametrize("ending", ["transport", "broker"])
def test_a_channel_that_ends_within_the_write_of_its_open(session: Session, ending: str) -> None:
    protocol = session.open()
    write = session.transport.write

    def write_and_end(octets: bytes) -> None:
        session.transport.write = write  # type: ignore[method-assign]
        write(octets)
        if ending == "transport":
            session.lose()
        else:
            session.peer.close_channel(1, 504, "no more")

    session.transport.write = write_and_end  # type: ignore[method-assign]
    kind = exceptions.StreamLostError
    if ending == "broker":
        kind = exceptions.ChannelClosedByBroker
    watch(protocol.channel()).failure(kind, exceptions.ChannelClosed)


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


def test_a_close_that_cannot_be_sent_stops_no_consumer(session: Session) -> None:
    channel = session.channel()
    queue = session.consumer(channel)
    with pytest.raises(TypeError, match="reply_code='none'"):
        channel.close("none")
    assert channel.is_open
    session.peer.deliver(channel, "t", b"1")
    assert [message.body for message in queue.pending] == [b"1"]


def test_closing_a_channel_when_the_transport_ends_while_acks_are_written(session: Session) -> None:
    channel = session.channel()
    channel.ack_batching = True
    queue = session.consumer(channel)
    session.peer.deliver(channel, "t", b"1")
    channel.basic_ack(1)
    session.transport.write = lambda _octets: session.lose()  # type: ignore[method-assign]
    with pytest.raises(exceptions.ChannelWrongStateError):
        channel.close()
    assert channel.is_closed
    assert queue.closed is not None


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


@pytest.mark.parametrize("dies_at", [0, 1, 2, 3])
def test_a_transport_that_ends_within_the_writes_of_close(session: Session, dies_at: int) -> None:
    protocol = session.open()
    channels = [session.channel() for _ in range(3)]
    ends = [watch(channel.on_closed) for channel in channels]
    write = session.transport.write
    left = dies_at

    def count(octets: bytes) -> None:
        nonlocal left
        write(octets)
        if left == 0:
            session.lose()
        left -= 1

    session.transport.write = count  # type: ignore[method-assign]
    closing = watch(protocol.close(200, "done"))
    if dies_at == 3:
        assert closing.pending
        session.lose()
    kind = exceptions.ConnectionClosedByClient if dies_at == 3 else exceptions.StreamLostError
    assert isinstance(closing.result(), kind)
    assert protocol.is_closed
    for ending in ends:
        assert isinstance(ending.result(), exceptions.ChannelClosed)


@pytest.mark.parametrize("ending", ["transport", "broker"])
def test_the_reason_of_a_close_that_ends_within_its_write(session: Session, ending: str) -> None:
    protocol = session.open()
    write = session.transport.write

    def write_and_end(octets: bytes) -> None:
        write(octets)
        if ending == "transport":
            session.lose()
        else:
            session.peer.send(0, spec.Connection.CloseOk())

    session.transport.write = write_and_end  # type: ignore[method-assign]
    closing = watch(protocol.close(200, "done"))
    session.turn()
    why = closing.result()
    assert isinstance(why, exceptions.ConnectionClosedByClient)
    assert why.args == (200, "done")
    assert isinstance(why, error.ConnectionDone)


def test_a_transport_that_can_neither_be_aborted_nor_say_where_it_leads(session: Session) -> None:
    """That of a ProcessEndpoint, say: a tunnel."""
    protocol = session.open()

    class Pipe(FakeTransport):
        abortConnection = property()  # type: ignore[assignment]  # hidden

        def getPeer(self) -> Any:
            raise NotImplementedError

    session.transport.__class__ = Pipe
    assert "Pipe" in repr(protocol)
    closing = watch(protocol.close())
    session.peer.send(0, spec.Connection.CloseOk())
    session.turn(1)
    closing.result()


@pytest.mark.parametrize("watch_for", ["frames", "returns"])
def test_a_callback_for_a_closed_channel_is_not_the_next_ones(
    session: Session, watch_for: str
) -> None:
    """The number of a channel that is gone can be given to another one."""
    gone = session.channel()
    session.peer.close_channel(gone, 404, "NOT_FOUND")
    seen: list[Any] = []
    if watch_for == "frames":
        gone.add_callback(seen.append, [spec.Basic.GetEmpty])
    else:
        gone.add_on_return_callback(seen.append)
    session.peer.forget()
    channel = session.channel(gone.channel_number)
    session.peer.send(channel, spec.Basic.GetEmpty())
    session.publish(channel, b"body", mandatory=True)
    session.peer.give_back(channel, session.peer.published_body(b"body"))
    assert seen == []


def test_a_channel_that_is_gone_is_not_opened_again(session: Session) -> None:
    """The broker closes the connection for a number that another channel has by then."""
    channel = session.channel()
    session.peer.close_channel(channel, 404, "NOT_FOUND")
    session.peer.forget()
    with pytest.raises(exceptions.ChannelWrongStateError, match="NOT_FOUND"):
        channel.open()
    session.peer.expect_none()
    assert channel.is_closed


def test_what_is_longer_than_the_brokers_frame_max_is_refused_at_the_call(session: Session) -> None:
    """RabbitMQ closes the connection, 501 FRAME_ERROR, with all that is on it."""
    limit = spec.FRAME_MIN_SIZE  # 4,096 of AMQP; 8,192 since pika 1.5
    session.open(frame_max=limit)
    channel = session.channel()
    session.confirms(channel)
    session.peer.forget()
    properties = spec.BasicProperties(headers={"trace": "x" * limit})
    text = f"frame of ([45]|[89])[0-9]{{3}} octets, frame_max is {limit}"
    for refused in (
        call(channel.basic_publish, "", "q", b"body", properties),
        call(channel.queue_declare, "q", arguments={"x": "x" * limit}),
        call(session.protocol.update_secret, "token" * (limit // 5), "expiry"),
    ):
        assert re.search(text, str(refused.failure(ValueError)))
    session.peer.expect_none()
    session.publish(channel, b"body")
    assert session.peer.published_body(b"body").tag == 1


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


def test_close_waits_for_the_end_also_when_closed_was_cancelled(session: Session) -> None:
    protocol = session.open()
    protocol.closed.cancel()
    session.closed.failure(defer.CancelledError)
    closing = watch(protocol.close())
    assert closing.pending
    session.peer.send(0, spec.Connection.CloseOk())
    session.turn()
    assert isinstance(closing.result(), exceptions.ConnectionClosedByClient)


def test_closing_when_the_transport_ends_while_acks_are_written(session: Session) -> None:
    channel = session.channel()
    channel.ack_batching = True
    session.consumer(channel)
    session.peer.deliver(channel, "t", b"1")
    channel.basic_ack(1)
    session.transport.write = lambda _octets: session.lose()  # type: ignore[method-assign]
    assert isinstance(watch(session.protocol.close()).result(), exceptions.StreamLostError)


def test_closing_what_the_broker_has_closed(session: Session) -> None:
    """Its reason stays, and the transport has no more time than before."""
    session.channel()
    session.peer.send(0, spec.Connection.Close(320, "CONNECTION_FORCED", 0, 0))
    session.peer.forget()
    session.transport.stuck = True
    closing = watch(session.protocol.close())
    session.peer.expect_none()
    session.turn(1)
    why = closing.result()
    assert isinstance(why, exceptions.ConnectionClosedByBroker)
    assert why.reply_code == 320


def test_a_callback_that_meets_a_cancelled_future(
    session: Session, twisted_log: TwistedLog
) -> None:
    """asyncio's CancelledError is no Exception."""
    channel = session.channel()
    loop = asyncio.new_event_loop()
    future = loop.create_future()
    future.cancel()
    channel.add_callback(lambda _frame: future.result(), [spec.Basic.GetEmpty])
    session.peer.send(channel, spec.Basic.GetEmpty())
    loop.close()
    assert session.protocol.is_open
    assert len(twisted_log.flush(asyncio.CancelledError)) == 1


@pytest.mark.parametrize("by", ["broker", "refusal"])
def test_the_reason_of_an_end_within_the_write_of_the_last_method(
    session: Session, by: str
) -> None:
    session.open()
    session.transport.write = lambda _octets: session.lose()  # type: ignore[method-assign]
    if by == "broker":
        session.peer.send(0, spec.Connection.Close(320, "CONNECTION_FORCED", 0, 0))
        assert session.closed.result().reply_code == 320
    else:
        session.peer.send_bytes(b"\x09")
        assert session.closed.result().reply_code == 501


def test_no_heartbeat_after_an_end_within_the_write_of_one(session: Session) -> None:
    session.open(heartbeat=20)
    session.transport.write = lambda _octets: session.lose()  # type: ignore[method-assign]
    session.turn(20)
    assert isinstance(session.closed.result(), exceptions.StreamLostError)
    assert not session.clock.getDelayedCalls()


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
