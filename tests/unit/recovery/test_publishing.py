"""Publishers of a service: across losses, while it is down, while it stops."""

from __future__ import annotations

from typing import Any

import pytest
from pika import exceptions, spec

from pika_twisted import PublishTimeout
from tests.support.outcome import watch
from tests.support.service import World, reconnect, settled, started


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
