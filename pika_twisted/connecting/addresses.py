"""The addresses of a host name: where one has no broker that works, the next is tried.

Twisted's `HostnameEndpoint` takes the first that accepts TCP. Behind that may be a proxy without a
broker, or a node that hangs.
"""

from __future__ import annotations

from typing import Any

from twisted.internet import defer, endpoints, interfaces
from zope.interface import implementer


@implementer(interfaces.IStreamClientEndpoint)
class HostAddresses:
    """An endpoint for a host name, which leaves out the addresses in `failed`.

    :param timeout: seconds for the TCP connection to one address
    """

    def __init__(self, reactor: Any, host: str, port: int, timeout: float) -> None:
        #: The addresses at which connections have failed, as `IAddress.host`.
        self.failed: set[str] = set()
        #: All that the name had when it was looked up last.
        self.found: set[str] = set()
        if interfaces.IReactorPluggableNameResolver.providedBy(reactor):
            reactor = _FilteringReactor(reactor, self)
        self._endpoint = endpoints.HostnameEndpoint(reactor, host, port, timeout=timeout)

    @property
    def has_more(self) -> bool:
        """Whether there is an address at which no connection has failed."""
        return bool(self.found - self.failed)

    def connect(self, factory: Any) -> defer.Deferred[Any]:
        """See `IStreamClientEndpoint`."""
        connecting: defer.Deferred[Any] = self._endpoint.connect(factory)
        return connecting


@implementer(interfaces.IReactorPluggableNameResolver, interfaces.IHostnameResolver)
class _FilteringReactor:
    """A reactor that resolves a name without the addresses that failed."""

    def __init__(self, reactor: Any, addresses: HostAddresses) -> None:
        self._reactor = reactor
        self._addresses = addresses

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    @property
    def nameResolver(self) -> Any:
        return self

    def resolveHostName(self, receiver: Any, *args: Any, **named: Any) -> Any:
        """See `IHostnameResolver`."""
        filtering = _Receiver(receiver, self._addresses)
        return self._reactor.nameResolver.resolveHostName(filtering, *args, **named)


@implementer(interfaces.IResolutionReceiver)
class _Receiver:
    def __init__(self, receiver: Any, addresses: HostAddresses) -> None:
        self._receiver = receiver
        self._addresses = addresses
        addresses.found.clear()

    def resolutionBegan(self, resolution: Any) -> None:
        self._receiver.resolutionBegan(resolution)

    def addressResolved(self, address: Any) -> None:
        self._addresses.found.add(address.host)
        if address.host not in self._addresses.failed:
            self._receiver.addressResolved(address)

    def resolutionComplete(self) -> None:
        self._receiver.resolutionComplete()
