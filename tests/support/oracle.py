"""What a codec has to make of a stream: pika's decode_frame with the listed differences put in.

Nothing here knows the code under test. Every complete frame goes through ``decode_frame`` itself;
around it stand the rules of ``tests/differences.py``, and each that applied is noted in ``used``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pika import data, exceptions, frame, spec

from tests import differences
from tests.differences import ANNOUNCED, COMPLETE, Content, Difference, Seen
from tests.support import shape, wire

MIB = 1 << 20

# What pika raises for fields it can't read, besides struct.error and Refused.
PIKA_ERRORS = (IndexError, exceptions.InvalidFieldTypeException)
CONTENT_METHODS = {
    method.INDEX
    for method in (spec.Basic.Deliver, spec.Basic.GetOk, spec.Basic.Return, spec.Basic.Publish)
}
ENDING_IN_LONG_STRING = {
    method.INDEX
    for method in (
        spec.Connection.Start,
        spec.Connection.Secure,
        spec.Connection.SecureOk,
        spec.Channel.OpenOk,
    )
}


class Refused(Exception):
    """A field that pika reads and we don't."""


class FieldObserver:
    """pika's field readers with the FIELDS differences put in; ``used`` names which applied."""

    def __init__(self, max_nesting: int, used: set[str]) -> None:
        self.max_nesting = max_nesting
        self.used = used
        self.ends: list[int] = []
        self.originals = (data.decode_short_string, data.decode_table, data.decode_value)

    @contextmanager
    def installed(self, encoded: bytes) -> Iterator[None]:
        self.ends = [len(encoded)]
        try:
            data.decode_short_string = self.short_string
            data.decode_table = self.table
            data.decode_value = self.value
            yield
        finally:
            data.decode_short_string, data.decode_table, data.decode_value = self.originals

    def refuse(self, name: str) -> None:
        self.used.add(name)
        raise Refused(name)

    def check(self, offset: int) -> None:
        if offset > self.ends[-1]:
            self.refuse("length past the end")

    @contextmanager
    def holder(self, encoded: bytes, offset: int) -> Iterator[None]:
        """A table or an array, which begins at ``offset`` with its length."""
        self.check(offset + 4)
        end = offset + 4 + struct.unpack_from(">I", encoded, offset)[0]
        self.check(end)
        if len(self.ends) > self.max_nesting + 1:
            self.refuse("nested too deep")
        self.ends.append(end)
        yield
        self.ends.pop()

    def short_string(self, encoded: bytes, offset: int) -> tuple[Any, int]:
        value, after = self.originals[0](encoded, offset)
        self.check(after)
        return value, after

    def table(self, encoded: bytes, offset: int) -> tuple[Any, int]:
        with self.holder(encoded, offset):
            return self.originals[1](encoded, offset)

    def value(self, encoded: bytes, offset: int) -> tuple[Any, int]:
        kind = encoded[offset : offset + 1]
        self.check(offset + 1)
        if kind == b"A":
            with self.holder(encoded, offset + 1):
                return self.originals[2](encoded, offset)
        if kind in differences.AMENDED:
            return self.amended(kind, encoded, offset)
        value, after = self.originals[2](encoded, offset)
        self.check(after)
        return value, after

    def amended(self, kind: bytes, encoded: bytes, offset: int) -> tuple[Any, int]:
        layout, convert = differences.AMENDED[kind]
        (raw,) = struct.unpack_from(layout, encoded, offset + 1)
        after = offset + 1 + struct.calcsize(layout)
        self.check(after)
        ours = convert(raw)
        try:
            pikas, failed = self.originals[2](encoded, offset)[0], False
        except (ValueError, OverflowError, OSError, DeprecationWarning):
            # The last one: pika 1.3.2 on Python 3.12, where warnings are errors.
            pikas, failed = None, True
        if shape.of_value(pikas) != shape.of_value(ours):
            self.used.add(differences.amendment(kind, ours, failed))
        return ours, after


