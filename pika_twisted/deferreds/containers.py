"""Values that a channel keeps."""

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
