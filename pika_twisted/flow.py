"""Waiting until a transport has taken what was written to it."""

from __future__ import annotations

from typing import Any

from twisted.internet import defer, interfaces
from zope.interface import implementer

from ._containers import OrderedSet
from ._reasons import fresh_exception

#: A heartbeat frame: something to write, so that the transport says whether it is full.
_HEARTBEAT = b"\x08\x00\x00\x00\x00\x00\x00\xce"


@implementer(interfaces.IPushProducer)
class WriteDrain:
    """Tells when a transport's write buffer is below its limit (`transport.bufferSize`).

    A transport reports this only to a registered producer, and only when something is written. So
    while somebody waits this object is that producer, and begins with a heartbeat frame, which AMQP
    allows at any time. It does not stay registered: with a producer a TLS transport would not end
    at `loseConnection()`, and a user could not register one.
    """

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._waiters = OrderedSet()
        self._full = False

    def wait(self) -> defer.Deferred[None]:
        """A Deferred that fires when there is room; at once if there is."""
        if not self._full:
            try:
                self._transport.registerProducer(self, True)
            except RuntimeError:  # the user has a producer there, which is told instead of us
                return defer.fail()
            self._transport.write(_HEARTBEAT)
        deferred: defer.Deferred[None] = defer.Deferred(lambda waiter: self._waiters.discard(waiter))
        self._waiters.add(deferred)
        if not self._full:
            self._settle()
        return deferred

    def pauseProducing(self) -> None:
        """The transport is full."""
        self._full = True

    def resumeProducing(self) -> None:
        """The transport has sent everything."""
        if self._full:
            self._settle()

    def stopProducing(self) -> None:
        """The transport is gone; `lost()` says why."""
        self._full = False

    def _settle(self) -> None:
        self._full = False
        self._transport.unregisterProducer()
        waiters, self._waiters = self._waiters, OrderedSet()
        for waiter in waiters:
            waiter.callback(None)

    def lost(self, reason: Any) -> None:
        """Fail whoever waits."""
        waiters, self._waiters = self._waiters, OrderedSet()
        for waiter in waiters:
            waiter.errback(fresh_exception(reason))
