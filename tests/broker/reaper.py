"""Sweeps up after a test run that was killed: its own process, told through a pipe what to end.

A node outlives a `kill -9` of pytest, and its children lead process groups of their own. So every
process of a node carries a mark in its environment, and this one ends the marked processes and
removes the folder as soon as the other end of its stdin closes without a "forget" before it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

MARK = "PIKA_TWISTED_TEST_NODE"


def marked_processes(mark: str) -> list[int]:
    """The living processes that carry the mark: a node, its helpers, and what they started."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            variables = (entry / "environ").read_bytes().split(b"\0")
        except OSError:  # another user's, or gone meanwhile
            continue
        # A zombie's environ is empty, so it never counts as living.
        if wanted in variables and int(entry.name) != os.getpid():
            found.append(int(entry.name))
    return found


def kill_marked(mark: str, timeout: float = 5.0) -> list[int]:
    """SIGKILL to all of them until none is left; returns those that would not go."""
    deadline = time.monotonic() + timeout
    while True:
        left = marked_processes(mark)
        if not left or time.monotonic() > deadline:
            return left
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.05)


def start_reaper() -> subprocess.Popen[str]:
    """Start the sweeper; write "watch MARK FOLDER" and "forget MARK FOLDER" lines to its stdin."""
    return subprocess.Popen(
        [sys.executable, "-S", "-E", str(Path(__file__).resolve())],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,  # a Ctrl-C in the terminal is not for it
        text=True,
        bufsize=1,
    )


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    watched: dict[str, str] = {}
    for line in sys.stdin:
        verb, mark, folder = line.rstrip("\n").split(" ", 2)
        if verb == "watch":
            watched[mark] = folder
        else:
            watched.pop(mark, None)
    for mark, folder in watched.items():
        kill_marked(mark)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
