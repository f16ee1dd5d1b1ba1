"""What a broker refuses: codes, texts, and the ids of the method. And what it takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pika import spec

from tests.support.conformance.world import World, add

CLASSIC, QUORUM, STREAM = ({"x-queue-type": kind} for kind in ("classic", "quorum", "stream"))


def declare(queue: str, durable: bool = True, **more: Any) -> spec.Queue.Declare:
    return spec.Queue.Declare(queue=queue, durable=durable, **more)


def consume(queue: str, tag: str = "t", **more: Any) -> spec.Basic.Consume:
    return spec.Basic.Consume(queue=queue, consumer_tag=tag, **more)


def exchange(name: str, kind: str = "fanout", **more: Any) -> spec.Exchange.Declare:
    return spec.Exchange.Declare(exchange=name, type=kind, **more)


def bind(queue: str, source: str, key: str = "", **more: Any) -> spec.Queue.Bind:
    return spec.Queue.Bind(queue=queue, exchange=source, routing_key=key, **more)


def bind_exchange(target: str, source: str, key: str = "") -> spec.Exchange.Bind:
    return spec.Exchange.Bind(destination=target, source=source, routing_key=key)


#: The answers to methods that are sent one by one, up to a close. `q` makes a name.
STEPS: dict[str, Callable[[Callable[..., str]], list[Any]]] = {
    "queue_declare": lambda q: [declare(q())],
    "queue_declare_twice": lambda q: [declare(q()), declare(q())],
    "queue_declare_passive": lambda q: [declare(q()), declare(q(), passive=True)],
    "queue_declare_passive_missing": lambda q: [declare(q(), passive=True)],
    "queue_declare_passive_no_name": lambda q: [declare("", passive=True)],
    "queue_declare_other_durable": lambda q: [declare(q()), declare(q(), durable=False)],
    "queue_declare_other_auto_delete": lambda q: [declare(q()), declare(q(), auto_delete=True)],
    "queue_declare_other_exclusive": lambda q: [declare(q()), declare(q(), exclusive=True)],
    "queue_declare_more_arguments": lambda q: [
        declare(q()),
        declare(q(), arguments={"x-max-length": 5}),
    ],
    "queue_declare_fewer_arguments": lambda q: [
        declare(q(), arguments={"x-max-length": 5}),
        declare(q()),
    ],
    "queue_declare_other_length": lambda q: [
        declare(q(), arguments={"x-max-length": 5}),
        declare(q(), arguments={"x-max-length": 6}),
    ],
    "queue_declare_long_length": lambda q: [
        declare(q()),
        declare(q(), arguments={"x-max-length": 5_000_000_000}),
    ],
    "queue_declare_other_dead_letter_exchange": lambda q: [
        declare(q(), arguments={"x-dead-letter-exchange": "a"}),
        declare(q(), arguments={"x-dead-letter-exchange": "b"}),
    ],
    "queue_declare_unknown_argument": lambda q: [
        declare(q()),
        declare(q(), arguments={"mine": "x"}),
    ],
    "queue_declare_other_overflow": lambda q: [
        declare(q(), arguments={"x-overflow": "drop-head"}),
        declare(q(), arguments={"x-overflow": "reject-publish"}),
    ],
    "queue_declare_explicit_type": lambda q: [declare(q()), declare(q(), arguments=CLASSIC)],
    "queue_declare_other_type": lambda q: [declare(q()), declare(q(), arguments=QUORUM)],
    "queue_declare_unknown_type": lambda q: [declare(q(), arguments={"x-queue-type": "foo"})],
    "queue_declare_reserved": lambda q: [declare("amq.mine")],
    "quorum_exclusive": lambda q: [declare(q(), exclusive=True, arguments=QUORUM)],
    "quorum_auto_delete": lambda q: [declare(q(), auto_delete=True, arguments=QUORUM)],
    "quorum_priorities": lambda q: [declare(q(), arguments={**QUORUM, "x-max-priority": 5})],
    "stream_ttl": lambda q: [declare(q(), arguments={**STREAM, "x-message-ttl": 5})],
    "classic_delivery_limit": lambda q: [declare(q(), arguments={"x-delivery-limit": 5})],
    "classic_max_age": lambda q: [declare(q(), arguments={"x-max-age": "5D"})],
    "bad_length": lambda q: [declare(q(), arguments={"x-max-length": -1})],
    "bad_length_type": lambda q: [declare(q(), arguments={"x-max-length": "a"})],
    "bad_ttl": lambda q: [declare(q(), arguments={"x-message-ttl": -1})],
    "bad_expires": lambda q: [declare(q(), arguments={"x-expires": 0})],
    "bad_overflow": lambda q: [declare(q(), arguments={"x-overflow": "foo"})],
    "bad_overflow_type": lambda q: [declare(q(), arguments={"x-overflow": 5})],
    "bad_priorities": lambda q: [declare(q(), arguments={"x-max-priority": 256})],
    "bad_dead_letter_exchange": lambda q: [declare(q(), arguments={"x-dead-letter-exchange": 5})],
    "bad_dead_letter_key": lambda q: [
        declare(q(), arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": 5}),
    ],
    "dead_letter_key_alone": lambda q: [
        declare(q(), arguments={"x-dead-letter-routing-key": "a"}),
    ],
    "bad_single_active_consumer": lambda q: [
        declare(q(), arguments={"x-single-active-consumer": 5}),
    ],
    "queue_delete": lambda q: [declare(q()), spec.Queue.Delete(queue=q())],
    "queue_delete_missing": lambda q: [spec.Queue.Delete(queue=q())],
    "queue_delete_last_declared": lambda q: [declare(q()), spec.Queue.Delete(queue="")],
    "queue_delete_used": lambda q: [
        declare(q()),
        consume(q()),
        spec.Queue.Delete(queue=q(), if_unused=True),
    ],
    "queue_delete_used_quorum": lambda q: [
        declare(q(), arguments=QUORUM),
        spec.Queue.Delete(queue=q(), if_unused=True),
    ],
    "queue_purge": lambda q: [declare(q()), spec.Queue.Purge(queue=q())],
    "queue_purge_missing": lambda q: [spec.Queue.Purge(queue=q())],
    "queue_purge_stream": lambda q: [
        declare(q(), arguments=STREAM),
        spec.Queue.Purge(queue=q()),
    ],
    "exchange_declare": lambda q: [exchange(q()), exchange(q(), passive=True)],
    "exchange_declare_passive_missing": lambda q: [exchange(q(), passive=True)],
    "exchange_declare_unknown_type": lambda q: [exchange(q(), "foo")],
    "exchange_declare_reserved": lambda q: [exchange("amq.mine")],
    "exchange_declare_default": lambda q: [exchange("", "direct", durable=True)],
    "exchange_declare_system": lambda q: [exchange("amq.direct", "direct", durable=True)],
    "exchange_declare_system_transient": lambda q: [exchange("amq.direct", "direct")],
    "exchange_declare_other_type": lambda q: [exchange(q()), exchange(q(), "direct")],
    "exchange_declare_other_durable": lambda q: [exchange(q()), exchange(q(), durable=True)],
    "exchange_declare_other_auto_delete": lambda q: [
        exchange(q()),
        exchange(q(), auto_delete=True),
    ],
    "exchange_declare_other_internal": lambda q: [exchange(q()), exchange(q(), internal=True)],
    "exchange_declare_other_alternate": lambda q: [
        exchange(q()),
        exchange(q(), arguments={"alternate-exchange": "b"}),
    ],
    "exchange_declare_bad_alternate": lambda q: [
        exchange(q(), arguments={"alternate-exchange": 5}),
    ],
    "exchange_delete_missing": lambda q: [spec.Exchange.Delete(exchange=q())],
    "exchange_delete_default": lambda q: [spec.Exchange.Delete(exchange="")],
    "exchange_delete_system": lambda q: [spec.Exchange.Delete(exchange="amq.direct")],
    "exchange_delete_used": lambda q: [
        exchange(q("e")),
        declare(q()),
        bind(q(), q("e")),
        spec.Exchange.Delete(exchange=q("e"), if_unused=True),
    ],
    "bind_missing_queue": lambda q: [bind(q(), "amq.direct")],
    "bind_missing_exchange": lambda q: [declare(q()), bind(q(), q("e"))],
    "bind_missing_both": lambda q: [bind(q(), q("e"))],
    "bind_default": lambda q: [declare(q()), bind(q(), "")],
    "bind_last_declared": lambda q: [declare(q()), bind("", "amq.direct")],
    "unbind_missing": lambda q: [
        spec.Queue.Unbind(queue=q(), exchange="amq.direct"),
        declare(q()),
        spec.Queue.Unbind(queue=q(), exchange=q("e")),
        spec.Queue.Unbind(queue=q(), exchange="amq.direct", routing_key="none"),
    ],
    "unbind_default": lambda q: [declare(q()), spec.Queue.Unbind(queue=q(), exchange="")],
    "exchange_bind_missing": lambda q: [
        spec.Exchange.Bind(destination=q("e"), source="amq.direct")
    ],
    "exchange_bind_missing_source": lambda q: [
        spec.Exchange.Bind(destination="amq.direct", source=q("e"))
    ],
    "exchange_bind_default": lambda q: [bind_exchange("amq.direct", "")],
    "bind_bad_match": lambda q: [
        declare(q()),
        bind(q(), "amq.headers", arguments={"x-match": "foo"}),
    ],
    "bind_bad_match_type": lambda q: [
        declare(q()),
        bind(q(), "amq.headers", arguments={"x-match": 5}),
    ],
    "consume_missing": lambda q: [consume(q())],
    "consume_no_name": lambda q: [consume("")],
    "consume_exclusive_second": lambda q: [
        declare(q()),
        consume(q()),
        consume(q(), "u", exclusive=True),
    ],
    "consume_beside_exclusive": lambda q: [
        declare(q()),
        consume(q(), exclusive=True),
        consume(q(), "u"),
    ],
    "consume_same_tag": lambda q: [declare(q()), consume(q()), consume(q())],
    "consume_bad_priority": lambda q: [
        declare(q()),
        consume(q(), arguments={"x-priority": "a"}),
    ],
    "consume_exclusive_single_active": lambda q: [
        declare(q(), arguments={"x-single-active-consumer": True}),
        consume(q(), exclusive=True),
    ],
    "quorum_consume_exclusive": lambda q: [
        declare(q(), arguments=QUORUM),
        consume(q()),
        consume(q(), "u", exclusive=True),
    ],
    "quorum_get_single_active": lambda q: [
        declare(q(), arguments={**QUORUM, "x-single-active-consumer": True}),
        spec.Basic.Get(queue=q()),
    ],
    "get_missing": lambda q: [spec.Basic.Get(queue=q())],
    "get_empty": lambda q: [declare(q()), spec.Basic.Get(queue=q())],
    "get_stream": lambda q: [declare(q(), arguments=STREAM), spec.Basic.Get(queue=q())],
    "cancel_unknown": lambda q: [spec.Basic.Cancel(consumer_tag="none")],
    "ack_unknown": lambda q: [spec.Basic.Ack(5)],
    "ack_unknown_multiple": lambda q: [spec.Basic.Ack(5, True)],
    "ack_zero": lambda q: [spec.Basic.Ack(0)],
    "nack_unknown": lambda q: [spec.Basic.Nack(5)],
    "reject_unknown": lambda q: [spec.Basic.Reject(5)],
    "qos": lambda q: [spec.Basic.Qos(prefetch_count=5)],
    "qos_size": lambda q: [spec.Basic.Qos(prefetch_size=5)],
    "flow": lambda q: [spec.Channel.Flow(True)],
    "flow_stop": lambda q: [spec.Channel.Flow(False)],
    "recover": lambda q: [spec.Basic.Recover(True)],
    "recover_no_requeue": lambda q: [spec.Basic.Recover(False)],
    "confirm_twice": lambda q: [spec.Confirm.Select(), spec.Confirm.Select()],
    "tx_then_confirm": lambda q: [spec.Tx.Select(), spec.Confirm.Select()],
    "confirm_then_tx": lambda q: [spec.Confirm.Select(), spec.Tx.Select()],
    "commit_without_tx": lambda q: [spec.Tx.Commit()],
    "rollback_without_tx": lambda q: [spec.Tx.Rollback()],
    "stream_without_prefetch": lambda q: [declare(q(), arguments=STREAM), consume(q())],
    "stream_no_ack": lambda q: [
        declare(q(), arguments=STREAM),
        spec.Basic.Qos(prefetch_count=5),
        consume(q(), no_ack=True),
    ],
    "stream_bad_offset": lambda q: [
        declare(q(), arguments=STREAM),
        spec.Basic.Qos(prefetch_count=5),
        consume(q(), arguments={"x-stream-offset": "foo"}),
    ],
    "reply_to_declare": lambda q: [declare("amq.rabbitmq.reply-to", passive=True)],
    "reply_to_with_acks": lambda q: [consume("amq.rabbitmq.reply-to")],
    "reply_to_twice": lambda q: [
        consume("amq.rabbitmq.reply-to", no_ack=True),
        consume("amq.rabbitmq.reply-to", "u", no_ack=True),
    ],
    "channel_open_twice": lambda q: [spec.Channel.Open()],
    "method_of_brokers": lambda q: [spec.Queue.DeclareOk("a", 1, 1)],
    "connection_method_on_channel": lambda q: [spec.Connection.Close(200, "", 0, 0)],
}


def _steps(make: Callable[[Callable[..., str]], list[Any]]) -> Callable[[World], Any]:
    def run(world: World) -> Any:
        return world.client().steps(1, *make(world.name))

    return run


for _name, _make in STEPS.items():
    add(_name, _steps(_make))


#: Publishes that close something. The properties of the message, and where it goes.
PUBLISHES: dict[str, dict[str, Any]] = {
    "publish_other_user": {"user_id": "x"},
    "publish_own_user": {"user_id": "guest"},
    "publish_bad_expiration": {"expiration": "x"},
    "publish_negative_expiration": {"expiration": "-5"},
    "publish_expiration_with_unit": {"expiration": "5s"},
    "publish_bad_cc": {"headers": {"CC": "foo"}},
    "publish_bad_bcc": {"headers": {"BCC": 5}},
    "publish_reply_to_without_consumer": {"reply_to": "amq.rabbitmq.reply-to"},
}


def _publish(properties: dict[str, Any]) -> Callable[[World], Any]:
    def run(world: World) -> Any:
        client = world.client()
        client.ask(1, declare(world.name()))
        client.publish(1, "", world.name(), b"x", **properties)
        return client.ask(1, declare(world.name(), passive=True))[:2] + client.rest()

    return run


for _name, _properties in PUBLISHES.items():
    add(_name, _publish(_properties))
