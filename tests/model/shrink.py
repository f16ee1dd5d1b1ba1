"""Make a failing program smaller while it still fails in the same way."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from tests.model.program import Program, Step


def kind_of(complaint: str) -> str:
    """A complaint without its numbers."""
    return re.sub(r"\d+|0x[0-9a-f]+", "N", complaint)[:60]


def shrink(program: Program, run: Callable[[Program], list[str]], seconds: float = 20.0) -> Program:
    """Take out steps, then what they do inside, then delays, while the first complaint stays."""
    wanted = {kind_of(each) for each in run(program)}
    end = time.monotonic() + seconds

    def fails(candidate: Program) -> bool:
        return time.monotonic() < end and bool(wanted & {kind_of(c) for c in run(candidate)})

    size = len(program.steps) // 2
    while size:
        start = 0
        while start < len(program.steps):
            steps = program.steps[:start] + program.steps[start + size :]
            if fails(program._replace(steps=steps)):
                program = program._replace(steps=steps)
            else:
                start += size
        size //= 2
    for number, step in enumerate(program.steps):
        for simpler in _simpler(step):
            steps = (*program.steps[:number], simpler, *program.steps[number + 1 :])
            if fails(program._replace(steps=steps)):
                program = program._replace(steps=steps)
                break
    for plain in ({"latency": 0.0}, {"read_size": 1 << 16}, {"late_deliveries": 0}):
        if fails(program._replace(**plain)):
            program = program._replace(**plain)
    return program


def _simpler(step: Step) -> list[Step]:
    if not step.inside:
        return []
    fewer = [step._replace(inside=(each,)) for each in step.inside if len(step.inside) > 1]
    return [step._replace(inside=()), *fewer]
