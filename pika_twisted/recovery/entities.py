"""Exchanges, queues and bindings, each with a state of its own.

A consumer is an entity, too; see `consumer`. The states and what leads from one to the next are
drawn in docs/how-it-works.md.
"""

from __future__ import annotations

from typing import Any

from pika import exceptions as pika_exceptions
from pika import spec

from pika_twisted.stats import EntityState, EntityStatus

from .retries import Backoff

Arguments = dict[str, Any]


class Entity:
    """Something at the broker that outlives a connection because it is asked for again."""

    kind = ""

    def __init__(self) -> None:
        self.state = EntityState.RECORDED
        self.reason: BaseException | None = None
        self.backoff = Backoff()
        #: How often in a row the broker has said no.
        self.refusals = 0
        #: When to ask again for what was refused, in the reactor's seconds.
        self.due: float | None = None
        #: The broker closed the whole connection for it: left out once, then asked for again with
        #: the next connection, before any consumer is there that could suffer.
        self.sits_out = False
        #: How many calls that delete or unbind it are under way.
        self.leaving = 0

    def __str__(self) -> str:
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"<{self}: {self.state.value}>"

    @property
    def is_wanted(self) -> bool:
        """Whether the broker is to be asked for it."""
        return self.state is not EntityState.GONE and not self.leaving

    def status(self) -> EntityStatus:
        """Return what `stats()` shows of it."""
        return EntityStatus(self.kind, str(self), self.state, self.reason, self.refusals)

    def method(self) -> Any:
        """Return the AMQP method that asks for it."""
        raise NotImplementedError

    def on_asked(self) -> None:
        """Note that the broker is asked."""
        if self.state is not EntityState.GONE:
            self.state = EntityState.RECOVERING

    def on_answered(self, answer: Any) -> None:
        """Note that the broker has it."""
        if self.state is not EntityState.GONE:
            self.state = EntityState.DECLARED
        self.reason = self.due = None
        self.refusals = 0
        self.backoff.reset()

    def on_refused(self, reason: BaseException, now: float) -> bool:
        """Note that the broker said no; return whether to ask at once in another way."""
        if self.state is not EntityState.GONE:
            self.state = EntityState.REFUSED
            self.reason = reason
            self.refusals += 1
            self.due = now + self.backoff.fail(now)
        return False

    def on_lost(self) -> None:
        """Note that the connection, or the channel that it lives on, is gone."""
        if self.state in (EntityState.DECLARED, EntityState.RECOVERING):
            self.state = EntityState.RECORDED

    def end(self) -> None:
        """Note that it is not wanted any more."""
        self.state = EntityState.GONE
        self.due = None


class Exchange(Entity):
    """An exchange that a call declared."""

    kind = "exchange"

    def __init__(self, arguments: Arguments) -> None:
        super().__init__()
        self.arguments = arguments

    def __str__(self) -> str:
        return f"exchange {self.arguments['exchange']!r}"

    def method(self) -> spec.Exchange.Declare:
        """As in the base class."""
        asked = self.arguments
        kind: Any = asked.get("exchange_type", "direct")
        return spec.Exchange.Declare(
            exchange=asked["exchange"],
            type=getattr(kind, "value", kind),
            durable=asked.get("durable", False),
            auto_delete=asked.get("auto_delete", False),
            internal=asked.get("internal", False),
            arguments=asked.get("arguments"),
        )


class Queue(Entity):
    """A queue that a call declared; one that the broker named may change its name."""

    kind = "queue"

    def __init__(self, name: str, arguments: Arguments) -> None:
        super().__init__()
        self.name = name
        self.arguments = arguments
        self._asks_for_name = False

    def __str__(self) -> str:
        return f"queue {self.name!r}"

    @property
    def is_named_by_broker(self) -> bool:
        """Whether it was declared as ''."""
        return not self.arguments["queue"]

    def prepare(self, new_connection: bool) -> None:
        """Choose how to ask: for the name that it has, where it may be there still.

        With its connection an exclusive queue is gone, and with its consumers one that is
        auto_delete: on a new connection their names need not be asked for.
        """
        dies = self.arguments.get("exclusive") or self.arguments.get("auto_delete")
        self._asks_for_name = self.is_named_by_broker and not (new_connection and dies)

    def method(self) -> spec.Queue.Declare:
        """As in the base class."""
        if self._asks_for_name:  # the broker reserves its names: only a passive declare may have it
            return spec.Queue.Declare(queue=self.name, passive=True)
        asked = self.arguments
        return spec.Queue.Declare(
            queue=asked["queue"],
            durable=asked.get("durable", False),
            exclusive=asked.get("exclusive", False),
            auto_delete=asked.get("auto_delete", False),
            arguments=asked.get("arguments"),
        )

    def on_refused(self, reason: BaseException, now: float) -> bool:
        """As in the base class."""
        missing = getattr(reason, "reply_code", 0) == spec.NOT_FOUND
        if self._asks_for_name and missing:
            self._asks_for_name = False
            return True
        return super().on_refused(reason, now)


