"""What people do with the Deferred of a queue's `get()`, told so that two kinds can be compared.

Each scenario gets a Bench and notes what it sees. It runs with the message there before `get()`
and with the message coming later.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import inspect
import re
import sys
import types
import weakref
from collections.abc import Callable, Collection, Generator, Iterator
from typing import Any

from twisted.internet import defer, task
from twisted.python.failure import Failure

Scenario = Callable[["Bench"], None]
SCENARIOS: dict[str, Scenario] = {}


def scenario(function: Scenario) -> Scenario:
    SCENARIOS[function.__name__] = function
    return function


class Bench:
    """A queue, messages for it, and the notes."""

    def __init__(self, queue: defer.DeferredQueue[Any], *, early: bool) -> None:
        self.queue = queue
        self.early = early
        self.notes: list[str] = []
        self._count = 0

    def get(self) -> defer.Deferred[Any]:
        """A Deferred whose message is there, or comes with deliver()."""
        if self.early:
            self.put()
        return self.queue.get()

    def deliver(self, times: int = 1) -> None:
        if not self.early:
            for _ in range(times):
                self.put()

    def put(self) -> None:
        self._count += 1
        self.queue.put(("message", self._count))

    def note(self, *what: Any) -> None:
        self.notes.append(" ".join(describe(item) for item in what))

    def noting(self, label: str) -> Callable[[Any], Any]:
        """A callback that notes what it gets and passes it on."""

        def callback(result: Any) -> Any:
            self.note(label, result)
            return result

        return callback

    def attempt(self, function: Callable[..., Any], *args: Any) -> None:
        try:
            self.note("returned", function(*args))
        except BaseException as error:
            self.note("raised", type(error).__name__)


def describe(item: Any) -> str:
    if isinstance(item, Failure):
        return f"<Failure {item.type.__name__} {item.value}>"
    if isinstance(item, defer.Deferred):
        return "<a Deferred>"
    return item if isinstance(item, str) else repr(item)


def state(deferred: defer.Deferred[Any]) -> str:
    """What can be seen of a Deferred from outside."""
    result = describe(getattr(deferred, "result", "no result"))
    return f"called={bool(deferred.called)} paused={deferred.paused} {result}"


@scenario
def callbacks(b: Bench) -> None:
    d = b.get()
    b.note(d.addCallback(b.noting("first")) is d)
    d.addCallback(lambda result, *args, **kwargs: (result, args, kwargs), 1, two=2)
    d.addErrback(b.noting("never"))
    d.addCallbacks(b.noting("third"), b.noting("never"), errbackArgs=(1,))
    d.addBoth(b.noting("both"))
    b.deliver()
    b.note(state(d))


@scenario
def both_with_arguments(b: Bench) -> None:
    d = b.get()
    d.addBoth(lambda result, *args, **kwargs: b.note(result, args, kwargs), 1, 2, key=3)
    b.deliver()
    b.note(state(d))


@scenario
def nothing_added(b: Bench) -> None:
    d = b.get()
    b.deliver()
    b.note(state(d))
    d.addCallback(b.noting("late"))
    b.note(state(d))


@scenario
def errors(b: Bench) -> None:
    d = b.get()
    d.addCallback(lambda _: 1 / 0)
    d.addErrback(b.noting("caught"))
    d.addErrback(lambda failure: failure.trap(ZeroDivisionError) and "handled")
    d.addCallback(lambda _: Failure(LookupError("returned")))
    d.addErrback(b.noting("caught"))
    b.deliver()
    b.note(state(d))
    d.addErrback(lambda _: None)


@scenario
def callback_returns_fired(b: Bench) -> None:
    d = b.get().addCallback(lambda m: defer.succeed((m, "more"))).addCallback(b.noting("got"))
    b.deliver()
    b.note(state(d))


@scenario
def callback_returns_unfired(b: Bench) -> None:
    inner: defer.Deferred[Any] = defer.Deferred()
    d = b.get().addCallback(lambda _: inner).addCallback(b.noting("got"))
    b.deliver()
    b.note(state(d))
    d.cancel()
    b.note("cancelled inner", state(inner), state(d))
    d.addErrback(lambda _: None)


@scenario
def returned_from_a_callback(b: Bench) -> None:
    d = b.get()
    outer = defer.succeed(None).addCallback(lambda _: d).addCallback(b.noting("outer"))
    b.note(state(outer), state(d))
    b.deliver()
    b.note(state(outer), state(d))


@scenario
def returned_and_cancelled(b: Bench) -> None:
    outer = defer.succeed(None).addCallback(lambda _: b.get()).addBoth(b.noting("outer"))
    outer.cancel()
    b.note(b.queue.waiting == [], state(outer))
    outer.addErrback(lambda _: None)


@scenario
def chained(b: Bench) -> None:
    d, other = b.get(), defer.Deferred()
    other.addCallback(b.noting("other"))
    d.chainDeferred(other)
    b.deliver()
    b.note(state(d), state(other))


@scenario
def cancelled_before(b: Bench) -> None:
    d = b.queue.get()
    b.note(len(b.queue.waiting), b.queue.waiting == [d])
    d.addBoth(b.noting("got"))
    d.cancel()
    b.note(len(b.queue.waiting), state(d))
    d.cancel()
    b.put()
    b.note(b.queue.pending)
    b.queue.get().addCallback(b.noting("next"))
    d.addErrback(lambda _: None)


@scenario
def cancelled_untouched(b: Bench) -> None:
    first, second = b.queue.get(), b.queue.get()
    first.cancel()
    b.put()
    b.note(state(first), state(second))
    first.addErrback(b.noting("first"))
    first.addErrback(lambda _: None)


@scenario
def cancelled_after(b: Bench) -> None:
    d = b.get()
    b.deliver()
    d.cancel()
    b.note(state(d))


@scenario
def fired_again(b: Bench) -> None:
    d = b.get()
    b.deliver()
    b.attempt(d.callback, "again")
    b.attempt(d.errback, LookupError())
    b.note(state(d))


@scenario
def fired_by_the_user(b: Bench) -> None:
    d = b.queue.get()
    d.addBoth(b.noting("got"))
    d.callback("mine")
    b.note(state(d))
    failed = b.queue.get()
    failed.errback(LookupError("mine"))
    failed.addErrback(b.noting("failed"))
    failed.addErrback(lambda _: None)


@scenario
def paused(b: Bench) -> None:
    d = b.get()
    d.pause()
    d.addCallback(b.noting("got"))
    b.deliver()
    b.note(state(d))
    d.pause()
    d.unpause()
    b.note(state(d))
    d.unpause()
    b.note(state(d))


@scenario
def awaited_while_paused(b: Bench) -> None:
    d = b.get()
    d.pause()
    outcome = defer.ensureDeferred(_await(d)).addBoth(b.noting("got"))
    b.deliver()
    b.note(state(d), state(outcome))
    d.unpause()
    b.note(state(d), state(outcome))


@scenario
def seen(b: Bench) -> None:
    d = b.get()
    b.note(state(d), hasattr(d, "result"), hasattr(d, "send"), hasattr(d, "nonsense"))
    b.note(re.sub("0x[0-9a-f]+", "0x", re.sub("<[A-Za-z_]+ ", "<Deferred ", repr(d))))
    b.deliver()
    b.note(re.sub("0x[0-9a-f]+", "0x", re.sub("<[A-Za-z_]+ ", "<Deferred ", str(d))))


@scenario
def kind(b: Bench) -> None:
    d = b.get()
    b.note(isinstance(d, defer.Deferred), isinstance(d, Iterator), isinstance(d, Generator))
    b.note(isinstance(d, Collection), isinstance(d, Failure), inspect.isgenerator(d))
    b.note(inspect.isawaitable(d), asyncio.iscoroutine(d), callable(d), bool(d))
    b.note({d: 1}[d], d == d, d == defer.succeed(1), weakref.ref(d)() is d)
    b.note(defer.ensureDeferred(d) is d, defer.maybeDeferred(lambda: d) is d)
    b.attempt(len, d)
    b.attempt(lambda: d.nonsense)


@scenario
def attributes_set(b: Bench) -> None:
    d: Any = b.get()
    d.mine = 1
    b.note(d.mine, vars(d)["mine"])
    del d.mine
    b.note(hasattr(d, "mine"))
    b.deliver()
    d.result = "another"
    b.note(state(d))


@scenario
def lists(b: Bench) -> None:
    deferreds = [b.get(), b.get()]
    defer.DeferredList(deferreds).addCallback(b.noting("list"))
    b.deliver(2)
    deferreds = [b.get(), b.get()]
    defer.gatherResults(deferreds).addCallback(b.noting("gathered"))
    b.deliver(2)
    defer.DeferredList([b.get(), defer.Deferred()], fireOnOneCallback=True).addCallback(
        lambda pair: b.note("first", list(pair))
    )
    b.deliver()


@scenario
def gathered_and_cancelled(b: Bench) -> None:
    gathered = defer.gatherResults([b.queue.get(), b.queue.get()], consumeErrors=True)
    gathered.addErrback(lambda failure: b.note("gathered", failure.value.subFailure))
    gathered.cancel()
    b.note(b.queue.waiting)


@scenario
def timed_out(b: Bench) -> None:
    clock = task.Clock()
    d = b.queue.get().addTimeout(5, clock).addErrback(b.noting("timed out"))
    clock.advance(6)
    b.note(clock.calls, b.queue.waiting, state(d))
    d.addErrback(lambda _: None)
    b.put()
    b.note(b.queue.pending)


@scenario
def in_time(b: Bench) -> None:
    clock = task.Clock()
    d = b.get().addTimeout(5, clock).addCallback(b.noting("in time"))
    b.deliver()
    b.note(clock.calls, state(d))


@scenario
def as_future(b: Bench) -> None:
    loop = asyncio.new_event_loop()
    try:
        d = b.get()
        future = d.asFuture(loop)
        b.note(future.done())
        b.deliver()
        b.note(loop.run_until_complete(future), state(d))
        future = b.queue.get().asFuture(loop)
        future.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        b.note(b.queue.waiting)
    finally:
        loop.close()


async def _await(d: Any) -> Any:
    return await d


@defer.inlineCallbacks
def _yield(d: Any) -> Any:
    return (yield d)


@scenario
def awaited(b: Bench) -> None:
    d = b.get()
    outcome = defer.ensureDeferred(_await(d)).addBoth(b.noting("awaited"))
    b.deliver()
    b.note(state(d), state(outcome))


@scenario
def yielded(b: Bench) -> None:
    d = b.get()
    outcome = _yield(d).addBoth(b.noting("yielded"))
    b.deliver()
    b.note(state(d), state(outcome))


@scenario
def awaited_in_a_loop(b: Bench) -> None:
    async def loop() -> Any:
        return [await b.get() for _ in range(5)]

    defer.ensureDeferred(loop()).addBoth(b.noting("all"))
    b.deliver(5)


@scenario
def nested(b: Bench) -> None:
    async def outer() -> Any:
        return await _await(_await(b.get())), await _yield(b.get())

    defer.ensureDeferred(outer()).addBoth(b.noting("nested"))
    b.deliver(2)


@scenario
def awaited_twice(b: Bench) -> None:
    d = b.get()
    for label in ("first", "second"):
        defer.ensureDeferred(_await(d)).addBoth(b.noting(label))
    b.note(state(d))
    b.deliver()
    b.note(state(d))
    defer.ensureDeferred(_await(d)).addBoth(b.noting("third"))


@scenario
def callback_then_awaited(b: Bench) -> None:
    d = b.get().addCallback(lambda message: (message, "added"))
    defer.ensureDeferred(_await(d)).addBoth(b.noting("awaited"))
    d.addCallback(b.noting("afterwards"))
    b.deliver()
    b.note(state(d))


@scenario
def awaited_then_callback(b: Bench) -> None:
    d = b.get()
    defer.ensureDeferred(_await(d)).addBoth(b.noting("awaited"))
    d.addCallback(b.noting("afterwards"))
    b.note(state(d))
    b.deliver()
    b.note(state(d))


@scenario
def coroutine_raises(b: Bench) -> None:
    async def raises() -> None:
        await b.get()
        raise LookupError("raised")

    outcome = defer.ensureDeferred(raises())
    b.deliver()
    outcome.addErrback(b.noting("failed")).addErrback(lambda _: None)


@scenario
def driver_cancelled(b: Bench) -> None:
    for start in (
        lambda: defer.ensureDeferred(_await(b.queue.get())),
        lambda: _yield(b.queue.get()),
    ):
        outcome = start()
        b.note(len(b.queue.waiting))
        outcome.cancel()
        b.note(b.queue.waiting)
        outcome.addErrback(b.noting("cancelled")).addErrback(lambda _: None)
    b.put()
    b.note(b.queue.pending)


@scenario
def driver_survives_cancelling(b: Bench) -> None:
    async def stubborn() -> Any:
        try:
            return await b.queue.get()
        except defer.CancelledError:
            return "again", await b.queue.get()

    outcome = defer.ensureDeferred(stubborn()).addBoth(b.noting("stubborn"))
    outcome.cancel()
    b.note(len(b.queue.waiting))
    b.put()


@scenario
def touched_while_the_coroutine_runs(b: Bench) -> None:
    async def looks() -> Any:
        message = await d
        b.note("inside", bool(d.called), describe(d.result))
        d.addCallback(b.noting("added inside"))
        b.attempt(d.callback, 1)
        d.cancel()
        b.note("still inside")
        return message

    d = b.get()
    outcome = defer.ensureDeferred(looks())
    b.note(state(outcome))
    b.deliver()
    b.note(state(d), state(outcome))


@scenario
def driven_by_hand(b: Bench) -> None:
    d = b.get()
    coroutine = _await(d)

    def step(value: Any) -> None:
        try:
            b.note("yielded itself", coroutine.send(value) is d)
        except StopIteration as stop:
            b.note("returned", stop.value)

    step(None)
    if not b.early:
        step("not yet")
        b.deliver()
        step("ignored")


@scenario
def closed_and_thrown_by_hand(b: Bench) -> None:
    for end in (lambda c: c.close(), lambda c: c.throw(LookupError("thrown"))):
        d = b.queue.get()
        coroutine = _await(d)
        b.note(coroutine.send(None) is d)
        b.attempt(end, coroutine)
        b.note(state(d))
        d.cancel()
        d.addErrback(lambda _: None)


@scenario
def as_a_generator_based_coroutine(b: Bench) -> None:
    @types.coroutine
    def old() -> Any:
        return (yield from b.get())

    async def new() -> Any:
        return await old()

    defer.ensureDeferred(new()).addBoth(b.noting("old"))
    b.deliver()


@scenario
def traced(b: Bench) -> None:
    """As under a debugger or coverage: Python 3.10 awaits in another way then."""
    previous = sys.gettrace()
    sys.settrace(lambda *args: None)
    try:
        d = b.get()
        defer.ensureDeferred(_await(d)).addBoth(b.noting("traced"))
        b.deliver()
    finally:
        sys.settrace(previous)


@scenario
def added_inside_its_own_callback(b: Bench) -> None:
    d = b.get()

    def callback(message: Any) -> None:
        d.addCallback(b.noting("added inside"))
        b.note("callback", message)

    d.addCallback(callback)
    b.deliver()
    b.note(state(d))


@scenario
def contexts(b: Bench) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")

    async def uses() -> None:
        variable.set("coroutine's")
        await b.get()
        b.note(variable.get())

    contextvars.copy_context().run(lambda: defer.ensureDeferred(uses()))
    contextvars.copy_context().run(b.deliver)
    b.note(variable.get())


@scenario
def unhandled(b: Bench) -> None:
    d = b.get()
    d.addCallback(lambda _: 1 / 0)
    b.deliver()
    del d
    gc.collect()


@scenario
def unhandled_in_a_coroutine(b: Bench) -> None:
    async def raises() -> None:
        await b.get()
        raise LookupError("nobody looks")

    defer.ensureDeferred(raises())
    b.deliver()
    gc.collect()


@scenario
def debugging(b: Bench) -> None:
    defer.setDebugging(True)
    try:
        d = b.get()
        b.deliver()
        try:
            d.callback(1)
        except defer.AlreadyCalledError as error:
            b.note("C: Deferred was created" in str(error))
            # succeed(), which Twisted's queue makes a ready one with, leaves this out.
            b.note("I: First Invoker was" in str(error) or b.early)
        defer.ensureDeferred(_await(b.get())).addBoth(b.noting("awaited"))
        b.deliver()
    finally:
        defer.setDebugging(False)


@scenario
def failures_put(b: Bench) -> None:
    d = b.queue.get()
    d.addBoth(b.noting("got"))
    b.queue.put(Failure(LookupError("put")))
    d.addErrback(lambda _: None)
    outcome = defer.ensureDeferred(_await(b.queue.get())).addBoth(b.noting("awaited"))
    b.queue.put(Failure(LookupError("put")))
    outcome.addErrback(lambda _: None)


@scenario
def semaphore(b: Bench) -> None:
    lock = defer.DeferredLock()
    lock.run(b.get).addCallback(b.noting("first"))
    lock.run(b.get).addCallback(b.noting("second"))
    b.deliver(2)
    b.note(lock.locked)
