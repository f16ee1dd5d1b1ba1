"""A clock that tests set, with the parts of a reactor that connections and services need."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet import task


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
