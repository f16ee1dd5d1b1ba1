"""Where messages go: types of exchanges, bindings, alternate exchanges, CC and BCC, returns."""

from __future__ import annotations

from typing import Any

from pika import spec

from tests.support.conformance.client import Client
from tests.support.conformance.refusals import bind, bind_exchange, declare, exchange
from tests.support.conformance.world import World, scenario


def drained(client: Client, *queues: str) -> list[list[str]]:
    """The bodies in each queue, taken with Basic.Get."""
    found = []
    for queue in queues:
        bodies = []
        while True:
            got = client.ask(1, spec.Basic.Get(queue=queue, no_ack=True))
            if got[1] != "Basic.GetOk":
                break
            bodies.append(got[4])
        found.append(bodies)
    return found


def confirmed(client: Client, count: int) -> None:
    """Wait until so many publishes are confirmed; a frame may confirm several."""
    highest = 0
    while highest < count:
        ack = client.next()
        assert ack[1] == "Basic.Ack", ack
        highest = max(highest, ack[2]["delivery_tag"])


def published(client: Client, *messages: tuple[Any, ...], **properties: Any) -> None:
    """Publish (exchange, key, body) with confirms, and wait for these."""
    client.ask(1, spec.Confirm.Select())
    for where, key, body in messages:
        client.publish(1, where, key, body, **properties)
    seen = 0
    while seen < len(messages):
        ack = client.next()
        seen = max(seen, ack[2]["delivery_tag"])
    client.rest(0.05)


@scenario
def direct_exchange(world: World) -> Any:
    client, name = world.client(), world.name
    client.ask(1, exchange(name("e"), "direct"), declare(name("a")), declare(name("b")))
    client.ask(1, bind(name("a"), name("e"), "k"), bind(name("b"), name("e"), "k"))
    client.ask(1, bind(name("a"), name("e"), "l"), bind(name("a"), name("e"), "k"))
    published(client, (name("e"), "k", b"1"), (name("e"), "l", b"2"), (name("e"), "m", b"3"))
    return drained(client, name("a"), name("b"))


@scenario
def fanout_exchange(world: World) -> Any:
    client, name = world.client(), world.name
    client.ask(1, exchange(name("e")), declare(name("a")), declare(name("b")))
    client.ask(1, bind(name("a"), name("e"), "k"), bind(name("b"), name("e")))
    published(client, (name("e"), "k", b"1"), (name("e"), "z", b"2"))
    return drained(client, name("a"), name("b"))


@scenario
def topic_exchange(world: World) -> Any:
    client, name = world.client(), world.name
    patterns = ["a.*", "a.#", "#", "*.b", "#.c.#", "a.*.c", "*", "", "#.b", "a.#.d.#"]
    keys = ["a", "a.b", "a.b.c", "b", "", "c", "a.d", "x.c.y", "a.b.d.e", ".", "a..b"]
    client.ask(1, exchange(name("e"), "topic"))
    queues = [name(f"q{number}") for number in range(len(patterns))]
    for queue, pattern in zip(queues, patterns, strict=True):
        client.ask(1, declare(queue), bind(queue, name("e"), pattern))
    published(client, *[(name("e"), key, f"<{key}>".encode()) for key in keys])
    return dict(zip(patterns, drained(client, *queues), strict=True))


@scenario
def headers_exchange(world: World) -> Any:
    client, name = world.client(), world.name
    bindings: list[dict[str, Any]] = [
        {"a": 1, "b": "x"},
        {"x-match": "all", "a": 1},
        {"x-match": "any", "a": 1, "b": "x"},
        {"x-match": "any"},
        {"x-match": "all"},
        {"x-match": "all", "x-y": 1, "a": 1},
        {"x-match": "all-with-x", "x-y": 1, "a": 1},
        {"x-match": "any-with-x", "x-y": 1},
        {"a": None},
    ]
    messages: list[dict[str, Any]] = [
        {},
        {"a": 1},
        {"a": 1, "b": "x"},
        {"b": "x"},
        {"a": "1"},
        {"a": 2, "x-y": 1},
        {"a": 1, "x-y": 1},
    ]
    client.ask(1, exchange(name("e"), "headers"))
    queues = [name(f"q{number}") for number in range(len(bindings))]
    for queue, arguments in zip(queues, bindings, strict=True):
        client.ask(1, declare(queue), bind(queue, name("e"), arguments=arguments))
    client.ask(1, spec.Confirm.Select())
    for headers in messages:
        client.publish(1, name("e"), "", str(headers).encode(), headers=headers)
    confirmed(client, len(messages))
    return drained(client, *queues)


@scenario
def exchange_to_exchange(world: World) -> Any:
    client, name = world.client(), world.name
    client.ask(1, exchange(name("source"), "topic"), exchange(name("target")), declare(name()))
    client.ask(1, bind(name(), name("target")), bind(name(), name("source"), "x.#"))
    client.ask(1, bind_exchange(name("target"), name("source"), "a.#"))
    client.ask(1, bind_exchange(name("source"), name("target"), ""))  # round in a circle
    published(
        client,
        (name("source"), "a.b", b"1"),
        (name("source"), "x.y", b"2"),
        (name("source"), "z", b"3"),
    )
    before = drained(client, name())
    client.ask(
        1,
        spec.Exchange.Unbind(destination=name("target"), source=name("source"), routing_key="a.#"),
    )
    client.publish(1, name("source"), "a.b", b"4")
    client.next()
    return [before, drained(client, name())]


