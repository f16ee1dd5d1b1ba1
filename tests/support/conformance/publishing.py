"""Confirms, length limits, expiry, dead letters, transactions."""

from __future__ import annotations

from typing import Any

from pika import spec

from tests.support.conformance.client import Client
from tests.support.conformance.consuming import brief, counts, filled
from tests.support.conformance.refusals import QUORUM, consume, declare
from tests.support.conformance.routing import drained
from tests.support.conformance.world import World, scenario


def with_dead_letters(world: World, **arguments: Any) -> Client:
    """A client with a queue "q" whose dead letters go to the queue "dead"."""
    client = world.client(channels=2)
    client.ask(1, declare(world.name("dead")))
    arguments = {
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": world.name("dead"),
        **{key.replace("_", "-"): value for key, value in arguments.items()},
    }
    client.ask(1, declare(world.name(), arguments=arguments), spec.Confirm.Select())
    return client


def dead(world: World, client: Client) -> list[Any]:
    """The next dead letter."""
    got: list[Any] = []
    for _ in range(20):
        got = client.ask(2, spec.Basic.Get(queue=world.name("dead"), no_ack=True))
        if got[1] == "Basic.GetOk":
            return got
        world.wait(0.05)
    return got


def outcomes(client: Client, count: int) -> dict[str, str]:
    """What each of so many publishes got."""
    found: dict[str, str] = {}
    while len(found) < count:
        item = client.next()
        tag = item[2]["delivery_tag"]
        first = 1 if item[2]["multiple"] else tag
        for each in range(first, tag + 1):
            found.setdefault(str(each), item[1])
    return found


@scenario
def confirms(world: World) -> Any:
    client = world.client()
    client.ask(1, declare(world.name()), spec.Confirm.Select())
    client.publish(1, "", world.name(), b"1")
    first = client.next()
    client.publish(1, "", world.name(), b"2", delivery_mode=2)
    return [first, client.next()]


@scenario
def confirms_quorum(world: World) -> Any:
    client = world.client()
    client.ask(1, declare(world.name(), arguments=QUORUM), spec.Confirm.Select())
    client.publish(1, "", world.name(), b"1")
    return client.next()


@scenario
def confirms_start_with_select(world: World) -> Any:
    client = world.client()
    client.ask(1, declare(world.name()))
    client.publish(1, "", world.name(), b"before")
    client.ask(1, spec.Confirm.Select())
    client.publish(1, "", world.name(), b"after")
    return client.next()


@scenario
def max_length_drop_head(world: World) -> Any:
    client = filled(world, 5, arguments={"x-max-length": 2})
    return drained(client, world.name())


@scenario
def max_length_bytes(world: World) -> Any:
    client = filled(world, 5, arguments={"x-max-length-bytes": 3})
    return drained(client, world.name())


@scenario
def max_length_reject_publish(world: World) -> Any:
    client = world.client()
    limits = {"x-max-length": 2, "x-overflow": "reject-publish"}
    client.ask(1, declare(world.name(), arguments=limits), spec.Confirm.Select())
    found = {}
    for number in range(1, 5):
        client.publish(1, "", world.name(), str(number).encode())
        found.update(_one_outcome(client))
    return [found, drained(client, world.name())]


def _one_outcome(client: Client) -> dict[str, str]:
    item = client.next()
    return {str(item[2]["delivery_tag"]): item[1]}


@scenario
def max_length_with_consumer(world: World) -> Any:
    client = world.client(channels=2)
    limits = {"x-max-length": 1, "x-overflow": "reject-publish"}
    client.ask(1, declare(world.name(), arguments=limits), spec.Confirm.Select())
    client.ask(2, consume(world.name()))
    found = []
    for number in range(3):
        client.publish(1, "", world.name(), str(number).encode())
        found.append(sorted(each[1] for each in client.rest()))
    return found


@scenario
def dead_letter_maxlen(world: World) -> Any:
    client = with_dead_letters(world, x_max_length=1)
    client.publish(1, "", world.name(), b"1", headers={"mine": 1})
    client.publish(1, "", world.name(), b"2")
    outcomes(client, 2)
    return [dead(world, client), drained(client, world.name())]


