"""Queues whose names the broker makes: they get new names, and the earlier ones still work."""

from __future__ import annotations

from typing import Any

from pika import spec

from tests.support.service import World, reconnect, settled, started


def test_an_earlier_name_works_in_a_passive_declare(world: World) -> None:
    channel = started(world)
    settled(world, channel.queue_declare("", exclusive=True)).result()
    reconnect(world)
    answer = settled(world, channel.queue_declare("amq.gen-1", passive=True)).result()
    assert answer.method.queue == "amq.gen-2"


def test_a_queue_without_a_name_is_the_last_declared_and_gets_a_new_name(world: World) -> None:
    renamed: list[Any] = []
    world.service.add_callback("queue renamed", lambda *names: renamed.append(names))
    channel = started(world)
    first = settled(world, channel.queue_declare("", exclusive=True)).result().method.queue
    settled(world, channel.queue_bind("", "x", "k")).result()
    settled(world, channel.basic_consume("", consumer_tag="t")).result()
    reconnect(world)
    second = world.broker.generated
    assert renamed == [(first, second)] and first != second
    assert [bind.queue for bind in world.broker.asked(spec.Queue.Bind)] == [first, second]
    assert [each.queue for each in world.broker.asked(spec.Basic.Consume)] == [first, second]
    assert repr(channel.subscriptions) == f"[<RecoveringConsumer t to {second!r}>]"
    settled(world, channel.queue_delete(first)).result()  # the earlier name still works
    assert [delete.queue for delete in world.broker.asked(spec.Queue.Delete)] == [second]
    assert channel.consumer_tags == []


class NamesQueues:
    """Makes a broker name queues by counting, and know which are there."""

    def __init__(self, world: World) -> None:
        self.there: list[str] = []
        self.refusals: list[int] = []
        self.named = 0
        self._answer, self._peer = world.broker.answer, lambda: world.broker.peer
        world.broker.answer = self  # type: ignore[assignment,method-assign]

    def __call__(self, frame: Any) -> None:
        method = getattr(frame, "method", None)
        if not isinstance(method, spec.Queue.Declare):
            self._answer(frame)
        elif method.passive and (self.refusals or method.queue not in self.there):
            code = self.refusals.pop() if self.refusals else 404
            self._peer().send(frame.channel_number, spec.Channel.Close(code, "NO", 50, 10))
        else:
            if not method.queue:
                self.named += 1
                self.there.append(f"amq.gen-{self.named}")
            name = method.queue or self.there[-1]
            self._peer().send(frame.channel_number, spec.Queue.DeclareOk(name, 0, 0))


def test_a_queue_with_a_name_of_the_broker_s_outlives_another_channel(world: World) -> None:
    channel = started(world)
    queues = NamesQueues(world)
    other = world.service.channel()
    world.broker.run()
    settled(world, channel.queue_declare("", exclusive=True)).result()
    settled(world, channel.basic_consume("", consumer_tag="t")).result()
    world.broker.peer.close_channel(other.current, 404, "NOT_FOUND")
    world.broker.run(1)
    assert other.is_open
    assert queues.there == list(world.service.recorder.queues) == ["amq.gen-1"]


def test_a_queue_with_a_name_of_the_broker_s_that_can_t_be_asked_for(world: World) -> None:
    channel = started(world)
    queues = NamesQueues(world)
    settled(world, channel.queue_declare("", exclusive=True)).result()
    queues.refusals = [541, 541]
    world.broker.peer.close_channel(channel.current, 404, "NOT_FOUND")
    world.broker.run(0.1)
    assert [str(each) for each in world.service.stats().refused] == ["queue 'amq.gen-1'"]
    world.broker.run(0.1)
    world.broker.run(0.2)
    assert channel.is_open and not world.service.stats().refused
    assert queues.there == list(world.service.recorder.queues) == ["amq.gen-1"]
    assert world.service.stats().connection.channels == 1  # none is left of the failed attempts


def test_a_queue_with_a_name_of_the_broker_s_is_replaced_once(world: World) -> None:
    channel = started(world)
    queues = NamesQueues(world)
    settled(world, channel.queue_declare("", exclusive=True)).result()
    for tag in ("t", "u"):
        settled(world, channel.basic_consume("", consumer_tag=tag)).result()
    queues.there.clear()  # somebody deletes it
    for tag in ("t", "u"):
        world.broker.peer.send(channel.current, spec.Basic.Cancel(tag, True))
    world.broker.run(1)
    assert queues.there == list(world.service.recorder.queues) == ["amq.gen-2"]
    assert [each.queue_name for each in channel.subscriptions] == ["amq.gen-2"] * 2
    assert world.service.stats().connection.channels == 1
