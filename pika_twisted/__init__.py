"""RabbitMQ for Twisted: the interface of pika's Twisted adapter, over a compiled AMQP 0-9-1 codec.

Begin with `connect()`, or with `RecoveringService` where the connection has to come back by itself.
`consume()` and `Publisher` work on the channels of both. `TwistedProtocolConnection`,
`TwistedChannel` and `ClosableDeferredQueue` are what pika's adapter has under these names.
`python -m pika_twisted` prints what is installed.
"""

from __future__ import annotations

from . import _requirements as _requirements  # first: says what is too old
from .channel import TwistedChannel
from .connect_errors import (
    ConnectFailed,
    ConnectionRefused,
    ConnectionTimedOut,
    HostNotFound,
    TLSFailed,
)
from .connecting import connect
from .handling import Handling, consume
from .install import install
from .ledger import AlreadySettled
from .losses import NotConnected
from .protocol import TwistedProtocolConnection
from .publisher import Publisher, PublisherOverflow, PublishTimeout
from .queue import ClosableDeferredQueue, ReceivedMessage
from .recovering_channel import RecoveringChannel
from .service import RecoveringService
from .stats import ConnectionStats, ServiceStats
from .water import WaterMarks

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
