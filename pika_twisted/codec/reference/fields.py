"""Method arguments, properties and tables for the reference codec.

The layout of every method and of the properties is pika's: its generated decoders run here
unchanged. Only the field readers below them are ours, because pika's read past the end of what
holds a field without noticing, cut floats to integers and refuse late timestamps
(``tests/differences.py`` lists all of it).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from types import FunctionType, SimpleNamespace
from typing import Any

from pika import amqp_object, spec

from pika_twisted.codec.errors import FieldError, UndecodableProperties
from pika_twisted.codec.values import LongLong, decimal_of, timestamp_of

# What reading an untrusted payload through pika's decoders can end in. RecursionError: nested
# deeper than Python's own stack allows, where max_nesting was set beyond it.
UNREADABLE = (FieldError, struct.error, IndexError, RecursionError)


class Payload(bytes):
    """The octets fields are read from, with the one limit that reading them needs.

    pika's decoders cut long strings out by slicing, which a length that lies would shorten
    silently; a slice of a Payload has to lie inside it.
    """

    max_nesting: int

    def __new__(cls, octets: bytes, max_nesting: int) -> Payload:
        self = super().__new__(cls, octets)
        self.max_nesting = max_nesting
        return self

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice) and index.stop is not None and index.stop > len(self):
            raise FieldError("a string passes the end of the frame")
        return bytes.__getitem__(self, index)


def _text_or_bytes(octets: bytes) -> str | bytes:
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        return octets


# https://www.rabbitmq.com/amqp-0-9-1-errata#section_3: the tags as brokers really use them.
_FIXED_SIZE: dict[int, tuple[struct.Struct, Callable[..., Any]]] = {
    ord(tag): (struct.Struct(layout), convert)
    for tag, layout, convert in (
        ("t", ">B", bool),
        ("b", ">b", int),
        ("B", ">B", int),
        ("s", ">h", int),
        ("U", ">h", int),
        ("u", ">H", int),
        ("I", ">i", int),
        ("i", ">I", int),
        ("l", ">q", LongLong),
        ("L", ">q", LongLong),
        ("f", ">f", float),
        ("d", ">d", float),
        ("D", ">Bi", decimal_of),
        ("T", ">Q", timestamp_of),
        ("V", ">", lambda: None),
    )
}
_SIZE = struct.Struct(">I")


class _Cursor:
    """Reads one payload forwards; nothing is read past ``end``, the end of the innermost holder."""

    def __init__(self, payload: Payload, offset: int) -> None:
        self.payload = payload
        self.offset = offset
        self.end = len(payload)
        self.depth = 0

    def take(self, count: int) -> int:
        """Step over ``count`` octets and return where they begin."""
        begin = self.offset
        if count > self.end - begin:
            raise FieldError("a length passes the end of what holds it")
        self.offset = begin + count
        return begin

    def octets(self, size_layout: struct.Struct) -> bytes:
        (size,) = size_layout.unpack_from(self.payload, self.take(size_layout.size))
        begin = self.take(size)
        return bytes(self.payload[begin : begin + size])

    def short_string(self) -> str | bytes:
        return _text_or_bytes(self.octets(struct.Struct("B")))

    def entries(self, read_entry: Callable[[], None]) -> None:
        """Read the entries of a table or an array; the last one has to end where it ends."""
        (size,) = _SIZE.unpack_from(self.payload, self.take(_SIZE.size))
        outer_end, begin = self.end, self.take(size)
        self.offset, self.end = begin, begin + size
        if self.depth > self.payload.max_nesting:
            raise FieldError(f"nested deeper than {self.payload.max_nesting} levels")
        self.depth += 1
        while self.offset < self.end:
            read_entry()
        self.depth -= 1
        self.end = outer_end

    def table(self) -> dict[str | bytes, Any]:
        result: dict[str | bytes, Any] = {}

        def read_entry() -> None:
            key = self.short_string()
            result[key] = self.value()

        self.entries(read_entry)
        return result

    def array(self) -> list[Any]:
        result: list[Any] = []
        self.entries(lambda: result.append(self.value()))
        return result

    def value(self) -> Any:
        tag = self.payload[self.take(1)]
        if tag in _FIXED_SIZE:
            layout, convert = _FIXED_SIZE[tag]
            return convert(*layout.unpack_from(self.payload, self.take(layout.size)))
        if tag == ord("S"):
            return _text_or_bytes(self.octets(_SIZE))
        if tag == ord("x"):
            return self.octets(_SIZE)
        if tag == ord("F"):
            return self.table()
        if tag == ord("A"):
            return self.array()
        raise FieldError(f"unknown field type {bytes([tag])!r}")


def _decode_short_string(payload: Payload, offset: int) -> tuple[str | bytes, int]:
    cursor = _Cursor(payload, offset)
    return cursor.short_string(), cursor.offset


def _decode_table(payload: Payload, offset: int) -> tuple[dict[str | bytes, Any], int]:
    cursor = _Cursor(payload, offset)
    return cursor.table(), cursor.offset


# pika.spec calls these two by the name of their module; the decoders below see ours instead.
_SPEC_NAMES = {
    **vars(spec),
    "data": SimpleNamespace(decode_short_string=_decode_short_string, decode_table=_decode_table),
}


def _strict(decode: Any) -> Callable[[Any, Payload, int], Any]:
    """A copy of one of pika's decoders that reads its fields with the functions above."""
    return FunctionType(decode.__code__, _SPEC_NAMES, decode.__name__, decode.__defaults__)


