"""Instructions per message and per call, counted by valgrind: numbers without noise.

Each case runs in a process of its own under ``valgrind --tool=callgrind``, once with few repeats
and once with many; the difference is free of start-up, imports and warm-up.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.codec import all_cases
from benchmarks.peer import REPOSITORY

FEW = 4
MANY = 84  # start-up differs by some 100,000 instructions from run to run: 5 per message
MANY_OF_PIKA = 14  # hundreds of thousands of instructions per message take their time


def instructions(name: str, repeats: int) -> int:
    """Return the instructions of a process that runs the case `repeats` times."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            "valgrind",
            "--tool=callgrind",
            f"--callgrind-out-file={Path(folder) / 'out'}",
            sys.executable,
            "-m",
            "benchmarks.callgrind",
            name,
            str(repeats),
        ]
        environment = {"PYTHONHASHSEED": "0", "PATH": "/usr/bin:/bin"}
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=REPOSITORY, env=environment
        )
    found = re.search(r"Collected : (\d+)", done.stderr)
    if found is None:
        raise SystemExit(f"valgrind failed: {done.stderr[-500:]}")
    return int(found.group(1))


def run(pattern: str = "") -> None:
    """Print a table of all cases."""
    if shutil.which("valgrind") is None:
        raise SystemExit("--callgrind needs valgrind (apt-get install valgrind)")
    print("instructions per message, frame or call")
    cases = {name: inner for name, (_call, inner) in all_cases().items() if pattern in name}
    for name in list(cases)[:1]:
        instructions(name, 0)  # writes the .pyc files

    def per_call(name: str) -> float:
        many = MANY_OF_PIKA if "(pika)" in name else MANY
        return (instructions(name, many) - instructions(name, FEW)) / (many - FEW) / cases[name]

    # Start-up takes most of the 20 s of a case; instructions don't mind what runs beside them.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for name, count in zip(cases, pool.map(per_call, cases), strict=True):
            print(f"{name:52}{count:>10,.0f}", flush=True)


def main() -> None:
    """Run one case a number of times: what valgrind looks at."""
    name, repeats = sys.argv[1], int(sys.argv[2])
    call, _inner = all_cases()[name]
    for _ in range(repeats):
        call()


if __name__ == "__main__":
    main()
