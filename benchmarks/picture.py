"""The results as pictures: CPU per message of every client, and the cost as the work grows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import series
from benchmarks.rows import Row
from benchmarks.runner import Results

COLOURS = {
    "pika_twisted": "#0b6e4f",
    "pika": "#c0392b",
    "rabbitmq-c": "#34495e",
    "bare": "#b0b7bd",
    "aio-pika": "#e08e45",
    "aiormq": "#edb66f",
    "amqpstorm": "#8e6bbf",
    "py-amqp": "#5b8bd0",
}
PANELS = {
    "consume/await/auto": "consume, auto-ack",
    "consume/await/each": "consume, ack each",
    "publish/usual": "publish, usual properties",
    "live/await/auto": "real broker, auto-ack",
    "live/await/each": "real broker, ack each",
}


def draw(file: str, rows: Sequence[Row], results: Results, environment: dict[str, str]) -> None:
    """Write FILE.png and FILE.svg, and FILE-scale.* where there are series."""
    try:
        import matplotlib
    except ImportError:
        print("no picture: matplotlib is not installed (pip install matplotlib)")
        return
    matplotlib.use("Agg")
    stem = str(Path(file).with_suffix(""))
    note = "  ".join(
        f"{name} {environment[name]}" for name in ("python", "pika", "rabbitmq-c", "cpu")
    )
    panels = [row for row in rows if row.key in PANELS]
    if panels:
        save(bars_figure(panels, results, note), stem)
    found = series.collect(rows, results)
    if found:
        save(series_figure(found, note), f"{stem}-scale")


def save(figure: Any, stem: str) -> None:
    """Write a figure in both formats."""
    for suffix in (".png", ".svg"):
        figure.savefig(stem + suffix, dpi=150)
        print(f"wrote {stem}{suffix}")


def bars_figure(panels: Sequence[Row], results: Results, note: str) -> Any:
    """Return horizontal bars, one panel for each kind of work."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        1, len(panels), figsize=(4.6 * len(panels), 3.6), layout="constrained", squeeze=False
    )
    for axis, row in zip(axes[0], panels, strict=True):
        bars = []
        for spec in row.specs:
            cost = results[row.key, spec.client].best("cpu")
            if cost is not None:
                bars.append((cost, spec.client))
        bars.sort(reverse=True)
        names = [client for _cost, client in bars]
        costs = [cost for cost, _client in bars]
        drawn = axis.barh(names, costs, color=[COLOURS[name] for name in names])
        axis.bar_label(drawn, [f" {cost:.2f}" if cost < 10 else f" {cost:.0f}" for cost in costs])
        axis.set_xscale("log")
        axis.set_xlim(min(costs) / 2, max(costs) * 4)
        axis.set_title(PANELS[row.key])
        axis.set_xlabel("CPU microseconds per message (logarithmic)")
        axis.spines[["top", "right"]].set_visible(False)
    figure.supxlabel(note, fontsize=7, color="#666666")
    return figure


def series_figure(found: dict[tuple[str, str], list[series.Point]], note: str) -> Any:
    """Return one panel for each series."""
    from matplotlib import pyplot

    names = list(dict.fromkeys(name for name, _client in found))
    figure, axes = pyplot.subplots(
        1, len(names), figsize=(3.8 * len(names), 3.6), layout="constrained", squeeze=False
    )
    for axis, name in zip(axes[0], names, strict=True):
        for (series_name, client), points in found.items():
            if series_name == name:
                axis.plot(
                    [point.x for point in points],
                    [point.cost for point in points],
                    marker="o",
                    color=COLOURS[client],
                    label=client,
                )
        axis.set_xscale("symlog" if name == "size" else "log")
        axis.set_yscale("log")
        axis.set_xlabel(series.TITLES[name], fontsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0][0].set_ylabel("CPU us per message")
    axes[0][0].legend(frameon=False)
    figure.supxlabel(note, fontsize=7, color="#666666")
    return figure
