"""The consumers of one channel: one record each, and what pika's tests look at as views of them.

`TwistedChannel._consumers` and `_queue_name_to_consumer_tags` are pinned by pika's own tests of its
adapter, which also fill them, with queues that have no `Consumer`.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any

from .consumer import Consumer
from .queue import ClosableDeferredQueue, End


class Record:
    """One consumer; `consumer` is None for a queue that a test has put there."""

    __slots__ = ("consumer", "queue", "queue_name")

    def __init__(self, queue: Any, queue_name: str = "", consumer: Consumer | None = None) -> None:
        self.queue = queue
        self.queue_name = queue_name
        self.consumer = consumer

    def close(self, reason: BaseException, how: End) -> None:
        """Close its queue."""
        if self.consumer is not None:
            self.consumer.close_queue(reason, how)
        elif how is End.CANCELLED:
            self.queue.close(reason, end=True)
        else:
            self.queue.close(reason)


class Consumers:
    """Consumer tag -> record."""

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}
        # Queue name -> its tags; a queue without consumers takes no room.
        self._tags: dict[str, set[str]] = {}

    def __contains__(self, consumer_tag: object) -> bool:
        return consumer_tag in self.records

    def __iter__(self) -> Iterator[Consumer]:
        return (each.consumer for each in self.records.values() if each.consumer is not None)

    def get(self, consumer_tag: str | None) -> Consumer | None:
        """Return the consumer with that tag, or None."""
        record = self.records.get(consumer_tag or "")
        return None if record is None else record.consumer

    def queues(self) -> list[ClosableDeferredQueue]:
        """Return their queue objects."""
        return [record.queue for record in self.records.values()]

    def add(self, consumer: Consumer) -> None:
        """Add one that the broker has agreed to."""
        assert consumer.consumer_tag is not None
        record = Record(consumer.queue, consumer.queue_name, consumer)
        self.put(consumer.consumer_tag, record)

    def put(self, consumer_tag: str, record: Record) -> None:
        """Put a record there, in the place of another one."""
        self.pop(consumer_tag)
        self.records[consumer_tag] = record
        self._tags.setdefault(record.queue_name, set()).add(consumer_tag)

    def pop(self, consumer_tag: str) -> Record | None:
        """Take one out; None when it is not there."""
        record = self.records.pop(consumer_tag, None)
        if record is not None:
            tags = self._tags[record.queue_name]
            tags.discard(consumer_tag)
            if not tags:
                del self._tags[record.queue_name]
        return record

    def take_all(self) -> list[Record]:
        """Take all out, the oldest first."""
        records = list(self.records.values())
        self.records.clear()
        self._tags.clear()
        return records

    def tags_of(self, queue_name: str) -> set[str]:
        """Return the tags of a queue's consumers."""
        return set(self._tags.get(queue_name, ()))

    def queue_names(self) -> list[str]:
        """Return the names of the queues that are consumed."""
        return list(self._tags)

    def file(self, consumer_tag: str, queue_name: str) -> None:
        """Say which queue a consumer is of."""
        record = self.pop(consumer_tag) or Record(None)
        record.queue_name = queue_name
        self.put(consumer_tag, record)


class QueuesByTag(MutableMapping[str, Any]):
    """Consumer tag -> queue object: `TwistedChannel._consumers`."""

    def __init__(self, consumers: Consumers) -> None:
        self._of = consumers

    def __getitem__(self, consumer_tag: str) -> Any:
        return self._of.records[consumer_tag].queue

    def __setitem__(self, consumer_tag: str, queue: Any) -> None:
        known = self._of.records.get(consumer_tag)
        self._of.put(consumer_tag, Record(queue, known.queue_name if known is not None else ""))

    def __delitem__(self, consumer_tag: str) -> None:
        if self._of.pop(consumer_tag) is None:
            raise KeyError(consumer_tag)

    def __iter__(self) -> Iterator[str]:
        return iter(self._of.records)

    def __len__(self) -> int:
        return len(self._of.records)

    def __repr__(self) -> str:
        return repr(dict(self))


class TagsByQueue(MutableMapping[str, set[str]]):
    """Queue name -> consumer tags, none for an unknown one: `_queue_name_to_consumer_tags`."""

    def __init__(self, consumers: Consumers) -> None:
        self._of = consumers

    def __getitem__(self, queue_name: str) -> set[str]:
        return self._of.tags_of(queue_name)

    def __setitem__(self, queue_name: str, consumer_tags: set[str]) -> None:
        for consumer_tag in consumer_tags:
            self._of.file(consumer_tag, queue_name)

    def __delitem__(self, queue_name: str) -> None:
        for consumer_tag in self._of.tags_of(queue_name):
            self._of.file(consumer_tag, "")

    def __iter__(self) -> Iterator[str]:
        return iter(self._of.queue_names())

    def __len__(self) -> int:
        return len(self._of.queue_names())
