"""One life of a service, from a start to the next stop, and the phases in between."""

from __future__ import annotations

import enum

from pika_twisted.deferreds.containers import OrderedSet


class Phase(enum.Enum):
    """Where a service is between `startService()` and `stopService()`."""

    #: Not started yet, or stopped.
    STOPPED = "stopped"
    #: Connected, or trying to be.
    RUNNING = "running"
    #: Handlers finish, publishers flush, the connection closes.
    STOPPING = "stopping"
    #: The same, and it was started again meanwhile: it is running once it has stopped.
    RESTARTING = "restarting"


class Life:
    """What was made on a service since its last start, and ends with the next stop."""

    def __init__(self) -> None:
        self.channels = OrderedSet()
        self.handlings = OrderedSet()
        self.publishers = OrderedSet()

    def discard(self, member: object) -> None:
        """Forget a channel, handling or publisher that has ended."""
        for members in (self.channels, self.handlings, self.publishers):
            members.discard(member)
