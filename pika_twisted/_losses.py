"""What a lost connection means to the channels of a service."""

from __future__ import annotations

from typing import Any

from pika import exceptions as pika_exceptions
from twisted.internet import error

from .exceptions import Reason, WithText


class NotConnected(WithText, pika_exceptions.ConnectionWrongStateError, error.TimeoutError):
    """The service had no connection for too long, or is stopped; `__cause__` is why, if known."""


class GoneEncoder:
    """The encoder of a channel that is gone.

    What the channel delivered is delivered again, so acks of it have no meaning any more.
    """

    open = False

    def _ignore(self, *_: Any) -> bool:
        return False

    ack = nack = reject = publish = _ignore


def is_loss(why: BaseException) -> bool:
    """Whether it says that the connection was lost, not that the broker refused a call."""
    if isinstance(why, NotConnected):
        return False
    if isinstance(why, pika_exceptions.AMQPConnectionError):
        return True
    if isinstance(why, pika_exceptions.ChannelWrongStateError):
        return not isinstance(why.__cause__, pika_exceptions.ChannelClosedByBroker)
    return isinstance(why, Reason)
