"""What was declared on a service's channels, to be declared again on its next connection."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

from .entities import (
    Arguments,
    Entity,
    Exchange,
    ExchangeBinding,
    Queue,
    QueueBinding,
)

Binding = ExchangeBinding | QueueBinding

#: Earlier names remembered for each queue, beside its first.
NAMES_KEPT = 1000


class Recorder:
    """Exchanges, queues and bindings as the calls left them.

    Declare and bind add, delete and unbind remove. So does the end of the last consumer of a queue
    that is auto_delete, and of the last binding from an exchange that is: the broker deletes them
    then, and their bindings. A queue that expires is declared again on each connection until it is
    deleted by a call.
    A queue that the broker named may get another name on each connection. The recorder keeps track:
    bindings follow, and `current_name()` tells what an earlier name has become.
    """

    def __init__(self) -> None:
        self.exchanges: dict[str, Exchange] = {}
        self.queues: dict[str, Queue] = {}
        self.exchange_bindings: dict[Any, ExchangeBinding] = {}
        self.queue_bindings: dict[Any, QueueBinding] = {}
        #: By what they bind: the kind and the name of either end.
        self._bindings_of: dict[tuple[str, str], dict[Any, Binding]] = {}
        self._names: dict[str, Queue] = {}
        self._earlier: dict[Queue, deque[str]] = {}

    def __repr__(self) -> str:
        bindings = len(self.exchange_bindings) + len(self.queue_bindings)
        return (
            f"<Recorder {len(self.exchanges)} exchanges, {len(self.queues)} queues, "
            f"{bindings} bindings>"
        )

    def __iter__(self) -> Iterator[Entity]:
        """All entities; in this order each finds what it needs."""
        return chain(
            self.exchanges.values(),
            self.exchange_bindings.values(),
            self.queues.values(),
            self.queue_bindings.values(),
        )

    def end(self) -> None:
        """Note that nothing of it is wanted any more: the service has stopped."""
        for entity in self:
            entity.end()

    def is_stream(self, queue: str) -> bool:
        """Whether it was declared as a stream."""
        declared = self.queues.get(queue)
        arguments = declared and declared.arguments.get("arguments")
        return bool(arguments and arguments.get("x-queue-type") == "stream")

    def needed_by(self, queues: Iterable[str]) -> list[Entity]:
        """Return what these queues need: themselves, what is bound to them, and its exchanges."""
        ends = deque(("queue", name) for name in queues)
        seen = set(ends)
        wanted: set[Entity] = set()
        while ends:
            end = ends.popleft()
            known = self.queues.get(end[1]) if end[0] == "queue" else self.exchanges.get(end[1])
            if known is not None:
                wanted.add(known)
            for binding in self._bindings_of.get(end, {}).values():
                source, destination = binding.ends
                if destination != end:
                    continue
                wanted.add(binding)
                if source not in seen:
                    seen.add(source)
                    ends.append(source)
        return [entity for entity in self if entity in wanted]

    def bound_to(self, entity: Entity) -> list[Binding]:
        """Return the bindings that need this exchange or queue."""
        if isinstance(entity, Exchange):
            end = ("exchange", entity.arguments["exchange"])
        elif isinstance(entity, Queue):
            end = ("queue", entity.name)
        else:
            return []
        return list(self._bindings_of.get(end, {}).values())

    # Names

    def current_name(self, queue: str) -> str:
        """The name that the queue has now."""
        known = self._names.get(queue)
        return queue if known is None else known.name

    def rename(self, queue: Queue, new: str) -> None:
        """Note that the broker has given a queue another name."""
        old = queue.name
        queue.name = new
        self.queues[new] = self.queues.pop(old)
        self._remember(queue, old)
        self._names.pop(new, None)
        for binding in list(self._bindings_of.get(("queue", old), {}).values()):
            assert isinstance(binding, QueueBinding)
            self._remove_binding(binding.key())
            binding.rename_queue(old, new)
            self._add_binding(binding)

    def _remember(self, queue: Queue, name: str) -> None:
        earlier = self._earlier.setdefault(queue, deque())
        if name not in self._names:
            earlier.append(name)
        self._names[name] = queue
        # The first is the one that queue_declare() gave; its user may hold it for ever.
        while len(earlier) > NAMES_KEPT + 1:
            first = earlier.popleft()
            self._names.pop(earlier.popleft(), None)
            earlier.appendleft(first)

    def _forget_names(self, queue: Queue) -> None:
        for name in self._earlier.pop(queue, ()):
            if self._names.get(name) is queue:
                del self._names[name]

    # Calls

    def leaving(self, method: str, arguments: Arguments) -> Leaving:
        """Return a context in which what a call deletes or unbinds is not declared again."""
        return Leaving(self._leaving_of(method, arguments))

    def _leaving_of(self, method: str, arguments: Arguments) -> Entity | None:
        if method == "exchange_delete":
            return self.exchanges.get(arguments["exchange"])
        if method == "queue_delete":
            return self.queues.get(arguments["queue"])
        if method == "exchange_unbind":
            return self.exchange_bindings.get(ExchangeBinding(arguments).key())
        if method == "queue_unbind":
            return self.queue_bindings.get(QueueBinding(arguments).key())
        return None

    def note(self, method: str, arguments: Arguments, answer: Any) -> None:
        """A call was answered by the broker."""
        take = getattr(self, f"_on_{method}", None)
        if take is not None:
            take(dict(arguments), answer)

    # Each takes the arguments of the TwistedChannel's method of that name

    def _on_exchange_declare(self, arguments: Arguments, answer: Any) -> None:
        if not arguments.pop("passive", False):
            name = arguments["exchange"]
            exchange = self.exchanges.setdefault(name, Exchange(arguments))
            exchange.arguments = arguments
            exchange.on_answered(answer)

    def _on_exchange_delete(self, arguments: Arguments, _answer: Any) -> None:
        name = arguments["exchange"]
        exchange = self.exchanges.pop(name, None)
        if exchange is not None:
            exchange.end()
        self._unbind(list(self._bindings_of.get(("exchange", name), ())))

    def _on_exchange_bind(self, arguments: Arguments, answer: Any) -> None:
        self._bind(ExchangeBinding(arguments), answer)

    def _on_exchange_unbind(self, arguments: Arguments, _answer: Any) -> None:
        self._unbind([ExchangeBinding(arguments).key()])

    def _on_queue_declare(self, arguments: Arguments, answer: Any) -> None:
        if arguments.pop("passive", False):
            return
        name = answer.method.queue
        queue = self.queues.get(name)
        if queue is None:
            queue = self.queues[name] = Queue(name, arguments)
            self._names.pop(name, None)
        elif not queue.is_named_by_broker:  # else this was a look at it by the name it got
            queue.arguments = arguments
        queue.on_answered(answer)

    def _on_queue_delete(self, arguments: Arguments, _answer: Any) -> None:
        name = arguments["queue"]
        queue = self.queues.pop(name, None)
        if queue is not None:
            queue.end()
            self._forget_names(queue)
        self._unbind(list(self._bindings_of.get(("queue", name), ())))

    def _on_queue_bind(self, arguments: Arguments, answer: Any) -> None:
        self._bind(QueueBinding(arguments), answer)

    def _on_queue_unbind(self, arguments: Arguments, _answer: Any) -> None:
        self._unbind([QueueBinding(arguments).key()])

    # Bindings

    def _bind(self, binding: Binding, answer: Any) -> None:
        known = self._bindings_of.get(binding.ends[0], {}).get(binding.key())
        if known is None:
            self._add_binding(binding)
            known = binding
        known.arguments = binding.arguments
        known.on_answered(answer)

    def _add_binding(self, binding: Binding) -> None:
        key = binding.key()
        if isinstance(binding, QueueBinding):
            self.queue_bindings[key] = binding
        else:
            self.exchange_bindings[key] = binding
        for end in binding.ends:
            self._bindings_of.setdefault(end, {})[key] = binding

    def _remove_binding(self, key: Any) -> Binding | None:
        binding = self.queue_bindings.pop(key, None) or self.exchange_bindings.pop(key, None)
        if binding is not None:
            for end in binding.ends:
                of_end = self._bindings_of.get(end, {})
                of_end.pop(key, None)
                if not of_end:
                    self._bindings_of.pop(end, None)
        return binding

    def _unbind(self, keys: list[Any]) -> None:
        """Forget bindings, and exchanges that the broker deletes with the last of theirs."""
        gone = [binding for key in keys if (binding := self._remove_binding(key)) is not None]
        for binding in gone:
            binding.end()
        for source in {binding.source for binding in gone}:
            exchange = self.exchanges.get(source)
            dies = exchange is not None and exchange.arguments.get("auto_delete")
            if dies and not self._is_bound(source):
                self._on_exchange_delete({"exchange": source}, None)

    def _is_bound(self, source: str) -> bool:
        bindings = self._bindings_of.get(("exchange", source), {}).values()
        return any(binding.source == source for binding in bindings)

    def on_last_consumer_ended(self, queue: str) -> None:
        """Nothing here consumes from this queue any more, by our choice."""
        declared = self.queues.get(queue)
        if declared is not None and declared.arguments.get("auto_delete"):
            self._on_queue_delete({"queue": queue}, None)


class Leaving:
    """While it is entered, an entity is being deleted or unbound: the broker isn't asked for it."""

    def __init__(self, entity: Entity | None) -> None:
        self._entity = entity

    def __enter__(self) -> None:
        if self._entity is not None:
            self._entity.leaving += 1

    def __exit__(self, *_exc_info: object) -> None:
        if self._entity is not None:
            self._entity.leaving -= 1
