"""Publishing on a channel: bodies, confirms, returned messages."""

from __future__ import annotations

from typing import Any

import pytest
from pika import exceptions, spec
from twisted.internet import defer

from tests.support import peer as peer_module
from tests.support.outcome import call, watch
from tests.support.session import Session


def test_publishing_again_from_a_failed_publish(session: Session) -> None:
    channel = session.channel()
    session.confirms(channel)
    again: list[Any] = []

    def retry(failure: Any) -> None:
        again.append(call(channel.basic_publish, "", "q", b"again"))

    for n in range(3):
        channel.basic_publish("", "q", b"%d" % n).addErrback(retry)
    session.lose()
    assert len(again) == 3
    for outcome in again:
        outcome.failure(exceptions.ChannelClosed)


def test_a_cancelled_publish_keeps_its_number(session: Session) -> None:
    channel = session.channel()
    session.confirms(channel)
    deferreds = [channel.basic_publish("", "q", b"%d" % n) for n in range(4)]
    outcomes = [watch(deferred) for deferred in deferreds]
    deferreds[1].cancel()
    session.peer.ack(channel, 2)
    session.peer.ack(channel, 3, multiple=True)
    assert [outcome.fired for outcome in outcomes] == [1, 1, 1, 0]
    outcomes[1].failure(defer.CancelledError)
    outcomes[2].result()
    session.peer.ack(channel, 4)
    outcomes[3].result()


def test_large_bodies_that_differ_in_the_middle_are_told_apart(session: Session) -> None:
    channel = session.channel()
    session.confirms(channel)
    large = [bytes(3000) + b"%d" % n + bytes(3000) for n in range(3)]
    outcomes = [session.publish(channel, body, mandatory=True) for body in large]
    session.peer.give_back(channel, session.peer.published_body(large[1]))
    session.peer.ack(channel, 3, multiple=True)
    assert [outcome.error is not None for outcome in outcomes] == [False, True, False]


def test_a_return_callback_that_publishes_again(session: Session) -> None:
    channel = session.channel()
    session.confirms(channel)
    again: list[Any] = []
    channel.add_on_return_callback(
        lambda message: again.append(session.publish(channel, b"again", mandatory=True))
    )
    first = session.publish(channel, b"first", mandatory=True)
    with session.peer.one_read():
        session.peer.give_back(channel, session.peer.published_body(b"first"))
        session.peer.ack(channel, 1)
    first.failure(exceptions.UnroutableError)
    session.peer.ack(channel, 2)
    again[0].result()


def test_text_bodies_are_utf8_and_still_matched(session: Session) -> None:
    channel = session.channel()
    session.confirms(channel)
    outcome = session.publish(channel, "größe", mandatory=True)  # type: ignore[arg-type]
    session.peer.give_back(channel, session.peer.published_body("größe".encode()))
    session.peer.ack(channel, 1)
    outcome.failure(exceptions.UnroutableError)


def test_a_mutable_body_is_taken_as_it_was(session: Session) -> None:
    channel = session.channel()
    session.confirms(channel)
    body = bytearray(b"before")
    outcome = session.publish(channel, body, mandatory=True)  # type: ignore[arg-type]
    body[:] = b"after!"
    session.peer.give_back(channel, session.peer.published_body(b"before"))
    session.peer.ack(channel, 1)
    outcome.failure(exceptions.UnroutableError)


def test_tag_zero_with_multiple_confirms_everything(session: Session) -> None:
    channel = session.channel()
    session.confirms(channel)
    outcomes = [session.publish(channel, b"%d" % n) for n in range(3)]
    session.peer.ack(channel, 0, multiple=True)
    for outcome in outcomes:
        outcome.result()


def test_confirm_delivery_once_it_is_on_sends_nothing(session: Session) -> None:
    channel = session.channel()
    session.confirms(channel)
    call(channel.confirm_delivery).result()
    session.peer.expect_none()


def test_a_publish_method_kept_from_before_confirm_delivery(session: Session) -> None:
    channel = session.channel()
    publish = channel.basic_publish
    assert call(publish, "", "q", b"unconfirmed").result() is None
    session.confirms(channel)
    confirmed = call(publish, "", "q", b"confirmed")
    assert confirmed.pending
    session.peer.send(1, spec.Basic.Ack(1, False))
    assert confirmed.result() == spec.Basic.Ack(1, False)


def test_watched_confirms_settle_all_the_same(session: Session) -> None:
    """Whoever watches Basic.Ack sees each, and takes it away from nobody."""
    channel = session.channel()
    session.confirms(channel)
    first = session.publish(channel, b"one")
    seen: list[Any] = []
    channel.add_callback(seen.append, [spec.Basic.Ack], one_shot=False)
    second = session.publish(channel, b"two")
    session.peer.send(1, spec.Basic.Ack(1, False))
    session.peer.send(1, spec.Basic.Ack(2, False))
    assert [frame.method.delivery_tag for frame in seen] == [1, 2]
    assert (first.result().delivery_tag, second.result().delivery_tag) == (1, 2)


def test_a_confirm_whose_callback_ends_the_channel(
    session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    """The confirms behind it in the same read speak of publishes that have failed by then."""
    channel = session.channel()
    session.confirms(channel)
    first = channel.basic_publish("", "q", b"one")
    first.addCallback(lambda _: session.lose())
    second = session.publish(channel, b"two")
    with session.peer.one_read():
        session.peer.ack(channel, 1)
        session.peer.ack(channel, 2)
    second.failure(exceptions.AMQPConnectionError)
    assert "not outstanding" not in caplog.text


def test_a_broker_without_confirms(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(peer_module.CAPABILITIES, "publisher_confirms", False)
    channel = session.channel()
    call(channel.confirm_delivery).failure(exceptions.MethodNotImplemented)
