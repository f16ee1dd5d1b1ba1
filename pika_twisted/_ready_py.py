"""What `_ready` does, with stock Deferreds only: for PyPy, and the reference to test it against."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any


class DeferredFields:
    """Adds nothing."""

    __slots__ = ()


class Ready:
    """An awaitable that has its value."""

    __slots__ = ("_value",)

    def __init__(self, value: Any) -> None:
        self._value = value

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._value
        yield


ready_next = Ready


def set_driver(code: Any) -> None:
    """Nothing depends on it here."""


def make_lazy(untouched: type, stock: type) -> None:
    """Here every Deferred is a stock one from the start."""
    untouched._stock_class = stock  # type: ignore[attr-defined]


def iterate(queue: Any) -> Any:
    """An asynchronous iterator over a queue: itself."""
    return queue


def ready(untouched: Any, turns: Any, value: Any) -> Any:
    """A Deferred that has its value."""
    deferred = untouched._stock_class() if turns is None else untouched._stock_class(turns)
    deferred.callback(value)
    return deferred


def waiting(untouched: Any, turns: Any) -> Any:
    """A Deferred that waits for its value."""
    if turns is None:
        return untouched._stock_class()
    return untouched._stock_class(turns, turns.forget)


def is_waiting(deferred: Any) -> bool:
    """Whether a Deferred has no result yet."""
    return not deferred.called


def settle(deferred: Any, value: Any) -> bool:
    """Give a Deferred that is not a stock one its value: there is none."""
    return False
