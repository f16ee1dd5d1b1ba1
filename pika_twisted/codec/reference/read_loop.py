"""The reference's read loop."""

from __future__ import annotations

from typing import Any


class ReadLoop:
    """The one loop that every received octet of a connection goes through. See `Inbound`."""

    #: What the loop calls; instances have their own.
    process: Any
    end: Any
    flush: Any
    after_read: Any
    on_reads: Any

    def __init__(self, buffer: Any, wants_after_read: Any) -> None:
        self.decoder: Any = None
        self.octets = 0
        self.frames_processed = 0
        self.stopped = False
        self.reads_left = 0
        self._draining = False
        self._buffer = buffer
        self._wants_after_read = wants_after_read

    def receive(self, data: bytes) -> None:
        decoder, buffer = self.decoder, self._buffer
        self.octets += len(data)
        if self.stopped:
            return
        decoder.feed(data)
        if self._draining:
            return
        self._draining = True
        buffer.held = buffer.can_hold
        try:
            self._drain(decoder)
        except Exception as error:
            self.end(error)
        finally:
            self._draining = buffer.held = False
            buffer.writes = 0
            if buffer.ledgers or (buffer and buffer.delayed):
                self.flush()
            else:
                buffer.write_out()
            if self._wants_after_read:
                self.after_read()
            if self.reads_left > 0:
                self.reads_left -= 1
                if self.reads_left == 0:
                    self.reads_left = self.on_reads()

    def _drain(self, decoder: Any) -> None:
        while True:
            value = decoder.next_frame()
            for token in decoder.take_ready():
                token()
            if value is None or self.stopped:
                return
            if value is not False:
                self.process(value)
                if self.stopped:
                    return
