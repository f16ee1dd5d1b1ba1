"""Which codec is in use: the compiled one, or on request its reference in Python."""

from __future__ import annotations

import os
import platform
from importlib.util import find_spec
from pathlib import Path


def _is_pure() -> bool:
    """Return True where the reference was asked for: now, or when the package was built."""
    return (
        os.environ.get("PIKA_TWISTED_PURE") == "1"
        or platform.python_implementation() == "PyPy"
        or find_spec("pika_twisted.codec._pure_build") is not None
    )


def _what_to_do() -> str:
    """Return the text of the error where the compiled codec is missing."""
    root = Path(__file__).resolve().parents[2]
    if (root / "_frame.pyx").exists():
        return (
            f"{root} is a checkout, and its source folder pika_twisted shadows the installed "
            "package; it has no compiled codec (pika_twisted._frame). Run Python from another "
            "folder, build the codec here (pip install -e . with a C compiler), or set "
            "PIKA_TWISTED_PURE=1 for the slow reference codec."
        )
    return (
        "pika_twisted's compiled codec (pika_twisted._frame) is missing. Install a wheel "
        "(pip install --force-reinstall pika-twisted), build it in a checkout "
        "(pip install -e . with a C compiler), or set PIKA_TWISTED_PURE=1 for the slow "
        "reference codec."
    )


if _is_pure():
    from pika_twisted.codec.reference import decoder as _implementation
else:
    try:
        from pika_twisted import _frame as _implementation  # type: ignore[no-redef]
    except ImportError as error:
        if error.name not in ("pika_twisted", "pika_twisted._frame"):
            raise  # it is there, and something that it needs is not
        raise ImportError(_what_to_do()) from error

IMPLEMENTATION: str = _implementation.IMPLEMENTATION

Backlog = _implementation.Backlog
BasicProperties = _implementation.BasicProperties
ChannelEncoder = _implementation.ChannelEncoder
Deliver = _implementation.Deliver
FrameDecoder = _implementation.FrameDecoder
GetOk = _implementation.GetOk
OutputBuffer = _implementation.OutputBuffer
OversizedContent = _implementation.OversizedContent
ReadLoop = _implementation.ReadLoop
Return = _implementation.Return
read_as_slots = _implementation.read_as_slots
