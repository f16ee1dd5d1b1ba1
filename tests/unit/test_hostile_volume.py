"""1 GiB from a peer that wants to fill the memory: at most 8 MiB more than the message allowed.

`tests/broker/scenarios_hostile.py` has the same over sockets.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.support.hostile import MIB, STREAMS

SMALL, LARGE = 102, 1024  # MiB
PRELOADED = os.environ.get("LD_PRELOAD", "")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
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
