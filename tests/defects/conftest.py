"""Fixtures of the defect tests.

Every test takes a `session`, an in-memory connection between the fake broker and the adapter under
test. That is `pika_twisted`, once with direct delivery and once with every frame through pika's
state machine; `PIKA_TWISTED_TEST_ADAPTER=pika` puts pika's own adapter there instead, on which
every test of this folder has to fail (test_fails_on_pika.py sees to it).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.outcome import TwistedLog
from tests.support.session import OURS, OURS_THROUGH_PIKA, PIKA, Adapter, Session

ON_PIKA = os.environ.get("PIKA_TWISTED_TEST_ADAPTER") == "pika"
REPORT = os.environ.get("PIKA_TWISTED_TEST_REPORT")
ADAPTERS = [PIKA] if ON_PIKA else [OURS, OURS_THROUGH_PIKA]


@pytest.fixture(params=ADAPTERS, ids=lambda adapter: adapter.name)
def adapter(request: pytest.FixtureRequest) -> Adapter:
    return request.param


@pytest.fixture
def twisted_log() -> Iterator[TwistedLog]:
    with TwistedLog() as log:
        yield log


@pytest.fixture
def session(adapter: Adapter, twisted_log: TwistedLog) -> Iterator[Session]:
    session = Session(adapter)
    yield session
    session.finish()
    twisted_log.assert_empty()


_outcomes: dict[str, str] = {}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note how each test's own call ended, for the self-check in the parent process."""
    if REPORT and report.when == "call":
        crash: Any = getattr(report.longrepr, "reprcrash", None)
        reason = crash.message if crash is not None else str(report.longrepr or "")
        _outcomes[report.nodeid] = reason if report.failed else ""


def pytest_sessionfinish() -> None:
    if REPORT:
        with open(REPORT, "w", encoding="utf-8") as file:
            json.dump(_outcomes, file)
