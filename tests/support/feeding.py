"""Ways to hand one stream of octets to a decoder. The outcome must be the same for all of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import combinations, pairwise

Chunks = list[bytes]

# The beginning of one more frame, too short for anything to be said about it but its type.
TRAILING = b"\x01\x00\x01\x00\x00\x00"


def whole(octets: bytes) -> Iterator[Chunks]:
    yield [octets]


def every_cut(octets: bytes) -> Iterator[Chunks]:
    for cut in range(1, len(octets)):
        yield [octets[:cut], octets[cut:]]


def byte_by_byte(octets: bytes) -> Iterator[Chunks]:
    yield [octets[at : at + 1] for at in range(len(octets))]


def trailing(octets: bytes) -> Iterator[Chunks]:
    yield [octets + TRAILING]


def small_reads(octets: bytes) -> Iterator[Chunks]:
    for size in range(2, 10):
        yield [octets[at : at + size] for at in range(0, len(octets), size)]


STYLES: dict[str, Callable[[bytes], Iterator[Chunks]]] = {
    style.__name__: style for style in (whole, every_cut, byte_by_byte, trailing, small_reads)
}


def three_parts(octets: bytes) -> Iterator[Chunks]:
    """Every pair of cuts."""
    for first, second in combinations(range(1, len(octets)), 2):
        yield [octets[:first], octets[first:second], octets[second:]]


def random_cuts(octets: bytes, seed: int) -> Chunks:
    rng = random.Random(seed)
    count = rng.randrange(0, min(12, len(octets)))
    cuts = [0, *sorted(rng.sample(range(1, len(octets)), count)), len(octets)]
    return [octets[begin:end] for begin, end in pairwise(cuts)]
