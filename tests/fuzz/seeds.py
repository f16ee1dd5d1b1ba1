"""The corpus: inputs that are worth starting from, kept as one line of hexadecimal each.

`corpus/<target>.txt` holds what the fuzzer found to reach something new, made few by libFuzzer
(`python -m tests.fuzz minimise`), and every input that once showed a bug, behind a comment that
says which. `first()` is where it all began: the streams of the unit tests.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path

from tests import differences
from tests.fuzz.targets import METHODS, TARGETS
from tests.support import corpus, wire

FOLDER = Path(__file__).with_name("corpus")


def kept(target: str) -> list[bytes]:
    """The inputs of the repository."""
    lines = (FOLDER / f"{target}.txt").read_text().splitlines()
    return [bytes.fromhex(line) for line in lines if line and not line.startswith("#")]


def crashers(target: str) -> list[str]:
    """The lines of the corpus that stay whatever a minimisation says: each behind its comment."""
    lines = (FOLDER / f"{target}.txt").read_text().splitlines()
    found, commented = [], False
    for line in lines[1:]:
        comment = line.startswith("#")
        if comment or commented:
            found.append(line)
        commented = comment
    return found


def write(target: str, inputs: list[bytes]) -> None:
    stay = crashers(target) if (FOLDER / f"{target}.txt").exists() else []
    lines = sorted({octets.hex() for octets in inputs} - set(stay), key=lambda h: (len(h), h))
    FOLDER.mkdir(exist_ok=True)
    head = f"# Inputs of the fuzz target {target}; tests/fuzz/seeds.py says more."
    (FOLDER / f"{target}.txt").write_text("\n".join([head, *stay, *filter(None, lines)]) + "\n")


def unpack(target: str, folder: Path) -> None:
    """As libFuzzer wants them: one file each, named by its content."""
    folder.mkdir(parents=True, exist_ok=True)
    for octets in [*kept(target), *first(target)]:
        (folder / hashlib.sha1(octets).hexdigest()).write_bytes(octets)


def first(target: str) -> list[bytes]:
    assert target in TARGETS
    return list(globals()[f"_{target}"]())


def _streams() -> Iterator[bytes]:
    yield from corpus.streams().values()
    yield from (difference.example for difference in differences.ALL)
    yield b"".join(corpus.contents().values())
    yield wire.content(1, b"x" * 60, step=7) * 3


def _stream() -> Iterator[bytes]:
    for octets in _streams():
        for flags in (0, 1, 5, 0x21, 0x31, 0x41, 0x81):
            yield bytes([flags, 3, 7, 20, 9]) + octets
        yield bytes([2, 0]) + octets


_differential = _stream


def _arguments() -> Iterator[bytes]:
    for octets in corpus.method_frames().values():
        index = int.from_bytes(octets[7:11], "big")
        yield bytes([METHODS.index(index)]) + octets[11:-1]


def _properties() -> Iterator[bytes]:
    every_field = wire.headers_only(wire.sized(corpus.EVERY_FIELD))
    nested = [wire.headers_only(wire.sized(wire.entry(b"n", wire.nested(n)))) for n in (3, 4, 101)]
    for raw in (b"\0\0", corpus.ALL_PROPERTIES, every_field, *nested):
        for variant in range(16):
            yield bytes([variant]) + raw


def _session() -> Iterator[bytes]:
    """Noise: most octets of a session mean something. And handshakes that are almost good."""
    rng = random.Random(1)
    for _ in range(100):
        yield rng.randbytes(rng.randrange(10, 400))
    for flags in (2, 3):
        for mistake in range(5):
            yield bytes([flags, 0, *(0, 0, 0)[: mistake % 4], 255, mistake]) + rng.randbytes(60)
