"""Deferreds of several callers that wait for the same thing."""

from __future__ import annotations

from typing import Any

from twisted.internet import defer
from twisted.python.failure import Failure

from pika_twisted._reasons import as_exception, fresh_exception

from .containers import OrderedSet
from .tasks import TaskAwaitable


class _Waiter(TaskAwaitable, defer.Deferred):  # type: ignore[type-arg]
    """What `wait()` returns; asyncio's tasks can await it, too."""


_NONE = object()


class Waiters(OrderedSet):
    """They are fired in the order in which they came; one that is cancelled has left."""

    def __init__(self) -> None:
        super().__init__()
        self._result: Any = _NONE

    @property
    def concluded(self) -> bool:
        """Whether there is a result for all that are still to come."""
        return self._result is not _NONE

    @property
    def result(self) -> Any:
        """That result; None where there is none."""
        return self._result if self.concluded else None

    def wait(self) -> defer.Deferred[Any]:
        """Return a Deferred for the next result, or for the one that was concluded with."""
        deferred = _Waiter(self.discard)
        self.add(deferred)
        if self.concluded:
            self.fire(self._result)
        return deferred

    def fire(self, result: Any = None) -> None:
        """Give all of them this result; a failure to each as an object of its own."""
        failed = isinstance(result, Failure)
        for waiter in self.take():
            if not waiter.called:  # another's callback may have cancelled it
                waiter.callback(Failure(fresh_exception(result)) if failed else result)

    def fail(self, reason: Any) -> None:
        """Fail all of them for this reason."""
        self.fire(Failure(as_exception(reason)))

    def remember(self, result: Any) -> None:
        """Give this result to all that are still to come; those that wait are not fired."""
        self._result = result

    def conclude(self, result: Any = None) -> None:
        """Give this result to all of them, and to all that are still to come."""
        self.remember(result)
        self.fire(result)
