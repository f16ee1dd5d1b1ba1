"""A channel as a whole: opening, closing, subclasses."""

from __future__ import annotations

from typing import Any

import pytest
from pika import exceptions, spec

from pika_twisted import TwistedChannel
from tests.support.outcome import TwistedLog, call, watch
from tests.support.session import Session


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


def test_a_channel_that_is_gone_is_not_opened_again(session: Session) -> None:
    """The broker closes the connection for a number that another channel has by then."""
    channel = session.channel()
    session.peer.close_channel(channel, 404, "NOT_FOUND")
    session.peer.forget()
    with pytest.raises(exceptions.ChannelWrongStateError, match="NOT_FOUND"):
        channel.open()
    session.peer.expect_none()
    assert channel.is_closed


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


def test_opened_by_hand(session: Session) -> None:
    """As in pika; the broker would refuse it on an open channel."""
    channel = session.channel()
    channel.open()
    assert session.peer.expect(spec.Channel.Open).channel_number == channel.channel_number
