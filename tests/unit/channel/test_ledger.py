"""The ledger of delivery tags: acks that leave together, and the tags it refuses."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika import exceptions, spec

from pika_twisted.channel.ledger import Ledger
from pika_twisted.exceptions import AlreadySettled
from tests.support.acking import Broker, deliver, take
from tests.support.outcome import watch
from tests.support.session import Session


def test_acks_without_a_gap_leave_as_one() -> None:
    broker = Broker()
    ledger = Ledger(broker, batch=100)
    for tag in range(1, 11):
        deliver(ledger, broker, tag)
    for tag in (2, 1, 3, 5, 6):
        ledger.ack(tag)
    assert broker.written == []
    ledger.emit()
    assert broker.written == [("ack", 3, True), ("ack", 5, False), ("ack", 6, False)]
    for tag in (4, 8, 7):
        ledger.ack(tag)
    ledger.emit()
    assert broker.written[3:] == [("ack", 8, True)]
    assert broker.unacked == {9, 10}


def test_an_auto_ack_tag_makes_no_gap_and_is_never_named() -> None:
    broker = Broker()
    ledger = Ledger(broker, batch=100)
    for tag in range(1, 7):
        deliver(ledger, broker, tag, auto_ack=tag in (2, 4, 5, 6))
    ledger.ack(1)
    ledger.ack(3)
    ledger.emit()
    assert broker.written == [("ack", 3, True)]
    with pytest.raises(AlreadySettled):
        ledger.ack(5)


def test_a_full_batch_leaves_at_once() -> None:
    broker = Broker()
    ledger = Ledger(broker, batch=4)
    for tag in range(1, 11):
        deliver(ledger, broker, tag)
        ledger.ack(tag)
    assert broker.written == [("ack", 4, True), ("ack", 8, True)]


def test_multiple_refusals_do_not_refuse_what_was_acknowledged() -> None:
    broker = Broker()
    ledger = Ledger(broker, batch=100)
    for tag in range(1, 7):
        deliver(ledger, broker, tag)
    ledger.ack(2)
    ledger.nack(4, True)
    ledger.ack(6)
    ledger.nack(0, True)
    assert (broker.acked, broker.refused, broker.unacked) == ({2, 6}, {1, 3, 4, 5}, set())


operations = st.lists(
    st.tuples(
        st.sampled_from(
            ("deliver", "auto", "ack", "nack", "reject", "ack_all", "nack_all", "emit")
        ),
        st.integers(0, 12),
    ),
    max_size=80,
)


@pytest.mark.parametrize("batch", [1, 3, 1000])
@given(operations)
def test_the_broker_never_sees_a_tag_that_is_not_open(batch: int, steps: list[Any]) -> None:
    """Whatever is called, what was acknowledged is acked, what was refused is refused, no 406."""
    broker = Broker()
    ledger = Ledger(broker, batch=batch)
    last, acked, refused, open_tags = 0, set(), set(), set()
    for step, number in steps:
        if step in ("deliver", "auto"):
            last += 1
            deliver(ledger, broker, last, auto_ack=step == "auto")
            open_tags |= {last} if step == "deliver" else set()
        elif step == "emit":
            ledger.emit()
        else:
            multiple = step.endswith("_all")
            tag = number if multiple and number == 0 else max(1, last - number)
            if tag > last:
                continue
            call = getattr(ledger, step.removesuffix("_all"))
            if tag == 0 and batch == 1 and not open_tags:
                continue
            try:
                call(tag, True) if multiple else call(tag)
            except AlreadySettled:
                assert tag not in open_tags
                continue
            taken = {t for t in open_tags if t <= tag or tag == 0} if multiple else {tag}
            assert tag in open_tags or tag == 0
            open_tags -= taken
            (acked if step.startswith("ack") else refused).update(taken)
    ledger.emit()
    assert broker.acked == acked
    assert broker.refused == refused
    assert broker.unacked == open_tags


def test_what_it_keeps_does_not_grow() -> None:
    broker = Broker()
    ledger = Ledger(broker, first=1)
    for tag in range(1, 20_001, 2):
        deliver(ledger, broker, tag)
        deliver(ledger, broker, tag + 1, auto_ack=True)
        ledger.ack(tag)
    assert len(ledger._starts) + len(ledger._earlier) + len(ledger._apart) == 0


@pytest.mark.parametrize("batch", [1, 10])
def test_one_tag_that_stays_open_makes_it_keep_no_others(batch: int) -> None:
    broker = Broker()
    ledger = Ledger(broker, batch=batch)
    deliver(ledger, broker, 1)
    for tag in range(2, 20_000, 2):
        deliver(ledger, broker, tag)
        deliver(ledger, broker, tag + 1)
        ledger.ack(tag + 1)
        ledger.ack(tag)
        assert len(ledger._starts) + len(ledger._apart) <= 1 + batch
        with pytest.raises(AlreadySettled):
            ledger.ack(tag)
    ledger.emit()
    assert broker.unacked == {1}
    ledger.ack(1)
    ledger.emit()
    assert broker.unacked == set()
    assert ledger.acks_in == ledger.acks_out == 19_999
    assert not ledger._starts


def test_what_the_broker_has_taken_back_is_not_acknowledged_any_more() -> None:
    broker = Broker()
    ledger = Ledger(broker, batch=10)
    for tag in range(1, 6):
        deliver(ledger, broker, tag)
    for tag in (1, 2, 4):
        ledger.ack(tag)
    broker.unacked.clear()
    ledger.void()
    ledger.emit()
    assert broker.written == []
    deliver(ledger, broker, 6)
    ledger.ack(6)
    ledger.emit()
    assert broker.acked == {6}


# Through a channel


def test_a_message_settles_itself_once(session: Session) -> None:
    channel = session.channel()
    queue = session.consumer(channel)
    session.peer.deliver(channel, "t", *[b"x"] * 4)
    first, second, third, fourth = take(queue, 4)

    second.ack()
    first.nack()
    third.reject(requeue=False)

    assert session.peer.expect(spec.Basic.Ack).method.delivery_tag == 2
    nacked = session.peer.expect(spec.Basic.Nack).method
    assert (nacked.delivery_tag, nacked.multiple, nacked.requeue) == (1, False, True)
    rejected = session.peer.expect(spec.Basic.Reject).method
    assert (rejected.delivery_tag, rejected.requeue) == (3, False)
    for message in (first, second, third):
        for settle in (message.ack, message.nack, message.reject):
            with pytest.raises(AlreadySettled, match=str(message.method.delivery_tag)):
                settle()
    with pytest.raises(AlreadySettled):
        channel.basic_ack(2)
    session.peer.expect_none()
    channel.basic_ack(4)
    assert session.peer.expect(spec.Basic.Ack).method.delivery_tag == 4
    with pytest.raises(AlreadySettled):
        fourth.ack()
    assert (first.redelivered, len(first), first == tuple(first)) == (False, 4, True)


def test_a_message_that_needs_no_ack_says_so(session: Session) -> None:
    channel = session.channel()
    queue = session.consumer(channel, auto_ack=True)
    session.peer.deliver(channel, "t", b"x")
    (message,) = take(queue, 1)
    getting = watch(channel.basic_get("q", auto_ack=True))
    session.peer.get_ok(channel, b"y", tag=2)
    session.peer.forget()
    for each in (message, getting.result()):
        for settle in (each.ack, each.nack, each.reject):
            with pytest.raises(AlreadySettled, match="auto_ack"):
                settle()
    assert repr(getting.result()).startswith("ReceivedMessage(")
    session.peer.expect_none()


def test_settling_on_a_dead_channel(session: Session) -> None:
    channel = session.channel()
    queue = session.consumer(channel)
    session.peer.deliver(channel, "t", b"x", b"y")
    first, second = take(queue, 2)
    session.lose()
    with pytest.raises(exceptions.ChannelWrongStateError) as caught:
        first.ack()
    assert "Connection to the other side was lost" in str(caught.value)
    channel._ignore_late = True
    first.ack()
    second.nack()


def test_batched_acks_leave_at_the_end_of_the_turn(session: Session) -> None:
    channel = session.channel()
    channel.ack_batching = True
    assert channel.ack_batching == 100
    queue = session.consumer(channel)

    def work(message: Any) -> None:
        message.ack()
        queue.get().addCallbacks(work, lambda _: None)

    queue.get().addCallbacks(work, lambda _: None)
    session.peer.deliver(channel, "t", *[b"x"] * 50)
    acked = session.peer.expect(spec.Basic.Ack).method
    assert (acked.delivery_tag, acked.multiple) == (50, True)
    session.peer.expect_none()
    session.peer.deliver(channel, "t", *[b"x"] * 150, first=51)
    assert [each.delivery_tag for each in session.peer.methods()] == [150, 200]


def test_batched_acks_leave_before_a_method_and_before_close(session: Session) -> None:
    channel = session.channel()
    channel.ack_batching = 50
    queue = session.consumer(channel)
    session.peer.deliver(channel, "t", *[b"x"] * 4)
    first, second, third, fourth = take(queue, 4)
    first.ack()
    watch(channel.queue_declare("other"))
    second.ack()
    fourth.ack()
    channel.basic_nack(third.method.delivery_tag)
    channel.close()
    session.peer.read()
    assert session.peer.names()[:2] == ["Basic.Ack", "Queue.Declare"]
    acks = [(m.delivery_tag, m.multiple) for m in session.peer.methods() if "Ack" in m.NAME[6:9]]
    assert acks == [(1, True), (4, True)]  # 3 was refused before
    session.peer.expect(spec.Queue.Declare)
    session.peer.send(channel, spec.Queue.DeclareOk("other", 0, 0))
    session.peer.expect(spec.Channel.Close)


def test_batching_covers_all_consumers_and_gets_of_the_channel(session: Session) -> None:
    channel = session.channel()
    channel.ack_batching = True
    manual = session.consumer(channel, "m")
    session.consumer(channel, "a", auto_ack=True)
    with session.peer.one_read():
        session.peer.deliver(channel, "m", b"1")
        session.peer.deliver(channel, "a", b"2", first=2)
        session.peer.deliver(channel, "m", b"3", first=3)
    getting = watch(channel.basic_get("q", auto_ack=True))
    session.peer.get_ok(channel, b"4", tag=4)
    getting.result()
    session.peer.forget()
    first, third = take(manual, 2)
    third.ack()
    first.ack()
    session.turn()
    acked = session.peer.expect(spec.Basic.Ack).method
    assert (acked.delivery_tag, acked.multiple) == (3, True)
    session.peer.expect_none()


@pytest.mark.parametrize("auto_ack", [False, True])
def test_what_comes_for_an_abandoned_consumer_leaves_no_gap(
    session: Session, auto_ack: bool
) -> None:
    channel = session.channel()
    channel.ack_batching = True
    queue = session.consumer(channel)
    consuming = channel.basic_consume("other", auto_ack=auto_ack, consumer_tag="u")
    watch(consuming)
    consuming.cancel()
    session.peer.send(channel, spec.Basic.ConsumeOk("u"))
    session.peer.deliver(channel, "u", b"1", b"2")
    session.peer.expect(spec.Basic.Cancel)
    session.peer.send(channel, spec.Basic.CancelOk("u"))
    session.peer.deliver(channel, "t", b"3", b"4", first=3)
    session.peer.forget()
    for message in take(queue, 2):
        message.ack()
    session.turn()
    acked = session.peer.expect(spec.Basic.Ack).method
    assert (acked.delivery_tag, acked.multiple) == (4, True)
    assert not channel._ledger._starts


def test_all_messages_are_also_those_that_came_into_a_closed_queue(session: Session) -> None:
    channel = session.channel()
    channel.ack_batching = True
    queue = session.consumer(channel)
    queue.close(RuntimeError("enough"))
    session.peer.deliver(channel, "t", b"1", b"2")
    assert len(queue.drain()) == 2
    channel.basic_ack(0, multiple=True)
    acked = session.peer.expect(spec.Basic.Ack).method
    assert (acked.delivery_tag, acked.multiple) == (2, True)


@pytest.mark.parametrize("settle", ["basic_ack", "basic_nack"])
def test_all_messages_are_also_those_that_waited_when_the_first_was_settled(
    session: Session, settle: str
) -> None:
    channel = session.channel()
    queue = session.consumer(channel)
    session.peer.deliver(channel, "t", b"1", b"2", b"3")
    take(queue, 1)[0].ack()
    messages = take(queue, 2)
    getattr(channel, settle)(0, True)
    session.peer.forget()
    for message in messages:
        with pytest.raises(AlreadySettled):
            message.ack()
    session.peer.expect_none()


def test_what_the_user_puts_behind_a_message_is_none(session: Session) -> None:
    channel = session.channel()
    channel.ack_batching = True
    queue, other = session.consumer(channel), session.consumer(channel, "u")
    queue.get().addCallback(lambda _: other.put(None))  # before the other queue is looked at
    with session.peer.one_read():
        session.peer.deliver(channel, "t", b"1")
        session.peer.deliver(channel, "u", b"2", first=2)
    assert session.protocol.is_open
    assert None in other.drain()
    channel.basic_ack(0, multiple=True)
    assert session.peer.expect(spec.Basic.Ack).method.delivery_tag == 2


@pytest.mark.parametrize("first", ["all", "one"])
def test_from_the_start_everything_is_looked_at(session: Session, first: str) -> None:
    channel = session.channel()
    channel.ack_batching = 1
    queue = session.consumer(channel)
    session.peer.deliver(channel, "t", b"1", b"2", b"3")
    messages = take(queue, 3)
    if first == "all":
        channel.basic_ack(0, multiple=True)
    else:
        channel.basic_ack(3)
    with pytest.raises(AlreadySettled):
        messages[2].ack()
    session.peer.expect(spec.Basic.Ack)
    session.peer.expect_none()


def test_a_tag_that_an_auto_ack_consumer_takes_over(session: Session) -> None:
    """What came under it before still needs its ack."""
    channel = session.channel()
    queue = session.consumer(channel)
    session.peer.deliver(channel, "t", b"1", b"2")
    before = take(queue, 2)
    before[0].ack()
    cancelling = watch(channel.basic_cancel("t"))
    session.peer.send(channel, spec.Basic.CancelOk("t"))
    cancelling.result()
    queue = session.consumer(channel, auto_ack=True)
    session.peer.deliver(channel, "t", b"3", first=3)
    session.peer.forget()
    before[1].ack()
    assert session.peer.expect(spec.Basic.Ack).method.delivery_tag == 2
    with pytest.raises(AlreadySettled, match="auto_ack"):
        take(queue, 1)[0].ack()
    session.peer.expect_none()


def test_batching_has_to_be_asked_for_in_time(session: Session) -> None:
    channel = session.channel()
    for wrong in (0, -1, False, "5"):
        with pytest.raises(ValueError, match="ack_batching"):
            channel.ack_batching = wrong
    session.consumer(channel)
    with pytest.raises(ValueError, match="before"):
        channel.ack_batching = True
    assert channel.ack_batching == 1


@pytest.mark.parametrize("tag", [True, 1.0, False, 0.0, "", "1", b"", []])
@pytest.mark.parametrize("multiple", [False, True])
def test_a_tag_that_is_no_number_is_refused_at_the_call(
    session: Session, tag: Any, multiple: bool
) -> None:
    channel = session.channel()
    channel.ack_batching = True
    queue = session.consumer(channel)
    session.peer.deliver(channel, "t", b"x")
    for settle in (channel.basic_ack, channel.basic_nack):
        with pytest.raises(TypeError, match="delivery_tag must be an int"):
            settle(tag, multiple)
    session.turn()
    session.peer.expect_none(spec.Basic.Ack)
    take(queue, 1)[0].ack()
    session.turn()
    assert session.peer.expect(spec.Basic.Ack).method.delivery_tag == 1


def test_what_it_is_stays_what_it_was(session: Session) -> None:
    channel = session.channel()
    queue = session.consumer(channel)
    session.peer.deliver(channel, "t", b"x")
    (message,) = take(queue, 1)
    assert type(message).__slots__ == ()
    assert not hasattr(message, "__dict__")
    copy = pickle.loads(pickle.dumps(message._replace(channel=None)))
    assert copy == message._replace(channel=None)
    with pytest.raises(TypeError, match="returned"):
        message._replace(method=spec.Basic.Return(312, "NO_ROUTE", "", "")).ack()


def test_recovered_messages_come_under_other_tags(session: Session) -> None:
    channel = session.channel()
    channel.ack_batching = True
    queue = session.consumer(channel)
    session.peer.deliver(channel, "t", b"1", b"2", b"3")
    first, second, third = take(queue, 3)
    second.ack()
    recovering = watch(channel.basic_recover(requeue=True))
    assert session.peer.expect(spec.Basic.Ack).method.delivery_tag == 2
    session.peer.expect(spec.Basic.Recover)
    session.peer.send(channel, spec.Basic.RecoverOk())
    recovering.result()
    for message in (first, third):
        with pytest.raises(AlreadySettled):
            message.ack()
    session.peer.deliver(channel, "t", b"1", b"3", first=4)
    for message in take(queue, 2):
        message.ack()
    session.turn()
    acked = session.peer.expect(spec.Basic.Ack).method
    assert (acked.delivery_tag, acked.multiple) == (5, True)


@pytest.mark.parametrize(("batch", "written"), [(1, [2, 1, 3]), (10, [])])
def test_the_short_cut_closes_a_gap(batch: int, written: list[int]) -> None:
    broker = Broker()
    ledger = Ledger(broker, batch=batch)
    for tag in (1, 2, 3):
        deliver(ledger, broker, tag)
    ledger.ack(2)
    assert ledger.ack_next(2) == 0
    assert ledger.ack_next(1) == 1
    assert ledger.is_settled(2)
    assert ledger.ack_next(3) == 1
    assert broker.written == [("ack", tag, False) for tag in written]
    held = 3 - len(written)
    assert repr(ledger) == f"<Ledger settled below 4 and 0 more, {held} held>"
    ledger.emit()
    assert broker.unacked == set()


@pytest.mark.parametrize("way", ["ack", "nack", "reject"])
def test_nothing_is_written_to_a_closed_channel(way: str) -> None:
    broker = Broker()
    ledger = Ledger(broker)
    deliver(ledger, broker, 1)
    broker.open = False
    assert getattr(ledger, way)(1) is True  # flush now, and find out why
    assert ledger.ack_next(1) == 0
    assert (broker.written, ledger.is_settled(1)) == ([], False)
