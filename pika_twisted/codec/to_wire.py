"""Strings, values and tables to the wire, in plain Python.

The reference of the compiled encoder; what the errors of both are made with, so that they read the
same; and what encodes the tables of methods, with any version of pika and either codec.
"""

from __future__ import annotations

import operator
import struct
from calendar import timegm
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from typing import Any, NoReturn

from pika.exceptions import ShortStringTooLong

from .errors import UnsupportedField
from .values import LongLong, Timestamp, decimal_parts

#: Tables in tables, at most; the stack of a thread is finite.
MAX_NESTING = 1000

#: So many characters of the way to a value are shown, and the key that passes them.
LONGEST_PATH = 100

# In the order of the wire.
_PROPERTY_TYPES = {
    "content_type": "s",
    "content_encoding": "s",
    "headers": "F",
    "delivery_mode": "B",
    "priority": "B",
    "correlation_id": "s",
    "reply_to": "s",
    "expiration": "s",
    "message_id": "s",
    "timestamp": "Q",
    "type": "s",
    "user_id": "s",
    "app_id": "s",
    "cluster_id": "s",
}


def body_octets(body: Any) -> bytes:
    """Return a body as it is sent: str as UTF-8, or anything like bytes; bytes are not copied."""
    if type(body) is bytes:
        return body
    try:
        return body.encode("utf-8") if isinstance(body, str) else bytes(memoryview(body))
    except TypeError:
        raise TypeError(f"body must be str or bytes-like, not {type(body).__name__}") from None
    except UnicodeEncodeError as error:
        raise ValueError(f"body can't be encoded as UTF-8: {error}") from error


def encode_properties(properties: Any) -> bytes:
    """Return flags and values of those properties that are set."""
    flags = 0
    writer = Writer()
    for place, (name, kind) in enumerate(_PROPERTY_TYPES.items()):
        value = getattr(properties, name)
        if value is None:
            continue
        flags |= 0x8000 >> place
        writer.path = [name]
        if kind == "s":
            writer.short_string(value)
        elif kind == "F":
            writer.table(value)
        elif kind == "B":
            writer.integer(">B", value, 0, 255)
        else:
            writer.integer(">Q", value, 0, 2**64 - 1)
    return struct.pack(">H", flags) + writer.octets


def encode_table(table: Any, name: str) -> bytes:
    """Return a table with its length; errors begin with `name`."""
    writer = Writer(name)
    writer.table(table)
    return bytes(writer.octets)


