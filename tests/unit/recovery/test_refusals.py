"""The broker says no: to a call, and to what a service wants back."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from pika import exceptions, spec
from twisted.internet import defer

from pika_twisted import NotConnected
from pika_twisted.exceptions import RecoveryTimeout
from pika_twisted.stats import EntityState
from tests.support.outcome import watch
from tests.support.service import World, reconnect, settled, started

Wanted = Callable[[Any], bool]


def refuse(world: World, wanted: Wanted, code: int = 404, *, hard: bool = False) -> Wanted:
    """Let the broker refuse what `wanted(method)` says; returns what makes it agree again."""
    agree = world.broker.answer
    refusing: list[bool] = [True]

    def answer(frame: Any) -> None:
        method = getattr(frame, "method", None)
        if not (refusing and method is not None and wanted(method)):
            agree(frame)
            return
        world.broker.said[-1].append(method.NAME)
        world.broker.heard.append(method)
        index = divmod(method.INDEX, 1 << 16)
        if hard:
            world.broker.peer.send(0, spec.Connection.Close(code, "NO", *index))
        else:
            world.broker.peer.send(frame.channel_number, spec.Channel.Close(code, "NO", *index))

    world.broker.answer = answer  # type: ignore[method-assign]
    return lambda _: bool(refusing.clear())


def consumes(tag: str) -> Wanted:
    return lambda method: isinstance(method, spec.Basic.Consume) and method.consumer_tag == tag


def declares(name: str) -> Wanted:
    return lambda method: isinstance(method, spec.Queue.Declare) and method.queue == name


# Calls


@pytest.mark.parametrize("code", [503, 540, 541, 530])
def test_a_call_for_which_the_broker_closes_the_connection(world: World, code: int) -> None:
    """It fails with the broker's reason, is not made again, and not recorded."""
    channel = started(world)
    refuse(world, lambda method: isinstance(method, spec.Exchange.Declare), code, hard=True)
    declaring = watch(channel.exchange_declare("x", "no-such-type"))
    other = watch(channel.queue_declare("q"))
    world.broker.run()
    why = declaring.failure(exceptions.ConnectionClosedByBroker)
    assert why.reply_code == code
    world.broker.run(1)
    assert other.result().method.queue == "q"  # it was not to blame
    assert len(world.broker.asked(spec.Exchange.Declare)) == 1
    assert (list(world.service.recorder.exchanges), world.service.reconnects) == ([], 1)


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (320, "CONNECTION_FORCED - broker forced connection closure"),
        (541, "INTERNAL_ERROR - the metadata store operation timed out"),
    ],
)
def test_a_call_that_an_operator_or_a_minority_interrupts_is_made_again(
    world: World, code: int, text: str
) -> None:
    channel = started(world)
    world.broker.postpone = spec.Queue.Declare
    declaring = settled(world, channel.queue_declare("q"))
    world.broker.postpone = None
    index = divmod(spec.Queue.Declare.INDEX, 1 << 16)
    world.broker.peer.send(0, spec.Connection.Close(code, text, *index))
    world.broker.run()
    world.broker.run(1)
    assert declaring.result().method.queue == "q"


def test_calls_of_which_one_costs_the_connection_are_made_again_one_by_one(world: World) -> None:
    """Connection.Close names the method, not the channel."""
    channels = [started(world), *(world.service.channel() for _ in range(2))]
    world.broker.run()
    refuse(
        world,
        lambda m: isinstance(m, spec.Exchange.Declare) and m.exchange == "x1",
        503,
        hard=True,
    )
    outcomes = [watch(each.exchange_declare(f"x{n}")) for n, each in enumerate(channels)]
    for _ in range(10):
        world.broker.run(1)
    outcomes[1].failure(exceptions.ConnectionClosedByBroker)
    for each in (outcomes[0], outcomes[2]):
        each.result()
    assert sorted(world.service.recorder.exchanges) == ["x0", "x2"]


def test_a_call_behind_one_that_is_refused_is_made_again(world: World) -> None:
    """The refusal closed the channel for both; it is only the first one's."""
    channel = started(world)
    refuse(world, declares("bad"), 406)
    bad = watch(channel.queue_declare("bad"))
    good = watch(channel.queue_declare("good"))
    world.broker.run()
    bad.failure(exceptions.ChannelClosedByBroker)
    world.broker.run(0.1)
    assert good.result().method.queue == "good"
    assert list(world.service.recorder.queues) == ["good"]


