"""Consumers, deliveries, acks, prefetch, redelivery."""

from __future__ import annotations

from typing import Any

from pika import spec

from tests.support.conformance.client import Client
from tests.support.conformance.refusals import QUORUM, STREAM, consume, declare
from tests.support.conformance.routing import published
from tests.support.conformance.world import World, scenario


def filled(world: World, count: int, name: str = "q", **options: Any) -> Client:
    """A client whose queue has messages "1", "2" and so on; its channel has confirms."""
    client = world.client(channels=2)
    client.ask(1, declare(world.name(name), **options))
    published(client, *[("", world.name(name), str(each).encode()) for each in range(1, count + 1)])
    return client


def brief(items: list[Any]) -> list[Any]:
    """Of deliveries the body, whether redelivered, and tag; of others the method."""
    return [
        [each[4], each[2]["redelivered"], each[2]["delivery_tag"]]
        if len(each) == 5 and "redelivered" in each[2]
        else each[:3]
        for each in items
    ]


def counts(world: World, client: Client, name: str = "q") -> list[int]:
    """Messages that are ready, and consumers."""
    answer = client.ask(2, declare(world.name(name), passive=True))
    return [answer[2]["message_count"], answer[2]["consumer_count"]]


@scenario
def a_delivery_in_full(world: World) -> Any:
    client = world.client()
    client.ask(1, declare(world.name()), consume(world.name(), "mine"))
    client.publish(
        1,
        "",
        world.name(),
        b"body",
        content_type="text/plain",
        headers={"a": [1, {"b": "c"}]},
        delivery_mode=2,
        priority=3,
        correlation_id="c",
        reply_to="r",
        message_id="m",
        type="t",
        app_id="a",
        content_encoding="e",
    )
    return client.take(1) + client.rest()


@scenario
def an_empty_body(world: World) -> Any:
    client = world.client()
    client.ask(1, declare(world.name()), consume(world.name()))
    client.publish(1, "", world.name())
    return client.take(1) + client.rest()


@scenario
def get_in_full(world: World) -> Any:
    client = filled(world, 3)
    return client.steps(1, *[spec.Basic.Get(queue=world.name())] * 4)


@scenario
def consume_nowait(world: World) -> Any:
    client = filled(world, 1)
    client.send(2, consume(world.name(), nowait=True))
    return client.take(1) + client.rest()


@scenario
def consumer_tag_of_the_broker(world: World) -> Any:
    client = world.client()
    return client.steps(1, declare(world.name()), consume(world.name(), ""))


@scenario
def prefetch(world: World) -> Any:
    client = filled(world, 5)
    client.ask(2, spec.Basic.Qos(prefetch_count=2))
    client.ask(2, consume(world.name()))
    first = client.rest()
    client.send(2, spec.Basic.Ack(1))
    second = client.rest()
    client.send(2, spec.Basic.Ack(3, True))
    return [brief(each) for each in (first, second, client.rest())]


@scenario
def prefetch_is_for_later_consumers(world: World) -> Any:
    client = filled(world, 3)
    client.ask(2, consume(world.name(), "a"))
    client.ask(2, spec.Basic.Qos(prefetch_count=1))
    return brief(client.rest())


@scenario
def no_ack(world: World) -> Any:
    client = filled(world, 3)
    client.ask(2, spec.Basic.Qos(prefetch_count=1))
    client.send(2, consume(world.name(), no_ack=True))
    return [brief(client.rest()), counts(world, client)]


@scenario
def ack_multiple(world: World) -> Any:
    client = filled(world, 4)
    client.ask(2, consume(world.name()))
    got = brief(client.rest())
    client.send(2, spec.Basic.Ack(3, True), spec.Basic.Ack(3))
    return [got, client.rest(), counts_after_close(world)]


def counts_after_close(world: World) -> list[int]:
    return counts(world, world.client(channels=2))


@scenario
def ack_all(world: World) -> Any:
    client = filled(world, 4)
    client.ask(2, consume(world.name()))
    client.rest()
    client.send(2, spec.Basic.Ack(0, True))
    client.ask(2, spec.Basic.Cancel("t"))
    return counts(world, client)


@scenario
def nack_requeue(world: World) -> Any:
    client = filled(world, 3)
    client.ask(2, spec.Basic.Qos(prefetch_count=3))
    client.ask(2, consume(world.name()))
    first = brief(client.rest())
    client.send(2, spec.Basic.Nack(2, True, True))
    return [first, brief(client.rest())]


@scenario
def nack_drop(world: World) -> Any:
    client = filled(world, 3)
    client.ask(2, consume(world.name()))
    client.rest()
    client.send(2, spec.Basic.Nack(0, True, False))
    client.ask(2, spec.Basic.Cancel("t"))
    return counts(world, client)


@scenario
def reject_goes_back_to_its_place(world: World) -> Any:
    client = filled(world, 4)
    client.steps(2, *[spec.Basic.Get(queue=world.name())] * 3)
    client.send(2, spec.Basic.Reject(3, True), spec.Basic.Reject(1, True))
    client.rest()
    return brief(client.steps(2, *[spec.Basic.Get(queue=world.name())] * 4))


