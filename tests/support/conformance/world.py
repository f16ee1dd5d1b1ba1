"""The list of scenarios, and what each is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from pika import spec

from tests.support.conformance.client import Client
from tests.support.conformance.wires import Wire


class AnyBroker(Protocol):
    def wire(self) -> Wire: ...
    def wait(self, seconds: float) -> None: ...


class World:
    """One scenario on one broker."""

    def __init__(self, name: str, broker: AnyBroker) -> None:
        self._name = name
        self._broker = broker
        self._clients: list[Client] = []
        self._names: set[str] = set()

    def name(self, suffix: str = "q") -> str:
        """A name of a queue or an exchange that goes at the end."""
        name = f"conformance.{self._name}.{suffix}"
        self._names.add(name)
        return name

    def connect(self) -> Client:
        """A client that has not said anything yet."""
        client = Client(self._broker.wire())
        self._clients.append(client)
        return client

    def client(self, **login: Any) -> Client:
        """A client with channel 1, and more with `channels`."""
        return self.connect().open(**login)

    def wait(self, seconds: float) -> None:
        self._broker.wait(seconds)

    def clean(self) -> None:
        """Delete what has a name, and hang up."""
        for client in self._clients:
            client.wire.close()
        client = Client(self._broker.wire()).open()
        for name in sorted(self._names):
            client.ask(1, spec.Queue.Delete(queue=name), spec.Exchange.Delete(exchange=name))
        client.ask(0, spec.Connection.Close(200, "", 0, 0))
        client.wire.close()


Scenario = Callable[[World], Any]
SCENARIOS: dict[str, Scenario] = {}


def scenario(function: Scenario) -> Scenario:
    """Add a scenario."""
    add(function.__name__, function)
    return function


def add(name: str, function: Scenario) -> None:
    """Add a scenario by name."""
    if name in SCENARIOS:
        raise ValueError(f"two scenarios are named {name}")
    SCENARIOS[name] = function


def run(name: str, function: Scenario, broker: AnyBroker) -> Any:
    """What a client sees in a scenario."""
    world = World(name, broker)
    try:
        return function(world)
    finally:
        world.clean()
