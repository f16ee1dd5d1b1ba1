"""Exchanges and what is bound to them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from pika_twisted.testing.arguments import type_name
from pika_twisted.testing.message import Message
from pika_twisted.testing.refusal import Refusal

TYPES = ("direct", "fanout", "headers", "topic")
_MATCHES = ("all", "any", "all-with-x", "any-with-x")


class Target(NamedTuple):
    """What a binding leads to: a queue, or another exchange."""

    name: str
    is_exchange: bool


class Binding(NamedTuple):
    """One binding of an exchange."""

    target: Target
    routing_key: str
    arguments: dict[str, Any]

    @property
    def key(self) -> tuple[Target, str, str]:
        """What tells it from others: two of the same are one."""
        return self.target, self.routing_key, repr(sorted(self.arguments.items()))


class Exchange:
    """An exchange; `published_in` counts the messages that came to it."""

    def __init__(
        self,
        name: str,
        kind: str,
        *,
        durable: bool = False,
        auto_delete: bool = False,
        internal: bool = False,
        arguments: dict[str, Any] | None = None,
    ) -> None:
        self.name = name
        self.type = kind
        self.durable = durable
        self.auto_delete = auto_delete
        self.internal = internal
        self.arguments = arguments or {}
        self.alternate: str | None = self.arguments.get("alternate-exchange")
        self._bindings: dict[tuple[Target, str, str], Binding] = {}
        #: Where keys have led to so far; bindings that come and go end it.
        self._routes: dict[str, list[Target]] = {}

    def __repr__(self) -> str:
        return f"<Exchange {self.name!r} {self.type}>"

    @property
    def bindings(self) -> list[Binding]:
        """The bindings from this exchange, oldest first."""
        return list(self._bindings.values())

    def bind(self, binding: Binding) -> None:
        """Add a binding; the same once more changes nothing.

        :raises Refusal: x-match of a headers exchange means nothing
        """
        if self.type == "headers":
            check_match(binding.arguments)
        self._bindings.setdefault(binding.key, binding)
        self._routes.clear()

    def unbind(self, binding: Binding) -> bool:
        """Remove a binding; return whether it was there."""
        self._routes.clear()
        return self._bindings.pop(binding.key, None) is not None

    def forget(self, target: Target) -> bool:
        """Remove all bindings to something that is gone; return whether there were any."""
        gone = [key for key in self._bindings if key[0] == target]
        for key in gone:
            del self._bindings[key]
        self._routes.clear()
        return bool(gone)

    def route(self, message: Message) -> Iterable[Target]:
        """Return where the bindings lead a message to; the same may come more than once."""
        if self.type == "headers":
            return [
                binding.target
                for binding in self._bindings.values()
                if matches_headers(binding.arguments, message.headers)
            ]
        if len(message.routing_keys) == 1:
            return self._route_key(message.routing_key)
        return [target for key in message.routing_keys for target in self._route_key(key)]

    def _route_key(self, key: str) -> list[Target]:
        found = self._routes.get(key)
        if found is None:
            found = self._routes[key] = [
                binding.target
                for binding in self._bindings.values()
                if self.type == "fanout"
                or (self.type == "direct" and binding.routing_key == key)
                or (self.type == "topic" and matches_topic(binding.routing_key, key))
            ]
        return found


def matches_topic(pattern: str, key: str) -> bool:
    """Tell whether a routing key matches a pattern: `*` is one word, `#` any number of them."""
    wanted, words = _words(pattern), _words(key)
    if "#" in wanted:
        return _matches_any_number(wanted, words)
    return len(words) == len(wanted) and all(
        want in ("*", word) for want, word in zip(wanted, words, strict=True)
    )


def _words(key: str) -> list[str]:
    return key.split(".") if key else []


def _matches_any_number(pattern: list[str], words: list[str]) -> bool:
    reached = {0}
    for want in pattern:
        if want == "#":
            reached = set(range(min(reached), len(words) + 1))
        else:
            reached = {
                place + 1 for place in reached if place < len(words) and want in ("*", words[place])
            }
        if not reached:
            return False
    return len(words) in reached


def check_match(arguments: dict[str, Any]) -> None:
    """Check x-match of a binding to a headers exchange.

    :raises Refusal: it is none of RabbitMQ's
    """
    match = arguments.get("x-match", "all")
    if not isinstance(match, str):
        raise Refusal(
            406,
            f"Invalid x-match field type {type_name(match)} (value {match}); expected longstr",
        )
    if match not in _MATCHES:
        raise Refusal(
            406,
            f'Invalid x-match field value <<"{match}">>; '
            "expected all, any, all-with-x, or any-with-x",
        )


def matches_headers(arguments: dict[str, Any], headers: dict[str, Any]) -> bool:
    """Tell whether a message's headers match the arguments of a binding."""
    match = arguments.get("x-match", "all")
    with_x = match.endswith("-with-x")
    wanted = (
        name in headers and (value is None or headers[name] == value)
        for name, value in arguments.items()
        if name != "x-match" and (with_x or not re.match("x-", name))
    )
    return any(wanted) if match.startswith("any") else all(wanted)
