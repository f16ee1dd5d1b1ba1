"""The reference's queue of messages that wait."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any


class Backlog:
    """First in, first out, in constant time whatever its length; looks like a list otherwise."""

    def __init__(self, items: Iterable[Any] = ()) -> None:
        self._items: deque[Any] = deque()
        self.body_bytes = 0
        for item in items:
            self.append(item)

    def append(self, item: Any) -> None:
        self._items.append(item)
        self.body_bytes += _body_size(item)

    def popleft(self) -> Any:
        item = self._items.popleft()
        self.body_bytes -= _body_size(item)
        return item

    def popmany(self, count: int) -> list[Any]:
        """Up to ``count`` items, the oldest first."""
        return [self.popleft() for _ in range(min(count, len(self._items)))]

    def clear(self) -> None:
        self._items.clear()
        self.body_bytes = 0

    def copy(self) -> list[Any]:
        return list(self._items)

    def track(self) -> None:
        """Nothing to do here: only the compiled twin hides messages from the collector."""

    # The rest of what a list can do.

    def appendleft(self, item: Any) -> None:
        self._items.appendleft(item)
        self.body_bytes += _body_size(item)

    def extend(self, items: Iterable[Any]) -> None:
        for item in list(items):
            self.append(item)

    def insert(self, index: int, item: Any) -> None:
        self._items.insert(index, item)
        self.body_bytes += _body_size(item)

    def pop(self, index: int = -1) -> Any:
        if index == 0:
            return self.popleft()
        item = self[index]
        del self[index]
        return item

    def remove(self, item: Any) -> None:
        del self[self.index(item)]

    def index(self, item: Any, *borders: int) -> int:
        return self.copy().index(item, *borders)

    def count(self, item: Any) -> int:
        return self._items.count(item)

    def sort(self, *, key: Any = None, reverse: bool = False) -> None:
        self[:] = sorted(self._items, key=key, reverse=reverse)

    def reverse(self) -> None:
        self._items.reverse()

    def _replace(self, items: list[Any]) -> None:
        self.clear()
        self.extend(items)

    def __setitem__(self, index: Any, value: Any) -> None:
        items = self.copy()
        items[index] = value
        self._replace(items)

    def __delitem__(self, index: Any) -> None:
        items = self.copy()
        del items[index]
        self._replace(items)

    def __iadd__(self, items: Iterable[Any]) -> Backlog:  # type: ignore[misc]
        self.extend(items)
        return self

    def __add__(self, items: Any) -> Any:
        return self.copy() + items

    def __radd__(self, items: Any) -> Any:
        return items + self.copy()

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items)

    def __reversed__(self) -> Iterator[Any]:
        return iter(reversed(self._items))

    def __contains__(self, item: object) -> bool:
        return item in self._items

    def __getitem__(self, index: Any) -> Any:
        if not isinstance(index, slice):
            return self._items[index]
        begin, end, step = index.indices(len(self._items))
        if step > 0:
            return list(islice(self._items, begin, max(begin, end), step))
        return self.copy()[index]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, (list, Backlog)):
            return self.copy() == list(other)
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]  # mutable, as a list

    def __repr__(self) -> str:
        return repr(self.copy())


def _body_size(item: Any) -> int:
    if isinstance(item, tuple) and len(item) == 4 and type(item[3]) is bytes:
        return len(item[3])
    return 0