class Deliver(spec.Basic.Deliver):
    """Basic.Deliver as the decoder makes it; here nothing but a class of its own."""


class GetOk(spec.Basic.GetOk):
    """Basic.GetOk as the decoder makes it."""


class Return(spec.Basic.Return):
    """Basic.Return as the decoder makes it."""


METHODS: dict[int, type[amqp_object.Method]] = {
    **spec.methods,
    **{light.INDEX: light for light in (Deliver, GetOk, Return)},
}
_METHOD_DECODERS = {index: _strict(method.decode) for index, method in METHODS.items()}


def _decode_update_secret(method: Any, payload: Payload, offset: int) -> None:
    cursor = _Cursor(payload, offset)
    method.new_secret = _text_or_bytes(cursor.octets(_SIZE))
    method.reason = cursor.short_string()


# The one method whose decoder is broken in pika 1.3.2 to 1.4.4: it fills in another attribute.
_METHOD_DECODERS[spec.Connection.UpdateSecret.INDEX] = _decode_update_secret


def decode_method(index: int, payload: bytes, max_nesting: int) -> Any:
    """The method whose id and arguments are in ``payload``; raises UNREADABLE when they lie."""
    method_class = METHODS[index]
    method: Any = method_class.__new__(method_class)  # decoders fill in every attribute
    _METHOD_DECODERS[index](method, Payload(payload, max_nesting), 4)
    return method


class BasicProperties(spec.BasicProperties):
    """A message's properties. Those that can't be decoded raise UndecodableProperties on touch."""

    # Slots, because pika compares and prints everything that is in __dict__.
    __slots__ = ("_problem", "raw")

    _problem: str | None
    raw: bytes | None

    def __new__(cls, *args: Any, **kwargs: Any) -> BasicProperties:
        self = super().__new__(cls)
        self._problem = self.raw = None
        return self

    @classmethod
    def from_raw(cls, raw: bytes, max_nesting: int) -> BasicProperties:
        """Decode as far as ``raw`` makes sense; the rest is told when it is touched."""
        self = cls.__new__(cls)
        self.raw = raw
        try:
            if len(raw) > 1 and raw[1] & 1:
                # pika reads on and gathers bits without end, 60,000 words cost 0.4 s. None of
                # the 14 properties would be announced in a second word.
                raise FieldError("the property flags are continued")
            # pika assigns field by field, so those before the one that fails are there.
            _decode_properties(self, Payload(raw, max_nesting), 0)
        except UNREADABLE as error:
            self._problem = str(error)
        return self

    def __getattr__(self, name: str) -> Any:  # only called for what is not in __dict__
        if self._problem is not None and name in PROPERTY_NAMES:
            raise UndecodableProperties(f"{name} can't be decoded: {self._problem}", self.raw)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @property
    def _unreadable_raw(self) -> bytes | None:
        readable = vars(self)
        if self._problem is None or all(name in readable for name in PROPERTY_NAMES):
            return None
        return self.raw

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, amqp_object.AMQPObject):
            return NotImplemented
        return vars(self) == vars(other) and self._unreadable_raw == getattr(
            other, "_unreadable_raw", None
        )

    __hash__ = None  # type: ignore[assignment]  # as pika's: mutable

    def __repr__(self) -> str:
        text = super().__repr__()
        if self._unreadable_raw is not None:
            text = f"{text[:-1]} undecodable: {self._problem}>"
        return text

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore_properties, (type(self), dict(vars(self)), self._problem, self.raw)


def _restore_properties(
    cls: type[BasicProperties], fields: dict[str, Any], problem: str | None, raw: bytes | None
) -> BasicProperties:
    self = cls.__new__(cls)
    vars(self).update(fields)
    self._problem, self.raw = problem, raw
    return self


PROPERTY_NAMES = tuple(vars(spec.BasicProperties()))  # in the order of the wire
_decode_properties = _strict(spec.BasicProperties.decode)
