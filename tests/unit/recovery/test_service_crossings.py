"""What happens in the middle of something: while a service recovers, or is asked something."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pika import exceptions, spec
from twisted.internet import defer

from pika_twisted import TwistedProtocolConnection, WaterMarks
from tests.support.outcome import watch
from tests.support.service import World, reconnect, settled, started


def test_a_full_queue_whose_consumer_the_broker_cancels_holds_nobody_up() -> None:
    """It is not counted twice: at what it was filled from, and from the next consumer on."""
    world = World(water_marks=WaterMarks(high_messages=4, low_messages=1))
    channel = started(world)
    queue, _ = settled(world, channel.basic_consume("q", consumer_tag="t")).result()
    peer, gate = world.broker.peer, world.service.connection._impl.gate
    with peer.one_read():
        peer.deliver(channel.current, "t", *[b"x"] * 4)
        peer.send(channel.current, spec.Basic.Cancel("t", True))
    assert gate.full
    watch(queue.get()).result()
    world.broker.run(0.2)
    assert len(world.broker.asked(spec.Basic.Consume)) == 2
    for _ in range(3):
        watch(queue.get()).result()
    assert not gate.full
    world.finish()


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


def test_what_is_published_while_a_loss_is_told_is_sent_again_in_its_order(world: World) -> None:
    channel = started(world)
    publisher = world.service.publisher(when_lost="resend")
    world.broker.run()
    outcomes: list[Any] = []

    def publish(body: bytes) -> None:
        outcomes.append(watch(publisher.publish("e", "k", body)))

    channel.add_on_close_callback(lambda *_: publish(b"third"))
    publish(b"first")
    publish(b"second")
    world.broker.run()
    reconnect(world)
    world.broker.run()
    sent = world.broker.peer.published
    assert [message.body for message in sent] == [b"first", b"second", b"third"]
    world.broker.peer.ack(sent[-1].channel, 3, multiple=True)
    assert all(each.result() for each in outcomes)


def test_an_attempt_that_the_end_of_the_service_cuts_off_has_not_failed(world: World) -> None:
    world.broker.stopped = True
    world.start()
    stopping = settled(world, world.service.stopService())
    world.broker.run(1)
    stopping.result()
    assert (world.service.stats().failed_attempts, world.service.trouble) == (0, None)
    world.broker.reachable = False
    world.start()
    assert world.service.stats().failed_attempts == 1
    assert "refused" in str(world.service.trouble)


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
    world.broker.refuse = spec.Queue.Declare
    reconnect(world)
    world.broker.refuse = None
    world.broker.run(2)
    assert isinstance(waiting[-1].result(), TwistedProtocolConnection)
    assert not any(each.pending for each in waiting)
