"""The table at the end, and the same as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import bars, series
from benchmarks.rows import Row
from benchmarks.runner import Outcome, Results

OURS = "pika_twisted"
UNITS = {"us": "cpu", "bytes": "bytes", "ms": "full", "rate": "wall"}
HEADER = (
    f"{'':24}{'CPU us/msg':>11}{'median':>10}{'wall us':>10}{'msgs/s':>12}"
    f"{'pika / it':>11}{'it / C':>9}"
)


def number(value: float | None, width: int) -> str:
    """Return `value` with three digits that count."""
    if value is None:
        return f"{'-':>{width}}"
    if value >= 100:
        return f"{value:>{width},.0f}"
    return f"{value:>{width}.1f}" if value >= 10 else f"{value:>{width}.2f}"


class Ratios:
    """What a row's numbers are compared with."""

    def __init__(self, results: Results, row: Row) -> None:
        self._results = results
        self._row = row

    def baseline(self, client: str) -> float | None:
        """Return a baseline's best value: of this row, or of the row that stands in for it."""
        for key in (self._row.key, self._row.pika_row):
            outcome = self._results.get((key, client))
            if outcome is not None and outcome.answers:
                return outcome.best(UNITS[self._row.unit])
        return None

    def over_pika(self, outcome: Outcome) -> float | None:
        """Return how many times cheaper than pika."""
        base, best = self.baseline("pika"), outcome.best(UNITS[self._row.unit])
        return base / best if base and best else None

    def to_c(self, outcome: Outcome) -> float | None:
        """Return the part of rabbitmq-c's cost."""
        base, best = self.baseline("rabbitmq-c"), outcome.best(UNITS[self._row.unit])
        return best / base if base and best else None


def row_lines(row: Row, results: Results) -> list[str]:
    """Return the lines of one row."""
    lines = [row.title]
    ratios = Ratios(results, row)
    for spec in row.specs:
        outcome = results[row.key, spec.client]
        if outcome.skipped:
            lines.append(f"  {spec.client:22}  skipped: {outcome.skipped}")
            continue
        if not outcome.answers:
            continue
        lines.append(client_line(row, outcome, ratios))
    return lines


def client_line(row: Row, outcome: Outcome, ratios: Ratios) -> str:
    """Return the line of one client."""
    name = f"  {outcome.spec.client:22}"
    over_pika, to_c = ratios.over_pika(outcome), ratios.to_c(outcome)
    ours = outcome.spec.client == OURS
    verdicts = "  ".join(row.bar.verdicts(over_pika, to_c)) if ours else ""
    if row.unit == "ms":
        # Both of one process: a collection takes 5 ms in one and 8 in another.
        fastest = min(outcome.answers, key=lambda answer: answer["full"])
        full, empty = fastest["full"], fastest["empty"]
        ratio = full / empty if empty else 0.0
        met = "met" if ratio <= bars.COLLECTION else "NOT MET"
        verdict = f"bar x{bars.COLLECTION:g} {met}" if ours else ""
        return f"{name}{full * 1e3:>11.1f} ms ({empty * 1e3:.1f} ms) x{ratio:.2f}   {verdict}"
    if row.unit == "bytes":
        value, middle = outcome.best("bytes"), outcome.middle("bytes")
        columns = f"{number(value, 11)}{number(middle, 10)} bytes{'':>16}"
        return f"{name}{columns}{number(over_pika, 11)}{'':9}  {verdicts}"
    wall = outcome.best("wall") or 0.0
    rate = 1e6 / wall if wall else 0.0
    columns = number(outcome.best("cpu"), 11) + number(outcome.middle("cpu"), 10)
    columns += number(wall, 10) + f"{rate:>12,.0f}"
    return f"{name}{columns}{number(over_pika, 11)}{number(to_c, 9)}  {verdicts}"


def backlog_verdict(results: Results) -> list[str]:
    """Return how the cost of get() grew with the backlog."""
    lines = []
    for client in (OURS, "pika"):
        few, many = results.get(("backlog/10", client)), results.get(("backlog/300000", client))
        if few and many and few.answers and many.answers:
            ratio = (many.best("cpu") or 0) / (few.best("cpu") or 1)
            met = "met" if ratio <= bars.BACKLOG_SAME else "NOT MET"
            verdict = f"(bar: the same, {met})" if client == OURS else ""
            lines.append(f"  {client}: get() costs {ratio:.2f} times as much {verdict}")
    return lines


def table(rows: Sequence[Row], results: Results, environment: dict[str, str]) -> str:
    """Return everything for people."""
    lines = ["", "  ".join(f"{name} {value}" for name, value in environment.items()), "", HEADER]
    for row in rows:
        if series.is_scale(row):
            continue
        lines.extend(row_lines(row, results))
        if row.key == "backlog/300000":
            lines.extend(backlog_verdict(results))
    lines.extend(series.table(rows, results))
    lines.append("")
    lines.append(
        "CPU: user + system of the client's process, smallest of the repeats; wall likewise."
    )
    return "\n".join(lines)


def as_json(rows: Sequence[Row], results: Results, environment: dict[str, str]) -> dict[str, Any]:
    """Return everything for machines."""
    entries = []
    for row in rows:
        ratios = Ratios(results, row)
        for spec in row.specs:
            outcome = results[row.key, spec.client]
            entry: dict[str, Any] = {"row": row.key, "title": row.title, "unit": row.unit}
            entry["spec"] = spec.as_dict()
            entry["skipped"] = outcome.skipped
            entry["answers"] = outcome.answers
            if outcome.answers:
                name = UNITS[row.unit]
                entry["min"], entry["median"] = outcome.best(name), outcome.middle(name)
                entry["over_pika"], entry["to_c"] = ratios.over_pika(outcome), ratios.to_c(outcome)
            entry["bar"] = {"pika": row.bar.pika, "rabbitmq-c": row.bar.c_client}
            entries.append(entry)
    return {"environment": environment, "results": entries}


def write_json(
    file: str, rows: Sequence[Row], results: Results, environment: dict[str, str]
) -> None:
    """Write the JSON file."""
    Path(file).write_text(json.dumps(as_json(rows, results, environment), indent=1) + "\n")
