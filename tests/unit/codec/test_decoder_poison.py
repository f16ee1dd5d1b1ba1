"""Properties that lie, or say what pika can't read: the message is delivered all the same.

Each case says which fields can still be read. RabbitMQ accepts some of these messages, and pika's
consumer dies of them again at every redelivery.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from pika import exceptions, spec

from pika_twisted.codec.errors import UndecodableProperties
from tests.support import feeding, shape, wire
from tests.support.bad_bytes import POISON
from tests.support.codecs import Direct
from tests.support.cost import assert_grows_at_most, cpu
from tests.support.oracle import Oracle

BROKEN = {name: poison for name, poison in POISON.items() if poison.bad is not None}


def names_before(bad: str | None) -> tuple[str, ...]:
    names = shape.PROPERTY_NAMES
    return names if bad is None else names[: names.index(bad)]


def delivered(decoder: Any, raw: bytes) -> Any:
    """The properties of a delivery whose header frame carries ``raw``."""
    decoder.feed(wire.content(1, b"body", raw))
    _, header, body = (decoder.next_frame() for _ in range(3))
    assert body.fragment == b"body"
    assert decoder.next_frame() is None
    return header.properties


def test_at_least_the_15_cases() -> None:
    assert len(POISON) >= 15


@pytest.mark.parametrize("name", POISON)
def test_fields_before_the_bad_one(decoder: Any, name: str) -> None:
    poison = POISON[name]
    properties = delivered(decoder, poison.raw)
    readable = names_before(poison.bad)
    for field in readable:
        getattr(properties, field)
    if len(readable) >= 2:
        expected = ("a/b", "gz") if poison.raw[0] & 0xC0 else (None, None)
        assert (properties.content_type, properties.content_encoding) == expected
    for field in shape.PROPERTY_NAMES[len(readable) :]:
        with pytest.raises(UndecodableProperties) as caught:
            getattr(properties, field)
        assert caught.value.raw == poison.raw
        assert caught.value.args == (str(caught.value), poison.raw)
        assert field in str(caught.value)
        assert len(str(caught.value)) < 300
        assert isinstance(caught.value, exceptions.AMQPError)
        assert not isinstance(caught.value, AttributeError)
    if poison.bad is None:
        assert properties.headers == {"ok": True, "k": poison.value}
        assert type(properties.headers["k"]) is type(poison.value)
        assert properties.delivery_mode == 2
        assert properties.message_id == "id"
    assert properties.raw == poison.raw
    assert type(properties.raw) is bytes


@pytest.mark.parametrize("name", POISON)
def test_touch_in_any_order(make_decoder: Callable[..., Any], name: str) -> None:
    """Decoding starts at whatever is touched first; failing is no state that gets lost."""
    readable = names_before(POISON[name].bad)
    for first in ("cluster_id", "headers", "content_type", "message_id"):
        properties = delivered(make_decoder(), POISON[name].raw)
        for field in (first, *shape.PROPERTY_NAMES, first):
            if field in readable:
                getattr(properties, field)
            else:
                with pytest.raises(UndecodableProperties):
                    getattr(properties, field)


@pytest.mark.parametrize("style", ["whole", "byte_by_byte", "trailing", "small_reads"])
@pytest.mark.parametrize("name", POISON)
def test_any_feeding_and_the_next_message(codec: Any, name: str, style: str) -> None:
    if len(POISON[name].raw) > 10_000 and style != "whole":
        style = "trailing"
    stream = wire.content(1, b"body", POISON[name].raw) + wire.content(1, b"next")
    expected = Oracle().trace(stream)
    assert [item[0] for item in expected] == ["method", "header", "body"] * 2
    for chunks in feeding.STYLES[style](stream):
        assert shape.trace(codec.FrameDecoder(tuple), chunks) == expected
        direct = Direct(codec, (1, "ct"))
        assert shape.trace(direct.decoder, chunks) == []
        poisoned, following = direct.messages()
        assert shape.of_properties(poisoned.properties) == expected[1][3]
        assert poisoned.body == b"body"
        assert following[1:] == (wire.deliver(), spec.BasicProperties(), b"next")


@pytest.mark.parametrize("name", POISON)
@pytest.mark.parametrize("touched", [False, True])
def test_repr_copy_pickle_and_equality(
    make_decoder: Callable[..., Any], name: str, touched: bool
) -> None:
    poison = POISON[name]
    properties, same = (delivered(make_decoder(), poison.raw) for _ in range(2))
    if touched:
        shape.of_properties(properties)
    text = repr(properties)
    assert text.startswith("<BasicProperties")
    assert ("undecodable" in text) == (poison.bad is not None)
    if poison.raw[:1] >= b"\xc0" and poison.bad not in (None, "content_type"):
        assert "content_type=a/b" in text
    assert len(text) < 20_000
    assert str(properties) == text
    assert f"{properties}" == text
    assert properties == same
    clones = [copy.copy(properties), copy.deepcopy(properties)]
    clones += [
        pickle.loads(pickle.dumps(properties, p)) for p in range(pickle.HIGHEST_PROTOCOL + 1)
    ]
    for clone in clones:
        assert type(clone) is type(properties)
        assert clone == properties
        assert shape.of_properties(clone) == shape.of_properties(properties)
        assert clone.raw == poison.raw
        assert repr(clone) == text
    assert properties != spec.BasicProperties(content_type="other")
    assert (properties == delivered(make_decoder(), b"\x00\x00")) is False
    other = delivered(make_decoder(), poison.raw + b"more")
    assert (properties == other) == (poison.bad is None)


@pytest.mark.parametrize("name", BROKEN)
def test_vars_holds_what_can_be_read(decoder: Any, name: str) -> None:
    properties = delivered(decoder, BROKEN[name].raw)
    assert tuple(vars(properties)) == names_before(BROKEN[name].bad)


@pytest.mark.parametrize("name", BROKEN)
def test_assigning_replaces_one_field(decoder: Any, name: str) -> None:
    poison = BROKEN[name]
    assert poison.bad is not None
    properties = delivered(decoder, poison.raw)
    unreadable = shape.PROPERTY_NAMES[len(names_before(poison.bad)) :]
    for number, field in enumerate(unreadable):
        setattr(properties, field, f"new {field}")
        assert getattr(properties, field) == f"new {field}"
        for later in unreadable[number + 1 :]:
            with pytest.raises(UndecodableProperties):
                getattr(properties, later)
        clone = pickle.loads(pickle.dumps(properties))
        assert clone == properties
        assert getattr(clone, field) == f"new {field}"
    assert properties.raw == poison.raw
    assert "undecodable" not in repr(properties)


@pytest.mark.parametrize("name", BROKEN)
def test_repaired_properties_are_ordinary_ones(decoder: Any, name: str) -> None:
    properties = delivered(decoder, BROKEN[name].raw)
    readable = {field: getattr(properties, field) for field in names_before(BROKEN[name].bad)}
    with pytest.raises(UndecodableProperties):
        properties.encode()
    for field in shape.PROPERTY_NAMES[len(readable) :]:
        setattr(properties, field, None)
    expected = spec.BasicProperties(**readable)
    assert properties == expected
    assert expected == properties
    assert properties.encode() == expected.encode()
    assert repr(properties) == repr(expected)


@pytest.mark.parametrize("name", BROKEN)
def test_publishing_them_is_refused(codec: Any, decoder: Any, name: str) -> None:
    """RabbitMQ closes the connection of whoever sends it such headers."""
    output = codec.OutputBuffer()
    encoder = output.channel(1)
    with pytest.raises(UndecodableProperties):
        encoder.publish("", "q", b"body", delivered(decoder, BROKEN[name].raw))
    assert len(output) == 0
    assert output.frames == 0


def test_hasattr_does_not_hide_it(decoder: Any) -> None:
    properties = delivered(decoder, BROKEN["unknown field type"].raw)
    with pytest.raises(UndecodableProperties):
        hasattr(properties, "headers")
    with pytest.raises(UndecodableProperties):
        getattr(properties, "headers", None)
    assert not hasattr(properties, "no_such_field")


def test_the_exception_itself() -> None:
    error = UndecodableProperties("headers can't be decoded", b"\xff\x00")
    assert str(error) == "headers can't be decoded"
    assert error.raw == b"\xff\x00"
    for same in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert same.args == error.args
        assert same.raw == error.raw
        assert repr(same) == repr(error)


def test_continuation_words_cost_nothing(decoder: Any) -> None:
    """pika 1.4.4: 0.4 s for 60,000 words, 4.3 s for 468 KiB; here they aren't even looked at."""

    def cost(words: int) -> float:
        raw = b"\xff\xff" * words + b"\0\0"

        def work() -> None:
            for _ in range(20):
                properties = delivered(decoder, raw)
                with pytest.raises(UndecodableProperties):
                    properties.headers

        return max(cpu(work), 0.0005)

    cost(100)
    assert_grows_at_most(cost, 6_000)
