"""The methods of the classes Exchange and Queue, but not those of consumers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pika import spec

from pika_twisted.testing import direct_reply
from pika_twisted.testing.exchange import Target
from pika_twisted.testing.permissions import CONFIGURE, READ, WRITE
from pika_twisted.testing.refusal import Refusal

if TYPE_CHECKING:
    from pika_twisted.testing.channel import ServerChannel

_DEFAULT_EXCHANGE = "operation not permitted on the default exchange"


def _not_default(*names: str) -> None:
    if "" in names:
        raise Refusal(403, _DEFAULT_EXCHANGE)


def exchange_declare(channel: ServerChannel, method: Any) -> Any:
    """Exchange.Declare."""
    _not_default(method.exchange)
    vhost = channel.vhost
    if method.passive:
        vhost.exchange(str(method.exchange))
        return spec.Exchange.DeclareOk()
    channel.check_access("exchange", method.exchange, CONFIGURE)
    arguments = method.arguments or {}
    alternate = arguments.get("alternate-exchange")
    if isinstance(alternate, str):
        channel.check_access("exchange", method.exchange, READ)
        channel.check_access("exchange", alternate, WRITE)
    vhost.declare_exchange(
        method.exchange,
        method.type,
        durable=method.durable,
        auto_delete=method.auto_delete,
        internal=method.internal,
        arguments=arguments,
    )
    return spec.Exchange.DeclareOk()


def exchange_delete(channel: ServerChannel, method: Any) -> Any:
    """Exchange.Delete."""
    _not_default(method.exchange)
    channel.check_access("exchange", method.exchange, CONFIGURE)
    channel.vhost.delete_exchange(method.exchange, method.if_unused)
    return spec.Exchange.DeleteOk()


def exchange_bind(channel: ServerChannel, method: Any) -> Any:
    """Exchange.Bind."""
    channel.vhost.bind(*_exchange_binding(channel, method))
    return spec.Exchange.BindOk()


def exchange_unbind(channel: ServerChannel, method: Any) -> Any:
    """Exchange.Unbind."""
    channel.vhost.unbind(*_exchange_binding(channel, method))
    return spec.Exchange.UnbindOk()


def _exchange_binding(
    channel: ServerChannel, method: Any
) -> tuple[str, Target, str, dict[str, Any]]:
    _not_default(method.destination, method.source)
    channel.check_access("exchange", method.destination, WRITE)
    channel.check_access("exchange", method.source, READ)
    target = Target(method.destination, True)
    return method.source, target, method.routing_key, method.arguments or {}


def queue_declare(channel: ServerChannel, method: Any) -> Any:
    """Queue.Declare."""
    name = method.queue
    if direct_reply.is_reply_name(name):
        direct_reply.check_declare(channel, name)
        return spec.Queue.DeclareOk(name, 0, 1)
    if method.passive:
        queue = channel.vhost.usable_queue(name, channel.connection)
        queue.touch()
    else:
        arguments = method.arguments or {}
        channel.check_access("queue", name, CONFIGURE)
        exchange = arguments.get("x-dead-letter-exchange")
        if isinstance(exchange, str):
            channel.check_access("queue", name, READ)
            channel.check_access("exchange", exchange, WRITE)
        queue = channel.vhost.declare_queue(
            name,
            channel.connection,
            durable=method.durable,
            exclusive=method.exclusive,
            auto_delete=method.auto_delete,
            arguments=arguments,
        )
    channel.last_queue = queue.name
    return spec.Queue.DeclareOk(queue.name, queue.message_count, queue.consumer_count)


def queue_delete(channel: ServerChannel, method: Any) -> Any:
    """Queue.Delete; none there is fine."""
    name = channel.queue_name(method.queue)
    channel.check_access("queue", name, CONFIGURE)
    if name not in channel.vhost.queues:
        return spec.Queue.DeleteOk(0)
    queue = channel.vhost.usable_queue(name, channel.connection)
    return spec.Queue.DeleteOk(channel.vhost.delete_queue(queue, method.if_unused, method.if_empty))


def queue_purge(channel: ServerChannel, method: Any) -> Any:
    """Queue.Purge."""
    name = channel.queue_name(method.queue)
    channel.check_access("queue", name, READ)
    return spec.Queue.PurgeOk(channel.vhost.usable_queue(name, channel.connection).purge())


def queue_bind(channel: ServerChannel, method: Any) -> Any:
    """Queue.Bind."""
    channel.vhost.bind(*_queue_binding(channel, method))
    return spec.Queue.BindOk()


def queue_unbind(channel: ServerChannel, method: Any) -> Any:
    """Queue.Unbind."""
    channel.vhost.unbind(*_queue_binding(channel, method))
    return spec.Queue.UnbindOk()


def _queue_binding(channel: ServerChannel, method: Any) -> tuple[str, Target, str, dict[str, Any]]:
    name = channel.queue_name(method.queue)
    _not_default(method.exchange)
    channel.check_access("queue", name, WRITE)
    channel.check_access("exchange", method.exchange, READ)
    binding = method.exchange, Target(name, False), method.routing_key, method.arguments or {}
    vhost = channel.vhost
    if isinstance(method, spec.Queue.Bind):
        vhost.exchange(str(method.exchange))
    if name in vhost.queues:
        vhost.usable_queue(name, channel.connection)
    return binding


HANDLERS: dict[type[Any], Any] = {
    spec.Exchange.Declare: exchange_declare,
    spec.Exchange.Delete: exchange_delete,
    spec.Exchange.Bind: exchange_bind,
    spec.Exchange.Unbind: exchange_unbind,
    spec.Queue.Declare: queue_declare,
    spec.Queue.Delete: queue_delete,
    spec.Queue.Purge: queue_purge,
    spec.Queue.Bind: queue_bind,
    spec.Queue.Unbind: queue_unbind,
}
