"""Sessions of random calls: the same seed makes the same calls on any broker."""

from __future__ import annotations

import random
from typing import Any

from pika import spec

from tests.support.conformance.client import Client
from tests.support.conformance.refusals import QUORUM
from tests.support.conformance.world import World

QUEUES = ("a", "b", "c")
EXCHANGES = ("x", "y")
KEYS = ("k", "k.l", "m", "")
PATTERNS = ("k", "k.*", "#", "*", "m.#")
SETTLED = 0.03  # seconds that dead letters and requeued messages take to the queue they go to


class RandomSession:
    """Calls on one channel, one after the other, each with what it was answered."""

    def __init__(self, world: World, seed: int) -> None:
        self._world = world
        self._random = random.Random(seed)
        self._client: Client = world.client()
        self._tags: list[int] = []
        self._next_tag = 1
        self._seen: list[Any] = []

    def run(self, steps: int) -> list[Any]:
        """What was called, and what came back."""
        for _ in range(steps):
            name = self._random.choice(self._calls)
            self._do(name, getattr(self, f"_{name}")())
        for queue in QUEUES:
            self._do("look", spec.Queue.Declare(queue=self._world.name(queue), passive=True))
        return self._seen

    _calls = (
        "declare",
        "declare",
        "exchange",
        "bind",
        "bind",
        "unbind",
        "publish",
        "publish",
        "publish",
        "publish",
        "get",
        "get",
        "get",
        "ack",
        "nack",
        "reject",
        "delete",
        "purge",
        "recover",
        "delete_exchange",
        "bind_exchange",
        "look",
        "cancel",
    )

    def _do(self, name: str, method: Any) -> None:
        if method is None:
            answer: Any = None
        elif name in ("ack", "nack", "reject"):
            self._client.send(1, method)
            answer = self._client.ask(1, spec.Basic.Qos())
        else:
            answer = self._client.ask(1, method)
        while answer is not None and answer[1] == "Basic.Return":
            self._seen.append(answer)
            answer = self._client.next()
        self._seen.append([name, answer])
        if answer is not None and answer[1].endswith("Connection.Close"):
            self._client = self._world.client()
            self._forget_tags()
        elif answer is not None and answer[1] == "Channel.Close":
            self._client.open_channel(1)
            self._forget_tags()
        elif answer is not None and answer[1] == "Basic.GetOk":
            self._tags.append(self._next_tag)
            self._next_tag += 1
        self._world.wait(SETTLED)

    def _forget_tags(self) -> None:
        self._tags.clear()
        self._next_tag = 1

    def _name(self, names: tuple[str, ...]) -> str:
        return self._world.name(self._random.choice(names))

    def _declare(self) -> Any:
        arguments: dict[str, Any] = self._random.choice(
            [
                {},
                {},
                {"x-max-length": 2},
                {"x-max-length": 2, "x-overflow": "reject-publish"},
                {"x-max-priority": 3},
                dict(QUORUM),
                {**QUORUM, "x-delivery-limit": 1},
                {
                    "x-dead-letter-exchange": "",
                    "x-dead-letter-routing-key": self._world.name("c"),
                    "x-max-length": 3,
                },
                {"x-dead-letter-exchange": self._world.name("x")},
            ]
        )
        return spec.Queue.Declare(queue=self._name(QUEUES), durable=True, arguments=arguments)

    def _exchange(self) -> Any:
        kind = self._random.choice(["fanout", "topic", "topic", "direct"])
        arguments = self._random.choice([{}, {}, {"alternate-exchange": self._world.name("y")}])
        return spec.Exchange.Declare(
            exchange=self._name(EXCHANGES), type=kind, durable=True, arguments=arguments
        )

    def _bind(self) -> Any:
        key = self._random.choice(PATTERNS)
        return spec.Queue.Bind(
            queue=self._name(QUEUES), exchange=self._name(EXCHANGES), routing_key=key
        )

    def _unbind(self) -> Any:
        key = self._random.choice(PATTERNS)
        return spec.Queue.Unbind(
            queue=self._name(QUEUES), exchange=self._name(EXCHANGES), routing_key=key
        )

    def _bind_exchange(self) -> Any:
        key = self._random.choice(PATTERNS)
        return spec.Exchange.Bind(
            destination=self._name(EXCHANGES), source=self._name(EXCHANGES), routing_key=key
        )

    def _publish(self) -> Any:
        if self._random.random() < 0.6:
            exchange, key = "", self._name(QUEUES)
        else:
            exchange, key = self._name(EXCHANGES), self._random.choice(KEYS)
        self._client.publish(
            1,
            exchange,
            key,
            b"%d" % self._random.randrange(1000),
            mandatory=True,
            priority=self._random.choice([None, 1, 3, 7]),
            delivery_mode=2,
        )
        return spec.Basic.Qos()

    def _get(self) -> Any:
        return spec.Basic.Get(queue=self._name(QUEUES))

    def _ack(self) -> Any:
        return spec.Basic.Ack(self._tag(), self._random.random() < 0.3)

    def _nack(self) -> Any:
        return spec.Basic.Nack(
            self._tag(), self._random.random() < 0.3, self._random.random() < 0.6
        )

    def _reject(self) -> Any:
        return spec.Basic.Reject(self._tag(), self._random.random() < 0.5)

    def _tag(self) -> int:
        return self._random.choice(self._tags) if self._tags else 99

    def _delete(self) -> Any:
        return spec.Queue.Delete(queue=self._name(QUEUES), if_empty=self._random.random() < 0.2)

    def _delete_exchange(self) -> Any:
        return spec.Exchange.Delete(
            exchange=self._name(EXCHANGES), if_unused=self._random.random() < 0.5
        )

    def _purge(self) -> Any:
        return spec.Queue.Purge(queue=self._name(QUEUES))

    def _recover(self) -> Any:
        return spec.Basic.Recover(True)

    def _look(self) -> Any:
        return spec.Queue.Declare(queue=self._name(QUEUES), passive=True)

    def _cancel(self) -> Any:
        return spec.Basic.Cancel(consumer_tag="none")


