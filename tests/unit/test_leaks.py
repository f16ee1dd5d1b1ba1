"""Whatever can end leaves nothing on its channel: of 200 rounds of each not one stays."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pika import spec
from twisted.internet import defer

import pika_twisted
from tests.support.outcome import watch
from tests.support.session import OURS, Session

ROUNDS = 200

pytestmark = pytest.mark.usefixtures("twisted_log")


@pytest.fixture
def session() -> Iterator[Session]:
    session = Session(OURS)
    yield session
    session.finish()


class Ballast:
    """Held by whatever a round leaves behind."""


def answer_cancel(session: Session, channel: Any) -> None:
    tag = session.peer.expect(spec.Basic.Cancel).method.consumer_tag
    session.peer.send(channel, spec.Basic.CancelOk(tag))


def handling(session: Session, channel: Any, ballast: Ballast) -> None:
    def handler(message: Any, ballast: Ballast = ballast) -> None:
        pass

    starting = watch(pika_twisted.consume(channel, "q", handler, reactor=session.clock))
    session.peer.expect(spec.Basic.Qos)
    session.peer.send(channel, spec.Basic.QosOk())
    tag = session.peer.expect(spec.Basic.Consume).method.consumer_tag
    session.peer.send(channel, spec.Basic.ConsumeOk(tag))
    stopping = watch(starting.result().stop())
    answer_cancel(session, channel)
    stopping.result()


def publisher(session: Session, channel: Any, ballast: Ballast) -> None:
    made = pika_twisted.Publisher(channel, reactor=session.clock)
    made.before_publish = lambda arguments, ballast=ballast: None  # type: ignore[misc]
    selected = [f for f in session.peer.methods() if isinstance(f, spec.Confirm.Select)]
    if selected:
        session.peer.send(channel, spec.Confirm.SelectOk())
    publishing = watch(made.publish("", "q", b"x"))
    session.peer.ack(channel, 0, multiple=True)
    publishing.result()
    made.close()


def callback_deferred(session: Session, channel: Any, ballast: Ballast) -> None:
    deferred: defer.Deferred[Any] = defer.Deferred()
    deferred.addErrback(lambda failure, ballast=ballast: None)  # type: ignore[misc]
    channel.callback_deferred(deferred, [spec.Basic.GetEmpty])
    deferred.cancel()


def close_callback(session: Session, channel: Any, ballast: Ballast) -> None:
    def callback(channel: Any, reason: Any, ballast: Ballast = ballast) -> None:
        pass

    channel.add_on_close_callback(callback)
    channel.remove_on_close_callback(callback)


def consumer(session: Session, channel: Any, ballast: Ballast) -> None:
    consuming = watch(channel.basic_consume("q"))
    tag = session.peer.expect(spec.Basic.Consume).method.consumer_tag
    session.peer.send(channel, spec.Basic.ConsumeOk(tag))
    consuming.result()[0].ballast = ballast
    cancelling = watch(channel.basic_cancel(tag))
    answer_cancel(session, channel)
    cancelling.result()


def cancelled_consume(session: Session, channel: Any, ballast: Ballast) -> None:
    consuming = channel.basic_consume("q")
    consuming.addErrback(lambda failure, ballast=ballast: None)
    consuming.cancel()
    tag = session.peer.expect(spec.Basic.Consume).method.consumer_tag
    session.peer.send(channel, spec.Basic.ConsumeOk(tag))
    answer_cancel(session, channel)


def cancelled_get(session: Session, channel: Any, ballast: Ballast) -> None:
    getting = channel.basic_get("q")
    getting.addErrback(lambda failure, ballast=ballast: None)
    getting.cancel()
    session.peer.send(channel, spec.Basic.GetEmpty())


def cancelled_call(session: Session, channel: Any, ballast: Ballast) -> None:
    declaring = channel.queue_declare("q")
    declaring.addErrback(lambda failure, ballast=ballast: None)
    declaring.cancel()
    session.peer.send(channel, spec.Queue.DeclareOk("q", 0, 0))


def cancelled_waiters(session: Session, channel: Any, ballast: Ballast) -> None:
    for wait in (session.protocol.when_closed, channel.confirm_delivery):
        waiting = wait()
        waiting.addErrback(lambda failure, ballast=ballast: None)
        waiting.addCallback(lambda _, ballast=ballast: None)
        waiting.cancel()


def channel_of_its_own(session: Session, channel: Any, ballast: Ballast) -> None:
    own = session.channel()
    own.ballast = ballast
    own.close()
    session.peer.expect(spec.Channel.Close)
    session.peer.send(own, spec.Channel.CloseOk())


@pytest.mark.parametrize(
    "a_round",
    [
        handling,
        publisher,
        callback_deferred,
        close_callback,
        consumer,
        cancelled_consume,
        cancelled_get,
        cancelled_call,
        cancelled_waiters,
        channel_of_its_own,
    ],
)
def test_what_has_ended_is_gone(
    session: Session, a_round: Callable[[Session, Any, Ballast], None]
) -> None:
    channel = session.channel()
    for _ in range(ROUNDS):
        a_round(session, channel, Ballast())
        session.turn()
        session.peer.forget()
    gc.collect()
    kinds = Counter(type(each) for each in gc.get_objects())
    assert kinds[Ballast] <= 1
    assert kinds[pika_twisted.Handling] <= 1
    assert kinds[pika_twisted.Publisher] <= 1
    assert kinds[pika_twisted.ClosableDeferredQueue] <= 5  # of other tests, in a frame that failed
