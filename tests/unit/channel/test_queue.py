"""ClosableDeferredQueue: order, closing, iteration; nothing lost, whatever the callbacks do."""

from __future__ import annotations

import copy
import gc
import inspect
import pickle
import random
import sys
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
from pika import spec
from pika.exceptions import AMQPError, ChannelClosedByBroker, ConsumerCancelled
from twisted.internet import defer
from twisted.python.failure import Failure

import pika_twisted
from tests.support import queues
from tests.support.cost import assert_grows_at_most, cpu
from tests.support.outcome import TwistedLog, run, watch

pytestmark = pytest.mark.usefixtures("twisted_log")


@pytest.fixture(autouse=True, scope="module")
def _frozen() -> Iterator[None]:
    """Each test collects garbage several times: only its own."""
    with queues.frozen():
        yield


@pytest.fixture(params=queues.IMPLEMENTATIONS)
def module(request: pytest.FixtureRequest) -> ModuleType:
    return queues.load(request.param)


@pytest.fixture
def make(module: ModuleType) -> Callable[..., Any]:
    """Makes queues, with messages in them when told."""

    def queue(count: int = 0, **limits: int) -> Any:
        made = module.ClosableDeferredQueue(**limits)
        for number in range(count):
            made.put(number)
        return made

    return queue


async def collect(queue: Any, into: list[Any]) -> str:
    async for message in queue:
        into.append(message)
    return "ended"


def test_a_message_is_a_named_tuple_of_four(module: ModuleType) -> None:
    message = module.ReceivedMessage("channel", "method", "properties", b"body")
    assert message == ("channel", "method", "properties", b"body")
    assert message.body == b"body"
    assert message._fields == ("channel", "method", "properties", "body")
    assert not hasattr(message, "__dict__")
    assert copy.copy(message) == message
    if module.__name__ in sys.modules and sys.modules[module.__name__] is module:
        assert pickle.loads(pickle.dumps(message)) == message


def test_the_fields_of_a_message_are_its_items(module: ModuleType) -> None:
    for kind in (module.ReceivedMessage, module.AutoAcknowledged):
        items = object(), object(), object(), object()
        message = kind(*items)
        for _ in range(100):  # until the interpreter has specialised the reads, and after
            assert (message.channel, message.method) == items[:2]
            assert (message.properties, message.body) == items[2:]
        assert message._asdict() == dict(zip(message._fields, items, strict=True))
        assert message._replace(body=b"") == (*items[:3], b"")
        for index, field in enumerate(kind._fields):
            assert getattr(kind, field).__doc__ == f"Alias for field number {index}"
            with pytest.raises(AttributeError):
                setattr(message, field, None)
            with pytest.raises(AttributeError):
                delattr(message, field)
        assert tuple(message) == items
        for wrong in (items[:3], (*items, None)):
            with pytest.raises(TypeError):
                kind._make(wrong)


def test_a_message_class_may_be_subclassed(module: ModuleType) -> None:
    class Text(module.ReceivedMessage):  # type: ignore[name-defined,misc]
        @property
        def body(self) -> str:
            return str(super().body.decode())

    message = Text("channel", "method", "properties", b"body")
    message.note = 1
    assert [message.body for _ in range(100)] == ["body"] * 100
    assert (message.method, message[3], message.note) == ("method", b"body", 1)


# As a DeferredQueue


def test_messages_and_waiters_are_first_in_first_out(make: Any) -> None:
    queue, got = make(2), []
    for _ in range(4):
        queue.get().addCallback(got.append)
    assert got == [0, 1]
    assert len(queue.waiting) == 2
    queue.put(2)
    queue.put(None)
    assert got == [0, 1, 2, None]


def test_limits_are_twisteds(make: Any) -> None:
    queue = make(2, size=2, backlog=1)
    with pytest.raises(defer.QueueOverflow):
        queue.put("too many")
    assert queue.pending == [0, 1]
    queue.drain()
    waiting = queue.get()
    with pytest.raises(defer.QueueUnderflow):
        queue.get()
    with pytest.raises(defer.QueueUnderflow):
        queue.get_many(3)
    queue.put("for the waiting one")
    assert watch(waiting).result() == "for the waiting one"
    with pytest.raises(defer.QueueUnderflow):
        make(backlog=0).get()


