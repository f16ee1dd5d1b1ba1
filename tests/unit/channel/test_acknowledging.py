"""Acknowledging on a channel."""

from __future__ import annotations

from typing import Any

import pytest

from pika_twisted import AlreadySettled
from tests.support.outcome import watch
from tests.support.session import Session


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


def test_lost_while_acks_are_held_back(session: Session) -> None:
    channel = session.channel()
    channel.ack_batching = 10
    channel.ack_batching = 20  # nothing was asked for yet
    assert channel.ack_batching == 20
    queue = session.consumer(channel)
    session.peer.deliver(channel, "t", b"1")
    watch(queue.get()).result().ack()
    assert session.clock.getDelayedCalls()
    session.lose()
    assert not session.clock.getDelayedCalls()
