"""Metrics for Prometheus, read from `stats()` when they are asked for: no cost for a message.

Needs the extra `prometheus` (`prometheus_client`). For example::

    metrics = Metrics()                       # in prometheus_client's default registry
    metrics.watch("orders", service)          # a RecoveringService, or a connection

How long handlers of `consume()` take is measured for each message, by queue, from the first
`Metrics` on, for every `consume()` that is called after it.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import fields
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from pika_twisted import _instruments
from pika_twisted.stats import ConnectionStats, ServiceStats

__all__ = ["Metrics"]

PREFIX = "pika_twisted"

#: Upper bounds in seconds: a handler that does nothing to one that nears consumer_timeout.
BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)

#: Fields of the stats that say how it is now; all others only grow.
_NOW = {
    "connected",
    "declared",
    "recovering",
    "refused",
    "unconfirmed",
    "in_flight",
    "waiting",
    "is_blocked",
    "channels",
    "consumers",
    "queued_messages",
    "queued_bytes",
}
_HELP = {
    "connected": "1 while there is a connection, else 0",
    "bytes_received": "Bytes read from the broker",
    "bytes_sent": "Bytes written to the broker",
    "messages_received": "Messages delivered to consumers or fetched by gets",
    "unconfirmed": "Publishes that wait for their confirm",
    "is_blocked": "1 while the broker takes no publishes (Connection.Blocked), else 0",
    "down_seconds": "Seconds without a connection",
    "reconnects": "Connections after the first",
    "declared": "Exchanges, queues, bindings and consumers that the broker has",
    "recovering": "Exchanges, queues, bindings and consumers that wait for the broker",
    "refused": "Exchanges, queues, bindings and consumers that the broker refuses to have again",
}


class Metrics(Collector):
    """Counters and gauges of services and connections, and a histogram of handlers.

    :param registry: where to register; prometheus_client's default one, None for nowhere
    """

    def __init__(self, registry: CollectorRegistry | None = REGISTRY) -> None:
        self._watched: dict[str, weakref.ref[Any]] = {}
        self._handlers = _Handlers(registry)
        self._registry = registry
        _instruments.add(self._handlers)
        if registry is not None:
            registry.register(self)

    def watch(self, name: str, source: Any) -> None:
        """Report the numbers of `source` under the label `name`, as long as it exists.

        :param name: the label; a second source of that name replaces the first
        :param source: a RecoveringService or a TwistedProtocolConnection
        :raises TypeError: `source` has no `stats()`
        """
        if not callable(getattr(source, "stats", None)):
            raise TypeError(f"source has no stats(): {source!r}")
        self._watched[name] = weakref.ref(source)

    def forget(self, name: str) -> None:
        """Report `name` no more."""
        self._watched.pop(name, None)

    def close(self) -> None:
        """Leave the registry, and measure no handlers of consumers that are made from now on."""
        _instruments.remove(self._handlers)
        if self._registry is not None:
            self._registry.unregister(self)
            self._handlers.unregister(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Give the numbers of this moment; prometheus_client calls it at each scrape."""
        families: dict[str, Metric] = {}
        for name, reference in list(self._watched.items()):
            source = reference()
            if source is None:
                del self._watched[name]
                continue
            for field, value in _numbers(source.stats()):
                if field not in families:
                    families[field] = _family(field)
                families[field].add_metric([name], float(value))  # type: ignore[attr-defined]
        yield from families.values()

    def describe(self) -> list[Metric]:
        """Give no names in advance: what is watched decides."""
        return []


class _Handlers:
    """The instrument that times the handlers of `consume()`."""

    def __init__(self, registry: CollectorRegistry | None) -> None:
        self._seconds = Histogram(
            f"{PREFIX}_handler_seconds",
            "Seconds that one call of a handler took",
            ["queue"],
            buckets=BUCKETS,
            registry=registry,
        )
        self._failures = Counter(
            f"{PREFIX}_handler_errors",
            "Handlers that raised, by exception class",
            ["queue", "error"],
            registry=registry,
        )

    def on_channel(self, channel: Any) -> None:
        """Channels are counted by `stats()`."""

    def around(self, queue: str) -> Callable[[Any], AbstractContextManager[Any]]:
        seconds = self._seconds.labels(queue)

        @contextmanager
        def timed(_message: Any) -> Iterator[None]:
            begin = time.perf_counter()
            try:
                yield
            except BaseException as error:
                self._failures.labels(queue, type(error).__name__).inc()
                raise
            finally:
                seconds.observe(time.perf_counter() - begin)

        return timed

    def unregister(self, registry: CollectorRegistry) -> None:
        registry.unregister(self._seconds)
        registry.unregister(self._failures)


def _numbers(stats: ServiceStats | ConnectionStats) -> Iterator[tuple[str, float]]:
    for field in fields(stats):
        value = getattr(stats, field.name)
        if isinstance(value, ConnectionStats):
            yield from _numbers(value)
        elif isinstance(value, tuple):
            yield field.name, len(value)
        elif isinstance(value, (int, float)):
            yield field.name, value


def _family(field: str) -> Metric:
    help_text = _HELP.get(field, field.replace("_", " ").capitalize())
    if field in _NOW:
        return GaugeMetricFamily(f"{PREFIX}_{field}", help_text, labels=["name"])
    return CounterMetricFamily(f"{PREFIX}_{field}", help_text, labels=["name"])
