"""Channels of a service: what is asked again on each connection, refusals, callbacks."""

from __future__ import annotations

from typing import Any

import pytest
from pika import exceptions, spec
from twisted.internet import defer

from tests.support.outcome import TwistedLog, watch
from tests.support.service import World, reconnect, settled, started


@pytest.mark.parametrize(
    ("method", "arguments"),
    [("queue_declare", ("q",)), ("basic_consume", ("q",))],
    ids=["declare", "consume"],
)
def test_a_refusal_is_told_and_not_asked_again(
    world: World, method: str, arguments: tuple[Any, ...]
) -> None:
    channel = started(world)
    asked = {"queue_declare": spec.Queue.Declare, "basic_consume": spec.Basic.Consume}[method]
    world.broker.refuse = asked
    settled(world, getattr(channel, method)(*arguments)).failure(exceptions.ChannelClosedByBroker)
    world.broker.refuse = None
    for _ in range(5):
        world.broker.run(1)
    assert channel.is_open  # again
    assert len(world.broker.asked(asked)) == 1


def test_confirm_mode_and_qos_by_a_call_last(world: World) -> None:
    channel = started(world)
    settled(world, channel.confirm_delivery()).result()
    settled(world, channel.basic_qos(prefetch_count=9)).result()
    reconnect(world)
    assert {"Confirm.Select", "Basic.Qos"} <= set(world.broker.said[-1])
    assert [qos.prefetch_count for qos in world.broker.asked(spec.Basic.Qos)] == [9, 9]


def test_recover_is_passed_on(world: World) -> None:
    channel = started(world)
    answer = settled(world, channel.basic_recover(True)).result()
    assert isinstance(answer.method, spec.Basic.RecoverOk)


def test_acks_are_batched_on_each_connection(world: World) -> None:
    channel = started(world, ack_batching=3)
    queue, _ = settled(world, channel.basic_consume("q", consumer_tag="t")).result()
    for connection in (1, 2):
        world.broker.peer.deliver(channel.current, "t", b"1", b"2", b"3")
        for _ in range(3):
            watch(queue.get()).result().ack()
        world.broker.run()
        acks = world.broker.asked(spec.Basic.Ack)
        assert [(ack.delivery_tag, ack.multiple) for ack in acks] == [(3, True)] * connection
        reconnect(world)


def test_acks_are_delayed_on_each_connection(world: World) -> None:
    channel = started(world, ack_batching=True, ack_delay=0.5)
    queue, _ = settled(world, channel.basic_consume("q", consumer_tag="t")).result()
    for connection in (1, 2):
        assert (channel.current.ack_batching, channel.current.ack_delay) == (100, 0.5)
        world.broker.peer.deliver(channel.current, "t", b"1", b"2")
        for _ in range(2):
            watch(queue.get()).result().ack()
        world.broker.run()
        assert len(world.broker.asked(spec.Basic.Ack)) == connection - 1
        world.clock.advance(0.5)
        world.broker.run()
        acks = world.broker.asked(spec.Basic.Ack)
        assert [(ack.delivery_tag, ack.multiple) for ack in acks] == [(2, True)] * connection
        reconnect(world)


def test_acks_of_a_handler_are_delayed(world: World) -> None:
    world.start()
    consuming = settled(
        world,
        world.service.consume(
            "q", lambda message: None, consumer_tag="t", ack_batching=20, ack_delay=0.25
        ),
    )
    channel = consuming.result().channel.current
    assert (channel.ack_batching, channel.ack_delay) == (20, 0.25)


@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        ({"ack_delay": 0.1}, ValueError, "set ack_batching first"),
        ({"ack_delay": "0.1", "ack_batching": True}, TypeError, "ack_delay .*'0.1'"),
        ({"ack_delay": True, "ack_batching": 10}, TypeError, "ack_delay .*True"),
        ({"ack_delay": 2, "ack_batching": 10}, ValueError, "ack_delay is between 0 and 1 s, not 2"),
    ],
)
def test_a_wrong_delay_fails_at_the_call(
    world: World, options: dict[str, Any], kind: type[Exception], text: str
) -> None:
    world.start()
    said = len(world.broker.said[-1])
    with pytest.raises(kind, match=text):
        world.service.channel(**options)
    with pytest.raises(kind, match=text):
        world.service.consume("q", lambda message: None, **options)
    world.broker.run()
    assert len(world.broker.said[-1]) == said
    assert len(world.service._channels) == 0


def test_a_close_callback_that_raises_keeps_no_channel_closed(
    world: World, twisted_log: TwistedLog
) -> None:
    told: list[str] = []

    def callback(channel: Any, reason: BaseException) -> None:
        if not told:
            raise LookupError("no")

    channel = started(world)
    channel.add_on_close_callback(callback)
    channel.add_on_close_callback(lambda *_: told.append("the second"))
    world.broker.peer.close_channel(channel.current, 406, "PRECONDITION_FAILED")
    world.broker.run(0.1)
    assert channel.is_open and told == ["the second"]
    twisted_log.flush(LookupError)


