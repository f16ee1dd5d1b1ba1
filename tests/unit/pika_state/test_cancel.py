"""Basic.Cancel of the broker: which consumer it concerns, and how it is answered."""

from __future__ import annotations

from typing import Any

import pytest
from pika import exceptions, spec

from pika_twisted.pika_state import channel as state
from tests.support import peer as peers
from tests.support.outcome import call, watch
from tests.support.session import Session


def begin(session: Session, channel: Any, **options: Any) -> Any:
    """Ask for a consumer with the tag "t"; the broker's answer is still to come."""
    return watch(channel.basic_consume("q", consumer_tag="t", **options))


def delete(session: Session, channel: Any) -> None:
    """Delete the queue by the channel that consumes from it."""
    deleted = watch(channel.queue_delete("q"))
    session.peer.send(channel, spec.Queue.DeleteOk(0))
    deleted.result()
    session.peer.forget()


@pytest.mark.parametrize("when", ["before CancelOk", "behind CancelOk"])
def test_a_tag_taken_again_after_its_queue_was_deleted(session: Session, when: str) -> None:
    """RabbitMQ's Basic.Cancel comes behind DeleteOk, and concerns the consumer before."""
    channel = session.channel()
    session.consumer(channel, auto_ack=True)
    delete(session, channel)
    consuming = begin(session, channel, auto_ack=True)
    session.peer.expect(spec.Basic.Cancel, consumer_tag="t")
    session.peer.expect_none()  # the tag is free when this is answered: else 530
    if when == "before CancelOk":
        session.peer.send(channel, spec.Basic.Cancel("t", True))
    session.peer.send(channel, spec.Basic.CancelOk("t"))
    session.peer.expect(spec.Basic.Consume)
    session.peer.send(channel, spec.Basic.ConsumeOk("t"))
    queue = consuming.result()[0]
    session.peer.deliver(channel, "t", b"hello")
    assert call(queue.get).result().body == b"hello"
    session.peer.send(channel, spec.Basic.Cancel("t", True))  # this one is its own
    call(queue.get).failure(exceptions.ConsumerCancelled)


def test_a_cancel_behind_delete_ok_is_taken_note_of(session: Session) -> None:
    """Once it has come, the tag is free."""
    channel = session.channel()
    session.consumer(channel)
    delete(session, channel)
    session.peer.send(channel, spec.Basic.Cancel("t", True))
    consuming = begin(session, channel)
    session.peer.expect(spec.Basic.Consume)
    session.peer.send(channel, spec.Basic.ConsumeOk("t"))
    assert consuming.result()[0].closed is None
    session.peer.expect_none()


def test_a_broker_that_sends_no_cancel(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(peers.CAPABILITIES, "consumer_cancel_notify", False)
    channel = session.channel()
    session.consumer(channel)
    delete(session, channel)
    begin(session, channel)
    session.peer.expect(spec.Basic.Consume)
    session.peer.expect_none()


def test_a_broker_that_takes_cancel_ok_gets_it(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RabbitMQ 4.3.7: it keeps the tag of a consumer that timed out until then."""
    monkeypatch.setitem(peers.CAPABILITIES, "accept_consumer_cancel_ok", True)
    channel = session.channel()
    queue = session.consumer(channel)
    session.peer.forget()
    session.peer.send(channel, spec.Basic.Cancel("t", True))
    assert session.peer.expect(spec.Basic.CancelOk).method.consumer_tag == "t"
    session.peer.send(channel, spec.Basic.Cancel("t", True))
    session.peer.send(channel, spec.Basic.Cancel("never there", True))
    session.peer.expect_none()
    call(queue.get).failure(exceptions.ConsumerCancelled)


def test_a_broker_that_keeps_the_tag_and_takes_no_cancel_ok(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RabbitMQ 4.3.0 to 4.3.6: Basic.Cancel frees the tag, before it is taken again."""
    monkeypatch.setattr(peers, "VERSION", "4.3.6")
    channel = session.channel()
    session.consumer(channel)
    session.peer.forget()
    session.peer.send(channel, spec.Basic.Cancel("t", True))
    session.peer.expect(spec.Basic.Cancel, consumer_tag="t")
    begin(session, channel)
    session.peer.expect_none()
    session.peer.send(channel, spec.Basic.CancelOk("t"))
    session.peer.expect(spec.Basic.Consume)


def test_older_brokers_get_no_answer(session: Session) -> None:
    channel = session.channel()
    session.consumer(channel)
    session.peer.forget()
    session.peer.send(channel, spec.Basic.Cancel("t", True))
    session.peer.expect_none()


@pytest.mark.parametrize("kind", ["quorum", "stream", "auto_ack"])
def test_what_waits_is_given_back_to_a_broker_that_times_deliveries_out(
    session: Session, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The broker has given it to another consumer; handled here it would be handled twice."""
    monkeypatch.setattr(peers, "VERSION", "4.3.6")
    channel, other = session.channel(), session.channel()
    queue = session.consumer(channel, auto_ack=kind == "auto_ack")
    kept = session.consumer(other)
    headers = {"x-stream-offset": 7} if kind == "stream" else {}
    for tag in (1, 2, 3):
        method = spec.Basic.Deliver("t", tag, False, "", "q")
        session.peer.send_content(channel, method, b"x", spec.BasicProperties(headers=headers))
    session.peer.deliver(other, "t", b"not its own")
    handled = call(queue.get).result()
    session.peer.forget()
    session.peer.send(channel, spec.Basic.Cancel("t", True))
    tags = [m.delivery_tag for m in session.peer.methods() if isinstance(m, spec.Basic.Nack)]
    assert tags == ([2, 3] if kind == "quorum" else [])
    assert len(queue.pending) == (0 if kind == "quorum" else 2)
    assert handled.method.delivery_tag == 1
    assert len(kept.pending) == 1


def test_a_flood_for_an_unknown_consumer_ends(
    session: Session, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """From a peer that reads nothing: our nacks would lie in memory, 113 MiB of them."""
    monkeypatch.setattr(state, "MOST_UNKNOWN_DELIVERIES", 50)
    channel = session.channel()
    session.peer.deliver(channel, "who", *[b"x"] * 50)
    names = session.peer.names()
    assert (names.count("Basic.Cancel"), names.count("Basic.Nack")) == (1, 50)
    session.peer.send(channel, spec.Basic.CancelOk("who"))
    session.peer.forget()
    session.peer.deliver(channel, "who", *[b"x"] * 200, first=51)
    names = session.peer.names()
    assert names.count("Basic.Nack") == 50
    assert channel.is_closing and session.protocol.is_open
    session.peer.send(channel, spec.Basic.CancelOk("who"))
    session.peer.expect(spec.Channel.Close)
    assert len([r for r in caplog.records if "unknown consumer" in r.getMessage()]) == 2
