"""Waiting: for a channel, a connection, a flush; one who waits may cancel the next."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pika import spec
from twisted.internet import defer

from pika_twisted import TwistedProtocolConnection
from tests.support.outcome import watch
from tests.support.service import World, reconnect, settled, started

Wait = Callable[[World, Any], Any]


#: What fires several Deferreds in a row: what is waited for, and how it comes.
WAITERS: dict[str, tuple[Wait, Wait]] = {
    "when_open": (lambda _, channel: channel.when_open(), lambda world, _: world.broker.run(1)),
    "closed": (lambda _, channel: channel.when_open(), lambda _, channel: channel.close()),
    "when_ready": (lambda world, _: raw(world).when_ready(), lambda world, _: world.broker.run(1)),
    "drained": (
        lambda world, _: raw(world).drained(),
        lambda world, _: world.broker.peer.transport.drain(),
    ),
    "drained, lost": (lambda world, _: raw(world).drained(), lambda world, _: world.lose()),
    "update_secret": (
        lambda world, _: raw(world).update_secret("new", "why"),
        lambda world, _: world.lose(),
    ),
    "flush": (lambda world, _: world.publisher.flush(), lambda world, _: world.lose()),
    "when_stopped": (
        lambda world, _: world.handling.when_stopped(),
        lambda world, _: settled(world, world.handling.stop()).result(),
    ),
}


def raw(world: World) -> Any:
    """The connection that is there, or is on its way."""
    return world.broker.peer.protocol


@pytest.mark.parametrize("name", WAITERS)
def test_one_who_waits_cancels_the_next(name: str) -> None:
    """The one behind is told all the same."""
    world: Any = World()
    channel = started(world)
    settled(world, channel.queue_declare("q")).result()
    if name == "flush":
        world.publisher = world.service.publisher()
        world.broker.run()
        watch(world.publisher.publish("e", "k", b"x"))
    elif name == "when_stopped":
        world.handling = settled(world, world.service.consume("q", print)).result()
    elif name in ("when_open", "closed"):
        world.lose()
    elif name == "when_ready":
        world.lose()
        world.broker.stopped = True
        world.broker.run(1)
        world.broker.stopped = False
        world.broker.peer.start("RabbitMQ")
    elif name != "update_secret":
        world.broker.peer.transport.fill()
    wait, come = WAITERS[name]
    waiting = [wait(world, channel) for _ in range(3)]
    waiting[0].addBoth(lambda result: (waiting[1].cancel(), result)[1])
    outcomes = [watch(each) for each in waiting]
    assert all(each.pending for each in outcomes)
    come(world, channel)
    assert [each.fired for each in outcomes] == [1, 1, 1]
    outcomes[1].failure(defer.CancelledError)
    assert not isinstance(outcomes[2].error, defer.CancelledError)
    world.finish()


@pytest.mark.parametrize("event", ["recovering", "lost", "recovery failed", "connected"])
def test_ready_is_waited_for_in_the_callback_of_an_event(world: World, event: str) -> None:
    """Events are told within ClientService's state machine, which takes no questions then."""
    waiting: list[Any] = []
    world.service.add_callback(event, lambda *_: waiting.append(watch(world.service.when_ready())))
    channel = started(world)
    settled(world, channel.queue_declare("q")).result()
    world.broker.refuse = spec.Channel.Open
    reconnect(world)
    world.broker.refuse = None
    world.broker.run(2)
    assert isinstance(waiting[-1].result(), TwistedProtocolConnection)
    assert not any(each.pending for each in waiting)
