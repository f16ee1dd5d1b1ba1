"""Waiting until a transport has taken what was written to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet import defer, interfaces
from zope.interface import implementer

from pika_twisted.deferreds.waiters import Waiters

from .sockets import innermost

#: A heartbeat frame: something to write, so that the transport says whether it is full.
_HEARTBEAT = b"\x08\x00\x00\x00\x00\x00\x00\xce"


@implementer(interfaces.IPushProducer)
class WriteDrain:
    """Tells when a transport's write buffer is below its limit (`transport.bufferSize`).

    A transport reports this only to a registered producer, and only when something is written. So
    while anything waits this object is that producer, and begins with a heartbeat frame, which AMQP
    allows at any time. It does not stay registered: with a producer a TLS transport would not end
    at `loseConnection()`, and a user could not register one.
    """

    def __init__(self, transport: Any, call_later: Callable[[float, Any], Any]) -> None:
        self._transport = transport
        # TLS gathers small writes until the turn of the reactor ends: only then it knows.
        self._knows_late = innermost(
            transport
        ) is not transport or interfaces.ISSLTransport.providedBy(transport)
        self._call_later = call_later
        self._waiters = Waiters()
        self._registered = False
        self._full = False
        self._asking: Any = None

    def wait(self) -> defer.Deferred[None]:
        """A Deferred that fires when there is room; at once (over TLS: next turn) if there is."""
        if not self._registered:
            try:
                self._transport.registerProducer(self, True)
            except RuntimeError:  # the user has a producer there, which is told instead of us
                return defer.fail()
            self._registered = True
            if self._knows_late:
                self._asking = self._call_later(0, self._asked)
            # The transport may end, or fire a waiter that calls this again, within write().
            deferred = self._waiters.wait()
            self._transport.write(_HEARTBEAT)
        else:
            deferred = self._waiters.wait()
        self._check_drained()
        return deferred

    def _asked(self) -> None:
        self._asking = None
        self._check_drained()

    def pauseProducing(self) -> None:
        """The transport is full."""
        self._full = True

    def resumeProducing(self) -> None:
        """The transport has sent everything."""
        self._full = False
        self._check_drained()

    def stopProducing(self) -> None:
        """The transport is gone; `lost()` says why."""

    def _check_drained(self) -> None:
        if self._full or self._asking is not None or not self._registered:
            return
        self._registered = False
        self._transport.unregisterProducer()
        self._waiters.fire()

    def lost(self, reason: Any) -> None:
        """Fail every waiter."""
        asking, self._asking = self._asking, None
        if asking is not None:
            asking.cancel()
        self._waiters.fail(reason)
