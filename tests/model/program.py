"""Programs as data: steps with small numbers, made from a seed.

A step's numbers choose among what is there when it runs (`a` modulo the number of channels, say),
so a program from which steps were removed is a program still.
"""

from __future__ import annotations

import random
from typing import NamedTuple

#: Step -> how often. Those of a client first, then the broker's, then time.
CLIENT = {
    "channel": 2,
    "consume": 8,
    "get": 9,
    "get_many": 4,
    "iterate": 3,
    "drain": 1,
    "close_queue": 1,
    "cancel_consumer": 3,
    "basic_get": 5,
    "ack": 12,
    "nack": 4,
    "reject": 3,
    "ack_up_to": 3,
    "ack_all": 3,
    "settle_again": 2,
    "recover": 2,
    "qos": 1,
    "confirm": 4,
    "publish": 12,
    "twins": 3,
    "declare": 2,
    "delete": 2,
    "purge": 1,
    "handle": 4,
    "stop": 2,
    "publisher": 2,
    "publisher_publish": 8,
    "publisher_close": 1,
    "watch_frame": 2,
    "close_channel": 1,
    "close_connection": 0.3,
    "connect": 0.5,
    "cancel": 10,
    "collect": 0.3,
}
BROKER = {
    "put": 12,
    "cancel_notify": 2,
    "close_by_broker": 1,
    "close_connection_by_broker": 0.3,
    "refuse": 2,
    "block": 0.5,
    "unblock": 0.5,
    "freeze": 0.5,
    "thaw": 1,
    "hold_confirms": 1,
    "release_confirms": 1.5,
    "hold_deliveries": 1,
    "release_deliveries": 1.5,
    "cut": 0.3,
    "cut_after": 0.4,
    "rebind": 1,
}
TIME = {"turn": 25, "wait": 4}
#: What may only happen where a callback runs.
INSIDE = {**CLIENT, "put": 3, "boom": 1}


class Step(NamedTuple):
    """One call; `inside` are the steps of the first callback of its Deferred."""

    op: str
    a: int = 0
    b: int = 0
    c: int = 0
    inside: tuple[Step, ...] = ()

    def __repr__(self) -> str:
        inside = f", inside={self.inside!r}" if self.inside else ""
        return f"Step({self.op!r}, {self.a}, {self.b}, {self.c}{inside})"


class Program(NamedTuple):
    """Steps, and how the broker and its wire are."""

    latency: float
    read_size: int
    late_deliveries: int
    #: Of the first channels: which acks they batch, and how their messages are settled.
    style: int
    steps: tuple[Step, ...]


def generate(seed: int) -> Program:
    """Return the program of a seed."""
    chance = random.Random(seed)
    everything = {**CLIENT, **BROKER, **TIME}
    # Not all in one program: rare combinations come up where others are left out.
    share = chance.choice((0.3, 0.6, 1.0))
    weights = {
        op: weight * chance.choice((0.5, 1, 3))
        for op, weight in everything.items()
        if op in ("turn", "put", "consume") or chance.random() < share
    }
    inside = {op: INSIDE[op] for op in INSIDE if op in weights or op == "boom"}
    steps = tuple(_step(chance, weights, inside) for _ in range(chance.choice((8, 20, 40))))
    return Program(
        chance.choice((0.0, 0.0, 0.01, 0.2)),
        chance.choice((1 << 16, 1 << 16, 1 << 16, 40, 7)),
        chance.choice((0, 0, 3)),
        chance.randrange(36),
        steps,
    )


def _step(
    chance: random.Random, weights: dict[str, float], inside: dict[str, float], depth: int = 0
) -> Step:
    op = chance.choices(list(weights), list(weights.values()))[0]
    nested: tuple[Step, ...] = ()
    if depth < 2 and chance.random() < 0.25:
        nested = tuple(
            _step(chance, inside, inside, depth + 1) for _ in range(chance.choice((1, 1, 2)))
        )
    return Step(op, chance.randrange(60), chance.randrange(60), chance.randrange(60), nested)
