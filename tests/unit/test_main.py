"""`python -m pika_twisted`: the report that a bug report begins with."""

from __future__ import annotations

import subprocess
import sys

import pika_twisted
from pika_twisted import __main__ as main


def test_the_report_for_bug_reports() -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "pika_twisted"], capture_output=True, text=True, timeout=60
    )
    assert (printed.stdout.strip(), printed.stderr) == (main.report(), "")
    lines = main.report().splitlines()
    assert lines[0].startswith(f"pika_twisted {pika_twisted.__version__}, ")
    assert lines[1].startswith("pika ") and lines[2].startswith("Twisted ")
