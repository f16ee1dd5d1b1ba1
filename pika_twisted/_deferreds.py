"""The Deferreds that `ClosableDeferredQueue.get()` returns, and the order their callbacks run in.

They are Deferreds in every respect but one. With a stock Deferred the documented loop

    def handler(message):
        queue.get().addCallback(handler)
        ...

nests one call into the next for every message that is there already: RecursionError after some 300,
and the last message is handled first. Here a callback added to such a Deferred while a callback of
the same queue's `get()` runs is run when that one has returned.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet import defer


class Turns:
    """Lets the callbacks of one queue's Deferreds run one after another, never inside each other."""

    __slots__ = ("_postponed", "running")

    def __init__(self) -> None:
        #: A callback of one of the Deferreds runs further up the stack.
        self.running = False
        self._postponed: deque[defer.Deferred[Any]] = deque()

    def run(self, paused: defer.Deferred[Any]) -> None:
        """Unpause a Deferred: now, or when the callback that runs now has returned."""
        if self.running:
            self._postponed.append(paused)
        else:
            self._take_turns(paused.unpause)

    def fire(self, deferred: defer.Deferred[Any], value: Any) -> None:
        """Give a waiting Deferred its value; postponed callbacks follow."""
        if self.running:
            deferred.callback(value)
        else:
            self._take_turns(deferred.callback, value)

    def _take_turns(self, run: Callable[..., object], *args: Any) -> None:
        self.running = True
        try:
            run(*args)
            while self._postponed:
                self._postponed.popleft().unpause()
        finally:
            self.running = False


def _find_driver() -> Any:
    """The function by which inlineCallbacks and coroutines wait for a Deferred, if there is one.

    It only notes a result that is there already and returns, so it can't recurse and need not wait
    for its turn. Twisted has no public name for it; so watch what is handed to `addBoth`. Where it
    is another one for each generator (Twisted 22.10), none is known and all callbacks take turns.
    """
    seen: list[Any] = []

    class Probe(defer.Deferred):  # type: ignore[type-arg]  # not generic at run time in 22.10
        def addBoth(self, callback: Any, *args: Any, **kwargs: Any) -> Any:
            seen.append(callback)
            return super().addBoth(callback, *args, **kwargs)

    @defer.inlineCallbacks
    def wait() -> Any:
        probe = Probe()
        probe.callback(None)
        yield probe

    wait()
    wait()
    return seen[0] if len(seen) == 2 and seen[0] is seen[1] else None


_DRIVER = _find_driver()


class GetDeferred(defer.Deferred):  # type: ignore[type-arg]
    """A Deferred whose callbacks take turns with those of its queue's other Deferreds."""

    def __init__(self, turns: Turns, canceller: Callable[[Any], None] | None = None) -> None:
        super().__init__(canceller)
        self._turns = turns
        self._driven = False

    def addCallbacks(self, *args: Any, **kwargs: Any) -> Any:
        return self._add(super().addCallbacks, args, kwargs)

    def addCallback(self, *args: Any, **kwargs: Any) -> Any:
        return self._add(super().addCallback, args, kwargs)

    def addErrback(self, *args: Any, **kwargs: Any) -> Any:
        return self._add(super().addErrback, args, kwargs)

    def addBoth(self, callback: Any, *args: Any, **kwargs: Any) -> Any:
        if callback is not _DRIVER:
            return self._add(super().addBoth, (callback, *args), kwargs)
        self._driven = True
        # Not addBoth: up to Twisted 23.10 that calls self.addCallbacks, which would take turns.
        return super().addCallbacks(callback, callback, args, kwargs, args, kwargs)

    def _add(self, add: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        if not self.called or self.paused:
            return add(*args, **kwargs)
        self.pause()
        try:
            return add(*args, **kwargs)
        finally:
            self._turns.run(self)


def ready(turns: Turns, value: Any) -> defer.Deferred[Any]:
    """A Deferred that has its value already."""
    deferred = GetDeferred(turns)
    deferred.callback(value)
    return deferred


def fire(turns: Turns, waiter: defer.Deferred[Any], value: Any) -> None:
    """Give a waiting Deferred its value.

    What a coroutine does when it goes on is not a callback that others have to wait for.
    """
    if getattr(waiter, "_driven", False):
        waiter.callback(value)
    else:
        turns.fire(waiter, value)
