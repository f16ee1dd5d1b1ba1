"""`python -m pika_twisted`: what is installed here, for a bug report."""

from __future__ import annotations

import platform
import sys


def report() -> str:
    """One line for each thing that matters."""
    import pika
    import twisted

    from pika_twisted.codec import chooser as _codec

    from . import __version__

    lines = [
        f"pika_twisted {__version__}, {_codec.IMPLEMENTATION} codec",
        f"pika {pika.__version__}",
        f"Twisted {twisted.__version__}",
        f"{platform.python_implementation()} {platform.python_version()}"
        + ("" if getattr(sys, "_is_gil_enabled", lambda: True)() else ", no GIL"),
        platform.platform(),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    print(report())
