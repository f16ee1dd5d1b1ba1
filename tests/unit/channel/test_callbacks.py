"""Callbacks of a channel: add_callback(), callback_deferred(), closes and returns."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pika import exceptions, spec
from twisted.internet import defer

from tests.support.outcome import TwistedLog, watch
from tests.support.peer import encoded_content, encoded_method
from tests.support.session import Session, bodies


@pytest.mark.parametrize("cut", ["method", "header", "half body"])
def test_an_observer_that_comes_in_the_middle_of_a_message(session: Session, cut: str) -> None:
    channel = session.channel()
    queue = session.consumer(channel)
    getting = [watch(queue.get()) for _ in range(4)]

    def message(tag: int) -> bytes:
        return encoded_content(1, spec.Basic.Deliver("t", tag, False, "", "q"), b"body %d" % tag)

    method = len(encoded_method(1, spec.Basic.Deliver("t", 1, False, "", "q")))
    position = {"method": method, "header": method + 22, "half body": len(message(1)) - 3}[cut]
    session.peer.send_bytes(message(1)[:position])
    observed: defer.Deferred[Any] = defer.Deferred()
    observing = watch(observed)
    channel.callback_deferred(observed, [spec.Basic.Deliver])
    session.peer.send_bytes(message(1)[position:])
    session.peer.send_bytes(message(2) + message(3)[:position])
    session.peer.send_bytes(message(3)[position:] + message(4))

    assert [outcome.result().body for outcome in getting] == [b"body %d" % n for n in (1, 2, 3, 4)]
    assert observing.result().method.delivery_tag in (1, 2)


def test_a_permanent_observer_sees_each_delivery(session: Session) -> None:
    channel = session.channel()
    queue = session.consumer(channel)
    seen: list[int] = []
    channel.add_callback(
        lambda method_frame: seen.append(method_frame.method.delivery_tag),
        [spec.Basic.Deliver],
        one_shot=False,
    )
    session.peer.deliver(channel, "t", b"1", b"2", b"3")
    late = session.consumer(channel, "u")
    session.peer.deliver(channel, "u", b"4", first=4)
    assert seen == [1, 2, 3, 4]
    assert bodies(queue.pending) == [b"1", b"2", b"3"]
    assert bodies(late.pending) == [b"4"]


def test_a_fired_callback_deferred_is_forgotten(session: Session) -> None:
    channel = session.channel()
    pending = channel._channel.callbacks.pending(1, spec.Basic.Deliver)
    for _ in range(3):
        deferred: defer.Deferred[Any] = defer.Deferred()
        observing = watch(deferred)
        channel.callback_deferred(deferred, [spec.Basic.Deliver, spec.Basic.GetEmpty])
        getting = watch(channel.basic_get("q"))
        session.peer.send(channel, spec.Basic.GetEmpty())
        observing.result()
        getting.result()
    assert channel._channel.callbacks.pending(1, spec.Basic.Deliver) == pending
    queue = session.consumer(channel)
    session.peer.deliver(channel, "t", b"x")
    assert bodies(queue.pending) == [b"x"]
    session.lose()


@pytest.mark.parametrize("watch_for", ["frames", "returns"])
def test_a_callback_for_a_closed_channel_is_not_the_next_ones(
    session: Session, watch_for: str
) -> None:
    """The number of a channel that is gone can be given to another one."""
    gone = session.channel()
    session.peer.close_channel(gone, 404, "NOT_FOUND")
    seen: list[Any] = []
    if watch_for == "frames":
        gone.add_callback(seen.append, [spec.Basic.GetEmpty])
    else:
        gone.add_on_return_callback(seen.append)
    session.peer.forget()
    channel = session.channel(gone.channel_number)
    session.peer.send(channel, spec.Basic.GetEmpty())
    session.publish(channel, b"body", mandatory=True)
    session.peer.give_back(channel, session.peer.published_body(b"body"))
    assert seen == []


def test_a_callback_that_meets_a_cancelled_future(
    session: Session, twisted_log: TwistedLog
) -> None:
    """asyncio's CancelledError is no Exception."""
    channel = session.channel()
    loop = asyncio.new_event_loop()
    future = loop.create_future()
    future.cancel()
    channel.add_callback(lambda _frame: future.result(), [spec.Basic.GetEmpty])
    session.peer.send(channel, spec.Basic.GetEmpty())
    loop.close()
    assert session.protocol.is_open
    assert len(twisted_log.flush(asyncio.CancelledError)) == 1


def test_observing_a_closed_channel(session: Session) -> None:
    channel = session.channel()
    session.peer.close_channel(channel, 404, "NOT_FOUND")
    observer: defer.Deferred[Any] = defer.Deferred()
    channel.callback_deferred(observer, [spec.Basic.Deliver])
    watch(observer).failure(exceptions.ChannelClosedByBroker)


@pytest.mark.parametrize(
    "add",
    [
        lambda channel, _: channel.callback_deferred(None, [spec.Basic.GetEmpty]),
        lambda channel, _: channel.add_callback(None, [spec.Basic.GetEmpty]),
        lambda channel, _: channel.add_on_close_callback(None),
        lambda channel, _: channel.add_on_flow_callback(None),
        lambda channel, _: channel.add_on_return_callback(None),
        lambda _, protocol: protocol.add_on_connection_blocked_callback(None),
        lambda _, protocol: protocol.add_on_connection_unblocked_callback(None),
    ],
)
def test_a_callback_that_is_none_is_refused(session: Session, add: Any) -> None:
    channel = session.channel()
    with pytest.raises(TypeError, match="None"):
        add(channel, session.protocol)
    session.peer.send(channel, spec.Basic.GetEmpty())
    assert session.protocol.is_open
