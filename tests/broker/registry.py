"""The list of scenarios: each a coroutine `async def name(env)` in a module scenarios_*.py."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

#: "ours", or "pika" for the scenarios that pika's own adapter passes.
IMPLEMENTATION_VARIABLE = "PIKA_TWISTED_TEST_IMPLEMENTATION"
REACTORS = ("epoll", "select", "asyncio")
ScenarioFunction = Callable[..., Awaitable[None]]

_scenarios: dict[str, Scenario] = {}


@dataclass(frozen=True)
class Scenario:
    """One thing to show, on each reactor."""

    name: str
    function: ScenarioFunction
    timeout: float
    own_node: bool  # needs a node it may command: users, TLS, kill, freeze
    beside: bool  # mostly waits, or has a node of its own to wait for: runs beside all others
    interface: str  # "pika": also pika's own adapter has it; "ours": new in pika_twisted


def scenario(
    *,
    timeout: float = 60.0,
    own_node: bool = False,
    beside: bool = False,
    interface: str = "pika",
    variants: dict[str, dict[str, Any]] | None = None,
) -> Callable[[ScenarioFunction], ScenarioFunction]:
    """Register a coroutine; with `variants` once per entry: `name[key]`, called with its value."""

    def register(function: ScenarioFunction) -> ScenarioFunction:
        calls = {function.__name__: function}
        if variants is not None:
            calls = {
                f"{function.__name__}[{key}]": functools.partial(function, **arguments)
                for key, arguments in variants.items()
            }
        for name, call in calls.items():
            if name in _scenarios:
                raise ValueError(f"two scenarios are named {name}")
            _scenarios[name] = Scenario(name, call, timeout, own_node, beside, interface)
        return function

    return register


def all_scenarios() -> dict[str, Scenario]:
    """Every scenario by name, in the order of the modules and of the definitions in them."""
    import tests.broker as package

    for module in sorted(pkgutil.iter_modules(package.__path__), key=lambda each: each.name):
        if module.name.startswith("scenarios_"):
            importlib.import_module(f"{package.__name__}.{module.name}")
    return dict(_scenarios)
