"""The log of a load's messages: what happened to each, in memory that does not grow."""

from __future__ import annotations

import random
from typing import Any

from pika import BasicProperties

LARGEST = 1 << 20
# Every body is the beginning of this, so that one comparison shows whether it came whole.
CONTENT = random.Random(1).randbytes(LARGEST)

# How often a body has at most so many bytes: mostly small, 1 in 100 up to the largest.
SIZES = ((0.05, 0), (0.70, 1 << 10), (0.92, 16 << 10), (0.99, 128 << 10), (1.0, LARGEST))

PUBLISHED, CONFIRMED, FAILED, HANDLED = 1, 2, 4, 8
UNUSED = 255  # not 0: so the memory of all messages is there, and counted, from the start


def draw_size() -> int:
    """The size of the next body."""
    drawn = random.random()
    limit = next(limit for share, limit in SIZES if drawn <= share)
    return LARGEST if limit == LARGEST and random.random() < 0.2 else random.randint(0, limit)


class MessageLog:
    """One byte for each message. `capacity` is the number of messages there can be."""

    def __init__(self, capacity: int) -> None:
        self._states = bytearray([UNUSED]) * capacity
        self.published = 0
        self.confirmed = 0
        self.failed = 0
        self.handled = 0
        self.again = 0
        self.redelivered = 0
        self.wrong: list[str] = []

    @property
    def pending(self) -> int:
        """Publishes whose Deferred has not fired."""
        return self.published - self.confirmed - self.failed

    @property
    def full(self) -> bool:
        """Whether there is no room for another message."""
        return self.published == len(self._states)

    def next_message(self) -> tuple[int, bytes, BasicProperties]:
        """Number, body and properties of a message to be published now."""
        number, size = self.published, draw_size()
        self.published += 1
        self._states[number] = PUBLISHED
        properties = BasicProperties(message_id=str(number), headers={"size": size})
        return number, CONTENT[:size], properties

    def settle(self, result: Any, number: int, failed: bool) -> None:
        """A publish was confirmed, or failed. To be added to its Deferred."""
        if self._states[number] & (CONFIRMED | FAILED):
            self.wrong.append(f"message {number} settled twice")
        self._states[number] |= FAILED if failed else CONFIRMED
        self.failed += failed
        self.confirmed += not failed

    def take(self, message: Any) -> None:
        """A message came."""
        properties = message.properties
        number = int(properties.message_id)
        whole = len(message.body) == properties.headers["size"]
        if not whole or not CONTENT.startswith(message.body):
            self.wrong.append(f"message {number} came with another body")
        if number >= self.published:
            self.wrong.append(f"message {number} was never published")
            return
        self.redelivered += message.method.redelivered
        if self._states[number] & HANDLED:
            self.again += 1
        else:
            self._states[number] |= HANDLED
            self.handled += 1

    def missing(self) -> int:
        """How many messages were confirmed and never came."""
        states = self._states[: self.published]
        return states.count(PUBLISHED | CONFIRMED)

    def problems(self, *, may_fail: bool) -> list[str]:
        """What does not balance at the end; `may_fail`: publishes may fail when a connection is."""
        found = self.wrong[:10]
        if self.pending:
            found.append(f"{self.pending} publishes never settled")
        if missing := self.missing():
            found.append(f"{missing} messages were confirmed and never came")
        if self.failed and not may_fail:
            found.append(f"{self.failed} publishes failed")
        # A message comes again only because the broker gave it again, and says so.
        if self.again > self.redelivered:
            found.append(f"{self.again} came again, but only {self.redelivered} marked so")
        if not self.handled:
            found.append("nothing was handled")
        return found

    def __str__(self) -> str:
        return (
            f"published {self.published:,} = confirmed {self.confirmed:,} + failed {self.failed:,}"
            f" + pending {self.pending:,}; handled {self.handled:,}, again {self.again:,},"
            f" redelivered {self.redelivered:,}"
        )
