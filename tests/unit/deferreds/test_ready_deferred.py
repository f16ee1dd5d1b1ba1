"""The Deferreds of a queue are Deferreds: whatever is done to them ends as with Twisted's own."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from twisted.internet import defer

from pika_twisted.deferreds import _ready
from pika_twisted.deferreds import lazy as _deferreds
from tests.support import coroutine_scenarios, queues
from tests.support.deferred_scenarios import SCENARIOS, Bench
from tests.support.outcome import TwistedLog

assert coroutine_scenarios  # its scenarios are in the table, too


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


@pytest.mark.parametrize("early", [True, False], ids=["ready", "waiting"])
# Until somebody begins to log, Twisted keeps what is logged.
@pytest.mark.parametrize("name", [name for name in SCENARIOS if not name.startswith("unhandled")])
def test_nothing_leaks(name: str, early: bool) -> None:
    """The fields in C are counted right, on every path: a leak shows in each run of 50."""
    queue_class = queues.load("compiled").ClosableDeferredQueue
    grown = []
    for _ in range(10):
        before = sys.getallocatedblocks()
        for _ in range(50):
            SCENARIOS[name](Bench(queue_class(), early=early))
        gc.collect()
        grown.append(sys.getallocatedblocks() - before)
        if grown[-1] < 25:
            return
    raise AssertionError(f"blocks allocated by 50 runs each: {grown}")


@pytest.fixture
def untouched() -> type[Any]:
    """The class of the Deferreds that nobody has looked at."""
    return type(queues.load("compiled").ClosableDeferredQueue().get())


def test_awaiting_builds_no_stock_deferred(untouched: type[Any]) -> None:
    """Or the whole module would be for nothing."""
    queue = queues.load("compiled").ClosableDeferredQueue()
    seen = []

    async def coroutine() -> None:
        for _ in range(3):
            seen.append(queue.get())
            await seen[-1]

    @defer.inlineCallbacks
    def generator() -> Any:
        for _ in range(3):
            seen.append(queue.get())
            yield seen[-1]

    for start in (lambda: defer.ensureDeferred(coroutine()), generator):
        queue.put("early")
        outcome = start()
        queue.put("late")
        queue.put("late")
        assert outcome.called
    assert [type(deferred) for deferred in seen] == [untouched] * 6
    assert seen[0].__class__ is not untouched
    assert type(seen[0]) is untouched
    assert seen[0].called
    assert type(seen[0]) is seen[0].__class__


def test_the_untouched_class_can_be_called(untouched: type[Any]) -> None:
    for touch in (lambda d: d.addBoth(str), lambda d: d.called, lambda d: setattr(d, "mine", 1)):
        deferred = untouched(None)
        touch(deferred)
        deferred.callback(1)
        assert type(deferred) is deferred.__class__ is not untouched


def test_a_driver_that_returns_something() -> None:
    """Twisted's returns None; what any other callback of its code returned would be the result."""

    def driver(result: Any, *args: Any) -> Any:
        if args == ("fail",):
            raise LookupError(result)
        return (result, *args)

    queue = queues.load("compiled").ClosableDeferredQueue()
    _ready.set_driver(driver.__code__)
    try:
        for early in (True, False):
            results = []
            for args in ((), (1, 2), tuple(range(20)), ("fail",), (defer.succeed("inner"),)):
                if early:
                    queue.put("message")
                d = queue.get().addBoth(driver, *args)
                if not early:
                    queue.put("message")
                d.addErrback(lambda failure: failure.type)
                results.append(d.result)
            assert results[0] == ("message",)
            assert results[1] == ("message", 1, 2)
            assert results[2] == ("message", *range(20))
            assert results[3] is LookupError
    finally:
        _ready.set_driver(_deferreds.DRIVER)


def test_debugging_counts_from_when_it_is_switched_on(module: ModuleType) -> None:
    queue = module.ClosableDeferredQueue()

    def remembers() -> list[bool]:
        waiting = queue.get()
        queue.put(None)
        queue.put(None)
        return [d._debugInfo is not None for d in (waiting, queue.get())]

    try:
        for _ in range(100):
            defer.setDebugging(True)
            assert remembers() == [True, True]
            assert remembers() == [True, True]
            defer.setDebugging(False)
            assert remembers() == [False, False]
            assert remembers() == [False, False]
            defer.Deferred.unrelated = 1  # type: ignore[attr-defined]
            assert remembers() == [False, False]
            del defer.Deferred.unrelated  # type: ignore[attr-defined]
    finally:
        defer.setDebugging(False)
