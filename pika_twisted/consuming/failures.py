"""What becomes of a message whose handler failed: another attempt, when and where, or the end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pika import exceptions as pika_exceptions
from twisted.internet import defer
from twisted.internet.task import deferLater

from pika_twisted._arguments import check_seconds
from pika_twisted.channel.consumer import is_of_stream
from pika_twisted.channel.queue import ReceivedMessage
from pika_twisted.deferreds.containers import OrderedSet
from pika_twisted.exceptions import AlreadySettled

from .attempts import Attempts, Delay, back_off, has_come_back, message_id_of
from .calling import call
from .delay_queue import DelayQueue
from .giving_up import REJECT, REJECTED, DeadLetter, GiveUp

LOGGER = logging.getLogger("pika_twisted")

#: With one handler at a time a message is tried so often before it goes back into its queue, and
#: others pass it: enough for what was wrong for a moment, and the order of the queue is kept.
TRIES_IN_PLACE = 3
#: A stream takes nothing back: its messages are tried so often, unless `max_attempts` says.
TRIES_OF_STREAM = 20

#: What ends a handler: SystemExit, too, which Twisted's callbacks survive.
FAILURES = (Exception, asyncio.CancelledError, SystemExit, KeyboardInterrupt)


@dataclass
class Policy:
    """What `consume()` was told of failures."""

    queue: str
    rejects: bool
    max_attempts: int | None
    retry_delay: Delay | DelayQueue
    on_give_up: str | GiveUp
    timeout: float | None
    in_place: bool
    most_parked: int


class Failures:
    """Failed messages of one consumer.

    They are given back with Basic.Reject, which counts in a delivery limit; for quorum queues of
    RabbitMQ 4.3 Basic.Nack gives back what was not tried.

    :param policy: what to do
    :param reactor: for pauses
    :param may_stay: returns whether a message, of a stream or not, may be handled here again
    """

    def __init__(
        self, policy: Policy, reactor: Any, may_stay: Callable[[ReceivedMessage, bool], bool]
    ) -> None:
        self.given_up = 0
        self._policy = policy
        self._reactor = reactor
        self._may_stay = may_stay
        self._attempts = Attempts(policy.queue)
        self._in_a_row = 0
        self._pauses = OrderedSet()
        # Messages that wait beside the handlers, each with its timer.
        self._parked: dict[Any, ReceivedMessage] = {}
        self._stopped = False

    def handled(self, message: ReceivedMessage) -> None:
        """Note that a handler did its work."""
        self._in_a_row = 0
        self._attempts.forget(message)

    def stop(self) -> None:
        """Wait no more: give back what waits here."""
        self._stopped = True
        self.cut_short()

    def cut_short(self) -> None:
        """End all pauses: the channel is gone, or it stops."""
        for pause in list(self._pauses):
            pause.cancel()
        parked, self._parked = self._parked, {}
        for timer, message in parked.items():
            timer.cancel()
            settle(message.reject)

    def describe(self, message: ReceivedMessage) -> str:
        """Return what a log says of a message, without its body."""
        method, message_id = message.method, message_id_of(message)
        return (
            f"Handler of queue {self._policy.queue!r} (delivery tag {method.delivery_tag}, "
            f"message_id {message_id!r}, routing key {method.routing_key!r})"
        )

    async def failed(self, message: ReceivedMessage, error: BaseException) -> bool:
        """Give the message back or away. Return whether the handler is to be called again."""
        policy = self._policy
        self._in_a_row += 1
        attempt = self._attempts.fail(message)
        if policy.rejects:
            self._log_failure(message, attempt, error, REJECTED)
            settle(message.reject, False)
            return False
        streamed = is_of_stream(message.properties)
        most = policy.max_attempts or (TRIES_OF_STREAM if streamed else None)
        if most is not None and attempt >= most:
            await self._give_up(message, attempt, error, streamed)
            return False
        if isinstance(policy.retry_delay, DelayQueue):
            seconds = policy.retry_delay.delay
            waits = f"it comes again in {seconds:g} s, out of the delay queue"
            self._log_failure(message, attempt, error, waits)
            settle(message.reject, False)
            return False
        return await self._try_later(message, attempt, error, self._delay_after(attempt))

    def _delay_after(self, attempt: int) -> float:
        """Return the seconds to wait; those of the default where the user's function fails."""
        delay = self._policy.retry_delay
        assert not isinstance(delay, DelayQueue)
        try:
            seconds = delay(attempt)
            check_seconds(retry_delay=seconds)
            return float(seconds)
        except Exception:
            LOGGER.exception("retry_delay(%d) failed", attempt)
            return back_off(attempt)

    async def _try_later(
        self, message: ReceivedMessage, attempt: int, error: BaseException, delay: float
    ) -> bool:
        streamed = is_of_stream(message.properties)
        # Only here does a message keep its place: a queue may put what it gets back at its end, and
        # a stream takes nothing back.
        stays = streamed or (
            self._policy.in_place and attempt < TRIES_IN_PLACE and not has_come_back(message)
        )
        where = "again here" if stays else "it goes back into the queue"
        self._log_failure(message, attempt, error, f"{where} in {delay:.1f} s")
        held = delay if stays else min(delay, back_off(self._in_a_row))
        await self._pause(held)
        if message.channel._is_settled(message):  # by the handler, before it failed
            return False
        if stays and self._may_stay(message, streamed):
            return True
        if delay > held and not self._stopped and len(self._parked) < self._policy.most_parked:
            self._park(message, delay - held)
        else:
            settle(message.reject)
        return False

    def _log_failure(
        self, message: ReceivedMessage, attempt: int, error: BaseException, then: str
    ) -> None:
        LOGGER.error(
            "%s failed at attempt %d; %s", self.describe(message), attempt, then, exc_info=error
        )

    async def _give_up(
        self, message: ReceivedMessage, attempt: int, error: BaseException, streamed: bool
    ) -> None:
        """It was the last attempt."""
        how = self._policy.on_give_up
        then = REJECTED
        if streamed and how == REJECT:
            then = "skipped; it stays in the stream"
        elif isinstance(how, DeadLetter):
            then = f"published to {how.exchange!r} with the routing key {how.routing_key!r}"
        elif callable(how):
            then = f"handed to {how!r}"
        self._log_failure(message, attempt, error, f"given up: {then}")
        if message.channel._is_settled(message):
            return
        try:
            if isinstance(how, DeadLetter):
                await how.publish(message, error, attempt, self._policy.queue)
            elif callable(how):
                await call(lambda it: how(it, error), message, self._policy.timeout, self._reactor)
        except FAILURES as why:
            delay = back_off(self._in_a_row)
            LOGGER.error(
                "%s: giving up failed; it goes back into the queue in %.1f s",
                self.describe(message),
                delay,
                exc_info=why,
            )
            await self._pause(delay)
            settle(message.reject)
            return
        self.given_up += 1
        self._attempts.forget(message)
        if how == REJECT and not streamed:
            settle(message.reject, False)
        else:
            settle(message.ack)

    def _park(self, message: ReceivedMessage, seconds: float) -> None:
        """Let a message wait without a handler, unacknowledged, before it goes back."""

        def over() -> None:
            del self._parked[timer]
            settle(message.reject)

        timer = self._reactor.callLater(seconds, over)
        self._parked[timer] = message

    async def _pause(self, seconds: float) -> None:
        if self._stopped:
            return
        pause: defer.Deferred[None] = deferLater(self._reactor, seconds)
        self._pauses.add(pause)
        try:
            await pause
        except defer.CancelledError:  # stopping, or the channel is gone
            pass
        finally:
            self._pauses.discard(pause)


def settle(settle: Callable[..., None], *arguments: Any) -> None:
    """Settle a message unless the handler did, or its channel is gone (it comes again then)."""
    try:
        settle(*arguments)
    except AlreadySettled:
        pass
    except pika_exceptions.ChannelWrongStateError as error:
        LOGGER.info("A message could not be settled and will be delivered again: %s", error)
