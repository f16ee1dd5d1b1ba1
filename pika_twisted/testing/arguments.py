"""Arguments of queues and exchanges: which are allowed, and which have to be equal."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

from pika_twisted.testing.dialect import Dialect
from pika_twisted.testing.refusal import Refusal, inequivalent

CLASSIC, QUORUM, STREAM = "classic", "quorum", "stream"

#: What only queues of some types take; where it stands with another type the declaration fails.
_TYPES_OF = {
    "x-max-priority": (CLASSIC,),
    "x-queue-mode": (CLASSIC,),
    "x-message-ttl": (CLASSIC, QUORUM),
    "x-expires": (CLASSIC, QUORUM),
    "x-dead-letter-exchange": (CLASSIC, QUORUM),
    "x-dead-letter-routing-key": (CLASSIC, QUORUM),
    "x-max-length": (CLASSIC, QUORUM),
    "x-overflow": (CLASSIC, QUORUM),
    "x-single-active-consumer": (CLASSIC, QUORUM, STREAM),
    "x-delivery-limit": (QUORUM,),
    "x-dead-letter-strategy": (QUORUM,),
    "x-quorum-initial-group-size": (QUORUM,),
    "x-max-in-memory-length": (QUORUM,),
    "x-max-in-memory-bytes": (QUORUM,),
    "x-max-age": (STREAM,),
    "x-stream-max-segment-size-bytes": (STREAM,),
    "x-initial-cluster-size": (STREAM,),
}

#: In the order in which RabbitMQ compares them.
_COMPARED = (
    "x-expires",
    "x-message-ttl",
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-max-length",
    "x-max-length-bytes",
    "x-max-priority",
    "x-overflow",
    "x-queue-mode",
    "x-single-active-consumer",
    "x-queue-type",
    "x-delivery-limit",
    "x-max-age",
    "x-stream-max-segment-size-bytes",
)

_INTEGERS = ("x-expires", "x-message-ttl", "x-max-length", "x-max-length-bytes", "x-max-priority")
_TEXTS = ("x-dead-letter-routing-key", "x-overflow", "x-queue-mode")
_OVERFLOWS = ("drop-head", "reject-publish", "reject-publish-dlx")


def type_name(value: Any) -> str:
    """Return the name that RabbitMQ has for the type of a field."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "signedint" if -(1 << 31) <= value < 1 << 31 else "long"
    if isinstance(value, float):
        return "double"
    if isinstance(value, Decimal):
        return "decimal"
    if isinstance(value, dict):
        return "table"
    if isinstance(value, list):
        return "array"
    if isinstance(value, datetime):
        return "timestamp"
    if value is None:
        return "void"
    return "binary" if isinstance(value, (bytes, bytearray)) else "longstr"