@scenario
def quorum_reject_order(world: World) -> Any:
    client = filled(world, 4, arguments=QUORUM)
    client.steps(2, *[spec.Basic.Get(queue=world.name())] * 3)
    client.send(2, spec.Basic.Reject(3, True))
    client.rest()
    client.send(2, spec.Basic.Reject(1, True))
    client.rest()
    return brief(client.steps(2, *[spec.Basic.Get(queue=world.name())] * 3))


@scenario
def quorum_delivery_count(world: World) -> Any:
    client = filled(world, 1, arguments=QUORUM)
    got = []
    for tag in range(1, 4):
        got.append(client.ask(2, spec.Basic.Get(queue=world.name())))
        client.send(2, spec.Basic.Nack(tag, False, True))
        client.rest()
    return got


@scenario
def recover_redelivers(world: World) -> Any:
    client = filled(world, 2)
    client.ask(2, consume(world.name()))
    first = client.rest()
    client.send(2, spec.Basic.Recover(True))
    return [brief(first), sorted(brief(client.rest()), key=str)]


@scenario
def channel_close_requeues(world: World) -> Any:
    client = filled(world, 3)
    client.ask(2, consume(world.name()))
    client.rest()
    closed = client.ask(2, spec.Channel.Close(200, "", 0, 0))
    client.open_channel(2)
    client.send(2, consume(world.name()))
    return [closed, brief(client.rest())]


@scenario
def connection_end_requeues(world: World) -> Any:
    client, other = filled(world, 2), world.client(channels=2)
    client.ask(2, consume(world.name()))
    client.rest()
    closed = client.ask(0, spec.Connection.Close(200, "", 0, 0))
    other.send(1, consume(world.name()))
    return [closed, brief(other.rest())]


@scenario
def cancel_keeps_unacked(world: World) -> Any:
    client = filled(world, 2)
    client.ask(2, consume(world.name()))
    client.rest()
    cancelled = client.ask(2, spec.Basic.Cancel("t"))
    before = counts(world, client)
    client.send(2, spec.Basic.Ack(1))
    client.ask(2, spec.Channel.Close(200, "", 0, 0))
    client.open_channel(2)
    return [cancelled, before, counts(world, client)]


@scenario
def cancel_notify(world: World) -> Any:
    client = world.client(channels=2)
    client.ask(1, declare(world.name()), consume(world.name()))
    client.send(2, spec.Queue.Delete(queue=world.name()))
    return sorted(client.rest())


@scenario
def round_robin(world: World) -> Any:
    client = world.client(channels=2)
    client.ask(1, declare(world.name()), consume(world.name(), "a"), consume(world.name(), "b"))
    client.ask(1, consume(world.name(), "c"))
    for number in range(6):
        client.publish(2, "", world.name(), str(number).encode())
    return [[each[2]["consumer_tag"], each[4]] for each in client.take(6)]


@scenario
def consumer_priorities(world: World) -> Any:
    client = world.client(channels=2)
    client.ask(1, declare(world.name()), spec.Basic.Qos(prefetch_count=1))
    client.ask(1, consume(world.name(), "low", arguments={"x-priority": -1}))
    client.ask(1, consume(world.name(), "high", arguments={"x-priority": 5}))
    client.ask(1, consume(world.name(), "normal"))
    got = []
    for number in range(4):
        client.publish(2, "", world.name(), str(number).encode())
        got += client.rest()
    return [[each[2]["consumer_tag"], each[4]] for each in got]


@scenario
def single_active_consumer(world: World) -> Any:
    client = world.client(channels=2)
    client.ask(1, declare(world.name(), arguments={"x-single-active-consumer": True}))
    client.ask(1, consume(world.name(), "a"), consume(world.name(), "b"))
    client.publish(2, "", world.name(), b"1")
    client.publish(2, "", world.name(), b"2")
    got = client.rest()
    client.ask(1, spec.Basic.Cancel("a"))
    client.publish(2, "", world.name(), b"3")
    got += client.rest()
    return [[each[2]["consumer_tag"], each[4]] for each in got]


@scenario
def exclusive_queue_of_another(world: World) -> Any:
    owner, other, name = world.client(), world.client(channels=6), world.name()
    owner.ask(1, declare(name, durable=False, exclusive=True))
    asked = [
        declare(name, durable=False, passive=True),
        consume(name),
        spec.Basic.Get(queue=name),
        spec.Queue.Purge(queue=name),
        spec.Queue.Delete(queue=name),
        spec.Queue.Bind(queue=name, exchange="amq.direct"),
    ]
    answers = [other.ask(number, method) for number, method in enumerate(asked, 1)]
    owner.ask(0, spec.Connection.Close(200, "", 0, 0))
    owner.rest()
    other.open_channel(1)
    return [answers, other.ask(1, declare(name, passive=True))]


@scenario
def auto_delete_queue(world: World) -> Any:
    client = world.client()
    client.ask(1, declare(world.name(), auto_delete=True), consume(world.name()))
    client.ask(1, spec.Basic.Cancel("t"))
    return client.ask(1, declare(world.name(), passive=True))


