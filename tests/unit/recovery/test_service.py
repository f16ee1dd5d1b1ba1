"""The recovering service in memory: what it remembers, and what it says on the next connection."""

from __future__ import annotations

import logging
import re
import weakref
from typing import Any

import pytest
from pika import exceptions, spec
from twisted.internet import error
from twisted.logger import eventAsText, globalLogPublisher

from pika_twisted import ConnectionRefused, NotConnected
from pika_twisted.recovery.events import Events
from pika_twisted.recovery.service import RecoveringService
from pika_twisted.stats import EntityState
from pika_twisted.transport.read_gate import WaterMarks
from tests.support.outcome import watch
from tests.support.service import World, reconnect, settled, started


def test_it_says_everything_again_in_order(world: World) -> None:
    channel = world.service.channel(prefetch_count=5, confirm=True)
    early = watch(channel.exchange_declare("x"))
    world.start()
    early.result()
    for call in (
        channel.queue_declare("q"),
        channel.queue_bind("q", "x", "k"),
        channel.exchange_declare("y"),
        channel.exchange_bind("y", "x"),
    ):
        outcome = watch(call)
        world.broker.run()
        outcome.result()
    consuming = watch(channel.basic_consume("q", consumer_tag="t"))
    world.broker.run()
    consuming.result()
    world.lose()
    assert world.told == ["connected", "lost"]
    assert not channel.is_open
    world.broker.run(1)
    assert world.told == ["connected", "lost", "recovered"]
    said = [name for name in world.broker.said[-1] if not name.startswith("Connection.")]
    assert said == [
        "Channel.Open",
        "Exchange.Declare",
        "Exchange.Declare",
        "Exchange.Bind",
        "Queue.Declare",
        "Queue.Bind",
        "Channel.Close",
        "Channel.Open",
        "Basic.Qos",
        "Confirm.Select",
        "Basic.Consume",
    ]
    assert (channel.is_open, channel.consumer_tags, world.service.reconnects) == (True, ["t"], 1)


def test_a_call_waits_and_gives_up(world: World) -> None:
    world.broker.reachable = False
    world.start()
    calling = watch(world.service.channel().queue_declare("q"))
    ready = watch(world.service.when_ready())
    for _ in range(31):
        world.broker.run(1)
    why = calling.failure(NotConnected, error.TimeoutError)
    assert str(why).startswith("The service has had no connection for 30 s: ")
    assert "refused" in str(why) and isinstance(why.__cause__, ConnectionRefused)
    assert ready.pending
    assert world.told.count("recovery failed") >= 10
    world.broker.reachable = True
    world.broker.run(1)
    world.broker.run(1)
    assert ready.result() is world.service.connection


def test_a_call_on_a_service_that_was_not_started(world: World) -> None:
    calling = watch(world.service.channel().queue_declare("q"))
    world.broker.run(31)
    assert "startService() was not called" in str(calling.failure(NotConnected))


def test_a_call_on_a_channel_that_can_t_be_opened(world: World) -> None:
    """The connection is there: it is not to blame."""
    world.start()
    world.broker.postpone = spec.Channel.Open
    calling = watch(world.service.channel().queue_declare("q"))
    world.broker.run(31)
    assert str(calling.failure(NotConnected)) == "The channel has not been open for 30 s"


