"""Every method of pika.spec, with generated arguments, comes out as pika has it.

Each method has up to four sets of arguments (smallest, usual, largest, not UTF-8); each frame is
fed in every style. The expectation is decode_frame's own result.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pika import frame, spec

from tests.support import feeding, shape, wire
from tests.support.codecs import Message, load
from tests.support.oracle import Oracle
from tests.support.samples import short_text, tables

SAMPLES = dict(wire.method_samples())


def sample_frame(name: str) -> bytes:
    method = SAMPLES[name]
    return wire.method_frame(wire.channel_for(method), method)


def test_every_method_is_sampled() -> None:
    assert {method.INDEX for method in SAMPLES.values()} == set(spec.methods)
    assert len(SAMPLES) > 3 * len(spec.methods) > 150  # more than three sets of arguments each


@pytest.mark.parametrize("name", SAMPLES)
def test_equal_to_pikas(decoder: Any, name: str) -> None:
    method = SAMPLES[name]
    decoder.feed(sample_frame(name))
    got = decoder.next_frame()
    assert type(got) is frame.Method
    assert got.channel_number == wire.channel_for(method)
    assert got.frame_type == spec.FRAME_METHOD
    assert isinstance(got.method, type(method))
    if method.INDEX == spec.Connection.UpdateSecret.INDEX:  # in the list of differences
        expected = method
        if isinstance(expected.new_secret, str):
            assert got.method.new_secret == expected.new_secret
    else:
        expected = frame.decode_frame(sample_frame(name))[1].method  # type: ignore[union-attr]
        assert got.method == expected
        assert expected == got.method
        assert repr(got.method) == repr(expected)
        assert vars(got.method) == vars(expected)
        assert got.method.encode() == expected.encode()
    assert shape.of_method(got.method) == shape.of_method(expected)
    assert got.method.synchronous == expected.synchronous
    assert decoder.next_frame() is None
    assert decoder.buffered == 0


@pytest.mark.parametrize("style", feeding.STYLES)
def test_any_feeding(make_decoder: Callable[..., Any], style: str) -> None:
    for name in SAMPLES:
        octets = sample_frame(name)
        expected = Oracle().trace(octets)
        for chunks in feeding.STYLES[style](octets):
            decoder = make_decoder()
            assert shape.trace(decoder, chunks) == expected, (name, chunks)
            assert decoder.buffered == (len(feeding.TRAILING) if style == "trailing" else 0)


def test_all_methods_in_one_stream(make_decoder: Callable[..., Any]) -> None:
    """Contents are closed by a header with no body, so that all samples may follow each other."""
    stream = b""
    for name, method in SAMPLES.items():
        stream += sample_frame(name)
        if method.INDEX in {m.INDEX for m in CONTENT_METHODS}:
            stream += wire.raw_header(3, 0)
    expected = Oracle().trace(stream)
    assert len(expected) == len(SAMPLES) + 4 * len(CONTENT_METHODS)
    for style in ("whole", "byte_by_byte", "small_reads"):
        for chunks in feeding.STYLES[style](stream):
            assert shape.trace(make_decoder(), chunks) == expected


@pytest.mark.parametrize("name", SAMPLES)
def test_surplus_is_accepted(decoder: Any, name: str) -> None:
    method = SAMPLES[name]
    channel = wire.channel_for(method)
    payload = sample_frame(name)[7:-1]
    expected = shape.trace(decoder, [sample_frame(name)])
    fresh = type(decoder)(Message)
    assert shape.trace(fresh, [wire.raw_frame(1, channel, payload + b"\x00surplus")]) == expected


CONTENT_METHODS = (spec.Basic.Publish, spec.Basic.Return, spec.Basic.Deliver, spec.Basic.GetOk)


@pytest.mark.parametrize("name", SAMPLES)
def test_cut_arguments_are_502(make_decoder: Callable[..., Any], name: str) -> None:
    """Every shorter payload: a syntax error, unless pika needs no more than what is left."""
    method = SAMPLES[name]
    channel = wire.channel_for(method)
    payload = sample_frame(name)[7:-1]
    for size in range(4, len(payload)):
        octets = wire.raw_frame(1, channel, payload[:size])
        assert shape.trace(make_decoder(), [octets]) == [shape.of_error(502)], size


@st.composite
def methods(draw: st.DrawFn) -> Any:
    """Any method with any arguments pika can encode."""
    name = draw(st.sampled_from(sorted(SAMPLES)))
    method_class = type(SAMPLES[name])
    values = {}
    for argument in shape.ARGUMENT_NAMES[method_class.INDEX]:
        sample = getattr(SAMPLES[name], argument)
        if isinstance(sample, bool):
            values[argument] = draw(st.booleans())
        elif isinstance(sample, int):
            values[argument] = draw(st.integers(0, 2 ** wire.integer_bits(argument) - 1))
        elif isinstance(sample, dict):
            values[argument] = draw(tables)
        else:
            values[argument] = draw(short_text | st.binary(max_size=255))
    return method_class(**values)


@pytest.mark.parametrize("name", ["reference", "compiled"])
def test_any_arguments_any_cuts(name: str) -> None:
    codec = load(name)

    @settings(max_examples=200)
    @given(st.lists(methods(), min_size=1, max_size=3), st.integers(0, 1 << 30))
    def check(sent: list[Any], seed: int) -> None:
        stream = b"".join(
            wire.method_frame(wire.channel_for(method) and number + 1, method)
            for number, method in enumerate(sent)
        )
        decoder = codec.FrameDecoder(Message)
        expected = Oracle().trace(stream)
        assert len(expected) == len(sent)
        assert shape.trace(decoder, feeding.random_cuts(stream, seed)) == expected

    check()