@pytest.mark.parametrize("lost", [False, True])
def test_call_timeout_is_for_the_call_as_a_whole(world: World, lost: bool) -> None:
    channel = started(world)
    channel.call_timeout = 5
    world.broker.postpone = spec.Queue.Declare
    declaring = settled(world, channel.queue_declare("q"))
    for _ in range(4):
        if lost:
            world.lose()
        world.broker.run(1)
        assert declaring.pending
    world.broker.run(1)
    why = declaring.failure(NotConnected)
    if not lost:
        assert str(why) == "queue_declare() has had no answer for call_timeout=5 s"
    world.broker.catch_up()  # its answer takes effect all the same
    assert list(world.service.recorder.queues) == ["q"]


def test_many_declares_take_one_round_trip(world: World) -> None:
    channel = started(world)
    world.broker.stopped = True
    declaring = [watch(channel.queue_declare(f"q{number}")) for number in range(50)]
    binding = [watch(channel.queue_bind(f"q{number}", "x", "k")) for number in range(50)]
    world.broker.peer.read()
    sent = [frame.method.NAME for frame in world.broker.peer.frames]
    assert sent == ["Queue.Declare"] * 50 + ["Queue.Bind"] * 50
    world.broker.stopped = False
    world.broker.run()
    names = [each.result().method.queue for each in declaring]
    assert names == [f"q{number}" for number in range(50)]
    assert all(each.result() for each in binding)


# Consumers


def test_one_of_a_channel_s_consumers_whose_queue_is_gone(world: World) -> None:
    """It is found out before any of them is subscribed; and later on a channel of its own."""
    channel = started(world)
    queues = {
        tag: settled(world, channel.basic_consume(f"q{tag}", consumer_tag=tag)).result()[0]
        for tag in "abc"
    }
    agree = refuse(world, lambda method: declares("qb")(method) or consumes("b")(method))
    heard = len(world.broker.heard)
    reconnect(world)
    begun = [m for m in world.broker.heard[heard:] if isinstance(m, spec.Basic.Consume)]
    assert [each.consumer_tag for each in begun[:2]] == ["a", "c"]
    assert channel.is_open and channel.consumer_tags == ["a", "b", "c"]
    (entity,) = world.service.stats().refused
    assert (entity.kind, entity.name) == ("consumer", "consumer 'b' of queue 'qb'")
    current = channel.current
    for _ in range(20):
        world.broker.run(0.5)
    assert channel.current is current and current.consumer_tags == ["a", "c"]
    assert queues["b"].closed is None
    agree(None)
    world.broker.run(30)
    world.broker.run()
    assert world.service.stats().refused == () and channel.current is current
    (back,) = [each for each in channel.subscriptions if each.consumer_tag == "b"]
    world.broker.peer.deliver(back.channel, "b", b"back")
    watch(queues["b"].get()).result().ack()
    reconnect(world)  # all on one channel again
    assert channel.current.consumer_tags == ["a", "b", "c"]
    assert world.service.stats().connection.channels == 1


def test_an_exclusive_consumer_that_is_refused_costs_no_other(world: World) -> None:
    channel = started(world)
    for tag in "ab":
        settled(world, channel.basic_consume("q", False, tag == "b", tag)).result()
    agree = refuse(world, consumes("b"), 403)
    reconnect(world)
    current = channel.current
    assert current.consumer_tags == ["a"]
    for _ in range(5):
        world.broker.run(1)
    assert channel.current is current
    agree(None)
    world.broker.run(30)
    world.broker.run()
    assert world.service.stats().refused == ()
    assert world.service.stats().connection.consumers == 2


