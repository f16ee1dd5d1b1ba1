"""The scale rows as compact tables: cost against amount of work, and how straight the line is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.rows import Row
from benchmarks.runner import Results
from benchmarks.scale import TITLES
from benchmarks.worker import TWISTED

PREFIX = "scale/"
# More of the same: the cost per message should stay flat. It rises with the bytes of a body, and
# falls with the bytes in each read.
FLAT = ("messages", "channels", "backlog")


@dataclass(frozen=True)
class Point:
    """One measured point of a series."""

    x: int
    cost: float  # microseconds of CPU per message


def is_scale(row: Row) -> bool:
    """Return whether a row belongs to a series."""
    return row.key.startswith(PREFIX)


def collect(rows: Sequence[Row], results: Results) -> dict[tuple[str, str], list[Point]]:
    """Return the points of every (series, client)."""
    found: dict[tuple[str, str], list[Point]] = {}
    for row in filter(is_scale, rows):
        _prefix, name, x = row.key.split("/")
        for spec in row.specs:
            outcome = results.get((row.key, spec.client))
            cost = outcome.best("cpu") if outcome is not None else None
            if cost is not None:
                found.setdefault((name, spec.client), []).append(Point(int(x), cost))
    return found


def growth(points: Sequence[Point]) -> float:
    """Return the largest cost per message of a series over its smallest."""
    costs = [point.cost for point in points if point.cost > 0]
    return max(costs) / min(costs) if costs else math.nan


def exponent(points: Sequence[Point]) -> float:
    """Return n in cost ~ x**n over the upper half of a series: 1 where a line is straight."""
    upper = [point for point in points[len(points) // 2 :] if point.x > 0 and point.cost > 0]
    if len(upper) < 2:
        return math.nan
    first, last = upper[0], upper[-1]
    return math.log(last.cost / first.cost) / math.log(last.x / first.x)


def table(rows: Sequence[Row], results: Results) -> list[str]:
    """Return the lines of all series."""
    found = collect(rows, results)
    lines = []
    for name in dict.fromkeys(series for series, _client in found):
        lines.extend(["", f"CPU us per message, by {TITLES[name]}"])
        values = sorted(
            {point.x for key, points in found.items() if key[0] == name for point in points}
        )
        lines.append(f"  {'':14}" + "".join(f"{value:>12,}" for value in values))
        for client in TWISTED:
            points = found.get((name, client))
            if points:
                lines.append(series_line(name, client, points, values))
    return lines


def series_line(name: str, client: str, points: Sequence[Point], values: Sequence[int]) -> str:
    """Return the line of one client in one series."""
    by_x = {point.x: point.cost for point in points}
    cells = "".join(f"{by_x[x]:>12,.2f}" if x in by_x else f"{'':>12}" for x in values)
    if name in FLAT:
        note = f"   largest / smallest {growth(points):.2f}"
    elif name == "size":
        note = f"   ~ bytes^{exponent(points):.2f}"
    else:
        note = ""
    return f"  {client:14}{cells}{note}"
