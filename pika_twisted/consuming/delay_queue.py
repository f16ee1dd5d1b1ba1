r"""A queue in which failed messages wait at the broker, and come back from.

    work ----rejected----> work.delay ----after the delay----> work
      \----given up, with the reason, by consume()----> work.dead

Both arrows are dead-lettering through the default exchange: the broker moves the messages, and
counts in their `x-death` header how often it did.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from twisted.internet import defer

from pika_twisted._arguments import check_seconds, check_table

from .giving_up import DeadLetter

CLASSIC = "classic"
QUORUM = "quorum"


class DelayQueue(NamedTuple):
    """What `declare_delay_queue()` has declared; the `retry_delay` of `consume()`."""

    queue: str
    delay: float
    delay_queue: str
    dead_letter_queue: str

    @property
    def dead_letter(self) -> DeadLetter:
        """Where `consume()` publishes what it gives up."""
        return DeadLetter("", self.dead_letter_queue)


def declare_delay_queue(
    channel: Any,
    queue: str,
    delay: float,
    *,
    queue_type: str = QUORUM,
    arguments: dict[str, Any] | None = None,
) -> defer.Deferred[DelayQueue]:
    """Declare `queue`, `queue.delay` and `queue.dead`, durable, on any channel.

    :param queue: the queue to consume from. One that exists must have been declared with the
        arguments that it gets here: a queue's dead-lettering is set when it is declared
    :param delay: seconds, in whole milliseconds, that a failed message waits
    :param queue_type: "quorum" or "classic", of all three
    :param arguments: further arguments of `queue`
    :returns: a Deferred that fires with a `DelayQueue`, the `retry_delay` of `consume()`. It fails
        with TypeError or ValueError for what makes no sense, with ChannelClosedByBroker (406) where
        one of the queues is there with other arguments.
    """
    try:
        check_seconds(delay=delay)
        check_table(arguments=arguments)
        if delay is None:
            raise TypeError("delay is a number of seconds, not None")
        if queue_type not in (CLASSIC, QUORUM):
            raise ValueError(f'queue_type is "quorum" or "classic", not {queue_type!r}')
        if not isinstance(queue, str) or not queue:
            raise ValueError(f"queue is a name, not {queue!r}")
    except (TypeError, ValueError):
        return defer.fail()
    made = DelayQueue(queue, delay, f"{queue}.delay", f"{queue}.dead")

    def to(routing_key: str, **more: Any) -> dict[str, Any]:
        return {
            "x-queue-type": queue_type,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": routing_key,
            **more,
        }

    async def declare() -> DelayQueue:
        wanted = {
            made.dead_letter_queue: {"x-queue-type": queue_type},
            made.delay_queue: to(queue, **{"x-message-ttl": round(delay * 1000)}),
            queue: {**to(made.delay_queue), **(arguments or {})},
        }
        for name, table in wanted.items():
            await channel.queue_declare(name, durable=True, arguments=table)
        return made

    return defer.Deferred.fromCoroutine(declare())
