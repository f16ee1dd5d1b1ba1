"""What was declared on a service's channels, to be declared again on its next connection."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from pika import exceptions as pika_exceptions
from pika import spec
from twisted.internet import defer

Arguments = dict[str, Any]

#: Earlier names remembered for each queue.
_NAMES_KEPT = 10


class Recorder:
    """Exchanges, queues and bindings as the calls left them.

    Declare and bind add, delete and unbind remove. So does the end of the last consumer of a queue
    that is auto_delete, and of the last binding from an exchange that is: the broker deletes them
    then, and their bindings. A queue that expires is declared again on each connection until it is
    deleted by a call.
    A queue that the broker named gets another name on each connection. The recorder keeps track:
    bindings follow, and `current_name()` tells what an earlier name has become.
    """

    def __init__(self) -> None:
        self.exchanges: dict[str, Arguments] = {}
        self.queues: dict[str, Arguments] = {}
        self.exchange_bindings: dict[Any, Arguments] = {}
        self.queue_bindings: dict[Any, Arguments] = {}
        self._renamed: dict[str, str] = {}
        self._declaring = defer.DeferredLock()

    def __repr__(self) -> str:
        bindings = len(self.exchange_bindings) + len(self.queue_bindings)
        return (
            f"<Recorder {len(self.exchanges)} exchanges, {len(self.queues)} queues, "
            f"{bindings} bindings>"
        )

    def current_name(self, queue: str) -> str:
        """The name that the queue has now."""
        while queue in self._renamed:
            queue = self._renamed[queue]
        return queue

    def is_stream(self, queue: str) -> bool:
        """Whether it was declared as a stream."""
        arguments = self.queues.get(queue, {}).get("arguments") or {}
        return bool(arguments.get("x-queue-type") == "stream")

    def note(self, method: str, arguments: Arguments, answer: Any) -> None:
        """A call was answered by the broker."""
        take = getattr(self, f"_on_{method}", None)
        if take is not None:
            take(dict(arguments), answer)

    # Each takes the arguments of the TwistedChannel's method of that name

    def _on_exchange_declare(self, arguments: Arguments, _answer: Any) -> None:
        if not arguments.pop("passive", False):
            self.exchanges[arguments["exchange"]] = arguments

    def _on_exchange_delete(self, arguments: Arguments, _answer: Any) -> None:
        name = arguments["exchange"]
        self.exchanges.pop(name, None)
        for bindings in (self.exchange_bindings, self.queue_bindings):
            ends = {key: (_source(b), b.get("destination")) for key, b in bindings.items()}
            self._unbind(bindings, [key for key in ends if name in ends[key]])

    def _on_exchange_bind(self, arguments: Arguments, _answer: Any) -> None:
        self.exchange_bindings[_key(arguments)] = arguments

    def _on_exchange_unbind(self, arguments: Arguments, _answer: Any) -> None:
        self._unbind(self.exchange_bindings, [_key(arguments)])

    def _on_queue_declare(self, arguments: Arguments, answer: Any) -> None:
        if not arguments.pop("passive", False):
            self.queues[answer.method.queue] = arguments

    def _on_queue_delete(self, arguments: Arguments, _answer: Any) -> None:
        name = arguments["queue"]
        self.queues.pop(name, None)
        bindings = self.queue_bindings
        self._unbind(bindings, [key for key, b in bindings.items() if b["queue"] == name])

    def _on_queue_bind(self, arguments: Arguments, _answer: Any) -> None:
        self.queue_bindings[_key(arguments)] = arguments

    def _on_queue_unbind(self, arguments: Arguments, _answer: Any) -> None:
        self._unbind(self.queue_bindings, [_key(arguments)])

    def _unbind(self, bindings: dict[Any, Arguments], keys: list[Any]) -> None:
        """Forget bindings, and exchanges that the broker deletes with the last of theirs."""
        gone = [bindings.pop(key) for key in keys if key in bindings]
        for source in {_source(binding) for binding in gone}:
            if self.exchanges.get(source, {}).get("auto_delete") and not self._is_bound(source):
                self._on_exchange_delete({"exchange": source}, None)

    def _is_bound(self, source: str) -> bool:
        bindings = (*self.exchange_bindings.values(), *self.queue_bindings.values())
        return any(_source(binding) == source for binding in bindings)

    def on_last_consumer_ended(self, queue: str) -> None:
        """Nobody here consumes from this queue any more, by our choice."""
        if self.queues.get(queue, {}).get("auto_delete"):
            self._on_queue_delete({"queue": queue}, None)

    # Declaring it all again

    async def declare_on(
        self,
        channel: Any,
        renamed: Callable[[str, str], Any],
        exists: Callable[[str], Awaitable[bool]] | None = None,
    ) -> None:
        """Declare everything on a TwistedChannel; fails at the first refusal.

        `renamed(old, new)` is called for each queue that the broker names. `exists(name)` says
        whether such a queue is there already.
        """
        for exchange in list(self.exchanges.values()):
            await channel.exchange_declare(**exchange)
        for binding in list(self.exchange_bindings.values()):
            await channel.exchange_bind(**binding)
        for name in list(self.queues):
            named_by_us = self.queues.get(name, {}).get("queue")
            if exists is None or named_by_us or not await exists(name):
                await self.declare_queue(channel, name, renamed)
        for binding in list(self.queue_bindings.values()):
            await channel.queue_bind(**binding)

    async def declare_again(self, connection: Any, renamed: Callable[[str, str], Any]) -> None:
        """Declare everything on a connection that is not new.

        A queue that the broker named may be there: declared once more it would be a second one,
        bound and without consumers.
        """
        # One after the other: two at once would each find a queue missing, and have it named.
        await self._declaring.run(
            lambda: defer.Deferred.fromCoroutine(self._declare_again(connection, renamed))
        )

    async def _declare_again(self, connection: Any, renamed: Callable[[str, str], Any]) -> None:
        async def exists(queue: str) -> bool:
            asking = await connection.channel()  # a no closes it
            try:
                await asking.queue_declare(queue, passive=True)
            except pika_exceptions.ChannelClosedByBroker as refusal:
                if refusal.reply_code != spec.NOT_FOUND:
                    raise
                return False
            asking.close()
            return True

        channel = await connection.channel()
        try:
            await self.declare_on(channel, renamed, exists)
        finally:
            if channel.is_open:  # a refusal has closed it
                channel.close()

    async def declare_queue(
        self, channel: Any, name: str, renamed: Callable[[str, str], Any]
    ) -> None:
        """Declare one queue."""
        arguments = self.queues.get(name)
        if arguments is None:
            return
        answer = await channel.queue_declare(**arguments)
        now = answer.method.queue
        if now != name and name in self.queues:
            self._rename(name, now)
            renamed(name, now)

    def _rename(self, old: str, new: str) -> None:
        self.queues[new] = self.queues.pop(old)
        # Names lead to the latest in one step: a service that runs for years has no long chains,
        # and only the names of the last few connections are still in anybody's hands.
        for earlier, now in list(self._renamed.items()):
            if now == old:
                self._renamed[earlier] = new
        self._renamed[old] = new
        self._renamed.pop(new, None)  # a broker that gives a name again would close a circle
        while len(self._renamed) > _NAMES_KEPT * (len(self.queues) + 1):
            del self._renamed[next(iter(self._renamed))]
        for key, binding in list(self.queue_bindings.items()):
            if binding["queue"] == old:
                del self.queue_bindings[key]
                # An empty routing key left out means the queue's name (spec 1.7.2.3), as None.
                if binding.get("routing_key") == old:
                    binding["routing_key"] = new
                binding["queue"] = new
                self.queue_bindings[_key(binding)] = binding


def _key(arguments: Arguments) -> str:
    """What makes a binding the same one. A routing key of None is the name of its queue."""
    if arguments.get("routing_key") is None:
        arguments = {**arguments, "routing_key": arguments.get("queue")}
    return repr(sorted((name, repr(value)) for name, value in arguments.items() if value))


def _source(binding: Arguments) -> Any:
    """The exchange that messages come from."""
    return binding["exchange"] if "queue" in binding else binding["source"]
