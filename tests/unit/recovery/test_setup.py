"""Setting up channels on each connection, and what may fail meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pika import spec
from twisted.internet import error
from twisted.internet.task import deferLater

from tests.support.service import World, reconnect, started


def test_setups_run_on_each_connection(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[str] = []

    async def of_the_service(channel: Any) -> None:
        await channel.exchange_declare("x")
        seen.append("service")

    world = World(setup=of_the_service)
    channel = started(world, setup=lambda opened: seen.append("channel"))
    assert seen == ["service", "channel"]
    reconnect(world)
    assert seen == ["service", "channel"] * 2
    assert channel.is_open
    assert len(world.broker.asked(spec.Exchange.Declare)) == 2
    world.finish()


def test_a_channel_that_the_broker_closes_while_it_is_set_up(world: World) -> None:
    refusals = [2]

    async def setup(channel: Any) -> None:
        await deferLater(world.clock, 0)
        if refusals[0]:
            refusals[0] -= 1
            world.broker.peer.close_channel(channel, 404, "NOT_FOUND")

    world.start()
    channel = world.service.channel(setup=setup)
    world.broker.run()
    assert not channel.is_open and world.told[-1] == "recovery failed"
    world.broker.run(0.1)  # again, and closed again
    assert not channel.is_open and world.told.count("recovery failed") == 2
    world.broker.run(0.2)
    assert channel.is_open


def test_a_channel_whose_setup_fails_is_not_left_open(world: World) -> None:
    def setup(channel: Any) -> None:
        raise LookupError("no")

    world.start()
    world.service.channel(setup=setup)
    for _ in range(10):
        world.broker.run(1)
    assert world.told.count("recovery failed") > 3
    assert world.service.stats().connection.channels == 0


def test_a_setup_whose_asyncio_task_is_cancelled_is_tried_again(world: World) -> None:
    failures: list[Any] = [asyncio.CancelledError()] * 3

    async def setup(channel: Any) -> None:
        if failures:
            raise failures.pop()

    world.start()
    channel = world.service.channel(setup=setup)
    for _ in range(10):
        world.broker.run(1)
    assert channel.is_open and world.told.count("recovery failed") == 3


def test_a_service_s_setup_whose_asyncio_task_is_cancelled_is_a_failed_attempt() -> None:
    failures: list[Any] = [asyncio.CancelledError("no time")] * 3

    async def setup(channel: Any) -> None:
        if failures:
            raise failures.pop()

    world = World(setup=setup)
    world.start()
    assert isinstance(world.service.trouble, asyncio.CancelledError)
    for _ in range(5):
        world.broker.run(1)
    assert world.told == ["recovery failed"] * 3 + ["connected"]
    assert world.service.stats().failed_attempts == 3
    world.finish()


def test_a_connection_lost_at_the_end_of_its_recovery(world: World) -> None:
    channel = world.service.channel()
    cut = error.ConnectionLost("cut")
    opening = channel.when_open()
    opening.addCallback(lambda _: world.broker.peer.transport.lose(cut))
    world.start()
    assert world.told == ["recovery failed"]
    assert world.service.connection is None and not channel.is_open
    world.broker.run(1)
    assert world.told == ["recovery failed", "connected"]
    assert channel.is_open
