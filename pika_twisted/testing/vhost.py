"""Virtual hosts: exchanges, queues, bindings, and the way of a message through them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pika_twisted.testing.arguments import (
    QUORUM,
    STREAM,
    check_equal,
    check_exchange,
    check_queue,
    check_queue_equal,
    text_of,
)
from pika_twisted.testing.dead_letter import dead_lettered, is_circle
from pika_twisted.testing.exchange import TYPES, Binding, Exchange, Target
from pika_twisted.testing.message import Message, QueuedMessage
from pika_twisted.testing.queue import Queue
from pika_twisted.testing.refusal import Refusal, inequivalent, locked, no_exchange, no_queue
from pika_twisted.testing.stream import Stream

if TYPE_CHECKING:
    from pika_twisted.testing.broker import Broker

_SYSTEM = {
    "amq.direct": "direct",
    "amq.fanout": "fanout",
    "amq.headers": "headers",
    "amq.match": "headers",
    "amq.topic": "topic",
    "amq.rabbitmq.trace": "topic",
}


class VirtualHost:
    """One virtual host; `exchanges` and `queues` by name."""

    def __init__(self, broker: Broker, name: str) -> None:
        self.broker = broker
        self.name = name
        self.queues: dict[str, Queue | Stream] = {}
        self.exchanges: dict[str, Exchange] = {"": Exchange("", "direct", durable=True)}
        for system, kind in _SYSTEM.items():
            self.exchanges[system] = Exchange(
                system, kind, durable=True, internal=system == "amq.rabbitmq.trace"
            )

    def __repr__(self) -> str:
        return f"<VirtualHost {self.name!r}: {len(self.queues)} queues>"

    def now(self) -> float:
        """Return the seconds of the broker's clock."""
        return self.broker.reactor.seconds()  # type: ignore[no-any-return]

    # Exchanges

    def exchange(self, name: str) -> Exchange:
        """Return an exchange.

        :raises Refusal: 404
        """
        found = self.exchanges.get(name)
        if found is None:
            raise no_exchange(self.name, name)
        return found

    def declare_exchange(
        self,
        name: str,
        kind: str,
        *,
        durable: bool,
        auto_delete: bool,
        internal: bool,
        arguments: dict[str, Any],
    ) -> None:
        """Declare an exchange.

        :raises Refusal: as RabbitMQ's
        """
        if kind not in TYPES:
            raise Refusal(
                self.broker.dialect.unknown_exchange_type, f"invalid exchange type '{kind}'"
            )
        found = self.exchanges.get(name)
        if found is None:
            if name.startswith("amq."):
                raise _reserved("exchange", name)
            check_exchange(name, self.name, arguments)
            self.exchanges[name] = Exchange(
                name,
                kind,
                durable=durable,
                auto_delete=auto_delete,
                internal=internal,
                arguments=arguments,
            )
            return
        for what, asked, current in (
            ("type", kind, found.type),
            ("durable", durable, found.durable),
            ("auto_delete", auto_delete, found.auto_delete),
            ("internal", internal, found.internal),
        ):
            self._check_same("exchange", name, what, asked, current)
        check_equal(
            "exchange", name, self.name, found.arguments, arguments, ("alternate-exchange",)
        )

    def delete_exchange(self, name: str, if_unused: bool = False) -> None:
        """Delete an exchange, and the bindings from and to it; none there is fine.

        :raises Refusal: as RabbitMQ's
        """
        if name in _SYSTEM:
            raise Refusal(
                403, f"deletion of system exchange '{name}' in vhost '{self.name}' not allowed"
            )
        exchange = self.exchanges.get(name)
        if exchange is None:
            return
        if if_unused and exchange.bindings:
            raise Refusal(406, f"exchange '{name}' in vhost '{self.name}' in use")
        del self.exchanges[name]
        self._forget(Target(name, True))

    # Queues

    def queue(self, name: str) -> Queue | Stream:
        """Return a queue.

        :raises Refusal: 404
        """
        found = self.queues.get(name)
        if found is None:
            raise no_queue(self.name, name)
        return found

    def usable_queue(self, name: str, connection: Any) -> Queue | Stream:
        """Return a queue for a connection.

        :raises Refusal: 404; 405 where it is exclusive to another connection
        """
        found = self.queue(name)
        if found.owner is not None and found.owner is not connection:
            raise locked(self.name, name)
        return found

    def declare_queue(
        self,
        name: str,
        connection: Any,
        *,
        durable: bool,
        exclusive: bool,
        auto_delete: bool,
        arguments: dict[str, Any],
    ) -> Queue | Stream:
        """Declare a queue, with a name of the broker's where it is empty.

        :raises Refusal: as RabbitMQ's
        """
        owner = connection if exclusive else None
        found = self.queues.get(name) if name else None
        if found is not None:
            self._check_same("queue", name, "durable", durable, found.durable)
            self._check_same("queue", name, "auto_delete", auto_delete, found.auto_delete)
            if found.owner is not owner:
                raise locked(self.name, name)
            check_queue_equal(name, self.name, found.arguments, arguments, self.broker.dialect)
            found.touch()
            return found
        if name.startswith("amq."):
            raise _reserved("queue", name)
        name = name or self.broker.generated_name("amq.gen-")
        kind = check_queue(
            name,
            self.name,
            arguments,
            self.broker.dialect,
            durable=durable,
            exclusive=exclusive,
            auto_delete=auto_delete,
        )
        made: Queue | Stream
        if kind == STREAM:
            made = Stream(self, name, arguments)
        else:
            made = Queue(
                self,
                name,
                kind,
                durable=durable,
                auto_delete=auto_delete,
                owner=owner,
                arguments=arguments,
            )
        self.queues[name] = made
        return made

    def delete_queue(
        self, queue: Queue | Stream, if_unused: bool = False, if_empty: bool = False
    ) -> int:
        """Delete a queue, and the bindings to it; return how many messages went with it.

        :raises Refusal: as RabbitMQ's
        """
        where = f"queue '{queue.name}' in vhost '{self.name}'"
        if queue.type == QUORUM and (if_unused or if_empty):
            flag = "if-unused" if if_unused else "if-empty"
            raise Refusal(
                540,
                f"cannot delete {where}. queue.delete operations with {flag} flag set are not "
                "supported by quorum queues",
            )
        if queue.type != STREAM:
            if if_unused and queue.consumers:
                raise Refusal(406, f"{where} in use")
            if if_empty and queue.message_count:
                raise Refusal(406, f"{where} not empty")
        if self.queues.get(queue.name) is not queue:
            return 0
        del self.queues[queue.name]
        self._forget(Target(queue.name, False))
        count = 0 if queue.type == STREAM else queue.message_count
        queue.end()
        return count

    def _check_same(self, kind: str, name: str, what: str, asked: Any, current: Any) -> None:
        if asked != current:
            received, now = f"'{text_of(asked)}'", f"'{text_of(current)}'"
            raise inequivalent(what, name, self.name, kind, received, now)

    # Bindings

    def bind(
        self, source: str, target: Target, routing_key: str, arguments: dict[str, Any]
    ) -> None:
        """Bind a queue or an exchange to an exchange.

        :raises Refusal: as RabbitMQ's
        """
        exchange = self.exchange(source)
        self.exchange(target.name) if target.is_exchange else self.queue(target.name)
        exchange.bind(Binding(target, routing_key, arguments))

    def unbind(
        self, source: str, target: Target, routing_key: str, arguments: dict[str, Any]
    ) -> None:
        """Remove a binding; none there is fine."""
        exchange = self.exchanges.get(source)
        if exchange is not None and exchange.unbind(Binding(target, routing_key, arguments)):
            self._delete_unused(exchange)

    def _forget(self, target: Target) -> None:
        for exchange in list(self.exchanges.values()):
            if exchange.forget(target):
                self._delete_unused(exchange)

    def _delete_unused(self, exchange: Exchange) -> None:
        """An auto_delete exchange goes with its last binding."""
        if exchange.auto_delete and not exchange.bindings and exchange.name in self.exchanges:
            del self.exchanges[exchange.name]
            self._forget(Target(exchange.name, True))

    # Messages

    def route(self, message: Message, exchange: Exchange) -> list[Queue | Stream]:
        """Return the queues that a message goes to, each once."""
        if exchange.name == "":
            keys = dict.fromkeys(message.routing_keys)
            return [self.queues[key] for key in keys if key in self.queues]
        found: dict[str, Queue | Stream] = {}
        seen = {exchange.name}
        waiting = [exchange]
        while waiting:
            current = waiting.pop(0)
            targets = current.route(message) if current.name else self._by_name(message)
            further = []
            for target in targets:
                if target.is_exchange:
                    further.append(target.name)
                elif target.name in self.queues:
                    found[target.name] = self.queues[target.name]
            if not targets and current.alternate is not None:
                further.append(current.alternate)
            for name in further:
                if name not in seen and name in self.exchanges:
                    seen.add(name)
                    waiting.append(self.exchanges[name])
        return list(found.values())

    def _by_name(self, message: Message) -> list[Target]:
        return [Target(key, False) for key in message.routing_keys if key in self.queues]

    def dead_letter(
        self, queue: Queue, message: QueuedMessage, reason: str, redelivered: bool = False
    ) -> None:
        """Publish a message that a queue gives up to its dead-letter exchange, where it has one."""
        name = queue.arguments.get("x-dead-letter-exchange")
        exchange = self.exchanges.get(name) if name is not None else None
        self.broker.on_dropped(queue, message, reason)
        if exchange is None:
            return
        dead = dead_lettered(
            message.message,
            queue=queue.name,
            reason=reason,
            exchange=exchange.name,
            routing_key=queue.arguments.get("x-dead-letter-routing-key"),
            time=self.now(),
            dialect=self.broker.dialect,
        )
        dead.redelivered = redelivered
        for target in self.route(dead, exchange):
            if reason == "rejected" or not is_circle(dead, target.name):
                target.publish(dead)

    def restart(self) -> None:
        """Forget what does not survive a restart of the broker."""
        for queue in list(self.queues.values()):
            if not queue.durable or queue.owner is not None:
                queue.forget_consumers()
                self.delete_queue(queue)
            else:
                queue.restart()
        for name, exchange in list(self.exchanges.items()):
            if not exchange.durable:
                self.exchanges.pop(name, None)
                self._forget(Target(name, True))


def _reserved(kind: str, name: str) -> Refusal:
    return Refusal(403, f"{kind} name '{name}' contains reserved prefix 'amq.*'")
