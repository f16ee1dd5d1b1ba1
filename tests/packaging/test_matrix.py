"""The table of docs/compatibility.md: which environments it has, and how rows get into the page."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

SCRIPTS = str(Path(__file__).parents[2] / ".github/scripts")
sys.path.insert(0, SCRIPTS)
try:
    import run_matrix
finally:
    sys.path.remove(SCRIPTS)


def row(python: str, result: str) -> run_matrix.Row:
    return run_matrix.Row("unit suite", python, "1.4.4", "26.10.0", "", result)


def test_every_python_and_the_oldest_and_the_coming_of_what_it_stands_on() -> None:
    found = run_matrix.environments(["3.10", "3.13"])
    assert ("newest", "3.10", ()) in found
    assert ("newest", "3.13", ()) in found
    assert ("oldest", "3.10", ("pika==1.3.2", "twisted==22.10.0")) in found
    assert [name for name, _, extra in found if "--pre" in extra] == ["pre-releases"]


def test_rows_are_written_and_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{run_matrix.BEGIN}\n{run_matrix.END}\nafter\n")
    monkeypatch.setattr(run_matrix, "PAGE", page)
    run_matrix.write([row("3.10.1", "5 passed"), row("3.13.0", "1 failed (test_x)")], keep=False)
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "| unit suite | 3.13.0 | 1.4.4 | 26.10.0 |  | 1 failed (test_x) |" in text
    run_matrix.write([row("3.13.0", "6 passed")], keep=True)
    text = page.read_text()
    assert "| 3.10.1 |" in text
    assert "| 6 passed |" in text
    assert "failed" not in text
    run_matrix.write([row("3.13.0", "6 passed")], keep=False)
    assert "| 3.10.1 |" not in page.read_text()


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("print('12 passed, 3 skipped in 1.5s')", "12 passed, 3 skipped"),
        (
            "print('FAILED tests/a.py::test_x - E'); print('1 failed, 2 passed in 0.1s (0:00:01)')",
            "1 failed, 2 passed (test_x)",
        ),
        ("raise SystemExit('no module named pytest')", "did not run: no module named pytest"),
    ],
)
def test_what_pytest_says(tmp_path: Path, output: str, expected: str) -> None:
    (tmp_path / "pytest.py").write_text(output)
    assert (
        run_matrix.pytest(Path(sys.executable), [], tmp_path, PYTHONPATH=str(tmp_path)) == expected
    )
