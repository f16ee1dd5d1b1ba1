"""Acks and publishes on a channel object that isn't ours, or that is gone."""

from __future__ import annotations

from typing import Any


class PlainEncoder:
    """The face of the codec's channel encoder over pika's own channel methods.

    For `TwistedChannel(channel)` around a stock pika channel, or a test's double of one.
    """

    open = True

    def __init__(self, channel: Any) -> None:
        self._channel = channel

    def ack(self, delivery_tag: int, multiple: bool) -> bool:
        """Pass on; nothing is left to flush."""
        self._channel.basic_ack(delivery_tag=delivery_tag, multiple=multiple)
        return False

    def nack(self, delivery_tag: int, multiple: bool, requeue: bool) -> bool:
        """Pass on; nothing is left to flush."""
        self._channel.basic_nack(delivery_tag=delivery_tag, multiple=multiple, requeue=requeue)
        return False

    def reject(self, delivery_tag: int, requeue: bool) -> bool:
        """Pass on; nothing is left to flush."""
        self._channel.basic_reject(delivery_tag=delivery_tag, requeue=requeue)
        return False

    def publish(
        self, exchange: str, routing_key: str, body: bytes, properties: Any, mandatory: bool
    ) -> bool:
        """Pass on; nothing is left to flush."""
        self._channel.basic_publish(
            exchange=exchange,
            routing_key=routing_key,
            body=body,
            properties=properties,
            mandatory=mandatory,
        )
        return False


class GoneEncoder:
    """The encoder of a channel that is gone.

    What the channel delivered is delivered again, so acks of it have no meaning any more.
    """

    open = False

    def _ignore(self, *_: Any) -> bool:
        return False

    ack = nack = reject = publish = _ignore
