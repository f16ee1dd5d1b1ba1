"""A clock that tests set, with the parts of a reactor that connections and services need."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from twisted.internet import defer, task
from twisted.python.failure import Failure

T = TypeVar("T")


class Clock(task.Clock):
    """`twisted.internet.task.Clock`, and the shutdown triggers that a `RecoveringService` sets."""

    def __init__(self) -> None:
        super().__init__()
        self.triggers: list[tuple[str, str, Callable[..., Any]]] = []

    def addSystemEventTrigger(  # noqa: N802
        self, phase: str, event: str, function: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any:
        """See twisted.internet.interfaces.IReactorCore."""
        trigger = (phase, event, lambda: function(*args, **kwargs))
        self.triggers.append(trigger)
        return trigger

    def removeSystemEventTrigger(self, trigger: Any) -> None:  # noqa: N802
        """See twisted.internet.interfaces.IReactorCore."""
        self.triggers.remove(trigger)

    def callFromThread(  # noqa: N802
        self, function: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> None:
        """See twisted.internet.interfaces.IReactorFromThreads."""
        self.callLater(0, function, *args, **kwargs)


def run(clock: task.Clock, awaitable: Awaitable[T], timeout: float) -> T:
    """Advance a clock, from one delayed call to the next, until something has its result.

    :raises TimeoutError: it has none after so many seconds of the clock, or no call is left
    """
    deferred: Any = awaitable
    if not isinstance(deferred, defer.Deferred):
        deferred = defer.Deferred.fromCoroutine(awaitable)  # type: ignore[arg-type]
    result: list[Any] = []
    deferred.addBoth(result.append)
    end = clock.seconds() + timeout
    clock.advance(0)
    while not result:
        calls: list[Any] = list(clock.getDelayedCalls())
        due = [call.getTime() for call in calls]
        if not due or min(due) > end:
            deferred.cancel()
            raise TimeoutError(f"no result after {timeout} seconds of the clock")
        clock.advance(max(0.0, min(due) - clock.seconds()))
    if isinstance(result[0], Failure):
        result[0].raiseException()
    return result[0]  # type: ignore[no-any-return]
