"""Every scenario on every reactor, each as a test of its own."""

from __future__ import annotations

import os

import pytest

from tests.broker.pool import Pool
from tests.broker.registry import IMPLEMENTATION_VARIABLE, REACTORS, Scenario, all_scenarios

LONG = os.environ.get("PIKA_TWISTED_TEST_LONG") == "1"
# Longer than any scenario's own timeout. Those before it run first, for as long as it takes them.
PATIENCE = 1800.0 if LONG else 600.0


def _parameters() -> list[object]:
    scenarios = list(all_scenarios().values())
    if os.environ.get(IMPLEMENTATION_VARIABLE) == "pika":
        scenarios = [each for each in scenarios if each.interface == "pika"]
    return [
        pytest.param(
            reactor,
            scenario,
            id=f"{scenario.name}-{reactor}",
            marks=[pytest.mark.own_node] if scenario.own_node else [],
        )
        for scenario in scenarios
        for reactor in REACTORS
    ]


@pytest.mark.timeout(0)  # the pool's patience ends it
@pytest.mark.parametrize(("reactor", "scenario"), _parameters())
def test_scenario(pool: Pool, reactor: str, scenario: Scenario) -> None:
    outcome = pool.outcome(reactor, scenario.name, PATIENCE)
    if outcome.problems:
        pytest.fail("\n".join(outcome.problems), pytrace=False)
    if outcome.skipped:
        pytest.skip(outcome.skipped)
