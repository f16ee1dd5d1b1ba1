"""Look into wheels and sdists: nothing missing, nothing in them that does not belong there.

python .github/scripts/check_archives.py [--release] dist/*

With --release also: every Python of the metadata has a wheel on each platform that has any, and
what one platform has (a free-threaded Python, a new one) all have.
"""

from __future__ import annotations

import re
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODULES = ("_frame", "deferreds/_ready")
WHEEL_NEEDS = (
    "pika_twisted/__init__.py",
    "pika_twisted/_frame.pyi",
    "pika_twisted/deferreds/_ready.pyi",
    "pika_twisted/py.typed",
    "pika_twisted/testing/broker.py",
    "pytest_pika_twisted.py",
)
# Sources of the compiled modules, what is generated from them, what only a checkout is for.
WHEEL_FORBIDS = re.compile(
    r"\.(pyx|pxd|pxi|c|h|cpp|o|html|pyc)$|(^|/)(tests|benchmarks|docs|examples)/"
)
SDIST_NEEDS = (
    "LICENSE",
    "README.md",
    "_frame.pyx",
    "pika_twisted/_frame.pyi",
    "pika_twisted/codec/decoder.pxi",
    "pika_twisted/deferreds/_ready.pyx",
    "pika_twisted/py.typed",
    "pyproject.toml",
    "pytest_pika_twisted.py",
    "setup.py",
    # With these a distribution tests and documents what it ships.
    "CHANGELOG.md",
    "Makefile",
    "benchmarks/__main__.py",
    "docs/conf.py",
    "docs/index.md",
    "examples/workers.py",
    "tests/broker/node.py",
    "tests/support/peer.py",
    "tests/unit/conftest.py",
)
SDIST_FORBIDS = re.compile(r"\.(c|cpp|o|so|pyd|pyc|html)$")
# C that was written, not generated: the other client of the benchmarks, and the fuzz drivers.
SDIST_ALLOWS = re.compile(r"^(benchmarks|tests)/.*\.c$")


def check_wheel(path: Path) -> list[str]:
    """What is wrong with a wheel."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        metadata_name = next(name for name in names if name.endswith(".dist-info/METADATA"))
        metadata = archive.read(metadata_name).decode()
        modules = {name: archive.read(name) for name in names if name.endswith(".so")}
    problems = [f"{name} is missing" for name in WHEEL_NEEDS if name not in names]
    problems += [f"{name} does not belong in" for name in names if WHEEL_FORBIDS.search(name)]
    if not path.name.endswith("-none-any.whl"):
        for module in MODULES:
            compiled = [
                name for name in names if re.match(rf"pika_twisted/{module}\.\S+\.(so|pyd)$", name)
            ]
            if len(compiled) != 1:
                problems.append(f"compiled pika_twisted.{module}: {compiled or 'none'}")
    if "linux" in path.name:  # ELF names its sections in plain text
        problems += [
            f"{name} is not stripped: it has {section.decode()}"
            for name, data in modules.items()
            for section in (b".debug_info", b".symtab")
            if section in data
        ]
    if re.search(r"-linux_\w+\.whl$", path.name):
        problems.append("is not repaired to a manylinux or musllinux tag")
    if not any("licenses/LICENSE" in name for name in names):
        problems.append("has no licence in it")
    for field in ("Requires-Dist: pika", "Requires-Dist: twisted", "Requires-Python: >=3.10"):
        if field.lower() not in metadata.lower():
            problems.append(f"metadata lacks {field!r}")
    return problems


def check_sdist(path: Path) -> list[str]:
    """What is wrong with an sdist."""
    with tarfile.open(path) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
    problems = [f"{name} is missing" for name in SDIST_NEEDS if name not in names]
    problems += [
        f"{name} does not belong in"
        for name in names
        if SDIST_FORBIDS.search(name) and not SDIST_ALLOWS.search(name)
    ]
    return problems


def check_release(wheels: list[Path], pythons: list[str]) -> list[str]:
    """Return which wheel is missing, by platform and Python; `pythons` as "3.10"."""
    tags: dict[str, set[str]] = {}
    for path in wheels:
        *_, abi, platform = path.stem.split("-")
        # The version of the platform differs between Pythons: macosx_10_15 and macosx_11_0.
        kind = re.sub(r"(_\d+)+_|(?<=manylinux)\d+_", "_", platform.split(".")[0])
        tags.setdefault(kind, set()).add(abi)
    if not tags:
        return ["there are no wheels"]
    wanted = {f"cp{version.replace('.', '')}" for version in pythons}.union(*tags.values())
    return [
        f"{kind} has no wheel for {tag}"
        for kind, found in sorted(tags.items())
        for tag in sorted(wanted - found)
    ]


def main(arguments: list[str]) -> int:
    """Print what is wrong with each archive; how many are bad."""
    paths = [argument for argument in arguments if argument != "--release"]
    bad = 0
    if len(paths) < len(arguments):
        metadata = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        pythons = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', metadata)
        problems = check_release([Path(path) for path in paths if path.endswith(".whl")], pythons)
        print(*problems, sep="\n", end="\n" if problems else "")
        bad += bool(problems)
    for path in map(Path, paths):
        problems = check_wheel(path) if path.suffix == ".whl" else check_sdist(path)
        print(f"{'BAD ' if problems else 'ok  '}{path.name} ({path.stat().st_size:,} bytes)")
        for problem in problems:
            print(f"     {problem}")
        bad += bool(problems)
    return bad


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]) or not sys.argv[1:])
