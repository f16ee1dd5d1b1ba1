"""The bars: how much cheaper than pika, and how near to rabbitmq-c, each thing is meant to be.

They are printed beside the numbers, met or not, and never asserted: on a loaded machine a
benchmark that fails says nothing.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Bar:
    """Two ratios: pika's cost over ours, at least; ours over rabbitmq-c's, at most."""

    pika: float | None = None
    c_client: float | None = None

    def verdicts(self, over_pika: float | None, to_c: float | None) -> list[str]:
        """Return one phrase for each bar."""
        phrases = []
        if self.pika is not None:
            phrases.append(f"pika x{self.pika:g} {_verdict(over_pika, self.pika, at_least=True)}")
        if self.c_client is not None:
            met = _verdict(to_c, self.c_client, at_least=False)
            phrases.append(f"C x{self.c_client:.3g} {met}")
        return phrases


def _verdict(measured: float | None, bar: float, at_least: bool) -> str:
    if measured is None:
        return "not measured"
    return "met" if (measured >= bar if at_least else measured <= bar) else "NOT MET"


NO_BAR = Bar()

BARS = {
    "consume/await/auto": Bar(33, 1.3),
    "consume/await/each": Bar(35, 0.25),
    "consume/inline/auto": Bar(15),
    "consume/inline/each": Bar(18),
    "consume/for/auto": Bar(35, 1.2),
    "consume/for/each": Bar(35, 0.25),
    "consume/many/auto": Bar(40, 1.1),
    "consume/many/each": Bar(40, 0.25),
    "consume/fields/each": Bar(22),
    "waiting/auto": Bar(15),
    "waiting/each": Bar(15),
    "publish/none": Bar(30),
    "publish/usual": Bar(7),
    "publish/confirms": Bar(7),
    "ack": Bar(40),
    "bodies/65536": Bar(3),
    "bodies/1048576": Bar(2.2),
    "bodies/16777216": Bar(1.2),
    "memory/usual": Bar(3),
    "memory/repeat": Bar(3),
    "live/auto": Bar(1.5, 1 / 0.95),
    "live/each": Bar(1.5, 1 / 0.95),
    "live/batched": Bar(None, 1 / 1.15),
    "live/delayed": Bar(None, 1 / 1.15),
}
BACKLOG_SAME = 1.2  # a get() with 300,000 waiting may cost this much more than with 10: noise
COLLECTION = 1.5  # a full collection with 100,000 queued, over one of an empty process
