"""Every field type, alone, at its borders, nested, in headers and in arguments; all properties.

Headers go through the lazily decoded properties, arguments through the methods' decoder: both are
compared with decode_frame through the oracle.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from decimal import Decimal, localcontext
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pika import spec

from pika_twisted.codec.values import Timestamp
from tests.support import feeding, shape, wire
from tests.support.codecs import EXHAUSTIVE, Message, load
from tests.support.oracle import Oracle
from tests.support.pika_versions import LONG
from tests.support.samples import subset

Trace = list[shape.Shape]

FIXED = {
    "t": ("B", [0, 1, 2, 255]),
    "b": ("b", [-128, -1, 0, 1, 127]),
    "B": ("B", [0, 1, 127, 128, 255]),
    "s": ("h", [-(2**15), -1, 0, 2**15 - 1]),
    "U": ("h", [-(2**15), -1, 0, 2**15 - 1]),
    "u": ("H", [0, 2**15, 2**16 - 1]),
    "I": ("i", [-(2**31), -1, 0, 2**31 - 1]),
    "i": ("I", [0, 2**31, 2**32 - 1]),
    "l": ("q", [-(2**63), -1, 0, 2**63 - 1]),
    "L": ("q", [-(2**63), -1, 0, 2**63 - 1]),
    "f": ("f", [0.0, -0.0, 3.75, -1.5, math.inf, -math.inf, math.nan]),
    "d": ("d", [0.0, -0.0, 3.75, 1e300, math.inf, -math.inf, math.nan]),
    "T": ("Q", [0, 1, 1_700_000_000, 253402300799, 253402300800, 2**63, 2**64 - 1]),
}
SIZED = {
    "S": [b"", b"text", "é€😀".encode(), b"\xff\xfe", b"a\x00b", b"x" * 70_000],
    "x": [b"", b"text", b"\x00\xff\xce", b"x" * 70_000],
    "F": [b"", wire.entry(b"k", b"V"), wire.entry(b"", b"t\x01"), wire.entry(b"\xff", b"V")],
    "A": [b"", b"V", b"VVt\x01", b"A\x00\x00\x00\x01V", b"F\x00\x00\x00\x03\x01aV"],
}
DECIMALS = [(0, 0), (0, 5), (2, 375), (3, -1), (255, 2**31 - 1), (255, -(2**31)), (28, 0)]


def field_samples() -> dict[str, bytes]:
    """name -> a value with its type tag."""
    samples = {}
    for tag, (layout, values) in FIXED.items():
        for number, value in enumerate(values):
            samples[f"{tag}-{number}"] = tag.encode() + struct.pack(">" + layout, value)
    for tag, strings in SIZED.items():
        for number, octets in enumerate(strings):
            samples[f"{tag}-{number}"] = tag.encode() + wire.sized(octets)
    for number, (scale, unscaled) in enumerate(DECIMALS):
        samples[f"D-{number}"] = b"D" + struct.pack(">Bi", scale, unscaled)
    samples["V"] = b"V"
    return samples


FIELDS = field_samples()


def in_headers(value: bytes) -> bytes:
    """A delivery with the value in its headers."""
    table = wire.sized(wire.entry(b"before", b"t\x01") + wire.entry(b"k", value))
    return wire.content(1, b"", wire.headers_only(table))


def in_arguments(value: bytes) -> bytes:
    """A Connection.Start with the value in the server's properties."""
    table = wire.sized(wire.entry(b"before", b"t\x01") + wire.entry(b"k", value))
    start = b"\x00\x09" + table + wire.sized(b"PLAIN") + wire.sized(b"en_US")
    return wire.raw_method(0, spec.Connection.Start.INDEX, start)


def header_of(decoder: Any, octets: bytes) -> Any:
    decoder.feed(octets)
    decoder.next_frame()
    return decoder.next_frame().properties


PLACES = {"headers": in_headers, "arguments": in_arguments}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", FIELDS)
def test_field(make_decoder: Callable[..., Any], name: str, place: str) -> None:
    octets = PLACES[place](FIELDS[name])
    expected = Oracle().trace(octets)
    assert expected[-1][0] != "error"
    assert shape.UNDECODABLE not in expected[-1][-1]
    assert shape.trace(make_decoder(), [octets]) == expected
    if len(octets) < 1000:
        assert shape.trace(make_decoder(), next(feeding.byte_by_byte(octets))) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"b\xff", -1),
        (b"B\xff", 255),
        (b"l" + b"\xff" * 8, LONG(-1)),
        (b"L" + b"\xff" * 8, LONG(-1)),
        (b"I\xff\xff\xff\xff", -1),
        (b"i\xff\xff\xff\xff", 2**32 - 1),
        (b"U\xff\xff", -1),
        (b"s\xff\xff", -1),
        (b"u\xff\xff", 65535),
        (b"t\x02", True),
        (b"f" + struct.pack(">f", 3.75), 3.75),
        (b"d" + struct.pack(">d", 3.75), 3.75),
        (b"D\x02\x00\x00\x01\x77", Decimal("3.75")),
        (b"D\xff\xff\xff\xff\xff", Decimal("-1E-255")),
        (b"T" + struct.pack(">Q", 0), datetime(1970, 1, 1, tzinfo=timezone.utc)),
        (b"T" + struct.pack(">Q", 1_700_000_000_000), Timestamp(1_700_000_000_000)),
        (b"S" + wire.sized(b"\xff"), b"\xff"),
        (b"S" + wire.sized("ü".encode()), "ü"),
        (b"x" + wire.sized(b"text"), b"text"),
        (b"V", None),
    ],
)
def test_value_written_down(make_decoder: Callable[..., Any], value: bytes, expected: Any) -> None:
    """Independent of pika: what the octets mean."""
    got = header_of(make_decoder(), in_headers(value)).headers["k"]
    assert shape.of_value(got) == shape.of_value(expected)
    if isinstance(got, datetime):
        assert got.utcoffset() == timedelta(0)


