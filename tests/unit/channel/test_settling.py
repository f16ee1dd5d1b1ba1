"""What is acknowledged, and what must not be: the channel knows it from the moment of receipt."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pika import spec

from pika_twisted.exceptions import AlreadySettled
from tests.support.outcome import watch
from tests.support.session import OURS, OURS_THROUGH_PIKA, Session

pytestmark = pytest.mark.usefixtures("twisted_log")


@pytest.fixture(params=[OURS, OURS_THROUGH_PIKA], ids=lambda adapter: adapter.name)
def session(request: pytest.FixtureRequest) -> Iterator[Session]:
    session = Session(request.param)
    yield session
    session.finish()


@pytest.fixture
def channel(session: Session) -> Any:
    return session.channel()


def deliver(session: Session, channel: Any, consumer_tag: str, tag: int) -> None:
    method = spec.Basic.Deliver(consumer_tag, tag, False, "", "q")
    session.peer.send_content(channel, method, b"%d" % tag)


def settled(session: Session) -> list[Any]:
    session.turn()
    kinds = (spec.Basic.Ack, spec.Basic.Nack, spec.Basic.Reject)
    return [method for method in session.peer.methods() if isinstance(method, kinds)]


# Two consumers


@pytest.mark.parametrize("batch", [1, 100])
def test_ack_of_everything_knows_what_no_consumer_was_woken_for(
    session: Session, channel: Any, batch: int
) -> None:
    """A's callback takes B's message, of the same read, and acknowledges all there is."""
    channel.ack_batching = batch
    first, second = session.consumer(channel, "a"), session.consumer(channel, "b")
    session.peer.forget()
    taken = []

    def on_first(_message: Any) -> None:
        second.get().addCallback(taken.append)
        channel.basic_ack(0, multiple=True)

    first.get().addCallback(on_first)
    with session.peer.one_read():
        deliver(session, channel, "a", 1)
        deliver(session, channel, "b", 2)
    [acked] = settled(session)
    if session.adapter is OURS_THROUGH_PIKA:  # there the second comes after the first's callback
        assert (acked.delivery_tag, acked.multiple) == (1, True)
        taken[0].ack()
        assert [method.delivery_tag for method in settled(session)] == [1, 2]
        return
    assert (acked.delivery_tag, acked.multiple) == (2, True)
    with pytest.raises(AlreadySettled):
        taken[0].ack()
    assert len(settled(session)) == 1


def test_ack_of_everything_names_what_has_come(session: Session, channel: Any) -> None:
    """Tag 0 would be taken for messages that are still under way."""
    channel.ack_batching = 1
    queue = session.consumer(channel, "a")
    session.peer.forget()
    for tag in (1, 2):
        deliver(session, channel, "a", tag)
    channel.basic_ack(0, multiple=True)
    deliver(session, channel, "a", 3)
    for message in queue.drain()[2:]:
        message.ack()
    assert [method.delivery_tag for method in settled(session)] == [2, 3]


# A tag that is used again


def again(session: Session, channel: Any, *, auto_ack: bool) -> Any:
    """The queue object of a second consumer with the tag of the first, which is cancelled."""
    cancelled = watch(channel.basic_cancel("t"))
    session.peer.expect(spec.Basic.Cancel)
    session.peer.send(channel, spec.Basic.CancelOk("t"))
    cancelled.result()
    return session.consumer(channel, "t", auto_ack=auto_ack)


@pytest.mark.parametrize("auto_first", [False, True], ids=["then auto_ack", "then manual"])
def test_a_tag_that_changes_its_mode(session: Session, channel: Any, auto_first: bool) -> None:
    queues = [session.consumer(channel, "t", auto_ack=auto_first)]
    deliver(session, channel, "t", 1)
    queues.append(again(session, channel, auto_ack=not auto_first))
    deliver(session, channel, "t", 2)
    queues.append(again(session, channel, auto_ack=auto_first))
    deliver(session, channel, "t", 3)
    session.peer.forget()
    messages = [queue.drain()[0] for queue in queues]
    for number, message in reversed(list(enumerate(messages))):
        if auto_first == (number % 2 == 0):
            with pytest.raises(AlreadySettled):
                message.ack()
        else:
            message.ack()
    expected = [2] if auto_first else [3, 1]
    assert [method.delivery_tag for method in settled(session)] == expected


# Basic.Recover


def test_a_cancelled_get_before_recover_gives_nothing_back(session: Session, channel: Any) -> None:
    getting = watch(channel.basic_get("q"))
    recovering = watch(channel.basic_recover(True))
    getting.deferred.cancel()
    session.peer.send_content(channel, spec.Basic.GetOk(1, False, "", "q", 0), b"x")
    session.peer.send(channel, spec.Basic.RecoverOk())
    recovering.result()
    assert settled(session) == []
    late = watch(channel.basic_get("q"))
    late.deferred.cancel()
    session.peer.send_content(channel, spec.Basic.GetOk(2, True, "", "q", 0), b"x")
    assert [method.delivery_tag for method in settled(session)] == [2]


def test_a_cancelled_consume_before_recover_gives_nothing_back(
    session: Session, channel: Any
) -> None:
    consuming = watch(channel.basic_consume("q", consumer_tag="t"))
    consuming.deferred.cancel()
    recovering = watch(channel.basic_recover(True))
    session.peer.expect(spec.Basic.Consume)
    session.peer.send(channel, spec.Basic.ConsumeOk("t"))
    deliver(session, channel, "t", 1)
    session.peer.send(channel, spec.Basic.RecoverOk())
    recovering.result()
    deliver(session, channel, "t", 2)
    assert [method.delivery_tag for method in settled(session)] == [2]


def test_what_is_recovered_can_not_be_acknowledged(session: Session, channel: Any) -> None:
    channel.ack_batching = 1
    queue = session.consumer(channel, "t")
    session.peer.forget()
    deliver(session, channel, "t", 1)
    [before] = queue.drain()
    recovering = watch(channel.basic_recover(True))
    deliver(session, channel, "t", 2)
    [between] = queue.drain()
    with pytest.raises(AlreadySettled):
        before.ack()
    session.peer.send(channel, spec.Basic.RecoverOk())
    recovering.result()
    deliver(session, channel, "t", 3)
    with pytest.raises(AlreadySettled):
        between.ack()
    queue.drain()[0].ack()
    assert [method.delivery_tag for method in settled(session)] == [3]


def test_a_recover_that_is_refused_changes_nothing(session: Session, channel: Any) -> None:
    getting = watch(channel.basic_get("q"))
    watch(channel.basic_recover(False)).failure(Exception)
    getting.deferred.cancel()
    session.peer.send_content(channel, spec.Basic.GetOk(1, False, "", "q", 0), b"x")
    assert [method.delivery_tag for method in settled(session)] == [1]
