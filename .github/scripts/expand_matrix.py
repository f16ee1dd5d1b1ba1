"""Print each job of the workflows as GitHub expands its matrix, and check them: `make check`.

A matrix can say less than it seems to: an `include` that fits a combination of the lists is merged
into it, so a row with a "label" may take the place of the plain one. Checked are:

- a name for each job of its own, since rows that were merged or doubled show there;
- a plain row (nothing pinned, nothing marked) for every Python of the classifiers;
- actions pinned by a whole commit; the job "check" needs all others; scripts that bash can read,
  and with nothing of `${{ }}` in them, which would be pasted as code.
"""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = ROOT / ".github/workflows"
EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")
PLAIN = {"runner", "python"}  # keys of a row that pins nothing


def expand(matrix: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the combinations of a matrix, as GitHub's documentation of `include` has it."""
    lists = {key: value for key, value in matrix.items() if key not in ("include", "exclude")}
    rows = [dict(zip(lists, values, strict=True)) for values in itertools.product(*lists.values())]
    rows = [
        row
        for row in rows
        if not any(entry.items() <= row.items() for entry in matrix.get("exclude", []))
    ]
    if not lists:
        rows = []
    originals = [dict(row) for row in rows]
    for entry in matrix.get("include", []):
        fitting = [
            row
            for row, original in zip(rows, originals, strict=False)
            if all(original.get(key, value) == value for key, value in entry.items())
        ]
        for row in fitting:
            row.update(entry)
        if not fitting:
            rows.append(dict(entry))
    return rows


def name_of(job_id: str, job: dict[str, Any], row: dict[str, Any]) -> str:
    """Return the name that GitHub shows for a job of a matrix."""

    def value(match: re.Match[str]) -> str:
        scope, _, key = match[1].partition(".")
        return str(row.get(key, "")) if scope == "matrix" else match[0]

    return EXPRESSION.sub(value, str(job.get("name", job_id))).strip()


def rows_of(job: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of a job; a job without a matrix has one, which is empty."""
    matrix = job.get("strategy", {}).get("matrix")
    return expand(matrix) if matrix else [{}]


def check_job(where: str, job: dict[str, Any]) -> list[str]:
    """Return what is wrong with the steps of a job."""
    problems = []
    for number, step in enumerate(job.get("steps", []), 1):
        at = f"{where}, step {number}"
        uses = step.get("uses")
        if uses and not re.search(r"@[0-9a-f]{40}$", uses):
            problems.append(f"{at}: {uses} is not pinned by a commit")
        script = step.get("run")
        if script is None:
            continue
        if EXPRESSION.search(script):
            problems.append(f"{at}: an expression in a script; hand it in by `env`")
        read = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True)
        if read.returncode:
            problems.append(f"{at}: {read.stderr.strip()}")
    return problems


def check_workflow(name: str, workflow: dict[str, Any], pythons: list[str]) -> list[str]:
    """Return what is wrong with one workflow."""
    jobs = workflow["jobs"]
    problems = []
    for job_id, job in jobs.items():
        where = f"{name}: {job_id}"
        problems += check_job(where, job)
        rows = rows_of(job)
        counted = Counter(name_of(job_id, job, row) for row in rows)
        problems += [
            f"{where}: {n} jobs are named {text!r}" for text, n in counted.items() if n > 1
        ]
        if job_id == "unit":
            plain = {row.get("python") for row in rows if row.keys() == PLAIN}
            problems += [f"{where}: no plain row of {p}" for p in pythons if p not in plain]
    if "check" in jobs:
        missing = jobs.keys() - {"check", *jobs["check"]["needs"]}
        problems += [f"{name}: check does not need {job_id}" for job_id in sorted(missing)]
    return problems


def main() -> int:
    """Print every row; 1 with what is wrong."""
    import yaml

    metadata = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    pythons = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', metadata)
    problems = []
    for path in sorted(WORKFLOWS.glob("*.yml")):
        workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
        for job_id, job in workflow["jobs"].items():
            for row in rows_of(job):
                marked = "  (may fail)" if row.get("may-fail") else ""
                print(f"{path.name}: {name_of(job_id, job, row)}{marked}")
        problems += check_workflow(path.name, workflow, pythons)
    print(*problems, sep="\n", file=sys.stderr, end="\n" if problems else "")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
