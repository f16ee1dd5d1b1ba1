"""The Deferreds made for each message, and the order in which a queue's callbacks run.

Those of `ClosableDeferredQueue.get()` are Deferreds in every respect but one. With stock ones the
documented loop

    def handler(message):
        queue.get().addCallback(handler)
        ...

nests one call into the next for every message that is there already: RecursionError after some 300,
and the last message is handled first. Here a callback added to such a Deferred while a callback of
the same queue's `get()` runs is run when that one has returned.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Generator
from typing import Any, cast

from twisted.internet import defer
from twisted.python.failure import Failure

from pika_twisted._reasons import fresh_exception
from pika_twisted.codec import chooser as _codec

from .tasks import MessageFuture, TaskAwaitable

if _codec.IMPLEMENTATION == "compiled":
    from . import _ready
else:
    from . import _ready_py as _ready  # type: ignore[no-redef]


class Turns(_ready.Line):  # pyright: ignore[reportGeneralTypeIssues]
    """Who waits for a queue's messages, and whose callbacks run when.

    The callbacks of a queue's Deferreds run one after another, never inside each other.
    """

    __slots__ = ("_postponed", "_running")

    def __init__(self, pending: Any) -> None:
        super().__init__(pending)
        # A callback of one of the Deferreds runs further up the stack.
        self._running = False
        self._postponed: deque[defer.Deferred[Any]] = deque()

    def refuse(self) -> defer.Deferred[Any]:
        """A Deferred that has failed with the reason of the end.

        A stock one: callbacks that ask a closed queue again would take turns for ever.
        """
        return defer.fail(fresh_exception(self.closed))

    def fire(self, deferred: defer.Deferred[Any], value: Any) -> None:
        """Give a stock Deferred its value; then run what its callbacks postponed."""
        if getattr(deferred, "_driven", False):
            # A coroutine that goes on is no callback that others have to wait for.
            deferred.callback(value)
        elif self._running:
            deferred.pause()
            deferred.callback(value)
            self._postponed.append(deferred)
        else:
            self._take_turns(deferred.callback, (value,), {})

    def add_in_turn(
        self, deferred: defer.Deferred[Any], add: Callable[..., Any], args: Any, kwargs: Any
    ) -> Any:
        """Add callbacks to a Deferred that has its result: they run now, or in their turn."""
        if not self._running:
            return self._take_turns(add, args, kwargs)
        deferred.pause()
        try:
            return add(*args, **kwargs)
        finally:
            self._postponed.append(deferred)

    def give_back(self, value: Any, many: bool) -> None:
        """Put what was given to a waiter that has left back to the front: a message, or a list."""
        for message in reversed(value if many else [value]):
            self.pending.appendleft(message)
        self.serve()

    def _take_turns(self, run: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        self._running = True
        try:
            result = run(*args, **kwargs)
            while self._postponed:
                self._postponed.popleft().unpause()
            return result
        finally:
            self._running = False


# Each of the two kinds is a pair: before and after it is first looked at. The
# former come first: Twisted seeks the class of what is yielded to it in a list of all subclasses of
# Deferred, in the order in which they were made, and each before it costs 100 instructions.


class _UntouchedGet(_ready.DeferredFields, defer.Deferred):  # type: ignore[type-arg]
    pass


class _UntouchedConfirm(_ready.DeferredFields, defer.Deferred):  # type: ignore[type-arg]
    pass


class TurnTaking(TaskAwaitable, defer.Deferred):  # type: ignore[type-arg]
    """A Deferred whose callbacks take turns with those of its queue's other Deferreds."""

    # Whether its first callback was the driver; None while it has none.
    _driven: bool | None = None
    # Whether it gives a list of messages.
    _many = False

    def __init__(self, turns: Turns, canceller: Callable[[Any], None] | None = None) -> None:
        super().__init__(canceller)
        self._turns = turns

    def __await__(self) -> Generator[Any, Any, Any]:
        try:
            return (yield from super().__iter__())
        except BaseException:  # an asyncio task was cancelled, perhaps
            self.give_back()
            raise

    def cancel(self, msg: object = None) -> bool:  # type: ignore[override]
        waited = super().cancel(msg)
        if waited:
            self._driven = False  # no message has come: none can be given back
        return waited

    def give_back(self) -> None:
        """Let another one have the message that has come, which is not handed out here."""
        if self.called and self._driven is None and not isinstance(self.result, Failure):
            message, self.result = self.result, None
            self._turns.give_back(message, self._many)

    def asFuture(  # noqa: N802
        self, loop: asyncio.AbstractEventLoop
    ) -> asyncio.Future[Any]:
        """As Deferred.asFuture(). No message is lost when the Future is cancelled."""
        many, turns = self._many, self._turns

        def give_back(message: Any) -> None:
            turns.give_back(message, many)

        def got(message: Any) -> None:
            if future.done():
                give_back(message)
            else:
                future.set_result(message)

        def failed(failure: Failure) -> None:
            if not future.done():
                future.set_exception(cast(BaseException, failure.value))

        future = MessageFuture(loop, self.cancel, give_back)
        self.addCallbacks(got, failed)
        return future

    def addCallbacks(self, *args: Any, **kwargs: Any) -> Any:
        return self._add(super().addCallbacks, args, kwargs)

    def addCallback(self, *args: Any, **kwargs: Any) -> Any:
        return self._add(super().addCallback, args, kwargs)

    def addErrback(self, *args: Any, **kwargs: Any) -> Any:
        return self._add(super().addErrback, args, kwargs)

    def addBoth(self, callback: Any, *args: Any, **kwargs: Any) -> Any:
        if DRIVER is None or getattr(callback, "__code__", None) is not DRIVER:
            return self._add(super().addBoth, (callback, *args), kwargs)
        if self._driven is None:
            self._driven = True
        # Not addBoth: up to Twisted 23.10 that calls self.addCallbacks, which would take turns.
        return super().addCallbacks(callback, callback, args, kwargs, args, kwargs)

    def _add(self, add: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        self._driven = self._driven or False
        if not self.called or self.paused:
            return add(*args, **kwargs)
        return self._turns.add_in_turn(self, add, args, kwargs)


class GetDeferred(_ready.DeferredFields, TurnTaking):  # pyright: ignore[reportGeneralTypeIssues]
    """What a queue's `get()` and `get_many()` return."""


class ConfirmDeferred(_ready.DeferredFields, TaskAwaitable, defer.Deferred):  # type: ignore[type-arg]
    """What a publish with confirms returns: a Deferred that asyncio's tasks can await, too."""


def _find_driver() -> Any:
    """The code of the callback by which inlineCallbacks and coroutines wait for a Deferred.

    The callback only notes a result that is there already and returns, so it can't recurse and need
    not wait for its turn. Twisted has no public name for it: watch what is handed to `addBoth`.
    (In 22.10 that is another closure each time, hence the code.) None where it can't be told: then
    all callbacks take turns, and only time is lost.
    """
    seen: list[Any] = []

    class Probe(defer.Deferred):  # type: ignore[type-arg]  # not generic at run time in 22.10
        def addBoth(self, callback: Any, *args: Any, **kwargs: Any) -> Any:
            seen.append(getattr(callback, "__code__", None))
            return super().addBoth(callback, *args, **kwargs)

    @defer.inlineCallbacks
    def wait() -> Any:
        probe = Probe()
        probe.callback(None)
        yield probe

    wait()
    wait()
    return seen[0] if len(seen) == 2 and seen[0] is seen[1] else None


DRIVER = _find_driver()


_ready.set_driver(DRIVER)
_ready.make_lazy(_UntouchedGet, GetDeferred)
_ready.make_lazy(_UntouchedConfirm, ConfirmDeferred)

_ready.set_classes(_UntouchedGet, _UntouchedConfirm)

succeeded = _ready.succeeded
unconfirmed = _ready.unconfirmed
get_of = _ready.get_of
is_waiting = _ready.is_waiting
iterate = _ready.iterate
ready_next = _ready.ready_next
fire = _ready.fire
Waker = _ready.Waker
