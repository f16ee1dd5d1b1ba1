"""A broker that listens on sockets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet import defer, endpoints, protocol


class ServerFactory(protocol.Factory):
    """Makes the protocols of clients that connect; none refuses them."""

    noisy = False

    def __init__(self, build: Callable[[], protocol.Protocol | None]) -> None:
        self._build = build

    def buildProtocol(self, addr: Any) -> protocol.Protocol | None:
        """See twisted.internet.interfaces.IProtocolFactory."""
        return self._build()


def listen(
    reactor: Any, build: Callable[[], protocol.Protocol | None], endpoint: Any = None
) -> defer.Deferred[Any]:
    """Listen on a server endpoint, or on a free port of 127.0.0.1."""
    if endpoint is None:
        endpoint = endpoints.TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
    listening: defer.Deferred[Any] = endpoint.listen(ServerFactory(build))
    return listening
