"""The methods of a channel that shape the broker: exchanges, queues, bindings, transactions, qos.

Each sends one synchronous AMQP method and returns a Deferred that fires with the frame of the
broker's answer. It fails with the reason when the channel closes first (a ChannelClosedByBroker
when the broker refuses), with TypeError or ValueError naming an argument that can't be encoded, and
with ChannelWrongStateError when the channel is not open; nothing is sent in the last two cases.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pika import spec
from pika.exchange_type import ExchangeType
from twisted.internet import defer

if TYPE_CHECKING:
    from pika.frame import Method


class Topology:
    """The part of `TwistedChannel` that asks and gets one answer."""

    def _call(
        self, name: str, effect: Callable[[Any], Any] | None = None, **arguments: Any
    ) -> defer.Deferred[Any]:
        """Call the channel's method `name`, as `TwistedChannel` does it."""
        raise NotImplementedError

    def _on_queue_declared(self, method_frame: Any) -> Any:
        """Take note of the queue's name."""
        raise NotImplementedError

    def _on_queue_deleted(self, method_frame: Any, queue: str) -> Any:
        """Close what consumed from the queue."""
        raise NotImplementedError

    def _on_recovered(self, method_frame: Any) -> Any:
        """What was not acknowledged is delivered again, under other tags."""
        return method_frame

    # Exchanges

    def exchange_declare(
        self,
        exchange: str,
        exchange_type: str | ExchangeType = ExchangeType.direct,
        passive: bool = False,
        durable: bool = False,
        auto_delete: bool = False,
        internal: bool = False,
        arguments: dict[str, Any] | None = None,
    ) -> defer.Deferred[Method[spec.Exchange.DeclareOk]]:
        """Create an exchange, or with `passive` only see whether it is there.

        Fires with Exchange.DeclareOk. See pika.channel.Channel.exchange_declare.
        """
        return self._call(
            "exchange_declare",
            exchange=exchange,
            exchange_type=exchange_type,
            passive=passive,
            durable=durable,
            auto_delete=auto_delete,
            internal=internal,
            arguments=arguments,
        )

    def exchange_delete(
        self, exchange: str | None = None, if_unused: bool = False
    ) -> defer.Deferred[Method[spec.Exchange.DeleteOk]]:
        """Delete an exchange. Fires with Exchange.DeleteOk."""
        return self._call("exchange_delete", exchange=exchange, if_unused=if_unused)

    def exchange_bind(
        self,
        destination: str,
        source: str,
        routing_key: str = "",
        arguments: dict[str, Any] | None = None,
    ) -> defer.Deferred[Method[spec.Exchange.BindOk]]:
        """Bind one exchange to another (RabbitMQ's extension). Fires with Exchange.BindOk."""
        return self._call(
            "exchange_bind",
            destination=destination,
            source=source,
            routing_key=routing_key,
            arguments=arguments,
        )

    def exchange_unbind(
        self,
        destination: str | None = None,
        source: str | None = None,
        routing_key: str = "",
        arguments: dict[str, Any] | None = None,
    ) -> defer.Deferred[Method[spec.Exchange.UnbindOk]]:
        """Undo `exchange_bind()`. Fires with Exchange.UnbindOk."""
        return self._call(
            "exchange_unbind",
            destination=destination,
            source=source,
            routing_key=routing_key,
            arguments=arguments,
        )

    # Queues

    def queue_declare(
        self,
        queue: str,
        passive: bool = False,
        durable: bool = False,
        exclusive: bool = False,
        auto_delete: bool = False,
        arguments: dict[str, Any] | None = None,
    ) -> defer.Deferred[Method[spec.Queue.DeclareOk]]:
        """Create a queue, or with `passive` only look at it; '' lets the broker choose the name.

        Fires with Queue.DeclareOk, which has the name and the numbers of messages and consumers.
        From then on '' names this queue in the other methods of this channel.
        """
        return self._call(
            "queue_declare",
            self._on_queue_declared,
            queue=queue,
            passive=passive,
            durable=durable,
            exclusive=exclusive,
            auto_delete=auto_delete,
            arguments=arguments,
        )

    def queue_bind(
        self,
        queue: str,
        exchange: str,
        routing_key: str | None = None,
        arguments: dict[str, Any] | None = None,
    ) -> defer.Deferred[Method[spec.Queue.BindOk]]:
        """Bind a queue to an exchange; a `routing_key` of None is the queue's name.

        Fires with Queue.BindOk. See pika.channel.Channel.queue_bind.
        """
        return self._call(
            "queue_bind",
            queue=queue,
            exchange=exchange,
            routing_key=routing_key,
            arguments=arguments,
        )

    def queue_unbind(
        self,
        queue: str,
        exchange: str | None = None,
        routing_key: str | None = None,
        arguments: dict[str, Any] | None = None,
    ) -> defer.Deferred[Method[spec.Queue.UnbindOk]]:
        """Undo `queue_bind()`. Fires with Queue.UnbindOk."""
        return self._call(
            "queue_unbind",
            queue=queue,
            exchange=exchange,
            routing_key=routing_key,
            arguments=arguments,
        )

    def queue_purge(self, queue: str) -> defer.Deferred[Method[spec.Queue.PurgeOk]]:
        """Drop the messages that wait in a queue. Fires with Queue.PurgeOk and their number."""
        return self._call("queue_purge", queue=queue)

    def queue_delete(
        self, queue: str, if_unused: bool = False, if_empty: bool = False
    ) -> defer.Deferred[Method[spec.Queue.DeleteOk]]:
        """Delete a queue. Fires with Queue.DeleteOk.

        The queue objects of this channel's consumers of it are closed with ConsumerCancelled.
        """
        return self._call(
            "queue_delete",
            lambda method_frame: self._on_queue_deleted(method_frame, queue),
            queue=queue,
            if_unused=if_unused,
            if_empty=if_empty,
        )

    # How the channel works

    def basic_qos(
        self, prefetch_size: int = 0, prefetch_count: int = 0, global_qos: bool = False
    ) -> defer.Deferred[Method[spec.Basic.QosOk]]:
        """Bound what the broker sends ahead of acks: `prefetch_count` messages, 0 for no bound.

        Fires with Basic.QosOk. RabbitMQ knows no `prefetch_size` (in octets): with one above 0 the
        Deferred fails with MethodNotImplemented there, nothing is sent. RabbitMQ takes `global_qos`
        for the whole channel instead of each new consumer.
        """
        return self._call(
            "basic_qos",
            prefetch_size=prefetch_size,
            prefetch_count=prefetch_count,
            global_qos=global_qos,
        )

    def basic_recover(self, requeue: bool = False) -> defer.Deferred[Method[spec.Basic.RecoverOk]]:
        """Ask for all messages that aren't acknowledged to be delivered again.

        Fires with Basic.RecoverOk. RabbitMQ knows only `requeue=True`: otherwise the Deferred fails
        with MethodNotImplemented there, nothing is sent.
        """
        return self._call("basic_recover", self._on_recovered, requeue=requeue)

    def flow(self, active: bool = True) -> defer.Deferred[bool]:
        """Ask the broker to stop or resume deliveries. Fires with its answer, a bool.

        RabbitMQ knows only `active=True`: otherwise the Deferred fails with MethodNotImplemented
        there, nothing is sent. To take fewer messages, use `basic_qos()`.
        """
        return self._call("flow", active=active)

    # Transactions

    def tx_select(self) -> defer.Deferred[Method[spec.Tx.SelectOk]]:
        """Make the channel transactional. Fires with Tx.SelectOk."""
        return self._call("tx_select")

    def tx_commit(self) -> defer.Deferred[Method[spec.Tx.CommitOk]]:
        """Commit the publishes and acks since the last commit. Fires with Tx.CommitOk."""
        return self._call("tx_commit")

    def tx_rollback(self) -> defer.Deferred[Method[spec.Tx.RollbackOk]]:
        """Drop the publishes and acks since the last commit. Fires with Tx.RollbackOk."""
        return self._call("tx_rollback")
