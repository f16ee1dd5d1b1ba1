"""Consumers of a service: subscribed again, cancelled from either side, once and in time."""

from __future__ import annotations

from typing import Any

import pytest
from pika import exceptions, spec
from twisted.internet import defer
from twisted.internet.task import deferLater

from pika_twisted import RecoveringService, WaterMarks
from pika_twisted.testing import Broker
from tests.support.outcome import watch
from tests.support.service import World, reconnect, settled, started


def test_cancelled_while_it_is_subscribed_again(world: World) -> None:
    channel = started(world)
    queue, _ = settled(world, channel.basic_consume("q", consumer_tag="t")).result()
    world.broker.postpone = spec.Basic.Consume
    reconnect(world)
    assert world.broker.postponed
    assert watch(channel.basic_cancel("t")).result() is None
    watch(queue.get()).failure(exceptions.ConsumerCancelled)
    world.broker.catch_up()
    assert world.broker.said[-1][-2:] == ["Basic.Consume", "Basic.Cancel"]
    assert (channel.is_open, channel.consumer_tags) == (True, [])


@pytest.mark.parametrize("lost", [False, True])
def test_cancelled_before_its_consume_is_answered(world: World, lost: bool) -> None:
    channel = started(world)
    world.broker.postpone = spec.Basic.Consume
    consuming = settled(world, channel.basic_consume("q", consumer_tag="t"))
    cancelling = settled(world, channel.basic_cancel("t"))
    assert cancelling.pending
    if lost:
        world.broker.postpone = None
        reconnect(world)
    else:
        world.broker.catch_up()
    cancelling.result()
    queue, tag = consuming.result()
    assert tag == "t"
    watch(queue.get()).failure(exceptions.ConsumerCancelled)
    assert len(world.broker.asked(spec.Basic.Cancel)) == (not lost)
    reconnect(world)
    assert (channel.is_open, channel.consumer_tags) == (True, [])
    assert "Basic.Consume" not in world.broker.said[-1]


def test_cancelled_while_its_consume_waits_for_a_connection(world: World) -> None:
    channel = world.service.channel()
    consuming = watch(channel.basic_consume("q", consumer_tag="t"))
    watch(channel.basic_cancel("t")).result()
    world.start()
    consuming.result()
    assert channel.consumer_tags == []
    assert not world.broker.asked(spec.Basic.Consume)


@pytest.mark.parametrize("end", ["cancelled", "its queue closed"])
def test_a_consumer_that_nobody_wants_any_more_is_not_begun_again(world: World, end: str) -> None:
    """The broker would deliver to it, and what an auto_ack consumer gets is gone then."""
    channel = started(world)
    settled(world, channel.basic_consume("q", consumer_tag="t")).result()
    consuming = channel.basic_consume("q", auto_ack=True, consumer_tag="u")
    queue, _ = settled(world, consuming).result()
    world.broker.postpone = spec.Queue.Declare  # whether it is there
    reconnect(world)
    if end == "cancelled":
        watch(channel.basic_cancel("u")).result()
    else:
        queue.close(exceptions.ConsumerCancelled())
    world.broker.catch_up()
    assert channel.consumer_tags == ["t"]
    begun = [each.consumer_tag for each in world.broker.asked(spec.Basic.Consume)]
    assert begun.count("u") == 1


def test_a_cancel_that_the_broker_refuses(world: World) -> None:
    channel = started(world)
    queue, _ = settled(world, channel.basic_consume("q", consumer_tag="t")).result()
    world.broker.refuse = spec.Basic.Cancel
    cancelling = settled(world, channel.basic_cancel("t"))
    cancelling.failure(exceptions.ChannelClosedByBroker)
    watch(queue.get()).failure(exceptions.ConsumerCancelled)


def test_the_broker_s_cancel_crosses_ours(world: World) -> None:
    channel = started(world)
    queue, _ = settled(world, channel.basic_consume("q", consumer_tag="t")).result()
    waiting = watch(queue.get())
    world.broker.postpone = spec.Basic.Cancel
    cancelling = settled(world, channel.basic_cancel("t"))
    world.broker.peer.send(channel.current, spec.Basic.Cancel("t", True))
    waiting.failure(exceptions.ConsumerCancelled)
    world.broker.catch_up()
    cancelling.result()
    world.broker.run(5)
    assert len(world.broker.asked(spec.Basic.Consume)) == 1  # not subscribed again
    assert "consumer cancelled" not in world.told