def test_decimal_is_exact_in_any_context(make_decoder: Callable[..., Any]) -> None:
    with localcontext() as context:
        context.prec = 2
        got = header_of(make_decoder(), in_headers(b"D\x04\x07\x5b\xcd\x15")).headers["k"]
    assert got == Decimal("12345.6789")


def test_duplicate_keys_last_wins(make_decoder: Callable[..., Any]) -> None:
    table = wire.sized(wire.entry(b"k", b"t\x01") + wire.entry(b"k", b"B\x07"))
    octets = wire.content(1, b"", wire.headers_only(table))
    assert header_of(make_decoder(), octets).headers == {"k": 7}
    assert shape.trace(make_decoder(), [octets]) == Oracle().trace(octets)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", [b"F", b"A"])
@pytest.mark.parametrize("depth", [1, 2, 50, 99, 100])
def test_nesting_allowed(
    make_decoder: Callable[..., Any], depth: int, kind: bytes, place: str
) -> None:
    octets = PLACES[place](wire.nested(depth, kind))
    expected = Oracle().trace(octets)
    assert shape.trace(make_decoder(), [octets]) == expected
    assert expected[-1][0] != "error"
    assert shape.UNDECODABLE not in expected[-1][-1]


@pytest.mark.parametrize("kind", [b"F", b"A"])
@pytest.mark.parametrize("depth", [101, 102, 600, 5000])
def test_nesting_refused(make_decoder: Callable[..., Any], depth: int, kind: bytes) -> None:
    octets = in_headers(wire.nested(depth, kind))
    got = shape.trace(make_decoder(), [octets])
    assert got == Oracle().trace(octets)
    assert got[-1][-1][2] == shape.UNDECODABLE
    octets = in_arguments(wire.nested(depth, kind))
    assert shape.trace(make_decoder(), [octets]) == [shape.of_error(502)]


@pytest.mark.parametrize("limit", [0, 1, 5])
def test_nesting_limit_is_settable(make_decoder: Callable[..., Any], limit: int) -> None:
    for depth in range(limit + 3):
        octets = in_headers(wire.nested(depth))
        got = shape.trace(make_decoder(max_nesting=limit), [octets])
        assert got == Oracle(max_nesting=limit).trace(octets)
        assert (shape.UNDECODABLE in got[-1][-1]) == (depth > limit)


# ------------------------------------------------------------------ the 14 properties


def test_all_property_subsets(codec: Any) -> None:
    """16,384 subsets, each in a stream of its own kind of message; one decoder for all of them."""
    decoder = codec.FrameDecoder(Message)
    for mask in range(1 << 14):
        sent = subset(mask, mask & 1)
        octets = b"".join(sent.encode())
        decoder.feed(wire.content(1, b"", octets))
        assert decoder.next_frame() is not None
        got = decoder.next_frame().properties
        assert got.raw == octets
        assert shape.of_properties(got) == shape.of_properties(sent), mask
    assert decoder.next_frame() is None


def test_property_subsets_equal_pikas(codec: Any) -> None:
    """==, repr, vars and encode() of the decoded objects, for every 7th subset (2,341)."""
    decoder = codec.FrameDecoder(Message)
    for mask in range(0, 1 << 14, 1 if EXHAUSTIVE else 7):
        sent = subset(mask)
        decoder.feed(wire.content(1, b"", sent) * 5)
        got = []
        for _ in range(5):
            decoder.next_frame()
            got.append(decoder.next_frame().properties)
        assert got[0] == sent
        assert sent == got[1]
        assert repr(got[2]) == repr(sent)
        assert vars(got[3]) == vars(sent)
        assert got[4].encode() == sent.encode()


def test_equal_raw_bytes_are_not_one_object(make_decoder: Callable[..., Any]) -> None:
    """A decoder may share what repeats, but users edit the properties they are given."""
    decoder = make_decoder()
    octets = wire.content(1, b"", subset(0b111))
    first, second = header_of(decoder, octets), header_of(decoder, octets)
    assert first == second
    first.headers["added"] = 1
    first.content_type = "changed"
    assert second == subset(0b111)
    assert header_of(decoder, octets) == subset(0b111)


VALUES = (
    st.sampled_from(sorted(FIELDS))
    .map(lambda name: FIELDS[name])
    .filter(lambda value: len(value) < 1000)
)
KEYS = st.binary(max_size=20)


@st.composite
def field_values(draw: st.DrawFn, depth: int = 0) -> bytes:
    """Octets of any value, with tables and arrays inside each other."""
    kind = draw(st.sampled_from("vvvFA" if depth < 5 else "v"))
    if kind == "v":
        return draw(VALUES)
    entries = b""
    for _ in range(draw(st.integers(0, 3))):
        value = draw(field_values(depth + 1))
        entries += wire.entry(draw(KEYS), value) if kind == "F" else value
    return kind.encode() + wire.sized(entries)


@pytest.mark.parametrize("name", ["reference", "compiled"])
@pytest.mark.parametrize("place", PLACES)
def test_any_nesting_of_any_fields(name: str, place: str) -> None:
    codec = load(name)

    @settings(max_examples=150)
    @given(field_values())
    def check(value: bytes) -> None:
        octets = PLACES[place](value)
        assert shape.trace(codec.FrameDecoder(Message), [octets]) == Oracle().trace(octets)

    check()
