"""`consume()`: run a handler for each message of a queue, so many at a time.

A message is acknowledged when its handler has returned. When it raises, the message goes back into
its queue after a pause that doubles while the handler keeps failing, so nothing is lost and nothing
spins; or it is dead-lettered, by choice. With one handler at a time the order is kept: a message
whose handler failed stays here, and is handled again after the pause.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from inspect import iscoroutine
from typing import Any

from pika import exceptions as pika_exceptions
from twisted.internet import defer
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from pika_twisted.channel.queue import ReceivedMessage
from pika_twisted.deferreds.containers import OrderedSet
from pika_twisted.deferreds.waiters import Waiters
from pika_twisted.exceptions import AlreadySettled

from . import _instruments
from ._arguments import check_seconds, check_whole

LOGGER = logging.getLogger("pika_twisted")

REQUEUE = "requeue"
DEAD_LETTER = "dead-letter"

#: Seconds before a message whose handler failed goes back: the first time, and at most.
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 30.0

#: Seconds that handlers have for cleaning up when `stop()` has cancelled them at its deadline.
LAST_RESPITE = 1.0

#: The consumer has ended, by our cancel or by the broker.
_ENDED = (pika_exceptions.ConsumerCancelled, pika_exceptions.AMQPError)
#: A handler was cancelled. asyncio's error, which is no Exception, comes out of what
#: `Deferred.fromFuture()` made when that is cancelled, by a time-out as well.
_CANCELLED = (defer.CancelledError, asyncio.CancelledError)


class Handling:
    """Handlers at work for one consumer; made by `consume()`."""

    def __init__(
        self,
        channel: Any,
        queue: str,
        handler: Callable[[ReceivedMessage], Any],
        *,
        concurrency: int,
        on_error: str,
        timeout: float | None,
        around: Callable[[ReceivedMessage], AbstractContextManager[Any]],
        reactor: Any,
        subscription: dict[str, Any],
    ) -> None:
        self.channel = channel
        self.queue = queue
        self.consumer_tag = ""
        #: How many messages were handled and acknowledged.
        self.handled = 0
        #: How often a handler raised, or took too long.
        self.failed = 0
        self._handler = handler
        self._concurrency = concurrency
        self._on_error = on_error
        self._timeout = timeout
        self._around = around
        self._reactor = reactor
        self._subscription = subscription
        self._messages: Any = None
        self._failures = 0  # in a row
        self._workers = OrderedSet()
        self._pauses = OrderedSet()
        self._stopping = False
        self._hurried = False
        self._waiters = Waiters()
        self._ended: tuple[BaseException | None] | None = None

    def __repr__(self) -> str:
        return f"<Handling of {self.queue!r}: {self.handled} handled, {self.failed} failed>"

    @property
    def running(self) -> bool:
        """Whether messages are taken."""
        return self._ended is None and not self._stopping

    def when_stopped(self) -> defer.Deferred[None]:
        """A Deferred that fires with None after `stop()`, when the last handler is done.

        It fails with the reason when consuming ended otherwise: the broker cancelled the consumer
        (ConsumerCancelled), or the channel closed.
        """
        waiter = self._waiters.wait()
        if self._ended is not None:
            self._tell(*self._ended)
        return waiter

    def stop(self, deadline: float | None = None) -> defer.Deferred[None]:
        """Take no more messages, let the handlers at work finish, give back what none has begun.

        :param deadline: seconds after which those still at work are cancelled and their messages
            go back into the queue; None to wait for as long as they take. A handler that goes on
            1 s after that is waited for no longer: its message stays unsettled, to be delivered
            again once the channel is closed
        :returns: a Deferred that fires with None when everything else is settled
        :raises TypeError, ValueError: the deadline is no number, or below 0; nothing is stopped
        """
        check_seconds(deadline=deadline)
        done: defer.Deferred[None] = defer.Deferred()
        self.when_stopped().addBoth(lambda _: done.callback(None))
        if self.running:
            self._stopping = True
            self._cut_pauses()
            self._cancel_consumer().addBoth(self._let_finish)
        if deadline is not None and self._ended is None:
            for wait, then in ((deadline, self._hurry), (deadline + LAST_RESPITE, self._give_up)):
                done.addBoth(_stop_timer, self._reactor.callLater(wait, then))
        return done

    # Inside

    async def _start(self) -> None:
        self._messages, self.consumer_tag = await self.channel.basic_consume(
            self.queue, **self._subscription
        )
        self.channel.add_on_close_callback(self._cut_pauses)
        for _ in range(self._concurrency):
            worker = defer.Deferred.fromCoroutine(self._work())
            self._workers.add(worker)
            worker.addBoth(self._on_worker_done, worker)

    async def _work(self) -> None:
        """One of `concurrency` loops: a message, its handler, its ack."""
        while not self._stopping:
            message = await self._messages.get()
            if self._stopping:
                _settle(message.nack)
                return
            if await self._handle(message):
                self._failures = 0
                self.handled += 1

    async def _handle(self, message: ReceivedMessage) -> bool:
        """Whether the handler did its work; settled is the message in any case."""
        message.channel._is_settled(message)  # asked before the handler may settle it
        while True:
            try:
                with self._around(message):
                    await self._call(message)
            except (Exception, asyncio.CancelledError) as error:
                if self._hurried and isinstance(error, _CANCELLED):
                    LOGGER.warning("Handler of %r was cut off at the deadline", self.queue)
                    _settle(message.nack)
                    return False
                if not await self._on_failed(message):
                    return False
            else:
                _settle(message.ack)
                return True

    async def _call(self, message: ReceivedMessage) -> None:
        result = self._handler(message)
        if result is not None and asyncio.isfuture(result):
            result = defer.Deferred.fromFuture(result)
        elif iscoroutine(result):
            if self._timeout is None:
                await result
                return
            result = defer.Deferred.fromCoroutine(result)
        if isinstance(result, defer.Deferred):
            if self._timeout is not None:
                result.addTimeout(self._timeout, self._reactor)
            await result

    # What becomes of a message whose handler failed

    async def _on_failed(self, message: ReceivedMessage) -> bool:
        """Give the message back or away; whether the handler is to be called again instead."""
        self.failed += 1
        self._failures += 1
        if self._on_error == DEAD_LETTER:
            LOGGER.exception("Handler of %r failed; the message is dead-lettered", self.queue)
            _settle(message.nack, False)
            return False
        pause = min(FIRST_PAUSE * 2 ** min(self._failures - 1, 20), LONGEST_PAUSE)
        LOGGER.exception("Handler of %r failed; again in %.1f s", self.queue, pause)
        await self._pause(pause)
        alive = message.channel.is_open
        if message.channel._is_settled(message):  # by the handler, before it failed
            return False
        # Only here does a message keep its place: a quorum queue puts what it gets back at its end
        # (without a delivery limit), and a stream takes nothing back. A service goes on behind what
        # a stream has handed out, so that comes again on no other channel.
        if self.running and _is_of_stream(message) and (alive or self._messages.closed is None):
            return True
        if self.running and alive and self._concurrency == 1:
            return True
        _settle(message.nack)
        return False

    async def _pause(self, seconds: float) -> None:
        if self._stopping:
            return
        pause: defer.Deferred[None] = deferLater(self._reactor, seconds)
        self._pauses.add(pause)
        try:
            await pause
        except defer.CancelledError:  # stopping, or the channel is gone
            pass
        finally:
            self._pauses.discard(pause)

    def _cut_pauses(self, *_: Any) -> None:
        for pause in list(self._pauses):
            pause.cancel()

    # The end

    def _cancel_consumer(self) -> Any:
        return self.channel.basic_cancel(self.consumer_tag)

    def _let_finish(self, _result: Any) -> None:
        self._give_back()
        self._check_ended(None)

    def _give_back(self) -> None:
        """What none has begun goes back into its queue."""
        if self._messages is not None:
            for message in self._messages.drain():
                _settle(message.nack)

    def _hurry(self) -> None:
        self._hurried = True
        for worker in list(self._workers):
            worker.cancel()

    def _give_up(self) -> None:
        """Handlers that go on although they were cancelled hold up nobody any longer."""
        LOGGER.warning(
            "%d handler(s) of %r, %r, go on although they were cancelled at the deadline; "
            "their messages stay unsettled and will be delivered again",
            len(self._workers),
            self.queue,
            self._handler,
        )
        self._workers = OrderedSet()
        self._check_ended(None)

    def _on_worker_done(self, result: Any, worker: Any) -> None:
        self._workers.discard(worker)
        failed = isinstance(result, Failure)
        if failed and not result.check(*_ENDED) and not self._hurried:
            LOGGER.error("Consuming %r ended unexpectedly: %s", self.queue, result.value)
        self._check_ended(result.value if failed else None)

    def _check_ended(self, why: BaseException | None) -> None:
        if self._workers or self._ended is not None:
            return
        self._ended = (None if self._stopping else why,)
        if self.channel.is_open:  # the broker cancelled the consumer: it still counts them as ours
            self._give_back()
        self._tell(*self._ended)

    def _tell(self, why: BaseException | None) -> None:
        if why is None:
            self._waiters.fire()
        else:
            self._waiters.fail(why)


def consume(
    channel: Any,
    queue: str,
    handler: Callable[[ReceivedMessage], Any],
    *,
    concurrency: int = 1,
    prefetch_count: int | None = None,
    on_error: str = REQUEUE,
    timeout: float | None = None,
    around: Callable[[ReceivedMessage], AbstractContextManager[Any]] = nullcontext,
    exclusive: bool = False,
    consumer_tag: str | None = None,
    arguments: dict[str, Any] | None = None,
    reactor: Any = None,
) -> defer.Deferred[Handling]:
    """Run `handler(message)` for each message of a queue, at most `concurrency` at a time.

    The handler may settle the message itself; else it is acknowledged once the handler is done.
    With a concurrency of 1 the order of the queue is kept: when the handler fails it is called with
    the same message again after the pause, instead of requeueing it behind others.

    :param channel: a TwistedChannel, or a service's; no other consumer should be on it
    :param handler: an `async def`, a function that returns a Deferred (inlineCallbacks) or, with
        Twisted's asyncio reactor, a Future, or a plain function
    :param prefetch_count: how many messages may wait here; by default twice the concurrency, at
        least 20
    :param on_error: "requeue", after a pause of 0.1 s that doubles to 30 s while handlers keep
        failing; or "dead-letter"
    :param timeout: seconds that a handler may take; then it is cancelled, and has failed
    :param around: gives a context manager around the handling of each message (for tracing, say)
    :returns: a Deferred that fires with a `Handling` once the broker has agreed. It fails with a
        ChannelClosed when it refuses, with TypeError or ValueError for arguments that make no
        sense.
    """
    if not callable(handler):
        return defer.fail(TypeError(f"a handler is called with each message; {handler!r} can't be"))
    if not callable(around):
        return defer.fail(TypeError(f"around is called with each message; {around!r} can't be"))
    try:
        check_whole(concurrency=concurrency)
        if prefetch_count is None:
            prefetch_count = max(2 * concurrency, 20)
        check_whole(prefetch_count=prefetch_count)
        check_seconds(timeout=timeout)
    except (TypeError, ValueError):
        return defer.fail()
    if concurrency < 1 or prefetch_count < concurrency:
        return defer.fail(ValueError("concurrency is at least 1, prefetch_count at least that"))
    if on_error not in (REQUEUE, DEAD_LETTER):
        return defer.fail(ValueError(f'on_error is "requeue" or "dead-letter", not {on_error!r}'))
    if reactor is None:
        from twisted.internet import reactor
    handling = Handling(
        channel,
        queue,
        handler,
        concurrency=concurrency,
        on_error=on_error,
        timeout=timeout,
        around=_instruments.around(queue, around),
        reactor=reactor,
        subscription={
            "exclusive": exclusive,
            "consumer_tag": consumer_tag,
            "arguments": arguments,
        },
    )

    async def start() -> Handling:
        await channel.basic_qos(prefetch_count=prefetch_count)
        await handling._start()
        return handling

    return defer.Deferred.fromCoroutine(start())


def _settle(settle: Callable[..., None], *arguments: Any) -> None:
    """Settle a message unless the handler did, or its channel is gone (it comes again then)."""
    try:
        settle(*arguments)
    except AlreadySettled:
        pass
    except pika_exceptions.ChannelWrongStateError as error:
        LOGGER.info("A message could not be settled and will be delivered again: %s", error)


def _stop_timer(_result: Any, timer: Any) -> None:
    if timer.active():
        timer.cancel()


def _is_of_stream(message: ReceivedMessage) -> bool:
    try:
        return "x-stream-offset" in (message.properties.headers or ())
    except pika_exceptions.AMQPError:  # headers that can't be decoded
        return False
