"""Methods to frames: pika's own encoders, with the package's strings and tables.

pika's tables differ from version to version: 1.3 and 1.4 refuse floats, and cut decimals.
"""

from __future__ import annotations

import copy
import struct
from collections.abc import Callable
from types import FunctionType, SimpleNamespace
from typing import Any

from pika import frame, spec
from pika.exceptions import ShortStringTooLong

from .errors import UnsupportedField
from .to_wire import Writer, encode_table


def encode_method(channel_number: int, method: Any, frame_max: int | None = None) -> bytes:
    """Return the frame of a method.

    :raises UnsupportedField, ShortStringTooLong, TypeError: an argument can't be encoded; the text
        names it, and the way to the value in a table
    :raises ValueError: the frame is longer than `frame_max`, for which brokers close the connection
    """
    try:
        pieces = _encoded(method)
        pieces.insert(0, struct.pack(">I", method.INDEX))
        encoded = _marshal(frame.Method(channel_number, method), pieces)
    except UnsupportedField as error:
        text = f"{method.NAME}: can't encode {_named(method)}: {_explained(method, error)}"
        raise UnsupportedField(text, error.args[1]) from error
    except ShortStringTooLong as error:
        text = _explained(method, error)
        where = (_culprit(method) or "its arguments") if text.startswith(":") else ""
        raise ShortStringTooLong(f"{method.NAME}: {where}{text}") from error
    except Exception as error:
        text = f"{method.NAME}: can't encode {_named(method)}: {_explained(method, error)}"
        raise TypeError(text) from error
    if frame_max is not None and len(encoded) > frame_max:
        size = len(encoded)
        raise ValueError(f"{method.NAME}: a frame of {size} octets, frame_max is {frame_max}")
    return encoded


# pika's stubs have none of its private names.
_marshal: Callable[[Any, list[bytes]], bytes] = frame.Frame._marshal  # type: ignore[attr-defined]


def _encode_short_string(pieces: list[bytes], value: str | bytes) -> int:
    writer = Writer()
    writer.short_string(value)
    pieces.append(bytes(writer.octets))
    return len(writer.octets)


def _encode_table(pieces: list[bytes], table: Any) -> int:
    octets = encode_table(table, "")
    pieces.append(octets)
    return len(octets)


# pika.spec calls these two by the name of their module.
_SPEC_NAMES = {
    **vars(spec),
    "data": SimpleNamespace(encode_short_string=_encode_short_string, encode_table=_encode_table),
}


def _encoder(encode: Any) -> Callable[[Any], list[bytes]]:
    """Return a copy of one of pika's encoders that writes with the functions above."""
    return FunctionType(encode.__code__, _SPEC_NAMES, encode.__name__, encode.__defaults__)


_ENCODERS = {kind: _encoder(kind.encode) for kind in spec.methods.values()}


def _encoded(method: Any) -> list[bytes]:
    encode = _ENCODERS.get(type(method))
    if encode is None:
        encode = type(method).encode  # a user's own
    return encode(method)


#: One of them can be encoded as an argument of any type.
_HARMLESS: tuple[Any, ...] = ({}, 0, "")
_TABLES = ("arguments", "client_properties", "server_properties")


def _named(method: Any) -> str:
    name = _culprit(method)
    if name in ("new_secret", "response"):  # which don't belong into a log
        return name
    return f"{name}={getattr(method, name)!r}" if name else "its arguments"


def _culprit(method: Any) -> str | None:
    """Return which argument can't be encoded: the one that another value would help."""
    name: str
    for name in vars(method):
        for harmless in _HARMLESS:
            probe = copy.copy(method)
            setattr(probe, name, harmless)
            try:
                _encoded(probe)
            except Exception:
                continue
            return name
    return None


def _explained(method: Any, error: Exception) -> str:
    """Return the text of `error`; from a table again, where that knows its argument's name."""
    name = _culprit(method)
    if name in _TABLES:
        try:
            encode_table(getattr(method, name), name)
        except Exception as named:
            return str(named)
    return str(error)
