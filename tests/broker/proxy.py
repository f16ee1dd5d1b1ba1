"""A TCP proxy in front of the broker, run by the test itself: it records, cuts, holds and delays.

With TLS it ends the client's TLS with the node's own certificate and speaks plainly to the broker.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pika import spec
from twisted.internet import defer, endpoints, protocol, ssl

from tests.broker.broker import Broker

FRAME_METHOD = 1


class _Side(protocol.Protocol):
    """One of the two connections of a link; what arrives goes out at the other one."""

    def __init__(self, link: Link, name: str) -> None:
        self.link = link
        self.name = name

    def connectionMade(self) -> None:
        self.link.side_opened(self)

    def dataReceived(self, data: bytes) -> None:
        self.link.side_received(self, data)

    def connectionLost(self, reason: Any = None) -> None:
        self.link.side_lost(self)


class Link:
    """One proxied connection."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.client = _Side(self, "client")
        self.server = _Side(self, "server")
        self.open: set[str] = set()
        self.waiting: dict[str, bytearray] = {"client": bytearray(), "server": bytearray()}
        self.from_client = bytearray()
        self.from_server = bytearray()
        self.client_gone: defer.Deferred[None] = defer.Deferred()
        self.frozen = False

    def other(self, side: _Side) -> _Side:
        return self.server if side is self.client else self.client

    def side_opened(self, side: _Side) -> None:
        self.open.add(side.name)
        self.flush(side)

    def side_received(self, side: _Side, data: bytes) -> None:
        (self.from_client if side is self.client else self.from_server).extend(data)
        target = self.other(side)
        self.waiting[target.name].extend(data)
        self.flush(target)

    def flush(self, side: _Side) -> None:
        """Hand on what is waiting for this side, unless it is frozen or not connected yet."""
        if side.name in self.open and not self.frozen and self.waiting[side.name]:
            side.transport.write(bytes(self.waiting[side.name]))
            self.waiting[side.name].clear()

    def side_lost(self, side: _Side) -> None:
        self.open.discard(side.name)
        if side is self.client:
            self.client_gone.callback(None)
            if not self.proxy.lingers:
                self._hang_up(self.server)
        else:
            self._hang_up(self.client)

    def _open_sides(self) -> list[_Side]:
        return [side for side in (self.client, self.server) if side.name in self.open]

    def _hang_up(self, side: _Side) -> None:
        if side.name in self.open:
            side.transport.loseConnection()

    def cut(self) -> None:
        """Both ends go, with a reset."""
        for side in self._open_sides():
            side.transport.abortConnection()

    def end(self) -> None:
        """Both ends go, in good order as far as TCP is concerned."""
        self._hang_up(self.client)
        self._hang_up(self.server)

    def freeze(self, *, deaf: bool = False) -> None:
        """A black hole: both TCP connections stay, nothing is handed on.

        A deaf one reads nothing either: what is written to it fills the buffers of the kernel.
        """
        self.frozen = True
        if deaf:
            for side in self._open_sides():
                side.transport.pauseProducing()

    def thaw(self) -> None:
        """Hand on what came meanwhile, and everything from now on."""
        self.frozen = False
        for side in self._open_sides():
            side.transport.resumeProducing()
        self.flush(self.client)
        self.flush(self.server)


class Proxy:
    """Listens on the loopback; every connection to it is a Link to the broker.

    :param tls: end the client's TLS here
    :param lingers: the broker is not told of the client's end: RabbitMQ stops a channel at the end
        of TCP without handling what it has read already, and a test may be about what was sent
    :param port: the broker's port, its plain one when None; to its TLS port goes the TLS untouched
    :param link: called with this proxy, makes a Link
    """

    def __init__(
        self,
        reactor: Any,
        broker: Broker,
        *,
        tls: bool = False,
        lingers: bool = False,
        port: int | None = None,
        link: Callable[[Proxy], Link] = Link,
    ) -> None:
        self.reactor = reactor
        self.broker = broker
        self.tls = tls
        self.lingers = lingers
        self.target_port = port or broker.port
        self.make_link = link
        self.links: list[Link] = []
        self._listening: Any = None

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._listening.getHost().port)

    async def start(self) -> Proxy:
        """Listen on a port that is free."""
        factory = protocol.Factory()
        factory.noisy = False
        factory.buildProtocol = self._build  # type: ignore[method-assign]
        if self.tls:
            folder = Path(str(self.broker.folder))
            options = ssl.DefaultOpenSSLContextFactory(
                str(folder / "server.key"), str(folder / "server.pem")
            )
            endpoint: Any = endpoints.SSL4ServerEndpoint(
                self.reactor, 0, options, interface="127.0.0.1"
            )
        else:
            endpoint = endpoints.TCP4ServerEndpoint(self.reactor, 0, interface="127.0.0.1")
        self._listening = await endpoint.listen(factory)
        return self

    def _build(self, address: object) -> protocol.Protocol:
        link = self.make_link(self)
        self.links.append(link)
        target = endpoints.TCP4ClientEndpoint(self.reactor, self.broker.host, self.target_port)
        connecting = endpoints.connectProtocol(target, link.server)
        connecting.addErrback(lambda _: link.cut())
        return link.client

    async def stop(self) -> None:
        """Stop listening and drop what is still connected."""
        for link in self.links:
            link.cut()
        await self._listening.stopListening()


class QuietLink(Link):
    """A link that keeps nothing of what passes."""

    def side_received(self, side: _Side, data: bytes) -> None:
        target = self.other(side)
        self.waiting[target.name].extend(data)
        self.flush(target)


class QuietProxy(Proxy):
    """A proxy that can run for hours."""

    def __init__(self, reactor: Any, broker: Broker) -> None:
        super().__init__(reactor, broker, link=QuietLink)

    def _build(self, address: object) -> protocol.Protocol:
        self.links = [each for each in self.links if each.open]
        return super()._build(address)


def method_counts(stream: bytes) -> dict[type, int]:
    """How often each AMQP method stands in what a client sent; a torn frame at the end is one."""
    counts: dict[type, int] = {}
    position = 8  # after the protocol header
    while position < len(stream):
        kind, _, size = struct.unpack_from(">BHI", stream, position)
        end = position + 7 + size
        if end >= len(stream) or stream[end] != 0xCE:
            raise AssertionError(f"the stream ends inside a frame, at {position} of {len(stream)}")
        if kind == FRAME_METHOD:
            (number,) = struct.unpack_from(">I", stream, position + 7)
            method = spec.methods[number]
            counts[method] = counts.get(method, 0) + 1
        position = end + 1
    return counts
