"""The part of a broker that a client can see, for benchmarks, in a process of its own.

It answers the AMQP 0-9-1 handshake and the usual methods, floods consumers with deliveries, checks
that every delivery was acked exactly once, and counts and confirms publishes. What it does is
asked for by queue names (see :mod:`benchmarks.peer_channel`), so that every client library can be
served without special code. It stores no message and is no broker.

``python -m benchmarks.peer`` prints its port and serves until its standard input ends.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType

from benchmarks.peer_session import Session

REPOSITORY = Path(__file__).resolve().parent.parent


def serve(listener: socket.socket) -> None:
    """Accept clients for ever, each served by a thread of its own."""
    while True:
        connection, _address = listener.accept()
        threading.Thread(target=Session(connection).run, daemon=True).start()


def main() -> None:
    """Serve on a free port until standard input ends: when the parent is gone, so is the peer."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    print(listener.getsockname()[1], flush=True)
    threading.Thread(target=serve, args=(listener,), daemon=True).start()
    sys.stdin.read()


class PeerProcess:
    """Context manager that runs the peer in a process of its own."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self.url = ""

    def __enter__(self) -> PeerProcess:
        command = [sys.executable, "-m", "benchmarks.peer"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
        )
        assert self._process.stdout is not None
        port = self._process.stdout.readline().strip()
        if not port:
            raise RuntimeError("the embedded peer did not start; its error is printed above")
        self.url = f"amqp://guest:guest@127.0.0.1:{port}/%2F"
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=10)
        if self._process.stdout is not None:
            self._process.stdout.close()


if __name__ == "__main__":
    main()
