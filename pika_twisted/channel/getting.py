"""Fetching single messages: Basic.Get, one at a time.

The part of `TwistedChannel` that remembers who asked.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Any

from pika import exceptions as pika_exceptions
from pika import spec, validators
from twisted.internet import defer

from pika_twisted._arguments import check_auto_ack
from pika_twisted._reasons import fresh_exception

from .queue import AutoAcknowledged, ReceivedMessage

LOGGER = logging.getLogger("pika_twisted")


class _Get:
    """A Basic.Get under way; `deferred` is None once its user cancelled it."""

    def __init__(self, queue: str, auto_ack: bool) -> None:
        self.queue = queue
        self.auto_ack = auto_ack
        self.deferred: defer.Deferred[Any] | None = None


class Getting:
    """Fetches single messages."""

    _channel: Any
    _closed: BaseException | None
    _on_indirect: Callable[[Any, bool], None]
    _has_received: bool
    _last_declared: str
    _requeue: Callable[[int], None]

    def __init__(self) -> None:
        super().__init__()
        self._basic_get_deferred: defer.Deferred[Any] | None = None
        self._gets: deque[_Get] = deque()
        self._kept: dict[str, deque[ReceivedMessage[spec.Basic.GetOk]]] = {}

    def basic_get(
        self, queue: str, auto_ack: bool = False
    ) -> defer.Deferred[ReceivedMessage[spec.Basic.GetOk] | None]:
        """Fetch one message; `queue` may be '' for the queue declared last on this channel.

        :returns: a Deferred that fires with a `ReceivedMessage` (its method is a Basic.GetOk), or
            with None when the queue is empty. Cancelled, a message that still comes is requeued; an
            auto_ack one is kept for the next auto_ack `basic_get()` of that queue.
        :raises DuplicateGetOkCallback: another `basic_get()` of this channel is waiting
        """
        if self._basic_get_deferred is not None:
            raise pika_exceptions.DuplicateGetOkCallback()
        if self._closed:
            return defer.fail(fresh_exception(self._closed))
        try:
            check_auto_ack("basic_get", auto_ack)
            validators.require_string(queue, "queue")
        except TypeError:
            return defer.fail()
        name = queue or self._last_declared
        if auto_ack and self._kept.get(name):
            return defer.succeed(self._kept[name].popleft())
        get = _Get(name, auto_ack)
        kind: Any = AutoAcknowledged if auto_ack else ReceivedMessage

        def got(_channel: Any, method: Any, properties: Any, body: bytes) -> None:
            self._gets.remove(get)
            self._on_indirect(method, auto_ack)
            self._on_got(get, kind(self, method, properties, body))

        def abandon(_: Any) -> None:
            self._leave_get(get)

        # Registered before it is written: a transport may answer within write().
        self._gets.append(get)
        deferred: defer.Deferred[Any] = defer.Deferred(abandon)
        get.deferred = self._basic_get_deferred = deferred
        try:
            self._channel.basic_get(queue=queue, auto_ack=auto_ack, callback=got)
        except Exception:
            self._gets.remove(get)
            self._leave_get(get)
            return defer.fail()
        self._has_received = True
        return deferred

    def _leave_get(self, get: _Get) -> defer.Deferred[Any] | None:
        """Free the slot of a get that is answered or cancelled; its Deferred if it still waits."""
        deferred, get.deferred = get.deferred, None
        if deferred is not None:
            self._basic_get_deferred = None
        return deferred

    def _on_got(self, get: _Get, message: ReceivedMessage[Any]) -> None:
        deferred = self._leave_get(get)
        if deferred is not None:
            deferred.callback(message)
        elif get.auto_ack:
            self._kept.setdefault(get.queue, deque()).append(message)
        else:
            self._requeue(message.method.delivery_tag)

    def _on_getempty(self, _method_frame: Any) -> None:
        deferred = self._leave_get(self._gets.popleft()) if self._gets else None
        if deferred is not None:
            deferred.callback(None)

    def _give_up_gets(self) -> list[defer.Deferred[Any]]:
        """The channel is gone: the Deferred that still waits, if there is one."""
        deferred, self._basic_get_deferred = self._basic_get_deferred, None
        self._gets.clear()
        kept = sum(map(len, self._kept.values()))
        if kept:
            LOGGER.warning("%d auto_ack messages of cancelled basic_get() calls are lost", kept)
        return [] if deferred is None else [deferred]
