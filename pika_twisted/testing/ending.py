"""How a delivery ends."""

from __future__ import annotations

from enum import Enum


class Ending(Enum):
    """What has ended a delivery: a method of the client, or the end of its channel."""

    ACK = "ack"
    NACK = "nack"  # Basic.Recover, too
    REJECT = "reject"
    LOST = "lost"


ACK, NACK, REJECT, LOST = Ending