class Writer:
    """Writes values one behind the other, and knows where in a table it is: an error says that."""

    def __init__(self, name: str = "") -> None:
        self.octets = bytearray()
        #: The name of a property or argument; keys and indexes lead from there to the value.
        self.path: list[Any] = [name]

    def where(self) -> str:
        """Return the path as one would write it in Python: headers['list'][3]."""
        text = str(self.path[0])
        for key in self.path[1:]:
            if len(text) > LONGEST_PATH:
                return f"{text}..."
            text += f"[{key!r:.{LONGEST_PATH}}]"
        return text

    def refuse(self, error: type[Exception], text: str, *details: Any) -> NoReturn:
        """Raise `error` with a text that begins with the path."""
        raise error(f"{self.where()}{text}", *details)

    def utf8(self, value: Any) -> bytes:
        """Return the UTF-8 of a str, or bytes as they are."""
        if isinstance(value, bytes):
            return value
        if not isinstance(value, str):
            self.refuse(TypeError, f" must be str or bytes, not {type(value).__name__}")
        try:
            return bytes(value, "utf-8")
        except UnicodeEncodeError as error:
            self.refuse(ValueError, f" can't be encoded as UTF-8: {error}")

    def short_string(self, value: Any) -> None:
        """Write a string of at most 255 bytes."""
        octets = self.utf8(value)
        if len(octets) > 255:
            self.refuse(ShortStringTooLong, f": a string of {len(octets)} octets, 255 is the limit")
        self.octets.append(len(octets))
        self.octets += octets

    def long_string(self, tag: bytes, octets: bytes) -> None:
        """Write a string of any length."""
        self.octets += tag + struct.pack(">I", len(octets)) + octets

    def integer(self, layout: str, value: Any, low: int, high: int) -> None:
        """Write an int, or anything that can stand for one."""
        try:
            number = operator.index(value)
        except TypeError:
            self.refuse(TypeError, f" must be an int, not {type(value).__name__}")
        if not low <= number <= high:
            self.refuse(ValueError, f" must be between {low} and {high}, not {number}")
        self.octets += struct.pack(layout, number)

    def table(self, table: Any) -> None:
        """Write a dict, or anything with items(), and all that is in it.

        Without recursion: a stack that is too small for the nesting would hide the real error.
        """
        opened = [self.open_table(table)]
        while opened:
            entries, is_table, begin = opened[-1]
            for key, value in entries:
                if is_table:
                    self.key(key)
                self.path.append(key)
                if isinstance(value, (dict, list)):
                    opened.append(self.open(value))
                    break
                self.value(value)
                self.path.pop()
            else:
                struct.pack_into(">I", self.octets, begin, len(self.octets) - begin - 4)
                opened.pop()
                if opened:
                    self.path.pop()

    def open(self, value: Any) -> tuple[Iterator[Any], bool, int]:
        """Begin a table or an array in another one."""
        if len(self.path) > MAX_NESTING + 1:
            self.refuse(ValueError, f" is nested deeper than {MAX_NESTING} levels")
        if isinstance(value, dict):
            self.octets += b"F"
            return self.open_table(value)
        self.octets += b"A"
        return self.open_entries(enumerate(value), False)

    def open_table(self, table: Any) -> tuple[Iterator[Any], bool, int]:
        """Begin a table; one without entries for what is false, as pika does."""
        items: Any = ()
        if table:
            try:
                items = table.items()
            except AttributeError:
                self.refuse(TypeError, f" must be a dict, not {type(table).__name__}")
        return self.open_entries(items, True)

    def open_entries(self, entries: Any, is_table: bool) -> tuple[Iterator[Any], bool, int]:
        """Leave room for the length of the entries."""
        begin = len(self.octets)
        self.octets += bytes(4)
        return iter(entries), is_table, begin

    def key(self, key: Any) -> None:
        """Write a key."""
        if not isinstance(key, (str, bytes)):
            kind = type(key).__name__
            self.refuse(TypeError, f": the key {key!r} must be str or bytes, not {kind}")
        self.short_string(key)

    def value(self, value: Any) -> None:
        """Write type and value of a field that is no table and no array."""
        if isinstance(value, str):
            self.long_string(b"S", self.utf8(value))
        elif isinstance(value, bytes):
            self.long_string(b"x", value)
        elif isinstance(value, bool):
            self.octets += b"t\1" if value else b"t\0"
        elif isinstance(value, int):
            self.number(value)
        elif isinstance(value, float):
            self.octets += struct.pack(">cd", b"d", value)
        elif value is None:
            self.octets += b"V"
        elif isinstance(value, datetime):
            self.moment(value)
        elif isinstance(value, Decimal):
            self.decimal(value)
        else:
            kind = type(value).__name__
            self.refuse(UnsupportedField, f": values of {kind} can't be sent", value)

    def number(self, value: int) -> None:
        """Write an integer: in 32 bits where it fits and did not come in 64."""
        if isinstance(value, Timestamp):
            self.octets += b"T"
            self.integer(">Q", value, 0, 2**64 - 1)
        elif -(1 << 31) <= value < 1 << 31 and not isinstance(value, LongLong):
            self.octets += struct.pack(">ci", b"I", value)
        else:
            self.octets += b"l"
            self.integer(">q", value, -(1 << 63), (1 << 63) - 1)

    def moment(self, value: datetime) -> None:
        """Write a timestamp: whole seconds since 1970; without a time zone, UTC is meant."""
        try:
            seconds = timegm(value.utctimetuple())
        except (ArithmeticError, ValueError) as error:
            self.refuse(ValueError, f": {value!r} can't be sent: {error}")
        if seconds < 0:
            self.refuse(ValueError, f": {value!r} can't be sent: it is before 1970")
        self.octets += struct.pack(">cQ", b"T", seconds)

    def decimal(self, value: Decimal) -> None:
        """Write a decimal: a scale of 8 bits and an integer of 32."""
        try:
            scale, unscaled = decimal_parts(value)
        except ValueError as error:
            self.refuse(ValueError, f": {value!r} can't be sent: {error}")
        self.octets += struct.pack(">cBi", b"D", scale, unscaled)
