"""What is measured: rows of the result table, each one kind of work done by several clients."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.bars import BARS, NO_BAR, Bar
from benchmarks.spec import ACK_DELAY, BATCH, TOGETHER, Spec
from benchmarks.worker import CLIENTS, TWISTED

# Clients whose cost is tens of microseconds do a smaller part of the work: the cost per message
# stays the same (pika: 20,000 and 100,000 messages within the noise) and the run stays short.
FAST = ("pika_twisted", "rabbitmq-c", "bare")
SLOWER = 10

STYLE_TITLES = {
    "await": "await queue.get()",
    "inline": "inlineCallbacks, yield queue.get()",
    "for": "async for message in queue",
    "many": f"await queue.get_many({BATCH})",
    "fields": "await queue.get(), every field read",
}
ACK_TITLES = {
    "auto": "auto-ack",
    "each": "ack each",
    "group": "ack by the hundred",
    "batched": "ack each, with ack_batching",
    "delayed": f"ack each, with ack_batching and an ack_delay of {ACK_DELAY * 1e3:g} ms",
}
CONSUME = [
    ("await", "auto"),
    ("await", "each"),
    ("inline", "auto"),
    ("inline", "each"),
    ("for", "auto"),
    ("for", "each"),
    ("many", "auto"),
    ("many", "each"),
    ("fields", "each"),
]
PUBLISHERS = tuple(name for name in CLIENTS if name != "bare")
ALL_CLIENTS_IN = {("await", "auto"), ("await", "each")}
BODIES = {65_536: 2_000, 1_048_576: 200, 16_777_216: 12}
PUBLISHES = [
    ("publish/none", "none", 0, "no properties"),
    ("publish/usual", "usual", 0, "usual properties"),
    ("publish/confirms", "usual", 1, "usual properties, each confirmed"),
    ("publish/confirms by 100", "usual", 100, "usual properties, confirmed by the hundred"),
]


@dataclass(frozen=True)
class Row:
    """One kind of work and the clients that do it."""

    key: str
    title: str
    specs: tuple[Spec, ...]
    bar: Bar = NO_BAR
    # "us": CPU per message; "rate": wall time per message; "bytes": per message; "ms": a collection
    unit: str = "us"
    pika_row: str = (
        ""  # whose pika and rabbitmq-c numbers are compared with, where this row has none
    )

    def spec_of(self, client: str) -> Spec | None:
        """Return the client's spec, if it takes part."""
        return next((spec for spec in self.specs if spec.client == client), None)


def make_row(
    key: str, title: str, spec: Spec, clients: Iterable[str], options: Namespace, **more: str
) -> Row:
    """Return a row in which each of `clients` does the work of `spec`."""
    chosen = [name for name in clients if not options.client or name in options.client]
    specs = tuple(scaled(replace(spec, client=name), options) for name in chosen)
    return Row(key, title, specs, BARS.get(key, NO_BAR), **more)


