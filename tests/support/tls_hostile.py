"""Peers that break TLS, on real sockets; each has to end `connect()` soon, with its reason.

Run as a program it prints one JSON object: {"what the peer does": [what the client got, seconds]}.
"""

from __future__ import annotations

import json
import socket
import ssl
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pika
from twisted.internet import defer, task

import pika_twisted
from tests.support.authority import Authority

START = struct.pack(">BHI", 1, 0, 0x7FFFFFFF)  # a frame that never ends


def silent(peer: socket.socket, context: ssl.SSLContext) -> None:
    """Never answers the ClientHello."""
    time.sleep(3)


def half(peer: socket.socket, context: ssl.SSLContext) -> None:
    """Sends half a ServerHello, then nothing."""
    peer.recv(4096)
    peer.sendall(b"\x16\x03\x03\x00\x80\x02\x00\x00\x7c\x03\x03")
    time.sleep(3)


def http(peer: socket.socket, context: ssl.SSLContext) -> None:
    """Is a web server."""
    peer.recv(4096)
    peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def plain_amqp(peer: socket.socket, context: ssl.SSLContext) -> None:
    """Is a broker without TLS: answers with its protocol header, and closes."""
    peer.recv(4096)
    peer.sendall(b"AMQP\0\0\x09\x01")


def closes(peer: socket.socket, context: ssl.SSLContext) -> None:
    """Closes at the ClientHello."""
    peer.recv(4096)


def resets(peer: socket.socket, context: ssl.SSLContext) -> None:
    """Resets TCP."""
    peer.recv(4096)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def cut_record(peer: socket.socket, context: ssl.SSLContext) -> None:
    """Closes in the middle of a record, after the handshake."""
    with context.wrap_socket(peer, server_side=True) as secure:
        secure.recv(8)
        raw = socket.socket(fileno=secure.detach())
        raw.sendall(b"\x17\x03\x03\x40\x00" + bytes(100))
        raw.close()


def garbage(peer: socket.socket, context: ssl.SSLContext) -> None:
    """Sends what is no record, after the handshake."""
    secure = context.wrap_socket(peer, server_side=True)
    secure.recv(8)
    raw = socket.socket(fileno=secure.detach())
    raw.sendall(bytes(range(256)) * 40)
    time.sleep(1)
    raw.close()


def tiny_records(peer: socket.socket, context: ssl.SSLContext) -> None:
    """Sends 50,000 records of one byte: heartbeat frames, none of which is an answer."""
    with context.wrap_socket(peer, server_side=True) as secure:
        secure.recv(8)
        for _ in range(50_000):
            secure.send(START[:1])
        time.sleep(3)


def close_notify(peer: socket.socket, context: ssl.SSLContext) -> None:
    """Ends TLS as it asks, right after the handshake, and waits for the answer."""
    secure = context.wrap_socket(peer, server_side=True)
    secure.recv(8)
    secure.unwrap().close()


PEERS: list[Callable[[socket.socket, ssl.SSLContext], None]] = [
    silent,
    half,
    http,
    plain_amqp,
    closes,
    resets,
    cut_record,
    garbage,
    tiny_records,
    close_notify,
]


def listen(act: Callable[..., None], context: ssl.SSLContext) -> int:
    """A server in a thread that does this to one client; returns its port."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        accepted, _ = listening.accept()
        accepted.settimeout(10)
        try:
            act(accepted, context)
        except OSError:
            pass
        accepted.close()

    threading.Thread(target=serve, daemon=True).start()
    return int(listening.getsockname()[1])


async def main(folder: Path) -> dict[str, Any]:
    authority = Authority(folder)
    certificate, key, _ = authority.issue("server")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    client = ssl.create_default_context(cafile=authority.file)
    found = {}
    for act in PEERS:
        parameters = pika.ConnectionParameters(
            "localhost", listen(act, server), ssl_options=pika.SSLOptions(client), stack_timeout=2
        )
        began = time.monotonic()
        try:
            await pika_twisted.connect(parameters)
            got = "connected"
        except Exception as why:
            got = f"{type(why).__name__}: {why}"
        found[act.__name__] = [got, time.monotonic() - began]
    return found


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        result: dict[str, Any] = {}

        def run(_reactor: Any) -> Any:
            running = defer.Deferred.fromCoroutine(main(Path(temporary)))
            return running.addCallback(result.update)

        try:
            task.react(run)
        except SystemExit as end:
            if end.code:
                raise
    json.dump(result, sys.stdout)
