"""What was decoded can be encoded; tables are encoded alike wherever they are sent."""

from __future__ import annotations

import datetime
import struct
from collections.abc import Callable
from decimal import Decimal, localcontext
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pika import exceptions, spec

from pika_twisted.codec.errors import UnsupportedField
from pika_twisted.codec.methods import encode_method
from pika_twisted.codec.values import LongLong, Timestamp
from tests.support import shape, wire
from tests.support.codecs import Message, load

UTC = datetime.timezone.utc
CODECS = ["reference", "compiled"]


def sized(octets: bytes) -> bytes:
    return struct.pack(">I", len(octets)) + octets


def entry(field: bytes, key: bytes = b"k") -> bytes:
    return bytes([len(key)]) + key + field


def received(codec: Any, table: bytes) -> Any:
    """The properties of a message whose headers are this table."""
    decoder = codec.FrameDecoder(Message, max_header_size=1 << 24)
    raw = struct.pack(">H", 0x2000) + sized(table)
    decoder.feed(wire.method_frame(1, wire.deliver()) + wire.raw_header(1, 0, raw))
    decoder.next_frame()
    return decoder.next_frame().properties


def sent(codec: Any, properties: Any) -> bytes:
    """The table in the header frame of a message with these properties."""
    output = codec.OutputBuffer(frame_max=1 << 24)
    output.channel(1).publish("", "q", b"", properties)
    _method, header = wire.split_frames(output.take())
    payload = header[7 + 12 : -1]
    assert payload[:2] == struct.pack(">H", 0x2000)
    assert struct.unpack_from(">I", payload, 2)[0] == len(payload) - 6
    return payload[6:]


def again(codec: Any, table: bytes) -> bytes:
    """A table that was received and is sent again."""
    return sent(codec, received(codec, table))


TENTH = struct.unpack(">f", struct.pack(">f", 0.1))[0]  # of 32 bits

# Field -> the field that it is sent as, where it differs.
SAME = {
    "true": b"t\1",
    "false": b"t\0",
    "I": b"I\xff\xff\xff\xfe",
    "l, small": b"l" + struct.pack(">q", 5),
    "l, smallest": b"l" + struct.pack(">q", -(2**63)),
    "d": b"d" + struct.pack(">d", 3.75),
    "d, nan": b"d\x7f\xf8\0\0\0\0\0\0",
    "d, infinite": b"d" + struct.pack(">d", float("-inf")),
    "d, negative zero": b"d" + struct.pack(">d", -0.0),
    "D": b"D\x02" + struct.pack(">i", 375),
    "D, trailing zeros": b"D\x03" + struct.pack(">i", -1500),
    "D, largest": b"D\xff" + struct.pack(">i", -(2**31)),
    "D, zero of a scale": b"D\x05" + bytes(4),
    "S": b"S" + sized("é€😀".encode()),
    "S, empty": b"S" + sized(b""),
    "x": b"x" + sized(b"\xff\0"),
    "A": b"A" + sized(b"V" + b"I\0\0\0\1" + b"A" + sized(b"d" + bytes(8))),
    "A, empty": b"A" + sized(b""),
    "F": b"F" + sized(entry(b"F" + sized(entry(b"V", b"\xff")))),
    "F, empty": b"F" + sized(b""),
    "T": b"T" + struct.pack(">Q", 1_700_000_000),
    "T, 0": b"T" + bytes(8),
    "T, last moment of 9999": b"T" + struct.pack(">Q", 253402300799),
    "T, year 10000": b"T" + struct.pack(">Q", 253402300800),
    "T, milliseconds": b"T" + struct.pack(">Q", 1_700_000_000_000),
    "T, 2**63": b"T" + struct.pack(">Q", 2**63),
    "T, 2**64 - 1": b"T" + b"\xff" * 8,
    "V": b"V",
}
OTHER = {
    "t, 2": (b"t\2", b"t\1"),
    "b": (b"b\xff", b"I\xff\xff\xff\xff"),
    "B": (b"B\xff", b"I\0\0\0\xff"),
    "s": (b"s\xff\xff", b"I\xff\xff\xff\xff"),
    "U": (b"U\xff\xff", b"I\xff\xff\xff\xff"),
    "u": (b"u\xff\xff", b"I\0\0\xff\xff"),
    "i, small": (b"i\0\0\0\1", b"I\0\0\0\1"),
    "i, large": (b"i\xff\xff\xff\xff", b"l\0\0\0\0\xff\xff\xff\xff"),
    "L": (b"L" + struct.pack(">q", -5), b"l" + struct.pack(">q", -5)),
    "f": (b"f" + struct.pack(">f", 0.1), b"d" + struct.pack(">d", TENTH)),
    "S, no UTF-8": (b"S" + sized(b"\xff"), b"x" + sized(b"\xff")),
}


