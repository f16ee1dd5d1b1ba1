"""Handlers with Twisted's asyncio reactor: they await what asyncio knows, and Deferreds."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet import defer
from twisted.internet.asyncioreactor import AsyncioSelectorReactor

from pika_twisted import ClosableDeferredQueue
from pika_twisted.consuming.calling import call
from pika_twisted.deferreds.tasks import in_task

pytestmark = pytest.mark.usefixtures("twisted_log")


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture
def reactor(loop: asyncio.AbstractEventLoop) -> Iterator[Any]:
    reactor = AsyncioSelectorReactor(loop)
    yield reactor
    reactor.removeAll()
    reactor.disconnectAll()


def run(loop: asyncio.AbstractEventLoop, reactor: Any, handler: Any, timeout: Any = None) -> Any:
    async def main() -> Any:
        message: Any = None
        calling = defer.Deferred.fromCoroutine(call(handler, message, timeout, reactor))
        return await calling.asFuture(loop)

    return loop.run_until_complete(asyncio.wait_for(main(), 20))


def test_a_handler_mixes_both(loop: asyncio.AbstractEventLoop, reactor: Any) -> None:
    queue, seen = ClosableDeferredQueue(), []

    async def handler(message: Any) -> None:
        assert asyncio.current_task() is not None
        await asyncio.sleep(0)
        later: defer.Deferred[str] = defer.Deferred()
        loop.call_later(0.001, later.callback, "a Deferred")
        seen.append(await later)
        seen.append(await defer.succeed("one that has fired"))
        loop.call_later(0.001, queue.put, "a message")
        seen.append(await asyncio.wait_for(queue.get(), 5))
        try:
            await defer.fail(LookupError("a failure"))
        except LookupError as error:
            seen.append(str(error))

    run(loop, reactor, handler)
    assert seen == ["a Deferred", "one that has fired", "a message", "a failure"]


def test_a_handler_that_fails(loop: asyncio.AbstractEventLoop, reactor: Any) -> None:
    async def handler(message: Any) -> None:
        await asyncio.sleep(0)
        raise LookupError("no")

    with pytest.raises(LookupError, match="no"):
        run(loop, reactor, handler)


@pytest.mark.parametrize("waits_for", ["asyncio", "Deferred"])
def test_a_handler_that_takes_too_long(
    loop: asyncio.AbstractEventLoop, reactor: Any, waits_for: str
) -> None:
    cancelled: list[Any] = []

    async def handler(message: Any) -> None:
        try:
            if waits_for == "asyncio":
                await asyncio.sleep(60)
            else:
                await defer.Deferred(cancelled.append)
        except asyncio.CancelledError:
            cancelled.append("told")
            raise

    with pytest.raises((asyncio.CancelledError, defer.TimeoutError)):
        run(loop, reactor, handler, 0.01)
    assert cancelled[-1] == "told"
    assert len(cancelled) == (1 if waits_for == "asyncio" else 2)


def test_a_task_that_is_cancelled_while_a_deferred_waits(
    loop: asyncio.AbstractEventLoop,
) -> None:
    cancelled: list[Any] = []

    async def main() -> str:
        async def wait() -> None:
            await defer.Deferred(cancelled.append)

        task = asyncio.ensure_future(in_task(wait()))
        await asyncio.sleep(0)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            return "cancelled"
        return "?"

    assert loop.run_until_complete(main()) == "cancelled"
    assert len(cancelled) == 1
