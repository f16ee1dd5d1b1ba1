"""Against a real broker: its queues are filled first, then each client empties one.

The broker shares the machine with its clients, so that the wall time tells what a user gets; the
CPU tells what the client took of it.
"""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import TracebackType
from typing import Any

import pika

from benchmarks import wire
from benchmarks.bars import BARS, NO_BAR
from benchmarks.rows import ACK_TITLES, STYLE_TITLES, Row
from benchmarks.runner import measure
from benchmarks.spec import TOGETHER, Spec
from benchmarks.worker import CLIENTS, TWISTED, WITHOUT_SOCKET

# What RabbitMQ 3.10 itself takes for a message depends on how many its queue holds, and on chance:
# 16 us of CPU with 100,000, most often 7.5 with 200,000, 16 again with 300,000. Compare only what
# was measured with the same number, and interleaved.
MESSAGES = 100_000
SLOW_MESSAGES = 30_000  # for clients that need several times as long
FAST = (*TWISTED, "rabbitmq-c")
# Unlimited prefetch makes the broker hold every message unacked at once. RabbitMQ's documentation
# advises 100 to 300 (https://www.rabbitmq.com/docs/confirms#channel-qos-prefetch-throughput); acks
# that leave together leave fewer in flight.
PREFETCH = 250
PREFETCH_TOGETHER = 1_000
READ_INTERVAL = 0.001


def rows(options: Namespace) -> list[Row]:
    """Return the live rows: throughput, auto-acked and acked one by one."""
    made = []
    style = options.style or "await"
    for ack in [options.ack] if options.ack else ["auto", "each", *TOGETHER]:
        specs = tuple(
            live_spec(options, client, style, mode, ack in TOGETHER)
            for client in CLIENTS
            if client != "bare" and (not options.client or client in options.client)
            if (mode := mode_of(client, ack))
        )
        title = f"live: {STYLE_TITLES[style]}, {ACK_TITLES[ack]}"
        row = Row(f"live/{style}/{ack}", title, specs, BARS.get(f"live/{ack}", NO_BAR), unit="rate")
        made += [row] if ack in TOGETHER else [row, paced(row)]
    return [row for row in made if row.specs]


def paced(row: Row) -> Row:
    """Return the same work with a read_interval, compared with the others of `row`."""
    specs = tuple(
        replace(spec, read_interval=READ_INTERVAL)
        for spec in row.specs
        if spec.client == "pika_twisted"
    )
    return replace(
        row,
        key=f"{row.key}/paced",
        title=f"{row.title}, read_interval {READ_INTERVAL * 1e3:g} ms",
        specs=specs,
        pika_row=row.key,
    )


def mode_of(client: str, ack: str) -> str:
    """Return how a client acks where `ack` is asked for, or nothing where it has no part in it."""
    if ack not in TOGETHER or client == "pika_twisted":
        return ack
    return "each" if client in FAST else ""


def live_spec(options: Namespace, client: str, style: str, ack: str, together: bool) -> Spec:
    """Return what one client does; `together`: in a row of acks that leave together."""
    messages = MESSAGES if client in FAST else SLOW_MESSAGES
    prefetch = 0 if ack == "auto" else PREFETCH_TOGETHER if together else PREFETCH
    return Spec(
        client=client,
        case="consume",
        messages=options.messages or messages,
        warmup=2_000,
        ack=ack,
        style=style,
        size=options.size,
        properties=options.properties,
        prefetch=options.prefetch or prefetch,
    )


class Broker:
    """Two queues of our own at a real broker, filled before each measurement."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._names = [f"pika-twisted-benchmark-{os.getpid()}-{part}" for part in ("warm", "main")]

    def __enter__(self) -> Broker:
        with self._channel() as channel:  # fails here, with the reason, when there is no broker
            channel.basic_qos(prefetch_count=1)
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        with self._channel() as channel:
            for name in self._names:
                channel.queue_delete(name)

    @contextmanager
    def _channel(self) -> Iterator[Any]:
        connection = pika.BlockingConnection(pika.URLParameters(self.url))
        try:
            yield connection.channel()
        finally:
            connection.close()

    def prepare(self, spec: Spec) -> Spec:
        """Fill the queues with what `spec` will consume, or empty them for its publishes."""
        warm, main = self._names
        if spec.case in WITHOUT_SOCKET:
            return spec
        with self._channel() as channel:
            for name in self._names:
                channel.queue_delete(name)
                channel.queue_declare(name, durable=True)  # 4.x may refuse transient ones
        if spec.case != "publish":
            for name, messages in ((warm, spec.warmup), (main, spec.messages)):
                self._fill(name, messages, spec)
        return replace(spec, url=self.url, queue=main, warmup_queue=warm)

    def _fill(self, name: str, messages: int, spec: Spec) -> None:
        """Publish with the C client where it can be had, which is quicker, else with pika."""
        filler = Spec(
            client="rabbitmq-c",
            case="publish",
            url=self.url,
            queue=name,
            messages=messages,
            warmup=0,
            size=spec.size,
            properties=spec.properties,
            confirm=1,
        )
        if "skipped" not in measure(filler):
            return
        properties = wire.make_properties(spec.properties)
        body = wire.make_body(spec.size)
        with self._channel() as channel:
            for _ in range(messages):
                channel.basic_publish("", name, body, properties)