class Binding(Entity):
    """A binding that a call made."""

    kind = "binding"
    #: The arguments that name the source, and the destination; and what the destination is.
    source_argument = destination_argument = destination_kind = ""

    def __init__(self, arguments: Arguments) -> None:
        super().__init__()
        self.arguments = arguments

    def __str__(self) -> str:
        (_, source), (kind, destination) = self.ends
        return f"binding of {kind} {destination!r} to exchange {source!r} by {self._routing_key!r}"

    @property
    def source(self) -> str:
        """The exchange that messages come from."""
        return str(self.arguments[self.source_argument])

    @property
    def ends(self) -> tuple[tuple[str, str], tuple[str, str]]:
        """What it binds: kind and name of the source, then of the destination."""
        destination = self.arguments[self.destination_argument]
        return ("exchange", self.source), (self.destination_kind, destination)

    @property
    def _routing_key(self) -> str:
        return self.arguments.get("routing_key") or ""

    def key(self) -> Any:
        """Return what makes it the same binding as another."""
        return (*self.ends, self._routing_key, by_value(self.arguments.get("arguments") or {}))


class ExchangeBinding(Binding):
    """A binding of one exchange to another."""

    source_argument = "source"
    destination_argument = "destination"
    destination_kind = "exchange"

    def method(self) -> spec.Exchange.Bind:
        """As in the base class."""
        return spec.Exchange.Bind(
            destination=self.arguments["destination"],
            source=self.source,
            routing_key=self._routing_key,
            arguments=self.arguments.get("arguments"),
        )


class QueueBinding(Binding):
    """A binding of a queue to an exchange."""

    source_argument = "exchange"
    destination_argument = destination_kind = "queue"

    @property
    def _routing_key(self) -> str:
        # None is the name of the queue, as with pika.
        key = self.arguments.get("routing_key")
        return str(self.arguments["queue"] if key is None else key)

    def rename_queue(self, old: str, new: str) -> None:
        """Follow a queue to its new name."""
        # An empty routing key left out means the queue's name (spec 1.7.2.3), as None.
        if self.arguments.get("routing_key") == old:
            self.arguments["routing_key"] = new
        self.arguments["queue"] = new

    def method(self) -> spec.Queue.Bind:
        """As in the base class."""
        return spec.Queue.Bind(
            queue=self.arguments["queue"],
            exchange=self.source,
            routing_key=self._routing_key,
            arguments=self.arguments.get("arguments"),
        )


class QueueCheck(Entity):
    """Asks whether a queue is there, and may be consumed from; nothing is recorded."""

    kind = "queue"

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def __str__(self) -> str:
        return f"queue {self.name!r}"

    def method(self) -> spec.Queue.Declare:
        """As in the base class."""
        return spec.Queue.Declare(queue=self.name, passive=True)


def by_value(value: Any) -> Any:
    """Return a hashable twin of a field value: equal where the broker takes two for the same."""
    if isinstance(value, dict):
        return "table", frozenset((key, by_value(each)) for key, each in value.items())
    if isinstance(value, (list, tuple)):
        return "array", tuple(by_value(each) for each in value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return "bytes", bytes(value)
    return type(value).__name__, value  # 1, True and 1.0 are equal, and three types of AMQP


def is_refusal(reason: BaseException) -> bool:
    """Whether the broker closed a channel to say no to what was asked on it."""
    return isinstance(reason, pika_exceptions.ChannelClosedByBroker)


__all__ = [
    "Arguments",
    "Entity",
    "EntityState",
    "EntityStatus",
    "Exchange",
    "ExchangeBinding",
    "Queue",
    "QueueBinding",
    "QueueCheck",
    "by_value",
    "is_refusal",
]
