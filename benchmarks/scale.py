"""Cost as the work grows: straight lines, or a flat one for the cost of one message."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace

from benchmarks.rows import Row
from benchmarks.spec import Spec
from benchmarks.worker import TWISTED

MESSAGES = (1_000, 10_000, 100_000, 1_000_000)
CHANNELS = (1, 10, 50, 200)
SIZES = (0, 100, 1_000, 10_000, 100_000, 1_000_000, 16_777_216)
CHUNKS = (1, 10, 100, 1_000, 10_000, 100_000, 1_000_000)
BACKLOGS = (1, 10, 1_000, 10_000, 100_000, 300_000)
# pika stops where its time would be most of the run.
PIKA_MESSAGES = 30_000
SIZE_BUDGET = 64 << 20  # bytes of bodies in one measurement
CHUNK_BUDGET = 400_000  # reads in one measurement


def rows(options: Namespace) -> list[Row]:
    """Return all series."""
    made = []
    for name, values in SERIES.items():
        for value in values:
            specs = [specify(name, value, client) for client in TWISTED]
            chosen = [spec for spec in specs if spec and chosen_client(options, spec.client)]
            made.append(
                Row(f"scale/{name}/{value}", f"scale: {value:,} {TITLES[name]}", tuple(chosen))
            )
    return made


def chosen_client(options: Namespace, client: str) -> bool:
    """Return whether the client was asked for."""
    return not options.client or client in options.client


SERIES = {
    "messages": MESSAGES,
    "channels": CHANNELS,
    "size": SIZES,
    "chunk": CHUNKS,
    "backlog": BACKLOGS,
}
TITLES = {
    "messages": "messages, ack each",
    "channels": "channels, ack each, spread over them",
    "size": "bytes of body, auto-ack",
    "chunk": "bytes in each read (no socket)",
    "backlog": "messages waiting while one is got (no socket)",
}


def specify(name: str, value: int, client: str) -> Spec | None:
    """Return one point of a series, or None where the client is left out."""
    base = Spec(client=client, case="consume", ack="each", warmup=1_000)
    slow = client == "pika"
    if name == "messages":
        return None if slow and value > PIKA_MESSAGES * 4 else replace(base, messages=value)
    if name == "channels":
        return replace(base, messages=20_000 if slow else 200_000, channels=value)
    if name == "size":
        messages = max(8, min(10_000 if slow else 100_000, SIZE_BUDGET // max(1, value)))
        return replace(base, ack="auto", size=value, messages=messages, warmup=messages // 10)
    if name == "chunk":
        messages = max(200, min(20_000, value * CHUNK_BUDGET // 253))
        messages = min(messages, 2_000) if slow else messages
        return replace(base, case="chunks", ack="auto", chunk=value, messages=messages)
    messages = min(10_000, max(value, 1_000))
    return replace(base, case="backlog", ack="auto", backlog=value, messages=messages)