@scenario
def server_named_queue(world: World) -> Any:
    client = world.client()
    return client.steps(1, declare("", durable=False, exclusive=True), consume(""))


@scenario
def purge_leaves_unacked(world: World) -> Any:
    client = filled(world, 4)
    client.ask(2, spec.Basic.Get(queue=world.name()))
    purged = client.ask(2, spec.Queue.Purge(queue=world.name()))
    client.send(2, spec.Basic.Reject(1, True))
    client.rest()
    return [purged, counts(world, client)]


@scenario
def delete_counts_messages(world: World) -> Any:
    client = filled(world, 4)
    return client.ask(2, spec.Queue.Delete(queue=world.name()))


@scenario
def delete_if_empty(world: World) -> Any:
    client = filled(world, 1)
    return client.ask(2, spec.Queue.Delete(queue=world.name(), if_empty=True))


@scenario
def ack_after_the_queue_is_gone(world: World) -> Any:
    client = filled(world, 2)
    client.ask(2, consume(world.name()))
    client.rest()
    # The two come on two channels, in either order.
    told = [client.ask(1, spec.Queue.Delete(queue=world.name())), *client.rest()]
    told.sort(key=lambda each: each[0])
    client.send(2, spec.Basic.Ack(2, True))
    return [told, client.rest(), client.ask(2, spec.Basic.Qos(prefetch_count=1))]


@scenario
def stream_from_the_first(world: World) -> Any:
    client = filled(world, 4, arguments=STREAM)
    client.ask(2, spec.Basic.Qos(prefetch_count=2))
    client.ask(2, consume(world.name(), arguments={"x-stream-offset": "first"}))
    got = client.rest(0.5)
    client.send(2, spec.Basic.Ack(2, True))
    return got + client.rest(0.5)


@scenario
def stream_from_an_offset(world: World) -> Any:
    client = filled(world, 4, arguments=STREAM)
    client.ask(2, spec.Basic.Qos(prefetch_count=10))
    client.ask(2, consume(world.name(), arguments={"x-stream-offset": 2}))
    return [[each[3], each[4]] for each in client.rest(0.5)]


@scenario
def stream_next(world: World) -> Any:
    client = filled(world, 2, arguments=STREAM)
    client.ask(2, spec.Basic.Qos(prefetch_count=10))
    client.ask(2, consume(world.name()))
    client.rest(0.3)
    client.publish(1, "", world.name(), b"new")
    return [[each[3], each[4]] for each in client.rest(0.5) if each[0] == 2]


@scenario
def quorum_nack_order(world: World) -> Any:
    client = filled(world, 5, arguments=QUORUM)
    client.ask(2, spec.Basic.Qos(prefetch_count=3))
    client.send(2, consume(world.name()))
    got = [client.rest()]
    client.send(2, spec.Basic.Nack(2, False, True))
    got.append(client.rest())
    client.send(2, spec.Basic.Nack(3, True, True))
    got.append(client.rest())
    return [brief(each) for each in got]


@scenario
def quorum_channel_close_order(world: World) -> Any:
    client = filled(world, 5, arguments=QUORUM)
    client.ask(2, spec.Basic.Qos(prefetch_count=3))
    client.send(2, consume(world.name()))
    client.rest()
    client.ask(2, spec.Channel.Close(200, "", 0, 0))
    client.open_channel(2)
    client.ask(2, spec.Basic.Qos(prefetch_count=3))
    client.send(2, consume(world.name()))
    return brief(client.rest())


@scenario
def quorum_get_reject(world: World) -> Any:
    client = filled(world, 3, arguments=QUORUM)
    client.ask(2, spec.Basic.Get(queue=world.name()))
    client.send(2, spec.Basic.Reject(1, True))
    client.rest()
    return brief(client.steps(2, *[spec.Basic.Get(queue=world.name())] * 3))


@scenario
def quorum_get_reject_some(world: World) -> Any:
    client = filled(world, 6, arguments=QUORUM)
    client.steps(2, *[spec.Basic.Get(queue=world.name())] * 3)
    client.send(2, spec.Basic.Reject(2, True))
    client.rest()
    return brief(client.steps(2, *[spec.Basic.Get(queue=world.name())] * 3))


@scenario
def quorum_counts(world: World) -> Any:
    """The headers of a message that was rejected, nacked, recovered, and whose channel ended."""
    client = filled(world, 1, arguments=QUORUM)
    give_back = [
        spec.Basic.Reject(1, True),
        spec.Basic.Nack(2, False, True),
        spec.Basic.Recover(True),
        spec.Channel.Close(200, "", 0, 0),
    ]
    got = []
    for method in give_back:
        got.append(client.ask(2, spec.Basic.Get(queue=world.name()))[2:4])
        client.send(2, method)
        client.rest()
    client.open_channel(2)
    got.append(client.ask(2, spec.Basic.Get(queue=world.name()))[2:4])
    return [[each[0]["redelivered"], each[1]] for each in got]
