"""The reference's encoders: pika marshals the frames, `to_wire` what is in them."""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable
from functools import partial
from typing import Any, cast

from pika import frame, spec

from pika_twisted.codec.to_wire import Writer, body_octets, encode_properties

_FRAME_OVERHEAD = spec.FRAME_HEADER_SIZE + spec.FRAME_END_SIZE
#: Sizes have 32 bits on the wire, and here as many as the compiled twin can hold.
LARGEST_SIZE = sys.maxsize - 1024
LARGEST_FRAME = min(LARGEST_SIZE, 0xFFFFFFFF + _FRAME_OVERHEAD)
_FRAME_MIN_SIZE = 4096  # of AMQP 0-9-1; pika 1.5 has another


class OutputBuffer:
    """Encoded frames of all channels of one connection, in the order of the calls."""

    def __init__(self, *, frame_max: int = 131072, limit: int = 65536) -> None:
        self.held = False
        #: Whether anything may wait at all: only where the transport flushes us before it ends.
        self.can_hold = False
        #: How many writes of this turn of the reactor went out at the call.
        self.writes = 0
        #: Ledgers that hold acks back until the turn ends, and those that may hold them longer.
        self.ledgers: list[Any] = []
        self.delayed: list[Any] = []
        #: Where `write()` writes; None: nowhere.
        self.transport: Any = None
        self.frame_max = frame_max
        self.limit = min(limit, LARGEST_SIZE // 2)
        self.frames = 0
        self.bytes_written = 0
        self.frames_written = 0
        self._frames_taken = 0
        self._octets = bytearray()

    def __len__(self) -> int:
        return len(self._octets)

    @property
    def frame_max(self) -> int:
        return self._frame_max

    @frame_max.setter
    def frame_max(self, value: int) -> None:
        if value <= _FRAME_OVERHEAD:
            raise ValueError(f"frame_max must be more than {_FRAME_OVERHEAD}, not {value}")
        self._frame_max = min(value, LARGEST_FRAME)

    def write_out(self) -> None:
        frames = self.frames - self._frames_taken
        if self._octets:
            self.write(self.take(), frames)

    def write(self, octets: bytes, frames: int) -> None:
        self.bytes_written += len(octets)
        self.frames_written += frames
        if self.transport is not None:
            self.transport.write(octets)

    def take(self) -> bytes:
        self._frames_taken = self.frames
        octets = bytes(self._octets)
        self._octets.clear()
        return octets

    def channel(self, number: int) -> ChannelEncoder:
        return ChannelEncoder(self, number)

    def _append(self, frames: Iterable[bytes]) -> bool:
        """Add marshalled frames; whether they have to be written now."""
        for octets in frames:
            self._octets += octets
            self.frames += 1
        return not self.held or len(self._octets) >= self.limit


class ChannelEncoder:
    """Encodes what one channel sends often. True means: write the buffer out now."""

    def __init__(self, output: OutputBuffer, number: int) -> None:
        self.number = number
        #: While it is False nothing is encoded, and True returned: the caller's slow path says why.
        self.open = True
        #: What basic_ack() and basic_publish() call when it is time to write.
        self.flush: Any = None
        #: A ledger looks at every ack: slow_ack() does all that then.
        self.has_ledger = False
        #: The channel's own methods, for all that is rare.
        self.slow_ack: Any = None
        self.slow_publish: Any = None
        #: Makes the result of basic_publish(); with the arguments in confirm mode, None elsewhere.
        self.succeeded: Any = None
        self.expect: Any = None
        #: The encoded properties of the latest mandatory publish, which its return is known by.
        self.sent_properties: bytes | None = None
        self._output = output

    def ack(self, delivery_tag: int | None = 0, multiple: bool = False) -> bool:
        return not self.open or self._method(spec.Basic.Ack(_tag(delivery_tag), multiple))

    def basic_ack(self, delivery_tag: int | None = 0, multiple: bool = False) -> None:
        if self.has_ledger:
            self.slow_ack(delivery_tag, multiple)
        elif self.ack(delivery_tag, multiple):
            self.flush()

    def nack(
        self, delivery_tag: int | None = 0, multiple: bool = False, requeue: bool = True
    ) -> bool:
        return not self.open or self._method(spec.Basic.Nack(_tag(delivery_tag), multiple, requeue))

    def reject(self, delivery_tag: int | None, requeue: bool = True) -> bool:
        return not self.open or self._method(spec.Basic.Reject(_tag(delivery_tag), requeue))

    def publish(
        self,
        exchange: str | bytes,
        routing_key: str | bytes,
        body: Any,
        properties: Any = None,
        mandatory: bool = False,
    ) -> bool:
        if not self.open:
            return True
        encoded = _encoded(properties)
        octets = body_octets(body)
        exchange = _short_string("exchange", exchange)
        routing_key = _short_string("routing_key", routing_key)
        header = _header_payload(properties, encoded, len(octets))
        names: Any = {"exchange": exchange, "routing_key": routing_key}  # bytes where no text
        method = spec.Basic.Publish(mandatory=mandatory, **names)
        limit = self._output.frame_max
        size = sum(map(len, header)) + _FRAME_OVERHEAD
        if size > max(limit, _FRAME_MIN_SIZE):
            raise ValueError(f"properties: a header frame of {size} octets, frame_max is {limit}")
        self.sent_properties = b"".join(header[1:])
        step = limit - _FRAME_OVERHEAD
        bodies = [octets[begin : begin + step] for begin in range(0, len(octets), step)]
        return self._output._append(
            [
                frame.Method(self.number, method).marshal(),
                _header_frame(self.number)._marshal(header),
                *(frame.Body(self.number, fragment).marshal() for fragment in bodies),
            ]
        )

    def basic_publish(
        self,
        exchange: str | bytes,
        routing_key: str | bytes,
        body: Any,
        properties: Any = None,
        mandatory: bool = False,
    ) -> Any:
        arguments = (exchange, routing_key, body, properties, mandatory)
        if not self.open:
            return self.slow_publish(*arguments)
        try:
            due = self.publish(*arguments)
        except Exception:
            return self.slow_publish(*arguments)
        if self.expect is None:
            result = self.succeeded()
        elif mandatory:
            result = self.expect(exchange, routing_key, body, True, self.sent_properties)
        else:
            result = self.expect(exchange, routing_key, body)
        if due:
            self.flush()
        return result

    def _method(self, method: Any) -> bool:
        return self._output._append([frame.Method(self.number, method).marshal()])


# Not frame.Header: that one encodes the properties, which are given encoded here.
_header_frame: Any = partial(cast(Any, frame.Frame), spec.FRAME_HEADER)


def _tag(delivery_tag: int | None) -> int:
    if delivery_tag is None:
        return 0
    if isinstance(delivery_tag, bool) or not isinstance(delivery_tag, int):
        raise TypeError(f"delivery_tag must be an int, not {type(delivery_tag).__name__}")
    if not 0 <= delivery_tag < 1 << 64:
        raise ValueError(f"delivery_tag must be between 0 and 2**64 - 1, not {delivery_tag}")
    return delivery_tag


def _short_string(name: str, value: str | bytes) -> bytes:
    writer = Writer(name)
    writer.short_string(value)
    return bytes(writer.octets[1:])


_PIKA_ENCODE = spec.BasicProperties.encode


def _encoded(properties: Any) -> list[bytes] | None:
    """What properties with an `encode()` of their own make of themselves, or None."""
    if properties is None:
        return [bytes(2)]  # no flags
    encode = getattr(type(properties), "encode", None)
    if encode is None or isinstance(properties, (str, bytes)):
        raise TypeError(
            f"properties must be BasicProperties or None, not {type(properties).__name__}"
        )
    return None if encode is _PIKA_ENCODE else list(properties.encode())


def _header_payload(properties: Any, encoded: list[bytes] | None, body_size: int) -> list[bytes]:
    """The pieces of the header frame's payload."""
    pieces = [encode_properties(properties)] if encoded is None else encoded
    return [struct.pack(">HxxQ", spec.BasicProperties.INDEX, body_size), *pieces]