def test_a_queue_of_size_zero_hands_over_to_who_waits(make: Any) -> None:
    queue, got = make(size=0), []
    with pytest.raises(defer.QueueOverflow):
        queue.put("nobody waits")

    def put_for_the_second(message: Any) -> None:
        got.append(message)
        queue.put("second")
        with pytest.raises(defer.QueueOverflow):
            queue.put("third")

    queue.get().addCallback(put_for_the_second)
    queue.get().addCallback(got.append)
    queue.put("first")
    assert got == ["first", "second"]


def test_pending_and_waiting_look_like_lists(make: Any) -> None:
    queue = make(3)
    assert queue.pending == [0, 1, 2]
    assert queue.pending != [0, 1]
    assert queue.pending[1:] == [1, 2]
    assert queue.pending[-1] == 2
    assert list(queue.pending) == [0, 1, 2]
    assert repr(queue.pending) == "[0, 1, 2]"
    assert queue.waiting == []
    queue.drain()
    first, second = queue.get(), queue.get()
    assert queue.waiting == [first, second]
    assert queue.waiting != [second, first]
    assert queue.waiting != "something else"
    assert queue.waiting[0] is first
    assert queue.waiting[:1] == [first]
    assert list(queue.waiting) == [first, second]
    assert list(reversed(queue.waiting)) == [second, first]
    assert first in queue.waiting
    assert repr(queue.waiting) == repr([first, second])
    with pytest.raises(TypeError):
        hash(queue.waiting)


def test_waiting_can_be_changed_as_a_list(make: Any) -> None:
    queue, got = make(), []
    first, second, third = (queue.get() for _ in range(3))
    queue.waiting.remove(second)
    with pytest.raises(ValueError, match="is not waiting"):
        queue.waiting.remove(second)
    assert queue.waiting.pop() is third
    own: defer.Deferred[Any] = defer.Deferred()
    queue.waiting.append(own)
    first.addCallback(got.append)
    own.addCallback(got.append)
    queue.put("first")
    queue.put("own")
    assert got == ["first", "own"]
    queue.get()
    queue.waiting.clear()
    queue.put("nobody's")
    assert queue.pending == ["nobody's"]


def test_waiting_can_be_assigned(make: Any) -> None:
    queue, got = make(), []
    dropped, kept = queue.get(), queue.get()
    queue.waiting = [kept]
    kept.addCallback(got.append)
    queue.put("kept")
    queue.put("nobody's")
    assert got == ["kept"] and not dropped.called
    assert queue.pending == ["nobody's"]


def test_the_instance_dict_is_the_subclass_s(make: Any) -> None:
    """An empty one lets CPython 3.13 find methods faster; attributes may still be added."""
    queue = make(1)
    assert not vars(queue)
    queue.label = "mine"
    assert vars(queue) == {"label": "mine"}


@pytest.mark.parametrize("name", ["size", "backlog"])
def test_a_limit_may_be_assigned_or_belong_to_a_subclass(module: ModuleType, name: str) -> None:
    queue = module.ClosableDeferredQueue()
    setattr(queue, name, 5)
    assert getattr(queue, name) == 5
    subclass = type("Limited", (module.ClosableDeferredQueue,), {name: None})
    assert getattr(subclass(**{name: 7}), name) == 7


def test_a_waiter_that_was_fired_takes_no_message(make: Any) -> None:
    queue = make()
    fired, waiting = queue.get(), queue.get()
    fired.callback("by the user")
    queue.put("message")
    assert watch(fired).result() == "by the user"
    assert watch(waiting).result() == "message"


# Callbacks that ask again


@pytest.mark.parametrize("count", [10, 3_000, 20_000])
def test_the_documented_loop_takes_any_backlog_in_order(make: Any, count: int) -> None:
    queue, got, depths = make(count), [], set()

    def handler(message: int) -> None:
        queue.get().addCallback(handler)
        got.append(message)
        depths.add(_depth())

    queue.get().addCallback(handler)
    assert got == list(range(count))
    assert max(depths) - min(depths) < 10
    queue.put("later")
    assert got[-1] == "later"


def _depth() -> int:
    depth, frame = 0, sys._getframe()
    while frame is not None:
        depth, frame = depth + 1, frame.f_back
    return depth


