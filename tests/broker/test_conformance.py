"""A live RabbitMQ and the broker for tests give the same answers.

The scenarios are those of `tests/support/conformance`; they run beside each other, as most of their
time is waiting for nothing more to come.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from tests.broker.broker import Broker
from tests.support.conformance import answers
from tests.support.conformance.wires import MemoryBroker, RealBroker
from tests.support.conformance.world import AnyBroker

AT_A_TIME = 8
LONG = os.environ.get("PIKA_TWISTED_TEST_LONG") == "1"
SESSIONS = range(1000 if LONG else 40)
CONSUMING_SESSIONS = range(200 if LONG else AT_A_TIME)  # 20 s each

ASK: dict[str, Callable[[Any, AnyBroker], Any]] = {
    "name": answers.ask,
    "seed": answers.ask_session,
    "consuming_seed": answers.ask_consuming_session,
}


@pytest.fixture(scope="module")
def real(broker: Broker) -> RealBroker:
    return RealBroker(broker.host, broker.port)


@pytest.fixture(scope="module")
def version(real: RealBroker) -> str:
    return answers.version_of(real)


@pytest.fixture(scope="module")
def asked(real: RealBroker, request: pytest.FixtureRequest) -> Iterator[dict[Any, Future[Any]]]:
    """What the scenarios and sessions of this test run will have been answered."""
    module = request.node
    chosen = [
        next(iter(item.callspec.params.items()))
        for item in request.session.items
        if item.getparent(pytest.Module) is module and hasattr(item, "callspec")
    ]
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        yield {(what, which): pool.submit(ASK[what], which, real) for what, which in chosen}
        pool.shutdown(cancel_futures=True)


@pytest.mark.own_node  # it has the users that some need
@pytest.mark.parametrize("name", answers.names())
def test_the_same_answers(asked: dict[Any, Future[Any]], version: str, name: str) -> None:
    assert asked["name", name].result() == answers.ask(name, MemoryBroker(version))


@pytest.mark.own_node
@pytest.mark.parametrize("seed", SESSIONS)
def test_a_session_of_random_calls(asked: dict[Any, Future[Any]], version: str, seed: int) -> None:
    assert asked["seed", seed].result() == answers.ask_session(seed, MemoryBroker(version))


@pytest.mark.own_node
@pytest.mark.parametrize("consuming_seed", CONSUMING_SESSIONS)
def test_consumers_get_the_same(
    asked: dict[Any, Future[Any]], version: str, consuming_seed: int
) -> None:
    answer = asked["consuming_seed", consuming_seed].result()
    assert answer == answers.ask_consuming_session(consuming_seed, MemoryBroker(version))
