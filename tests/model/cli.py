"""`python -m tests.model`: run, replay, mutants."""

from __future__ import annotations

import argparse
import gc
import sys
import time

from twisted.logger import globalLogBeginner

from tests.model.mutation import try_all
from tests.model.program import Program, generate
from tests.model.service_session import run_service
from tests.model.session import run
from tests.model.shrink import shrink


def main() -> None:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.model", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run", help="random programs, for so long")
    running.add_argument("--seconds", type=float, default=60.0)
    running.add_argument("--seed", type=int, default=0, help="of the first program")
    running.add_argument("--keep-going", action="store_true", help="show all that fail")
    replaying = commands.add_parser("replay", help="the program of one seed, made smaller")
    replaying.add_argument("seed", type=int)
    mutating = commands.add_parser("mutants", help="faults put into a copy of the package")
    mutating.add_argument("--seconds", type=float, default=60.0, help="for each")
    mutating.add_argument("--only", default="", help="those whose name holds this")
    options = parser.parse_args()
    if options.command == "mutants":
        sys.exit(try_all(options.seconds, options.only) and 1)
    prepare()
    if options.command == "replay":
        sys.exit(replay(options.seed))
    sys.exit(run_many(options.seconds, options.seed, options.keep_going))


def run_many(seconds: float, seed: int, keep_going: bool) -> int:
    """Run programs until one fails; 1 when one has."""
    start, first, failed = time.monotonic(), seed, 0
    while time.monotonic() < start + seconds:
        complaints = run(generate(seed))
        if not complaints and seed % 10 == 0:
            complaints = [f"over a service: {each}" for each in run_service(seed)]
        if complaints:
            failed += 1
            print(f"seed {seed}: {complaints[0][:300]}", flush=True)
            if not keep_going:
                return replay(seed)
        seed += 1
    took = time.monotonic() - start
    print(f"{seed - first} programs, {failed} failed, {(seed - first) / took * 60:.0f} a minute")
    return 1 if failed else 0


def replay(seed: int) -> int:
    """Run one program, and print the smallest that fails like it."""
    program = generate(seed)
    complaints = run(program)
    if not complaints:
        over_a_service = run_service(seed)
        print(f"seed {seed}: {over_a_service or 'nothing to complain of'}")
        return 1 if over_a_service else 0
    print(f"seed {seed}: {len(program.steps)} steps")
    show(shrink(program, run))
    return 1


def show(program: Program) -> None:
    """Print a program and what is wrong with it."""
    print(f"{program._replace(steps=())}")
    for step in program.steps:
        print(f"    {step!r},")
    for complaint in run(program):
        print(f"  ! {complaint}")


def prepare() -> None:
    """Leave what is there before the first program out of each collection."""
    globalLogBeginner.beginLoggingTo([], discardBuffer=True, redirectStandardIO=False)
    run(generate(0))
    gc.collect()
    gc.freeze()
