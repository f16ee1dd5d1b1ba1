"""What a service has done since its start, in numbers."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from pika_twisted.deferreds.containers import OrderedSet
from pika_twisted.stats import ConnectionStats, ServiceStats

if TYPE_CHECKING:
    from pika_twisted.consuming.handlers import Handling
    from pika_twisted.publisher import Publisher


class Tally:
    """The part of `RecoveringService` that counts: over connections, handlings and publishers.

    Those in use count themselves; here is what the ended ones leave.
    """

    connection: Any

    def __init__(self) -> None:
        self.reconnects = 0
        self.failed_attempts = 0
        self.dropped = 0
        self._handlings = OrderedSet()
        self._publishers = OrderedSet()
        self._earlier = ConnectionStats()
        self._of_the_ended: Counter[str] = Counter()
        self._down_since: float | None = None
        self._down_seconds = 0.0

    def stats(self) -> ServiceStats:
        """What this service has done since its start, in numbers."""
        now = self.connection.stats() if self.connection is not None else ConnectionStats()
        down = 0.0 if self._down_since is None else time.monotonic() - self._down_since
        counts = Counter(self._of_the_ended)
        for handling in self._handlings:
            counts.update(_of_handling(handling))
        for publisher in self._publishers:
            counts.update(_of_publisher(publisher))
        return ServiceStats(
            connected=self.connection is not None,
            reconnects=self.reconnects,
            failed_attempts=self.failed_attempts,
            down_seconds=self._down_seconds + down,
            dropped=self.dropped,
            in_flight=sum(each.in_flight for each in self._publishers),
            waiting=sum(each.waiting for each in self._publishers),
            connection=self._earlier.plus(now),
            **counts,
        )

    def _keep_connection(self, connection: Any) -> None:
        """This connection has ended."""
        self._earlier = self._earlier.plus(connection.stats())

    def _keep_handling(self, handling: Handling) -> None:
        """This one has ended."""
        self._handlings.discard(handling)
        self._of_the_ended.update(_of_handling(handling))

    def _keep_publisher(self, publisher: Publisher) -> None:
        """This one has ended."""
        self._publishers.discard(publisher)
        self._of_the_ended.update(_of_publisher(publisher))

    def _begin_down_time(self) -> None:
        self._down_since = time.monotonic()

    def _end_down_time(self) -> None:
        if self._down_since is not None:
            self._down_seconds += time.monotonic() - self._down_since
            self._down_since = None


def _of_handling(handling: Handling) -> dict[str, int]:
    return {"handled": handling.handled, "handler_failures": handling.failed}


def _of_publisher(publisher: Publisher) -> dict[str, int]:
    return {
        "confirmed": publisher.confirmed,
        "publish_failures": publisher.failed,
        "resent": publisher.resent,
    }
