"""Sockets below a connection: finding, setting and aborting one, through TLS and other wrappers."""

from __future__ import annotations

from typing import Any

from pika import tcp_socket_opts
from twisted.internet import interfaces
from twisted.protocols.policies import ProtocolWrapper

#: Bytes that leave in one turn of the reactor. Twisted's 128 KiB are less than 1,000 publishes:
#: the rest of each turn piles up in pages never touched before, a third of a publish's cost. A
#: peer that takes 16 KiB at a time costs no more CPU with this limit than with Twisted's.
SEND_LIMIT = 512 * 1024


def tune(transport: Any, buffer_size: int) -> None:
    """Let a transport read and write in large pieces, and small ones at once.

    Without TCP_NODELAY a frame behind others waits for the peer to acknowledge those, which its TCP
    puts off for 40 ms. It makes no more segments here: `Outbound` writes seldom.

    :param buffer_size: bytes to read at a time; 0 leaves the transport's
    """
    socket = innermost(transport)
    if buffer_size and hasattr(socket, "bufferSize"):
        socket.bufferSize = buffer_size
        # glibc gives a block of 128 KiB or more pages of its own, until one such was freed. recv()
        # shrinks its block first: where no import has freed one either (CPython 3.12), a read of
        # 2,000 bytes took 15 us instead of 3.
        bytes(buffer_size)
    limit = getattr(socket, "SEND_LIMIT", None)
    if isinstance(limit, int) and limit < SEND_LIMIT:
        socket.SEND_LIMIT = SEND_LIMIT
    _set_no_delay(transport)


def set_options(transport: Any, tcp_options: dict[str, Any] | None) -> None:
    """Set pika's `tcp_options`, where there is a TCP socket."""
    socket = _set_no_delay(transport)
    if tcp_options and socket is not None:
        while hasattr(socket, "transport"):  # TLS that knows of TCP: the socket is below it
            socket = socket.transport
        tcp_socket_opts.set_sock_opts(tcp_options, socket.getHandle())


def _set_no_delay(transport: Any) -> Any:
    """Set TCP_NODELAY; returns the layer that took it, None where there is no TCP."""
    if interfaces.IUNIXTransport.providedBy(innermost(transport)):
        return None  # it has the method of a TCP one, which would log an error
    while not hasattr(transport, "setTcpNoDelay") and hasattr(transport, "transport"):
        transport = transport.transport  # TLS of older Twisteds
    try:
        transport.setTcpNoDelay(True)
    except (AttributeError, OSError):
        return None
    return transport


def innermost(transport: Any) -> Any:
    """The transport at the bottom, which owns the socket.

    A wrapper passes on what it does not know, so its attributes don't tell it from the socket.
    """
    while isinstance(transport, ProtocolWrapper):
        transport = transport.transport
    return transport


def unsent(transport: Any) -> int | None:
    """Return how many bytes wait below for the peer to take them; None where it can't be known."""
    socket = innermost(transport)
    while hasattr(socket, "transport"):
        socket = socket.transport
    try:
        # Of `abstract.FileDescriptor`, the transports of all reactors but IOCP's.
        return int(len(socket.dataBuffer) - socket.offset + socket._tempDataLen)
    except (AttributeError, TypeError):
        return None


def abort(transport: Any) -> None:
    """End it at once; one that can't, as that of a `ProcessEndpoint`, when it has sent its data."""
    getattr(transport, "abortConnection", transport.loseConnection)()
