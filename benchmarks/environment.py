"""Where and with what a run was made."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

PACKAGES = ("pika_twisted", "pika", "Twisted", "aio-pika", "aiormq", "AMQPStorm", "amqp", "Cython")


def version(package: str) -> str:
    """Return the installed version of a package."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def processor() -> str:
    """Return the name of the CPU."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"


def answer_of(command: list[str]) -> str:
    """Return what a command prints, or nothing."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=Path(__file__).parent, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


def implementation() -> str:
    """Return which codec of pika_twisted is in use."""
    try:
        from pika_twisted.codec import chooser as _codec
    except ImportError:
        return "none"
    return str(_codec.IMPLEMENTATION)


def describe() -> dict[str, str]:
    """Return everything about the environment that moves the numbers."""
    found = {package: version(package) for package in PACKAGES}
    if found["pika_twisted"] == "not installed" and implementation() != "none":
        import pika_twisted

        found["pika_twisted"] = str(getattr(pika_twisted, "__version__", "source tree"))
    return {
        "date": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "commit": answer_of(["git", "rev-parse", "--short", "HEAD"]),
        "python": f"{platform.python_implementation()} {sys.version.split()[0]}",
        "codec": implementation(),
        **found,
        "rabbitmq-c": answer_of(["pkg-config", "--modversion", "librabbitmq"]) or "unknown",
        "kernel": f"{platform.system()} {platform.release()}",
        "cpu": processor(),
        "cores": str(os.cpu_count()),
        "load": " ".join(f"{load:.2f}" for load in os.getloadavg()),
    }