@pytest.mark.parametrize(
    "attach",
    [
        lambda d, handler: d.addCallback(lambda m: m).addCallback(handler),
        lambda d, handler: d.addBoth(handler),
        lambda d, handler: d.addCallbacks(handler, handler),
        lambda d, handler: d.addErrback(handler).addCallback(handler),
        lambda d, handler: d.chainDeferred(defer.Deferred().addCallback(handler)),
        lambda d, handler: defer.maybeDeferred(lambda: d).addCallback(handler),
        lambda d, handler: d.addCallback(defer.succeed).addCallback(handler),
    ],
)
def test_every_way_to_add_callbacks_takes_turns(make: Any, attach: Any) -> None:
    queue, got = make(2_000), []

    def handler(message: int) -> None:
        attach(queue.get(), handler)
        got.append(message)

    attach(queue.get(), handler)
    assert got == list(range(2_000))


def test_a_woken_handler_takes_turns_too(make: Any) -> None:
    queue, got = make(), []

    def handler(message: int) -> None:
        queue.get().addCallback(handler)
        got.append(message)

    queue.get().addCallback(handler)
    for number in range(2_000):
        queue.pending.append(number)
    queue.wake()
    assert got == list(range(2_000))


def test_waiters_that_were_fired_unwatched_take_turns(make: Any) -> None:
    queue, got = make(), []
    waiting = [queue.get() for _ in range(2_000)]
    for number in range(2_000):
        queue.put(number)

    def handler(message: int) -> None:
        if waiting:
            waiting.pop(0).addCallback(handler)
        got.append(message)

    waiting.pop(0).addCallback(handler)
    assert got == list(range(2_000))


def test_a_callback_added_in_a_callback_runs_when_that_has_returned(make: Any) -> None:
    queue, notes = make(2), []

    def handler(message: int) -> None:
        inner = queue.get().addCallback(lambda m: notes.append(("inner", m)))
        notes.append(("outer", message, inner.called, inner.result))

    queue.get().addCallback(handler)
    assert notes == [("outer", 0, True, 1), ("inner", 1)]


def test_a_coroutine_sees_callbacks_run_at_once(make: Any) -> None:
    """Also one that a message has just woken: for its turn others need not wait."""
    queue, got = make(), []

    async def consumer() -> None:
        got.append(await queue.get())
        queue.get().addCallback(got.append)
        got.append("after")

    outcome = run(consumer())
    queue.pending.append("first")
    queue.pending.append("second")
    queue.wake()
    assert got == ["first", "second", "after"]
    outcome.result()


def test_what_a_handler_raises_stays_in_its_deferred(make: Any, twisted_log: TwistedLog) -> None:
    queue, got = make(3), []

    def handler(message: int) -> None:
        queue.get().addCallback(handler)
        got.append(message)
        raise LookupError(message)

    queue.get().addCallback(handler)
    assert got == [0, 1, 2]
    assert len(twisted_log.flush(LookupError)) == 3


def test_who_is_served_by_a_callback_comes_after_it(make: Any) -> None:
    queue, notes = make(1), []

    def handler(message: int) -> None:
        queue.get().addCallback(lambda m: notes.append(("served", m)))
        queue.put(1)
        notes.append(("handler", message))

    queue.get().addCallback(handler)
    assert notes == [("handler", 0), ("served", 1)]


def test_put_and_get_inside_callbacks_keep_the_stack_flat(make: Any) -> None:
    queue, got = make(), []

    def handler(number: int) -> None:
        got.append(number)
        queue.get().addCallback(handler)
        if number < 3_000:
            queue.put(number + 1)

    queue.get().addCallback(handler)
    queue.put(0)
    assert got == list(range(3_001))


def test_consumers_share_in_order(make: Any) -> None:
    queue, got = make(), []

    async def consumer(name: str) -> None:
        while True:
            got.append((name, await queue.get()))

    outcomes = [run(consumer(name)) for name in "ab"]
    for number in range(4):
        queue.pending.append(number)
    queue.wake()
    assert got == [("a", 0), ("b", 1), ("a", 2), ("b", 3)]
    queue.close(LookupError())
    for outcome in outcomes:
        outcome.failure(LookupError)


# Cancelling


def test_a_message_popped_for_a_cancelled_waiter_goes_to_the_next(make: Any) -> None:
    queue, got = make(), []
    waiting = [queue.get().addBoth(lambda _: None) for _ in range(3)]
    waiting[1].cancel()
    waiting[0].addCallback(lambda _: waiting[2].cancel())
    last = queue.get().addCallback(got.append)
    for number in range(3):
        queue.pending.append(number)
    queue.wake()
    assert got == [1]
    assert queue.pending == [2]
    assert last.called


