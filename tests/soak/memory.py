"""How the memory of this process goes on: samples, and the line through them."""

from __future__ import annotations

import gc
import os
import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Sample:
    """One moment: hours since the start, resident octets, blocks of Python's allocator."""

    hours: float
    resident: int
    blocks: int


def resident() -> int:
    """Octets of physical memory that this process has now (Linux)."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def slope(points: list[tuple[float, float]]) -> float:
    """The slope of the line through points (x, y) by least squares; 0 for fewer than two."""
    count = len(points)
    mean_x = sum(x for x, _ in points) / max(count, 1)
    mean_y = sum(y for _, y in points) / max(count, 1)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0


class Memory:
    """Samples; those of the first `warm_up` hours don't count for the slope."""

    def __init__(self, warm_up: float) -> None:
        self.warm_up = warm_up
        self.samples: list[Sample] = []

    def sample(self, hours: float) -> Sample:
        """Look now, without the garbage that only waits for the collector."""
        gc.collect()
        self.samples.append(Sample(hours, resident(), sys.getallocatedblocks()))
        return self.samples[-1]

    def _counted(self) -> list[Sample]:
        return [each for each in self.samples if each.hours >= self.warm_up]

    def megabytes_an_hour(self) -> float:
        """The slope of the resident memory."""
        return slope([(each.hours, each.resident / 1e6) for each in self._counted()])

    def blocks_an_hour(self) -> float:
        """The slope of the number of blocks."""
        return slope([(each.hours, each.blocks) for each in self._counted()])
