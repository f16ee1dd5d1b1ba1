"""pika's channel state machine, as mended: synchronous methods and their answers."""

from __future__ import annotations

from typing import Any

import pytest
from pika import exceptions, spec

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
