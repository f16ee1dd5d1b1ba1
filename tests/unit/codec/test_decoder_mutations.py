"""Every octet of every stream of the corpus, changed to every other value: 460,020 cases.

What comes out must be decode_frame's result or a listed difference (tests/differences.py). The
oracle answers each mutant once, both codecs are compared with it. All 314,670 cases of the methods
are in the ordinary run; of the contents every second value (72,960 cases, 387,630 in all), every
value with PIKA_TWISTED_EXHAUSTIVE=1.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
from pika import spec

from tests import differences
from tests.support import corpus, feeding, shape, wire
from tests.support.codecs import EXHAUSTIVE, Message, load
from tests.support.oracle import Oracle
from tests.support.pika_versions import GONE

pytestmark = pytest.mark.timeout(900)

METHODS = corpus.method_frames()
CONTENTS = corpus.contents()


def mutants(octets: bytes, step: int = 1) -> Iterator[bytes]:
    """Every octet changed to every value but its own."""
    mutant = bytearray(octets)
    for at, original in enumerate(octets):
        for change in range(1, 256, step):
            mutant[at] = original ^ change
            yield bytes(mutant)
        mutant[at] = original


def check_mutants(streams: dict[str, bytes], step: int) -> tuple[int, set[str]]:
    """Compare both codecs with the oracle; how many cases, and which differences came up."""
    codecs = [load("reference"), load("compiled")]
    count, used = 0, set()
    for name, octets in streams.items():
        for mutant in mutants(octets, step):
            oracle = Oracle()
            expected = oracle.trace(mutant)
            for codec in codecs:
                got = shape.trace(codec.FrameDecoder(Message), [mutant])
                assert got == expected, (codec.IMPLEMENTATION, name, mutant)
            used |= oracle.used
            count += 1
    return count, used


def test_every_octet_of_every_method() -> None:
    count, used = check_mutants(METHODS, 1)
    assert count > 200_000  # an empty generator would pass; how many it makes is its own affair
    assert {
        "unknown frame type",
        "heartbeat on a channel",
        "frame above the limit",
        "wrong frame end",
        "unknown method",
        "undecodable arguments",
        "length past the end",
    } <= used


def test_every_octet_of_every_content() -> None:
    count, used = check_mutants(CONTENTS, 1 if EXHAUSTIVE else 2)
    assert count > (100_000 if EXHAUSTIVE else 50_000)
    assert {
        "body out of sequence",
        "body longer than announced",
        "header out of sequence",
        "method inside a content",
        "content header of an unknown class",
        "continued property flags",
        "undecodable properties",
    } <= used


def test_two_octets_at_once() -> None:
    """Pairs of mutations, 20,000 by chance (200,000 exhaustively), cut by chance."""
    rng = random.Random(4)
    codecs = [load("reference"), load("compiled")]
    streams = [*METHODS.values(), *CONTENTS.values()]
    for _ in range(200_000 if EXHAUSTIVE else 20_000):
        mutant = bytearray(rng.choice(streams))
        for _ in range(2):
            mutant[rng.randrange(len(mutant))] = rng.choice((0, 1, 0x7F, 0x80, 0xCE, 0xFF))
        octets = bytes(mutant)
        expected = Oracle().trace(octets)
        chunks = feeding.random_cuts(octets, rng.getrandbits(30))
        for codec in codecs:
            assert shape.trace(codec.FrameDecoder(Message), chunks) == expected, octets


def test_splice() -> None:
    """Octets taken out, doubled, or moved from another stream."""
    rng = random.Random(5)
    codecs = [load("reference"), load("compiled")]
    streams = [*METHODS.values(), *CONTENTS.values()]
    for _ in range(100_000 if EXHAUSTIVE else 10_000):
        octets, other = rng.choice(streams), rng.choice(streams)
        at, end = sorted(rng.randrange(len(octets) + 1) for _ in range(2))
        begin = rng.randrange(len(other))
        octets = octets[:at] + other[begin : begin + rng.randrange(20)] + octets[end:]
        expected = Oracle().trace(octets)
        for codec in codecs:
            assert shape.trace(codec.FrameDecoder(Message), [octets]) == expected, octets


# Streams on which some version of a codec was wrong, or that a fuzzer found. They stay for ever.
CRASHERS: dict[str, bytes] = {
    # pika can't decode this method at all; the compiled codec gave the secret as bytes.
    "UpdateSecret as text": wire.method_frame(0, spec.Connection.UpdateSecret("s\u00e9", "why")),
    "UpdateSecret as octets": wire.method_frame(0, spec.Connection.UpdateSecret(b"\xff", b"\xfe")),
    # StartOk with one octet changed is an UpdateSecret whose secret begins inside a table.
    "StartOk turned UpdateSecret": bytes.fromhex(
        "01000000 00001c00 0a004600 0000090 16b53000 00002c3a9 02c3a900 0000014c 02c3a9ce".replace(
            " ", ""
        )
    ),
    # 600 levels overflow Python's stack in pika's decoder.
    "nested tables in arguments": wire.raw_method(
        0,
        spec.Connection.Start.INDEX,
        b"\x00\x09" + wire.sized(wire.entry(b"n", wire.nested(600))) + bytes(8),
    ),
    "empty body frames": (
        wire.method_frame(1, wire.deliver())
        + wire.raw_header(1, 1)
        + wire.body_frame(1, b"") * 3
        + wire.body_frame(1, b"x")
        + wire.HEARTBEAT
    ),
    "one octet short of everything": wire.raw_method(1, spec.Basic.Deliver.INDEX, bytes(11)),
}


@pytest.mark.parametrize("style", ["whole", "every_cut", "byte_by_byte"])
@pytest.mark.parametrize("name", CRASHERS)
def test_crashers(codec: Any, name: str, style: str) -> None:
    octets = CRASHERS[name]
    expected = Oracle().trace(octets)
    for chunks in feeding.STYLES[style](octets):
        assert shape.trace(codec.FrameDecoder(Message), chunks) == expected


def test_every_difference_is_met_somewhere() -> None:
    """The corpus, the examples and noise between them use each entry of the list."""
    used: set[str] = set()
    for difference in differences.ALL:
        oracle = Oracle()
        oracle.trace(difference.example)
        used |= oracle.used
    assert used >= {d.name for d in differences.ALL} - GONE