def test_cancelling_is_cheap_however_many_wait(make: Any) -> None:
    def cancelling(count: int) -> float:
        queue = make()
        waiting = [queue.get() for _ in range(count)]
        random.Random(1).shuffle(waiting)
        for deferred in waiting:
            deferred.addErrback(lambda _: None)
        cost = cpu(lambda: [deferred.cancel() for deferred in waiting])
        assert queue.waiting == []
        return cost

    assert_grows_at_most(cancelling, 1_000)


@pytest.mark.parametrize("style", ["get", "anext", "many"])
def test_taking_is_cheap_whatever_the_backlog(make: Any, style: str) -> None:
    async def take(queue: Any, count: int) -> None:
        for _ in range(count):
            if style == "get":
                await queue.get()
            elif style == "anext":
                await queue.__anext__()
            else:
                await queue.get_many(1)

    def cost(backlog: int) -> float:
        queue = make(backlog)
        return cpu(lambda: run(take(queue, 1_000)).result())

    assert_grows_at_most(cost, 1_100, times=90, factor=4)


# Closing


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        (ChannelClosedByBroker(404, "gone"), ChannelClosedByBroker(404, "gone")),
        (Failure(ChannelClosedByBroker(404, "gone")), ChannelClosedByBroker(404, "gone")),
        ("testing", AMQPError("testing")),
        (17, AMQPError("17")),
        (LookupError, LookupError()),
        (UnicodeDecodeError, AMQPError("UnicodeDecodeError")),
    ],
)
def test_any_reason_fails_who_waits_and_who_asks(
    make: Any, reason: Any, expected: Exception
) -> None:
    queue = make()
    waiting = watch(queue.get())
    queue.close(reason)
    assert queue.closed is reason
    outcomes = [waiting, watch(queue.get()), watch(queue.put("x")), watch(queue.get_many(1))]
    for outcome in outcomes:
        error = outcome.failure(type(expected))
        assert error.args == expected.args
    assert len({id(outcome.error) for outcome in outcomes}) == 4
    assert queue.pending == []
    assert queue.waiting == []


@pytest.mark.parametrize("nothing", [None, "", 0, False, []])
def test_no_reason_is_refused_and_nothing_happens(make: Any, nothing: Any) -> None:
    queue = make()
    waiting = queue.get()
    with pytest.raises(TypeError, match="reason"):
        queue.close(nothing)
    assert queue.closed is None
    assert queue.waiting == [waiting]
    queue.put("still open")
    assert watch(waiting).result() == "still open"


def test_a_false_exception_is_a_reason(make: Any) -> None:
    class Empty(Exception):
        def __len__(self) -> int:
            return 0

    queue = make()
    waiting = watch(queue.get())
    queue.close(Empty())
    waiting.failure(Empty)
    watch(queue.get()).failure(Empty)


def test_closing_again_changes_the_reason_and_is_logged(make: Any, caplog: Any) -> None:
    queue = make()
    queue.close("first")
    assert not caplog.records
    queue.close(LookupError("second"))
    assert "first" in caplog.text
    watch(queue.get()).failure(LookupError)


def test_closed_may_be_assigned(make: Any) -> None:
    queue = make(1)
    queue.closed = LookupError("assigned")
    watch(queue.get()).failure(LookupError)
    watch(queue.put(1)).failure(LookupError)
    into: list[Any] = []
    run(collect(queue, into)).failure(LookupError)
    assert into == [0]
    queue.closed = None
    queue.put("open again")
    assert watch(queue.get()).result() == "open again"


def test_pending_may_be_assigned(make: Any) -> None:
    queue = make(3)
    for others in ([], [7, 8], deque([9])):
        queue.pending = others
        assert queue.pending == list(others)
    queue.pending = queue.pending
    queue.put("last")
    assert watch(queue.get()).result() == 9
    assert watch(queue.get()).result() == "last"


