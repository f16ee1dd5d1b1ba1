"""The messages of a queue that wait for a consumer, in the order in which they leave."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from pika_twisted.testing.message import QueuedMessage


class Ready:
    """A queue's waiting messages: by priority, then by arrival.

    :param max_priority: 0 for a queue without priorities
    :param returned_first: messages that come back leave before all others, in the order in which
        they came back, as of quorum queues; False: they go to where they were
    """

    def __init__(self, max_priority: int = 0, returned_first: bool = False) -> None:
        self._max_priority = max_priority
        self._returned_first = returned_first
        self._returned: deque[QueuedMessage] = deque()
        self._levels: list[deque[QueuedMessage]] = [deque() for _ in range(max_priority + 1)]

    def __len__(self) -> int:
        return len(self._returned) + sum(map(len, self._levels))

    def __iter__(self) -> Iterator[QueuedMessage]:
        yield from self._returned
        for level in reversed(self._levels):
            yield from level

    def _level(self, message: QueuedMessage) -> deque[QueuedMessage]:
        return self._levels[min(message.message.priority, self._max_priority)]

    def append(self, message: QueuedMessage) -> None:
        """Add a message that is new."""
        self._level(message).append(message)

    def put_back(self, message: QueuedMessage) -> None:
        """Add a message that was with a consumer."""
        if self._returned_first:
            self._returned.append(message)
            return
        level = self._level(message)
        index = 0
        while index < len(level) and level[index].position < message.position:
            index += 1
        level.insert(index, message)

    def heads(self) -> Iterator[QueuedMessage]:
        """Iterate over the first message of each priority: only these may expire."""
        if self._returned:
            yield self._returned[0]
        for level in reversed(self._levels):
            if level:
                yield level[0]

    def popleft(self) -> QueuedMessage:
        """Take the message that leaves next."""
        if self._returned:
            return self._returned.popleft()
        for level in reversed(self._levels):
            if level:
                return level.popleft()
        raise IndexError("no message is ready")

    def drop_head(self) -> QueuedMessage:
        """Take the message that a length limit drops: the oldest of the lowest priority."""
        for level in self._levels:
            if level:
                return level.popleft()
        return self._returned.popleft()

    def remove(self, message: QueuedMessage) -> None:
        """Take out this one."""
        if message in self._returned:
            self._returned.remove(message)
        else:
            self._level(message).remove(message)

    def clear(self) -> list[QueuedMessage]:
        """Take all."""
        taken = list(self)
        self._returned.clear()
        for level in self._levels:
            level.clear()
        return taken
