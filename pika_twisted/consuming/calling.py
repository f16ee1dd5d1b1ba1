"""Call a handler, and wait for whatever it returns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from inspect import isasyncgen, isawaitable, iscoroutine, isgenerator
from typing import Any

from twisted.internet import defer

from pika_twisted.channel.queue import ReceivedMessage
from pika_twisted.deferreds.tasks import in_task, is_asyncios


async def call(
    handler: Callable[[ReceivedMessage], Any],
    message: ReceivedMessage,
    timeout: float | None,
    reactor: Any,
) -> None:
    """Call `handler(message)` and wait until it is done, at most `timeout` seconds.

    A coroutine runs in an asyncio task with Twisted's asyncio reactor, and else as Twisted's do.

    :raises TypeError: it returned what nothing can run
    """
    try:
        result = handler(message)
    except GeneratorExit as error:  # which would look as if this coroutine was closed
        raise RuntimeError("the handler raised GeneratorExit") from error
    if result is None:
        return
    if asyncio.isfuture(result):
        result = defer.Deferred.fromFuture(result)
    elif iscoroutine(result):
        if is_asyncios(reactor):
            task = asyncio.get_running_loop().create_task(in_task(result))
            result = defer.Deferred.fromFuture(task)
        elif timeout is None:
            await result
            return
        else:
            result = defer.Deferred.fromCoroutine(result)
    elif not isinstance(result, defer.Deferred):
        if isgenerator(result) or isasyncgen(result):
            raise TypeError(_never_ran(handler, result))
        if not isawaitable(result):
            return
        result = defer.Deferred.fromCoroutine(_await(result))
    if timeout is not None:
        result.addTimeout(timeout, reactor)
    await result


async def _await(awaitable: Any) -> Any:
    return await awaitable


def _never_ran(handler: Any, result: Any) -> str:
    if isasyncgen(result):
        return f"{handler!r} is an async generator, which nothing iterates: its body never ran"
    return (
        f"{handler!r} is a generator function, which nothing iterates: its body never ran. "
        "Decorate it with twisted.internet.defer.inlineCallbacks, or make it an async def"
    )