@dataclass
class Oracle:
    """What a codec has to make of a stream: decode_frame's frames, with the listed differences."""

    frame_max: int = 131072
    max_header_size: int = MIB
    max_message_size: int = 128 * MIB
    max_nesting: int = 100
    used: set[str] = field(default_factory=set)
    contents: dict[int, Content] = field(default_factory=dict)
    started: bool = False

    def trace(self, octets: bytes) -> list[shape.Shape]:
        """The shapes of everything that comes out of a whole stream."""
        shapes: list[shape.Shape] = []
        while octets:
            consumed, outcome = self._next(octets)
            if outcome is not None:
                shapes.append(outcome)
            if consumed == 0:
                break
            octets = octets[consumed:]
            self.started = True
        return shapes

    def _next(self, octets: bytes) -> tuple[int, shape.Shape | None]:
        """Octets consumed (0: the end, an error or more is needed) and what comes out."""
        if not self.started and b"AMQP".startswith(octets[:4]):
            consumed, item = frame.decode_frame(octets) if len(octets) >= 8 else (0, None)
            return consumed, None if item is None else shape.of_frame(item)
        seen = self._seen(octets)
        refusal = self._refusal(ANNOUNCED if len(octets) >= 7 else ANNOUNCED[:1], seen)
        if refusal is not None:
            return 0, refusal
        end = 8 + seen.size
        if len(octets) < max(end, 7):
            return 0, None
        seen.payload, seen.end = octets[7 : end - 1], octets[end - 1]
        refusal = self._refusal(COMPLETE, seen)
        if refusal is not None:
            return 0, refusal
        outcome = self._decoded(octets[:end], seen)
        if outcome is not None and outcome[0] == "error":
            return 0, outcome
        return end, outcome

    def _seen(self, octets: bytes) -> Seen:
        frame_type, channel, size = struct.unpack(">BHI", octets[:7].ljust(7, b"\0"))
        limit = self.frame_max
        if frame_type == spec.FRAME_HEADER:
            limit = max(limit, self.max_header_size)
        return Seen(frame_type, channel, size, limit, self.contents.get(channel))

    def _refusal(self, candidates: list[Difference], seen: Seen) -> shape.Shape | None:
        for difference in candidates:
            if difference.recognise is not None and difference.recognise(seen):
                self.used.add(difference.name)
                assert difference.reply_code is not None
                return shape.of_error(difference.reply_code)
        return None

    def _decoded(self, octets: bytes, seen: Seen) -> shape.Shape | None:
        if seen.frame_type == spec.FRAME_METHOD:
            return self._method(octets, seen)
        if seen.frame_type == spec.FRAME_HEADER:
            return self._header(octets, seen)
        if seen.frame_type == spec.FRAME_BODY:
            return self._body(octets, seen)
        return shape.of_frame(frame.decode_frame(octets)[1])

    def _method(self, octets: bytes, seen: Seen) -> shape.Shape:
        assert seen.payload is not None
        try:
            method = self._pika_method(octets, seen)
        except (Refused, struct.error, *PIKA_ERRORS):
            self.used.add("undecodable arguments")
            return shape.of_error(502)
        if seen.method_id in (spec.Channel.Close.INDEX, spec.Channel.CloseOk.INDEX):
            self.contents.pop(seen.channel, None)
        shaped = shape.of_method(method)
        if seen.method_id in CONTENT_METHODS:
            self.contents[seen.channel] = Content(shaped)
        return ("method", seen.channel, shaped)

    def _pika_method(self, octets: bytes, seen: Seen) -> Any:
        payload = seen.payload or b""
        if seen.method_id == spec.Connection.UpdateSecret.INDEX:
            return self._update_secret(payload)
        observer = FieldObserver(self.max_nesting, self.used)
        with observer.installed(payload):
            method = frame.decode_frame(octets)[1].method  # type: ignore[union-attr]
            if seen.method_id in ENDING_IN_LONG_STRING:
                # Those cut the string by themselves: one octet more shows that it was too short.
                longer = wire.raw_frame(1, seen.channel, payload + b"\0")
                observer.ends = [len(payload)]
                again = frame.decode_frame(longer)[1].method  # type: ignore[union-attr]
                if shape.of_method(again) != shape.of_method(method):
                    observer.refuse("length past the end")
        return method

    def _update_secret(self, payload: bytes) -> Any:
        self.used.add("Connection.UpdateSecret")
        observer = FieldObserver(self.max_nesting, self.used)
        observer.ends = [len(payload)]
        size = struct.unpack_from(">I", payload, 4)[0]
        observer.check(8 + size)
        secret, _ = data.decode_value(b"S" + payload[4 : 8 + size], 0)
        reason, _ = observer.short_string(payload, 8 + size)
        return spec.Connection.UpdateSecret(secret, reason)

    def _header(self, octets: bytes, seen: Seen) -> shape.Shape:
        assert seen.payload is not None and seen.content is not None
        body_size = struct.unpack_from(">Q", seen.payload, 4)[0]
        content = seen.content
        content.missing = body_size
        if body_size == 0:
            del self.contents[seen.channel]
        if body_size > self.max_message_size:
            content.swallowed = True
            limit = self.max_message_size
            return ("oversized", seen.channel, content.method, body_size, limit)
        fields = self._properties(octets, seen.payload[12:])
        return ("header", seen.channel, body_size, fields)

    def _properties(self, octets: bytes, raw: bytes) -> shape.Shape:
        if len(raw) > 1 and raw[1] & 1:
            self.used.add("continued property flags")
            return (shape.UNDECODABLE,) * len(shape.PROPERTY_NAMES)
        observer = FieldObserver(self.max_nesting, self.used)
        try:
            with observer.installed(raw):
                decoded = frame.decode_frame(octets)[1]
            return shape.of_properties(decoded.properties)  # type: ignore[union-attr]
        except (Refused, struct.error, *PIKA_ERRORS):
            self.used.add("undecodable properties")
        # Once more without the defaults: pika sets field after field until it fails.
        properties = spec.BasicProperties.__new__(spec.BasicProperties)
        try:
            with observer.installed(raw):
                properties.decode(raw)
        except (Refused, struct.error, *PIKA_ERRORS):
            pass
        readable = vars(properties)
        return tuple(
            shape.of_value(readable[name]) if name in readable else shape.UNDECODABLE
            for name in shape.PROPERTY_NAMES
        )

    def _body(self, octets: bytes, seen: Seen) -> shape.Shape | None:
        content = seen.content
        assert content is not None and content.missing is not None
        content.missing -= seen.size
        if content.missing == 0:
            del self.contents[seen.channel]
        return None if content.swallowed else shape.of_frame(frame.decode_frame(octets)[1])
