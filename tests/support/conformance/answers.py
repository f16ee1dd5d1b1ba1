"""What RabbitMQ answered, release by release."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.support.conformance import (  # noqa: F401 - they add scenarios
    connecting,
    consuming,
    publishing,
    refusals,
    routing,
)
from tests.support.conformance.client import Client
from tests.support.conformance.sessions import consuming_session, session
from tests.support.conformance.world import SCENARIOS, AnyBroker, run

FILE = Path(__file__).with_name("answers.json")


def names() -> list[str]:
    """The scenarios."""
    return list(SCENARIOS)


def ask(name: str, broker: AnyBroker) -> Any:
    """What a broker answers in a scenario, as JSON has it."""
    return json.loads(json.dumps(run(name, SCENARIOS[name], broker)))


def ask_session(seed: int, broker: AnyBroker) -> Any:
    """What a broker answers in a session of random calls."""
    return json.loads(json.dumps(run(f"session_{seed}", session(seed), broker)))


def ask_consuming_session(seed: int, broker: AnyBroker) -> Any:
    """What a broker answers in a session of random calls about consumers."""
    return json.loads(json.dumps(run(f"consuming_{seed}", consuming_session(seed), broker)))


def version_of(broker: AnyBroker) -> str:
    """The release, such as "3.10"."""
    client = Client(broker.wire())
    client.start()
    client.wire.close()
    return ".".join(client.server_properties["version"].split(".")[:2])


def kept() -> dict[str, dict[str, Any]]:
    """By scenario: the answers by versions, which stand together where they are the same."""
    return json.loads(FILE.read_text()) if FILE.exists() else {}


def versions() -> list[str]:
    """The releases whose answers are kept."""
    return sorted({each for by in kept().values() for key in by for each in key.split()})


def known(name: str, version: str) -> Any:
    """What a release answered."""
    for key, answer in kept()[name].items():
        if version in key.split():
            return answer
    raise KeyError(f"{name} was not asked of {version}")


def keep(broker: AnyBroker, version: str, chosen: list[str]) -> None:
    """Ask in these scenarios and write it down."""
    before, after = kept(), {}
    for name in SCENARIOS:
        by = {each: _answer(before.get(name, {}), each) for each in _versions(before.get(name, {}))}
        if name in chosen:
            by[version] = ask(name, broker)
        grouped: dict[str, list[str]] = {}
        for each, answer in sorted(by.items()):
            grouped.setdefault(json.dumps(answer), []).append(each)
        after[name] = {" ".join(group): json.loads(text) for text, group in grouped.items()}
    lines = [f"{json.dumps(name)}: {json.dumps(after[name])}" for name in sorted(after)]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def _versions(by: dict[str, Any]) -> list[str]:
    return [each for key in by for each in key.split()]


def _answer(by: dict[str, Any], version: str) -> Any:
    return next(answer for key, answer in by.items() if version in key.split())
