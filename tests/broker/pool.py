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

    def __init__(self, reactor: str, scenarios: list[Scenario], broker: Broker) -> None:
        self.reactor = reactor
        self.scenarios = {each.name: each for each in scenarios}
        self.broker = broker
        if broker.private:  # a virtual host of its own keeps reactors out of each other's way
            self.broker = replace(broker, vhost=f"on-{reactor}")
        self.process: subprocess.Popen[str] | None = None
        self.outcomes: dict[str, Outcome] = {}
        self.changed = threading.Condition()

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

    def wait(self, name: str, timeout: float) -> Outcome:
        """The outcome of one scenario, waited for."""
        with self.changed:
            self.changed.wait_for(lambda: name in self.outcomes, timeout)
            return self.outcomes.get(name) or Outcome([f"no outcome after {timeout:.0f} s"])


class Pool:
    """Runs the jobs, at most PARALLEL at a time; scenarios marked `alone` after all others."""

    def __init__(self, broker: Broker, chosen: dict[str, list[Scenario]]) -> None:
        self._stopping = threading.Event()
        together, alone = {}, {}
        for reactor, scenarios in chosen.items():
            for jobs, wanted in ((together, False), (alone, True)):
                matching = [each for each in scenarios if each.alone is wanted]
                if matching:
                    jobs[reactor] = Job(reactor, matching, broker)
        self._phases = [(list(together.values()), PARALLEL), (list(alone.values()), 1)]
        self._jobs = {
            (job.reactor, name): job
            for jobs, _ in self._phases
            for job in jobs
            for name in job.scenarios
        }
        self._thread = threading.Thread(target=self._run, name="scenario pool", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        for jobs, parallel in self._phases:
            room = threading.Semaphore(parallel)
            threads = [threading.Thread(target=self._run_job, args=(job, room)) for job in jobs]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

    def _run_job(self, job: Job, room: threading.Semaphore) -> None:
        with room:
            job.run(self._stopping)

    def outcome(self, reactor: str, name: str, timeout: float) -> Outcome:
        """Wait for one scenario's end."""
        return self._jobs[reactor, name].wait(name, timeout)

    def stop(self) -> None:
        """End the runners that still run (a test session that was interrupted)."""
        self._stopping.set()
        for job in {id(job): job for job in self._jobs.values()}.values():
            process: Any = job.process
            if process is not None and process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
        if self._thread.is_alive():
            self._thread.join(10)
