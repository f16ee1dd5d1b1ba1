"""Every TLS promise, tried on real sockets: a broker's certificate that is wrong, a way to ask.

Run as a program it prints one JSON object: {"certificate/way": [what the client got, what the
server got]}. The server is the standard library's in threads of its own, so that nothing of ours
or of Twisted's judges itself.
"""

from __future__ import annotations

import json
import socket
import ssl
import sys
import tempfile
import threading
import warnings
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pika
from twisted.internet import defer, endpoints, reactor, task
from twisted.internet import ssl as twisted_ssl
from twisted.internet.protocol import Factory

import pika_twisted
from tests.support.authority import DAY, Authority, key_pem

WAYS = ("url", "context", "options", "endpoint", "protocol")


class Server:
    """Accepts TLS connections, and remembers what each sent first."""

    def __init__(self, certificate: Path, key: Path, newest: Any = None) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            self.context.set_ciphers("ALL:@SECLEVEL=0")
            if newest is not None:
                self.context.minimum_version = ssl.TLSVersion.TLSv1
                self.context.maximum_version = newest
        self.context.load_cert_chain(certificate, key)
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.received = b""
        self.done = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            accepted, _ = self.socket.accept()
            accepted.settimeout(10)
            try:
                with self.context.wrap_socket(accepted, server_side=True) as peer:
                    self.received = peer.recv(100)
            except OSError:
                pass
            self.done.set()


def servers(folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """The servers by what is wrong with them, each with the host to ask for; and our files."""
    authority = Authority(folder)
    stranger = Authority(folder, "unrelated authority")
    alone = Authority(folder, "localhost")  # signs itself
    alone_key = folder / "alone.key"
    alone_key.write_bytes(key_pem(alone.key))
    *revoked, revoked_certificate = authority.issue("revoked")
    crl = authority.revoke("revoked", revoked_certificate)
    good = authority.issue("good", addresses=["127.0.0.1"])[:2]
    old = ssl.TLSVersion.TLSv1_1
    made = {
        "good": (Server(*good), "localhost"),
        "good address": (Server(*good), "127.0.0.1"),
        "no SAN": (Server(*authority.issue("nosan", [])[:2]), "localhost"),
        "no SAN, address": (
            Server(*authority.issue("nosan2", [], common_name="127.0.0.1")[:2]),
            "127.0.0.1",
        ),
        "wrong SAN": (Server(*authority.issue("wrong", ["broker.example"])[:2]), "localhost"),
        "wrong address": (
            Server(*authority.issue("wrong2", [], addresses=["192.0.2.1"])[:2]),
            "127.0.0.1",
        ),
        "address in a DNS name": (
            Server(*authority.issue("ip", ["127.0.0.1"])[:2]),
            "127.0.0.1",
        ),
        "expired": (
            Server(*authority.issue("expired", begin=-3 * DAY, end=-DAY)[:2]),
            "localhost",
        ),
        "not yet valid": (
            Server(*authority.issue("early", begin=DAY, end=3 * DAY)[:2]),
            "localhost",
        ),
        "revoked": (Server(*revoked), "localhost"),
        "wrong authority": (Server(*stranger.issue("stranger")[:2]), "localhost"),
        "self-signed": (Server(alone.file, alone_key), "localhost"),
        "weak key": (Server(*authority.issue("weak", bits=1024)[:2]), "localhost"),
        "TLS 1.1 only": (Server(*good, newest=old), "localhost"),
        "TLS 1.0 only": (Server(*good, newest=ssl.TLSVersion.TLSv1), "localhost"),
    }
    return made, {"authority": str(authority.file), "crl": str(crl)}


def ask(way: str, host: str, port: int, files: dict[str, str], revoked: bool) -> Any:
    """Begin to connect in one of the ways; a Deferred."""
    authority = twisted_ssl.Certificate.loadPEM(Path(files["authority"]).read_bytes())
    login = pika.ConnectionParameters(stack_timeout=10, heartbeat=0)
    if way == "url":
        written = quote(repr({"ca_certs": files["authority"]}))
        return pika_twisted.connect(f"amqps://{host}:{port}/?ssl_options={written}")
    if way == "context":
        context = ssl.create_default_context(cafile=files["authority"])
        if revoked:
            context.load_verify_locations(files["crl"])
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
        return pika_twisted.connect(
            pika.ConnectionParameters(host, port, ssl_options=pika.SSLOptions(context, host))
        )
    options = twisted_ssl.optionsForClientTLS(host, trustRoot=authority)
    if way == "options":
        return pika_twisted.connect(pika.ConnectionParameters(host, port), tls=options)
    if way == "endpoint":
        inner = endpoints.HostnameEndpoint(reactor, host, port)
        wrapped = endpoints.wrapClientTLS(options, inner)
        return pika_twisted.connect(wrapped, parameters=login)
    made: list[Any] = []

    def build() -> Any:
        made.append(pika_twisted.TwistedProtocolConnection(login))
        return made[-1]

    endpoint = endpoints.SSL4ClientEndpoint(reactor, "127.0.0.1", port, options)
    opening = endpoint.connect(Factory.forProtocol(build))  # type: ignore[arg-type]
    return opening.addCallback(lambda _: made[0].when_ready())


async def main(folder: Path) -> dict[str, list[str]]:
    made, files = servers(folder)
    found = {}
    for wrong, (server, host) in made.items():
        for way in WAYS:
            if wrong == "revoked" and way != "context":
                continue  # revocation lists are a context's
            server.received = b""
            server.done.clear()
            connecting = ask(way, host, server.port, files, wrong == "revoked")
            try:
                await connecting
                got = "connected"
            except Exception as why:
                got = f"{type(why).__name__}: {why}"
            while not server.done.is_set():
                await task.deferLater(reactor, 0.002)
            found[f"{wrong}/{way}"] = [got, server.received.decode("latin-1")]
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
