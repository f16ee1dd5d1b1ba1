"""asyncio's tasks wait for a queue's messages: each is handed out once, whatever is cancelled."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterator
from types import ModuleType
from typing import Any

import pytest
from twisted.internet import defer

from pika_twisted.deferreds import lazy
from tests.support import queues

pytestmark = pytest.mark.usefixtures("twisted_log")

Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture(params=queues.IMPLEMENTATIONS)
def module(request: pytest.FixtureRequest) -> ModuleType:
    return queues.load(request.param)


@pytest.fixture
def queue(module: ModuleType) -> Any:
    return module.ClosableDeferredQueue()


@pytest.fixture
def run() -> Iterator[Run]:
    loop = asyncio.new_event_loop()

    def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
        return loop.run_until_complete(asyncio.wait_for(coroutine, 20))

    yield run
    loop.close()


async def turn() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


@pytest.mark.parametrize("early", [True, False], ids=["ready", "waiting"])
def test_a_task_awaits_a_get(queue: Any, run: Run, early: bool) -> None:
    async def main() -> Any:
        if early:
            queue.put("message")
        else:
            asyncio.get_running_loop().call_soon(queue.put, "message")
        return await queue.get()

    assert run(main()) == "message"


def test_a_task_iterates_over_a_queue_until_it_ends(queue: Any, run: Run) -> None:
    async def main() -> list[Any]:
        loop = asyncio.get_running_loop()
        for number in range(3):
            loop.call_later(0.001 * number, queue.put, number)
        loop.call_later(0.01, lambda: queue.close(LookupError("over"), end=True))
        return [message async for message in queue]

    assert run(main()) == [0, 1, 2]


def test_a_task_gets_the_reason_of_the_end(queue: Any, run: Run) -> None:
    async def main() -> None:
        asyncio.get_running_loop().call_soon(queue.close, LookupError("over"))
        await queue.get()

    with pytest.raises(LookupError, match="over"):
        run(main())


def test_a_task_awaits_a_confirm(run: Run) -> None:
    async def main() -> Any:
        confirm = lazy.unconfirmed()
        asyncio.get_running_loop().call_soon(confirm.callback, "acked")
        return await confirm

    assert run(main()) == "acked"


def as_it_is(get: Any) -> Any:
    return get


def as_future(get: Any) -> Any:
    return get.asFuture(asyncio.get_running_loop())


FORMS = pytest.mark.parametrize("form", [as_it_is, as_future])


@FORMS
def test_cancelled_before_the_message_comes(queue: Any, run: Run, form: Any) -> None:
    async def main() -> None:
        async def take() -> None:
            await form(queue.get())

        task = asyncio.ensure_future(take())
        await turn()
        task.cancel()
        queue.put("message")
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())
    assert queue.pending == ["message"]
    assert queue.waiting == []


@FORMS
@pytest.mark.parametrize("many", [False, True], ids=["get", "get_many"])
def test_cancelled_when_the_message_has_come(queue: Any, run: Run, form: Any, many: bool) -> None:
    """In one turn of the loop: the message first, then the time-out. It goes back to the front."""

    async def main() -> None:
        async def take() -> None:
            await form(queue.get_many(5) if many else queue.get())

        task = asyncio.ensure_future(take())
        await turn()
        for message in ("first", "second"):
            queue.put(message)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await turn()

    run(main())
    assert queue.pending == ["first", "second"]


def test_a_future_is_cancelled_and_a_message_comes_in_the_same_turn(queue: Any, run: Run) -> None:
    async def main() -> None:
        future = queue.get().asFuture(asyncio.get_running_loop())
        assert future.cancel()
        queue.put("message")
        assert not future.cancel()
        await turn()

    run(main())
    assert queue.pending == ["message"]


def test_the_next_that_waits_gets_what_was_given_back(queue: Any, run: Run) -> None:
    async def main() -> Any:
        async def take() -> Any:
            return await queue.get()

        first, second = asyncio.ensure_future(take()), asyncio.ensure_future(take())
        await turn()
        queue.put("message")
        first.cancel()
        return await second

    assert run(main()) == "message"


def test_a_coroutine_of_twisted_gives_nothing_back(queue: Any) -> None:
    """It was handed the message before it failed."""

    async def take() -> None:
        await queue.get()
        raise LookupError

    taking = defer.ensureDeferred(take())
    queue.put("message")
    taking.addErrback(lambda failure: failure.trap(LookupError))
    assert queue.pending == []


@FORMS
def test_2000_messages_against_time_outs(queue: Any, run: Run, form: Any) -> None:
    got = []

    async def main() -> None:
        rng = random.Random(1)

        async def take() -> None:
            while len(got) < 2_000:
                try:
                    get = form(queue.get())
                    got.append(await asyncio.wait_for(get, rng.random() * 0.002))
                except asyncio.TimeoutError:
                    pass

        taking = asyncio.ensure_future(take())
        for number in range(2_000):
            queue.put(number)
            if number % 3 == 0:
                await asyncio.sleep(rng.random() * 0.002)
        await asyncio.wait_for(taking, 20)

    run(main())
    assert got == list(range(2_000))
