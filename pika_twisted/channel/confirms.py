"""Publisher confirms: which publish it is that a Basic.Ack, Nack or Return speaks of.

An object of its own without I/O: the channel tells it what it writes and what the broker answers,
and hands out the Deferreds it makes.

The broker numbers publishes from Confirm.Select on, 1 for the first, and answers in order: every
publish from before Confirm.Select is answered for good when Confirm.SelectOk comes, and the return
of an unroutable publish comes before its confirm.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from pika.exceptions import NackError, UnroutableError
from pika.spec import Basic, BasicProperties
from twisted.internet import defer

from pika_twisted._reasons import fresh_exception
from pika_twisted.deferreds.lazy import fire, unconfirmed

LOGGER = logging.getLogger("pika_twisted")

#: A body up to this size is part of the key that returns are looked up by; of a longer one only its
#: length and its ends are (hashing 16 MiB takes longer than sending it), and bodies are compared.
_KEYED_BODY = 512

#: Properties none of which is set: flags alone.
_NO_PROPERTIES = bytes(2)

#: Exchange, routing key and body.
_Key = tuple[Any, Any, Any]

_Ack = Basic.Ack
_Nack = Basic.Nack


def _nothing() -> None:
    """Default no-op callback."""


class PublisherConfirms:
    """Publish number -> Deferred, from Confirm.Select until the channel closes."""

    def __init__(self) -> None:
        #: Publishes are numbered: Confirm.Select was written.
        self.enabled = False
        self._selected = False
        self._last = 0
        # Every number below it is settled: a multiple confirm starts here, so each number is looked
        # at once by all multiple confirms together, however many are outstanding.
        self._lowest = 1
        self._deliveries: dict[int, defer.Deferred[Any]] = {}
        # What returns are matched by. Plain publishes are never returned by RabbitMQ.
        self._plain: dict[int, _Key] = {}
        # With their encoded properties.
        self._mandatory: dict[int, tuple[_Key, bytes]] = {}
        self._long_bodies: dict[int, bytes] = {}
        # Most keys have one number, and a deque of one takes 0.7 KiB.
        self._by_key: dict[tuple[_Key, bytes], int | deque[int]] = {}
        self._returned: dict[int, Any] = {}
        self._over = False
        #: Called when one more publish begins to wait.
        self.awaited: Callable[[], Any] = _nothing
        #: The Basic.Ack and Basic.Nack that `wake()` is to look at.
        self.arrived: list[Any] = []

    def __repr__(self) -> str:
        state = "enabled" if self.enabled else "off"
        return f"<{type(self).__name__} {state}, {len(self._deliveries)} outstanding>"

    @property
    def deliveries(self) -> dict[int, defer.Deferred[Any]]:
        """Outstanding publishes, oldest first: number -> Deferred. To look at, not to change."""
        return self._deliveries

    @property
    def outstanding(self) -> int:
        """How many publishes the broker has not confirmed yet (cancelled ones count)."""
        return len(self._deliveries)

    @property
    def last_number(self) -> int:
        """The number of the latest publish; 0 before the first."""
        return self._last

    def select_sent(self) -> None:
        """Confirm.Select was written: the next publish is number 1. Done again: nothing."""
        self.enabled = True

    def select_ok(self) -> None:
        """Confirm.SelectOk came: from here on returns belong to numbered publishes."""
        self.enabled = True
        self._selected = True

    def expect(
        self,
        exchange: Any,
        routing_key: Any,
        body: Any,
        mandatory: bool = False,
        properties: bytes | None = None,
    ) -> defer.Deferred[Any]:
        """Number one more publish and return the Deferred of its confirm.

        `properties`, of a mandatory one, are the encoded ones.

        It fires with the Basic.Ack, or fails with UnroutableError or NackError (whose `messages`
        hold what the broker returned), or with the reason given to `fail_all`. Cancelled, it keeps
        its number, and the confirm fires nothing.
        """
        if type(body) is not bytes:
            body = _as_bytes(body)
        key: Any = (exchange, routing_key, body)
        if type(exchange) is not str or type(routing_key) is not str or len(body) > _KEYED_BODY:
            key = _key(exchange, routing_key, body)
        number = self._last = self._last + 1
        if not mandatory:
            self._plain[number] = key
        else:
            full = self._mandatory[number] = (key, properties or _NO_PROPERTIES)
            if len(body) > _KEYED_BODY:
                self._long_bodies[number] = body
            known = self._by_key.setdefault(full, number)
            if isinstance(known, deque):
                known.append(number)
            elif known != number:
                self._by_key[full] = deque((known, number))
        deferred = self._deliveries[number] = unconfirmed()
        self.awaited()
        return deferred

    def wake(self) -> None:
        """Settle what has `arrived`."""
        arrived = self.arrived[:]
        self.arrived.clear()
        for method in arrived:
            if not self._over:  # else a callback has ended the channel
                self.confirm(method)

    def confirm(self, method: Basic.Ack | Basic.Nack) -> None:
        """Settle what a Basic.Ack or Basic.Nack of the broker confirms, oldest first.

        Tag 0 with `multiple` means all outstanding publishes (spec 1.8.3.13). A tag that is not
        outstanding settles nothing by itself, with `multiple` all up to it; both are logged.
        """
        tag = method.delivery_tag
        settled: Iterable[tuple[defer.Deferred[Any], Any]]
        if method.multiple:
            settled = self._settle_up_to(tag)
        else:
            deferred = self._deliveries.pop(tag, None)
            if deferred is None:
                LOGGER.error("Confirm for publish %s, which is not outstanding: %r", tag, method)
                return
            if type(method) is _Ack and self._plain.pop(tag, None) is not None:
                if not fire(deferred, method):
                    _conclude(deferred, method, False, None)
                return
            settled = ((deferred, self._forget(tag)),)
        nacked = isinstance(method, _Nack)
        if nacked:
            LOGGER.warning("The broker refused publishes: %r", method)
        for deferred, message in settled:
            if nacked or message is not None or not fire(deferred, method):
                _conclude(deferred, method, nacked, message)

    def returned(self, message: Any) -> bool:
        """Note that the broker returned a ReceivedMessage; False when no publish matches.

        It is the oldest outstanding mandatory one with that exchange, routing key, body and
        properties, for RabbitMQ returns in publish order. Where none has these properties (it
        strips the header BCC, and another broker may do more), it is the oldest without them.
        """
        if not self._selected:
            return False
        method, body = message.method, _as_bytes(message.body)
        key = _key(method.exchange, method.routing_key, body)
        number = self._take_mandatory(key, body, message.properties)
        if number is None:
            number = next((n for n, plain in self._plain.items() if plain == key), None)
            if number is None:
                return False
            del self._plain[number]
        self._returned[number] = message
        return True

    def fail_all(self, reason: object) -> None:
        """The channel is gone: fail what is outstanding, oldest first, each with a fresh reason."""
        self._over = True
        deliveries, self._deliveries = self._deliveries, {}
        self._plain, self._mandatory, self._by_key, self._returned = {}, {}, {}, {}
        self._long_bodies = {}
        self._lowest = self._last + 1
        for deferred in deliveries.values():
            try:
                deferred.errback(fresh_exception(reason))
            except defer.AlreadyCalledError:
                _already_called(deferred)

    def _settle_up_to(self, tag: int) -> Iterable[tuple[defer.Deferred[Any], Any]]:
        """Remove everything up to `tag` from the books; what is to be fired."""
        last = self._last
        if tag == 0:
            tag = last
        elif tag > last or tag not in self._deliveries:
            LOGGER.error("Confirm up to publish %s, which is not outstanding (last: %s)", tag, last)
            tag = min(tag, last)
        settled = []
        numbers: Sequence[int] = range(self._lowest, tag + 1)
        if len(numbers) > 2 * len(self._deliveries) + 1_000:
            # Most of them were confirmed one by one: after a day of that the range has 10**8.
            numbers = [number for number in self._deliveries if number <= tag]
        for number in numbers:
            deferred = self._deliveries.pop(number, None)
            if deferred is not None:
                settled.append((deferred, self._forget(number)))
        self._lowest = max(self._lowest, tag + 1)
        return settled

    def _forget(self, number: int) -> Any:
        """Drop what returns of a publish are matched by; gives what was returned of it, or None."""
        if self._plain.pop(number, None) is not None:
            return None
        key = self._mandatory.pop(number, None)
        if key is not None:
            self._long_bodies.pop(number, None)
            self._prune(key)
            return None
        return self._returned.pop(number, None)

    def _prune(self, key: tuple[_Key, bytes]) -> None:
        """Drop settled numbers from the front of a key's queue (confirms come mostly in order)."""
        numbers, mandatory = self._by_key[key], self._mandatory
        if not isinstance(numbers, deque):
            del self._by_key[key]
            return
        while numbers and numbers[0] not in mandatory:
            numbers.popleft()
        if not numbers:
            del self._by_key[key]
        elif len(numbers) > 2 * len(mandatory) + 16:
            # The oldest waits for ever while others are confirmed behind it.
            self._by_key[key] = deque(n for n in numbers if n in mandatory)

    def _take_mandatory(self, key: _Key, body: bytes, properties: Any) -> int | None:
        """The mandatory publish that came back, or None; it can't come back again."""
        raw = getattr(properties, "raw", None) or _NO_PROPERTIES
        numbers = self._by_key.get((key, raw), ())
        number = next(self._with_body((numbers,) if isinstance(numbers, int) else numbers, body), 0)
        if not number:
            number = self._similar(key, body, raw)
        if not number:
            return None
        full = self._mandatory.pop(number)
        self._long_bodies.pop(number, None)
        self._prune(full)
        return number

    def _with_body(self, numbers: Iterable[int], body: bytes) -> Iterator[int]:
        for number in numbers:
            if number in self._mandatory and self._long_bodies.get(number, body) == body:
                yield number

    def _similar(self, key: _Key, body: bytes, raw: bytes) -> int:
        """The oldest with properties that say the same, else the oldest of that key; 0: none."""
        same = [number for number, full in self._mandatory.items() if full[0] == key]
        candidates = list(self._with_body(same, body))
        if len(candidates) > 1:
            wanted = _without_bcc(raw)
            known: dict[bytes, bool] = {}
            for number in candidates:
                octets = self._mandatory[number][1]
                if octets not in known:
                    known[octets] = _without_bcc(octets) == wanted
                if known[octets]:
                    return number
        return candidates[0] if candidates else 0


