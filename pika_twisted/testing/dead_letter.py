"""Messages that a queue gives up, and the headers that say why."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from pika_twisted.testing.dialect import Dialect
from pika_twisted.testing.encoding import copied_properties
from pika_twisted.testing.message import Message

#: Only a rejection by a consumer may send a message round in a circle.
_REJECTED = "rejected"


def dead_lettered(
    message: Message,
    *,
    queue: str,
    reason: str,
    exchange: str,
    routing_key: str | None,
    time: float,
    dialect: Dialect,
) -> Message:
    """Return what is published to a dead-letter exchange.

    :param queue: the queue that gives the message up
    :param reason: "rejected", "expired", "maxlen" or "delivery_limit"
    :param routing_key: x-dead-letter-routing-key; None keeps those of the message
    :param time: seconds since 1970
    """
    headers = dict(message.headers)
    keys = [message.routing_key, *_more_keys(headers)]
    death = {
        "count": 1,
        "reason": reason,
        "queue": queue,
        "time": datetime.fromtimestamp(int(time), timezone.utc).replace(tzinfo=None),
        "exchange": message.exchange,
        "routing-keys": keys,
    }
    if message.properties.expiration is not None:
        death["original-expiration"] = message.properties.expiration
    deaths = headers["x-death"] = _with_death(message.deaths, death)
    this = {"reason": reason, "queue": queue, "exchange": message.exchange}
    for name, value in this.items():
        if not message.deaths:
            headers[f"x-first-death-{name}"] = value
        if dialect.has_last_death:
            headers[f"x-last-death-{name}"] = value
    if routing_key is not None:
        headers.pop("CC", None)
    properties = copied_properties(message.properties, headers=headers, expiration=None)
    if routing_key is not None:
        return Message(exchange, routing_key, properties, message.body, deaths=deaths)
    more_keys = message.routing_keys[1:]
    return Message(exchange, message.routing_key, properties, message.body, more_keys, deaths)


def _more_keys(headers: dict[str, Any]) -> list[Any]:
    keys = headers.get("CC", [])
    return list(keys) if isinstance(keys, list) else []


def _with_death(deaths: list[dict[str, Any]], death: dict[str, Any]) -> list[dict[str, Any]]:
    for index, known in enumerate(deaths):
        if known.get("queue") == death["queue"] and known.get("reason") == death["reason"]:
            counted = {**known, "count": known["count"] + 1}
            return [counted, *deaths[:index], *deaths[index + 1 :]]
    return [death, *deaths]


def is_circle(message: Message, queue: str) -> bool:
    """Tell whether a dead-lettered message came from this queue without any rejection since."""
    for index, death in enumerate(message.deaths):
        if death.get("queue") == queue:
            return all(each.get("reason") != _REJECTED for each in message.deaths[: index + 1])
    return False
