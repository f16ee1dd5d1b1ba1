"""What `_ready` does, with stock Deferreds only: for PyPy, and the reference to test it against."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Generator, Iterator
from typing import Any

from twisted.internet.defer import QueueUnderflow


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


def fire(deferred: Any, value: Any) -> bool:
    """Give a Deferred that is not a stock one its value: there is none."""
    return False


def set_classes(get: Any, confirm: Any) -> None:
    """Tell the untouched classes of what a queue's `get()` and what a publish return."""
    global _untouched_get, _untouched_confirm
    _untouched_get = get
    _untouched_confirm = confirm


_untouched_get: Any = None
_untouched_confirm: Any = None


def succeeded(value: Any = None) -> Any:
    """As defer.succeed()."""
    return ready(_untouched_confirm, None, value)


def unconfirmed() -> Any:
    """A Deferred that waits for a publish's confirm."""
    return waiting(_untouched_confirm, None)


class Line:
    """Who waits for a queue's messages, the oldest first, and what each waits for.

    That is a number: of messages in a list, or 0 or less for one message by itself.
    """

    __slots__ = ("_order", "_serving", "backlog", "closed", "pending")

    def __init__(self, pending: Any) -> None:
        self.pending = pending
        self.closed: Any = None
        self.backlog: int | None = None
        self._order: OrderedDict[Any, int] = OrderedDict()
        self._serving = False

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self._order))

    def __contains__(self, deferred: object) -> bool:
        return deferred in self._order

    def items(self) -> list[tuple[Any, int]]:
        """Pairs of who waits and for what."""
        return list(self._order.items())

    def add(self, deferred: Any, wanted: int) -> None:
        """Let `deferred` wait behind the others."""
        self._order[deferred] = wanted

    def forget(self, deferred: Any) -> None:
        """Let it wait no longer: what was cancelled leaves the next message to another one."""
        self._order.pop(deferred, None)

    def clear(self) -> None:
        """Remove all that wait."""
        self._order.clear()

    def get(self) -> Any:
        """A Deferred of the next message that is pending, or of the next that comes."""
        if self.closed is not None:
            return self.refuse()  # type: ignore[attr-defined]
        if self.pending and not self._order:
            return ready(_untouched_get, self, self.pending.popleft())
        return self.wait(0)

    def get_many(self, wanted: int) -> Any:
        """The same of up to `wanted` messages."""
        if self.pending and not self._order:
            deferred = ready(_untouched_get, self, self.pending.popmany(wanted))
        else:
            deferred = self.wait(wanted)
        deferred._many = True
        return deferred

    def wait(self, wanted: int) -> Any:
        """A Deferred that waits for its messages."""
        if self.backlog is not None and len(self) >= self.backlog:
            raise QueueUnderflow
        deferred = waiting(_untouched_get, self)
        self.add(deferred, wanted)
        return deferred

    def serve(self) -> None:
        """Give what is pending to what waits, until one of the two is used up.

        What the callbacks do (get, put, close, cancel) takes effect here, not in a nested call.
        """
        if self._serving:
            return
        self._serving = True
        try:
            while self._order and self.pending:
                deferred, wanted = self._order.popitem(last=False)
                # Fired from outside: the message is for the next one.
                if is_waiting(deferred):
                    value = self.pending.popmany(wanted) if wanted > 0 else self.pending.popleft()
                    self.fire(deferred, value)  # type: ignore[attr-defined]
        finally:
            self._serving = False


def get_of(queue_class: Any) -> Any:
    """The `get()` of a queue's class: its own."""
    return queue_class.get


class Waker:
    """What the decoder calls when a queue got messages."""

    __slots__ = ("simple",)

    #: A subclass has it.
    wake: Any

    def __init__(self, line: Line) -> None:
        self.simple = True

    def __call__(self) -> None:
        self.wake()
