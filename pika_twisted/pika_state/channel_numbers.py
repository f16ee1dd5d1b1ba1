"""Which channel numbers a connection has used, and what still comes for those that are closed.

RabbitMQ sends deliveries behind its own Channel.Close: the channel's process has failed, and what
the queues hand it is still written. Other clients drop such frames. A number is taken again as late
as possible, for frames of the channel before could come behind the new one's Channel.OpenOk.
"""

from __future__ import annotations

import logging
from collections.abc import Collection

from pika_twisted.exceptions import NoFreeChannels

LOGGER = logging.getLogger("pika_twisted")


class ChannelNumbers:
    """The channel numbers of one connection."""

    def __init__(self) -> None:
        #: How many frames came for closed channels, and were dropped.
        self.late_frames = 0
        self._never_used = 1  # from here on, but for those that a user asked for
        # The closed ones, the one that was closed first in front: what to say when a frame comes.
        self._closed: dict[int, int | None] = {}

    def next(self, used: Collection[int], limit: int) -> int:
        """Return the number for a new channel: one never used, else the one closed longest ago.

        :raises NoFreeChannels: all numbers up to `limit` are in `used`
        """
        while self._never_used in used or self._never_used in self._closed:
            self._never_used += 1
        if self._never_used <= limit:
            return self._never_used
        for number in self._closed:
            if number <= limit:
                return number
        raise NoFreeChannels(
            f"{len(used)} channels are open, and channel_max is {limit}: close those that are not "
            "needed, or open another connection"
        )

    def take(self, number: int) -> None:
        """Note that a channel of that number opens."""
        self._closed.pop(number, None)

    def close(self, number: int, auto_ack: bool = False) -> None:
        """Note that it is closed; `auto_ack`: what comes late may be lost."""
        self._closed[number] = logging.WARNING if auto_ack else logging.INFO

    def drop(self, number: int) -> bool:
        """Count a frame that came for a closed channel; False: there never was one."""
        if number not in self._closed:
            return False
        self.late_frames += 1
        level, self._closed[number] = self._closed[number], None
        if level is not None:
            LOGGER.log(
                level,
                "Channel %d is closed, and frames still come for it; they are dropped. %s",
                number,
                "Messages for auto_ack consumers among them are lost"
                if level == logging.WARNING
                else "The broker delivers such messages again",
            )
        return True
