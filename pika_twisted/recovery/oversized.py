"""Messages above `max_message_size`: they are told, and rejected where that was asked for."""

from __future__ import annotations

from typing import Any, Literal

from pika import spec

from .events import Events

CLOSE: Literal["close"] = "close"
REJECT: Literal["reject"] = "reject"


class Oversized:
    """Looks after messages that the decoder has dropped for their size.

    :param events: is told of each
    :param policy: "close" leaves it to the channel, which closes; "reject" rejects the message
    """

    def __init__(self, events: Events, policy: Literal["close", "reject"]) -> None:
        self._events = events
        self._policy = policy

    def watch(self, channel: Any) -> None:
        """Look after those of one TwistedChannel."""
        channel._channel.on_oversized = lambda content: self._on_oversized(channel, content)

    def _on_oversized(self, channel: Any, content: Any) -> bool:
        """Whether the channel may go on."""
        method = content.method
        if not isinstance(method, spec.Basic.Deliver):
            return False
        tag, size = method.consumer_tag, content.body_size
        self._events.tell("message too large", tag, size, content.limit)
        if self._policy == CLOSE or channel._is_auto_ack(method):
            return False
        channel.basic_reject(method.delivery_tag, requeue=False)
        return True
