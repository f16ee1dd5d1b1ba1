"""What setup.py builds: a plain package on request, a whole sdist, and words where it can't."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


def build(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "setup.py", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_without_a_compiler_the_last_line_says_what_to_install(tmp_path: Path) -> None:
    done = build(
        "-q", "build_ext", "--build-lib", tmp_path, "--build-temp", tmp_path, CC="/no/such/cc"
    )
    assert done.returncode == 1
    *_, debian, _, _, last = done.stdout.strip().splitlines()
    assert "apt install gcc libc6-dev python3-dev" in debian
    assert "PIKA_TWISTED_PURE=1 pip install" in last


def test_a_package_in_plain_python_runs_as_it_was_built(tmp_path: Path) -> None:
    done = build(
        "-q",
        "egg_info",
        "--egg-base",
        tmp_path,
        "build",
        "--build-base",
        tmp_path / "base",
        "--build-lib",
        tmp_path / "lib",
        PIKA_TWISTED_PURE="1",
    )
    assert done.returncode == 0, done.stdout
    assert not [*tmp_path.rglob("*.so"), *tmp_path.rglob("*.pyd")]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "lib")}
    environment.pop("PIKA_TWISTED_PURE", None)
    program = "import pika_twisted.codec.chooser as c; print(c.__file__, c.IMPLEMENTATION)"
    asked = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    where, which = asked.stdout.split()
    assert where.startswith(str(tmp_path))
    assert which == "reference"


def test_the_sdist_is_a_whole_checkout(tmp_path: Path) -> None:
    done = build("-q", "egg_info", "--egg-base", tmp_path, "sdist", "--dist-dir", tmp_path)
    assert done.returncode == 0, done.stdout
    (archive,) = tmp_path.glob("*.tar.gz")
    checked = subprocess.run(
        [sys.executable, ".github/scripts/check_archives.py", str(archive)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stdout
    with tarfile.open(archive) as opened:
        packed = {name.partition("/")[2] for name in opened.getnames()}
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if tracked.returncode == 0:  # an unpacked sdist is no checkout
        assert set(tracked.stdout.splitlines()) <= packed
