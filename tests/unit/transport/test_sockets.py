"""How the socket below a connection is set."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet import tcp, unix
from twisted.internet.protocol import Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory

import pika_twisted
from pika_twisted.transport import sockets
from tests.support.session import Session

KEEP_INTERVAL = {"TCP_KEEPINTVL": 60}  # macOS has no TCP_KEEPIDLE


def connection_of(end: socket.socket) -> Any:
    """Twisted's transport of a socket that is connected already."""
    end.setblocking(False)
    kind: Any = tcp.Connection if end.family == socket.AF_INET else unix.Server
    connection = kind.__new__(kind)
    tcp.Connection.__init__(connection, end, Protocol(), MemoryReactorClock())  # type: ignore[no-untyped-call]
    connection.connected = True
    return connection


@pytest.fixture
def transport() -> Iterator[Any]:
    """Twisted's transport over real TCP."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as end,
        server.accept()[0],
    ):
        yield connection_of(end)


A_THOUSAND_READS = """
import resource, socket
from pika_twisted.transport import sockets

class Transport:
    bufferSize = 65536

def page_faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

transport = Transport()
sockets.tune(transport, 256 * 1024)
here, there = socket.socketpair()
before = page_faults()
for _ in range(1000):
    there.send(bytes(100))
    here.recv(transport.bufferSize)
print(page_faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="about its malloc")
@pytest.mark.skipif("asan" in os.environ.get("LD_PRELOAD", ""), reason="another malloc")
def test_a_read_needs_no_new_pages() -> None:
    """In a new process: what others have freed decides how glibc allocates."""
    command = [sys.executable, "-c", A_THOUSAND_READS]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert int(done.stdout) < 500


class Layer:
    """As TLS of older Twisteds: it passes nothing on."""

    def __init__(self, transport: Any) -> None:
        self.transport = transport


class TCPLayer(Layer):
    """As TLS of newer ones: it knows TCP_NODELAY, and has no socket."""

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.transport.setTcpNoDelay(enabled)


def wrapped(transport: Any) -> Any:
    """A layer of Twisted's own, as TLS is one."""
    wrapper = ProtocolWrapper(WrappingFactory(None), Protocol())  # type: ignore[arg-type]
    wrapper.transport = transport
    return wrapper


@pytest.mark.parametrize("layer", [Layer, TCPLayer, wrapped, lambda transport: transport])
def test_small_frames_do_not_wait_for_tcp(transport: Any, layer: Any) -> None:
    """Nagle's algorithm holds them until the peer acknowledges, which that puts off for 40 ms."""
    assert not transport.getTcpNoDelay()
    sockets.tune(layer(transport), 0)
    assert transport.getTcpNoDelay()


@pytest.mark.parametrize("layer", [wrapped, lambda transport: transport])
def test_a_turn_of_the_reactor_can_write_as_much_as_it_publishes(
    transport: Any, layer: Any
) -> None:
    protocol = pika_twisted.TwistedProtocolConnection()
    protocol.makeConnection(layer(transport))
    assert transport.SEND_LIMIT == sockets.SEND_LIMIT > tcp.Connection.SEND_LIMIT
    transport.write(b"*" * sockets.SEND_LIMIT)
    sent: list[int] = []
    transport.socket = Counting(sent)
    transport.doWrite()
    assert sent == [sockets.SEND_LIMIT]
    protocol.ready.addErrback(lambda _: None)
    protocol.connectionLost()


class Counting:
    """A socket that takes everything."""

    def __init__(self, sent: list[int]) -> None:
        self.sent = sent

    def send(self, data: Any) -> int:
        self.sent.append(len(data))
        return len(data)


def test_a_larger_limit_of_the_user_stays(transport: Any) -> None:
    transport.SEND_LIMIT = 1 << 24
    sockets.tune(transport, 0)
    assert transport.SEND_LIMIT == 1 << 24


def test_a_transport_without_limits_is_left_alone() -> None:
    plain = object()
    sockets.tune(plain, 1000)
    sockets.set_options(plain, KEEP_INTERVAL)
    assert not hasattr(plain, "SEND_LIMIT")


@pytest.mark.parametrize("layer", [Layer, TCPLayer, lambda transport: transport])
def test_socket_options_reach_the_socket_below_tls(transport: Any, layer: Any) -> None:
    sockets.set_options(layer(layer(transport)), KEEP_INTERVAL)
    handle = transport.getHandle()
    assert handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == 60
    assert transport.getTcpNoDelay()


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no Unix sockets here")
def test_where_there_is_no_tcp_there_are_no_socket_options() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        transport = connection_of(ours)
        sockets.tune(transport, 1000)
        sockets.set_options(transport, KEEP_INTERVAL)
        assert transport.bufferSize == 1000
        assert not ours.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


# Who is handed what was read


def test_octets_go_straight_to_the_loop(transport: Any) -> None:
    protocol = pika_twisted.TwistedProtocolConnection()
    protocol.ready.addErrback(lambda _: None)
    protocol.makeConnection(transport)
    assert protocol.dataReceived == protocol._impl.inbound.receive
    protocol.dataReceived(b"HTTP/1.1 400 Bad Request")
    assert protocol._impl.bytes_received == 24
    protocol.connectionLost()


def test_a_subclass_is_handed_them_first(transport: Any) -> None:
    read: list[bytes] = []

    class Watched(pika_twisted.TwistedProtocolConnection):
        def dataReceived(self, data: bytes) -> None:
            read.append(data)
            super().dataReceived(data)

    protocol = Watched()
    protocol.ready.addErrback(lambda _: None)
    protocol.makeConnection(transport)
    protocol.dataReceived(b"AMQP")
    assert read == [b"AMQP"]
    assert protocol._impl.bytes_received == 4
    protocol.connectionLost()


def test_what_a_user_has_put_in_its_place_stays(transport: Any) -> None:
    read: list[bytes] = []
    protocol = pika_twisted.TwistedProtocolConnection()
    protocol.ready.addErrback(lambda _: None)
    protocol.dataReceived = read.append  # type: ignore[method-assign]
    protocol.makeConnection(transport)
    protocol.dataReceived(b"AMQP")
    assert read == [b"AMQP"]
    protocol.connectionLost()


def test_one_put_into_the_class_is_handed_them_first(
    transport: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[bytes] = []
    monkeypatch.setattr(
        pika_twisted.TwistedProtocolConnection,
        "dataReceived",
        lambda _protocol, data: read.append(data),
    )
    protocol = pika_twisted.TwistedProtocolConnection()
    protocol.ready.addErrback(lambda _: None)
    protocol.makeConnection(transport)
    protocol.dataReceived(b"AMQP")
    assert read == [b"AMQP"]
    protocol.connectionLost()


@pytest.mark.parametrize("layers", ["transport", "socket", "wrapped socket"])
@pytest.mark.parametrize("size", [None, 0, 12345])
def test_the_read_size_is_set_where_octets_are_read(
    session: Session, layers: str, size: int | None
) -> None:
    """Set on a TLS transport it would stay there: the socket below reads as before."""
    session.layers = layers
    options = {} if size is None else {"buffer_size": size}

    def factory(parameters: Any, reactor: Any) -> Any:
        return session.adapter.TwistedProtocolConnection(parameters, reactor, **options)

    session.open(factory=factory)
    expected = {None: 256 * 1024, 0: 2**16}.get(size, size)
    assert session.transport.bufferSize == expected
