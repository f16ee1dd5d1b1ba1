"""Two transports in memory: what one writes the other receives, in a later turn of the reactor."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet import address, defer, error, interfaces, protocol
from twisted.python.failure import Failure
from zope.interface import implementer

#: Bytes on the way above which a registered producer is paused.
_FULL = 1 << 16

_DONE = "done"
_ABORTED = "aborted"


@implementer(interfaces.ITCPTransport, interfaces.IConsumer, interfaces.IPushProducer)
class MemoryTransport:
    """One end of a connection in memory.

    It behaves as a TCP transport: nothing is received inside `write()`, `loseConnection()` lets
    what was written arrive, `abortConnection()` does not, the other end sees ConnectionDone or
    ConnectionLost, and a paused end receives nothing while its peer's producer is paused.
    """

    bufferSize = 1 << 16  # noqa: N815
    producerState = "producing"  # noqa: N815

    def __init__(self, reactor: Any, latency: Callable[[], float]) -> None:
        self.reactor = reactor
        self.protocol: Any = None
        self.peer: MemoryTransport = None  # type: ignore[assignment]
        self.connected = True
        self.disconnecting = False
        self.producer: Any = None
        self.paused = False
        self._latency = latency
        self._arriving: deque[bytes | str] = deque()
        self._size = 0
        self._call: Any = None
        self._streaming = False
        self._producer_paused = False

    # ITransport

    def write(self, data: bytes) -> None:
        """Send bytes."""
        if not data or not self.connected or self.disconnecting:
            return
        peer = self.peer
        peer._arriving.append(bytes(data))
        peer._size += len(data)
        peer._schedule()
        if peer._size > _FULL and self.producer is not None and self._streaming:
            self._producer_paused = True
            self.producer.pauseProducing()

    def writeSequence(self, data: Any) -> None:
        """Send pieces of bytes."""
        self.write(b"".join(data))

    def loseConnection(self, *_: Any) -> None:
        """Close, after what was written."""
        if self.connected and not self.disconnecting:
            self.disconnecting = True
            self.peer._arriving.append(_DONE)
            self.peer._schedule()
            self._finish_closing()

    def _finish_closing(self) -> None:
        """End once the other side's buffer has all, as a kernel does: no reader is needed."""
        if self.disconnecting and self.peer._size <= _FULL:
            self.reactor.callLater(0, self._lose, error.ConnectionDone())

    loseWriteConnection = loseConnection

    def abortConnection(self) -> None:
        """Close at once; what was written and has not arrived is lost."""
        if not self.connected:
            return
        self.disconnecting = True
        self.paused = False
        peer = self.peer
        peer._arriving.clear()
        peer._size = 0
        peer._arriving.append(_ABORTED)
        peer.paused = False
        peer._schedule()
        self._arriving.clear()
        self.reactor.callLater(0, self._lose, error.ConnectionAborted())

    def getPeer(self) -> Any:
        """Return an address: there is none."""
        return address.IPv4Address("TCP", "127.0.0.1", 5672)

    def getHost(self) -> Any:
        """Return an address: there is none."""
        return address.IPv4Address("TCP", "127.0.0.1", 5672)

    def getTcpNoDelay(self) -> bool:
        """Return True."""
        return True

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Do nothing."""

    def getTcpKeepAlive(self) -> bool:
        """Return False."""
        return False

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Do nothing."""

    # Back-pressure

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """See twisted.internet.interfaces.IConsumer."""
        if self.producer is not None:
            raise RuntimeError("there is a producer already")
        if not self.connected:
            producer.stopProducing()
            return
        self.producer, self._streaming, self._producer_paused = producer, streaming, False
        if not streaming:
            producer.resumeProducing()

    def unregisterProducer(self) -> None:
        """See twisted.internet.interfaces.IConsumer."""
        self.producer = None

    def pauseProducing(self) -> None:
        """Receive nothing until `resumeProducing()`."""
        self.paused = True
        self.producerState = "paused"

    def resumeProducing(self) -> None:
        """Receive again."""
        if self.connected and not self.disconnecting:
            self.paused = False
            self.producerState = "producing"
            if self._arriving:
                self._schedule()

    def stopProducing(self) -> None:
        """Close."""
        self.loseConnection()

    # Receiving

    def _schedule(self) -> None:
        if self._call is None and not self.paused and self.connected:
            self._call = self.reactor.callLater(self._latency(), self._receive)

    def _receive(self) -> None:
        self._call = None
        while self._arriving and not self.paused and self.connected:
            if isinstance(self._arriving[0], str):
                self._receive_end(str(self._arriving.popleft()))
                return
            self.protocol.dataReceived(self._next_read())
        if not self._size:
            self.peer._drained()
        if self.peer.disconnecting:
            self.peer._finish_closing()

    def _next_read(self) -> bytes:
        """Take what one read of a socket takes: at most `bufferSize` bytes."""
        pieces, size = [], 0
        while self._arriving and isinstance(self._arriving[0], bytes):
            piece = self._arriving.popleft()
            assert isinstance(piece, bytes)
            room = self.bufferSize - size
            if len(piece) > room:
                self._arriving.appendleft(piece[room:])
                piece = piece[:room]
            pieces.append(piece)
            size += len(piece)
            if size >= self.bufferSize:
                break
        self._size -= size
        return b"".join(pieces)

    def _drained(self) -> None:
        if (
            self.producer is not None
            and self.connected
            and (self._producer_paused or not self._streaming)
        ):
            self._producer_paused = False
            self.producer.resumeProducing()

    def _receive_end(self, how: str) -> None:
        if how == _ABORTED:
            self._lose(error.ConnectionLost())
            return
        self._lose(error.ConnectionDone())
        self.peer._finish_closing()

    def _lose(self, why: Exception) -> None:
        if not self.connected:
            return
        self.connected = False
        self.disconnecting = True
        producer, self.producer = self.producer, None
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = None
        if producer is not None:
            producer.stopProducing()
        self.protocol.connectionLost(Failure(why))


