"""What comes for a channel that has been closed: RabbitMQ still delivers behind Channel.Close."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from pika import exceptions, spec

from pika_twisted.pika_state.channel_numbers import ChannelNumbers
from tests.support.outcome import call, watch
from tests.support.session import Session, bodies


def test_deliveries_behind_channel_close_are_dropped(
    session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pika_twisted")
    calm, busy = session.channel(), session.channel()
    kept = session.consumer(calm)
    queue = session.consumer(busy)
    with session.peer.one_read():
        session.peer.deliver(busy, "t", b"before")
        session.peer.close_channel(busy, 404, "NOT_FOUND")
        session.peer.deliver(busy, "t", *[b"behind"] * 3, first=2)
        session.peer.deliver(calm, "t", b"calm")
    session.peer.expect(spec.Channel.CloseOk)
    session.peer.deliver(busy, "t", b"in the next read", first=5)
    session.peer.expect_none(spec.Connection.Close, spec.Basic.Nack, spec.Basic.Cancel)
    assert [message.body for message in kept.pending] == [b"calm"]
    assert call(queue.get).failure(exceptions.ChannelClosedByBroker).reply_code == 404
    assert session.protocol.stats().late_frames == 4 * 3
    told = [record for record in caplog.records if "still come" in record.getMessage()]
    assert [record.levelno for record in told] == [logging.INFO]
    assert f"Channel {busy.channel_number} " in told[0].getMessage()


def test_a_loss_by_auto_ack_is_a_warning(
    session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    channel = session.channel()
    session.consumer(channel, auto_ack=True)
    session.peer.close_channel(channel, 404, "NOT_FOUND")
    session.peer.deliver(channel, "t", b"lost", b"lost", first=2)
    told = [record for record in caplog.records if "are lost" in record.getMessage()]
    assert [record.levelno for record in told] == [logging.WARNING]


def test_a_message_above_the_limit_behind_channel_close(session: Session) -> None:
    session.adapter = session.adapter.with_options(max_message_size=10)
    channel = session.channel()
    session.consumer(channel)
    session.peer.close_channel(channel, 404, "NOT_FOUND")
    session.peer.deliver(channel, "t", b"more than ten bytes", first=2)
    session.peer.deliver(channel, "t", b"few", first=3)
    session.peer.expect(spec.Channel.CloseOk)
    session.peer.expect_none()
    assert session.protocol.is_open


@pytest.mark.parametrize(
    "late",
    [spec.Basic.Ack(1), spec.Basic.Cancel("t"), spec.Queue.DeclareOk("q", 0, 0)],
    ids=lambda method: method.NAME,
)
def test_any_method_behind_channel_close(session: Session, late: spec.Basic.Ack) -> None:
    channel = session.channel()
    session.confirms(channel)
    session.peer.close_channel(channel, 404, "NOT_FOUND")
    session.peer.send(channel, late)
    session.peer.expect(spec.Channel.CloseOk)
    session.peer.expect_none()


def test_what_comes_behind_close_ok(session: Session) -> None:
    channel = session.channel()
    session.consumer(channel)
    channel.close()
    session.peer.send(channel, spec.Channel.CloseOk())
    session.peer.forget()
    session.peer.deliver(channel, "t", b"late")
    session.peer.expect_none()
    assert session.protocol.is_open


def test_a_number_that_was_never_opened_is_refused(session: Session) -> None:
    channel = session.channel()
    session.peer.close_channel(channel, 404, "NOT_FOUND")
    session.peer.deliver(7, "t", b"who?")
    close = session.peer.expect(spec.Connection.Close).method
    assert (close.reply_code, close.reply_text) == (
        504,
        "frame for channel 7, which was not opened",
    )


def test_a_number_is_not_taken_again_at_once(session: Session) -> None:
    """Its last deliveries may come behind the new channel's answers, with the same tags."""
    first = session.channel()
    session.peer.close_channel(first, 404, "NOT_FOUND")
    second = session.channel()
    assert second.channel_number != first.channel_number
    queue = session.consumer(second)
    session.peer.deliver(first, "t", b"late")
    assert not queue.pending


def test_a_number_taken_again_gets_nothing_before_it_is_open(session: Session) -> None:
    first = session.channel(5)
    session.consumer(first)
    session.peer.close_channel(first, 404, "NOT_FOUND")
    session.peer.forget()
    opening = watch(session.protocol.channel(5))
    session.peer.expect(spec.Channel.Open)
    session.peer.deliver(5, "t", b"late", b"late", first=2)
    session.peer.send(5, spec.Basic.Cancel("t"))
    session.peer.send(5, spec.Channel.OpenOk())
    second = opening.result()
    queue = session.consumer(second)
    session.peer.deliver(5, "t", b"its own")
    assert [message.body for message in queue.pending] == [b"its own"]
    session.peer.expect_none()


def test_all_numbers_are_used_before_one_comes_again() -> None:
    numbers = ChannelNumbers()
    used: set[int] = set()

    def take() -> int:
        number = numbers.next(used, limit=4)
        numbers.take(number)
        used.add(number)
        return number

    def close(number: int) -> None:
        used.remove(number)
        numbers.close(number)

    assert [take(), take(), take()] == [1, 2, 3]
    close(2)
    close(1)
    assert take() == 4
    assert take() == 2  # closed before 1
    assert take() == 1
    with pytest.raises(
        exceptions.NoFreeChannels, match="4 channels are open, and channel_max is 4"
    ):
        numbers.next(used, limit=4)


def test_numbers_that_were_asked_for_are_left_out() -> None:
    numbers = ChannelNumbers()
    numbers.take(1)
    numbers.take(2)
    assert numbers.next({1, 2}, limit=10) == 3
    numbers.close(2)
    assert numbers.next({1}, limit=10) == 3
    assert numbers.drop(2) and not numbers.drop(3)


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


@pytest.mark.parametrize("number", ["1", True, -1, 70_000, 1])
def test_channel_numbers_that_can_t_be(session: Session, number: Any) -> None:
    session.channel(1)
    kind = exceptions.InvalidChannelNumber if type(number) is int else TypeError
    call(session.protocol.channel, number).failure(kind)
    session.peer.expect_none(spec.Channel.Open)
    assert session.protocol.is_open