def session(seed: int, steps: int = 60) -> Any:
    """A scenario."""
    return lambda world: RandomSession(world, seed).run(steps)


class ConsumingSession:
    """Calls about the consumers of one classic queue, on two channels, each with all that comes."""

    _calls = (
        "consume",
        "consume",
        "cancel",
        "publish",
        "publish",
        "publish",
        "ack",
        "ack",
        "nack",
        "reject",
        "reopen",
        "recover",
        "qos",
        "get",
    )

    def __init__(self, world: World, seed: int) -> None:
        self._world = world
        self._random = random.Random(seed)
        self._client = world.client(channels=3)
        self._tags: dict[int, list[int]] = {1: [], 2: []}
        self._numbers = 0
        self._seen: list[Any] = []
        arguments: dict[str, Any] = self._random.choice(
            [{}, {}, {"x-single-active-consumer": True}, {"x-max-length": 2}, {"x-max-priority": 2}]
        )
        self._client.ask(
            3, spec.Queue.Declare(queue=world.name(), durable=True, arguments=arguments)
        )
        self._seen.append(arguments)

    def run(self, steps: int) -> list[Any]:
        """What was called, and what came."""
        for _ in range(steps):
            name = self._random.choice(self._calls)
            channel = self._random.choice((1, 2))
            getattr(self, f"_{name}")(channel)
            came = self._client.rest(QUIET)
            self._seen.append([name, channel, self._noted(came)])
        return self._seen

    def _noted(self, came: list[Any]) -> list[Any]:
        """What came, channel by channel: between channels there is no order."""
        for item in came:
            if item == ["end"]:
                raise AssertionError(f"the connection has ended: {came}")
            if item[1] in ("Basic.Deliver", "Basic.GetOk"):
                if item[2].get("consumer_tag", "").startswith("free"):
                    continue
                self._tags[item[0]].append(item[2]["delivery_tag"])
            elif item[1] == "Channel.Close":
                self._client.open_channel(item[0])
                self._tags[item[0]].clear()
        return sorted(came, key=lambda item: int(item[0]))

    def _consume(self, channel: int) -> None:
        self._numbers += 1
        no_ack = self._random.random() < 0.1
        tag = f"{'free' if no_ack else 'tag'}-{self._numbers % 4}-{channel}"
        arguments = {"x-priority": 1} if self._random.random() < 0.2 else None
        consume = spec.Basic.Consume(
            queue=self._world.name(),
            consumer_tag=tag,
            no_ack=no_ack,
            arguments=arguments,
            exclusive=self._random.random() < 0.05,
        )
        # A tag that is taken would end the connection.
        self._client.send(channel, spec.Basic.Cancel(tag))
        self._client.rest(QUIET)
        self._client.send(channel, consume)

    def _cancel(self, channel: int) -> None:
        self._client.send(channel, spec.Basic.Cancel(f"tag-{self._random.randrange(4)}-{channel}"))

    def _publish(self, channel: int) -> None:
        self._numbers += 1
        priority = self._random.choice([None, 1, 7])
        body = b"%d" % self._numbers
        self._client.publish(3, "", self._world.name(), body, priority=priority)

    def _taken(self, channel: int) -> int:
        tags = self._tags[channel]
        return tags.pop(self._random.randrange(len(tags))) if tags else 0

    def _ack(self, channel: int) -> None:
        tag = self._taken(channel)
        if tag:
            self._client.send(channel, spec.Basic.Ack(tag))

    def _nack(self, channel: int) -> None:
        tag = self._taken(channel)
        if tag:
            requeue = self._random.random() < 0.7
            self._client.send(channel, spec.Basic.Nack(tag, False, requeue))

    def _reject(self, channel: int) -> None:
        tag = self._taken(channel)
        if tag:
            self._client.send(channel, spec.Basic.Reject(tag, self._random.random() < 0.7))

    def _reopen(self, channel: int) -> None:
        self._client.send(channel, spec.Channel.Close(200, "", 0, 0))
        self._client.rest(QUIET)
        self._client.send(channel, spec.Channel.Open())
        self._tags[channel].clear()

    def _recover(self, channel: int) -> None:
        self._tags[channel].clear()
        self._client.send(channel, spec.Basic.Recover(True))

    def _qos(self, channel: int) -> None:
        self._client.send(
            channel, spec.Basic.Qos(prefetch_count=self._random.choice((0, 1, 1, 2, 3)))
        )

    def _get(self, channel: int) -> None:
        self._client.send(channel, spec.Basic.Get(queue=self._world.name()))


#: Seconds without a byte after which a step is over.
QUIET = 0.5


def consuming_session(seed: int, steps: int = 30) -> Any:
    """A scenario."""
    return lambda world: ConsumingSession(world, seed).run(steps)