@implementer(interfaces.IStreamClientEndpoint)
class MemoryEndpoint:
    """A client endpoint whose connections lead to `accept(address)`'s protocols, in memory.

    :param accept: makes the server's protocol; None refuses the connection
    :param name: for texts of errors and logs
    """

    def __init__(
        self,
        reactor: Any,
        accept: Callable[[], protocol.Protocol | None],
        latency: Callable[[], float],
        name: str,
    ) -> None:
        self._reactor = reactor
        self._accept = accept
        self._latency = latency
        self._name = name

    def __repr__(self) -> str:
        return self._name

    def connect(self, protocolFactory: Any) -> defer.Deferred[Any]:  # noqa: N803
        """See twisted.internet.interfaces.IStreamClientEndpoint."""
        connecting: defer.Deferred[Any] = defer.Deferred(lambda _: call.cancel())
        call = self._reactor.callLater(self._latency(), self._connect, connecting, protocolFactory)
        return connecting

    def _connect(self, connecting: defer.Deferred[Any], factory: Any) -> None:
        server = self._accept()
        if server is None:
            connecting.errback(error.ConnectionRefusedError())
            return
        client = factory.buildProtocol(None)
        if client is None:
            connecting.errback(error.ConnectError())
            return
        pair(self._reactor, client, server, self._latency)
        connecting.callback(client)


def pair(
    reactor: Any, client: Any, server: protocol.Protocol, latency: Callable[[], float]
) -> tuple[MemoryTransport, MemoryTransport]:
    """Connect two protocols with each other."""
    ends = MemoryTransport(reactor, latency), MemoryTransport(reactor, latency)
    ends[0].peer, ends[1].peer = ends[1], ends[0]
    for end, instance in zip(ends, (client, server), strict=True):
        end.protocol = instance
    server.makeConnection(ends[1])
    client.makeConnection(ends[0])
    return ends