def text_of(value: Any) -> str:
    """Return a value as RabbitMQ writes it into its texts."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def check_equal(
    kind: str, name: str, vhost: str, now: dict[str, Any], asked: dict[str, Any], keys: Any
) -> None:
    """Compare arguments of a declaration with those of what is there.

    :raises Refusal: one of them differs
    """
    for key in keys:
        old, new = now.get(key), asked.get(key)
        if old == new and isinstance(old, bool) == isinstance(new, bool):
            continue
        if old is None or new is None:
            received, current = _described(new), _described(old)
        else:
            received, current = f"'{text_of(new)}'", f"'{text_of(old)}'"
        raise inequivalent(key, name, vhost, kind, received, current)


def _described(value: Any) -> str:
    if value is None:
        return "none"
    return f"the value '{text_of(value)}' of type '{type_name(value)}'"


def check_queue_equal(
    name: str, vhost: str, now: dict[str, Any], asked: dict[str, Any], dialect: Dialect
) -> None:
    """Compare the arguments of a queue's declaration with those of the queue.

    :raises Refusal: one differs of those that queues of its type have
    """
    kind = now.get("x-queue-type", CLASSIC)
    compared = [key for key in _COMPARED if kind in _TYPES_OF.get(key, (kind,))]
    check_equal("queue", name, vhost, _typed(now, dialect), _typed(asked, dialect), compared)


def _typed(arguments: dict[str, Any], dialect: Dialect) -> dict[str, Any]:
    """A queue that names no type is a classic one."""
    if dialect.types_are_explicit:
        return {"x-queue-type": CLASSIC, **arguments}
    if arguments.get("x-queue-type") == CLASSIC:
        return {key: value for key, value in arguments.items() if key != "x-queue-type"}
    return arguments


def check_queue(
    name: str,
    vhost: str,
    arguments: dict[str, Any],
    dialect: Dialect,
    *,
    durable: bool,
    exclusive: bool,
    auto_delete: bool,
) -> str:
    """Check the arguments of a new queue and return its type.

    :raises Refusal: RabbitMQ would declare no such queue
    """
    where = f"for queue '{name}' in vhost '{vhost}'"
    kind = arguments.get("x-queue-type", CLASSIC)
    if kind not in (CLASSIC, QUORUM, STREAM):
        raise Refusal(
            406, f"invalid arg 'x-queue-type' {where}: \"unsupported queue type '{kind}'\""
        )
    for key, value in arguments.items():
        problem = _problem(key, value, arguments, dialect)
        if problem is not None:
            raise Refusal(406, f"invalid arg '{key}' {where}: {problem}")
    exchange = arguments.get("x-dead-letter-exchange")
    if exchange is not None and not isinstance(exchange, str):
        raise Refusal(
            406,
            f"invalid type '{type_name(exchange)}' for arg 'x-dead-letter-exchange' "
            f"in queue '{name}' in vhost '{vhost}'",
        )
    for key in arguments:
        if kind not in _TYPES_OF.get(key, (kind,)):
            raise Refusal(406, f"invalid arg '{key}' {where} of queue type rabbit_{kind}_queue")
    if kind != CLASSIC:
        for wrong, what in (
            (not durable, "non-durable"),
            (auto_delete, "auto-delete"),
            (exclusive, "exclusive-owner"),
        ):
            if wrong:
                raise Refusal(406, f"invalid property '{what}' {where}")
    return str(kind)


def _problem(key: str, value: Any, arguments: dict[str, Any], dialect: Dialect) -> str | None:
    if key in _INTEGERS:
        return _integer_problem(key, value)
    if key in _TEXTS:
        if not isinstance(value, str):
            return f"{{unacceptable_type,{type_name(value)}}}"
        if key == "x-overflow" and value not in _OVERFLOWS:
            return "invalid_overflow"
        if key == "x-queue-mode" and dialect.has_queue_modes and value not in ("default", "lazy"):
            return f"\"unsupported queue mode '{value}'\""
        if key == "x-dead-letter-routing-key" and "x-dead-letter-exchange" not in arguments:
            return "routing_key_but_no_dlx_defined"
    if key == "x-single-active-consumer" and not isinstance(value, bool):
        return f"{{unacceptable_type,{type_name(value)}}}"
    return None


def _integer_problem(key: str, value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int):
        return f'"expected integer, got {type_name(value)}"'
    if value < 0:
        return f"{{value_negative,{value}}}"
    if key == "x-expires" and value == 0:
        return "{value_zero,0}"
    if key == "x-max-priority" and value > 255:
        return f"{{max_value_exceeded,{value}}}"
    return None


def check_exchange(name: str, vhost: str, arguments: dict[str, Any]) -> None:
    """Check the arguments of a new exchange.

    :raises Refusal: RabbitMQ would declare no such exchange
    """
    alternate = arguments.get("alternate-exchange")
    if alternate is not None and not isinstance(alternate, str):
        raise Refusal(
            406,
            f"invalid type '{type_name(alternate)}' for arg 'alternate-exchange' "
            f"in exchange '{name}' in vhost '{vhost}'",
        )