@pytest.mark.parametrize("touch", [False, True])
@pytest.mark.parametrize("name", [*SAME, *OTHER])
def test_every_field_type_is_sent_again(codec: Any, name: str, touch: bool) -> None:
    field, expected = OTHER[name] if name in OTHER else (SAME[name], SAME[name])
    properties = received(codec, entry(field))
    if touch:
        properties.headers = dict(properties.headers)
    assert sent(codec, properties) == entry(expected)
    # What is sent says the same as what came.
    before, after = received(codec, entry(field)), received(codec, entry(expected))
    if name not in ("L", "i, large"):  # which become pika's long, equal to the int
        assert shape.of_value(before.headers) == shape.of_value(after.headers)
    elif name != "d, nan":
        assert before.headers == after.headers


fixed = st.one_of(
    st.booleans().map(lambda value: b"t" + bytes([value])),
    st.binary(min_size=4, max_size=4).map(b"I".__add__),
    st.binary(min_size=8, max_size=8).map(b"l".__add__),
    st.floats(allow_nan=False).map(lambda value: b"d" + struct.pack(">d", value)),
    st.binary(min_size=5, max_size=5).map(b"D".__add__),
    st.binary(min_size=8, max_size=8).map(b"T".__add__),
    st.integers(0, 2**38).map(lambda value: b"T" + struct.pack(">Q", value)),
    st.text(max_size=20).map(lambda text: b"S" + sized(text.encode())),
    st.binary(max_size=20).map(lambda octets: b"x" + sized(octets)),
    st.just(b"V"),
)
keys = st.text(max_size=20).map(str.encode) | st.binary(max_size=20)


def tables_of(values: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    pairs = st.dictionaries(keys, values, max_size=4)
    return pairs.map(lambda table: b"".join(entry(field, key) for key, field in table.items()))


fields = st.recursive(
    fixed,
    lambda inner: (
        st.lists(inner, max_size=4).map(lambda array: b"A" + sized(b"".join(array)))
        | tables_of(inner).map(lambda table: b"F" + sized(table))
    ),
    max_leaves=10,
)


@pytest.mark.parametrize("name", CODECS)
def test_any_table_is_sent_again_byte_by_byte(name: str) -> None:
    """Of the types that a value of Python's tells apart."""
    codec = load(name)

    @settings(max_examples=300)
    @given(tables_of(fields))
    def check(table: bytes) -> None:
        assert again(codec, table) == table

    check()


lossy = st.one_of(
    st.binary(min_size=1, max_size=1).map(b"b".__add__),
    st.binary(min_size=1, max_size=1).map(b"B".__add__),
    st.binary(min_size=2, max_size=2).map(b"s".__add__),
    st.binary(min_size=2, max_size=2).map(b"u".__add__),
    st.binary(min_size=4, max_size=4).map(b"i".__add__),
    st.binary(min_size=8, max_size=8).map(b"L".__add__),
    st.floats(width=32, allow_nan=False).map(lambda value: b"f" + struct.pack(">f", value)),
    st.binary(max_size=20).map(lambda octets: b"S" + sized(octets)),
)


@pytest.mark.parametrize("name", CODECS)
def test_any_value_is_sent_again(name: str) -> None:
    """Where the type is another one, the value is the same."""
    codec = load(name)

    @settings(max_examples=300)
    @given(tables_of(fields | lossy))
    def check(table: bytes) -> None:
        assert received(codec, again(codec, table)).headers == received(codec, table).headers

    check()


def test_both_codecs_encode_any_value_alike() -> None:
    values = st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**65), 2**65)
        | st.integers(-(2**63), 2**64).map(LongLong)
        | st.integers(-1, 2**64).map(Timestamp)
        | st.floats()
        | st.decimals()
        | st.datetimes()
        | st.text(st.characters(), max_size=5)  # surrogates too
        | st.binary(max_size=5)
        | st.complex_numbers(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
        max_leaves=6,
    )

    def outcome(codec: Any, headers: Any) -> Any:
        try:
            return sent(codec, spec.BasicProperties(headers=headers))
        except Exception as error:
            return type(error), str(error)

    @settings(max_examples=500)
    @given(st.dictionaries(st.text(max_size=3), values, max_size=3))
    def check(headers: Any) -> None:
        reference, compiled = (outcome(load(name), headers) for name in CODECS)
        assert reference == compiled

    check()


@pytest.mark.parametrize("extra", [0, 1])
def test_nesting_has_the_same_limit_in_both_codecs(codec: Any, extra: int) -> None:
    headers: Any = {"inner": 1j}
    for _ in range(999 + extra):
        headers = {"n": headers}
    error, text = (ValueError, "1000 levels") if extra else (UnsupportedField, "of complex")
    with pytest.raises(error, match=text):
        sent(codec, spec.BasicProperties(headers={"n": headers}))


