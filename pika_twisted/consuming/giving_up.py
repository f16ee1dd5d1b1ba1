"""What becomes of a message after its last attempt."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

from pika import exceptions as pika_exceptions
from pika import spec

from pika_twisted.channel.queue import ReceivedMessage

#: Reject the message: the queue's dead-letter exchange gets it, if it has one.
REJECT = "reject"

#: What a log says of a message that was rejected. Nothing tells a client which of the two it is.
REJECTED = "rejected; it is dead-lettered if the queue has a dead-letter exchange, else dropped"

#: So many characters of an error go into a header.
_LONGEST_REASON = 1000

#: A header by which the broker would route once more; what a queue's own dead-lettering leaves out.
_NOT_AGAIN = ("CC", "BCC")


class DeadLetter(NamedTuple):
    """Where `consume()` publishes a message that it gives up, with the reason in its headers.

    These are `x-failure-reason`, `x-failure-attempts` and `x-failure-queue`, beside the message's
    own. It is published mandatory and with a confirm, which puts the consumer's channel into
    confirm mode, and acknowledged after that.
    """

    exchange: str
    routing_key: str

    async def publish(
        self, message: ReceivedMessage, error: BaseException, attempts: int, queue: str
    ) -> None:
        """Publish the message there; raises when no queue has it."""
        channel = message.channel
        await channel.confirm_delivery()
        reason = f"{type(error).__name__}: {error}"[:_LONGEST_REASON]
        properties = _copied(message)
        properties.headers = {
            **(properties.headers or {}),
            "x-failure-reason": reason.encode("utf-8", "replace").decode(),
            "x-failure-attempts": attempts,
            "x-failure-queue": queue,
        }
        await channel.basic_publish(
            self.exchange, self.routing_key, message.body, properties, mandatory=True
        )


#: What `consume(on_give_up=...)` takes: "reject", or one of these.
GiveUp = DeadLetter | Callable[[ReceivedMessage, BaseException], Any]


def _copied(message: ReceivedMessage) -> Any:
    """Return the properties to publish a message again with."""
    try:
        properties = copy.copy(message.properties)
        properties.headers = {
            key: value for key, value in (properties.headers or {}).items() if key not in _NOT_AGAIN
        }
        properties.user_id = None  # the broker refuses one that is not this login's
        properties.expiration = None  # it would expire there, too
    except pika_exceptions.AMQPError:  # headers that can't be decoded
        return spec.BasicProperties()
    return properties
