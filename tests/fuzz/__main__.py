"""`python -m tests.fuzz`: build the fuzzer, run it, say what it did.

    python -m tests.fuzz run [--seconds 600] [--target stream] [--workers N]
    python -m tests.fuzz replay TARGET FILE ...   what a crasher does, with the sanitizers' report
    python -m tests.fuzz minimise                 tests/fuzz/corpus, from all that is known here

All of it works in build/fuzz; the corpus grows there from run to run.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz import seeds
from tests.fuzz.build import ROOT, build
from tests.fuzz.targets import TARGETS

BUILD = ROOT / "build/fuzz"
DICTIONARY = Path(__file__).with_name("amqp.dict")

OPTIONS = [
    "-print_final_stats=1",
    "-detect_leaks=0",  # libFuzzer's way of looking for them; the driver has its own
    "-timeout=20",
    "-rss_limit_mb=2500",
    "-malloc_limit_mb=64",  # no length that a peer claims is worth that much at once
    f"-dict={DICTIONARY}",
]


@dataclass
class Job:
    """One process of libFuzzer."""

    target: str
    number: int
    process: subprocess.Popen[bytes]
    log: Path


def environment(target: str) -> dict[str, str]:
    return {
        **os.environ,
        "PIKA_TWISTED_FUZZ": target,
        "PIKA_TWISTED_FUZZ_PYTHON": sys.executable,
        "PYTHONPATH": str(BUILD),
        "PYTHONDONTWRITEBYTECODE": "1",
        "ASAN_OPTIONS": "detect_leaks=1:allocator_may_return_null=1",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }


def fuzzer(target: str, *arguments: str) -> list[str]:
    return [str(BUILD / "fuzzer"), *OPTIONS, *arguments]


def start(target: str, number: int, seconds: int) -> Job:
    found, crashes = BUILD / "corpus" / target, BUILD / "crashers"
    seeds.unpack(target, found)
    crashes.mkdir(exist_ok=True)
    log = BUILD / f"{target}-{number}.log"
    command = fuzzer(target, f"-max_total_time={seconds}", "-reload=30")
    command += [f"-artifact_prefix={crashes}/{target}-", str(found)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=environment(target), stdout=output, stderr=subprocess.STDOUT, cwd=BUILD
        )
    return Job(target, number, process, log)


def run(chosen: list[str], seconds: int, workers: int) -> int:
    """All workers busy for all of the time, each target with its share of it."""
    rounds = max(1, -(-len(chosen) // workers))
    count = rounds * workers
    names = [chosen[number % len(chosen)] for number in range(count)]
    share = max(1, seconds // rounds)
    jobs: list[Job] = []
    for begin in range(0, count, workers):
        batch = [
            start(name, begin + offset, share)
            for offset, name in enumerate(names[begin : begin + workers])
        ]
        print(f"{share} s of {', '.join(job.target for job in batch)}", flush=True)
        for job in batch:
            job.process.wait()
        jobs += batch
    return report(jobs)


def report(jobs: list[Job]) -> int:
    executions: Counter[str] = Counter()
    rates: Counter[str] = Counter()
    coverage: Counter[str] = Counter()
    findings = []
    for job in jobs:
        text = job.log.read_text(errors="replace")
        executions[job.target] += last(r"number_of_executed_units: (\d+)", text)
        rates[job.target] += last(r"average_exec_per_sec: +(\d+)", text)
        coverage[job.target] = max(coverage[job.target], last(r"\bcov: (\d+)", text))
        if job.process.returncode != 0:
            findings.append(job)
    print(f"\n{'target':14}{'executions':>12}{'per second':>12}{'edges':>8}{'inputs':>8}")
    for target in dict.fromkeys(job.target for job in jobs):
        inputs = len(list((BUILD / "corpus" / target).iterdir()))
        print(
            f"{target:14}{executions[target]:12,}{rates[target]:12,}{coverage[target]:8,}{inputs:8,}"
        )
    print(f"{'together':14}{executions.total():12,}")
    for job in findings:
        describe(job)
    print("\nfindings:", len(findings) or "none")
    return 1 if findings else 0


def last(pattern: str, text: str) -> int:
    found = re.findall(pattern, text)
    return int(found[-1]) if found else 0


def describe(job: Job) -> None:
    text = job.log.read_text(errors="replace")
    written = re.findall(r"Test unit written to (\S+)", text)
    print(f"\n--- {job.target} ended with {job.process.returncode}; its log: {job.log}")
    telling = re.compile(r".*(ERROR|SUMMARY|Error\b|assert)")
    print("\n".join([line for line in text.splitlines() if telling.match(line)][-8:]))
    for crasher in written:
        print(f"its input: {crasher}")
        print(f"again:     {sys.executable} -m tests.fuzz replay {job.target} {crasher}")


def replay(target: str, files: list[str]) -> int:
    paths = [str(Path(name).resolve()) for name in files]
    command = fuzzer(target, *paths)
    return subprocess.run(command, env=environment(target), cwd=BUILD, check=False).returncode


def minimise(chosen: list[str]) -> int:
    """Keep, of all inputs known here, few that reach everything the others do."""
    for target in chosen:
        merged = BUILD / "merged" / f"{target}-{time.time_ns()}"
        merged.mkdir(parents=True)
        seeds.unpack(target, BUILD / "corpus" / target)
        command = fuzzer(target, "-merge=1", "-max_len=1024", str(merged))
        command += [str(BUILD / "corpus" / target)]
        subprocess.run(command, env=environment(target), cwd=BUILD, check=True, capture_output=True)
        inputs = [path.read_bytes() for path in merged.iterdir()]
        seeds.write(target, inputs)
        print(f"{target}: {len(inputs)} inputs, {sum(map(len, inputs)):,} octets")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--no-build", action="store_true", help="use what build/fuzz holds")
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run")
    running.add_argument("--seconds", type=int, default=600, help="how long in all (600)")
    running.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    running.add_argument("--target", action="append", choices=TARGETS, help="one, more than once")
    replaying = commands.add_parser("replay")
    replaying.add_argument("target", choices=TARGETS)
    replaying.add_argument("file", nargs="+")
    minimising = commands.add_parser("minimise")
    minimising.add_argument("--target", action="append", choices=TARGETS)
    options = parser.parse_args()
    if not options.no_build:
        build(BUILD)
    if options.command == "replay":
        return replay(options.target, options.file)
    chosen = options.target or list(TARGETS)
    if options.command == "minimise":
        return minimise(chosen)
    return run(chosen, options.seconds, options.workers)


if __name__ == "__main__":
    sys.exit(main())
