"""What the decoder refuses, in RabbitMQ's words."""

from __future__ import annotations

import re
from typing import Any

from pika import spec

from pika_twisted.codec.errors import DecodeError
from pika_twisted.testing.refusal import Refusal

_METHODS: dict[str, Any] = {method.NAME: method for method in spec.methods.values()}
_ON_CHANNEL = re.compile(r"(\w+\.\w+) on channel (\d+)")
_NUMBER = re.compile(r"\d+")


def refusal_of(error: DecodeError) -> tuple[Refusal, int, int]:
    """Return the refusal, and the class and method id to name."""
    code, text = error.reply_code, error.reply_text
    where = _ON_CHANNEL.fullmatch(text)
    if code == 503 and where is not None:
        index = _METHODS[where[1]].INDEX
        refusal = Refusal(503, "unimplemented method")
        if where[2] == "0":
            refusal = Refusal(504, "unexpected method in connection state running")
        return refusal, index >> 16, index & 0xFFFF
    if code == 505:
        return _sequence(text)
    if code == 501:
        return Refusal(501, _frame_text(text)), 0, 0
    return Refusal(code, text), 0, 0


def _sequence(text: str) -> tuple[Refusal, int, int]:
    if "without a" in text:
        return Refusal(505, "expected method frame, got non method frame instead"), 0, 0
    if "missing" in text:  # as 4.3 says it: before, RabbitMQ waited for the next method
        return Refusal(501, "content body frame exceeds remaining content size"), 60, 40
    got = "expected content header for class 60, got non content header frame instead"
    return Refusal(505, got), 60, 40


def _frame_text(text: str) -> str:
    numbers = [int(each) for each in _NUMBER.findall(text)]
    end = re.search(r"ends in 0x([0-9a-f]{2})", text)
    if end is not None:
        what, kind = f"{{invalid_frame_end_marker,{int(end[1], 16)}}}", 8
    elif "unknown frame type" in text:
        what, kind = "unknown_frame", numbers[0]
    elif "at most" in text:  # only body frames are ever so large; each has 8 bytes around it
        what, kind = f"{{frame_too_large,{numbers[0] - 8},{numbers[1] - 8}}}", 3
    else:
        return text
    return f"type {kind}, all octets = <<>>: {what}"
