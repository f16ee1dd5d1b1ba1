"""Each entry of tests/differences.py is real: pika decides otherwise, both codecs as it says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pika
import pytest
from pika import frame

from tests import differences
from tests.support import feeding, shape, wire
from tests.support.oracle import Oracle
from tests.support.pika_versions import GONE

EXAMPLES = {difference.name: difference for difference in differences.ALL}


def pika_trace(octets: bytes) -> list[Any]:
    """What plain decode_frame makes of a stream; the name of the exception where it raises."""

    def frames() -> Iterator[Any]:
        rest = octets
        try:
            while rest:
                consumed, item = frame.decode_frame(rest)
                if item is None:
                    yield "waits"
                    return
                yield shape.of_frame(item)
                rest = rest[consumed:]
        except Exception as error:
            yield type(error).__name__

    return list(frames())


def test_names_are_unique() -> None:
    assert len(EXAMPLES) == len(differences.ALL)
    assert all(difference.reason for difference in differences.ALL)


@pytest.mark.parametrize("name", EXAMPLES)
def test_pika_decides_otherwise(name: str) -> None:
    octets = EXAMPLES[name].example
    oracle = Oracle()
    expected = oracle.trace(octets)
    if name in GONE:
        assert pika_trace(octets) == expected
        assert not oracle.used
    else:
        assert pika_trace(octets) != expected
        assert name in oracle.used


@pytest.mark.parametrize("style", feeding.STYLES)
@pytest.mark.parametrize("name", EXAMPLES)
def test_ours_is_as_listed(make_decoder: Callable[..., Any], name: str, style: str) -> None:
    difference = EXAMPLES[name]
    oracle = Oracle()
    expected = oracle.trace(difference.example)
    if difference.reply_code is not None:
        assert expected[-1] == shape.of_error(difference.reply_code)
    for chunks in feeding.STYLES[style](difference.example):
        assert shape.trace(make_decoder(), chunks) == expected, chunks


def test_oracle_without_differences_is_pika() -> None:
    """The observer around pika's field readers changes nothing by itself."""
    checked = 0
    for _, method in wire.method_samples():
        octets = wire.method_frame(wire.channel_for(method), method)
        oracle = Oracle()
        expected = oracle.trace(octets)
        if not oracle.used:
            assert pika_trace(octets) == expected
            checked += 1
    assert checked >= 200


def test_light_methods(make_decoder: Callable[..., Any], codec: Any) -> None:
    """OBJECTS: the classes differ, little that can be asked of the objects does.

    test_decoder_objects.py has the rest, test_decoder_direct.py OversizedContent.
    """
    decoder = make_decoder()
    decoder.feed(wire.content(1, b"", pika.BasicProperties(type="t")))
    method, header = decoder.next_frame().method, decoder.next_frame()
    assert type(method) is codec.Deliver
    assert type(header.properties) is codec.BasicProperties
    pikas_method = frame.decode_frame(wire.method_frame(1, wire.deliver()))[1].method  # type: ignore[union-attr]
    assert type(pikas_method) is not type(method)
    assert pikas_method == method
    assert pika.BasicProperties(type="t") == header.properties
