"""A queue that takes part in pausing the transport."""

from __future__ import annotations

from typing import Any

import pytest

from pika_twisted.transport.read_gate import WaterMarks
from tests.support.outcome import watch
from tests.support.session import Adapter, Session


@pytest.mark.parametrize("way", ["get", "get_many", "__anext__", "drain", "close"])
def test_a_full_queue_that_is_emptied(way: str) -> None:
    options = {"water_marks": WaterMarks(3, 2, 1000, 900)}
    session = Session(Adapter("marked", "pika_twisted", "pika_twisted.protocol", options))
    channel = session.channel()
    queue = session.consumer(channel, auto_ack=True)
    session.peer.deliver(channel, "t", b"1", b"2", b"3")
    assert session.transport.producerState == "paused"
    arguments: tuple[Any, ...] = {"get_many": (1,), "close": (LookupError(),)}.get(way, ())
    result = getattr(queue, way)(*arguments)
    assert session.transport.producerState == "producing"
    if way == "get":
        assert watch(result).result().body == b"1"
    elif way == "get_many":
        assert [message.body for message in watch(result).result()] == [b"1"]
    elif way == "drain":
        assert [message.body for message in result] == [b"1", b"2", b"3"]
    session.finish()