def test_nested_as_deep_as_decoding_allows(codec: Any) -> None:
    # The reference reads with recursion in Python.
    depth = 1000 if codec.IMPLEMENTATION == "compiled" else 100
    table = b""
    for _ in range(depth):
        table = entry(b"F" + sized(table), b"n")
    decoder = codec.FrameDecoder(Message, max_nesting=depth)
    raw = struct.pack(">H", 0x2000) + sized(table)
    decoder.feed(wire.method_frame(1, wire.deliver()) + wire.raw_header(1, 0, raw))
    decoder.next_frame()
    assert sent(codec, decoder.next_frame().properties) == table


# ------------------------------------------------------------------ decimals and moments


@pytest.mark.parametrize(
    ("value", "scale", "unscaled"),
    [
        ("1.50", 2, 150),
        ("-0.00", 2, 0),
        ("0E-300", 255, 0),
        ("1E+9", 0, 10**9),
        ("2147483647", 0, 2**31 - 1),
        ("-214748364.8", 1, -(2**31)),
        ("1.50000000000", 9, 1_500_000_000),
        ("3.0000000000", 8, 300_000_000),
        ("0000000000000.5", 1, 5),
        ("1E-255", 255, 1),
        ("10E-256", 255, 1),
    ],
)
def test_decimals_are_exact(codec: Any, value: str, scale: int, unscaled: int) -> None:
    """Also in a context that rounds to 3 digits, as pika 1.3 and 1.4 do."""
    with localcontext() as context:
        context.prec = 3
        table = sent(codec, spec.BasicProperties(headers={"k": Decimal(value)}))
    assert table == entry(b"D" + bytes([scale]) + struct.pack(">i", unscaled))


@pytest.mark.parametrize(
    "value",
    [
        "2147483648",
        "-2147483649",
        "1E-256",
        "1E+10",
        "1E+999999",
        "NaN",
        "-Infinity",
        "0.9876543211",
    ],
)
def test_decimals_that_no_field_holds(codec: Any, value: str) -> None:
    with pytest.raises(ValueError, match=r"headers\['k'\]: Decimal\('.*'\) can't be sent: "):
        sent(codec, spec.BasicProperties(headers={"k": Decimal(value)}))


def test_a_late_timestamp_is_an_int(codec: Any) -> None:
    value = received(codec, entry(SAME["T, milliseconds"])).headers["k"]
    assert value == 1_700_000_000_000
    assert isinstance(value, int)
    assert repr(value) == "1700000000000"


def test_the_last_moment_is_a_datetime(codec: Any) -> None:
    value = received(codec, entry(SAME["T, last moment of 9999"])).headers["k"]
    assert value == datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


# ------------------------------------------------------------------ errors


class Index:
    """Stands for an integer, as numpy's do."""

    def __index__(self) -> int:
        return 7


@pytest.mark.parametrize("name", ["timestamp", "delivery_mode", "priority"])
def test_what_can_stand_for_an_integer(codec: Any, name: str) -> None:
    output = codec.OutputBuffer()
    encoder = output.channel(1)
    encoder.publish("", "q", b"", spec.BasicProperties(**{name: Index()}))  # type: ignore[arg-type]
    taken = output.take()
    encoder.publish("", "q", b"", spec.BasicProperties(**{name: 7}))  # type: ignore[arg-type]
    assert taken == output.take()


