"""What seldom happens to a service: refusals, and endings in the middle of something."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pika import exceptions, spec
from twisted.internet import defer, error
from twisted.internet.task import deferLater
from twisted.logger import eventAsText, globalLogPublisher

from pika_twisted import NotConnected, PublishTimeout
from tests.support import wire
from tests.support.outcome import TwistedLog, watch
from tests.support.service import World, reconnect, settled, started

# Calls


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


def test_a_handler_s_refused_queue_leaves_no_channel(world: World) -> None:
    world.start()
    world.broker.refuse = spec.Basic.Consume
    consuming = settled(world, world.service.consume("q", lambda message: None))
    consuming.failure(exceptions.ChannelClosedByBroker)
    assert list(world.service._channels) == []
    world.broker.run(5)
    assert world.broker.said[-1].count("Channel.Open") == 2  # the service's own, and this one


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
    first = settled(world, channel.queue_declare("")).result().method.queue
    settled(world, channel.queue_bind("", "x", "k")).result()
    settled(world, channel.basic_consume("", consumer_tag="t")).result()
    reconnect(world)
    second = world.broker.generated
    assert renamed == [(first, second)] and first != second
    assert [bind.queue for bind in world.broker.asked(spec.Queue.Bind)] == [first, second]
    assert [each.queue for each in world.broker.asked(spec.Basic.Consume)] == [first, second]
    assert repr(channel.subscriptions) == f"[<Subscription t to {second!r}>]"
    settled(world, channel.queue_delete(first)).result()  # the earlier name still works
    assert [delete.queue for delete in world.broker.asked(spec.Queue.Delete)] == [second]
    assert channel.consumer_tags == []


# Consumers


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
    world.broker.postpone = spec.Basic.Consume
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


def offset(number: Any) -> spec.BasicProperties:
    return spec.BasicProperties(headers={"x-stream-offset": number})


@pytest.mark.parametrize(
    ("taken", "resumed"),
    [(0, 7), (2, 9), (3, 10)],
    ids=["nothing taken", "some taken", "all taken"],
)
def test_a_stream_goes_on_where_it_was(world: World, taken: int, resumed: int) -> None:
    channel = started(world)
    consuming = channel.basic_consume("s", consumer_tag="t", arguments={"x-stream-offset": "first"})
    queue, _ = settled(world, consuming).result()
    for tag in (1, 2, 3):
        deliver = spec.Basic.Deliver("t", tag, False, "", "s")
        world.broker.peer.send_content(channel.current, deliver, b"x", offset(6 + tag))
    for _ in range(taken):
        watch(queue.get()).result()
    reconnect(world)
    offsets = [each.arguments for each in world.broker.asked(spec.Basic.Consume)]
    assert offsets == [{"x-stream-offset": "first"}, {"x-stream-offset": resumed}]
    assert (len(queue.pending), world.service.stats().dropped) == (0, 3 - taken)


@pytest.mark.parametrize(("kind", "resumed"), [("stream", {"x-stream-offset": 8}), ("quorum", {})])
def test_a_stream_is_known_by_its_declaration(world: World, kind: str, resumed: Any) -> None:
    channel = started(world)
    arguments = {"x-queue-type": kind}
    settled(world, channel.queue_declare("s", durable=True, arguments=arguments)).result()
    queue, _ = settled(world, channel.basic_consume("s", consumer_tag="t")).result()
    deliver = spec.Basic.Deliver("t", 1, False, "", "s")
    world.broker.peer.send_content(channel.current, deliver, b"x", offset(7))
    watch(queue.get()).result()
    reconnect(world)
    assert [each.arguments for each in world.broker.asked(spec.Basic.Consume)] == [{}, resumed]


@pytest.mark.parametrize(
    "properties",
    [
        b"\x00\x00",
        wire.headers_only(wire.sized(wire.entry(b"x-stream-offset", b"S" + wire.sized(b"x")))),
        wire.headers_only(wire.sized(wire.entry(b"x-stream-offset", b"?"))),
    ],
    ids=["nowhere", "no number", "undecodable"],
)
def test_a_stream_without_offsets_begins_as_it_was_asked(world: World, properties: bytes) -> None:
    channel = started(world)
    consuming = channel.basic_consume("s", consumer_tag="t", arguments={"x-stream-offset": 3})
    settled(world, consuming).result()
    number = channel.current.channel_number
    world.broker.peer.send_bytes(wire.content(number, b"x", properties, wire.deliver("t")))
    reconnect(world)
    offsets = [each.arguments for each in world.broker.asked(spec.Basic.Consume)]
    assert offsets == [{"x-stream-offset": 3}] * 2


# Opening and closing


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


def test_a_handler_that_fails_while_a_stream_s_channel_is_lost(world: World) -> None:
    """The stream goes on behind its message, which therefore is handled here again."""
    world.start()
    begun: list[bytes] = []

    def handler(message: Any) -> None:
        begun.append(message.body)
        if len(begun) < 3:
            raise RuntimeError("no")

    arguments = {"x-stream-offset": "first"}
    handling = settled(world, world.service.consume("s", handler, arguments=arguments)).result()
    deliver = spec.Basic.Deliver(handling.consumer_tag, 1, False, "", "s")
    world.broker.peer.send_content(handling.channel.current, deliver, b"x", offset(6))
    reconnect(world)
    assert begun == [b"x"] * 3
    resumed = world.broker.asked(spec.Basic.Consume)[-1].arguments
    assert resumed == {"x-stream-offset": 7}
    assert (handling.handled, handling.failed) == (1, 2)


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
    world.broker.run(0.2)
    assert (channel.is_open, world.told.count("recovery failed")) == (False, 2)
    world.broker.run(0.4)
    assert channel.is_open
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


@pytest.mark.parametrize(
    ("name", "wrong"), [("max_size", 1), ("max_message_size", "1M"), ("handshake_timeout", "5")]
)
def test_an_option_that_can_t_be_fails_at_once(name: str, wrong: Any) -> None:
    with pytest.raises(TypeError, match=name):
        World(**{name: wrong})


def test_a_channel_whose_setup_fails_is_not_left_open(world: World) -> None:
    def setup(channel: Any) -> None:
        raise LookupError("no")

    world.start()
    world.service.channel(setup=setup)
    for _ in range(10):
        world.broker.run(1)
    assert world.told.count("recovery failed") > 3
    assert world.service.stats().connection.channels == 0


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
    settled(world, channel.queue_declare("")).result()
    world.service.add_callback(
        event, lambda *_: stopping or stopping.append(watch(world.service.stopService()))
    )
    if event == "connected":
        world.service.tell(event, world.service.connection)
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


def test_the_log_names_the_broker(world: World) -> None:
    said: list[str] = []

    def observe(event: Any) -> None:
        said.append(eventAsText(event))

    globalLogPublisher.addObserver(observe)
    try:
        world.broker.reachable = False
        world.start()
    finally:
        globalLogPublisher.removeObserver(observe)
    assert any("retry" in line and str(world.service._name) in line for line in said), said


# Publishers


def test_a_publisher_made_while_the_service_stops(world: World) -> None:
    world.start()
    publisher = world.service.publisher()
    publishing = watch(publisher.publish("", "q", b"1"))
    assert bodies(world) == [b"1"]
    stopping = watch(world.service.stopService())
    late = watch(world.service.publisher().publish("", "q", b"2"))
    world.broker.run(world.service.drain_timeout)
    settled(world, stopping.deferred)
    stopping.result()
    assert not publishing.pending and not late.pending


def bodies(world: World) -> list[bytes]:
    world.broker.run()
    return [message.body for message in world.broker.peer.published]


def test_a_publisher_waits_for_each_connection(world: World) -> None:
    publisher = world.service.publisher(when_lost="resend")
    early = watch(publisher.publish("", "q", b"1"))
    assert repr(publisher) == "<Publisher 0 in flight, 1 waiting>"
    world.start()
    assert bodies(world) == [b"1"]
    assert repr(publisher) == "<Publisher 1 in flight, 0 waiting>"
    reconnect(world)
    assert early.pending and bodies(world) == [b"1"]
    world.broker.peer.ack(2, 1)
    early.result()
    stats = world.service.stats()
    assert (stats.confirmed, stats.resent, stats.in_flight, stats.waiting) == (1, 1, 0, 0)


def test_what_was_sent_is_sent_again_where_nothing_waits(world: World) -> None:
    world.start()
    publisher = world.service.publisher(when_down="fail", when_lost="resend", max_in_flight=2)
    world.broker.run()
    first, second, third = (watch(publisher.publish("", "q", b"x")) for _ in range(3))
    world.lose()
    third.failure(exceptions.StreamLostError)
    publisher.max_in_flight = 1
    world.broker.run(1)
    assert (publisher.in_flight, publisher.waiting) == (1, 1)
    reconnect(world)  # the second has not been sent again
    assert (publisher.in_flight, publisher.waiting) == (1, 1)
    for each, number in ((first, 1), (second, 2)):
        world.broker.peer.send(publisher._channel, spec.Basic.Ack(number))
        each.result()
    assert (publisher.confirmed, publisher.failed, publisher.resent) == (2, 1, 3)


def test_a_publisher_that_is_closed_leaves_no_channel(world: World) -> None:
    world.start()
    first = world.service.publisher(max_in_flight=1)
    world.broker.run()
    sent, waits = (watch(first.publish("", "q", b"x")) for _ in range(2))
    first.close()
    waits.failure(exceptions.ChannelClosedByClient)
    world.broker.run()
    assert world.service.stats().connection.channels == 1  # what is in flight goes on
    world.broker.peer.send(first._channel, spec.Basic.Ack(1))
    sent.result()
    world.broker.run()
    stats = world.service.stats()
    assert stats.connection.channels == 0
    assert (stats.confirmed, stats.publish_failures, stats.in_flight) == (1, 1, 0)
    reconnect(world)
    assert world.service.stats().connection.channels == 0
    early = world.service.publisher()
    early.close()
    world.broker.run()
    assert world.service.stats().connection.channels == 0


def test_a_publish_that_times_out_while_it_is_down_says_why(world: World) -> None:
    publisher = world.service.publisher(timeout=5)
    publishing = watch(publisher.publish("", "q", b"x"))
    world.clock.advance(5)
    assert "startService() was not called" in str(publishing.failure(PublishTimeout))
    world.start()
    world.broker.reachable = False
    world.lose()
    publishing = watch(publisher.publish("", "q", b"x"))
    world.broker.run(5)
    late = publishing.failure(PublishTimeout)
    assert str(late).startswith("not confirmed within 5 s; there is no connection: ")
    assert str(world.service.trouble) in str(late)
    assert type(late.__cause__) is type(world.service.trouble)
    world.broker.reachable = True
    world.broker.run(5)
    publishing = settled(world, publisher.publish("", "q", b"x"))
    world.broker.run(5)
    assert str(publishing.failure(PublishTimeout)) == "not confirmed within 5 s"


def test_a_publisher_that_fails_while_it_is_down(world: World) -> None:
    publisher = world.service.publisher(when_down="fail")
    watch(publisher.publish("", "q", b"early")).failure(exceptions.ConnectionWrongStateError)
    world.start()
    publisher.max_in_flight = 1
    sent, waiting = (watch(publisher.publish("", "q", body)) for body in (b"1", b"2"))
    assert bodies(world) == [b"1"]
    world.lose()
    sent.failure(exceptions.AMQPConnectionError)
    waiting.failure(exceptions.AMQPConnectionError)
    watch(publisher.publish("", "q", b"3")).failure(exceptions.ConnectionWrongStateError)
    world.broker.run(1)
    outcome = watch(publisher.publish("", "q", b"4"))
    assert bodies(world) == [b"4"] and outcome.pending


@pytest.mark.parametrize("confirmed", [True, False])
def test_stopping_waits_for_confirms_so_long(world: World, confirmed: bool) -> None:
    publisher = world.service.publisher()
    world.start()
    publishing = watch(publisher.publish("", "q", b"1"))
    assert bodies(world) == [b"1"]
    number = world.broker.peer.published[0].channel
    stopping = settled(world, world.service.stopService())
    world.broker.run(world.service.drain_timeout - 0.5)
    assert stopping.pending and "Connection.Close" not in world.broker.said[-1]
    if confirmed:
        world.broker.peer.ack(number, 1)
    world.broker.run(0 if confirmed else 1)
    stopping.result()
    if confirmed:
        publishing.result()
    else:
        publishing.failure(exceptions.ChannelClosedByClient)
    late = watch(publisher.publish("", "q", b"late"))
    assert "The service is stopped" in str(late.failure(exceptions.AMQPConnectionError))
