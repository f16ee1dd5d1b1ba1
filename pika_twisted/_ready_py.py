"""What `_ready` does, with stock Deferreds only: for PyPy, and the reference to test it against."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

_deferred_class: Callable[..., Any]


class LazyDeferred:
    """Adds nothing: here every Deferred is stock from the start."""

    __slots__ = ()


class Ready:
    """An awaitable that has its value."""

    __slots__ = ("_value",)

    def __init__(self, value: Any) -> None:
        self._value = value

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._value
        yield


def configure(deferred_class: Callable[..., Any], function: Any) -> None:
    """Set the class that `ready` and `waiting` make."""
    global _deferred_class
    _deferred_class = deferred_class


def ready_next(value: Any) -> Ready:
    """An awaitable that gives `value`. It is no Deferred."""
    return Ready(value)


def ready(turns: Any, value: Any) -> Any:
    """A Deferred that has its value."""
    deferred = _deferred_class(turns)
    deferred.callback(value)
    return deferred


def waiting(turns: Any) -> Any:
    """A Deferred that waits for its value."""
    return _deferred_class(turns, turns.forget)


def is_waiting(deferred: Any) -> bool:
    """Whether a Deferred has no result yet."""
    return not deferred.called


def settle(deferred: Any, value: Any) -> bool:
    """Give a Deferred that is not a stock one its value: there is none."""
    return False
