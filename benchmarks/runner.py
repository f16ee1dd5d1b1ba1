"""Runs the rows, each measurement in a process of its own, the repeats interleaved."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

from benchmarks.peer import REPOSITORY
from benchmarks.peer_channel import flood_queue
from benchmarks.rows import Row
from benchmarks.spec import Spec
from benchmarks.worker import TWISTED

COMPARED = (*TWISTED, "rabbitmq-c", "bare")
LONGEST = 600  # seconds until a measurement counts as hanging
Prepare = Callable[[Spec], Spec]


@dataclass
class Outcome:
    """What one client did in one row."""

    spec: Spec
    answers: list[dict[str, Any]] = field(default_factory=list)
    skipped: str = ""

    def values(self, name: str) -> list[float]:
        """Return a number of each repeat, per message where it is a time of the whole."""
        if name in ("cpu", "wall"):
            return [answer[name] / answer["messages"] * 1e6 for answer in self.answers]
        return [float(answer[name]) for answer in self.answers]

    def best(self, name: str) -> float | None:
        """Return the smallest value, or None when there is none."""
        return min(self.values(name)) if self.answers else None

    def middle(self, name: str) -> float | None:
        """Return the median."""
        return median(self.values(name)) if self.answers else None


Results = dict[tuple[str, str], Outcome]


def peer_prepare(url: str) -> Prepare:
    """Return what fills a spec in for the embedded peer."""

    def prepare(spec: Spec) -> Spec:
        share = max(1, spec.messages // spec.channels)
        return replace(
            spec,
            url=url,
            messages=share * spec.channels,
            queue=flood_queue(share, spec.size, spec.properties),
            warmup_queue=flood_queue(spec.warmup, spec.size, spec.properties),
        )

    return prepare


def measure(spec: Spec) -> dict[str, Any]:
    """Run one measurement in a process of its own and return its answer."""
    command = [sys.executable, "-m", "benchmarks.worker", json.dumps(spec.as_dict())]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=REPOSITORY, timeout=LONGEST
        )
    except subprocess.TimeoutExpired:
        return {"skipped": f"not done after {LONGEST} s"}
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        reason = (done.stderr.strip().splitlines() or ["no output"])[-1]
        return {"skipped": f"failed: {reason}", "stderr": done.stderr}
    answer: dict[str, Any] = json.loads(lines[-1])
    return answer


def most_repeats(row: Row, spec: Spec) -> int:
    """Return how often it is worth repeating: no bar hangs on the series and the other clients."""
    if row.key.startswith("scale/"):
        return 2
    return 1_000 if spec.client in COMPARED else 3


class Runner:
    """Runs rows `repeats` times and tells how far it is."""

    def __init__(self, prepare: Prepare, repeats: int, verbose: bool = False) -> None:
        self.results: Results = {}
        self._prepare = prepare
        self._repeats = repeats
        self._verbose = verbose
        self._begun = time.monotonic()

    def run(self, rows: Sequence[Row]) -> Results:
        """Run everything: one repeat of all rows, then the next."""
        jobs = [
            (row, spec)
            for repeat in range(self._repeats)
            for row in rows
            for spec in row.specs
            if repeat < most_repeats(row, spec)
        ]
        for done, (row, spec) in enumerate(jobs, 1):
            outcome = self.results.setdefault((row.key, spec.client), Outcome(spec))
            if not outcome.skipped:
                self._report(done, len(jobs), f"{row.title} | {spec.client}")
                self._measure(outcome)
        self._report(len(jobs), len(jobs), f"done in {time.monotonic() - self._begun:.0f} s")
        if sys.stderr.isatty():
            print(file=sys.stderr)
        return self.results

    def _measure(self, outcome: Outcome) -> None:
        answer = measure(self._prepare(outcome.spec))
        if "skipped" not in answer:
            outcome.answers.append(answer)
            return
        outcome.skipped = answer["skipped"]
        if self._verbose:
            print(answer.get("stderr", ""), file=sys.stderr)

    def _report(self, done: int, total: int, text: str) -> None:
        elapsed = time.monotonic() - self._begun
        line = f"[{done:>{len(str(total))}}/{total} {elapsed:4.0f} s] {text}"
        if sys.stderr.isatty():
            print(f"\r\x1b[K{line[:110]}", end="", file=sys.stderr, flush=True)
        elif done % 20 == 1 or done == total:  # a log file is told about every twentieth
            print(line, file=sys.stderr, flush=True)
