"""What is read: in its order, also inside a callback, and all of it before an error or an end."""

from __future__ import annotations

from typing import Any

import pytest
from pika import exceptions, spec

from tests.support.outcome import run, watch
from tests.support.session import Session


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