@scenario
def dead_letter_reject_publish(world: World) -> Any:
    client = with_dead_letters(world, x_max_length=1, x_overflow="reject-publish-dlx")
    client.publish(1, "", world.name(), b"1")
    client.next()
    client.publish(1, "", world.name(), b"2")
    return [client.next()[1], dead(world, client), drained(client, world.name())]


@scenario
def dead_letter_rejected(world: World) -> Any:
    client = with_dead_letters(world)
    client.publish(1, "", world.name(), b"1", type="t", message_id="m")
    client.next()
    client.ask(2, spec.Basic.Get(queue=world.name()))
    client.send(2, spec.Basic.Reject(1, False))
    return dead(world, client)


@scenario
def dead_letter_twice(world: World) -> Any:
    client = with_dead_letters(world)
    client.publish(1, "", world.name(), b"1")
    client.next()
    letters = []
    for _ in range(2):
        tag = client.ask(2, spec.Basic.Get(queue=world.name()))[2]["delivery_tag"]
        client.send(2, spec.Basic.Nack(tag, False, False))
        letters.append(dead(world, client))
        client.publish(1, "", world.name(), b"1", headers=_sent(letters[-1][3]["headers"]))
        client.next()
    return letters


def _sent(headers: Any) -> Any:
    """Headers as they were, so that they can be published again."""
    if isinstance(headers, dict):
        return {name: _sent(value) for name, value in headers.items() if name != "time"}
    return [_sent(each) for each in headers] if isinstance(headers, list) else headers


@scenario
def dead_letter_keeps_key_and_cc(world: World) -> Any:
    client, name = world.client(channels=2), world.name
    client.ask(1, spec.Exchange.Declare(exchange=name("dlx"), type="fanout"), declare(name("dead")))
    client.ask(1, spec.Queue.Bind(queue=name("dead"), exchange=name("dlx")))
    client.ask(1, declare(name(), arguments={"x-dead-letter-exchange": name("dlx")}))
    client.ask(1, spec.Confirm.Select())
    client.publish(1, "", name(), b"1", headers={"CC": ["other"], "BCC": ["hidden"]})
    client.next()
    client.ask(2, spec.Basic.Get(queue=name()))
    client.send(2, spec.Basic.Reject(1, False))
    return dead(world, client)


@scenario
def dead_letter_missing_exchange(world: World) -> Any:
    client = world.client(channels=2)
    client.ask(1, declare(world.name(), arguments={"x-dead-letter-exchange": world.name("none")}))
    client.ask(1, spec.Confirm.Select())
    client.publish(1, "", world.name(), b"1")
    client.next()
    client.ask(2, spec.Basic.Get(queue=world.name()))
    client.send(2, spec.Basic.Reject(1, False))
    client.rest()
    return counts(world, client)


@scenario
def queue_ttl(world: World) -> Any:
    client = with_dead_letters(world, x_message_ttl=100)
    client.publish(1, "", world.name(), b"1", expiration="60000")
    client.next()
    before = counts(world, client)
    world.wait(0.4)
    return [before, counts(world, client), dead(world, client)]


@scenario
def message_ttl(world: World) -> Any:
    client = with_dead_letters(world)
    client.publish(1, "", world.name(), b"1", expiration="100")
    client.next()
    world.wait(0.4)
    return [counts(world, client), dead(world, client)]


@scenario
def message_ttl_waits_for_the_head(world: World) -> Any:
    client = with_dead_letters(world)
    client.publish(1, "", world.name(), b"long", expiration="60000")
    client.publish(1, "", world.name(), b"short", expiration="50")
    outcomes(client, 2)
    world.wait(0.3)
    before = counts(world, client)
    client.ask(2, spec.Basic.Get(queue=world.name(), no_ack=True))
    return [before, dead(world, client)[4]]


@scenario
def zero_ttl(world: World) -> Any:
    client = with_dead_letters(world)
    client.publish(1, "", world.name(), b"late", expiration="0")
    client.next()
    letter = dead(world, client)
    client.ask(2, consume(world.name()))
    client.publish(1, "", world.name(), b"in time", expiration="0")
    return [letter, [each[4] for each in client.rest() if len(each) == 5]]


