"""RabbitMQ for Twisted: the interface of pika's Twisted adapter, over a compiled AMQP 0-9-1 codec.

Begin with `connect()`, or with `RecoveringService` where the connection has to come back by itself.
`consume()` and `Publisher` work on the channels of both. `TwistedProtocolConnection`,
`TwistedChannel` and `ClosableDeferredQueue` are what pika's adapter has under these names.
`python -m pika_twisted` prints what is installed.
"""

from __future__ import annotations

from . import _requirements  # first: says what is too old
from pika_twisted.channel.channel import TwistedChannel
from pika_twisted.connecting.failures import (
    ConnectFailed,
    ConnectionRefused,
    ConnectionTimedOut,
    HostNotFound,
    TLSFailed,
)
from pika_twisted.connecting.connect import connect
from .handlers import Handling, consume
from ._install import install
from pika_twisted.channel.ledger import AlreadySettled
from ._losses import NotConnected
from .protocol import TwistedProtocolConnection
from .publisher import Publisher, PublisherOverflow, PublishTimeout
from pika_twisted.channel.queue import ClosableDeferredQueue, ReceivedMessage
from pika_twisted.recovery.channel import RecoveringChannel
from pika_twisted.recovery.service import RecoveringService
from .stats import ConnectionStats, ServiceStats
from pika_twisted.transport.read_gate import WaterMarks

__version__ = "0.1.0"

__all__ = [
    "AlreadySettled",
    "ClosableDeferredQueue",
    "ConnectFailed",
    "ConnectionRefused",
    "ConnectionStats",
    "ConnectionTimedOut",
    "Handling",
    "HostNotFound",
    "NotConnected",
    "PublishTimeout",
    "Publisher",
    "PublisherOverflow",
    "ReceivedMessage",
    "RecoveringChannel",
    "RecoveringService",
    "ServiceStats",
    "TLSFailed",
    "TwistedChannel",
    "TwistedProtocolConnection",
    "WaterMarks",
    "__version__",
    "connect",
    "consume",
    "install",
]