def test_how_many_may_wait_may_be_changed(make: Any) -> None:
    queue = make(backlog=1)
    assert queue.backlog == 1
    waiting = [queue.get()]
    for ask in (queue.get, queue.__anext__, lambda: queue.get_many(2)):
        with pytest.raises(defer.QueueUnderflow):
            ask()
    queue.backlog = 2
    waiting.append(queue.get())
    with pytest.raises(defer.QueueUnderflow):
        queue.get()
    queue.backlog = None
    waiting.append(queue.get())
    for number in range(4):
        queue.put(number)
    queue.backlog = 0
    assert [watch(deferred).result() for deferred in waiting] == [0, 1, 2]
    assert watch(queue.get()).result() == 3  # it need not wait
    with pytest.raises(defer.QueueUnderflow):
        queue.get()


def test_a_queue_that_was_not_initialised_says_so(module: ModuleType) -> None:
    queue = module.ClosableDeferredQueue.__new__(module.ClosableDeferredQueue)
    for turns in ((), (None,), ("no line",)):
        for other in turns:
            queue._turns = other
        with pytest.raises(AttributeError):
            queue.get()


def test_get_is_a_method_like_any_other(module: ModuleType, make: Any) -> None:
    kind = module.ClosableDeferredQueue
    assert str(inspect.signature(kind.get)).startswith("(self")
    assert kind.get.__doc__.startswith("A Deferred of the next message")
    queue = make(2)
    assert "get" not in vars(queue)
    assert watch(kind.get(queue)).result() == 0
    with pytest.raises((TypeError, AttributeError)):
        kind.get(object())
    with pytest.raises(TypeError):
        queue.get(1)


def test_a_get_of_a_subclass_is_the_one_that_is_called(module: ModuleType) -> None:
    asked: list[Any] = []

    class Asked(module.ClosableDeferredQueue):  # type: ignore[misc, name-defined]
        def get(self) -> Any:
            asked.append(self)
            return super().get()

    queue = Asked()
    queue.put("message")
    assert watch(queue.get()).result() == "message"
    assert asked == [queue]


def test_waiters_fail_in_order_and_may_do_anything(make: Any) -> None:
    queue, got = make(), []

    def again(failure: Failure) -> None:
        got.append(failure.value.args[0])
        queue.get().addErrback(lambda f: got.append("refused"))
        waiting[2].cancel()
        queue.close("again")

    waiting = [queue.get() for _ in range(4)]
    waiting[0].addErrback(again)
    for number in (1, 2, 3):
        waiting[number].addErrback(lambda f, n=number: got.append((n, f.type.__name__)))
    queue.close(LookupError("closed"))
    assert got == [
        "closed",
        "refused",
        (2, "CancelledError"),
        (1, "LookupError"),
        (3, "LookupError"),
    ]


def test_a_waiter_fired_by_the_user_does_not_stop_closing(make: Any) -> None:
    queue = make()
    fired, waiting = queue.get(), queue.get()
    fired.callback("mine")
    queue.close(LookupError())
    watch(waiting).failure(LookupError)


def test_pending_stays_and_can_be_drained(make: Any) -> None:
    queue = make(3)
    assert queue.drain() == [0, 1, 2]
    assert queue.drain() == []
    queue.put("more")
    queue.close(LookupError())
    watch(queue.get()).failure(LookupError)
    assert queue.pending == ["more"]
    assert queue.drain() == ["more"]


def test_closing_while_waiters_are_served(make: Any) -> None:
    queue, got = make(), []
    queue.get().addCallback(lambda _: queue.close(LookupError()))
    second = watch(queue.get())
    for number in range(3):
        queue.pending.append(number)
    queue.wake()
    second.failure(LookupError)
    assert queue.drain() == [1, 2]
    assert got == []


def test_awaiting_does_not_grow_the_reason(make: Any) -> None:
    """200 awaits of pika's one exception object give it a traceback of 600 entries."""
    queue = make()
    reason = LookupError("closed")
    queue.close(reason)

    async def ask() -> None:
        for _ in range(50):
            with pytest.raises(LookupError) as caught:
                await queue.get()
            assert caught.value is not reason
            assert len(caught.traceback) < 10

    run(ask()).result()
    assert reason.__traceback__ is None


# Iterating


@pytest.mark.parametrize("pending", [0, 3])
@pytest.mark.parametrize("waits", [False, True])
def test_iteration_ends_after_a_clients_cancel(make: Any, pending: int, waits: bool) -> None:
    queue, into = make(0 if waits else pending), []
    outcome = run(collect(queue, into)) if waits else None
    for number in range(pending if waits else 0):
        queue.put(number)
    queue.close(ConsumerCancelled(), end=True)
    outcome = outcome or run(collect(queue, into))
    assert outcome.result() == "ended"
    assert into == list(range(pending))
    assert run(collect(queue, into)).result() == "ended"
    watch(queue.get()).failure(ConsumerCancelled)
    watch(queue.get_many(1)).failure(ConsumerCancelled)


