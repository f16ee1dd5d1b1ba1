"""`consume()`: run a handler for each message of a queue, so many at a time.

A message is acknowledged when its handler has returned. One whose handler has failed goes back into
its queue after a pause, to be tried again; the queue's own delivery limit counts, nothing is lost
and nothing spins. While handlers keep failing the pauses grow, and hold up the next messages, too:
that spares a queue whose handlers all fail, for a database is down. A message that fails again and
again while others are handled waits by itself, and they go on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from pika import exceptions as pika_exceptions
from twisted.internet import defer
from twisted.python.failure import Failure

from pika_twisted import _instruments
from pika_twisted._arguments import check_seconds, check_whole
from pika_twisted.channel.queue import ReceivedMessage
from pika_twisted.deferreds.containers import OrderedSet
from pika_twisted.deferreds.waiters import Waiters

from .attempts import Delay, back_off
from .calling import call
from .delay_queue import DelayQueue
from .failures import FAILURES, Failures, Policy, settle
from .giving_up import REJECT, DeadLetter, GiveUp

LOGGER = logging.getLogger("pika_twisted")

REQUEUE = "requeue"
DEAD_LETTER = "dead-letter"

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
        policy: Policy,
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
        self._failures = Failures(policy, reactor, self._may_stay)
        self._timeout = timeout
        self._around = around
        self._reactor = reactor
        self._subscription = subscription
        self._messages: Any = None
        self._workers = OrderedSet()
        self._stopping = False
        self._hurried = False
        self._waiters = Waiters()
        self._ending = False

    def __repr__(self) -> str:
        return f"<Handling of {self.queue!r}: {self.handled} handled, {self.failed} failed>"

    @property
    def given_up(self) -> int:
        """How many messages were given up after `max_attempts`."""
        return self._failures.given_up

    @property
    def running(self) -> bool:
        """Whether messages are taken."""
        return not self._waiters.concluded and not self._stopping

    def when_stopped(self) -> defer.Deferred[None]:
        """A Deferred that fires with None after `stop()`, when the last handler is done.

        It fails with the reason when consuming ended otherwise: the broker cancelled the consumer
        (ConsumerCancelled), or the channel closed.
        """
        return self._waiters.wait()

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
            self._failures.stop()
            self._cancel_consumer().addBoth(self._let_finish)
        if deadline is not None and not self._waiters.concluded:
            for wait, then in ((deadline, self._hurry), (deadline + LAST_RESPITE, self._give_up)):
                done.addBoth(_stop_timer, self._reactor.callLater(wait, then))
        return done

    # Inside

    async def _start(self) -> None:
        self._messages, self.consumer_tag = await self.channel.basic_consume(
            self.queue, **self._subscription
        )
        self.channel.add_on_close_callback(self._on_channel_closed)
        for _ in range(self._concurrency):
            worker = defer.Deferred.fromCoroutine(self._work())
            self._workers.add(worker)
            worker.addBoth(self._on_worker_done, worker)

    async def _work(self) -> None:
        """One of `concurrency` loops: a message, its handler, its ack."""
        while not self._stopping:
            message = await self._messages.get()
            if self._stopping:
                settle(message.nack)
                return
            if await self._handle(message):
                self.handled += 1
                self._failures.handled(message)

    async def _handle(self, message: ReceivedMessage) -> bool:
        """Handle and settle a message. Return whether the handler did its work."""
        message.channel._is_settled(message)  # asked before the handler may settle it
        while True:
            try:
                with self._around(message):
                    await call(self._handler, message, self._timeout, self._reactor)
            except FAILURES as error:
                if self._hurried and isinstance(error, _CANCELLED):
                    LOGGER.warning(
                        "%s was cut off at the deadline", self._failures.describe(message)
                    )
                    settle(message.nack)
                    return False
                self.failed += 1
                if not await self._failures.failed(message, error):
                    return False
            else:
                settle(message.ack)
                return True

    def _may_stay(self, message: ReceivedMessage, streamed: bool) -> bool:
        # A service goes on behind what a stream has handed out: that comes again on no channel.
        alive = message.channel.is_open or (streamed and self._messages.closed is None)
        return self.running and alive

    # The end

    def _on_channel_closed(self, _channel: Any, _reason: BaseException) -> None:
        self._failures.cut_short()

    def _cancel_consumer(self) -> Any:
        return self.channel.basic_cancel(self.consumer_tag)

    def _let_finish(self, _result: Any) -> None:
        self._give_back()
        self._check_ended(None)

    def _give_back(self) -> None:
        """What none has begun goes back into its queue."""
        if self._messages is not None:
            for message in self._messages.drain():
                settle(message.nack)

    def _hurry(self) -> None:
        self._hurried = True
        for worker in list(self._workers):
            worker.cancel()

    def _give_up(self) -> None:
        """Wait no longer for handlers that go on although they were cancelled."""
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
        if self._workers or self._ending:
            return
        self._ending = True
        self.channel.remove_on_close_callback(self._on_channel_closed)
        self._failures.stop()
        if self.channel.is_open:  # the broker cancelled the consumer: it still counts them as ours
            self._give_back()
        # Cancelled by this client, as the end of the reactor does, it is stopped, too.
        stopped = self._stopping or (self._messages is not None and self._messages._ended)
        self._waiters.conclude(None if stopped or why is None else Failure(why))


def consume(
    channel: Any,
    queue: str,
    handler: Callable[[ReceivedMessage], Any],
    *,
    concurrency: int = 1,
    prefetch_count: int | None = None,
    on_error: str = REQUEUE,
    max_attempts: int | None = None,
    retry_delay: float | Delay | DelayQueue | None = None,
    on_give_up: str | GiveUp | None = None,
    timeout: float | None = None,
    around: Callable[[ReceivedMessage], AbstractContextManager[Any]] = nullcontext,
    exclusive: bool = False,
    consumer_tag: str | None = None,
    arguments: dict[str, Any] | None = None,
    reactor: Any = None,
) -> defer.Deferred[Handling]:
    """Run `handler(message)` for each message of a queue, at most `concurrency` at a time.

    The handler may settle the message itself; else it is acknowledged once the handler is done.
    When it fails the message goes back into its queue after a pause, for the next attempt. With a
    concurrency of 1 the order of the queue is kept as long as the handler works within three
    attempts: those are made here, before the next message. What is flagged as delivered before
    goes back at once.

    Without `max_attempts` a message is tried until it is handled, or the queue's delivery limit
    (`x-delivery-limit`, 20 by default on quorum queues of RabbitMQ 4) ends it; messages of a stream
    are skipped after 20 attempts. The documentation says how attempts are counted.

    :param channel: a TwistedChannel, or a service's; no other consumer should be on it
    :param queue: the queue's name; "" for the one declared last on the channel
    :param handler: an `async def`, a function that returns a Deferred (inlineCallbacks), a Future
        or anything else that can be awaited, or a plain function. With Twisted's asyncio reactor an
        `async def` runs in a task of its own, and awaits asyncio's things and Deferreds
    :param concurrency: how many messages are handled at a time, 1 or more
    :param prefetch_count: how many messages may wait here; by default twice the concurrency, at
        least 20
    :param on_error: "requeue", to try again; or "dead-letter", to reject the message at its first
        failure: its queue's dead-letter exchange gets it, and without one it is dropped
    :param max_attempts: give a message up after so many attempts; None for no limit here
    :param retry_delay: seconds before a message goes back, or a function that returns them for the
        number of failed attempts, or what `declare_delay_queue()` fired with; None for 0.1 s that
        double up to 30 s
    :param on_give_up: what becomes of a message after `max_attempts`: "reject", a `DeadLetter`, or
        a function that is called with the message and the error and may be asynchronous, after
        which the message is acknowledged. None: the delay queue's dead-letter queue, else "reject"
    :param timeout: seconds that a handler may take; then it is cancelled, and has failed
    :param around: gives a context manager around the handling of each message (for tracing, say)
    :param exclusive: whether the queue may have no other consumer
    :param consumer_tag: the consumer's name; None to have one made up
    :param arguments: of the consumer, `{"x-priority": 5}` say
    :param reactor: for pauses and time-outs; the default reactor when None
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
        _check_retries(on_error, max_attempts, retry_delay, on_give_up)
    except (TypeError, ValueError):
        return defer.fail()
    if concurrency < 1 or prefetch_count < concurrency:
        return defer.fail(ValueError("concurrency is at least 1, prefetch_count at least that"))
    if reactor is None:
        from twisted.internet import reactor
    handling = Handling(
        channel,
        queue,
        handler,
        concurrency=concurrency,
        policy=Policy(
            queue,
            rejects=on_error == DEAD_LETTER,
            max_attempts=max_attempts,
            retry_delay=_as_delay(retry_delay),
            on_give_up=on_give_up or _default_end(retry_delay),
            timeout=timeout,
            in_place=concurrency == 1,
            most_parked=prefetch_count // 2,
        ),
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


def _stop_timer(_result: Any, timer: Any) -> None:
    if timer.active():
        timer.cancel()


def _check_retries(on_error: Any, max_attempts: Any, retry_delay: Any, on_give_up: Any) -> None:
    """TypeError or ValueError for what says nothing about the next attempt, or the last."""
    if on_error not in (REQUEUE, DEAD_LETTER):
        raise ValueError(f'on_error is "requeue" or "dead-letter", not {on_error!r}')
    if max_attempts is not None:
        check_whole(max_attempts=max_attempts)
        if max_attempts < 1:
            raise ValueError(f"max_attempts is at least 1, not {max_attempts}")
    if not isinstance(retry_delay, DelayQueue) and not callable(retry_delay):
        check_seconds(retry_delay=retry_delay)
    if on_give_up is None or on_give_up == REJECT or isinstance(on_give_up, DeadLetter):
        return
    if not callable(on_give_up):
        raise TypeError(f'on_give_up is "reject", a DeadLetter or a function, not {on_give_up!r}')


def _as_delay(retry_delay: float | Delay | DelayQueue | None) -> Delay | DelayQueue:
    if retry_delay is None:
        return back_off
    if isinstance(retry_delay, DelayQueue) or callable(retry_delay):
        return retry_delay
    seconds = float(retry_delay)
    return lambda _attempt: seconds


def _default_end(retry_delay: Any) -> str | DeadLetter:
    return retry_delay.dead_letter if isinstance(retry_delay, DelayQueue) else REJECT
