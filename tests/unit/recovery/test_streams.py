"""Streams are continued behind the last message that was taken."""

from __future__ import annotations

import time
from datetime import datetime, timezone
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


def deliver(world: World, channel: Any, *offsets: int, tag: str = "t") -> None:
    """Deliver messages of a stream, with these offsets."""
    with world.broker.peer.one_read():
        for number, each in enumerate(offsets, 1):
            method = spec.Basic.Deliver(tag, number, False, "", "s")
            world.broker.peer.send_content(channel.current, method, b"%d" % each, offset(each))


def asked_offsets(world: World) -> list[Any]:
    return [
        each.arguments.get("x-stream-offset") for each in world.broker.asked(spec.Basic.Consume)
    ]


def test_two_losses_in_a_row_skip_nothing(world: World) -> None:
    """What waited when the first one came was never handed out."""
    channel = started(world)
    consuming = channel.basic_consume("s", consumer_tag="t", arguments={"x-stream-offset": "first"})
    queue, _ = settled(world, consuming).result()
    deliver(world, channel, 100, 101, 102)
    assert watch(queue.get()).result().body == b"100"
    reconnect(world)
    reconnect(world)
    assert asked_offsets(world) == ["first", 101, 101]
    deliver(world, channel, 101)
    watch(queue.get()).result()
    reconnect(world)
    assert asked_offsets(world)[3:] == [102]


def test_a_stream_whose_consumer_the_broker_cancels(world: World) -> None:
    channel = started(world)
    consuming = channel.basic_consume("s", consumer_tag="t", arguments={"x-stream-offset": "first"})
    queue, _ = settled(world, consuming).result()
    deliver(world, channel, 7, 8, 9)
    watch(queue.get()).result()
    world.broker.peer.send(channel.current, spec.Basic.Cancel("t", True))
    world.broker.run(0.1)
    world.broker.run()
    assert asked_offsets(world) == ["first", 8]
    assert world.service.stats().dropped == 2


def test_a_stream_is_known_by_its_first_message(world: World) -> None:
    """Whoever declared it; on a channel of its own, for it may be another queue after all."""
    channel = started(world)
    queue, _ = settled(world, channel.basic_consume("s", consumer_tag="t")).result()
    deliver(world, channel, 20, 21, 22)
    watch(queue.get()).result()
    reconnect(world)
    assert asked_offsets(world) == [None, 21]
    assert channel.current.consumer_tags == []
    assert world.service.stats().connection.consumers == 1


def test_messages_that_once_came_from_a_stream(world: World) -> None:
    """Their header stays when they are published again; a classic queue refuses the argument."""
    channel = started(world)
    queue, _ = settled(world, channel.basic_consume("q", consumer_tag="t")).result()
    deliver(world, channel, 20)
    watch(queue.get()).result()
    world.broker.refuse = spec.Basic.Consume
    reconnect(world)
    world.broker.refuse = None
    world.broker.run(0.1)
    world.broker.run()
    assert asked_offsets(world) == [None, 21, None]
    (consumer,) = channel.subscriptions
    assert consumer.is_there
    world.broker.peer.deliver(consumer.channel, "t", b"x")
    assert watch(queue.get()).result().body == b"x"


@pytest.mark.parametrize("arguments", [None, {"x-stream-offset": "next"}])
def test_a_stream_that_was_lost_before_its_first_message(world: World, arguments: Any) -> None:
    """With "next" again, what was published meanwhile would never come."""
    channel = started(world)
    declared = channel.queue_declare("s", durable=True, arguments={"x-queue-type": "stream"})
    settled(world, declared).result()
    before = time.time()
    settled(world, channel.basic_consume("s", consumer_tag="t", arguments=arguments)).result()
    reconnect(world)
    resumed = asked_offsets(world)[-1]
    assert isinstance(resumed, datetime)
    assert before - 3.5 <= resumed.replace(tzinfo=timezone.utc).timestamp() <= before
    deliver(world, channel, 5)
    reconnect(world)
    assert asked_offsets(world)[-1] == 5
