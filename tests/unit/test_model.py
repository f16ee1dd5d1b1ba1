"""Random programs over the broker in memory: what `make model` runs for longer.

`PIKA_TWISTED_PROGRAMS` is how many (default 300), `PIKA_TWISTED_SEED` where they start. A seed that
fails: `python -m tests.model replay SEED` prints the smallest program that fails like it.
"""

from __future__ import annotations

import os

import pytest

from tests.model.program import Program, Step, generate
from tests.model.service_session import run_service
from tests.model.session import run
from tests.model.shrink import shrink

FIRST = int(os.environ.get("PIKA_TWISTED_SEED", "0"))
PROGRAMS = int(os.environ.get("PIKA_TWISTED_PROGRAMS", "300"))
_EACH = 50


@pytest.mark.parametrize("first", range(FIRST, FIRST + PROGRAMS, _EACH))
def test_programs(first: int) -> None:
    wrong = {seed: run(generate(seed)) for seed in range(first, first + _EACH)}
    assert not {seed: complaints for seed, complaints in wrong.items() if complaints}


def test_programs_over_a_service() -> None:
    wrong = {seed: run_service(seed, collect=False) for seed in range(FIRST, FIRST + 30)}
    assert not {seed: complaints for seed, complaints in wrong.items() if complaints}


def test_a_program_is_the_same_each_time() -> None:
    assert generate(17) == generate(17)
    assert generate(17) != generate(18)


def test_shrinking_keeps_what_fails() -> None:
    def fails(program: Program) -> list[str]:
        ops = [step.op for step in program.steps]
        return ["consumed 7 times"] if "consume" in ops and "cut" in ops else []

    steps = tuple(Step(op) for op in ("turn", "consume", "put", "turn", "cut", "wait"))
    small = shrink(Program(0.2, 7, 3, 1, steps), fails)
    assert small == Program(0.0, 1 << 16, 0, 1, (Step("consume"), Step("cut")))
