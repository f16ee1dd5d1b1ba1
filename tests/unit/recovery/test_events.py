"""Events of a service, and when they are told."""

from __future__ import annotations

from pika import spec

from tests.support.service import World, reconnect, settled, started


def test_blocked_while_it_recovers(world: World) -> None:
    """Publishes that are sent again on the first channels may be what blocks it."""
    told: list[str] = []
    world.service.add_callback("blocked", told.append)
    channel = started(world)
    settled(world, channel.queue_declare("q")).result()
    world.broker.postpone = spec.Queue.Declare
    reconnect(world)
    world.broker.peer.send(0, spec.Connection.Blocked("low on memory"))
    world.broker.catch_up()
    assert (channel.is_open, told) == (True, ["low on memory"])
