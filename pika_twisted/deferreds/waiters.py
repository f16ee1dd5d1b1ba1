"""Deferreds of several callers that wait for the same thing."""

from __future__ import annotations

from typing import Any

from twisted.internet import defer
from twisted.python.failure import Failure

from pika_twisted._reasons import as_exception, fresh_exception

from .containers import OrderedSet


class Waiters(OrderedSet):
    """They are fired in the order in which they came; one that is cancelled has left."""

    def wait(self) -> defer.Deferred[Any]:
        """One more."""
        deferred: defer.Deferred[Any] = defer.Deferred(self.discard)
        self.add(deferred)
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
