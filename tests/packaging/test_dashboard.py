"""The dashboard in docs/_static: it asks for metrics that exist."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

import pika_twisted
from pika_twisted import _instruments
from pika_twisted.observing.prometheus import Metrics
from pika_twisted.testing import Broker

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "docs/_static/grafana-dashboard.json"


@pytest.fixture
def samples() -> Iterator[dict[str, set[str]]]:
    """The labels of every sample that a scrape shows, by its name."""
    registry = CollectorRegistry()
    metrics, broker = Metrics(registry), Broker()
    service = pika_twisted.RecoveringService(broker.endpoint(), reactor=broker.reactor)
    metrics.watch("orders", service)
    for instrument in _instruments.added():
        with pytest.raises(LookupError), instrument.around("work")(None):
            raise LookupError
    yield {
        sample.name: set(sample.labels)
        for family in registry.collect()
        for sample in family.samples
    }
    metrics.close()
    broker.close()


def expressions(panels: list[Any]) -> list[str]:
    return [target["expr"] for panel in panels for target in panel["targets"]]


def test_every_metric_of_the_dashboard_exists(samples: dict[str, set[str]]) -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    asked = expressions(dashboard["panels"])
    asked += [each["query"]["query"] for each in dashboard["templating"]["list"][1:]]
    assert len(asked) > 15
    for expression in asked:
        names = re.findall(r"\bpika_twisted_\w+", expression)
        assert names, expression
        for name in names:
            assert name in samples, expression
            labels = re.findall(r"(\w+)=~", expression)
            grouped = re.search(r"by \(([^)]*)\)", expression)
            labels += grouped[1].split(", ") if grouped else []
            # `job` comes from Prometheus, `le` from a histogram's buckets.
            assert set(labels) - {"job"} <= samples[name], expression


def test_every_metric_of_the_page_exists_and_the_reverse(samples: dict[str, set[str]]) -> None:
    text = (ROOT / "docs/observing.md").read_text().partition("| metric |")[2].partition("\n\n")[0]
    rows = [line.split("|")[1] for line in text.splitlines()[2:]]
    named = {
        name.removeprefix("pika_twisted_") for row in rows for name in re.findall(r"`(\w+)`", row)
    }
    found = {
        re.sub(r"_(bucket|count|sum)$", "", name.removeprefix("pika_twisted_"))
        for name in samples
        if not name.endswith("_created")
    }
    assert named == found
