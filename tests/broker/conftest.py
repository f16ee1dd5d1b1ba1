"""Fixtures of the broker tests, and which of them run.

Without AMQP_URL a private node is started, in the background as soon as it is known that broker
tests will run. With AMQP_URL that broker is used, and tests that need a node they may command are
deselected, each named in the summary: none is skipped silently. No broker at all is a failure.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.broker.broker import Broker
from tests.broker.node import Node, create_node
from tests.broker.pool import Pool
from tests.broker.registry import Scenario

DESELECTED = pytest.StashKey[list[str]]()
STARTING = pytest.StashKey["Starting"]()


class Starting:
    """A node that boots (7 s) in a thread while other tests run."""

    def __init__(self) -> None:
        self._node: Node | None = None
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._start, name="node")
        self._thread.start()

    def _start(self) -> None:
        try:
            self._node = create_node()
        except Exception as error:
            self._error = error

    def node(self) -> Node:
        self._thread.join()
        if self._error is not None:
            raise self._error
        assert self._node is not None
        return self._node

    def remove(self) -> None:
        self._thread.join()
        if self._node is not None:
            self._node.stop()
            self._node.remove()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "own_node: needs a private node, not a broker of AMQP_URL")
    config.stash[DESELECTED] = []


@pytest.hookimpl(trylast=True)  # what -k leaves out is not ours to name
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if os.environ.get("AMQP_URL"):
        needs = [item for item in items if item.get_closest_marker("own_node")]
        config.stash[DESELECTED] += [item.nodeid for item in needs]
        if needs:
            config.hook.pytest_deselected(items=needs)
            items[:] = [item for item in items if item not in needs]


def pytest_collection_finish(session: pytest.Session) -> None:
    wanted = any("broker" in getattr(item, "fixturenames", ()) for item in session.items)
    if wanted and not os.environ.get("AMQP_URL") and not session.config.option.collectonly:
        session.config.stash[STARTING] = Starting()


def pytest_sessionfinish(session: pytest.Session) -> None:
    starting = session.config.stash.get(STARTING, None)
    if starting is not None:
        starting.remove()


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    names = config.stash.get(DESELECTED, [])
    if names:
        terminalreporter.section(
            f"{len(names)} deselected: AMQP_URL is set, they need a node of their own"
        )
        for name in names:
            terminalreporter.line(name)


@pytest.fixture(scope="session")
def node(pytestconfig: pytest.Config) -> Node:
    """Our own RabbitMQ; a test that uses it is marked own_node."""
    return pytestconfig.stash[STARTING].node()


@pytest.fixture(scope="session")
def broker(request: pytest.FixtureRequest) -> Broker:
    """Where the broker is: AMQP_URL's, or our own node."""
    url = os.environ.get("AMQP_URL")
    if url:
        return Broker.from_url(url)
    return request.getfixturevalue("node").broker


@pytest.fixture(scope="session")
def pool(broker: Broker, request: pytest.FixtureRequest) -> Iterator[Pool]:
    """The runners, with exactly the scenarios that this session has selected."""
    chosen: dict[str, list[Scenario]] = {}
    for item in request.session.items:
        callspec = getattr(item, "callspec", None)
        if callspec is not None and "scenario" in callspec.params:
            chosen.setdefault(callspec.params["reactor"], []).append(callspec.params["scenario"])
    pool = Pool(broker, chosen)
    pool.start()
    yield pool
    pool.stop()


@pytest.fixture(scope="session", autouse=True)
def scenarios_begin_at_once(request: pytest.FixtureRequest) -> None:
    """Let the runners work in the background of the tests before them."""
    if any("scenario" in getattr(item, "fixturenames", ()) for item in request.session.items):
        request.getfixturevalue("pool")
