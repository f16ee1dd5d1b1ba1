"""Every kind of bad octets over sockets, from a peer of the tests' own: no broker is involved.

The tables and the talks are those of `tests/unit/codec/test_bad_bytes.py`. That nothing left
`dataReceived` and nothing was logged as unhandled, the runner checks.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pika
from twisted.internet import endpoints, protocol, ssl

from tests.broker.env import Env, OneShot, check
from tests.broker.registry import scenario
from tests.support import bad_sessions, bad_talks
from tests.support.bad_bytes import REFUSED
from tests.support.peer import Peer


class Line(protocol.Protocol):
    """The peer's end: what comes is kept, what the peer says is written."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []

    def dataReceived(self, data: bytes) -> None:
        self.writes.append(data)

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)  # type: ignore[union-attr]

    def connectionLost(self, reason: Any = None) -> None:
        self.connected = 0


class ToTheClient:
    """What the peer calls to make octets arrive at the client."""

    def __init__(self, line: Line) -> None:
        self.line = line

    def dataReceived(self, data: bytes) -> None:
        assert self.line.transport is not None
        self.line.transport.write(data)


class RealTime:
    """In place of a clock: time passes by itself."""

    def advance(self, seconds: float) -> None:
        pass


class Sockets:
    """A connection of the client to a port of the loopback, where the peer is."""

    def __init__(self, env: Env, tls: bool = False) -> None:
        self.env = env
        self.tls = tls

    async def connect(self, **options: Any) -> Any:
        reactor = self.env.reactor
        self.line = Line()
        self.listening = await self._here().listen(OneShot(self.line))
        connection = self.env.implementation.TwistedProtocolConnection(
            pika.ConnectionParameters(heartbeat=0), reactor, **options
        )
        self.env.connections.append(connection)
        port = self.listening.getHost().port
        there: Any = endpoints.TCP4ClientEndpoint(reactor, "127.0.0.1", port)
        if self.tls:
            there = endpoints.wrapClientTLS(self.env.tls_options(), there)
        await there.connect(OneShot(connection))
        self.peer: Any = Peer(self.line, ToTheClient(self.line), RealTime())  # type: ignore[arg-type]
        await self.until(lambda: self.line.transport, "accepted")
        return connection

    def _here(self) -> Any:
        reactor = self.env.reactor
        if not self.tls:
            return endpoints.TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        files = Path(str(self.env.broker.folder))
        options = ssl.DefaultOpenSSLContextFactory(
            str(files / "server.key"), str(files / "server.pem")
        )
        return endpoints.SSL4ServerEndpoint(reactor, 0, options, interface="127.0.0.1")

    async def until(self, condition: Callable[[], Any], what: str) -> None:
        deadline = self.env.reactor.seconds() + 1.0
        while not condition():
            check(self.env.reactor.seconds() < deadline, f"not within a second: {what}")
            await self.env.sleep(0.001)

    def hang_up(self) -> None:
        assert self.line.transport is not None
        self.line.transport.loseConnection()

    async def stop(self) -> None:
        await self.listening.stopListening()


TALKS: dict[str, tuple[Any, dict[str, Any]]] = {
    "refused": (bad_sessions.refused, REFUSED | bad_talks.ALSO_REFUSED),
    "survived": (bad_sessions.survived, bad_talks.LIVES),
    "handshake": (bad_sessions.handshake_failed, bad_talks.HANDSHAKES),
}


async def talk_about_all(env: Env, talk: Any, cases: dict[str, Any], tls: bool = False) -> None:
    """Every case of a table; all that fail are told."""
    problems = []
    logging.getLogger("pika_twisted").setLevel(logging.CRITICAL)  # each refusal is logged
    env.cleanups.append(lambda: logging.getLogger("pika_twisted").setLevel(logging.NOTSET))
    for name, case in cases.items():
        medium = Sockets(env, tls)
        try:
            await talk(medium, case)
        except Exception:
            problems.append(f"{name}: {traceback.format_exc()}")
        finally:
            await medium.stop()
    check(not problems, f"{len(problems)} of {len(cases)} cases:\n" + "\n".join(problems))


@scenario(
    interface="ours",
    timeout=120,
    variants={name: {"talk": talk, "cases": cases} for name, (talk, cases) in TALKS.items()},
)
async def bad_bytes(env: Env, talk: Any, cases: dict[str, Any]) -> None:
    """Over TCP."""
    await talk_about_all(env, talk, cases)


@scenario(interface="ours", own_node=True, timeout=120)
async def bad_bytes_over_tls(env: Env) -> None:
    """With the certificates of our own node: the code reaches the peer, the end comes in time."""
    await talk_about_all(env, bad_sessions.refused, dict(list(REFUSED.items())[::4]), tls=True)
    await talk_about_all(env, bad_sessions.handshake_failed, bad_talks.HANDSHAKES, tls=True)


@scenario(interface="ours")
async def closed_by_a_peer_that_goes_on(env: Env) -> None:
    """Connection.Close, then a delivery and junk."""
    medium = Sockets(env)
    try:
        await bad_sessions.closed_by_the_peer(medium)
    finally:
        await medium.stop()
