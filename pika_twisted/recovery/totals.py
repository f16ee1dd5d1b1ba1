"""What a service has done since its start, in numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pika_twisted.deferreds.containers import OrderedSet
from pika_twisted.stats import ConnectionStats, ServiceStats

from .entities import Entity, EntityState

if TYPE_CHECKING:
    from pika_twisted.consuming.handlers import Handling
    from pika_twisted.protocol import TwistedProtocolConnection
    from pika_twisted.publisher import Publisher


class Totals:
    """Counts over connections, handlings and publishers.

    Those in use count themselves; here is what the ended ones leave.

    :param reactor: for its clock
    """

    def __init__(self, reactor: Any) -> None:
        self.reconnects = 0
        self.failed_attempts = 0
        self.dropped = 0
        self.handlings = OrderedSet()
        self.publishers = OrderedSet()
        self._reactor = reactor
        self._earlier = ConnectionStats()
        self._of_the_ended: Counter[str] = Counter()
        self._down_since: float | None = None
        self._down_seconds = 0.0

    def stats(
        self, connection: TwistedProtocolConnection | None, entities: Iterable[Entity]
    ) -> ServiceStats:
        """Return the numbers of now.

        :param connection: the one in use
        :param entities: what the service has recorded, consumers included
        """
        now = connection.stats() if connection is not None else ConnectionStats()
        down = 0.0 if self._down_since is None else self._reactor.seconds() - self._down_since
        counts = Counter(self._of_the_ended)
        for handling in self.handlings:
            counts.update(_of_handling(handling))
        for publisher in self.publishers:
            counts.update(_of_publisher(publisher))
        recorded = list(entities)
        # Also while they are being asked for again.
        refused = [each for each in recorded if each.reason is not None]
        states = Counter(entity.state for entity in recorded if entity.reason is None)
        return ServiceStats(
            connected=connection is not None,
            reconnects=self.reconnects,
            failed_attempts=self.failed_attempts,
            down_seconds=self._down_seconds + down,
            dropped=self.dropped,
            in_flight=sum(each.in_flight for each in self.publishers),
            waiting=sum(each.waiting for each in self.publishers),
            connection=self._earlier.plus(now),
            declared=states[EntityState.DECLARED],
            recovering=states[EntityState.RECOVERING] + states[EntityState.RECORDED],
            refused=tuple(each.status() for each in refused),
            **counts,
        )

    def keep_connection(self, connection: TwistedProtocolConnection) -> None:
        """Add the numbers of a connection that has ended."""
        self._earlier = self._earlier.plus(connection.stats())

    def keep_handling(self, handling: Handling) -> None:
        """Add the numbers of a handling that has ended, and forget it."""
        self.handlings.discard(handling)
        self._of_the_ended.update(_of_handling(handling))

    def keep_publisher(self, publisher: Publisher) -> None:
        """Add the numbers of a publisher that has ended, and forget it."""
        self.publishers.discard(publisher)
        self._of_the_ended.update(_of_publisher(publisher))

    def begin_down_time(self) -> None:
        """Count the seconds from now on as down."""
        self._down_since = self._reactor.seconds()

    def end_down_time(self) -> None:
        """Stop counting."""
        if self._down_since is not None:
            self._down_seconds += self._reactor.seconds() - self._down_since
            self._down_since = None


def _of_handling(handling: Handling) -> dict[str, int]:
    return {"handled": handling.handled, "handler_failures": handling.failed}


def _of_publisher(publisher: Publisher) -> dict[str, int]:
    return {
        "confirmed": publisher.confirmed,
        "publish_failures": publisher.failed,
        "resent": publisher.resent,
    }
