"""How often a message was tried, over redeliveries, and how long to wait before the next time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from pika import exceptions as pika_exceptions

from pika_twisted.channel.queue import ReceivedMessage

#: Seconds before the second attempt; they double from one to the next, up to the latter.
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 30.0

#: Messages that have failed here and were not handled since are remembered up to this number.
_REMEMBERED = 10_000

#: Why a message left its queue, in an x-death header, after a failed attempt.
_FAILED = ("rejected", "delivery_limit")


def back_off(attempt: int) -> float:
    """Return the seconds to wait after so many failed attempts."""
    return float(min(FIRST_PAUSE * 2 ** min(attempt - 1, 20), LONGEST_PAUSE))


class Attempts:
    """Counts attempts at messages of one queue.

    The number of an attempt is the highest that any of these gives:

    - the failures of this message here, plus 1. It is known by its message_id, exchange, routing
      key and body; the last 10,000 that have failed are remembered;
    - `x-delivery-count` plus 1: deliveries of a quorum queue that came back to it;
    - the counts in `x-death` of this queue, "rejected" and "delivery_limit", plus 1;
    - 2 for a message that is flagged `redelivered`.
    """

    def __init__(self, queue: str) -> None:
        self._queue = queue
        self._failures: OrderedDict[Any, int] = OrderedDict()

    def fail(self, message: ReceivedMessage) -> int:
        """Note a failed attempt; return its number."""
        key = _key(message)
        attempt = max(self._failures.pop(key, 0) + 1, self.told(message))
        self._failures[key] = attempt
        if len(self._failures) > _REMEMBERED:
            self._failures.popitem(last=False)
        return attempt

    def forget(self, message: ReceivedMessage) -> None:
        """Note that a message was handled, or given up."""
        if self._failures:  # else nothing has failed: the usual case, at no cost
            self._failures.pop(_key(message), None)

    def told(self, message: ReceivedMessage) -> int:
        """Return the number of this attempt by what the broker says."""
        headers = headers_of(message)
        count = headers.get("x-delivery-count")
        before = count if isinstance(count, int) else 0
        deaths = headers.get("x-death")
        rejected = 0
        for death in deaths if isinstance(deaths, list) else ():
            if not isinstance(death, dict) or death.get("reason") not in _FAILED:
                continue
            times = death.get("count", 1)
            if death.get("queue") == self._queue and isinstance(times, int):
                rejected += times
        return 1 + max(before, rejected, 1 if message.redelivered else 0)


def has_come_back(message: ReceivedMessage) -> bool:
    """Whether the broker has delivered it before."""
    return message.redelivered or bool(headers_of(message).get("x-delivery-count"))


def headers_of(message: ReceivedMessage) -> dict[str, Any]:
    """Return a message's headers; none where they can't be decoded."""
    try:
        headers = message.properties.headers
    except pika_exceptions.AMQPError:
        return {}
    return headers if isinstance(headers, dict) else {}


def message_id_of(message: ReceivedMessage) -> str | None:
    """Return a message's id; None where it has none that can be decoded."""
    try:
        return message.properties.message_id
    except pika_exceptions.AMQPError:
        return None


def _key(message: ReceivedMessage) -> Any:
    method = message.method
    return (message_id_of(message), method.exchange, method.routing_key, hash(message.body))


#: Seconds to wait after so many failed attempts.
Delay = Callable[[int], float]