def test_a_consumer_for_which_the_broker_closes_the_connection_ends(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """Each attempt would cost all others their connection."""
    caplog.set_level(logging.ERROR, "pika_twisted")
    channel, other = started(world), world.service.channel()
    world.broker.run()
    settled(world, other.basic_consume("q", consumer_tag="good")).result()
    queue, _ = settled(world, channel.basic_consume("s", consumer_tag="bad")).result()
    refuse(world, consumes("bad"), 540, hard=True)
    world.lose()
    for _ in range(5):
        world.broker.run(1)
    assert watch(queue.get()).failure(exceptions.ConnectionClosedByBroker).reply_code == 540
    assert world.service.stats().connection.consumers == 1 and other.consumer_tags == ["good"]
    assert all(consumer.is_there for consumer in other.subscriptions)
    assert (channel.is_open, channel.consumer_tags) == (True, [])
    (record,) = caplog.records
    assert "consumer 'bad' of queue 's'" in record.getMessage()


def test_a_private_channel_that_the_broker_closes(world: World) -> None:
    channel = started(world)
    settled(world, channel.basic_consume("q", exclusive=True, consumer_tag="t")).result()
    reconnect(world)
    (consumer,) = channel.subscriptions
    assert consumer.channel is not channel.current
    closed: list[Any] = []
    channel.add_on_close_callback(lambda _channel, reason: closed.append(reason))
    world.broker.peer.close_channel(consumer.channel, 406, "PRECONDITION_FAILED - timeout")
    world.broker.run(0.1)
    world.broker.run()
    assert len(closed) == 1
    assert consumer.is_there and channel.is_open
    channel.close()
    world.broker.run()
    assert world.service.stats().connection.channels == 0


# Topology


def test_what_closes_the_whole_connection_is_left_out_until_the_next(world: World) -> None:
    channel = started(world)
    for name in ("bad", "good"):
        settled(world, channel.exchange_declare(name)).result()
    refuse(
        world,
        lambda m: isinstance(m, spec.Exchange.Declare) and m.exchange == "bad",
        503,
        hard=True,
    )
    for lost in (1, 2):
        world.lose()
        for _ in range(10):
            world.broker.run(1)
        assert world.service.connection is not None and channel.is_open
        asked = [each.exchange for each in world.broker.asked(spec.Exchange.Declare)]
        assert asked.count("bad") == 1 + lost  # once for each connection that was lost
        (entity,) = world.service.stats().refused
        assert (entity.name, entity.state) == ("exchange 'bad'", EntityState.REFUSED)


def test_a_queue_that_is_being_deleted_is_not_declared_again(world: World) -> None:
    """A channel that is opened again meanwhile would bring it back."""
    channel, other = started(world), world.service.channel()
    world.broker.run()
    settled(world, channel.queue_declare("q")).result()
    settled(world, other.basic_consume("q", consumer_tag="t")).result()
    world.broker.postpone = spec.Queue.Delete
    deleting = settled(world, channel.queue_delete("q"))
    asked = len(world.broker.asked(spec.Queue.Declare))
    world.broker.peer.close_channel(other.current, 404, "NOT_FOUND")
    world.broker.run(0.1)
    world.broker.run()
    assert len(world.broker.asked(spec.Queue.Declare)) == asked
    world.broker.catch_up()
    deleting.result()
    assert list(world.service.recorder.queues) == []


def test_a_delete_waits_for_what_is_being_declared(world: World) -> None:
    channel, other = started(world), world.service.channel()
    world.broker.run()
    settled(world, channel.queue_declare("q")).result()
    settled(world, other.basic_consume("q", consumer_tag="t")).result()
    world.broker.postpone = spec.Queue.Declare
    world.broker.peer.close_channel(other.current, 404, "NOT_FOUND")
    world.broker.run(0.1)
    assert world.broker.postponed
    deleting = settled(world, channel.queue_delete("q"))
    assert not world.broker.asked(spec.Queue.Delete)
    world.broker.catch_up()
    deleting.result()
    assert list(world.service.recorder.queues) == []


def test_recovery_timeout_counts_from_the_last_answer() -> None:
    world = World(recovery_timeout=10.0)
    channel = started(world)
    for name in ("a", "b", "c"):
        settled(world, channel.queue_declare(name)).result()
    reasons: list[Any] = []
    world.service.add_callback("recovery failed", reasons.append)
    world.broker.postpone = spec.Queue.Declare
    reconnect(world)
    held, world.broker.postponed = world.broker.postponed, []
    for frame in held[:2]:  # 16 s in all
        world.broker.run(8)
        world.broker.postpone = None
        world.broker.answer(frame)
        world.broker.postpone = spec.Queue.Declare
        world.broker.run()
    assert reasons == []
    world.broker.postpone = None
    world.broker.run(10)
    (reason,) = reasons
    assert isinstance(reason, RecoveryTimeout)
    assert "recovery_timeout=10 s" in str(reason) and "queue 'b'" in str(reason)
    world.broker.run(1)
    assert channel.is_open
    world.finish()


def test_a_consume_that_can_t_begin_is_in_the_log(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, "pika_twisted")
    world.start()
    world.broker.refuse = spec.Basic.Consume
    settled(world, world.service.consume("q", print)).failure(exceptions.ChannelClosedByBroker)
    (record,) = caplog.records
    assert record.getMessage().startswith("Consuming from 'q' could not be begun: (406")
    cancelled = world.service.consume("q", print)
    outcome = watch(cancelled)
    cancelled.cancel()
    outcome.failure(defer.CancelledError)
    assert len(caplog.records) == 1
