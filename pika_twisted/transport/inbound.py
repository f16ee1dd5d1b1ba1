"""What a connection reads: decoded, and handed out in the order in which it came."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from pika import spec

from pika_twisted.codec import chooser as _codec
from pika_twisted.exceptions import DecodeError

from .outbound import Outbound
from .read_gate import ReadGate

LOGGER = logging.getLogger("pika_twisted")

#: So many messages are made before the first of them is handed out. A chunk of 256 KiB can hold
#: 2,000; below 700, the threshold of the cyclic collector's youngest generation, those that were
#: handed out are gone before it looks at them: 0.32 instead of 0.49 us a message with get_many().
BURST = 512


class Inbound(_codec.ReadLoop):  # pyright: ignore[reportGeneralTypeIssues]
    """The one loop that every received byte of a connection goes through, and what it calls.

    The loop itself is the codec's, `receive()`: with it in Python a message that comes alone cost
    half as much again.

    :param process: called with each frame that isn't delivered directly
    :param refuse: called with a DecodeError, and what caused it, when the connection has to end
    """

    def __init__(
        self,
        outbound: Outbound,
        gate: ReadGate,
        process: Callable[[Any], Any],
        refuse: Callable[..., Any],
    ) -> None:
        super().__init__(outbound.buffer, gate.wants_after_read)
        #: What the loop calls, by these names.
        self.process = process
        self.flush = outbound.flush
        self.after_read = gate.after_read
        self.on_reads = gate.on_reads
        self.reads_left = gate.reads_left
        self._refuse = refuse

    def start(self, decoder: Any) -> None:
        """Begin anew with this decoder."""
        decoder.burst = BURST
        self.decoder = decoder

    def end(self, error: Exception) -> None:
        """The connection can't go on; what came before the error is handed out."""
        if isinstance(error, DecodeError):
            for wake in self.decoder.take_ready():
                wake()
            self._refuse(error)
        elif isinstance(error, MemoryError):
            self._refuse(DecodeError(spec.RESOURCE_ERROR, "out of memory"), error)
        else:
            # Ours or pika's: users' callbacks are guarded where they are registered.
            LOGGER.error(
                "Unexpected error while processing a frame; closing the connection", exc_info=error
            )
            self._refuse(DecodeError(spec.INTERNAL_ERROR, f"client error: {error!r}"), error)

    @property
    def frames(self) -> int:
        """How many frames have come, those that the decoder delivered itself included."""
        return self.frames_processed + int(self.decoder.frames_direct)
