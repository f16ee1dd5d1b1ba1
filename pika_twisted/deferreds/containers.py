"""Values that a channel keeps: ordered sets, and an index that shrinks."""

from __future__ import annotations

from typing import Any


class OrderedSet(dict):  # type: ignore[type-arg]
    """A set that remembers the order of its items: the oldest call is failed first."""

    def add(self, item: object) -> None:
        """Add an item; nothing changes when it is there."""
        self[item] = None

    def discard(self, item: object) -> None:
        """Remove an item if it is there."""
        self.pop(item, None)

    def take(self) -> list[Any]:
        """All items, the oldest first; the set is empty then."""
        items = list(self)
        self.clear()
        return items


class TagIndex(dict):  # type: ignore[type-arg]
    """Queue name -> set of consumer tags; a name without consumers takes no room, is empty."""

    def __missing__(self, key: str) -> set[str]:
        return set()

    def add(self, queue: str, consumer_tag: str) -> None:
        """File a consumer under its queue."""
        self.setdefault(queue, set()).add(consumer_tag)

    def discard(self, consumer_tag: str, queue: str | None = None) -> None:
        """Remove a consumer from its queue, or wherever it is filed."""
        for name in list(self) if queue is None else [queue]:
            tags = self[name]
            tags.discard(consumer_tag)
            if not tags:
                self.pop(name, None)
