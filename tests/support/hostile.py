"""A connection that is sent far more than it may hold: `python -m tests.support.hostile MIB...`.

Each stream in a process of its own, forked, so that its memory can be measured (Linux). Prints, as
JSON, for each stream and volume the CPU seconds, the octets by which the resident memory grew at
its worst, and the client's answers.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests.support import wire
from tests.support.session import OURS, Session

MIB = 1 << 20
READ = 256 * 1024  # octets that a connection reads at a time, by default
JUNK = bytes(READ)
FRAME_MAX = 131072
FRAME = wire.body_frame(1, bytes(FRAME_MAX - 8))
BEGUN = wire.method_frame(1, wire.deliver("t"))
ALLOWED = 16 * MIB


class Stream(NamedTuple):
    """How it begins, and what follows until there is enough of it."""

    begin: bytes
    more: bytes
    answers: tuple[str, ...]  # what the client writes
    allowed: int = 0  # octets of the message that may be held


def claim(kind: int, size: int = 2**32 - 1) -> bytes:
    return struct.pack(">BHI", kind, 1, size)


STREAMS: dict[str, Stream] = {
    "method of 4 GiB": Stream(claim(1), JUNK, ("Connection.Close 501",)),
    "header of 4 GiB": Stream(BEGUN + claim(2), JUNK, ("Connection.Close 501",)),
    "body of 4 GiB": Stream(
        BEGUN + wire.raw_header(1, 1 << 33) + claim(3),
        JUNK,
        ("Channel.Close 311", "Connection.Close 501"),
    ),
    "heartbeat of 4 GiB": Stream(claim(8), JUNK, ("Connection.Close 501",)),
    "oversized frames": Stream(b"", claim(3, READ) + bytes(READ), ("Connection.Close 501",)),
    "octets after the error": Stream(b"\xff", JUNK, ("Connection.Close 501",)),
    "good frames after the error": Stream(b"\xff", FRAME, ("Connection.Close 501",)),
    "endless body": Stream(BEGUN + wire.raw_header(1, 2**63), FRAME, ("Channel.Close 311",)),
    "body longer than announced": Stream(
        BEGUN + wire.raw_header(1, ALLOWED), FRAME, ("Connection.Close 505",), ALLOWED
    ),
    "message that never ends, then nothing of it": Stream(
        BEGUN + wire.raw_header(1, ALLOWED) + FRAME * (ALLOWED // len(FRAME)),
        wire.raw_frame(8, 0, bytes(FRAME_MAX - 8)),
        (),
        ALLOWED,
    ),
}


def reads(stream: Stream, octets: int) -> Iterator[bytes]:
    """So many octets, as they are read from a socket."""
    begin = memoryview(stream.begin)
    for at in range(0, len(begin), READ):
        yield bytes(begin[at : at + READ])
    unit = stream.more * max(1, READ // len(stream.more))
    for _ in range(0, octets, len(unit)):
        yield unit


def peak() -> int:
    """The most resident octets since the last reset()."""
    return 1024 * int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])  # type: ignore[index]


def reset() -> None:
    """Forget the peak so far; where a sandbox has no such file that of a new fork is low anyway."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def measure(name: str, octets: int) -> dict[str, Any]:
    """Send one stream to an open connection with a consumer."""
    stream = STREAMS[name]
    session = Session(OURS)
    session.open(frame_max=FRAME_MAX)
    session.consumer(session.channel())
    session.peer.forget()
    feed = reads(stream, octets)
    reset()
    before, began = peak(), time.process_time()
    for data in feed:
        session.protocol.dataReceived(data)
    cpu, grown = time.process_time() - began, peak() - before
    answers = [
        f"{each.NAME} {each.reply_code}"
        for each in session.peer.methods()
        if hasattr(each, "reply_code")
    ]
    return {"cpu": cpu, "grown": grown, "answers": answers}


def in_a_fork(name: str, volumes: list[int]) -> list[dict[str, Any]]:
    """Measure in a process that has done nothing before."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        with os.fdopen(writing, "w") as pipe:
            json.dump([measure(name, volume * MIB) for volume in volumes], pipe)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return list(json.loads(answer))


if __name__ == "__main__":
    logging.disable()
    volumes = [int(argument) for argument in sys.argv[1:]]
    print(json.dumps({name: in_a_fork(name, volumes) for name in STREAMS}))
