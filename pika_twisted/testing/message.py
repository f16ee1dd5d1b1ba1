"""Messages: as published, and as one queue has them."""

from __future__ import annotations

import re
from typing import Any

from pika_twisted.testing.dialect import Dialect
from pika_twisted.testing.encoding import copied_properties
from pika_twisted.testing.refusal import Refusal


class Message:
    """A message as it was published; all queues it was routed to share it.

    `properties` and `body` are what consumers get. `routing_keys` has the routing key, and those of
    the headers CC and BCC behind it.
    """

    __slots__ = (
        "body",
        "deaths",
        "exchange",
        "expiration",
        "headers",
        "persistent",
        "priority",
        "properties",
        "redelivered",
        "routing_key",
        "routing_keys",
    )

    def __init__(
        self,
        exchange: str,
        routing_key: str,
        properties: Any,
        body: bytes,
        more_keys: tuple[str, ...] = (),
        deaths: list[dict[str, Any]] | None = None,
    ) -> None:
        self.exchange = exchange
        self.routing_key = routing_key
        self.routing_keys = (routing_key, *more_keys)
        self.properties = properties
        self.body = body
        self.headers: dict[str, Any] = properties.headers or {}
        self.persistent = properties.delivery_mode == 2
        self.priority: int | None = properties.priority
        #: Why queues gave it up so far, the last one first: the header x-death.
        self.deaths = deaths or []
        #: Whether its first delivery is called a redelivery.
        self.redelivered = False
        #: Milliseconds, or None.
        self.expiration = read_expiration(properties.expiration)

    def __repr__(self) -> str:
        return f"<Message {self.exchange!r} {self.routing_key!r} {self.body!r}>"


class QueuedMessage:
    """A message in one queue.

    `position` is its place in the order of arrival, `expires_at` seconds of the reactor's clock.
    `redelivered`, `delivery_count` (how often a delivery failed) and `acquired_count` (how often it
    came back) are what the next consumer is told.
    """

    __slots__ = (
        "acquired_count",
        "delivery_count",
        "expires_at",
        "message",
        "position",
        "redelivered",
    )

    def __init__(self, message: Message, position: int, expires_at: float | None) -> None:
        self.message = message
        self.position = position
        self.expires_at = expires_at
        self.redelivered = message.redelivered
        self.delivery_count = 0
        self.acquired_count = 0

    @property
    def body(self) -> bytes:
        """The body."""
        return self.message.body

    @property
    def properties(self) -> Any:
        """The properties as published."""
        return self.message.properties

    @property
    def exchange(self) -> str:
        """The name of the exchange that it was published to."""
        return self.message.exchange

    @property
    def routing_key(self) -> str:
        """The routing key that it was published with."""
        return self.message.routing_key

    def __repr__(self) -> str:
        again = ", redelivered" if self.redelivered else ""
        return f"<QueuedMessage {self.exchange!r} {self.routing_key!r} {self.body!r}{again}>"


def published_message(
    exchange: str, routing_key: str, properties: Any, body: bytes, dialect: Dialect
) -> Message:
    """Return the message of a Basic.Publish: CC and BCC looked at, BCC taken away.

    :raises Refusal: expiration, CC or BCC mean nothing
    """
    headers = properties.headers
    if not headers:
        return Message(exchange, routing_key, properties, body)
    deaths = headers.get("x-death") if dialect.trusts_x_death else None
    if not isinstance(deaths, list):
        deaths = None
    more = (*_keys(headers, "CC"), *_keys(headers, "BCC"))
    if "BCC" in headers:
        kept = {name: value for name, value in headers.items() if name != "BCC"}
        properties = copied_properties(properties, headers=kept)
    return Message(exchange, routing_key, properties, body, more, deaths)


def _keys(headers: dict[str, Any], name: str) -> list[str]:
    value = headers.get(name, [])
    if not isinstance(value, list):
        from pika_twisted.testing.arguments import type_name

        kind = type_name(value)
        raise Refusal(406, f'invalid message: {{unacceptable_type_in_header,"{name}",{kind}}}')
    return [each for each in value if isinstance(each, str)]


def read_expiration(expiration: str | None) -> int | None:
    """Return milliseconds.

    :raises Refusal: it is no number of them
    """
    if expiration is None:
        return None
    match = re.match(r"[+-]?[0-9]+", expiration)
    if match is None:
        raise Refusal(406, f"invalid expiration '{expiration}': no_integer")
    rest = expiration[match.end() :]
    if rest:
        raise Refusal(406, f"invalid expiration '{expiration}': {{leftover_string,\"{rest}\"}}")
    value = int(match.group())
    if value < 0:
        raise Refusal(406, f"invalid expiration '{expiration}': {{value_negative,{value}}}")
    return value
