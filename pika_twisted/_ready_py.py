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


def set_get_class(untouched: Any) -> None:
    """Tell the class of what a queue's `get()` returns."""
    global _untouched_get
    _untouched_get = untouched


_untouched_get: Any = None


def ready_get(turns: Any, value: Any) -> Any:
    """A queue's Deferred that has its value."""
    return ready(_untouched_get, turns, value)


def waiting_get(turns: Any, order: Any, wanted: int) -> Any:
    """A queue's Deferred that waits for its value; `order` remembers what it wants."""
    deferred = waiting(_untouched_get, turns)
    order[deferred] = wanted
    return deferred


def serve(pending: Any, order: Any, turns: Any) -> None:
    """Give what is pending to what waits, the oldest first, until one of the two is used up."""
    while pending and order:
        waiter, wanted = order.popitem(last=False)
        # Fired by somebody else: the message is for the next one.
        if is_waiting(waiter):
            value = pending.popmany(wanted) if wanted > 0 else pending.popleft()
            turns.fire(waiter, value)