def test_the_first_failure_in_a_row_is_a_warning(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """Python's logging shows it without any setting; Twisted's log would keep it to itself."""
    caplog.set_level(logging.WARNING, "pika_twisted")
    world.broker.reachable = False
    world.start()
    for _ in range(10):
        world.broker.run(1)
    assert world.told.count("recovery failed") > 3
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert re.match(r"No usable connection to .*refused.*; trying again", record.getMessage())
    world.broker.reachable = True
    for _ in range(10):
        world.broker.run(1)
    world.broker.reachable = False
    world.lose()
    for _ in range(10):
        world.broker.run(1)
    lost, unusable = (record.getMessage() for record in caplog.records[1:])
    assert lost.startswith("Connection to ") and " lost: " in lost
    assert unusable.startswith("No usable connection to ")


def test_consume_waits_for_its_broker(world: World) -> None:
    world.broker.reachable = False
    world.start()
    consuming = watch(world.service.consume("q", lambda message: None, consumer_tag="t"))
    for _ in range(40):
        world.broker.run(1)
    assert consuming.pending
    world.broker.reachable = True
    world.broker.run(1)
    handling = consuming.result()
    world.lose()
    world.broker.run(1)
    (channel,) = world.service._channels
    world.broker.peer.deliver(channel.current, "t", b"x")
    assert (handling.handled, world.service.stats().handled) == (1, 1)


def test_a_call_interrupted_by_a_loss_is_made_again(world: World) -> None:
    world.start()
    channel = world.service.channel()
    world.broker.run()
    world.broker.stopped = True
    calling = watch(channel.queue_declare("q"))
    getting = watch(channel.basic_get("q"))
    publishing = watch(channel.basic_publish("", "q", b"x"))
    world.broker.run()
    world.lose()
    getting.failure(exceptions.ChannelClosed)
    publishing.result()  # no confirms: it was on its way
    world.broker.stopped = False
    world.broker.run(1)
    assert calling.result().method.queue == "q"


def test_what_is_refused_is_tried_again_by_itself(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """The rest is there meanwhile; the refusal is told once, and once more where it changes."""
    caplog.set_level(logging.INFO, "pika_twisted")
    channel = started(world)
    told: list[Any] = []
    world.service.add_callback("refused", lambda entity, reason: told.append((entity, reason)))
    world.service.add_callback("restored", told.append)
    settled(world, channel.exchange_declare("x")).result()
    settled(world, channel.queue_declare("q")).result()
    settled(world, channel.queue_bind("q", "x", "k")).result()
    world.broker.refuse = spec.Queue.Declare
    reconnect(world)
    assert world.told == ["connected", "lost", "recovered"] and channel.is_open
    ((entity, reason),) = told
    assert (entity.kind, str(entity), entity.state) == ("queue", "queue 'q'", EntityState.REFUSED)
    assert reason.reply_code == 406 and entity.reason is reason
    stats = world.service.stats()
    assert (stats.declared, stats.recovering) == (2, 0)  # the exchange, and the binding
    assert [str(each) for each in stats.refused] == ["queue 'q'"]
    asked = len(world.broker.asked(spec.Queue.Declare))
    for _ in range(120):
        world.broker.run(0.5)
    again = len(world.broker.asked(spec.Queue.Declare)) - asked
    assert 8 <= again <= 10  # after 0.1, 0.2, 0.4 ... 30 s
    assert len(told) == 1
    (error,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert error.getMessage().startswith("Refused: queue 'q': (406, 'PRECONDITION_FAILED')")
    world.broker.refuse = None
    world.broker.run(30)
    world.broker.run()
    assert [str(each) for each in told[1:]] == ["queue 'q'"]
    (restored,) = [each for each in caplog.records if each.getMessage()[:8] == "Restored"]
    assert (restored.levelname, restored.getMessage()) == ("INFO", "Restored: queue 'q'")
    assert (world.service.stats().refused, world.service.stats().declared) == ((), 3)
    assert world.told == ["connected", "lost", "recovered"]
    world.finish()


def test_a_queue_that_was_full_holds_up_no_later_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World(water_marks=WaterMarks(4, 2, 1000, 500))
    world.start()
    channel = world.service.channel()
    consuming = watch(channel.basic_consume("q", consumer_tag="t", auto_ack=True))
    world.broker.run()
    queue, _ = consuming.result()
    peer = world.broker.peer
    peer.deliver(channel.current, "t", *[b"x"] * 6)
    assert peer.transport.producerState == "paused"
    world.lose()
    world.broker.run(1)
    assert len(queue.pending) == 6
    world.broker.peer.deliver(channel.current, "t", b"x")
    assert world.broker.peer.transport.producerState == "paused"
    for _ in range(5):
        watch(queue.get()).result()
    assert world.broker.peer.transport.producerState == "producing"
    world.finish()


def test_the_broker_cancels_a_consumer(world: World) -> None:
    world.start()
    channel = world.service.channel()
    consuming = watch(channel.basic_consume("q", consumer_tag="t"))
    world.broker.run()
    queue, _ = consuming.result()
    waiting = watch(queue.get())
    world.broker.peer.send(channel.current, spec.Basic.Cancel("t", True))
    world.broker.run(0.1)
    world.broker.run()
    assert world.told == ["connected", "consumer cancelled"]
    world.broker.peer.deliver(channel.current, "t", b"again")
    assert waiting.result().body == b"again"
    cancelling = watch(channel.basic_cancel("t"))
    world.broker.run()
    cancelling.result()
    watch(queue.get()).failure(exceptions.ConsumerCancelled)
    watch(channel.basic_cancel("t")).result()


def test_wrong_arguments(world: World) -> None:
    with pytest.raises(ValueError, match="none of the events"):
        world.service.add_callback("lunch", print)
    with pytest.raises(ValueError, match="when_down"):
        world.service.publisher(when_down="drop")
    with pytest.raises(TypeError):
        RecoveringService(5, reactor=world.clock)
    with pytest.raises(TypeError, match="setup is called; 5 can't be"):
        RecoveringService(setup=5, reactor=world.clock)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("prefetch_count", "10", TypeError),
        ("prefetch_count", -1, ValueError),
        ("prefetch_count", 65_536, ValueError),
        ("ack_batching", "10", TypeError),
        ("ack_batching", 0, ValueError),
        ("setup", 5, TypeError),
    ],
)
def test_what_would_fail_on_each_connection_is_refused(
    world: World, name: str, value: Any, kind: type[Exception]
) -> None:
    with pytest.raises(kind, match=name):
        world.service.channel(**{name: value})
    assert not world.service._channels
    world.start()
    assert world.service.connection is not None


@pytest.mark.parametrize("end", ["cancel", "cancel while down", "close", "close the queue"])
def test_an_auto_delete_queue_goes_with_its_last_consumer(world: World, end: str) -> None:
    world.start()
    channel, other = world.service.channel(), world.service.channel()
    world.broker.run()
    recorder = world.service.recorder
    settled(world, channel.queue_declare("stays", exclusive=True)).result()
    settled(world, channel.basic_consume("stays", consumer_tag="s")).result()
    settled(world, channel.queue_declare("", auto_delete=True)).result()
    settled(world, channel.queue_bind("", "amq.fanout")).result()
    settled(world, other.basic_consume(world.broker.generated, consumer_tag="o")).result()
    queue, _ = settled(world, channel.basic_consume("", consumer_tag="t")).result()
    settled(world, other.basic_cancel("o")).result()
    world.lose()
    world.broker.run(1)
    name = world.broker.generated
    assert list(recorder.queues) == ["stays", name]
    if end == "cancel while down":
        world.lose()
    if end == "close":
        channel.close()
    elif end == "close the queue":
        queue.close(exceptions.ConsumerCancelled())
        world.broker.peer.deliver(channel.current, "t", b"x")
        world.broker.run()
    else:
        settled(world, channel.basic_cancel("t")).result()
        settled(world, channel.basic_cancel("s")).result()
    assert list(recorder.queues) == ["stays"]
    assert not recorder.queue_bindings


def test_no_number_goes_backwards(world: World) -> None:
    world.start()
    service, broker = world.service, world.broker
    channel = service.channel()
    broker.run()
    settled(world, channel.queue_declare("q")).result()
    settled(world, channel.basic_consume("q", consumer_tag="t")).result()
    service.startService()  # which changes nothing
    broker.run(10)
    assert service.stats().down_seconds == 0
    broker.peer.deliver(channel.current, "t", b"x", b"y")
    world.lose()
    settled(world, channel.basic_cancel("t")).result()
    assert service.stats().dropped == 2
    received = service.stats().connection.bytes_received
    broker.refuse = spec.Channel.Open
    broker.run(1)
    assert service.stats().connection.bytes_received > received + 100  # of the failed attempt
    broker.refuse = None
    broker.run(1)
    assert service.stats().down_seconds == 2
    world.finish()
    broker.run(50)  # stopped is not down
    assert service.stats().down_seconds == 2
    world.start()
    assert service.stats().down_seconds == 2


class Value:
    """Something that an event may be told with."""


def test_a_log_that_keeps_events_keeps_no_connection() -> None:
    """Twisted's own does until logging has begun: each lost connection stayed in memory."""
    kept: list[Any] = []
    globalLogPublisher.addObserver(kept.append)
    try:
        told = Events()
        value = Value()
        seen: list[Any] = []
        told.add_callback("connected", seen.append)
        told.tell("connected", value)
        assert seen == [value]
        text = repr(value)
        gone = weakref.ref(value)
        del value
        seen.clear()
        assert gone() is None
        assert text in eventAsText(kept[-1])
    finally:
        globalLogPublisher.removeObserver(kept.append)


def test_calls_while_there_is_no_connection_wait_for_it(world: World) -> None:
    channel = world.service.channel()
    assert "down" in repr(channel)
    getting = watch(channel.basic_get("q"))
    publishing = watch(channel.basic_publish("", "q", b"body"))
    assert watch(channel.basic_cancel("nobody")).result() is None
    world.start()
    assert getting.result() is None
    publishing.result()
    assert world.broker.said[-1].count("Basic.Publish") == 1
    assert "down" not in repr(channel)


def test_a_call_that_the_connection_was_lost_under_is_made_again(world: World) -> None:
    world.start()
    channel = world.service.channel()
    world.broker.run()
    world.broker.stopped = True
    declaring = settled(world, channel.queue_declare("q"))
    world.broker.stopped = False
    world.lose()
    assert declaring.pending
    world.broker.run(1)
    assert declaring.result().method.queue == "q"
    assert world.broker.said[-1].count("Queue.Declare") == 1


def test_a_consumer_that_the_connection_was_lost_under_is_begun_again(world: World) -> None:
    world.start()
    channel = world.service.channel()
    world.broker.run()
    world.broker.stopped = True
    consuming = settled(world, channel.basic_consume("q", consumer_tag="t"))
    world.broker.stopped = False
    world.lose()
    world.broker.run(1)
    queue, tag = consuming.result()
    assert tag == "t"
    world.broker.peer.deliver(channel.current.channel_number, "t", b"later")
    assert watch(queue.get()).result().body == b"later"


def test_cancelling_while_the_connection_is_down_or_is_lost(world: World) -> None:
    world.start()
    channel = world.service.channel()
    queues = [
        settled(world, channel.basic_consume("q", consumer_tag=tag)).result()[0] for tag in "ab"
    ]
    world.broker.stopped = True
    cancelling = settled(world, channel.basic_cancel("a"))
    world.broker.stopped = False
    world.broker.reachable = False
    world.lose()
    assert cancelling.result() is None
    assert watch(channel.basic_cancel("b")).result() is None
    for queue in queues:
        watch(queue.get()).failure(exceptions.ConsumerCancelled)
    world.broker.reachable = True
    world.broker.run(2)
    assert "Basic.Consume" not in world.broker.said[-1]


def test_a_closed_channel_takes_no_calls(world: World) -> None:
    world.start()
    channel = world.service.channel()
    world.broker.run()
    channel.close()
    world.broker.run()
    assert "Channel.Close" in world.broker.said[-1]
    watch(channel.queue_declare("q")).failure(exceptions.ChannelClosedByClient)
    watch(channel.when_open()).failure(exceptions.ChannelClosedByClient)


def test_callbacks_of_a_channel_come_along(world: World) -> None:
    world.start()
    channel = world.service.channel(confirm=True)
    world.broker.run()
    returned: list[bytes] = []
    closed: list[Any] = []
    channel.add_on_return_callback(lambda message: returned.append(message.body))
    channel.add_on_close_callback(lambda _channel, reason: closed.append(reason))
    world.lose()
    world.broker.run(1)
    assert len(closed) == 1
    publishing = settled(world, channel.basic_publish("", "nowhere", b"back", mandatory=True))
    number = channel.current.channel_number
    back = spec.Basic.Return(312, "NO_ROUTE", "", "nowhere")
    world.broker.peer.send_content(number, back, b"back")
    world.broker.peer.send(number, spec.Basic.Ack(1))
    publishing.failure(exceptions.UnroutableError)
    assert returned == [b"back"]


def test_a_queue_deleted_here_ends_what_consumes_from_it(world: World) -> None:
    world.start()
    channel = world.service.channel()
    settled(world, channel.queue_declare("q")).result()
    queue, _ = settled(world, channel.basic_consume("q", consumer_tag="t")).result()
    settled(world, channel.queue_delete("q")).result()
    watch(queue.get()).failure(exceptions.ConsumerCancelled)
    world.lose()
    world.broker.run(1)
    assert not {"Basic.Consume", "Queue.Declare"} & set(world.broker.said[-1])


def test_a_channel_that_the_broker_closes_is_opened_again(world: World) -> None:
    world.start()
    channel = world.service.channel(prefetch_count=3)
    world.broker.run()
    world.broker.peer.send(2, spec.Channel.Close(406, "PRECONDITION_FAILED", 0, 0))
    assert not channel.is_open
    world.broker.run()
    for _ in range(3):
        world.broker.run(5)
    assert channel.is_open
    assert world.broker.said[-1].count("Basic.Qos") == 2


def test_wrong_choices_of_a_publisher(world: World) -> None:
    for options in ({"when_down": "resend"}, {"when_lost": "wait"}):
        with pytest.raises(ValueError, match="when_down is"):
            world.service.publisher(**options)


@pytest.mark.parametrize("how", ["reconnect", "the broker cancels"])
def test_each_consumer_comes_back_with_its_own_prefetch(world: World, how: str) -> None:
    """RabbitMQ applies it to each new consumer: a later one doesn't change an earlier one."""
    world.start()
    channel = world.service.channel()
    consuming = [channel.basic_consume("q", consumer_tag="unbounded")]
    for count in (1, 5):
        channel.basic_qos(prefetch_count=count)
        consuming.append(channel.basic_consume("q", consumer_tag=f"of {count}"))
    for each in consuming:
        settled(world, each).result()
    settled(world, channel.basic_qos(prefetch_count=9)).result()
    heard = len(world.broker.heard)
    if how == "reconnect":
        world.lose()
    else:
        for tag in channel.consumer_tags:
            world.broker.peer.send(channel.current, spec.Basic.Cancel(tag, True))
    world.broker.run(1)
    world.broker.run(1)
    prefetch, begun = (0 if how == "reconnect" else 9), {}
    for method in world.broker.heard[heard:]:
        if isinstance(method, spec.Basic.Qos):
            prefetch = method.prefetch_count
        elif isinstance(method, spec.Basic.Consume):
            begun[method.consumer_tag] = prefetch
    assert begun == {"unbounded": 0, "of 1": 1, "of 5": 5}
    assert prefetch == 9


def test_a_consumer_with_its_own_prefetch_is_asked_for_until_the_broker_takes_it(
    world: World,
) -> None:
    world.start()
    channel = world.service.channel()
    channel.basic_qos(prefetch_count=1)
    settled(world, channel.basic_consume("q", consumer_tag="of 1")).result()
    settled(world, channel.basic_qos(prefetch_count=9)).result()
    world.broker.refuse = spec.Basic.Consume
    heard = len(world.broker.heard)
    world.lose()
    world.broker.run(1)
    world.broker.run(1)
    refused = sum(isinstance(m, spec.Basic.Consume) for m in world.broker.heard[heard:])
    assert refused and channel.is_open and not channel.current.consumer_tags
    world.broker.refuse = None
    for _ in range(30):
        world.broker.run(1)
    assert channel.is_open and channel.consumer_tags == ["of 1"]
    methods = [each for each in world.broker.heard if each.NAME in ("Basic.Qos", "Basic.Consume")]
    assert methods[-1].NAME == "Basic.Consume" and methods[-2].prefetch_count == 1
    assert channel.current.consumer_tags == []  # it has a channel of its own
