"""What leaves a connection, in the order of the calls and in few writes.

Acks and publishes are encoded into one buffer. While `dataReceived` runs they wait there for its
end: a write for each would cost eight times as much as encoding it. Outside, the first ones of a
turn of the reactor are written at the call, and when it becomes many the rest waits for the turn to
end. Before any other frame, and before the transport's `loseConnection()`, everything that waits is
written. Acks of a channel with `ack_delay` wait beyond the turn, until that is over or something
else is written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from twisted.internet import interfaces

from pika_twisted.codec import chooser as _codec

#: AMQP 0-9-1, frame-min-size: no frame_max is below it. pika 1.5 says 8,192, as RabbitMQ 4.1 asks
#: of clients; a broker may still offer this.
FRAME_MIN_SIZE = 4096

#: So many writes of a turn go out one by one: 1 us each, where waiting for the turn's end costs 5.
EAGER_WRITES = 8


class Outbound:
    """The output buffer of one connection, and when it is written.

    :param call_later: called with seconds and a function; returns an object with `cancel()`
    """

    def __init__(self, call_later: Callable[[float, Any], Any]) -> None:
        #: The codec's; its channels' encoders fill it, and the read loop writes it.
        self.buffer = _codec.OutputBuffer(frame_max=FRAME_MIN_SIZE)
        # Timers of acks that are held back beyond the turn: delay -> timer. One for each delay in
        # use, started by the first ack that is held while it isn't running: 5 us each.
        self._delays: dict[float, Any] = {}
        self._call_later = call_later
        self._end_of_turn: Any = None
        self._hooks: dict[str, Any] = {}

    def attach(self, transport: Any, ending: Callable[[str], Any]) -> None:
        """Write to this transport from now on.

        `ending` is called before it is closed, with the name of the method that closes it.

        After `loseConnection()` a TLS transport drops what is written, and a TCP one may be gone
        before the turn ends. Users call it on the transport itself, as ClientService does: so the
        transport is given one that flushes first. Where that can't be done nothing ever waits.
        """
        self.buffer.transport = transport
        if not interfaces.ITransport.providedBy(transport):
            return
        try:
            for name in ("loseConnection", "loseWriteConnection"):
                method = getattr(transport, name, None)
                if method is not None:
                    self._hooks[name] = self._flushing_first(method, partial(ending, name))
                    setattr(transport, name, self._hooks[name])
        except AttributeError:  # it has no room for attributes
            self._unhook()
        else:
            self.buffer.can_hold = True

    def detach(self) -> None:
        """The transport is gone, with what was not written."""
        self._unhook()
        timers = [self._end_of_turn, *self._delays.values()]
        self._end_of_turn, self._delays = None, {}
        for timer in timers:
            if timer is not None:
                timer.cancel()
        self.buffer.transport = None
        self.buffer.can_hold = False
        self.buffer.held = False
        self.buffer.ledgers, self.buffer.delayed = [], []

    def _flushing_first(
        self, method: Callable[..., Any], ending: Callable[[], Any]
    ) -> Callable[..., Any]:
        def flush_first(*args: Any, **kwargs: Any) -> Any:
            self.flush()
            ending()
            return method(*args, **kwargs)

        return flush_first

    def _unhook(self) -> None:
        for name, hook in self._hooks.items():
            if getattr(self.buffer.transport, "__dict__", {}).get(name) is hook:
                delattr(self.buffer.transport, name)
        self._hooks = {}

    def write(self, marshaled_frames: Sequence[bytes]) -> None:
        """Write frames that are encoded already, behind everything that waits."""
        self.flush()
        self.buffer.write(b"".join(marshaled_frames), len(marshaled_frames))

    def flush(self) -> None:
        """Write everything that waits."""
        buffer = self.buffer
        if buffer.ledgers or buffer.delayed:
            ledgers = buffer.ledgers + buffer.delayed
            buffer.ledgers, buffer.delayed = [], []
            for ledger in ledgers:
                ledger.emit()
        buffer.write_out()

    def call_made(self) -> None:
        """Something was encoded that need not wait, or so much that it must not."""
        buffer = self.buffer
        if buffer.held or not buffer.can_hold:
            self.flush()
            return
        buffer.writes += 1
        if buffer.writes <= EAGER_WRITES:
            self.flush()
        else:
            buffer.held = True
            self._await_end_of_turn()

    def hold_acks(self, ledger: Any) -> None:
        """Let a ledger hold acks back until the next flush.

        That is at the latest when the turn ends, or after the ledger's delay.
        """
        delay = ledger.delay
        if delay and self.buffer.can_hold:
            self.buffer.delayed.append(ledger)
            if delay not in self._delays:
                self._delays[delay] = self._call_later(delay, partial(self._on_delay_over, delay))
            return
        self.buffer.ledgers.append(ledger)
        if not self.buffer.held:  # else `dataReceived` or the end of the turn flushes
            self._await_end_of_turn()

    def _on_delay_over(self, delay: float) -> None:
        del self._delays[delay]
        if self.buffer.delayed:  # else they have left with something
            self.flush()

    def _await_end_of_turn(self) -> None:
        if self._end_of_turn is None:
            self._end_of_turn = self._call_later(0, self._on_end_of_turn)

    def _on_end_of_turn(self) -> None:
        self._end_of_turn = None
        self.buffer.writes = 0
        self.buffer.held = False
        self.flush()
