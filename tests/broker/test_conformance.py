"""A live RabbitMQ and the broker for tests give the same answers.

The scenarios are those of `tests/support/conformance`; they run beside each other, as most of their
time is waiting for nothing more to come.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from tests.broker.broker import Broker
from tests.support.conformance import answers
from tests.support.conformance.wires import MemoryBroker, RealBroker

AT_A_TIME = 8
SESSIONS = range(1000) if os.environ.get("PIKA_TWISTED_TEST_LONG") == "1" else range(40)


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
        item.callspec.params
        for item in request.session.items
        if item.getparent(pytest.Module) is module and hasattr(item, "callspec")
    ]
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        yield {
            **{p["name"]: pool.submit(answers.ask, p["name"], real) for p in chosen if "name" in p},
            **{
                p["seed"]: pool.submit(answers.ask_session, p["seed"], real)
                for p in chosen
                if "seed" in p
            },
        }
        pool.shutdown(cancel_futures=True)


@pytest.mark.own_node  # it has the users that some need
@pytest.mark.parametrize("name", answers.names())
def test_the_same_answers(asked: dict[Any, Future[Any]], version: str, name: str) -> None:
    assert asked[name].result() == answers.ask(name, MemoryBroker(version))


@pytest.mark.own_node
@pytest.mark.parametrize("seed", SESSIONS)
def test_a_session_of_random_calls(asked: dict[Any, Future[Any]], version: str, seed: int) -> None:
    assert asked[seed].result() == answers.ask_session(seed, MemoryBroker(version))
