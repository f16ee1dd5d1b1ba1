"""pika's channel state machine, as mended: synchronous methods and their answers."""

from __future__ import annotations

from typing import Any

import pytest
from pika import exceptions, spec

from pika_twisted.testing import Broker
from tests.support.outcome import watch
from tests.support.session import Session


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


def test_pika_s_channel_below_says_why_it_is_gone(session: Session) -> None:
    channel = session.channel()
    below = channel._channel
    with pytest.raises(TypeError, match="callable"):
        below.confirm_delivery("no function")
    session.peer.close_channel(channel, 404, "NOT_FOUND")
    session.peer.forget()
    for asking in (
        lambda: below.queue_declare("q"),
        lambda: below.confirm_delivery(print),
        lambda: below._rpc(spec.Basic.Qos()),
    ):
        with pytest.raises(exceptions.ChannelClosedByBroker, match="NOT_FOUND"):
            asking()
    session.peer.expect_none()


def test_what_waits_for_two_consumers_is_sent_one_after_the_other() -> None:
    """The second ConsumeOk let the next purge go, and the first answer was given to both."""
    broker = Broker()

    async def purge() -> list[int]:
        connection = await broker.connect()
        channel = await connection.channel()
        for name in ("a", "b", "c", "d"):
            await channel.queue_declare(name)
        for name in ("c", "c", "d"):
            broker.publish("", name)
        channel.basic_consume("a")
        channel.basic_consume("b")
        purging = [channel.queue_purge("c"), channel.queue_purge("d")]
        return [(await each).method.message_count for each in purging]

    assert broker.run(purge()) == [2, 1]
    broker.close()
