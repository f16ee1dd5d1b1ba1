"""Handlers of a service: consume() that is refused, or lost in the middle of a message."""

from __future__ import annotations

from typing import Any

from pika import exceptions, spec

from tests.support.service import World, offset, reconnect, settled


def test_a_handler_s_refused_queue_leaves_no_channel(world: World) -> None:
    world.start()
    world.broker.refuse = spec.Basic.Consume
    consuming = settled(world, world.service.consume("q", lambda message: None))
    consuming.failure(exceptions.ChannelClosedByBroker)
    assert list(world.service._channels) == []
    world.broker.run(5)
    assert world.broker.said[-1].count("Channel.Open") == 2  # the service's own, and this one


def test_a_handler_that_fails_while_a_stream_s_channel_is_lost(world: World) -> None:
    """The stream goes on behind its message, which therefore is handled here again."""
    world.start()
    begun: list[bytes] = []

    def handler(message: Any) -> None:
        begun.append(message.body)
        if len(begun) < 3:
            raise RuntimeError("no")

    arguments = {"x-stream-offset": "first"}
    handling = settled(world, world.service.consume("s", handler, arguments=arguments)).result()
    deliver = spec.Basic.Deliver(handling.consumer_tag, 1, False, "", "s")
    world.broker.peer.send_content(handling.channel.current, deliver, b"x", offset(6))
    reconnect(world)
    assert begun == [b"x"] * 3
    resumed = world.broker.asked(spec.Basic.Consume)[-1].arguments
    assert resumed == {"x-stream-offset": 7}
    assert (handling.handled, handling.failed) == (1, 2)
