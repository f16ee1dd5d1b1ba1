"""What a client's bytes go through: a socket to a real broker, or memory to the one for tests."""

from __future__ import annotations

import select
import socket
import time
from typing import Any, Protocol

from twisted.internet import protocol

from pika_twisted.testing import Broker


class Wire(Protocol):
    """One connection, used without a reactor."""

    def write(self, data: bytes) -> None: ...
    def read(self, seconds: float) -> bytes | None: ...
    def close(self) -> None: ...


class SocketWire:
    """A connected TCP socket."""

    def __init__(self, host: str, port: int) -> None:
        self._socket = socket.create_connection((host, port), timeout=10)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def write(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError:
            pass  # read() tells

    def read(self, seconds: float) -> bytes | None:
        """Some bytes, none of them within so many seconds (b""), or the end (None)."""
        if not select.select([self._socket], [], [], seconds)[0]:
            return b""
        try:
            return self._socket.recv(1 << 16) or None
        except OSError:
            return None

    def close(self) -> None:
        self._socket.close()


class MemoryWire(protocol.Protocol):
    """A connection to a `Broker` with a clock, which reading advances."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._read: list[bytes] = []
        self._ended = False
        factory = protocol.Factory.forProtocol(lambda: self)  # type: ignore[arg-type]
        broker.endpoint().connect(factory)
        broker.reactor.advance(0)

    def dataReceived(self, data: bytes) -> None:
        self._read.append(data)

    def connectionLost(self, reason: Any = None) -> None:
        self._ended = True

    def write(self, data: bytes) -> None:
        self.transport.write(data)  # type: ignore[union-attr, call-arg]

    def read(self, seconds: float) -> bytes | None:
        clock = self._broker.reactor
        clock.advance(0)
        end = clock.seconds() + seconds
        while not self._read and not self._ended and clock.seconds() < end:
            due = [each.getTime() for each in clock.getDelayedCalls()]
            clock.advance(max(0.0, min([*due, end]) - clock.seconds()))
        data = b"".join(self._read)
        self._read.clear()
        return None if self._ended and not data else data

    def close(self) -> None:
        self.transport.abortConnection()  # type: ignore[union-attr, attr-defined]
        self._broker.reactor.advance(0)


class RealBroker:
    """A broker somewhere."""

    def __init__(self, host: str, port: int) -> None:
        self._address = host, port

    def wire(self) -> Wire:
        return SocketWire(*self._address)

    @staticmethod
    def wait(seconds: float) -> None:
        time.sleep(seconds)


class MemoryBroker:
    """The broker for tests."""

    def __init__(self, version: str) -> None:
        self.broker = Broker(version=version)
        self.broker.add_vhost("closed")
        limited = self.broker.add_user("limited", "limited-secret")
        limited.allow("/", "^open-.*", "^open-.*", "^open-.*")

    def wire(self) -> Wire:
        return MemoryWire(self.broker)

    def wait(self, seconds: float) -> None:
        self.broker.reactor.pump([seconds / 20] * 20)