def _as_bytes(body: Any) -> bytes:
    """A body as the wire has it (bytes are not copied)."""
    return body.encode("utf-8") if isinstance(body, str) else bytes(body)


def _without_bcc(octets: bytes) -> Any:
    """What encoded properties say, without the header that RabbitMQ strips."""
    try:
        fields = vars(BasicProperties().decode(octets))
    except Exception:  # pika refuses some that can be sent, timestamps beyond year 9999 say
        return octets
    headers = fields["headers"] or {}
    fields["headers"] = {key: value for key, value in headers.items() if key != "BCC"}
    return fields


def _as_text(name: Any) -> Any:
    """A short string as it comes back in a Basic.Return: text, or bytes that are not UTF-8."""
    try:
        return bytes(name).decode("utf-8")
    except (TypeError, UnicodeDecodeError):
        return name


def _key(exchange: Any, routing_key: Any, body: bytes) -> _Key:
    """What a publish and its return are looked up by."""
    if type(exchange) is not str or type(routing_key) is not str:
        exchange, routing_key = _as_text(exchange), _as_text(routing_key)
    if len(body) > _KEYED_BODY:
        return (exchange, routing_key, (len(body), body[:64], body[-64:]))
    return (exchange, routing_key, body)


def _conclude(deferred: defer.Deferred[Any], method: Any, nacked: bool, message: Any) -> None:
    """Tell what became of a publish."""
    try:
        if nacked:
            deferred.errback(NackError([] if message is None else [message]))
        elif message is not None:
            deferred.errback(UnroutableError([message]))
        else:
            deferred.callback(method)
    except defer.AlreadyCalledError:
        _already_called(deferred)


def _already_called(deferred: defer.Deferred[Any]) -> None:
    LOGGER.error("%r of a publish was fired by a user", deferred)
