"""Run the suite on all that can be had here: `make matrix` writes docs/compatibility.md.

The unit suite runs on a wheel of each Python of this machine: with the newest pika and Twisted,
with the oldest that the metadata allows, and with the newest pre-releases. The scenarios run on
each RabbitMQ that .ci/setup knows. A row that failed stands in the table with what failed.

python .github/scripts/run_matrix.py [--only TEXT] [--tests PATHS] [--no-brokers] [--keep]
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from make_wheels import ROOT, find_pythons, make_environment, run, say

PAGE = ROOT / "docs/compatibility.md"
BEGIN, END = "<!-- matrix: begin -->", "<!-- matrix: end -->"
BROKERS = ("3.10", "4.0", "4.3")
OLDEST = ("pika==1.3.2", "twisted==22.10.0")
MIDDLE = ("pika==1.3.2", "twisted==24.11.0")
NEWEST = ("--pre", "--upgrade", "pika", "twisted")
SUMMARY = re.compile(r"\d+ (?:passed|failed|error).* in [\d.]+s")


@dataclass
class Row:
    """One line of the table."""

    what: str
    python: str
    pika: str
    twisted: str
    rabbitmq: str
    result: str

    def line(self) -> str:
        """Return the row in Markdown."""
        cells = (self.what, self.python, self.pika, self.twisted, self.rabbitmq, self.result)
        return f"| {' | '.join(cells)} |"


def environments(pythons: list[str]) -> list[tuple[str, str, tuple[str, ...]]]:
    """Return what runs the unit suite: a name, a Python, the requirements beside the wheel."""
    chosen: list[tuple[str, str, tuple[str, ...]]] = [("newest", python, ()) for python in pythons]
    chosen.append(("oldest", pythons[0], OLDEST))
    chosen.append(("older", pythons[-1], MIDDLE))
    chosen.append(("pre-releases", pythons[-1], NEWEST))
    return chosen


def version(python: Path, package: str) -> str:
    """Return the installed version of a package."""
    program = f"from importlib.metadata import version; print(version({package!r}))"
    return run(python, "-c", program, cwd=Path("/")).strip()


def pytest(python: Path, arguments: list[str], folder: Path, **environment: str) -> str:
    """Run pytest and return its last line, with the names of what failed."""
    done = subprocess.run(
        [str(python), "-m", "pytest", "-q", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": "", **environment},
        capture_output=True,
        text=True,
    )
    found = SUMMARY.findall(done.stdout)
    if not found:
        return f"did not run: {(done.stdout + done.stderr).strip().splitlines()[-1]}"
    failed = re.findall(r"^(?:FAILED|ERROR) \S*?([^/:\s]+)(?: |$)", done.stdout, re.MULTILINE)
    names = f" ({', '.join(failed[:5])}{', ...' if len(failed) > 5 else ''})" if failed else ""
    return re.sub(r" in [\d.]+s.*", "", found[-1]) + names


def build(python: str, folder: Path) -> Path:
    """Return a wheel of this checkout."""
    environment = make_environment(python, folder / "build")
    run(environment, "-m", "pip", "wheel", "--no-deps", "-w", folder, ROOT)
    (wheel,) = folder.glob("*.whl")
    return wheel


def unit_rows(options: argparse.Namespace, folder: Path) -> list[Row]:
    """Run the unit suite in an environment for each row."""
    pythons = find_pythons()
    wheels: dict[str, Path] = {}
    rows = []
    for number, (name, version_of_python, extra) in enumerate(environments(list(pythons))):
        if options.only not in f"{name} {version_of_python}":
            continue
        there = folder / f"row-{number}"
        if version_of_python not in wheels:
            place = folder / f"wheel-{version_of_python}"
            wheels[version_of_python] = build(pythons[version_of_python], place)
        python = make_environment(pythons[version_of_python], there)
        wheel = f"{wheels[version_of_python]}[test]"
        run(python, "-m", "pip", "install", "-q", "--prefer-binary", wheel, *extra)
        outside = there / "outside"
        outside.mkdir()
        run("cp", "-r", ROOT / "tests", ROOT / "pyproject.toml", outside)
        tests = ["-n", "auto", "--dist", "worksteal", *options.tests.split()]
        result = pytest(python, tests, outside)
        full = run(python, "-c", "import platform; print(platform.python_version())").strip()
        row = Row(
            "unit suite", full, version(python, "pika"), version(python, "twisted"), "", result
        )
        say(row.line())
        rows.append(row)
    return rows


def broker_rows(options: argparse.Namespace) -> list[Row]:
    """Run the scenarios on each RabbitMQ, with the environment that runs this."""
    python = Path(sys.executable)
    rows = []
    for broker in BROKERS:
        if options.only not in f"RabbitMQ {broker}":
            continue
        run(ROOT / ".ci/setup", "broker", broker)
        shown = "from tests.broker.node import create_node; n = create_node(); print(n.version())"
        full = subprocess.run(
            [python, "-c", f"{shown}; n.stop(); n.remove()"],
            cwd=ROOT,
            env={**os.environ, "BROKER": broker},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        result = pytest(python, ["tests/broker"], ROOT, BROKER=broker, PYTHONPATH=str(ROOT))
        row = Row(
            "scenarios",
            platform.python_version(),
            version(python, "pika"),
            version(python, "twisted"),
            full,
            result,
        )
        say(row.line())
        rows.append(row)
    return rows


def write(rows: list[Row], keep: bool) -> None:
    """Put the table into the page; with `keep` behind the rows that are there."""
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    old, _, after = rest.partition(END)
    head = ["| | Python | pika | Twisted | RabbitMQ | result |", "|---|---|---|---|---|---|"]
    kept = [line for line in old.splitlines() if keep and line.startswith("| ")][1:]
    new = {tuple(line.split("|")[1:6]) for line in (row.line() for row in rows)}
    kept = [line for line in kept if tuple(line.split("|")[1:6]) not in new]
    machine = f"{platform.machine()}, {platform.libc_ver()[0]} {platform.libc_ver()[1]}"
    stamp = f"Run on {datetime.date.today():%d %B %Y}, Linux {machine}, by `make matrix`:"
    table = "\n".join([BEGIN, stamp, "", *head, *kept, *(row.line() for row in rows), "", END])
    PAGE.write_text(f"{before}{table}{after}", encoding="utf-8")


def main() -> int:
    """Run all rows; 1 where one failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="", help="rows whose name has this: '3.12', 'RabbitMQ'")
    parser.add_argument("--tests", default="tests/unit tests/defects", help="of the unit suite")
    parser.add_argument("--no-brokers", action="store_true", help="the unit suite alone")
    parser.add_argument("--keep", action="store_true", help="keep the other rows of the table")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pika-twisted-matrix-") as folder:
        rows = unit_rows(options, Path(folder))
    if not options.no_brokers:
        rows += broker_rows(options)
    write(rows, options.keep or bool(options.only))
    return any("failed" in row.result or "did not" in row.result for row in rows)


if __name__ == "__main__":
    sys.exit(main())
