"""Instructions per message and per call, counted by valgrind: numbers without noise.

Each case runs in a process of its own under ``valgrind --tool=callgrind``, first a few times unseen
and then counted: a dump is written at each call of getppid(2), so that start-up (100,000
instructions more or less from run to run) and what is warmed up are no part of it. Two runs differ
by 0.1 %.
"""

from __future__ import annotations

import json
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

CEILINGS = Path(__file__).with_name("ceilings.json")
SLACK = 1.15  # between compilers, C libraries and patches of Python
UNSEEN = 4
REPEATS = 40
REPEATS_OF_PIKA = 5  # hundreds of thousands of instructions per message take their time
MARK = "getppid"  # the C function; nothing else calls it


def instructions(name: str, repeats: int) -> int:
    """Return the instructions of `repeats` calls of the case."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            "valgrind",
            "--tool=callgrind",
            f"--dump-before={MARK}",
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
        counted = Path(folder) / "out.2"  # between the first mark and the second
        found = counted.exists() and re.search(
            r"^summary: (\d+)", counted.read_text(), re.MULTILINE
        )
    if not found:
        raise SystemExit(f"valgrind failed: {done.stderr[-500:]}")
    return int(found.group(1))


def measure(names: list[str] | None = None) -> dict[str, float]:
    """Print a table of all cases, or of these, as the counts come; return it."""
    if shutil.which("valgrind") is None:
        raise SystemExit("--callgrind needs valgrind (apt-get install valgrind)")
    print("instructions per message, frame or call")
    cases = {name: inner for name, (_call, inner) in all_cases().items()}
    names = list(cases) if names is None else [name for name in names if name in cases]

    def per_call(name: str) -> float:
        repeats = REPEATS_OF_PIKA if "(pika)" in name else REPEATS
        return instructions(name, repeats) / repeats / cases[name]

    found = {}
    # Start-up takes most of the 10 s of a case; instructions don't mind what runs beside them.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for name, count in zip(names, pool.map(per_call, names), strict=True):
            print(f"{name:52}{count:>10,.0f}", flush=True)
            found[name] = count
    return found


def run() -> None:
    """Print a table of all cases."""
    measure()


def check() -> None:
    """Measure what has a ceiling; SystemExit where a case needs more, or is gone."""
    ceilings: dict[str, int] = json.loads(CEILINGS.read_text())
    found = measure(list(ceilings))
    problems = [f"{name}: the case is gone" for name in ceilings if name not in found]
    problems += [
        f"{name}: {count:,.0f} instructions, {ceilings[name]:,} at most"
        for name, count in found.items()
        if count > ceilings[name]
    ]
    if problems:
        raise SystemExit("\n".join(problems))
    print(f"all below the ceilings of {CEILINGS.name}")


def write_ceilings() -> None:
    """Measure, and write the counts with some slack as what later versions may need at most."""
    ours = [name for name in all_cases() if "(pika)" not in name]
    found = measure(ours)
    CEILINGS.write_text(
        json.dumps({name: round(count * SLACK) for name, count in found.items()}, indent=1) + "\n"
    )


def main() -> None:
    """Run one case a number of times: what valgrind looks at."""
    name, repeats = sys.argv[1], int(sys.argv[2])
    call, _inner = all_cases()[name]
    for _ in range(UNSEEN):
        call()
    os.getppid()
    for _ in range(repeats):
        call()
    os.getppid()


if __name__ == "__main__":
    main()
