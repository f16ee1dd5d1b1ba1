"""What a connection reads: decoded, and handed out in the order in which it came."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from pika import spec

from .exceptions import DecodeError
from .outbound import Outbound
from .water import ReadGate

LOGGER = logging.getLogger("pika_twisted")

#: So many messages are made before the first of them is handed out. A chunk of 256 KiB can hold
#: 2,000; below 700, the threshold of the cyclic collector's youngest generation, those that were
#: handed out are gone before it looks at them: 0.32 instead of 0.49 us a message with get_many().
BURST = 512


class Inbound:
    """The one loop that every received octet of a connection goes through.

    A class of its own, because Python 3.11 and later call the methods of a small object 0.04 us
    faster than those of pika's connection with its 40 attributes.

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
        self.decoder: Any = None
        self.octets = 0
        #: How many frames were handed to `process`; the decoder counts the others.
        self.frames_processed = 0
        #: Whatever still arrives is ignored.
        self.deaf = False
        self._draining = False
        self._outbound = outbound
        self._gate = gate
        self._process = process
        self._refuse = refuse

    def start(self, decoder: Any) -> None:
        """Begin anew with this decoder."""
        decoder.burst = BURST
        self.decoder = decoder

    def receive(self, data: bytes) -> None:
        """Take what the transport read, cut anywhere, and decode all of it. Raises nothing.

        Messages of subscribed consumers are in their queues when `next_frame()` returns. Their
        waiting get()s are woken once per chunk or burst, and before any other frame is handed on,
        so that order is kept: waking for each message costs five times as much.
        """
        self.octets += len(data)
        if self.deaf:
            return
        decoder = self.decoder
        decoder.feed(data)
        if self._draining:  # the loop further up the stack takes it
            return
        outbound = self._outbound
        buffer = outbound.buffer
        self._draining = True
        buffer.hold(outbound.can_hold)
        try:
            while True:
                value = decoder.next_frame()
                tokens = decoder.take_ready()
                if tokens:
                    for consumer in tokens:
                        consumer.wake()
                if value is None or self.deaf:
                    break
                if value is not False:  # False: that was a burst
                    self._process(value)
                    if self.deaf:
                        break
        except Exception as error:
            self._end(error)
        finally:
            self._draining = False
            buffer.hold(False)
            if buffer or outbound.ledgers:
                outbound.end_read()
            if self._gate.full:
                self._gate.settle()

    def _end(self, error: Exception) -> None:
        """The connection can't go on; what came before the error is handed out."""
        if isinstance(error, DecodeError):
            for consumer in self.decoder.take_ready():
                consumer.wake()
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
