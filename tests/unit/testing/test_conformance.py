"""The broker for tests gives the answers that RabbitMQ gave; `tests/broker` asks a live one."""

from __future__ import annotations

import pytest

from tests.support.conformance import answers
from tests.support.conformance.wires import MemoryBroker


@pytest.mark.parametrize("version", ["3.10", "4.0", "4.3"])
@pytest.mark.parametrize("name", answers.names())
def test_the_same_answers(name: str, version: str) -> None:
    assert answers.ask(name, MemoryBroker(version)) == answers.known(name, version)


def test_no_answers_are_kept_for_nothing() -> None:
    assert sorted(answers.kept()) == sorted(answers.names())
