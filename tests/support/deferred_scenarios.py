"""What people do with the Deferred of a queue's `get()`, told so that two kinds can be compared.

Each scenario gets a Bench and notes what it sees. It runs with the message there before `get()`
and with the message coming later.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import re
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
def unhandled(b: Bench) -> None:
    d = b.get()
    d.addCallback(lambda _: 1 / 0)
    b.deliver()
    del d
    gc.collect()


@scenario
def semaphore(b: Bench) -> None:
    lock = defer.DeferredLock()
    lock.run(b.get).addCallback(b.noting("first"))
    lock.run(b.get).addCallback(b.noting("second"))
    b.deliver(2)
    b.note(lock.locked)
