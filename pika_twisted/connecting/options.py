"""The keyword arguments that `connect()` and `RecoveringService` pass on to each connection."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, TypedDict

import pika

from pika_twisted.transport.read_gate import WaterMarks


class ServiceOptions(TypedDict, total=False):
    """Those of `RecoveringService`, which has `water_marks` as an argument of its own.

    `TwistedProtocolConnection` says what each does, in which unit, and its default.
    """

    direct_delivery: bool
    buffer_size: int
    max_message_size: int
    max_header_size: int
    max_nesting: int
    handshake_timeout: float
    close_timeout: float
    read_interval: float


class ConnectionOptions(ServiceOptions, total=False):
    """Those of `connect()`: all keyword arguments of `TwistedProtocolConnection`."""

    water_marks: WaterMarks | None


def check_options(options: Mapping[str, Any]) -> None:
    """TypeError naming an option that is none, and what was meant."""
    known = {*ServiceOptions.__annotations__, *ConnectionOptions.__annotations__}
    for name in options:
        if name in known:
            continue
        text = f"there is no option {name}"
        if hasattr(pika.ConnectionParameters, name):
            text += (
                f": {name} is one of pika's parameters; write it into the URL (?{name}=...) or use "
                f"pika.ConnectionParameters({name}=...)"
            )
        elif close := difflib.get_close_matches(name, known, 1):
            text += f"; {close[0]} is one"
        raise TypeError(text)
