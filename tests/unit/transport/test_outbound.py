"""What is written: in which order, in how many writes, and all of it before the end."""

from __future__ import annotations

from typing import Any

import pytest
from pika import spec
from twisted.internet import task

from tests.support.outcome import call, watch
from tests.support.peer import encoded_method
from tests.support.session import OURS, Session
from tests.support.transport import FakeTransport


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


def test_a_transport_without_room_for_attributes() -> None:
    class Narrow(FakeTransport):
        def __setattr__(self, name: str, value: Any) -> None:
            if name.startswith("lose"):
                raise AttributeError(name)
            super().__setattr__(name, value)

    clock = task.Clock()
    protocol = OURS.connection(None, clock)
    transport = Narrow(clock)
    transport.protocol = protocol
    watch(protocol.ready)
    protocol.makeConnection(transport)
    assert not protocol._impl.outbound.buffer.can_hold  # nothing is held back that could be lost
    assert transport.writes[0].startswith(b"AMQP")
    transport.lose(ConnectionError())
