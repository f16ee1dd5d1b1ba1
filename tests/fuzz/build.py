"""Builds the fuzzer: the compiled modules with coverage and sanitizers, and the driver."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CLANG = os.environ.get("CLANG", "clang")

# pointer-overflow: Cython's own NULL + 0, which C leaves undefined and every machine defines.
SANITIZERS = [
    "-fsanitize=address,undefined",
    "-fno-sanitize=pointer-overflow",
    "-fno-sanitize-recover=undefined",
]
FLAGS = ["-g", "-O1", "-fno-omit-frame-pointer"]


def build(there: Path) -> Path:
    """The fuzzer's program, in a folder with its own copy of the package and the tests."""
    there.mkdir(parents=True, exist_ok=True)
    _build_modules(there)
    for source in (ROOT / "pika_twisted").rglob("*.py*"):
        if source.suffix in (".py", ".pyi"):
            target = there / source.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    shutil.rmtree(there / "tests", ignore_errors=True)
    ignored = shutil.ignore_patterns("__pycache__", "broker")
    shutil.copytree(ROOT / "tests", there / "tests", ignore=ignored)
    program = there / "fuzzer"
    driver = [f"-I{sysconfig.get_path('include')}", str(ROOT / "tests/fuzz/driver.c")]
    flags = [*FLAGS, "-fsanitize=fuzzer", *SANITIZERS, "-rdynamic"]
    run([CLANG, *flags, *driver, *embedding(), "-o", str(program)])
    return program


def _build_modules(there: Path) -> None:
    # What pyproject.toml asks for; the environment may have older ones.
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    run([*pip, "--group", "build"], cwd=ROOT)
    flags = " ".join([*FLAGS, "-fsanitize=fuzzer-no-link", *SANITIZERS])
    environment = {**os.environ, "CC": CLANG, "CFLAGS": flags, "LDFLAGS": ""}
    command = [sys.executable, "setup.py", "-q", "build_ext"]
    command += ["--build-lib", str(there), "--build-temp", str(there / "temp")]
    run(command, cwd=ROOT, env=environment)


def embedding() -> list[str]:
    """What links this interpreter into a program."""
    variables = sysconfig.get_config_vars()
    library = f"python{variables['LDVERSION']}"
    extra = [*variables["LIBS"].split(), *variables["SYSLIBS"].split()]
    folder = Path(variables["LIBDIR"])
    for shared in (folder, folder / variables.get("MULTIARCH", "")):
        if (shared / f"lib{library}.so").exists():
            return [f"-L{shared}", f"-Wl,-rpath,{shared}", f"-l{library}", *extra]
    static = Path(variables["LIBPL"]) / f"lib{library}.a"
    if static.exists():
        return ["-Wl,--whole-archive", str(static), "-Wl,--no-whole-archive", *extra]
    sys.exit(f"{sys.executable} comes without lib{library}, so it can't be embedded")


def run(command: list[str], **options: object) -> None:
    try:
        subprocess.run(command, check=True, **options)  # type: ignore[call-overload]
    except subprocess.CalledProcessError as failed:
        sys.exit(failed.returncode)
