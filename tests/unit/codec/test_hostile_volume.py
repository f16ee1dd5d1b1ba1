"""A peer that wants to fill the memory, or to keep the processor busy.

1 GiB takes at most 8 MiB more than the message allowed; cost grows with the octets, not faster.

`tests/broker/scenarios_hostile.py` has the same over sockets.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import wire
from tests.support.cost import assert_grows_at_most, cpu
from tests.support.hostile import MIB, STREAMS
from tests.support.session import OURS, Session

SMALL, LARGE = 102, 1024  # MiB
PRELOADED = os.environ.get("LD_PRELOAD", "")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
@pytest.mark.skipif("asan" in PRELOADED, reason="AddressSanitizer keeps what is freed")
@pytest.mark.parametrize("codec", ["compiled", "reference"])
def test_hostile_volume(codec: str) -> None:
    """Ten times the volume takes at most twenty times the CPU, of which 5 ms can't be told from 0.

    The larger volume goes first: in memory left by the smaller it would not be seen. Each is
    measured twice: what else runs on the machine makes caches cold and twice the CPU.
    """
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.hostile", *map(str, (LARGE, SMALL, LARGE, SMALL))],
        env={**os.environ, "PIKA_TWISTED_PURE": "1" if codec == "reference" else ""},
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr
    outcomes = json.loads(done.stdout)
    assert outcomes.keys() == STREAMS.keys()
    for name, (first, *others) in outcomes.items():
        stream = STREAMS[name]
        for outcome in (first, *others):
            assert tuple(outcome["answers"]) == stream.answers, name
        assert first["grown"] <= stream.allowed + 8 * MIB, name
        large, small = (first, others[1]), (others[0], others[2])
        least = min(outcome["cpu"] for outcome in large)
        assert least <= 20 * max(0.005, *(outcome["cpu"] for outcome in small)), name


@pytest.fixture
def session() -> Iterator[Session]:
    session = Session(OURS)
    session.open()
    yield session
    session.finish()


def test_octet_by_octet(session: Session) -> None:
    queue = session.consumer(session.channel())
    receive = session.protocol.dataReceived

    def cost(size: int) -> float:
        message = wire.content(1, bytes(size), method=wire.deliver("t"))
        octets = [message[at : at + 1] for at in range(len(message))]

        def work() -> None:
            for octet in octets:
                receive(octet)

        spent = cpu(work)
        assert [len(taken.body) for taken in queue.drain()] == [size]
        return spent

    assert_grows_at_most(cost, 10_000)


def test_heartbeats_in_one_read(session: Session) -> None:
    def cost(count: int) -> float:
        before = session.protocol._impl.frames_received
        spent = cpu(lambda: session.protocol.dataReceived(wire.HEARTBEAT * count))
        assert session.protocol._impl.frames_received == before + count
        return spent

    assert_grows_at_most(cost, 3_000)
