"""Consume from RabbitMQ with Twisted: pika's Twisted interface over a compiled AMQP 0-9-1 codec."""

from __future__ import annotations

from .channel import TwistedChannel
from .protocol import TwistedProtocolConnection
from .queue import ClosableDeferredQueue, ReceivedMessage

__version__ = "0.1.0"

__all__ = [
    "ClosableDeferredQueue",
    "ReceivedMessage",
    "TwistedChannel",
    "TwistedProtocolConnection",
    "__version__",
]
