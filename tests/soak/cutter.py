"""The proxy of a soak, in a process of its own: `python -m tests.soak.cutter HOST PORT`.

It prints the port where it listens, cuts every connection at each line on stdin, and ends with it.
"""

from __future__ import annotations

import subprocess
import sys

from twisted.internet import defer, protocol, reactor, stdio

from tests.broker.broker import Broker
from tests.broker.proxy import QuietProxy


class _Commands(protocol.Protocol):
    def __init__(self, proxy: QuietProxy) -> None:
        self.proxy = proxy

    def dataReceived(self, data: bytes) -> None:
        for link in self.proxy.links:
            link.cut()

    def connectionLost(self, reason: object = None) -> None:
        reactor.stop()


async def _serve(host: str, port: int) -> None:
    proxy = await QuietProxy(reactor, Broker(host, port)).start()
    print(proxy.port, flush=True)
    stdio.StandardIO(_Commands(proxy))


class Cutter:
    """That process, seen from the soak."""

    def __init__(self, broker: Broker) -> None:
        command = [sys.executable, "-m", __name__, broker.host, str(broker.port)]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, bufsize=1)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def cut(self) -> None:
        """Reset every connection."""
        assert self._process.stdin is not None
        self._process.stdin.write("cut\n")

    def stop(self) -> None:
        """End the process."""
        self._process.communicate()


if __name__ == "__main__":
    defer.Deferred.fromCoroutine(_serve(sys.argv[1], int(sys.argv[2])))
    reactor.run()
