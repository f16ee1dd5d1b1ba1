"""Put each mutant into a copy of the package, and look how long the programs take to find it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pika_twisted
from tests.model.mutants import MUTANTS, Mutant

_PACKAGE = Path(pika_twisted.__file__).parent
_ROOT = Path(__file__).parent.parent.parent


def try_all(seconds: float, only: str) -> int:
    """Try the mutants whose name holds `only`; return how many survived."""
    survivors = []
    for mutant in MUTANTS:
        if only in mutant.name:
            start = time.monotonic()
            found = _try(mutant, seconds)
            took = time.monotonic() - start
            print(f"{'found' if found else 'SURVIVED':9}{took:5.1f} s  {mutant.name}", flush=True)
            for line in found.splitlines():
                print(f"             {line[:150]}")
            if not found:
                survivors.append(mutant.name)
    print(f"{len(survivors)} survived: {', '.join(survivors) or 'none'}")
    return len(survivors)


def _try(mutant: Mutant, seconds: float) -> str:
    """What the programs say of a mutant; "" when they see nothing."""
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name)
        shutil.copytree(_PACKAGE, copy / "pika_twisted", ignore=shutil.ignore_patterns("*.c"))
        (copy / "tests").symlink_to(_ROOT / "tests")
        _put_in(mutant, copy / "pika_twisted" / mutant.path)
        done = subprocess.run(
            [sys.executable, "-m", "tests.model", "run", "--seconds", str(seconds)],
            cwd=copy,
            env={**os.environ, "PYTHONPATH": name},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=3 * seconds + 60,
        )
        return done.stdout if done.returncode else ""


def _put_in(mutant: Mutant, path: Path) -> None:
    source = path.read_text()
    if source.count(mutant.before) != 1:
        raise ValueError(f"{mutant.name}: its text is in {mutant.path} not once")
    path.write_text(source.replace(mutant.before, mutant.after))
    compile(path.read_text(), str(path), "exec")
