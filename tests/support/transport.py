# ruff: noqa: N802  (the names of Twisted's interfaces)
"""A transport double that behaves like a socket whose other end is the test."""

from __future__ import annotations

from typing import Any

from twisted.internet import address, error, interfaces, task
from twisted.python.failure import Failure
from zope.interface import directlyProvides, implementer


@implementer(interfaces.ITCPTransport, interfaces.IConsumer)
class FakeTransport:
    """Records what is written and how it is closed.

    As on a real socket `connectionLost` comes in a later turn (`finish`), never inside
    `loseConnection`. What is written after `loseConnection` in the same turn still leaves with TCP
    and is lost with TLS. While `stuck` is set the send buffer never empties, so only
    `abortConnection` ends the connection, as with a peer that does not read any more.
    """

    def __init__(self, reactor: Any, tls: bool = False) -> None:
        if tls:
            directlyProvides(self, interfaces.ISSLTransport)
        self.tls = tls
        self.reactor = reactor
        self.protocol: Any = None
        self.writes: list[bytes] = []
        self.late_writes: list[bytes] = []
        self.connected = 1
        self.disconnecting = False
        self.aborted = False
        self.stuck = False
        self.full = False
        self.producer: Any = None
        self.streamingProducer = False
        self.producerPaused = False
        self.producerState = "producing"
        self.bufferSize = 2**16

    # What the client calls.

    def write(self, data: bytes) -> None:
        assert isinstance(data, bytes), f"{type(data).__name__} written to the transport"
        if not self.connected or self.aborted or (self.disconnecting and self.tls):
            self.late_writes.append(data)
        else:
            self.writes.append(data)
            # As Twisted's own transports: only a write tells the producer that the buffer is full.
            if self.tls:
                # TLS gathers small writes until the end of the turn, and learns it then.
                self.reactor.callLater(0, self._tell_producer)
            else:
                self._tell_producer()

    def _tell_producer(self) -> None:
        if self.full and self.producer is not None and self.streamingProducer:
            self.producerPaused = True
            self.producer.pauseProducing()

    def writeSequence(self, data: Any) -> None:
        self.write(b"".join(data))

    def loseConnection(self, *_: Any) -> None:
        self.disconnecting = True

    def abortConnection(self) -> None:
        self.disconnecting = True
        self.aborted = True

    def loseWriteConnection(self) -> None:
        self.disconnecting = True

    def getPeer(self) -> Any:
        return address.IPv4Address("TCP", "192.0.2.1", 5672)

    def getHost(self) -> Any:
        return address.IPv4Address("TCP", "192.0.2.2", 40000)

    def getTcpNoDelay(self) -> bool:
        return True

    def setTcpNoDelay(self, enabled: bool) -> None:
        pass

    def getTcpKeepAlive(self) -> bool:
        return False

    def setTcpKeepAlive(self, enabled: bool) -> None:
        pass

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        if self.producer is not None:
            raise RuntimeError("there is a producer already")
        if not self.connected:
            producer.stopProducing()
            return
        self.producer, self.streamingProducer = producer, streaming
        self.producerPaused = False

    def unregisterProducer(self) -> None:
        self.producer = None

    def pauseProducing(self) -> None:
        self.producerState = "paused"

    def resumeProducing(self) -> None:
        if self.connected and not self.disconnecting:
            self.producerState = "producing"

    def stopProducing(self) -> None:
        self.loseConnection()

    # What the test calls.

    def fill(self) -> None:
        """The send buffer is above its limit from now on."""
        self.full = True

    def drain(self) -> None:
        """The send buffer is empty again."""
        self.full = False
        if self.producer is not None and self.producerPaused:
            self.producerPaused = False
            self.producer.resumeProducing()

    def finish(self) -> None:
        """Deliver the `connectionLost` that a close asked for, if one is due."""
        if not self.connected or not self.disconnecting:
            return
        if self.aborted:
            self.lose(error.ConnectionAborted())
        elif not self.stuck:
            self.lose(error.ConnectionDone("Connection was closed cleanly."))

    def lose(self, reason: Exception) -> None:
        """The socket is gone, whoever closed it."""
        if self.connected:
            self.connected = 0
            self.disconnecting = True
            self.protocol.connectionLost(Failure(reason))


@implementer(interfaces.IReactorFDSet)
class FdClock(task.Clock):
    """A clock that also knows which sockets are read from, as a real reactor does."""

    def __init__(self) -> None:
        super().__init__()
        self._readers: list[Any] = []

    def addReader(self, reader: Any) -> None:
        if reader not in self._readers:
            self._readers.append(reader)

    def removeReader(self, reader: Any) -> None:
        if reader in self._readers:
            self._readers.remove(reader)

    def addWriter(self, writer: Any) -> None:
        pass

    def removeWriter(self, writer: Any) -> None:
        pass

    def removeAll(self) -> list[Any]:
        removed, self._readers = self._readers, []
        return removed

    def getReaders(self) -> list[Any]:
        return list(self._readers)

    def getWriters(self) -> list[Any]:
        return []


class FakeSocket(FakeTransport):
    """A transport that tells nobody it is paused: only the reactor knows, as with a real socket."""

    def __init__(self, reactor: FdClock, tls: bool = False) -> None:
        super().__init__(reactor, tls)
        del self.producerState
        reactor.addReader(self)

    def fileno(self) -> int:
        return 3

    def pauseProducing(self) -> None:
        self.reactor.removeReader(self)

    def resumeProducing(self) -> None:
        if self.connected and not self.disconnecting:
            self.reactor.addReader(self)

    def loseConnection(self, *_: Any) -> None:
        super().loseConnection()
        self.reactor.removeReader(self)
