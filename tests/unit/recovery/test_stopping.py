"""Stopping a service, and starting it again, in the middle of something."""

from __future__ import annotations

from typing import Any

import pytest
from pika import exceptions, spec
from twisted.internet import defer

from pika_twisted import NotConnected
from tests.support.outcome import watch
from tests.support.service import World, reconnect, settled, started


def test_stopped_while_a_channel_waits_to_be_opened_again(world: World) -> None:
    channel = started(world)
    world.broker.peer.close_channel(channel.current, 406, "PRECONDITION_FAILED")
    world.finish()  # which finds no timer
    world.broker.run(5)
    assert world.broker.said[-1].count("Channel.Open") == 2


@pytest.mark.parametrize("again", [False, True])
def test_stopped_while_a_channel_is_set_up(world: World, again: bool) -> None:
    settings: list[Any] = [defer.Deferred()]
    if again:
        settings.append(None)
    world.start()
    channel = world.service.channel(setup=lambda _: settings.pop())
    world.broker.run()
    if again:
        world.broker.peer.close_channel(channel.current, 406, "PRECONDITION_FAILED")
        world.broker.run(0.1)
    assert settings == []
    world.told.clear()
    settled(world, world.service.stopService()).result()
    assert (world.clock.getDelayedCalls(), list(world.service._running)) == ([], [])
    assert world.told == [] and not channel.is_open


@pytest.mark.parametrize(
    "event", ["recovering", "recovery failed", "connected", "lost", "queue renamed"]
)
def test_stopped_by_the_callback_of_an_event(world: World, event: str) -> None:
    stopping: list[Any] = []
    channel = world.service.channel()
    world.start()
    settled(world, channel.queue_declare("", exclusive=True)).result()
    world.service.add_callback(
        event, lambda *_: stopping or stopping.append(watch(world.service.stopService()))
    )
    if event == "connected":
        world.service._events.tell("connected", world.service.connection)
    world.broker.reachable = event != "recovery failed"
    reconnect(world)
    world.broker.run(1)
    (stopped,) = stopping
    stopped.result()
    assert not world.service.running and not world.broker.peer.transport.connected
    assert world.clock.getDelayedCalls() == []


def test_channels_of_before_it_was_stopped_are_not_opened_again(world: World) -> None:
    channel = started(world)
    settled(world, world.service.stopService()).result()
    watch(channel.queue_declare("q")).failure(exceptions.ConnectionWrongStateError)
    world.start()
    assert started(world).is_open
    # One to declare on, and the new one.
    assert world.broker.said[-1].count("Channel.Open") == 2


@pytest.mark.parametrize("when", ["it drains", "it closes"])
def test_started_again_while_it_stops(world: World, when: str) -> None:
    """As Twisted's ClientService: it stops, and then it starts."""
    channel = started(world)
    handling = settled(world, world.service.consume("q", lambda _: defer.Deferred())).result()
    if when == "it drains":
        world.broker.peer.deliver(handling.channel.current, handling.consumer_tag, b"x")
    else:
        world.broker.postpone = spec.Connection.Close
    stopped = settled(world, world.service.stopService())
    world.service.startService()
    later = world.service.channel()
    declaring = settled(world, later.queue_declare("later"))
    assert stopped.pending
    assert declaring.pending
    if when == "it drains":
        world.broker.run(world.service.drain_timeout)
    else:
        world.broker.catch_up()
    stopped.result()
    world.broker.run()
    assert world.service.connection is not None
    assert declaring.result().method.queue == "later"
    watch(channel.when_open()).failure(NotConnected)
    assert len(world.broker.peers) == 2


def test_nobody_waits_for_its_end_any_more(world: World) -> None:
    channel = started(world)
    stopped = world.service.stopService()
    cancelled = watch(stopped)
    stopped.cancel()
    cancelled.failure(defer.CancelledError)
    world.broker.run()
    assert world.service.connection is None
    watch(channel.when_open()).failure(NotConnected)
    assert world.broker.asked(spec.Connection.Close)


def test_stopped_by_a_handler_that_waits_for_it(world: World) -> None:
    """Which ends at the deadline, by its cancellation; the stop of the service isn't."""
    world.start()
    stops: list[Any] = []

    def handler(message: Any) -> Any:
        stops.append(world.service.stopService())
        return stops[0]

    handling = settled(world, world.service.consume("q", handler)).result()
    world.broker.peer.deliver(handling.channel.current, handling.consumer_tag, b"stop")
    world.broker.run(world.service.drain_timeout)
    for _ in range(5):
        world.broker.run(1)
    assert watch(handling.when_stopped()).result() is None
    assert world.service.connection is None
    assert world.broker.asked(spec.Connection.Close)


def test_stopped_after_it_was_started_again_while_it_stops(world: World) -> None:
    channel = started(world)
    stops = [watch(world.service.stopService())]
    world.service.startService()
    later = world.service.channel()
    stops.append(watch(world.service.stopService()))
    world.broker.run(5)
    for stopped in stops:
        stopped.result()
    world.broker.run(5)
    assert world.service.connection is None
    for each in (channel, later):
        watch(each.when_open()).failure(NotConnected)
    assert len(world.broker.peers) == 1


def test_it_stops_with_its_reactor(world: World) -> None:
    triggers: list[Any] = []
    world.clock.addSystemEventTrigger = (  # type: ignore[attr-defined]
        lambda *trigger: triggers.append(trigger) or trigger  # type: ignore[func-returns-value]
    )
    world.clock.removeSystemEventTrigger = triggers.remove  # type: ignore[attr-defined]
    world.start()
    assert [trigger[:2] for trigger in triggers] == [("before", "shutdown")]
    settled(world, world.service.stopService()).result()
    assert not triggers
    world.start()
    ((_, _, stop),) = triggers
    settled(world, stop()).result()
    assert not world.service.running
    assert stop() is None
    assert world.broker.said[-1][-1] == "Connection.Close"
