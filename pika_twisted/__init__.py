"""RabbitMQ for Twisted: the interface of pika's Twisted adapter, over a compiled AMQP 0-9-1 codec.

Begin with `connect()`, or with `RecoveringService` where the connection has to come back by itself.
`consume()` and `Publisher` work on the channels of both. `TwistedProtocolConnection`,
`TwistedChannel` and `ClosableDeferredQueue` are what pika's adapter has under these names.
`python -m pika_twisted` prints what is installed.
"""

from __future__ import annotations

from . import _requirements as _requirements  # first: says what is too old
from .pika_state import private_names as _private_names  # noqa: F401  # and what is too new

# isort: split
from pika_twisted.channel.channel import TwistedChannel
from pika_twisted.channel.queue import ClosableDeferredQueue, ReceivedMessage
from pika_twisted.connecting.connect import connect
from pika_twisted.consuming.delay_queue import DelayQueue, declare_delay_queue
from pika_twisted.consuming.giving_up import DeadLetter
from pika_twisted.consuming.handlers import Handling, consume
from pika_twisted.recovery.channel import RecoveringChannel
from pika_twisted.recovery.service import RecoveringService
from pika_twisted.transport.read_gate import WaterMarks

from ._install import install
from .exceptions import (
    AlreadySettled,
    ConnectFailed,
    ConnectionRefused,
    ConnectionTimedOut,
    HostNotFound,
    NotConnected,
    PublisherOverflow,
    PublishTimeout,
    TLSFailed,
)
from .protocol import TwistedProtocolConnection
from .publisher import Publisher
from .stats import ConnectionStats, EntityState, EntityStatus, ServiceStats

__version__ = "0.1.1"

__all__ = [
    "AlreadySettled",
    "ClosableDeferredQueue",
    "ConnectFailed",
    "ConnectionRefused",
    "ConnectionStats",
    "ConnectionTimedOut",
    "DeadLetter",
    "DelayQueue",
    "EntityState",
    "EntityStatus",
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
    "declare_delay_queue",
    "install",
]