def test_cancelled_before_it_is_subscribed_again(world: World) -> None:
    channel = started(world)
    queue, _ = settled(world, channel.basic_consume("q", consumer_tag="t")).result()
    waiting = watch(queue.get())
    world.broker.peer.send(channel.current, spec.Basic.Cancel("t", True))
    settled(world, channel.basic_cancel("t")).result()
    waiting.failure(exceptions.ConsumerCancelled)
    world.broker.run(5)
    assert channel.consumer_tags == []


def test_cancelled_by_the_broker_while_the_next_one_is_subscribed(world: World) -> None:
    channel = started(world)
    for tag in ("t", "u"):
        settled(world, channel.basic_consume("q", consumer_tag=tag)).result()
    answer = world.broker.answer

    def hold_the_last(frame: Any) -> None:
        if "Basic.Consume" in world.broker.said[-1]:
            world.broker.postpone = spec.Basic.Consume
        answer(frame)

    world.broker.answer = hold_the_last  # type: ignore[method-assign]
    reconnect(world)
    (held,) = world.broker.postponed
    world.broker.answer = answer  # type: ignore[method-assign]
    world.broker.peer.send(held.channel_number, spec.Basic.Cancel("t", True))
    world.broker.catch_up()
    world.broker.run(1)
    assert channel.is_open
    assert world.service.stats().connection.consumers == 2


@pytest.mark.parametrize("then", ["the channel is closed, too", "nobody wants it"])
def test_a_consumer_that_was_cancelled_is_not_subscribed_twice(world: World, then: str) -> None:
    channel = started(world)
    settled(world, channel.basic_consume("q", consumer_tag="t")).result()
    world.broker.peer.send(channel.current, spec.Basic.Cancel("t", True))
    world.broker.run(0.05)
    if then == "nobody wants it":
        settled(world, channel.basic_cancel("t")).result()
    else:
        world.broker.peer.close_channel(channel.current, 406, "PRECONDITION_FAILED")
    for _ in range(5):
        world.broker.run(0.05)
    wanted = then != "nobody wants it"
    assert len(world.broker.asked(spec.Basic.Consume)) == 1 + wanted
    assert channel.consumer_tags == ["t"] * wanted


def test_a_full_queue_whose_consumer_the_broker_cancels_holds_nobody_up() -> None:
    """What waited in it is delivered again, to the next consumer."""
    world = World(water_marks=WaterMarks(high_messages=4, low_messages=1))
    channel = started(world)
    queue, _ = settled(world, channel.basic_consume("q", consumer_tag="t")).result()
    peer, gate = world.broker.peer, world.service.connection._impl.gate
    with peer.one_read():
        peer.deliver(channel.current, "t", *[b"x"] * 4)
        peer.send(channel.current, spec.Basic.Cancel("t", True))
    assert not gate.full and not queue.pending
    world.broker.run(0.2)
    assert len(world.broker.asked(spec.Basic.Consume)) == 2
    world.broker.peer.deliver(channel.current, "t", *[b"x"] * 4, first=5)
    assert gate.full and world.service.stats().dropped == 4
    for _ in range(4):
        watch(queue.get()).result()
    assert not gate.full
    world.finish()


def test_a_tag_whose_consumer_is_down_is_taken(world: World) -> None:
    """Two that share one would be subscribed again in vain, for ever."""
    channel = started(world)
    queue, _ = settled(world, channel.basic_consume("q", consumer_tag="t")).result()
    world.broker.peer.send(channel.current, spec.Basic.Cancel("t", True))
    watch(channel.basic_consume("q", consumer_tag="t")).failure(exceptions.DuplicateConsumerTag)
    world.broker.run(1)
    assert world.service.stats().connection.consumers == 1
    assert queue.closed is None
    world.lose()
    watch(channel.basic_consume("q", consumer_tag="t")).failure(exceptions.DuplicateConsumerTag)
    settled(world, channel.basic_cancel("t")).result()
    again = watch(channel.basic_consume("q", consumer_tag="t"))
    world.broker.run(1)
    again.result()
    assert channel.consumer_tags == ["t"]


