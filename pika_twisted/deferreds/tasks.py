"""Deferreds that asyncio's tasks await, and give no message to one that was cancelled.

A task takes what its coroutine yields for a Future when that has the attribute
`_asyncio_future_blocking`, as PEP 492's authors arranged it for classes that are not asyncio's own.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any

from twisted.internet import defer
from twisted.python.failure import Failure

if TYPE_CHECKING:
    _Deferred = defer.Deferred[Any]
else:
    _Deferred = object


class _Mark:
    """True for an object; its class hasn't got it.

    For `asyncio.isfuture()` looks at the class; what is a Future for it has a method `result()`.
    """

    def __get__(self, deferred: object, owner: type | None = None) -> bool:
        if deferred is None:
            raise AttributeError("_asyncio_future_blocking")
        return True

    def __set__(self, deferred: object, value: bool) -> None:
        pass


class TaskAwaitable(_Deferred):
    """Mixin of Deferred's subclasses: what an asyncio task asks of what it waits for."""

    if not TYPE_CHECKING:
        __slots__ = ()

    _asyncio_future_blocking = _Mark()

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop of the task that waits."""
        return asyncio.get_running_loop()

    def add_done_callback(self, wake: Callable[[Any], Any], *, context: Any = None) -> None:
        """Call `wake(future)` in a later turn of the loop, when there is a result.

        The future is done, or cancelled as this is; the task gets the result from this Deferred.
        """
        loop = asyncio.get_running_loop()

        def done(result: Any) -> Any:
            future = loop.create_future()
            cancelled = isinstance(result, Failure) and result.check(defer.CancelledError)
            if cancelled:
                future.cancel()
            else:
                future.set_result(None)
            loop.call_soon(wake, future, context=context)
            return None if cancelled else result

        defer.Deferred.addCallbacks(self, done, done)

    def cancel(self, msg: object = None) -> bool:  # type: ignore[override]
        """As Deferred.cancel(); return whether it had no result yet."""
        waited = not self.called
        super().cancel()
        return waited


def check_reactor(reactor: Any) -> None:
    """Raise RuntimeError, with what to do, in an asyncio task where no Twisted reactor runs.

    A Deferred would never fire there: its sockets and timers belong to a reactor that stands still.
    """
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no asyncio loop is running
        return
    if task is None or (is_asyncios(reactor) and reactor.running):
        return
    install = "twisted.internet.asyncioreactor.install(asyncio.get_running_loop())"
    start = "reactor.startRunning(installSignalHandlers=False)"
    if is_asyncios(reactor):
        raise RuntimeError(f"Twisted's asyncio reactor was not started: call {start}")
    raise RuntimeError(
        f"asyncio's loop is running, but Twisted's reactor is {type(reactor).__name__}, which does "
        f"not run on it: call {install} before anything imports twisted.internet.reactor, then "
        f"{start}"
    )


def is_asyncios(reactor: Any) -> bool:
    """Return whether a reactor runs on asyncio's loop."""
    module = sys.modules.get("twisted.internet.asyncioreactor")
    return module is not None and isinstance(reactor, module.AsyncioSelectorReactor)


class MessageFuture(asyncio.Future):  # type: ignore[type-arg]
    """What `asFuture()` of a queue's Deferred returns.

    It leaves the queue at the moment that it is cancelled. A message that it has when the task
    that awaits it is cancelled goes to `give_back`.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        leave: Callable[[], Any],
        give_back: Callable[[Any], Any],
    ) -> None:
        super().__init__(loop=loop)
        self._leave = leave
        self._give_back = give_back

    def cancel(self, msg: object = None) -> bool:
        """As Future.cancel()."""
        cancelled = super().cancel(msg)
        if cancelled:
            self._leave()
        return cancelled

    def __await__(self) -> Generator[Any, None, Any]:
        if not self.done():
            self._asyncio_future_blocking = True
            try:
                yield self
            except BaseException:
                if self.done() and not self.cancelled() and self.exception() is None:
                    self._give_back(self.result())
                raise
        return self.result()

    __iter__ = __await__


async def in_task(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that awaits what asyncio knows, and any Deferred, in the present task."""
    return await _Adapter(coroutine)


class _Adapter:
    """What a task awaits in the place of a coroutine that awaits Deferreds."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._coroutine = coroutine

    def __await__(self) -> Generator[Any, Any, Any]:
        step: Callable[[Any], Any] = self._coroutine.send
        value: Any = None
        while True:
            try:
                awaited = step(value)
            except StopIteration as stop:
                return stop.value
            try:
                if isinstance(awaited, defer.Deferred) and not isinstance(awaited, TaskAwaitable):
                    yield from _until_fired(awaited)
                else:
                    yield awaited
            except BaseException as error:
                step, value = self._coroutine.throw, error
            else:
                step, value = self._coroutine.send, None


def _until_fired(deferred: defer.Deferred[Any]) -> Generator[Any, Any, None]:
    """Let the present task wait for a Deferred; it keeps its result for its own `await`."""
    fired = asyncio.get_running_loop().create_future()

    def fire(result: Any) -> Any:
        if not fired.done():
            fired.set_result(None)
        return result

    deferred.addBoth(fire)
    try:
        yield from fired
    except BaseException:
        deferred.addErrback(lambda failure: failure.trap(defer.CancelledError))
        deferred.cancel()
        raise
