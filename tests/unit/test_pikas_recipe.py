"""The recipe of pika's documentation: give up on AMQPChannelError, else reconnect."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from pika import exceptions, spec

from tests.support.outcome import call, watch
from tests.support.session import Session


def recipe(reason: Any) -> str:
    try:
        raise reason
    except exceptions.AMQPChannelError:
        return "give up"
    except exceptions.AMQPConnectionError:
        return "reconnect"


ENDINGS: dict[str, Callable[[Session], Any]] = {
    "the stream ends": lambda session: session.lose(),
    "the broker closes": lambda session: (
        session.peer.send(0, spec.Connection.Close(320, "CONNECTION_FORCED", 0, 0)),
        session.turn(1),
    ),
    "bad bytes": lambda session: (session.peer.send_bytes(b"\xff" * 8), session.turn(1)),
    "silence": lambda session: session.turn(60),
}


@pytest.mark.parametrize("ending", list(ENDINGS))
def test_a_lost_connection_is_a_reason_to_reconnect(session: Session, ending: str) -> None:
    session.open(heartbeat=10)
    channel = session.channel()
    queue = session.consumer(channel)
    session.confirms(channel)
    waiting = [watch(queue.get()), watch(channel.on_closed), watch(channel.queue_declare("q"))]
    waiting += [session.publish(channel, b"x"), session.closed, watch(session.protocol.channel())]
    ENDINGS[ending](session)
    waiting += [call(queue.get), call(channel.queue_declare, "q"), call(session.protocol.channel)]
    reasons = [each.error or each.result() for each in waiting]
    assert [recipe(each) for each in reasons] == ["reconnect"] * 9
    for reason in reasons:
        for again in (copy.copy(reason), pickle.loads(pickle.dumps(reason))):
            assert recipe(again) == "reconnect"


def test_what_the_broker_refuses_is_a_reason_to_give_up(session: Session) -> None:
    channel = session.channel()
    queue = session.consumer(channel)
    waiting = [watch(queue.get()), watch(channel.on_closed), watch(channel.queue_declare("q"))]
    session.peer.close_channel(channel, 404, "NOT_FOUND")
    waiting += [call(queue.get), call(channel.queue_declare, "q")]
    assert [recipe(each.error or each.result()) for each in waiting] == ["give up"] * 5
