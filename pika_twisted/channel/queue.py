"""The queue a consumer's messages arrive in."""

from __future__ import annotations

import enum
import logging
import sys
from collections import namedtuple
from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet import defer

from pika_twisted._reasons import fresh_exception
from pika_twisted.codec.chooser import Backlog, read_as_slots
from pika_twisted.deferreds.lazy import Turns, get_of, is_waiting, iterate, ready_next
from pika_twisted.exceptions import AlreadySettled

LOGGER = logging.getLogger("pika_twisted")

# What a waiter waits for: one message, or up to so many of them (> 0), or the next of an async for.
_ONE = 0
_NEXT = -1


#: So many bytes of a body are printed.
_SHOWN = 100

if TYPE_CHECKING:
    from typing import Generic, NamedTuple

    import typing_extensions
    from pika import spec

    from pika_twisted._frame import Backlog as Pending

    from .channel import TwistedChannel

    # What is not said to be another one is the message of a consumer.
    Method = typing_extensions.TypeVar("Method", default=spec.Basic.Deliver)

    class _Fields(NamedTuple, Generic[Method]):
        channel: TwistedChannel
        method: Method
        properties: spec.BasicProperties
        body: bytes

else:
    Method = TypeVar("Method")
    _Fields = namedtuple("ReceivedMessage", ["channel", "method", "properties", "body"])


class ReceivedMessage(_Fields[Method]):
    """A delivered, fetched or returned message.

    `channel` is the TwistedChannel it came on, `method` a Basic.Deliver, Basic.GetOk or
    Basic.Return, `properties` the BasicProperties, `body` bytes.

    `ack()`, `nack()` and `reject()` settle it, once: they raise AlreadySettled for a message that
    was settled before or delivered with auto_ack, and ChannelWrongStateError, whose cause says why,
    when its channel is closed (the broker delivers it again then). From their first use on a
    channel its `basic_ack()` and the like are looked at as well, but not what those did before, nor
    which messages taken before a `basic_ack(0, multiple=True)` settles. Who mixes the two sets
    `channel.ack_batching = 1` before the first consumer: then everything is looked at.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        """As a namedtuple's, with at most 100 bytes of the body."""
        channel, method, properties, body = self
        shown, size = repr(body), len(body) if isinstance(body, bytes) else 0
        if size > _SHOWN:
            shown = f"{body[:_SHOWN]!r}... ({size} bytes)"
        return (
            f"{type(self).__name__}(channel={channel!r}, method={method!r}, "
            f"properties={properties!r}, body={shown})"
        )

    def ack(self) -> None:
        """Acknowledge this message."""
        channel = self[0]
        ledger = getattr(channel, "_ledger", None)
        done = 0
        if ledger is not None and not channel._auto_ack_tags:
            done = ledger.ack_next(getattr(self[1], "delivery_tag", 0))
        if done == 0:
            channel._settle("ack", self)
        elif done == 2:
            channel._channel.flush()

    def nack(self, requeue: bool = True) -> None:
        """Refuse this message: back into its queue, or dropped or dead-lettered.

        With `requeue` quorum queues of RabbitMQ 4.3 take it for not processed: it does not count in
        their delivery limit.
        """
        self[0]._settle("nack", self, False, requeue)

    def reject(self, requeue: bool = True) -> None:
        """Refuse this message: back into its queue, or dropped or dead-lettered.

        With `requeue` it counts in the delivery limit of a quorum queue.
        """
        self[0]._settle("reject", self, requeue)

    @property
    def redelivered(self) -> bool:
        """Whether the broker has delivered it before, to anybody."""
        return bool(getattr(self[1], "redelivered", False))


read_as_slots(ReceivedMessage)


class AutoAcknowledged(ReceivedMessage):
    """A message fetched with auto_ack."""

    __slots__ = ()

    def ack(self) -> None:
        """Refused: the broker would close the channel."""
        raise AlreadySettled("The message was fetched with auto_ack: it counts as acknowledged")

    def nack(self, requeue: bool = True) -> None:
        """Refused: the broker would close the channel."""
        self.ack()

    reject = nack

    def __copy__(self) -> AutoAcknowledged:
        return self  # __reduce__() would give one that can be acknowledged

    def __reduce__(self) -> Any:
        return ReceivedMessage, tuple(self)


AutoAcknowledged.__name__ = ReceivedMessage.__name__  # it prints as any other


