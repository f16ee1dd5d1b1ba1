"""`python -m tests.support.conformance HOST PORT [NAME ...]`: ask a broker, and keep what it says.

Only in the scenarios whose names contain one of these, where there are any. What the broker for
tests says differently is printed.
"""

from __future__ import annotations

import sys

from tests.support.conformance import answers
from tests.support.conformance.wires import MemoryBroker, RealBroker


def main(host: str, port: str, *names: str) -> None:
    """Ask a broker what it answers, keep it, and compare."""
    real = RealBroker(host, int(port))
    version = answers.version_of(real)
    chosen = [name for name in answers.names() if not names or any(each in name for each in names)]
    answers.keep(real, version, chosen)
    for name in chosen:
        theirs = answers.known(name, version)
        ours = answers.ask(name, MemoryBroker(version))
        if ours != theirs:
            print(f"{name}\n  RabbitMQ {version}: {theirs}\n  for tests:   {ours}")


if __name__ == "__main__":
    main(*sys.argv[1:])
