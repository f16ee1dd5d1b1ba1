"""basic_get(): answers, cancelled calls, messages of auto_ack."""

from __future__ import annotations

import copy
import pickle

import pytest
from pika import exceptions
from twisted.internet import defer

import pika_twisted
from tests.support.outcome import call, watch
from tests.support.session import Session


@pytest.mark.parametrize("auto_ack", [False, True])
def test_a_cancelled_basic_get_when_the_channel_ends(session: Session, auto_ack: bool) -> None:
    channel = session.channel()
    cancelled = channel.basic_get("q", auto_ack=auto_ack)
    outcome = watch(cancelled)
    cancelled.cancel()
    following = call(channel.basic_get, "q", auto_ack=auto_ack)
    session.lose()
    outcome.failure(defer.CancelledError)
    following.failure(exceptions.ChannelClosed)


def test_a_message_that_nobody_asked_for(
    session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    channel = session.channel()
    session.peer.get_ok(channel, b"x")
    assert "Basic.GetOk without a Basic.Get" in caplog.text
    assert channel.is_open


def test_what_a_cancelled_get_has_fetched_is_lost_with_its_channel(
    session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    channel = session.channel()
    getting = channel.basic_get("q", auto_ack=True)
    outcome = watch(getting)
    getting.cancel()
    outcome.failure(defer.CancelledError)
    session.peer.get_ok(channel, b"x")
    session.peer.close_channel(channel, 404, "NOT_FOUND")
    assert "1 auto_ack messages of cancelled basic_get() calls are lost" in caplog.text


def test_a_message_of_an_auto_ack_get_is_pickled_as_a_message(session: Session) -> None:
    channel = session.channel()
    getting = call(channel.basic_get, "q", auto_ack=True)
    session.peer.get_ok(channel, b"body")
    message = getting.result()
    kind, fields = message.__reduce__()
    assert kind is pika_twisted.ReceivedMessage
    assert pickle.loads(pickle.dumps(kind(None, *fields[1:]))).body == b"body"


def test_the_copy_of_a_message_of_an_auto_ack_get_can_t_be_acknowledged(session: Session) -> None:
    channel = session.channel()
    getting = watch(channel.basic_get("q", auto_ack=True))
    session.peer.get_ok(channel, b"x")
    session.peer.forget()
    with pytest.raises(pika_twisted.AlreadySettled):
        copy.copy(getting.result()).ack()
    session.peer.expect_none()
