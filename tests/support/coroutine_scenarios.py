"""More scenarios: what coroutines and inlineCallbacks do with the Deferred of a queue's `get()`."""

from __future__ import annotations

import contextvars
import gc
import sys
import types
from typing import Any

from twisted.internet import defer
from twisted.python.failure import Failure

from tests.support.deferred_scenarios import Bench, describe, scenario, state


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

    def trace(*args: Any) -> Any:
        return trace  # Cython's tracing, in a debug build, can't call None

    sys.settrace(trace)
    try:
        d = b.get()
        defer.ensureDeferred(_await(d)).addBoth(b.noting("traced"))
        b.deliver()
    finally:
        sys.settrace(previous)


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
def awaited_while_paused(b: Bench) -> None:
    d = b.get()
    d.pause()
    outcome = defer.ensureDeferred(_await(d)).addBoth(b.noting("got"))
    b.deliver()
    b.note(state(d), state(outcome))
    d.unpause()
    b.note(state(d), state(outcome))
