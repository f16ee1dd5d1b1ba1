"""The Deferreds of a queue are Deferreds: whatever is done to them ends as with Twisted's own."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from twisted.internet import defer

from tests.support import queues
from tests.support.deferred_scenarios import SCENARIOS, Bench
from tests.support.outcome import TwistedLog


@pytest.fixture(autouse=True, scope="module")
def _frozen() -> Iterator[None]:
    """Each test collects garbage several times: only its own."""
    with queues.frozen():
        yield


@pytest.fixture(params=queues.IMPLEMENTATIONS)
def module(request: pytest.FixtureRequest) -> ModuleType:
    return queues.load(request.param)


def play(name: str, queue: defer.DeferredQueue[Any], *, early: bool) -> list[str]:
    with TwistedLog() as log:
        bench = Bench(queue, early=early)
        SCENARIOS[name](bench)
        notes = bench.notes
        del bench
        gc.collect()
        return notes + [f"logged {failure.type.__name__}" for failure in log.flush()]


@pytest.mark.parametrize("early", [True, False], ids=["ready", "waiting"])
@pytest.mark.parametrize("name", SCENARIOS)
def test_as_twisted(name: str, early: bool, module: ModuleType) -> None:
    expected = play(name, defer.DeferredQueue(), early=early)
    assert play(name, module.ClosableDeferredQueue(), early=early) == expected