def test_cancelled_while_the_next_one_is_subscribed_again(world: World) -> None:
    """It is there, on a channel that isn't in use yet: the broker has to be told."""
    channel = started(world)
    queue, _ = settled(world, channel.basic_consume("q", consumer_tag="t")).result()
    settled(world, channel.basic_consume("q", consumer_tag="u")).result()
    answer = world.broker.answer

    def hold_the_last(frame: Any) -> None:
        if "Basic.Consume" in world.broker.said[-1]:
            world.broker.postpone = spec.Basic.Consume
        answer(frame)

    world.broker.answer = hold_the_last  # type: ignore[method-assign]
    reconnect(world)
    world.broker.answer = answer  # type: ignore[method-assign]
    assert len(world.broker.postponed) == 1
    cancelling = watch(channel.basic_cancel("t"))
    world.broker.catch_up()
    cancelling.result()
    assert [each.consumer_tag for each in world.broker.asked(spec.Basic.Cancel)] == ["t"]
    assert isinstance(queue.closed, exceptions.ConsumerCancelled)
    assert (channel.consumer_tags, channel.current.consumer_tags) == (["u"], ["u"])


def test_what_comes_for_a_consumer_that_was_cancelled_meanwhile_goes_back(world: World) -> None:
    """Nobody waits for it any more: it would stay unsettled as long as the channel lives."""
    channel = started(world)
    settled(world, channel.basic_consume("q", consumer_tag="t")).result()
    world.broker.postpone = spec.Basic.Consume
    reconnect(world)
    (held,) = world.broker.postponed
    watch(channel.basic_cancel("t")).result()
    with world.broker.peer.one_read():
        world.broker.peer.send(held.channel_number, spec.Basic.ConsumeOk("t"))
        world.broker.peer.deliver(held.channel_number, "t", b"x", b"y")
    world.broker.run()
    assert channel.is_open
    refused = [(each.delivery_tag, each.requeue) for each in world.broker.asked(spec.Basic.Nack)]
    assert refused == [(1, True), (2, True)]
    assert len(world.broker.asked(spec.Basic.Cancel)) == 1


def test_a_cancel_that_nobody_waits_for_any_more(world: World) -> None:
    """What comes until the broker has agreed still reaches the queue."""
    channel = started(world)
    queue, _ = settled(world, channel.basic_consume("q", consumer_tag="t")).result()
    world.broker.postpone = spec.Basic.Cancel
    cancelling = channel.basic_cancel("t")
    outcome = settled(world, cancelling)
    cancelling.cancel()
    outcome.failure(defer.CancelledError)
    message = watch(queue.get())
    world.broker.peer.deliver(channel.current, "t", b"x")
    message.result().ack()
    world.broker.catch_up()
    watch(queue.get()).failure(exceptions.ConsumerCancelled)


@pytest.mark.parametrize("asked", [False, True])
def test_an_auto_delete_queue_whose_consume_is_cancelled(world: World, asked: bool) -> None:
    """Its consumer comes and goes at the broker, and so does the queue; if it was asked at all."""
    channel = started(world)
    settled(world, channel.queue_declare("q", auto_delete=True)).result()
    if asked:
        world.broker.postpone = spec.Basic.Consume
    else:
        world.lose()
    consuming = channel.basic_consume("q")
    outcome = settled(world, consuming)
    consuming.cancel()
    outcome.failure(defer.CancelledError)
    world.broker.catch_up()
    assert len(world.broker.asked(spec.Basic.Cancel)) == asked
    assert list(world.service.recorder.queues) == ([] if asked else ["q"])


def test_a_loss_while_a_cancelled_consumer_comes_back() -> None:
    """Both stayed as they were when the connection ended for the first: subscribed no more."""
    broker = Broker()
    service = RecoveringService(broker.endpoint(), reactor=broker.reactor)
    service.startService()

    async def go() -> list[bytes]:
        channel = service.channel()
        queues = []
        for name in ("one", "two"):
            await channel.queue_declare(name, durable=True)
            queues.append((await channel.basic_consume(name))[0])
        broker.refuse("basic.consume", 506, "refused by the test")
        for server in list(broker.connections[0].channels.values()):
            for tag in server.consumers:
                server.cancel(tag)
        await deferLater(broker.reactor, 20)
        for name in ("one", "two"):
            broker.publish("", name, name.encode())
        bodies = [(await queue.get()).body for queue in queues]
        await service.stopService()
        return bodies

    assert broker.run(go()) == [b"one", b"two"]
    broker.close()