def scaled(spec: Spec, options: Namespace) -> Spec:
    """Return `spec` with fewer messages for a slow client, unless a number was asked for."""
    if options.messages:
        return replace(spec, messages=options.messages)
    if spec.client in FAST or spec.messages < 20_000:
        return spec
    return replace(spec, messages=spec.messages // SLOWER)


def consume(options: Namespace) -> list[Row]:
    """Every style of consuming, or those asked for."""
    rows = []
    for style, ack in consume_modes(options):
        key = f"consume/{style}/{ack}"
        if options.size != 100 or options.properties != "usual" or options.prefetch:
            key += f"/{options.size}/{options.properties}/{options.prefetch}"
        spec = consume_spec(options, style, ack)
        some = (style, ack) not in ALL_CLIENTS_IN and not options.client
        clients = TWISTED if some else CLIENTS
        if ack in TOGETHER:
            clients = TWISTED[:1]
        title = f"consume: {STYLE_TITLES[style]}, {ACK_TITLES[ack]}"
        rows.append(make_row(key, title, spec, clients, options, pika_row=f"consume/await/{ack}"))
    return rows


def consume_modes(options: Namespace) -> list[tuple[str, str]]:
    """Return the (style, ack) pairs to measure."""
    if options.style and options.ack:
        return [(options.style, options.ack)]
    if options.style:
        return [(options.style, "auto"), (options.style, "each")]
    if options.ack in TOGETHER:
        return [("await", options.ack)]
    if options.ack == "group":
        return [("await", "group"), ("many", "group")]
    if options.ack:
        return [mode for mode in CONSUME if mode[1] == options.ack]
    return CONSUME


def consume_spec(options: Namespace, style: str, ack: str) -> Spec:
    """Return the spec of a consumer."""
    return Spec(
        client="",
        case="consume",
        messages=200_000,
        style=style,
        ack=ack,
        size=options.size,
        properties=options.properties,
        prefetch=options.prefetch,
    )


def publish(options: Namespace) -> list[Row]:
    """Publishing with and without properties and confirms."""
    rows = []
    for key, properties, confirm, title in PUBLISHES:
        spec = Spec(
            client="",
            case="publish",
            messages=100_000,
            size=options.size,
            properties=properties,
            confirm=confirm,
        )
        rows.append(make_row(key, f"publish: {title}", spec, PUBLISHERS, options))
    return rows


def ack(options: Namespace) -> list[Row]:
    """The call of basic_ack alone."""
    spec = Spec(client="", case="ack", messages=100_000, size=options.size)
    return [make_row("ack", "basic_ack, one by one", spec, PUBLISHERS, options)]


def bodies(options: Namespace) -> list[Row]:
    """Large bodies, auto-acked."""
    rows = []
    for size, messages in BODIES.items():
        spec = Spec(client="", case="consume", size=size, messages=messages, warmup=messages // 5)
        key = f"bodies/{size}"
        title = f"body of {size:,} bytes, auto-ack"
        rows.append(make_row(key, title, spec, (*TWISTED, "rabbitmq-c", "bare"), options))
    return rows


def waiting(options: Namespace) -> list[Row]:
    """One message per read for a consumer that waits."""
    rows = []
    for ack_mode in ("auto", "each"):
        spec = Spec(client="", case="waiting", messages=30_000, ack=ack_mode, size=options.size)
        title = f"a waiting consumer, one message per read (no socket), {ACK_TITLES[ack_mode]}"
        rows.append(make_row(f"waiting/{ack_mode}", title, spec, TWISTED, options))
    spec = Spec(client="", case="consume", messages=10_000, warmup=500, ack="each", prefetch=1)
    title = "waiting consumer over TCP, prefetch 1, ack each (reactor and system calls in)"
    rows.append(make_row("waiting/tcp", title, spec, (*TWISTED, "rabbitmq-c"), options))
    return rows


def backlog(options: Namespace) -> list[Row]:
    """get() with few and with many messages in the queue."""
    rows = []
    for depth in (10, 300_000):
        spec = Spec(client="", case="backlog", messages=10_000, backlog=depth)
        title = f"get() with {depth:,} messages waiting"
        rows.append(make_row(f"backlog/{depth}", title, spec, TWISTED, options))
    return rows


def memory(options: Namespace) -> list[Row]:
    """Resident memory of queued messages."""
    rows = []
    for properties, what in (("usual", "properties differ"), ("repeat", "properties repeat")):
        title = f"resident memory per queued message, {what}"
        specs = same_work(
            options, case="memory", messages=90_000, warmup=200, properties=properties
        )
        key = f"memory/{properties}"
        rows.append(Row(key, title, specs, BARS[key], unit="bytes"))
    return rows


def collection(options: Namespace) -> list[Row]:
    """A full cyclic collection with many messages queued."""
    title = "full cyclic collection, 100,000 queued (empty process in brackets)"
    return [Row("gc", title, same_work(options, case="gc", messages=100_000), unit="ms")]


def same_work(options: Namespace, messages: int, **fields: Any) -> tuple[Spec, ...]:
    """Return specs of the two Twisted clients with the same number of messages."""
    messages = options.messages or messages
    chosen = [name for name in TWISTED if not options.client or name in options.client]
    return tuple(Spec(client=name, messages=messages, **fields) for name in chosen)