@pytest.mark.parametrize("waits", [False, True])
def test_iteration_raises_any_other_reason(make: Any, waits: bool) -> None:
    queue, into = make(0 if waits else 2), []
    outcome = run(collect(queue, into)) if waits else None
    queue.close(LookupError("closed"))
    outcome = outcome or run(collect(queue, into))
    assert outcome.failure(LookupError).args == ("closed",)
    assert into == ([] if waits else [0, 1])


def test_what_cannot_be_acked_is_not_handed_out(make: Any) -> None:
    queue, into = make(2), []
    queue.close(LookupError(), deliverable=False)
    run(collect(queue, into)).failure(LookupError)
    watch(queue.get_many(5)).failure(LookupError)
    assert into == []
    assert queue.drain() == [0, 1]


def test_cancelled_first_and_dead_later(make: Any) -> None:
    queue, into = make(2), []
    queue.close(ConsumerCancelled(), end=True)
    queue.close(LookupError(), deliverable=False)
    run(collect(queue, into)).failure(LookupError)
    queue.drain()
    assert run(collect(queue, into)).result() == "ended"


def test_an_iteration_can_be_cancelled(make: Any) -> None:
    queue, into = make(1), []
    outcome = run(collect(queue, into))
    outcome.deferred.cancel()
    outcome.failure(defer.CancelledError)
    assert queue.waiting == []
    queue.put("kept")
    assert queue.pending == ["kept"]


def test_iteration_takes_what_comes(make: Any) -> None:
    queue, into = make(2), []
    outcome = run(collect(queue, into))
    queue.put(2)
    for number in (3, 4, 5):
        queue.pending.append(number)
    queue.wake()
    assert into == [0, 1, 2, 3, 4, 5]
    queue.close("over", end=True)
    outcome.result()


def test_the_next_message_is_awaited_by_hand(module: ModuleType, make: Any) -> None:
    queue = make(2)
    awaitable = queue.__anext__().__await__()
    with pytest.raises(StopIteration) as stop:
        next(awaitable)
    assert stop.value.value == 0

    async def builtin() -> Any:
        return await anext(queue)

    assert run(builtin()).result() == 1


def test_a_subclass_can_change_the_iteration(module: ModuleType) -> None:
    class Doubling(module.ClosableDeferredQueue):  # type: ignore[misc, name-defined]
        async def __anext__(self) -> Any:
            return 2 * await super().__anext__()

    queue, into = Doubling(), []
    queue.put(1)
    outcome = run(collect(queue, into))
    queue.put(2)
    assert into == [2, 4]
    outcome.deferred.cancel()


# Many at a time


def test_many_takes_what_is_there(make: Any) -> None:
    queue = make(5)
    assert watch(queue.get_many(3)).result() == [0, 1, 2]
    assert watch(queue.get_many(3)).result() == [3, 4]
    waiting = watch(queue.get_many(3))
    single = watch(queue.get())
    again = watch(queue.get_many(2))
    for number in range(6):
        queue.pending.append(number)
    queue.wake()
    assert waiting.result() == [0, 1, 2]
    assert single.result() == 3
    assert again.result() == [4, 5]


@pytest.mark.parametrize("most", [100, sys.maxsize + 1, 10**30])
def test_many_waits_for_the_first_only(make: Any, most: int) -> None:
    queue = make()
    waiting = watch(queue.get_many(most))
    queue.put("one")
    assert waiting.result() == ["one"]


def test_many_hands_out_what_is_pending_after_close(make: Any) -> None:
    queue = make(3)
    queue.close(LookupError(), end=True)
    assert watch(queue.get_many(2)).result() == [0, 1]
    assert watch(queue.get_many(2)).result() == [2]
    watch(queue.get_many(2)).failure(LookupError)


def test_many_can_be_cancelled(make: Any) -> None:
    queue = make()
    waiting = watch(queue.get_many(2))
    waiting.deferred.cancel()
    waiting.failure(defer.CancelledError)
    queue.put("kept")
    assert queue.pending == ["kept"]


