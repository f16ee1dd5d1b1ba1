"""What tracing and metrics add to channels and consumers.

Looked at when a channel or a `consume()` is made, never for a message: what is added later sees
the channels and consumers that are made from then on.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any, Protocol

#: Gives a context manager for the handling of one message.
Around = Callable[[Any], AbstractContextManager[Any]]


class Instrument(Protocol):
    """One observer of channels and consumers."""

    def on_channel(self, channel: Any) -> None:
        """Look at a TwistedChannel that was made; may replace methods of this object."""

    def around(self, queue: str) -> Around | None:
        """Return what surrounds the handling of each message of a queue; None: nothing."""


_instruments: list[Instrument] = []


def add(instrument: Instrument) -> None:
    """Show `instrument` every channel and consumer from now on; once, however often added."""
    if instrument not in _instruments:
        _instruments.append(instrument)


def remove(instrument: Instrument) -> None:
    """Show `instrument` no more channels and consumers."""
    if instrument in _instruments:
        _instruments.remove(instrument)


def added() -> list[Instrument]:
    """Return the instruments in use."""
    return list(_instruments)


def on_channel(channel: Any) -> None:
    """Show a new TwistedChannel to every instrument."""
    for instrument in list(_instruments):
        instrument.on_channel(channel)


def around(queue: str, own: Around) -> Around:
    """Return what surrounds the handling of each message: the instruments', then the user's own."""
    found = [each.around(queue) for each in _instruments]
    layers = [each for each in found if each is not None]
    if not layers:
        return own
    if own is not nullcontext:
        layers.append(own)
    if len(layers) == 1:
        return layers[0]

    def both(message: Any) -> AbstractContextManager[Any]:
        stack = ExitStack()
        with stack:
            for layer in layers:
                stack.enter_context(layer(message))
            return stack.pop_all()

    return both
