"""Metrics for Prometheus: what a scrape shows of services, connections and handlers."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from twisted.internet import task

import pika_twisted
from pika_twisted.observing.prometheus import Metrics
from pika_twisted.testing import Broker


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> Iterator[Metrics]:
    made = Metrics(registry)
    yield made
    made.close()


def test_a_service(registry: CollectorRegistry, metrics: Metrics) -> None:
    broker = Broker()
    service = pika_twisted.RecoveringService(broker.endpoint(), reactor=broker.reactor)
    metrics.watch("orders", service)

    def value(name: str) -> float | None:
        return registry.get_sample_value(f"pika_twisted_{name}", {"name": "orders"})

    assert value("connected") == 0

    async def work() -> None:
        service.startService()
        channel = service.channel(confirm=True)
        await channel.queue_declare("work", durable=True)
        done: list[bytes] = []

        async def handler(message: Any) -> None:
            done.append(message.body)
            if message.body == b"bad":
                raise LookupError("no such order")

        await service.consume("work", handler, on_error="dead-letter")
        for body in (b"good", b"bad", b"good"):
            await channel.basic_publish("", "work", body)
        while len(done) < 3:
            await task.deferLater(broker.reactor, 0.1)
        assert value("connected") == 1
        assert value("messages_received_total") == 3
        assert value("handled_total") == 2
        assert value("handler_failures_total") == 1
        assert value("consumers") == 1
        await task.deferLater(broker.reactor, 0.1)  # the last ack arrives
        broker.cut()
        await task.deferLater(broker.reactor, 0.01)
        assert value("connected") == 0
        await service.when_ready()
        assert value("connected") == 1
        assert value("reconnects_total") == 1
        await service.stopService()

    broker.run(work())
    labels = {"queue": "work"}
    assert registry.get_sample_value("pika_twisted_handler_seconds_count", labels) == 3
    errors = {"queue": "work", "error": "LookupError"}
    assert registry.get_sample_value("pika_twisted_handler_errors_total", errors) == 1
    text = generate_latest(registry).decode()
    assert "# TYPE pika_twisted_queued_messages gauge" in text
    assert "# TYPE pika_twisted_published_total counter" in text


def test_a_connection(registry: CollectorRegistry, metrics: Metrics) -> None:
    broker = Broker()

    async def work() -> None:
        connection = await broker.connect()
        metrics.watch("plain", connection)
        await connection.channel()

    broker.run(work())
    assert registry.get_sample_value("pika_twisted_channels", {"name": "plain"}) == 1


def test_what_is_gone_is_not_reported(registry: CollectorRegistry, metrics: Metrics) -> None:
    broker = Broker()
    service = pika_twisted.RecoveringService(broker.endpoint(), reactor=broker.reactor)
    metrics.watch("a", service)
    assert registry.get_sample_value("pika_twisted_connected", {"name": "a"}) == 0
    del service
    gc.collect()
    assert registry.get_sample_value("pika_twisted_connected", {"name": "a"}) is None


def test_only_what_has_stats_is_watched(metrics: Metrics) -> None:
    with pytest.raises(TypeError, match="source has no stats"):
        metrics.watch("wrong", object())


def test_closed_it_measures_nothing_more(registry: CollectorRegistry) -> None:
    made = Metrics(registry)
    made.close()
    assert not list(registry.collect())