def test_a_callback_that_is_none_is_refused_without_a_channel_too(world: World) -> None:
    channel = world.service.channel()
    with pytest.raises(TypeError, match=r"return callback .* None"):
        channel.add_on_return_callback(None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"close callback .* None"):
        channel.add_on_close_callback(None)  # type: ignore[arg-type]
    world.start()
    assert channel.is_open


def test_a_channel_that_is_closed_while_it_is_opened(world: World) -> None:
    world.start()
    world.broker.postpone = spec.Channel.Open
    channel = world.service.channel()
    opening = watch(channel.when_open())
    world.broker.run()
    channel.close()
    opening.failure(exceptions.ChannelClosedByClient)
    world.broker.catch_up()
    assert world.broker.said[-1][-1] == "Channel.Close"
    assert not channel.is_open and list(world.service._channels) == []


def test_a_return_callback_that_is_added_while_the_channel_is_set_up(world: World) -> None:
    channel = started(world)
    settled(world, channel.basic_consume("q", consumer_tag="t")).result()
    world.broker.postpone = spec.Basic.Consume
    reconnect(world)
    returned: list[Any] = []
    channel.add_on_return_callback(returned.append)
    world.broker.catch_up()
    channel.basic_publish("e", "k", b"x", mandatory=True)
    world.broker.run()
    peer = world.broker.peer
    peer.give_back(channel.current, peer.published_body(b"x"))
    assert [message.body for message in returned] == [b"x"]


@pytest.mark.parametrize("asked", ["queue_declare", "queue_delete", "basic_qos"])
def test_a_call_that_is_cancelled_while_the_broker_answers_takes_its_effect(
    world: World, asked: str
) -> None:
    channel = started(world)
    settled(world, channel.queue_declare("there")).result()
    queue, _ = settled(world, channel.basic_consume("there", consumer_tag="t")).result()
    world.broker.postpone = {
        "queue_declare": spec.Queue.Declare,
        "queue_delete": spec.Queue.Delete,
        "basic_qos": spec.Basic.Qos,
    }[asked]
    argument = {"queue_declare": "new", "queue_delete": "there", "basic_qos": 0}[asked]
    calling = getattr(channel, asked)(argument)
    outcome = settled(world, calling)
    calling.cancel()
    outcome.failure(defer.CancelledError)
    world.broker.catch_up()
    known = {"queue_declare": ["there", "new"], "queue_delete": [], "basic_qos": ["there"]}[asked]
    assert list(world.service.recorder.queues) == known
    assert (queue.closed is not None) == (asked == "queue_delete")
    reconnect(world)
    assert ("Basic.Qos" in world.broker.said[-1]) == (asked == "basic_qos")


def test_a_call_that_is_cancelled_while_it_waits_is_not_made(world: World) -> None:
    channel = started(world)
    world.lose()
    calling = channel.queue_declare("q")
    outcome = watch(calling)
    calling.cancel()
    outcome.failure(defer.CancelledError)
    world.broker.run(1)
    assert (channel.is_open, world.broker.asked(spec.Queue.Declare)) == (True, [])


def test_a_channel_that_is_closed_by_the_first_who_waited_for_it(world: World) -> None:
    """The next one's call meets a closing channel, which is to be opened again all the same."""
    channel = started(world)
    world.lose()
    channel.when_open().addCallback(lambda current: current.close())
    declaring = watch(channel.queue_declare("q"))
    world.broker.run(1)
    world.broker.run(1)
    declaring.result()
    assert channel.is_open


def test_a_table_that_is_changed_for_the_next_call(world: World) -> None:
    """A queue that comes back with another's arguments is refused for ever."""
    channel = started(world)
    table: dict[str, Any] = {"x-dead-letter-exchange": "dlx", "nested": {"of": ""}}
    for name in ("a", "b"):
        table["x-dead-letter-routing-key"] = table["nested"]["of"] = name
        settled(world, channel.queue_declare(name, arguments=table)).result()
        settled(world, channel.basic_consume(name, arguments=table)).result()
    heard = len(world.broker.heard)
    reconnect(world)
    for method in world.broker.heard[heard:]:
        if isinstance(method, (spec.Queue.Declare, spec.Basic.Consume)):
            assert method.arguments["x-dead-letter-routing-key"] == method.queue
            assert method.arguments["nested"] == {"of": method.queue}
    assert len(channel.consumer_tags) == 2


def test_arguments_that_are_no_table(world: World) -> None:
    channel = started(world)
    error = watch(channel.basic_consume("q", arguments=5)).failure(TypeError)
    assert "arguments" in str(error)
    assert not world.broker.asked(spec.Basic.Consume)