class End(enum.Enum):
    """How a consumer has ended."""

    #: By this client's basic_cancel().
    CANCELLED = enum.auto()
    #: By the broker, or with its queue, which was deleted.
    BY_BROKER = enum.auto()
    #: With its channel.
    CHANNEL_CLOSED = enum.auto()


class Waiting:
    """The Deferreds that wait for a message, oldest first; a list to look at.

    Cancelling one of 100,000 costs as much as cancelling the only one.
    """

    __slots__ = ("_turns",)

    __hash__ = None  # type: ignore[assignment]  # mutable, as a list

    def __init__(self, turns: Turns) -> None:
        self._turns = turns

    def __len__(self) -> int:
        return len(self._turns)

    def __iter__(self) -> Iterator[defer.Deferred[Any]]:
        waiting: list[defer.Deferred[Any]] = list(self._turns)
        return iter(waiting)

    def __reversed__(self) -> Iterator[defer.Deferred[Any]]:
        waiting: list[defer.Deferred[Any]] = list(self._turns)
        return iter(waiting[::-1])

    def __contains__(self, item: object) -> bool:
        return item in self._turns

    def __getitem__(self, index: Any) -> Any:
        return list(self._turns)[index]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, (list, Waiting)):
            return list(self) == list(other)
        return NotImplemented

    def __repr__(self) -> str:
        return repr(list(self._turns))

    def append(self, deferred: defer.Deferred[Any]) -> None:
        """Let `deferred` wait behind the others for one message."""
        self._turns.add(deferred, _ONE)

    def remove(self, deferred: defer.Deferred[Any]) -> None:
        """Let it wait no longer; ValueError when it does not wait."""
        if deferred not in self._turns:
            raise ValueError(f"{deferred!r} is not waiting")
        self._turns.forget(deferred)

    def pop(self, index: int = -1) -> defer.Deferred[Any]:
        """Take one out."""
        deferred: defer.Deferred[Any] = self[index]
        self._turns.forget(deferred)
        return deferred

    def clear(self) -> None:
        """Take all out."""
        self._turns.clear()