@pytest.mark.parametrize(
    ("wrong", "error"), [(0, ValueError), (-1, ValueError), (None, TypeError), (True, TypeError)]
)
def test_many_wants_a_number(make: Any, wrong: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="max_messages"):
        make(1).get_many(wrong)


# Everything at once


@pytest.mark.parametrize("styles", ["callbacks", "coroutines", "mixed"])
@pytest.mark.parametrize("seed", range(15))
def test_nothing_is_lost_and_the_order_is_kept(make: Any, styles: str, seed: int) -> None:
    """Random calls, callbacks and coroutines that make more: each message comes once, in order."""
    actions = {"callbacks": (4, 7), "coroutines": (5, 6), "mixed": (4, 5, 6, 7)}[styles]
    rng, queue = random.Random(seed), make()
    got: list[int] = []
    put = 0
    outcomes: list[defer.Deferred[Any]] = []

    def act(depth: int = 0) -> None:
        nonlocal put
        action = rng.choice((0, 0, 0, 3, *actions))
        if action < 3:
            for _ in range(rng.randrange(1, 4)):
                put += 1
                (queue.put if rng.random() < 0.5 else queue.pending.append)(put - 1)
            queue.wake()
        elif action == 3 and outcomes:
            rng.choice(outcomes).cancel()
        else:
            if action == 4:
                d = queue.get_many(rng.randrange(1, 4)).addCallback(got.extend)
            elif action == 5:
                d = defer.ensureDeferred(awaits())
            elif action == 6:
                d = defer.ensureDeferred(iterates())
            else:
                d = queue.get().addCallback(got.append)
            d.addCallback(lambda _: act(depth + 1) if depth < 3 else None)
            d.addErrback(lambda failure: failure.trap(defer.CancelledError))
            outcomes.append(d)

    async def awaits() -> None:
        for _ in range(rng.randrange(1, 4)):
            got.append(await queue.get())

    async def iterates() -> None:
        wanted = rng.randrange(1, 4)
        async for message in queue:
            got.append(message)
            wanted -= 1
            if not wanted:
                break

    for _ in range(300):
        act()
    got += queue.drain()
    assert got == list(range(put))
    for outcome in outcomes:
        outcome.cancel()
    assert queue.waiting == []


def use_and_drop(queue: Any) -> weakref.ref[Any]:
    async def consumer() -> None:
        while True:
            await queue.get()

    waiting = queue.get()
    waiting.addCallback(lambda _: queue)
    run(consumer())
    for number in range(5):
        queue.put(number)
    return weakref.ref(queue)


def test_a_dropped_queue_is_collected(make: Any) -> None:
    reference = use_and_drop(make())
    gc.collect()
    assert reference() is None


def test_a_message_is_pickled_without_its_channel_s_state() -> None:
    message = pika_twisted.ReceivedMessage(None, spec.Basic.Deliver("t", 1), None, b"body")
    again = pickle.loads(pickle.dumps(message))
    assert type(again) is pika_twisted.ReceivedMessage
    assert again == message


def test_a_queue_that_bounds_those_who_wait() -> None:
    queue = pika_twisted.ClosableDeferredQueue(backlog=1)
    first = run(anext(queue))  # type: ignore[arg-type]
    for waiting in (queue.__anext__, lambda: queue.get_many(1), queue.get):
        with pytest.raises(defer.QueueUnderflow):
            waiting()
    queue.put("message")
    assert first.result() == "message"


# What is printed


def test_a_message_prints_100_bytes_of_its_body(module: Any) -> None:
    message = module.ReceivedMessage("channel", "method", "properties", b"x" * 100)
    fields = "channel='channel', method='method', properties='properties'"
    assert repr(message) == f"ReceivedMessage({fields}, body={b'x' * 100!r})"
    longer = module.ReceivedMessage(None, None, None, b"x" * 100 + b"y" * 5_000)
    assert repr(longer).endswith(f"body={b'x' * 100!r}... (5100 bytes))")
    assert len(repr([longer])) < 250


def test_a_queue_prints_its_state(module: Any) -> None:
    queue = module.ClosableDeferredQueue()
    assert repr(queue) == "<ClosableDeferredQueue: 0 pending, 0 waiting, open>"
    queue.put(1)
    queue.close(LookupError("the end"))
    assert repr(queue) == "<ClosableDeferredQueue: 1 pending, 0 waiting, closed: the end>"
