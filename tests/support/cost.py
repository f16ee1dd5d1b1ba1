"""Does work grow with its input? Compared in one process, where other load slows any one run."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import pytest


def _ticks() -> float:
    """Return the smallest step of the clock of CPU time."""
    begun = time.process_time()
    while (now := time.process_time()) == begun:
        pass
    return now - begun


IS_COARSE = _ticks() > 0.001


def needs_fine_clock() -> None:
    """Skip a test that compares CPU times where they come in steps as long as what is measured.

    Windows has 15.6 ms. Elapsed time is none: half of it may be another process's.
    """
    if IS_COARSE:
        pytest.skip("CPU time comes in steps of more than a millisecond here")


def cpu(function: Callable[[], object]) -> float:
    """CPU seconds of one call."""
    started = time.process_time()
    function()
    return time.process_time() - started


def assert_grows_at_most(
    cost: Callable[[int], float], size: int, *, times: int = 10, factor: float = 20
) -> None:
    """`times` the size may cost at most `factor` as much; of up to 8 runs the cheapest counts."""
    needs_fine_clock()
    small = large = math.inf
    for _ in range(8):
        small = min(small, cost(size))
        large = min(large, cost(size * times))
        if large <= factor * small:
            return
    raise AssertionError(f"{times} times the work costs {large:.4f} s CPU, and once {small:.4f} s")
