"""What a program has done and seen, for the oracle."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from twisted.internet import defer
from twisted.python.failure import Failure


class ProvokedError(Exception):
    """An error that a program raises in a callback or a handler."""


@dataclass(eq=False)
class Connection:
    """A client's connection, and the broker's end of it."""

    client: Any
    server: Any
    reason: Any = None
    closed_by_us: bool = False
    cut: bool = False
    stalled: bool = False

    @property
    def alive(self) -> bool:
        return self.reason is None and not self.closed_by_us


@dataclass(eq=False)
class Channel:
    """A client's channel. `complete`: its ledger sees everything, so any ack may be tried."""

    client: Any
    connection: Connection
    server: Any
    complete: bool
    by_message: bool
    reason: Any = None
    closed_by_us: bool = False
    confirming: bool = False
    published: int = 0
    #: Deliveries seen: tag -> body.
    seen: dict[int, bytes] = field(default_factory=dict)
    #: Of those, what needs no ack any more: acked, refused, recovered, auto_ack.
    settled: set[int] = field(default_factory=set)
    #: Messages in the program's hands, not settled.
    held: list[Any] = field(default_factory=list)
    consumers: list[Consumer] = field(default_factory=list)
    handling: HandlingRecord | None = None
    recovering: int = 0
    #: `basic_recover()` was called: without a complete ledger an ack of what came is an error.
    recovered: bool = False

    @property
    def alive(self) -> bool:
        return self.reason is None and not self.closed_by_us and self.connection.alive


@dataclass(eq=False)
class Consumer:
    """A consumer and its queue object."""

    channel: Channel
    queue_name: str
    queue: Any
    tag: str
    auto_ack: bool
    cancelled: bool = False
    closed_by_us: bool = False
    last: int = 0


@dataclass(eq=False)
class HandlingRecord:
    """A `consume()` and what its handlers did."""

    channel: Channel
    queue_name: str
    concurrency: int
    never_works: bool
    handling: Any = None
    running: int = 0
    stopped: bool = False


@dataclass(eq=False)
class PublisherRecord:
    """A `Publisher`."""

    channel: Channel
    publisher: Any
    limit: float | None
    max_waiting: int
    closed_by_us: bool = False


@dataclass(eq=False)
class Watched:
    """A Deferred that was handed out."""

    kind: str
    deferred: defer.Deferred[Any] | None
    connection: Connection | None = None
    channel: Channel | None = None
    consumer: Consumer | None = None
    about: Any = None
    fired: int = 0
    cancelled: bool = False
    value: Any = None
    error: BaseException | None = None

    def note(self, result: Any) -> None:
        self.fired += 1
        self.deferred = None
        if isinstance(result, Failure):
            self.error = result.value.with_traceback(None)
            result.cleanFailure()  # its frames hold what may have to be collected
        else:
            # A handling, say, is not kept.
            self.value = result if self.kind in ("publish", "publisher") else None
