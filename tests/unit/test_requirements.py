"""What an import says when something that it needs is missing or too old."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pika.channel
import pika.connection
import pytest

import pika_twisted
from pika_twisted import _requirements
from pika_twisted.pika_state import private_names


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


@pytest.fixture
def uncompiled(tmp_path: Path) -> Path:
    """A folder with the package's sources, and no compiled module."""
    package = Path(pika_twisted.__file__).parent
    compiled = shutil.ignore_patterns("*.so", "*.pyd", "__pycache__")
    shutil.copytree(package, tmp_path / "pika_twisted", ignore=compiled)
    return tmp_path


def shadowed_by(folder: Path) -> str:
    """The lines that let a folder's package go before the one that is installed.

    The finder of an editable install would look for what is missing in it elsewhere.
    """
    return (
        f"sys.path.insert(0, {str(folder)!r})\n"
        "sys.meta_path[:] = [each for each in sys.meta_path "
        "if not getattr(each, '__module__', '').startswith('__editable__')]"
    )


def test_without_the_compiled_codec(uncompiled: Path) -> None:
    first = shadowed_by(uncompiled)
    text = importing(first)
    assert "pika_twisted._frame) is missing. Install a wheel" in text.splitlines()[-1]
    assert importing(first, pure="1") == ""


def test_in_a_checkout_its_folder_is_named(uncompiled: Path) -> None:
    """`python` inside a clone finds the source folder first, whatever is installed."""
    (uncompiled / "_frame.pyx").touch()
    first = shadowed_by(uncompiled)
    last = importing(first).splitlines()[-1]
    assert last.startswith(
        f"ImportError: {uncompiled.resolve()} is a checkout, and its source folder pika_twisted "
        "shadows the installed package; "
    )
    assert "Run Python from another folder" in last
    assert importing(first, pure="1") == ""


def test_tls_without_pyopenssl() -> None:
    """Only Twisted's own TLS options need it."""
    ask = """
sys.modules['OpenSSL'] = None
from pika_twisted.connecting import tls
class Options:
    def getContext(self): pass
tls.secured({}, "broker")
"""
    text = importing(ask.format("Options()"))
    assert "ImportError: Twisted's TLS needs pyOpenSSL" in text
    assert "pip install 'Twisted[tls]'" in text.splitlines()[-1]
    assert importing(ask.format("True")) == ""


def test_a_pika_that_lacks_a_private_name() -> None:
    """Too new, and said so: with the version, the name that is missing, and what to install."""
    drop = "import pika.connection; del pika.connection.Connection._on_connection_tune"
    last = importing(f"{drop}; pika.__version__ = '2.0.1'").splitlines()[-1]
    assert last.startswith("ImportError: pika_twisted knows pika 1.3.2 to 1.5. This is pika 2.0.1 ")
    assert "in which Connection._on_connection_tune can't be found" in last
    assert "too new" in last and "pip install 'pika==1.5.*'" in last


def test_a_pika_that_was_changed() -> None:
    drop = "import pika.channel; del pika.channel.Channel._on_closeok; pika.__version__ = '1.4.4'"
    last = importing(drop).splitlines()[-1]
    assert "This is pika 1.4.4 " in last
    assert "in which Channel._on_closeok can't be found. Was it changed?" in last


def test_what_the_codec_needs_and_lacks_is_named() -> None:
    """Not "compiled codec is missing": it is there."""
    text = importing("sys.modules['pika.frame'] = None")
    assert "compiled codec" not in text
    assert "pika.frame" in text.splitlines()[-1]


def private_names_of_pika() -> set[str]:
    classes: list[Any] = [pika.connection.Connection, pika.channel.Channel]
    names = {name for each in classes for name in private_names.names_in(each)}
    return {name for name in names if name.startswith("_") and not name.startswith("__")}


def is_inside(path: Path) -> bool:
    """The one folder that may touch pika's private names."""
    return path.parent.name == "pika_state"


def touched(path: Path) -> set[str]:
    """Attributes of other objects than `self`, inside of `self` as well, and what is overridden."""
    inside = is_inside(path)
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            is_own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            if inside or not is_own:
                names.add(node.attr)
        elif isinstance(node, ast.FunctionDef) and inside:
            names.add(node.name)
    return names & private_names_of_pika()


def test_every_private_name_of_pika_is_listed() -> None:
    used = private_names.USED.values()
    listed = {name for names in used for name in " ".join(names).split()}
    package = Path(_requirements.__file__).parent
    for path in package.rglob("*.py"):
        if is_inside(path):
            assert touched(path) <= listed, path
        else:
            assert touched(path) <= {"_consumers"}, path  # TwistedChannel has one, too


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
