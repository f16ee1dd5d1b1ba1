"""Connections that pause: marks, a consumer above them, and what the broker is asked meanwhile."""

from __future__ import annotations

from typing import Any

from pika import spec

from pika_twisted import Publisher, WaterMarks
from tests.support.calls import CALLS, Call, late_answer
from tests.support.outcome import watch
from tests.support.session import Session

MARKS = WaterMarks(high_messages=4, low_messages=2, high_bytes=1000, low_bytes=500)
#: These are no questions to the broker: messages may never come, `drained()` is about writing.
NO_QUESTION = {"queue.get", "queue.get_many", "async for", "callback_deferred", "drained"}
QUESTIONS = [
    *(call for call in CALLS if call.name not in NO_QUESTION),
    Call(
        "channel.close",
        lambda _session, channel: _closing(channel),
        lambda session, channel: session.peer.send(channel, spec.Channel.CloseOk()),
    ),
    Call(
        "publisher.publish",
        lambda session, channel: session.publisher.publish("", "q", b"body"),  # type: ignore[attr-defined]
        lambda session, channel: session.peer.send(channel, spec.Basic.Ack(1, False)),
        lambda session, channel: _publisher(session, channel),
    ),
]


def _closing(channel: Any) -> Any:
    channel.close()
    return channel.on_closed


def _publisher(session: Session, channel: Any) -> None:
    session.confirms(channel)
    session.publisher = Publisher(channel, reactor=session.clock)  # type: ignore[attr-defined]


def flooded(session: Session, messages: int = 5) -> tuple[Any, Any]:
    """A consumer on a channel of its own whose queue is above its marks, and the channel."""
    channel = session.channel()
    queue = session.consumer(channel, "flood", auto_ack=True)
    session.peer.deliver(channel, "flood", *[b"x"] * messages)
    return queue, channel


def is_paused(session: Session) -> bool:
    return session.transport.producerState == "paused"


def asked_amid_a_pause(session: Session, call: Call, messages: int) -> Any:
    """Make a call while nothing is read after so many messages; returns their queue."""
    channel = session.channel()
    if call.prepare is not None:
        call.prepare(session, channel)
    queue, flood = flooded(session, messages)
    assert is_paused(session)

    outcome = watch(call.start(session, channel), call.name)
    assert not is_paused(session), "the call is made: its answer has to be read"
    session.turn()
    session.peer.deliver(flood, "flood", b"more")
    assert not is_paused(session), "the answer has not come yet"
    assert outcome.pending

    late_answer(session, call, channel)
    outcome.result()
    return queue
