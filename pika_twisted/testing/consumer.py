"""Consumers of queues."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pika_twisted.testing.channel import ServerChannel
    from pika_twisted.testing.queue import Queue
    from pika_twisted.testing.stream import Stream


class Consumer:
    """A subscription of a channel to a queue.

    :param prefetch_count: as Basic.Qos said before Basic.Consume; 0 for no limit
    """

    __slots__ = (
        "arguments",
        "channel",
        "exclusive",
        "no_ack",
        "offset",
        "prefetch_count",
        "priority",
        "queue",
        "tag",
        "unacked",
    )

    def __init__(
        self,
        tag: str,
        queue: Queue | Stream,
        channel: ServerChannel,
        *,
        no_ack: bool = False,
        exclusive: bool = False,
        prefetch_count: int = 0,
        arguments: dict[str, Any] | None = None,
    ) -> None:
        self.tag = tag
        self.queue = queue
        self.channel = channel
        self.no_ack = no_ack
        self.exclusive = exclusive
        self.prefetch_count = prefetch_count
        self.arguments = arguments or {}
        self.priority: int = self.arguments.get("x-priority", 0)
        #: Deliveries without ack.
        self.unacked = 0
        #: Of a stream: the next one.
        self.offset = 0

    def __repr__(self) -> str:
        return f"<Consumer {self.tag!r} of {self.queue.name!r}>"

    def has_room(self) -> bool:
        """Tell whether the prefetch limits allow one more message."""
        if self.no_ack:
            return self.channel.takes_deliveries
        if self.prefetch_count and self.unacked >= self.prefetch_count:
            return False
        return self.channel.has_room()


def insert(consumers: list[Consumer], consumer: Consumer) -> None:
    """Put a consumer behind all of its priority, before those of a lower one."""
    index = len(consumers)
    while index and consumers[index - 1].priority < consumer.priority:
        index -= 1
    consumers.insert(index, consumer)