@scenario
def quorum_ttl(world: World) -> Any:
    client = with_dead_letters(world, x_queue_type="quorum", x_message_ttl=100)
    client.publish(1, "", world.name(), b"1")
    client.next()
    world.wait(0.4)
    return [counts(world, client), dead(world, client)]


@scenario
def queue_expires(world: World) -> Any:
    client = world.client()
    client.ask(1, declare(world.name(), arguments={"x-expires": 150}))
    world.wait(0.6)
    return client.ask(1, declare(world.name(), passive=True))


@scenario
def queue_expires_not_while_consumed(world: World) -> Any:
    client = world.client()
    client.ask(1, declare(world.name(), arguments={"x-expires": 150}), consume(world.name()))
    world.wait(0.6)
    return client.ask(1, declare(world.name(), passive=True))


@scenario
def dead_letter_circle(world: World) -> Any:
    client = world.client(channels=2)
    arguments = {
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": world.name(),
        "x-message-ttl": 50,
    }
    client.ask(1, declare(world.name(), arguments=arguments), spec.Confirm.Select())
    client.publish(1, "", world.name(), b"round")
    client.next()
    world.wait(0.4)
    return counts(world, client)


@scenario
def delivery_limit(world: World) -> Any:
    client = with_dead_letters(world, x_queue_type="quorum", x_delivery_limit=2)
    client.publish(1, "", world.name(), b"poison")
    client.next()
    got = []
    for _ in range(4):
        item = client.ask(2, spec.Basic.Get(queue=world.name()))
        got.append(item[1:4])
        if item[1] != "Basic.GetOk":
            break
        client.send(2, spec.Basic.Nack(item[2]["delivery_tag"], False, True))
        client.rest()
    return [got, dead(world, client)]


@scenario
def priorities(world: World) -> Any:
    client = world.client()
    client.ask(1, declare(world.name(), arguments={"x-max-priority": 5}), spec.Confirm.Select())
    for body, priority in (("none", None), ("1", 1), ("5", 5), ("9", 9), ("1b", 1), ("0", 0)):
        client.publish(1, "", world.name(), body.encode(), priority=priority)
    outcomes(client, 6)
    return drained(client, world.name())


@scenario
def tx_commit(world: World) -> Any:
    client = world.client(channels=2)
    client.ask(1, declare(world.name()), spec.Tx.Select())
    client.publish(1, "", world.name(), b"1")
    client.publish(1, "amq.direct", "nowhere", b"2", mandatory=True)
    silent, before = client.rest(), counts(world, client)
    client.send(1, spec.Tx.Commit())
    return [silent, before, client.rest(), counts(world, client)]


@scenario
def tx_rollback(world: World) -> Any:
    client = world.client(channels=2)
    client.ask(1, declare(world.name()), spec.Tx.Select())
    client.publish(1, "", world.name(), b"1")
    answer = client.ask(1, spec.Tx.Rollback())
    client.ask(1, spec.Tx.Commit())
    return [answer, counts(world, client)]


@scenario
def tx_acks(world: World) -> Any:
    client = filled(world, 3)
    client.ask(2, spec.Tx.Select())
    client.steps(2, *[spec.Basic.Get(queue=world.name())] * 3)
    client.send(2, spec.Basic.Ack(1), spec.Basic.Reject(2, True))
    client.rest()
    rolled_back = client.ask(2, spec.Tx.Rollback())
    client.send(2, spec.Basic.Ack(1), spec.Basic.Reject(2, True))
    committed = client.ask(2, spec.Tx.Commit())
    client.rest()
    return [rolled_back, committed, brief([client.ask(2, spec.Basic.Get(queue=world.name()))])]


@scenario
def quorum_message_priorities(world: World) -> Any:
    client = world.client()
    client.ask(1, declare(world.name(), arguments=QUORUM), spec.Confirm.Select())
    order = [None, 0, 9, 4, 1, 5, 3, None, 9, 5, 4, 0, 31, 32, 255, 100]
    for place, priority in enumerate(order):
        client.publish(1, "", world.name(), f"{place}: {priority}".encode(), priority=priority)
    outcomes(client, len(order))
    return drained(client, world.name())
