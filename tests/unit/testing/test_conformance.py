"""The broker for tests gives the answers that RabbitMQ gave; `tests/broker` asks a live one."""

from __future__ import annotations

import pytest

from tests.support.conformance import answers
from tests.support.conformance.wires import MemoryBroker


@pytest.mark.parametrize("version", ["3.10", "4.0", "4.3"])
@pytest.mark.parametrize("name", answers.names())
def test_the_same_answers(name: str, version: str) -> None:
    assert answers.ask(name, MemoryBroker(version)) == answers.known(name, version)


@pytest.mark.parametrize("seed", range(20))
def test_the_same_calls_have_the_same_answers(seed: int) -> None:
    first, second = (answers.ask_session(seed, MemoryBroker("4.3")) for _ in range(2))
    assert first == second
    assert len(first) > 60


@pytest.mark.parametrize("seed", range(20))
def test_the_same_consumers_get_the_same_messages(seed: int) -> None:
    first, second = (answers.ask_consuming_session(seed, MemoryBroker("4.3")) for _ in range(2))
    assert first == second
    assert any("Basic.Deliver" in str(step) for step in first)


def test_no_answers_are_kept_for_nothing() -> None:
    assert sorted(answers.kept()) == sorted(answers.names())
