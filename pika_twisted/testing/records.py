"""What a broker has seen, for tests to look at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pika_twisted.testing.message import Message, QueuedMessage


@dataclass(frozen=True)
class Published:
    """A message that a client has published, and the queues that it was routed to."""

    message: Message
    queues: tuple[str, ...]
    channel: Any

    @property
    def body(self) -> bytes:
        """The body."""
        return self.message.body

    @property
    def properties(self) -> Any:
        """The properties."""
        return self.message.properties

    @property
    def exchange(self) -> str:
        """The name of the exchange."""
        return self.message.exchange

    @property
    def routing_key(self) -> str:
        """The routing key."""
        return self.message.routing_key


@dataclass(frozen=True)
class Settled:
    """A delivery that has ended.

    `outcome` is "acked", "rejected" (not requeued) or "requeued".
    """

    queue: str
    message: QueuedMessage
    outcome: str

    @property
    def body(self) -> bytes:
        """The body of the message."""
        return self.message.body


@dataclass(frozen=True)
class Dropped:
    """A message that a queue gave up.

    `reason` is "rejected", "expired", "maxlen" or "delivery_limit". With a dead-letter exchange it
    was published there.
    """

    queue: str
    message: QueuedMessage
    reason: str

    @property
    def body(self) -> bytes:
        """The body of the message."""
        return self.message.body
