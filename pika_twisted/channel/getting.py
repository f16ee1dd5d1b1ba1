"""Fetching single messages: Basic.Get, one at a time."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Any

from pika import exceptions as pika_exceptions
from twisted.internet import defer

from .queue import AutoAcknowledged, ReceivedMessage

LOGGER = logging.getLogger("pika_twisted")


class _Get:
    """A Basic.Get under way; `deferred` is None once its user cancelled it, or has the answer."""

    def __init__(self, queue: str, auto_ack: bool) -> None:
        self.queue = queue
        self.auto_ack = auto_ack
        self.deferred: defer.Deferred[Any] | None = defer.Deferred(self._leave)

    def _leave(self, _deferred: defer.Deferred[Any]) -> None:
        self.deferred = None

    def take(self) -> defer.Deferred[Any] | None:
        """Return the Deferred, to be fired, if it still waits."""
        deferred, self.deferred = self.deferred, None
        return deferred


class Gets:
    """The Basic.Get of one channel, the oldest first: the broker answers in order.

    :param send: sends one: called as pika's `basic_get()`
    :param received: called with the method of what has come, and whether it needs no ack
    :param give_back: called with the delivery tag of what came for a get that was cancelled
    """

    def __init__(
        self,
        send: Callable[..., Any],
        received: Callable[[Any, bool], Any],
        give_back: Callable[[int], Any],
    ) -> None:
        self._send = send
        self._received = received
        self._give_back = give_back
        self._under_way: deque[_Get] = deque()
        # Messages without ack that came for cancelled gets, by queue.
        self._kept: dict[str, deque[ReceivedMessage[Any]]] = {}

    @property
    def under_way(self) -> int:
        """How many the broker has not answered."""
        return len(self._under_way)

    def raise_if_waiting(self) -> None:
        """Raise DuplicateGetOkCallback while one waits for its answer: the latest."""
        if self._under_way and self._under_way[-1].deferred is not None:
            raise pika_exceptions.DuplicateGetOkCallback()

    def get(self, channel: Any, queue: str, name: str, auto_ack: bool) -> defer.Deferred[Any]:
        """Return a Deferred of one message, or of None, from the queue with that `name`.

        :param channel: what the message names as its channel
        :param queue: the queue as it is sent, '' for the one declared last
        """
        if auto_ack and self._kept.get(name):
            return defer.succeed(self._kept[name].popleft())
        get = _Get(name, auto_ack)
        kind: Any = AutoAcknowledged if auto_ack else ReceivedMessage

        def got(_channel: Any, method: Any, properties: Any, body: bytes) -> None:
            self._under_way.remove(get)
            self._received(method, auto_ack)
            self._hand_out(get, kind(channel, method, properties, body))

        # Registered before it is written: a transport may answer within write().
        self._under_way.append(get)
        deferred = get.deferred
        assert deferred is not None
        try:
            self._send(queue=queue, auto_ack=auto_ack, callback=got)
        except Exception:
            self._under_way.remove(get)
            return defer.fail()
        return deferred

    def _hand_out(self, get: _Get, message: ReceivedMessage[Any]) -> None:
        deferred = get.take()
        if deferred is not None:
            deferred.callback(message)
        elif get.auto_ack:
            self._kept.setdefault(get.queue, deque()).append(message)
        else:
            self._give_back(message.method.delivery_tag)

    def on_empty(self) -> None:
        """Answer the oldest with None: Basic.GetEmpty."""
        deferred = self._under_way.popleft().take() if self._under_way else None
        if deferred is not None:
            deferred.callback(None)

    def give_up(self) -> list[defer.Deferred[Any]]:
        """Return the Deferreds that still wait, to be failed: the channel is gone."""
        waiting = [get.take() for get in self._under_way]
        self._under_way.clear()
        kept = sum(map(len, self._kept.values()))
        if kept:
            LOGGER.warning("%d auto_ack messages of cancelled basic_get() calls are lost", kept)
        return [deferred for deferred in waiting if deferred is not None]
