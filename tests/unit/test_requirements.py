"""What an import says when something that it needs is missing or too old."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from pika_twisted import _requirements


def importing(before: str, *, pure: str = "0") -> str:
    """What `import pika_twisted` prints after running `before`."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{before}\nimport pika_twisted"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": ":".join(sys.path), "PIKA_TWISTED_PURE": pure},
    )
    return done.stderr.strip()


@pytest.mark.parametrize("package", ["pika", "twisted"])
def test_too_old(package: str) -> None:
    text = importing(f"import {package}; {package}.__version__ = '1.2.0'")
    last = text.splitlines()[-1]
    assert last.startswith("ImportError: pika_twisted needs ")
    assert "and this is" in last
    assert "pip install --upgrade" in last


def test_without_the_compiled_codec() -> None:
    text = importing("sys.modules['pika_twisted._frame'] = None")
    assert "pika_twisted._frame) is missing. Install a wheel" in text.splitlines()[-1]
    assert importing("sys.modules['pika_twisted._frame'] = None", pure="1") == ""


def test_tls_without_pyopenssl() -> None:
    text = importing("sys.modules['OpenSSL'] = None\nimport pika_twisted.connecting.tls")
    assert "ImportError: TLS needs pyOpenSSL" in text
    assert "pip install 'Twisted[tls]'" in text.splitlines()[-1]
    assert importing("sys.modules['OpenSSL'] = None") == ""


@pytest.mark.parametrize(
    ("version", "expected"),
    [("1.3.2", (1, 3, 2)), ("22.10.0rc1", (22, 10, 0)), ("1.4.0b0", (1, 4, 0)), ("unknown", ())],
)
def test_numbers(version: str, expected: tuple[int, ...]) -> None:
    assert _requirements.numbers(version) == expected


def test_the_metadata_say_the_same() -> None:
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    for package, oldest in _requirements.OLDEST.items():
        short = oldest.removesuffix(".0")
        assert f"{package}>={short}" in text.replace("[tls]", "")


@pytest.mark.skipif(
    not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="for free-threaded Python"
)
def test_importing_leaves_the_interpreter_without_its_lock() -> None:
    """CPython takes the lock again for a module that does not declare that it needs none."""
    # It says so on stderr, too.
    assert (
        importing("import atexit; atexit.register(lambda: sys._is_gil_enabled() and 1 / 0)") == ""
    )