@scenario
def alternate_exchange(world: World) -> Any:
    client, name = world.client(), world.name
    client.ask(1, exchange(name("last")), declare(name("lost")), bind(name("lost"), name("last")))
    client.ask(
        1,
        exchange(name("e"), "direct", arguments={"alternate-exchange": name("last")}),
        declare(name("found")),
        bind(name("found"), name("e"), "k"),
        spec.Confirm.Select(),
    )
    client.publish(1, name("e"), "k", b"1", mandatory=True)
    client.publish(1, name("e"), "other", b"2", mandatory=True)
    confirmed(client, 2)
    return drained(client, name("found"), name("lost"))


@scenario
def mandatory_return(world: World) -> Any:
    client = world.client()
    client.ask(1, spec.Confirm.Select())
    client.publish(1, "amq.direct", "nowhere", b"back", mandatory=True, type="t", headers={"a": 1})
    return client.take(2) + client.rest()


@scenario
def not_mandatory(world: World) -> Any:
    client = world.client()
    client.ask(1, spec.Confirm.Select())
    client.publish(1, "amq.direct", "nowhere", b"away")
    return client.take(1) + client.rest()


@scenario
def mandatory_default_exchange(world: World) -> Any:
    client = world.client()
    client.publish(1, "", world.name("none"), b"back", mandatory=True)
    return client.take(1) + client.rest()


@scenario
def publish_to_missing_exchange(world: World) -> Any:
    client = world.client()
    client.publish(1, world.name("e"), "k", b"x")
    return client.take(1) + client.rest()


@scenario
def publish_to_internal_exchange(world: World) -> Any:
    client = world.client()
    client.ask(1, exchange(world.name("e"), internal=True))
    client.publish(1, world.name("e"), "k", b"x")
    return client.take(1) + client.rest()


@scenario
def cc_and_bcc(world: World) -> Any:
    client, name = world.client(), world.name
    client.ask(1, declare(name("a")), declare(name("b")), declare(name("c")), spec.Confirm.Select())
    headers = {"CC": [name("b")], "BCC": [name("c"), name("a")], "mine": 1}
    client.publish(1, "", name("a"), b"x", headers=headers)
    confirmed(client, 1)
    return [client.ask(1, spec.Basic.Get(queue=name(each), no_ack=True)) for each in "abc"]


@scenario
def unbound_and_deleted(world: World) -> Any:
    client, name = world.client(), world.name
    client.ask(1, exchange(name("e"), "direct"), declare(name("a")), declare(name("b")))
    client.ask(1, bind(name("a"), name("e"), "k"), bind(name("b"), name("e"), "k"))
    client.ask(1, spec.Queue.Unbind(queue=name("a"), exchange=name("e"), routing_key="k"))
    published(client, (name("e"), "k", b"1"))
    bodies = drained(client, name("a"), name("b"))
    client.ask(1, spec.Queue.Delete(queue=name("b")))
    client.publish(1, name("e"), "k", b"2", mandatory=True)
    return [bodies, *client.take(2)]


@scenario
def auto_delete_exchange(world: World) -> Any:
    client, name = world.client(), world.name
    client.ask(1, exchange(name("e"), auto_delete=True), declare(name()), bind(name(), name("e")))
    client.ask(1, spec.Queue.Unbind(queue=name(), exchange=name("e")))
    return client.ask(1, exchange(name("e"), passive=True))


@scenario
def auto_delete_exchange_with_its_queue(world: World) -> Any:
    client, name = world.client(), world.name
    client.ask(1, exchange(name("e"), auto_delete=True), declare(name()), bind(name(), name("e")))
    client.ask(1, spec.Queue.Delete(queue=name()))
    return client.ask(1, exchange(name("e"), passive=True))


@scenario
def direct_reply_to(world: World) -> Any:
    asking, answering, name = world.client(), world.client(), world.name
    answering.ask(1, declare(name()))
    asking.ask(1, spec.Basic.Consume(queue="amq.rabbitmq.reply-to", consumer_tag="r", no_ack=True))
    asking.publish(1, "", name(), b"question", reply_to="amq.rabbitmq.reply-to")
    asking.rest()
    answering.send(1, spec.Basic.Get(queue=name(), no_ack=True))
    asked, properties = _unmasked(answering)
    answering.publish(1, "", properties.reply_to, b"answer")
    answer = asking.next()
    there = answering.ask(1, spec.Queue.Declare(queue=properties.reply_to, passive=True))
    asking.ask(1, spec.Channel.Close(200, "", 0, 0))
    answering.rest()
    answering.publish(1, "", properties.reply_to, b"too late", mandatory=True)
    return [asked, answer, there, answering.next()]


@scenario
def direct_reply_to_mandatory(world: World) -> Any:
    asking, answering, name = world.client(), world.client(), world.name
    answering.ask(1, declare(name()))
    asking.ask(1, spec.Basic.Consume(queue="amq.rabbitmq.reply-to", consumer_tag="r", no_ack=True))
    asking.publish(1, "", name(), b"question", reply_to="amq.rabbitmq.reply-to")
    asking.rest()
    answering.send(1, spec.Basic.Get(queue=name(), no_ack=True))
    _asked, properties = _unmasked(answering)
    answering.ask(1, spec.Confirm.Select())
    answering.publish(1, "", properties.reply_to, b"answer", mandatory=True)
    return [asking.next(), answering.rest()]


def _unmasked(client: Client) -> tuple[Any, Any]:
    """The next content, and its properties with the names that the broker made up."""
    seen: list[Any] = []
    client.on_properties = seen.append
    item = client.next()
    client.on_properties = None
    return item, seen[-1]