P = spec.BasicProperties
SELF: dict[str, Any] = {}
SELF["self"] = SELF
ERRORS: dict[str, tuple[Callable[[Any], Any], type[Exception], str]] = {
    "type": (
        lambda e: e.publish("", "q", b"", P(headers={"a": {"b": [1, {"c": {1}}]}})),
        UnsupportedField,
        "headers['a']['b'][1]['c']: values of set can't be sent",
    ),
    "key": (
        lambda e: e.publish("", "q", b"", P(headers={"a": {5: 1}})),
        TypeError,
        "headers['a']: the key 5 must be str or bytes, not int",
    ),
    "long key": (
        lambda e: e.publish("", "q", b"", P(headers={"a": [{"k" * 256: 1}]})),
        exceptions.ShortStringTooLong,
        "headers['a'][0]: a string of 256 octets, 255 is the limit",
    ),
    "integer": (
        lambda e: e.publish("", "q", b"", P(headers={"a": 2**63})),
        ValueError,
        f"headers['a'] must be between {-(2**63)} and {2**63 - 1}, not {2**63}",
    ),
    "moment": (
        lambda e: e.publish("", "q", b"", P(headers={b"a": datetime.datetime(1969, 1, 1)})),
        ValueError,
        "headers[b'a']: datetime.datetime(1969, 1, 1, 0, 0) can't be sent: it is before 1970",
    ),
    "surrogate": (
        lambda e: e.publish("", "q", b"", P(headers={"a": "\ud800"})),
        ValueError,
        (
            "headers['a'] can't be encoded as UTF-8: 'utf-8' codec can't encode character "
            "'\\ud800' in position 0: surrogates not allowed"
        ),
    ),
    "headers": (
        lambda e: e.publish("", "q", b"", P(headers=[1])),
        TypeError,
        "headers must be a dict, not list",
    ),
    "text": (
        lambda e: e.publish("", "q", b"", P(reply_to=5)),
        TypeError,
        "reply_to must be str or bytes, not int",
    ),
    "long text": (
        lambda e: e.publish("", "q", b"", P(reply_to="x" * 256)),
        exceptions.ShortStringTooLong,
        "reply_to: a string of 256 octets, 255 is the limit",
    ),
    "number": (
        lambda e: e.publish("", "q", b"", P(priority="5")),
        TypeError,
        "priority must be an int, not str",
    ),
    "large number": (
        lambda e: e.publish("", "q", b"", P(delivery_mode=256)),
        ValueError,
        "delivery_mode must be between 0 and 255, not 256",
    ),
    "timestamp": (
        lambda e: e.publish("", "q", b"", P(timestamp=-1)),
        ValueError,
        f"timestamp must be between 0 and {2**64 - 1}, not -1",
    ),
    "moment as timestamp": (
        lambda e: e.publish("", "q", b"", P(timestamp=datetime.datetime(2023, 1, 1))),
        TypeError,
        "timestamp must be an int, not datetime",
    ),
    "body": (
        lambda e: e.publish("", None, None, P(headers={"a": set()})),
        TypeError,
        "body must be str or bytes-like, not NoneType",
    ),
    "properties": (
        lambda e: e.publish("", "q", b"", b"text"),
        TypeError,
        "properties must be BasicProperties or None, not bytes",
    ),
    "exchange": (
        lambda e: e.publish(None, None, b""),
        TypeError,
        "exchange must be str or bytes, not NoneType",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_names_what_is_wrong(codec: Any, name: str) -> None:
    call, error, text = ERRORS[name]
    output = codec.OutputBuffer()
    with pytest.raises(error) as caught:
        call(output.channel(1))
    assert str(caught.value) == text
    assert (len(output), output.frames) == (0, 0)


def test_a_table_within_itself(codec: Any) -> None:
    text = r"^headers(\['self'\]){12}\.\.\. is nested deeper than 1000 levels$"
    with pytest.raises(ValueError, match=text):
        codec.OutputBuffer().channel(1).publish("", "q", b"", P(headers=SELF))


# ------------------------------------------------------------------ methods

TABLE = {
    "f": 0.1,
    "d": Decimal("1.50"),
    "late": Timestamp(2**63),
    b"\xff": [None, {"l": LongLong(2**40)}],
}


@pytest.mark.parametrize(
    ("method", "argument"),
    [
        (spec.Queue.Declare(queue="q"), "arguments"),
        (spec.Queue.Bind(queue="q", exchange="e"), "arguments"),
        (spec.Queue.Unbind(queue="q", exchange="e"), "arguments"),
        (spec.Exchange.Declare(exchange="e", type="direct"), "arguments"),
        (spec.Exchange.Bind(destination="e", source="e"), "arguments"),
        (spec.Exchange.Unbind(destination="e", source="e"), "arguments"),
        (spec.Basic.Consume(queue="q", consumer_tag="t"), "arguments"),
        (spec.Connection.StartOk(response=b""), "client_properties"),
    ],
    ids=lambda value: getattr(value, "NAME", ""),
)
def test_tables_of_methods(codec: Any, method: Any, argument: str) -> None:
    setattr(method, argument, TABLE)
    channel = 0 if argument == "client_properties" else 1
    decoder = codec.FrameDecoder(Message)
    decoder.feed(encode_method(channel, method))
    decoded = decoder.next_frame().method
    assert shape.of_method(decoded) == shape.of_method(method)
    setattr(method, argument, {"x": [{"y": 1j}]})
    with pytest.raises(UnsupportedField) as caught:
        encode_method(channel, method)
    assert str(caught.value) == (
        f"{method.NAME}: can't encode {argument}={{'x': [{{'y': 1j}}]}}: "
        f"{argument}['x'][0]['y']: values of complex can't be sent"
    )
    assert caught.value.args[1] == 1j


def test_a_secret_is_not_shown() -> None:
    with pytest.raises(TypeError) as caught:
        encode_method(0, spec.Connection.StartOk(client_properties={}, response="hidden\ud800"))
    assert "hidden" not in str(caught.value)
    with pytest.raises(TypeError) as caught:
        encode_method(0, spec.Connection.UpdateSecret(new_secret="hidden\ud800", reason=""))
    assert "hidden" not in str(caught.value)
