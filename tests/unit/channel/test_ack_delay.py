"""Acks held back beyond the turn: for the delay and no longer, and for nothing else that leaves."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika import exceptions, spec
from twisted.internet import task

from pika_twisted.channel.ledger import Ledger
from pika_twisted.transport.outbound import Outbound
from tests.support.acking import Broker, deliver, take
from tests.support.outcome import watch
from tests.support.session import Session
from tests.support.transport import FakeTransport

DELAY = 0.5  # of binary fractions the clock's sums are exact


def consuming(
    session: Session, tag: str = "t", batch: int = 100, delay: float = DELAY
) -> tuple[Any, Any]:
    """A channel with delayed acks, and the queue of its consumer."""
    channel = session.channel()
    channel.ack_batching = batch
    channel.ack_delay = delay
    assert channel.ack_delay == delay
    return channel, session.consumer(channel, tag)


def received(session: Session, channel: Any, queue: Any, count: int) -> list[Any]:
    session.peer.deliver(channel, "t", *[b"x"] * count)
    return take(queue, count)


def acks(session: Session) -> list[tuple[int, bool]]:
    """The acks that were written since the last look, and nothing else was."""
    session.peer.read()
    methods = session.peer.methods()
    assert {type(method) for method in methods} <= {spec.Basic.Ack}
    session.peer.forget()
    return [(method.delivery_tag, method.multiple) for method in methods]


def test_acks_are_held_for_the_delay_and_no_longer(session: Session) -> None:
    channel, queue = consuming(session)
    messages = received(session, channel, queue, 5)
    messages[0].ack()
    session.turn(0.25)
    messages[1].ack()
    session.clock.advance(0.125)
    assert acks(session) == []
    session.clock.advance(0.125)
    assert acks(session) == [(2, True)]
    assert not session.clock.getDelayedCalls()
    session.clock.advance(0.125)
    messages[2].ack()
    session.clock.advance(DELAY - 0.125)
    messages[3].ack()
    assert acks(session) == []  # a delay of its own
    session.clock.advance(0.125)
    assert acks(session) == [(4, True)]


def test_the_end_of_a_read_leaves_them_and_the_next_read_s_join(session: Session) -> None:
    channel, queue = consuming(session)

    def work(message: Any) -> None:
        message.ack()
        queue.get().addCallbacks(work, lambda _: None)

    queue.get().addCallbacks(work, lambda _: None)
    session.peer.deliver(channel, "t", *[b"x"] * 3)
    session.clock.advance(0.25)
    session.peer.deliver(channel, "t", *[b"x"] * 4, first=4)
    assert acks(session) == []
    session.clock.advance(0.25)
    assert acks(session) == [(7, True)]


def test_a_full_batch_leaves_at_once_and_the_next_gets_no_more_than_its_delay(
    session: Session,
) -> None:
    channel, queue = consuming(session, batch=3)
    messages = received(session, channel, queue, 5)
    for message in messages[:2]:
        message.ack()
    assert acks(session) == []
    messages[2].ack()
    assert session.transport.writes[-1].endswith(b"\x03\x01\xce")  # in the call
    assert acks(session) == [(3, True)]
    session.clock.advance(0.25)
    messages[3].ack()
    session.clock.advance(0.25)  # the timer that the first ack has started
    assert acks(session) == [(4, True)]
    messages[4].ack()
    session.clock.advance(0.25)
    assert acks(session) == []
    session.clock.advance(0.25)
    assert acks(session) == [(5, True)]


def test_a_full_batch_in_a_read_takes_the_rest_along(session: Session) -> None:
    channel, queue = consuming(session, batch=3)

    def work(message: Any) -> None:
        message.ack()
        queue.get().addCallbacks(work, lambda _: None)

    queue.get().addCallbacks(work, lambda _: None)
    before = len(session.transport.writes)
    session.peer.deliver(channel, "t", *[b"x"] * 8)
    assert len(session.transport.writes) == before + 1
    assert acks(session) == [(3, True), (6, True), (8, True)]


def test_they_leave_before_any_other_method_of_the_connection(session: Session) -> None:
    channel, queue = consuming(session)
    other = session.channel()
    messages = received(session, channel, queue, 5)
    messages[0].ack()
    watch(channel.queue_declare("a"))
    messages[1].ack()
    watch(other.queue_declare("b"))
    messages[3].ack()
    messages[4].nack()
    session.peer.read()
    assert session.peer.names() == [
        "Basic.Ack",
        "Queue.Declare",
        "Basic.Ack",
        "Queue.Declare",
        "Basic.Nack",
        "Basic.Ack",
    ]
    settled = [method for method in session.peer.methods() if isinstance(method, spec.Basic.Ack)]
    assert [(ack.delivery_tag, ack.multiple) for ack in settled] == [
        (1, True),
        (2, True),
        (4, False),
    ]
    session.peer.forget()


def test_they_leave_in_one_write_with_a_publish(session: Session) -> None:
    """Behind it, as all acks that are held: a crash may double what is done, not lose it."""
    channel, queue = consuming(session)
    first, second = received(session, channel, queue, 2)
    for message in (first, second):
        before = len(session.transport.writes)
        message.ack()
        channel.basic_publish("", "q", b"result")
        assert len(session.transport.writes) == before + 1
    session.peer.read()
    assert session.peer.names() == ["Basic.Publish", "Basic.Ack"] * 2
    session.peer.forget()


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("way", ["loseConnection", "loseWriteConnection"])
def test_they_leave_before_the_transport_is_closed(session: Session, way: str, tls: bool) -> None:
    session.tls = tls
    channel, queue = consuming(session)
    for message in received(session, channel, queue, 3):
        message.ack()
    getattr(session.transport, way)()
    assert session.transport.late_writes == []
    assert acks(session) == [(3, True)]
    session.turn()
    assert not session.clock.getDelayedCalls()


@pytest.mark.parametrize("what", ["channel", "connection"])
def test_they_leave_before_it_closes(session: Session, what: str) -> None:
    channel, queue = consuming(session)
    for message in received(session, channel, queue, 3):
        message.ack()
    (channel if what == "channel" else session.protocol).close()
    acked = session.peer.expect(spec.Basic.Ack).method
    assert (acked.delivery_tag, acked.multiple) == (3, True)
    session.peer.expect(spec.Channel.Close)


def test_a_lost_connection_leaves_no_timer(session: Session) -> None:
    channel, queue = consuming(session)
    slower = session.channel()
    slower.ack_batching = True
    slower.ack_delay = 1
    slow = session.consumer(slower, "t")
    received(session, channel, queue, 1)[0].ack()
    received(session, slower, slow, 1)[0].ack()
    assert len(session.clock.getDelayedCalls()) == 2
    outbound = channel.connection.outbound
    session.lose()
    assert not session.clock.getDelayedCalls()
    assert (outbound.buffer.ledgers, outbound.buffer.delayed, outbound._delays) == ([], [], {})


def test_nothing_is_said_on_a_channel_that_the_broker_closed(session: Session) -> None:
    channel, queue = consuming(session)
    first, second = received(session, channel, queue, 2)
    first.ack()
    session.peer.close_channel(channel, 406, "PRECONDITION_FAILED")
    session.peer.read()
    assert session.peer.names() == ["Basic.Ack", "Channel.CloseOk"]  # the broker ignores the ack
    session.peer.forget()
    with pytest.raises(exceptions.ChannelWrongStateError):
        second.ack()
    assert session.channel(channel.channel_number).is_open
    session.clock.advance(DELAY)
    assert acks(session) == []


def test_each_channel_has_its_own_delay(session: Session) -> None:
    slower, slow = consuming(session, delay=1)
    quicker, quick = consuming(session, delay=0.25)
    slow_ones = received(session, slower, slow, 2)
    quick_one, quick_two = received(session, quicker, quick, 2)
    session.clock.advance(0)
    slow_ones[0].ack()
    session.clock.advance(0.5)
    quick_one.ack()
    session.clock.advance(0.125)
    assert acks(session) == []
    session.clock.advance(0.125)
    assert acks(session) == [(1, True)] * 2  # those of the slower go with them
    quick_two.ack()
    slow_ones[1].ack()
    session.clock.advance(0.25)  # the timer of the slower runs out, too
    assert acks(session) == [(2, True)] * 2


def test_one_timer_for_all_channels_of_a_delay(session: Session) -> None:
    made = [consuming(session) for _ in range(5)]
    for channel, queue in made:
        for message in received(session, channel, queue, 3):
            message.ack()
    assert len(session.clock.getDelayedCalls()) == 1


def test_a_channel_without_a_delay_beside_one_with(session: Session) -> None:
    channel, queue = consuming(session)
    prompt, prompt_queue = consuming(session, delay=0)
    received(session, channel, queue, 1)[0].ack()
    (message,) = received(session, prompt, prompt_queue, 1)
    assert acks(session) == []
    message.ack()
    assert acks(session) == [(1, True)] * 2  # at the end of the turn, and the other with it


def test_a_new_delay_lets_go_what_is_held(session: Session) -> None:
    channel, queue = consuming(session, delay=1)
    messages = received(session, channel, queue, 4)
    messages[0].ack()
    channel.ack_delay = 1
    assert acks(session) == []
    channel.ack_delay = 0.25
    assert acks(session) == [(1, True)]
    messages[1].ack()
    session.clock.advance(0.25)
    assert acks(session) == [(2, True)]
    messages[2].ack()
    channel.ack_delay = 0
    assert acks(session) == [(3, True)]
    messages[3].ack()
    assert acks(session) == [(4, True)]  # with the turn, as ever


def test_a_transport_that_can_t_flush_before_it_closes(session: Session) -> None:
    """What would be lost in an orderly end waits no longer than the turn."""
    channel, queue = consuming(session)
    (message,) = received(session, channel, queue, 1)
    channel.connection.outbound.buffer.can_hold = False  # as Outbound.attach() finds it
    message.ack()
    assert acks(session) == [(1, True)]


@pytest.mark.parametrize("wrong", [True, False, "0.1", None, Decimal("0.1"), b""])
def test_a_delay_that_is_no_number(session: Session, wrong: Any) -> None:
    channel, queue = consuming(session)
    received(session, channel, queue, 1)[0].ack()
    with pytest.raises(TypeError, match=r"ack_delay .*not "):
        channel.ack_delay = wrong
    assert channel.ack_delay == DELAY
    assert acks(session) == []


@pytest.mark.parametrize("wrong", [-1, -1e-9, math.nan, math.inf, -math.inf, 1.001, 2, 1 << 70])
def test_a_delay_out_of_range(session: Session, wrong: Any) -> None:
    channel, queue = consuming(session)
    received(session, channel, queue, 1)[0].ack()
    with pytest.raises(ValueError, match="ack_delay is between 0 and 1 s"):
        channel.ack_delay = wrong
    assert channel.ack_delay == DELAY
    assert acks(session) == []


def test_without_batching_there_is_no_delay(session: Session) -> None:
    channel = session.channel()
    assert channel.ack_delay == 0
    channel.ack_delay = 0
    with pytest.raises(ValueError, match="set ack_batching first: ack_delay"):
        channel.ack_delay = 0.1
    queue = session.consumer(channel)
    first, second = received(session, channel, queue, 2)
    first.ack()  # the ledger that it makes doesn't hold anything
    with pytest.raises(ValueError, match="set ack_batching first"):
        channel.ack_delay = 0.1
    assert channel.ack_delay == 0
    second.ack()
    assert acks(session) == [(1, False), (2, False)]


def test_it_can_be_set_while_messages_come(session: Session) -> None:
    channel, queue = consuming(session, delay=0)
    (message,) = received(session, channel, queue, 1)
    channel.ack_delay = 1  # a whole number is one
    message.ack()
    assert acks(session) == []
    session.clock.advance(1)
    assert acks(session) == [(1, True)]


def test_settling_after_the_connection_is_lost(session: Session) -> None:
    channel, queue = consuming(session)
    first, second = received(session, channel, queue, 2)
    first.ack()
    session.lose()
    channel.ack_delay = 0.25
    with pytest.raises(exceptions.ChannelWrongStateError):
        second.ack()
    assert not session.clock.getDelayedCalls()


operations = st.lists(
    st.tuples(
        st.sampled_from(("deliver", "auto", "ack", "nack", "ack_all", "nack_all", "flush", "wait")),
        st.integers(0, 12),
    ),
    max_size=80,
)


@pytest.mark.parametrize("batch", [3, 1000])
@given(operations)
def test_no_ack_is_late_and_none_covers_an_open_tag(batch: int, steps: list[Any]) -> None:
    clock = task.Clock()
    outbound = Outbound(clock.callLater)
    outbound.attach(FakeTransport(clock), lambda _: None)
    broker = Broker()
    ledger = Ledger(broker, batch=batch, hold=outbound.hold_acks)
    ledger.delay = DELAY
    last = 0
    acked: dict[int, float] = {}  # tag -> when
    refused: set[int] = set()
    open_tags: set[int] = set()
    for step, number in steps:
        if step in ("deliver", "auto"):
            last += 1
            deliver(ledger, broker, last, auto_ack=step == "auto")
            open_tags |= {last} if step == "deliver" else set()
        elif step == "flush":
            outbound.flush()
            assert broker.acked == set(acked)
        elif step == "wait":
            clock.advance(number / 16)
        else:
            multiple = step.endswith("_all")
            tag = last - number
            if tag not in open_tags:
                continue
            taken = {each for each in open_tags if each <= tag} if multiple else {tag}
            getattr(ledger, step.removesuffix("_all"))(tag, multiple)
            open_tags -= taken
            if step.startswith("ack"):
                acked.update(dict.fromkeys(taken, clock.seconds()))
            else:
                refused |= taken
        late = {tag for tag, when in acked.items() if when <= clock.seconds() - DELAY}
        assert late <= broker.acked <= set(acked)
        assert len(acked) - len(broker.acked) < batch
        assert broker.unacked >= open_tags
        assert len(clock.getDelayedCalls()) <= 1
    clock.advance(DELAY)
    assert (broker.acked, broker.refused, broker.unacked) == (set(acked), refused, open_tags)
    outbound.detach()
    assert not clock.getDelayedCalls()
