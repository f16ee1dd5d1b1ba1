"""The pytest side of the scenarios: one runner process per reactor, results as they come."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.broker.broker import ENVIRONMENT, Broker
from tests.broker.registry import Scenario

ROOT = Path(__file__).parents[2]
PARALLEL = 2  # runners at a time: one core is the broker's, and scenarios wait a good deal


@dataclass
class Outcome:
    """How one scenario ended on one reactor."""

    problems: list[str]
    skipped: str = ""
    seconds: float = 0.0
    cpu: float = 0.0


class Job:
    """The scenarios of one reactor.

    A runner that dies, or stops because a scenario left something behind, is started again for the
    scenarios after that one.
    """

    def __init__(
        self,
        reactor: str,
        scenarios: list[Scenario],
        broker: Broker,
        changed: threading.Condition,
    ) -> None:
        self.reactor = reactor
        self.scenarios = {each.name: each for each in scenarios}
        self.broker = broker
        if broker.private:  # a virtual host of its own keeps reactors out of each other's way
            self.broker = replace(broker, vhost=f"on-{reactor}")
        self.process: subprocess.Popen[str] | None = None
        self.outcomes: dict[str, Outcome] = {}
        self.changed = changed

    def run(self, stopping: threading.Event) -> None:
        """Run everything; returns when each scenario has an outcome."""
        while (left := [name for name in self.scenarios if name not in self.outcomes]) and (
            not stopping.is_set()
        ):
            self._run_once(left)

    def _run_once(self, names: list[str]) -> None:
        running = names[0]
        with tempfile.TemporaryFile("w+") as errors:
            command = [sys.executable, "-m", "tests.broker.run", "--exactly", self.reactor, *names]
            with subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, ENVIRONMENT: self.broker.to_json()},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            ) as self.process:
                assert self.process.stdout is not None
                for line in self.process.stdout:
                    event = json.loads(line)
                    running = event.get("scenario", running)
                    if event["event"] == "end":
                        del event["event"], event["scenario"]
                        self._settle(running, Outcome(**event))
            code = self.process.returncode
            errors.seek(0)
            if running not in self.outcomes:
                said = errors.read()[-8000:]
                self._settle(running, Outcome([f"the runner ended with status {code}:\n{said}"]))
            elif code not in (0, 1):
                said = errors.read()[-8000:]
                self.outcomes[running].problems.append(f"then the runner crashed ({code}):\n{said}")

    def _settle(self, name: str, outcome: Outcome) -> None:
        with self.changed:
            self.outcomes[name] = outcome
            self.changed.notify_all()

    def wait(self, name: str, patience: float) -> Outcome:
        """The outcome of one scenario, waited for as long as others end, of any job."""
        with self.changed:
            while name not in self.outcomes:
                if not self.changed.wait(patience):
                    return Outcome([f"no scenario has ended for {patience:.0f} s"])
            return self.outcomes[name]


class Pool:
    """Runs the jobs, at most PARALLEL at a time; scenarios marked `beside` in jobs of their own."""

    def __init__(self, broker: Broker, chosen: dict[str, list[Scenario]]) -> None:
        self._stopping = threading.Event()
        self._groups: list[list[Job]] = []
        changed = threading.Condition()
        for beside in (False, True):
            matching = {
                reactor: [each for each in scenarios if each.beside is beside]
                for reactor, scenarios in chosen.items()
            }
            self._groups.append(
                [Job(key, found, broker, changed) for key, found in matching.items() if found]
            )
        self._jobs = {
            (job.reactor, name): job
            for group in self._groups
            for job in group
            for name in job.scenarios
        }
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        for group in self._groups:
            room = threading.Semaphore(PARALLEL)
            for job in group:
                thread = threading.Thread(target=self._run_job, args=(job, room), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _run_job(self, job: Job, room: threading.Semaphore) -> None:
        with room:
            job.run(self._stopping)

    def outcome(self, reactor: str, name: str, patience: float) -> Outcome:
        """Wait for one scenario's end; not for ever when none ends any more."""
        return self._jobs[reactor, name].wait(name, patience)

    def stop(self) -> None:
        """End the runners that still run (a test session that was interrupted)."""
        self._stopping.set()
        for job in (each for group in self._groups for each in group):
            process: Any = job.process
            if process is not None and process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
        for thread in self._threads:
            thread.join(10)
