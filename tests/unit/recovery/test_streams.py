"""Streams are continued behind the last message that was taken."""

from __future__ import annotations

from typing import Any

import pytest
from pika import spec

from tests.support import wire
from tests.support.outcome import watch
from tests.support.service import World, offset, reconnect, settled, started


@pytest.mark.parametrize(
    ("taken", "resumed"),
    [(0, 7), (2, 9), (3, 10)],
    ids=["nothing taken", "some taken", "all taken"],
)
def test_a_stream_goes_on_where_it_was(world: World, taken: int, resumed: int) -> None:
    channel = started(world)
    consuming = channel.basic_consume("s", consumer_tag="t", arguments={"x-stream-offset": "first"})
    queue, _ = settled(world, consuming).result()
    for tag in (1, 2, 3):
        deliver = spec.Basic.Deliver("t", tag, False, "", "s")
        world.broker.peer.send_content(channel.current, deliver, b"x", offset(6 + tag))
    for _ in range(taken):
        watch(queue.get()).result()
    reconnect(world)
    offsets = [each.arguments for each in world.broker.asked(spec.Basic.Consume)]
    assert offsets == [{"x-stream-offset": "first"}, {"x-stream-offset": resumed}]
    assert (len(queue.pending), world.service.stats().dropped) == (0, 3 - taken)


@pytest.mark.parametrize(("kind", "resumed"), [("stream", {"x-stream-offset": 8}), ("quorum", {})])
def test_a_stream_is_known_by_its_declaration(world: World, kind: str, resumed: Any) -> None:
    channel = started(world)
    arguments = {"x-queue-type": kind}
    settled(world, channel.queue_declare("s", durable=True, arguments=arguments)).result()
    queue, _ = settled(world, channel.basic_consume("s", consumer_tag="t")).result()
    deliver = spec.Basic.Deliver("t", 1, False, "", "s")
    world.broker.peer.send_content(channel.current, deliver, b"x", offset(7))
    watch(queue.get()).result()
    reconnect(world)
    assert [each.arguments for each in world.broker.asked(spec.Basic.Consume)] == [{}, resumed]


@pytest.mark.parametrize(
    "properties",
    [
        b"\x00\x00",
        wire.headers_only(wire.sized(wire.entry(b"x-stream-offset", b"S" + wire.sized(b"x")))),
        wire.headers_only(wire.sized(wire.entry(b"x-stream-offset", b"?"))),
    ],
    ids=["nowhere", "no number", "undecodable"],
)
def test_a_stream_without_offsets_begins_as_it_was_asked(world: World, properties: bytes) -> None:
    channel = started(world)
    consuming = channel.basic_consume("s", consumer_tag="t", arguments={"x-stream-offset": 3})
    settled(world, consuming).result()
    number = channel.current.channel_number
    world.broker.peer.send_bytes(wire.content(number, b"x", properties, wire.deliver("t")))
    reconnect(world)
    offsets = [each.arguments for each in world.broker.asked(spec.Basic.Consume)]
    assert offsets == [{"x-stream-offset": 3}] * 2
