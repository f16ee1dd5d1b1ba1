"""How the memory of this process goes on: samples, and the line through them."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sample:
    """One moment: hours since the start, resident octets, and what is in use of them.

    `kept` is what stays resident when malloc has given back what it holds free: that differs by a
    megabyte from one minute to the next, depending on the sizes of the last bodies. `allocated` are
    octets that malloc has given out, `blocks` those of Python's own allocator (up to 512 octets).
    """

    hours: float
    resident: int
    kept: int
    allocated: int
    blocks: int


def resident() -> int:
    """Octets of physical memory that this process has now (Linux)."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class _MallInfo(ctypes.Structure):
    """`struct mallinfo2` of glibc, see mallinfo(3)."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd",
            "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    ]  # fmt: skip


def allocated() -> int:
    """Octets that malloc has given out; 0 where it doesn't tell (glibc 2.33 and later does)."""
    mallinfo = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if mallinfo is None:
        return 0
    mallinfo.restype = _MallInfo
    found = mallinfo()
    return int(found.uordblks + found.hblkhd)


def give_back() -> None:
    """Let malloc return to the system what it holds free, where it can (glibc)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


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
        before = resident()
        give_back()
        now = Sample(hours, before, resident(), allocated(), sys.getallocatedblocks())
        self.samples.append(now)
        return now

    def _counted(self) -> list[Sample]:
        return [each for each in self.samples if each.hours >= self.warm_up]

    def megabytes_an_hour(self) -> float:
        """The slope of what is kept."""
        return slope([(each.hours, each.kept / 1e6) for each in self._counted()])

    def blocks_an_hour(self) -> float:
        """The slope of the number of blocks."""
        return slope([(each.hours, each.blocks) for each in self._counted()])
