"""The messages of a queue that wait for a consumer, in the order in which they leave."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from pika_twisted.testing.message import QueuedMessage

#: Of a quorum queue: the priority of a message that has none, and the first that is a high one.
_NORMAL = 4

#: Of a quorum queue with two levels: after so many messages one of the low level has its turn.
_WEIGHT = 2


class Ready:
    """A queue's waiting messages: by priority, then by arrival.

    :param max_priority: 0 for a queue without priorities
    :param default_priority: of messages that have none
    """

    def __init__(self, max_priority: int = 0, default_priority: int = 0) -> None:
        self._max_priority = max_priority
        self._default_priority = default_priority
        self._returned: deque[QueuedMessage] = deque()
        self._levels: list[deque[QueuedMessage]] = [deque() for _ in range(max_priority + 1)]

    def __len__(self) -> int:
        return len(self._returned) + sum(map(len, self._levels))

    def __iter__(self) -> Iterator[QueuedMessage]:
        yield from self._returned
        for level in reversed(self._levels):
            yield from level

    def _level(self, message: QueuedMessage) -> deque[QueuedMessage]:
        priority = message.message.priority
        if priority is None:
            priority = self._default_priority
        return self._levels[min(priority, self._max_priority)]

    def append(self, message: QueuedMessage) -> None:
        """Add a message that is new."""
        self._level(message).append(message)

    def put_back(self, message: QueuedMessage) -> None:
        """Add a message that was with a consumer: it goes to where it was."""
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


class QuorumReady(Ready):
    """Those of a quorum queue: what comes back leaves before all others, in that order."""

    def put_back(self, message: QueuedMessage) -> None:
        """Add a message that was with a consumer."""
        self._returned.append(message)


class TwoLevels(QuorumReady):
    """Those of a quorum queue that knows low and high priorities, and starves neither."""

    def __init__(self) -> None:
        super().__init__(1)
        self._turn = 0

    def _level(self, message: QueuedMessage) -> deque[QueuedMessage]:
        return self._levels[(message.message.priority or 0) > _NORMAL]

    def popleft(self) -> QueuedMessage:
        """Take the message that leaves next."""
        if self._returned:
            return self._returned.popleft()
        low, high = self._levels
        turn, self._turn = self._turn, (self._turn + 1) % (_WEIGHT + 1)
        return low.popleft() if low and (turn == _WEIGHT or not high) else high.popleft()


def quorum_ready(levels: int) -> Ready:
    """Return the waiting messages of a quorum queue that has so many priorities."""
    return TwoLevels() if levels == 2 else QuorumReady(levels - 1, min(_NORMAL, levels - 1))
