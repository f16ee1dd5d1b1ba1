"""What one measurement is asked to do, and what it answers. Both cross a process border as JSON."""

from __future__ import annotations

import gc
import resource
import time
from dataclasses import asdict, dataclass
from typing import Any

STYLES = ("await", "inline", "for", "many", "fields")
ACK_MODES = ("auto", "each", "group", "batched", "delayed")
TOGETHER = ("batched", "delayed")  # each, with our ack_batching; and our ack_delay
ACK_DELAY = 0.0005  # seconds, in mode "delayed"
ACK_GROUP = 100  # messages per ack in mode "group"
BATCH = 1000  # publishes per turn of the client's event loop
ACK_BATCH = 5000  # bare acks per turn: about as many bytes


class Unsupported(Exception):
    """This client cannot run this case; the text says why."""


@dataclass(frozen=True)
class Spec:
    """One measurement: a client, a case, and its parameters."""

    client: str
    case: str
    url: str = ""
    queue: str = ""
    warmup_queue: str = ""
    messages: int = 100_000
    warmup: int = 5_000
    ack: str = "auto"
    style: str = "await"
    size: int = 100
    properties: str = "usual"
    prefetch: int = 0
    read_interval: float = 0.0  # pika_twisted's option
    channels: int = 1
    confirm: int = 0  # 0: no publisher confirms; n: the embedded peer confirms n at a time
    chunk: int = 0
    backlog: int = 0

    @property
    def live(self) -> bool:
        """Whether the other side is a real broker."""
        return not self.queue.startswith("flood") and self.queue != ""

    def as_dict(self) -> dict[str, Any]:
        """Return the parameters as JSON can carry them."""
        return asdict(self)


def usage() -> tuple[float, float]:
    """Return (CPU seconds of this process, seconds on the wall)."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime, time.perf_counter()


class Stopwatch:
    """CPU and wall time between `start` and `stop`."""

    def __init__(self) -> None:
        self.cpu = 0.0
        self.wall = 0.0

    def start(self) -> None:
        """Begin, with no garbage of the warm-up left to collect."""
        gc.collect()
        self.cpu, self.wall = usage()

    def stop(self) -> None:
        """End: `cpu` and `wall` are now durations."""
        cpu, wall = usage()
        self.cpu, self.wall = cpu - self.cpu, wall - self.wall

    def result(self, messages: int) -> dict[str, Any]:
        """Return the answer of a measurement of `messages` messages."""
        return {"messages": messages, "cpu": self.cpu, "wall": self.wall}


def resident_bytes() -> int:
    """Return the resident set of this process."""
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()
