"""Pauses that grow until something has lasted; logins and messages that change in between."""

from __future__ import annotations

from typing import Any

import pika
import pytest
from pika import spec

from pika_twisted.recovery.retries import LASTING, LONGEST_PAUSE, Backoff
from tests.support.outcome import watch
from tests.support.service import World, reconnect, settled, started


def test_a_backoff() -> None:
    backoff = Backoff()
    pauses = [backoff.fail(0.0) for _ in range(12)]
    assert pauses[:4] == [0.1, 0.2, 0.4, 0.8] and pauses[-1] == LONGEST_PAUSE
    backoff.succeed(100.0)
    assert backoff.fail(100.0 + LASTING - 0.1) == LONGEST_PAUSE
    backoff.succeed(200.0)
    backoff.succeed(205.0)  # again, of the same
    assert backoff.fail(200.0 + LASTING) == 0.1


def test_connections_that_are_lost_at_once_come_more_and_more_seldom() -> None:
    asked: list[int] = []

    def policy(attempt: int) -> float:
        asked.append(attempt)
        return 1.0

    world = World(retry_policy=policy)
    world.start()
    for _ in range(3):
        reconnect(world)
    world.broker.reachable = False
    world.lose()
    world.broker.run(1)
    world.broker.reachable = True
    world.broker.run(1)
    assert asked == [2, 3, 4, 5, 6]
    world.broker.run(LASTING)
    reconnect(world)
    assert asked[5:] == [1]
    world.finish()


def test_a_channel_that_is_closed_again_and_again(world: World) -> None:
    channel = started(world)
    opened = []
    for _ in range(8):
        start = world.clock.seconds()
        world.broker.peer.close_channel(channel.current, 406, "PRECONDITION_FAILED")
        while not channel.is_open:
            world.broker.run(0.1)
        opened.append(round(world.clock.seconds() - start, 1))
    assert opened == sorted(opened) and opened[0] == 0.1 and opened[-1] >= 12.7
    world.broker.run(LASTING)
    world.broker.peer.close_channel(channel.current, 406, "PRECONDITION_FAILED")
    world.broker.run(0.1)
    world.broker.run()
    assert channel.is_open


def too_large(world: World, channel: Any, tag: str) -> None:
    """Deliver a message above the limit, and one that is not."""
    peer = world.broker.peer
    with peer.one_read():
        peer.send_content(channel.current, spec.Basic.Deliver(tag, 1, False, "", "q"), b"x" * 101)
        peer.send_content(channel.current, spec.Basic.Deliver(tag, 2, False, "", "q"), b"small")


@pytest.mark.parametrize("batching", [1, 10])
def test_a_message_that_is_too_large_is_rejected(batching: int) -> None:
    world = World(max_message_size=100, oversized="reject")
    told: list[Any] = []
    world.service.add_callback("message too large", lambda *values: told.append(values))
    channel = started(world, ack_batching=batching)
    queue, _ = settled(world, channel.basic_consume("q", consumer_tag="t")).result()
    too_large(world, channel, "t")
    watch(queue.get()).result().ack()
    world.broker.run()
    rejected = [(each.delivery_tag, each.requeue) for each in world.broker.asked(spec.Basic.Reject)]
    assert rejected == [(1, False)] and told == [("t", 101, 100)]
    assert [each.delivery_tag for each in world.broker.asked(spec.Basic.Ack)] == [2]
    assert channel.is_open
    world.finish()


def test_a_message_that_is_too_large_closes_its_channel() -> None:
    world = World(max_message_size=100)
    told: list[Any] = []
    world.service.add_callback("message too large", lambda *values: told.append(values))
    channel = started(world)
    settled(world, channel.basic_consume("q", consumer_tag="t")).result()
    too_large(world, channel, "t")
    world.broker.run()
    (close,) = [each for each in world.broker.asked(spec.Channel.Close) if each.reply_code]
    assert close.reply_code == 311 and told == [("t", 101, 100)]
    assert not world.broker.asked(spec.Basic.Reject)
    world.broker.run(0.1)
    world.broker.run()
    assert channel.is_open
    world.finish()


def logins(world: World) -> list[bytes]:
    return [each.response for each in world.broker.asked(spec.Connection.StartOk)]


def test_a_renewed_secret_is_used_from_then_on(world: World) -> None:
    world.start()
    connection: Any = world.service.connection
    world.broker.postpone = spec.Connection.UpdateSecret
    renewing = settled(world, connection.update_secret("two", "rotated"))
    world.broker.postpone = None
    world.broker.peer.send(0, spec.Connection.UpdateSecretOk())
    renewing.result()
    for _ in range(2):
        reconnect(world)
        world.broker.run(1)
    first, *later = logins(world)
    assert first.endswith(b"guest") and len(later) == 2
    assert all(each.endswith(b"\0guest\0two") for each in later)


def test_credentials_are_asked_for_at_each_attempt() -> None:
    secrets = iter(["one", "two", "three"])
    world = World(credentials=lambda: pika.PlainCredentials("user", next(secrets)))
    world.start()
    for _ in range(2):
        reconnect(world)
        world.broker.run(1)
    assert logins(world) == [b"\0user\0one", b"\0user\0two", b"\0user\0three"]
    world.finish()


def test_what_was_declared_is_forgotten_when_the_service_stops(world: World) -> None:
    channel = started(world)
    settled(world, channel.queue_declare("", exclusive=True)).result()
    settled(world, channel.queue_bind("", "x")).result()
    settled(world, world.service.stopService()).result()
    assert repr(world.service.recorder) == "<Recorder 0 exchanges, 0 queues, 0 bindings>"
    stats = world.service.stats()
    assert (stats.declared, stats.recovering, stats.refused) == (0, 0, ())
    world.start()
    assert "Queue.Declare" not in world.broker.said[-1]
