"""A pytest plugin that takes from Python what other systems do not have: macOS, Windows.

    PIKA_TWISTED_TEST_AS=windows python -m pytest -p tests.support.elsewhere tests/unit

The workflows run on the real ones; this shows on Linux that a test asks for something that is not
there. Not simulated: what the systems do differently with the same names.
"""

from __future__ import annotations

import builtins
import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SYSTEM = os.environ.get("PIKA_TWISTED_TEST_AS", "")
COARSE = 0.015625  # Windows counts the CPU time of a process in ticks of its scheduler

MISSING: dict[str, list[tuple[Any, str]]] = {
    "": [],
    "macos": [(socket, "TCP_KEEPIDLE"), (socket, "TCP_USER_TIMEOUT"), (socket, "SO_BINDTODEVICE")],
    "windows": [
        (socket, "AF_UNIX"),
        (socket, "TCP_USER_TIMEOUT"),
        (socket, "SO_BINDTODEVICE"),
        (os, "fork"),
        (os, "wait4"),
    ],
}
MODULES: dict[str, set[str]] = {"": set(), "macos": set(), "windows": {"resource", "fcntl", "pwd"}}


def _without(modules: set[str]) -> None:
    found = builtins.__import__

    def finding(name: str, *arguments: Any, **options: Any) -> Any:
        # Other packages have guards of their own, and have run them by now.
        importer = (arguments[0] if arguments else options.get("globals")) or {}
        if name in modules and str(importer.get("__name__", "")).startswith(("tests", "pika_tw")):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return found(name, *arguments, **options)

    builtins.__import__ = finding


def _coarse(clock: Callable[[], float]) -> Callable[[], float]:
    return lambda: clock() // COARSE * COARSE


def _without_proc() -> None:
    for name in ("read_text", "read_bytes", "write_text", "exists"):
        real = getattr(Path, name)

        def method(self: Path, *arguments: Any, _real: Any = real, **options: Any) -> Any:
            if str(self).startswith("/proc/"):
                if _real.__name__ == "exists":
                    return False
                raise FileNotFoundError(2, "No such file or directory", str(self))
            return _real(self, *arguments, **options)

        setattr(Path, name, method)


def _take_away() -> None:
    import twisted.internet.reactor  # noqa: F401 - with everything this system has

    for module, name in MISSING[SYSTEM]:
        if hasattr(module, name):
            delattr(module, name)
    if SYSTEM:
        import platform

        _without_proc()
        platform.libc_ver = lambda *_: ("", "")
    _without(MODULES[SYSTEM])
    if SYSTEM == "windows":
        time.process_time = _coarse(time.process_time)
        time.thread_time = _coarse(time.thread_time)
        pair = socket.socketpair
        # AF_UNIX by default where there is one, AF_INET on Windows: Python has its own for that.
        socket.socketpair = getattr(socket, "_fallback_socketpair", pair)


_take_away()  # at the import of the plugin: before the tests and their conftest.py


def pytest_report_header() -> str:
    """Say what is simulated."""
    return f"as on {SYSTEM}, simulated on {sys.platform}" if SYSTEM else ""