class ClosableDeferredQueue(defer.DeferredQueue):  # type: ignore[type-arg]
    """A DeferredQueue that can be closed: each `get()` fails with the reason then.

    Beside `get()` there are `async for message in queue` and `get_many()`. Messages that were there
    already when the queue closed are kept: the two hand them out before they end, and `drain()`
    gives them at any time.
    """

    # Beside a __dict__, see get_of(). That is left empty for subclasses: CPython 3.13 then finds a
    # method in 3 instead of 25 ns.
    __slots__ = ("_deliverable", "_ended", "_size", "_turns")

    def __init__(self, size: int | None = None, backlog: int | None = None) -> None:
        self._turns = Turns(Backlog())
        # See close().
        self._deliverable = True
        self._ended = False
        super().__init__(size, backlog)

    def __repr__(self) -> str:
        state = "open" if self.closed is None else f"closed: {self.closed}"
        return (
            f"<{type(self).__name__}: {len(self.pending)} pending, {len(self._turns)} waiting, "
            f"{state}>"
        )

    @property
    def size(self) -> int | None:
        """None, or how many messages may wait at a time in a queue that is filled by `put()`."""
        return self._size

    @size.setter
    def size(self, most: int | None) -> None:
        self._size = most

    @property  # type: ignore[override]
    def waiting(self) -> Waiting:
        """The Deferreds that wait for a message; equals a list of them. Assigned, it has others."""
        return Waiting(self._turns)

    @waiting.setter
    def waiting(  # pyright: ignore[reportIncompatibleVariableOverride]
        self, deferreds: Iterable[defer.Deferred[Any]]
    ) -> None:
        others = list(deferreds)
        self._turns.clear()
        for deferred in others:
            self._turns.add(deferred, _ONE)

    @property  # type: ignore[override]
    def pending(self) -> Pending:
        """The messages that are not taken yet; can do what a list can. Assigned, it has others."""
        pending: Pending = self._turns.pending
        return pending

    @pending.setter
    def pending(  # pyright: ignore[reportIncompatibleVariableOverride]
        self, messages: Iterable[Any]
    ) -> None:
        others = list(messages)
        self._turns.pending.clear()  # the decoder and the waiters hold the same one
        for message in others:
            self._turns.pending.append(message)

    @property
    def closed(self) -> object:
        """None, or the reason why the queue is closed, as it was given; may be assigned."""
        reason: object = self._turns.closed
        return reason

    @closed.setter
    def closed(self, reason: object) -> None:
        self._turns.closed = reason

    @property
    def backlog(self) -> int | None:
        """None, or how many Deferreds may wait at a time."""
        return self._turns.backlog

    @backlog.setter
    def backlog(self, most: int | None) -> None:
        self._turns.backlog = most

    def put(self, obj: Any) -> Any:
        """Add a message; QueueOverflow when there are `size` already.

        Returns None, or a failed Deferred when the queue is closed.
        """
        if self.closed is not None:
            return self._turns.refuse()
        # While waiters are being served there can be messages and waiters at a time.
        if self.size is not None and len(self.pending) - len(self._turns) >= self.size:
            raise defer.QueueOverflow()
        self.pending.append(obj)
        if self._turns:
            self.wake()
        return None

    def get(self) -> defer.Deferred[ReceivedMessage]:
        """A Deferred of the next message. Fails at once with the reason when the queue is closed.

        QueueUnderflow when `backlog` Deferreds wait already.
        """
        return self._turns.get()

    def get_many(self, max_messages: int) -> defer.Deferred[list[ReceivedMessage]]:
        """A Deferred of a list of at least one message: what is there, up to `max_messages`.

        It never waits for more than the first. Once the queue is closed it hands out what is
        pending, then fails with the reason (also after a client's cancel, where `async for` ends).
        """
        if isinstance(max_messages, bool) or not isinstance(max_messages, int):
            raise TypeError(f"max_messages must be an int, not {max_messages!r}")
        if max_messages < 1:
            raise ValueError(f"max_messages must be at least 1, not {max_messages}")
        if max_messages > sys.maxsize:
            max_messages = sys.maxsize
        there = self.pending and not self._turns
        if self.closed is not None and not (there and self._deliverable):
            return self._turns.refuse()
        return self._turns.get_many(max_messages)

    def __aiter__(self) -> AsyncIterator[ReceivedMessage]:
        if type(self).__anext__ is not ClosableDeferredQueue.__anext__:
            return self
        return iterate(self)

    def __anext__(self) -> Awaitable[ReceivedMessage]:
        if self.pending and not self._turns and (self.closed is None or self._deliverable):
            return ready_next(self.pending.popleft())
        if self.closed is None:
            return self._turns.wait(_NEXT)
        if self._ended and not self.pending:
            raise StopAsyncIteration
        return self._turns.refuse()

    def close(self, reason: Any, *, deliverable: bool = True, end: bool = False) -> None:
        """Close the queue: waiting Deferreds fail, the oldest first, each with its own exception.

        :param reason: an exception, a Failure or any other true object; kept in `closed`
        :param deliverable: False where what is pending can't be acknowledged any more: then it is
            not handed out, and stays for `drain()`
        :param end: the consumer was cancelled by this client: `async for` ends instead of raising
        """
        if not isinstance(reason, BaseException) and not reason:
            raise TypeError(f"a queue is closed with a reason, not {reason!r}")
        if self.closed is not None:
            LOGGER.warning("The queue was closed before: %s", self.closed)
        self.closed = reason
        self._deliverable = self._deliverable and deliverable
        self._ended = self._ended or end
        self.pending.track()
        waiters = self._turns.items()
        self._turns.clear()
        for waiter, wanted in waiters:
            if is_waiting(waiter):
                ends = end and wanted == _NEXT
                waiter.errback(StopAsyncIteration() if ends else fresh_exception(reason))

    def drain(self) -> list[Any]:
        """Take all that is pending, whether the queue is open or closed."""
        taken: list[Any] = self.pending.popmany(len(self.pending))
        return taken

    def wake(self) -> None:
        """Serve waiting Deferreds from `pending`, oldest first.

        To be called after messages were appended to `pending` directly. What the callbacks do (get,
        put, close, cancel) takes effect here, not in a nested call.
        """
        self._turns.serve()


ClosableDeferredQueue.get = get_of(ClosableDeferredQueue)  # type: ignore[method-assign]
# As it is here. A replacement in the class itself, to trace it or in a test, is called as one
# is who overrides it in a subclass.
stock_wake = ClosableDeferredQueue.wake
