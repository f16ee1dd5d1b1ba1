"""The broker's end of an in-memory connection.

Written from the AMQP 0-9-1 specification on top of `pika.frame`, independent of the code under
test: it decodes what the client wrote, counts publishes for confirms the way a broker does, and
sends what a test tells it to send.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pika import amqp_object, frame, spec

from pika_twisted.testing.handshake import CAPABILITIES
from tests.support.transport import FakeTransport

#: Of the broker, as Connection.Start has it.
VERSION = "3.10.8"


@dataclass
class Published:
    """One message the client published; `tag` as the broker counts it (None: before confirms)."""

    channel: int
    method: Any
    properties: Any
    body: bytes
    tag: int | None


def encoded_method(channel: int, method: amqp_object.Method) -> bytes:
    return frame.Method(channel, method).marshal()


def encoded_content(
    channel: int, method: Any, body: bytes, properties: Any = None, frame_max: int = 131072
) -> bytes:
    """Method, header and body frames of one message."""
    header = frame.Header(channel, len(body), properties or spec.BasicProperties())
    parts = [encoded_method(channel, method), header.marshal()]
    step = frame_max - 8
    for start in range(0, len(body), step):
        parts.append(frame.Body(channel, body[start : start + step]).marshal())
    return b"".join(parts)


def raw_frame(kind: int, channel: int, payload: bytes, end: bytes = b"\xce") -> bytes:
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + end


class Peer:
    def __init__(self, transport: FakeTransport, protocol: Any, clock: Any) -> None:
        self.transport = transport
        self.protocol = protocol
        self.clock = clock
        self.frames: list[Any] = []  # decoded, not yet taken by a test
        self.published: list[Published] = []
        self._confirms: dict[int, int] = {}
        self._unfinished: dict[int, tuple[Any, Any, list[bytes]]] = {}
        self._undecoded = b""
        self._read = 0  # writes of the transport seen so far
        self._batch: list[bytes] | None = None

    # Reading what the client wrote.

    def read(self) -> None:
        """Decode what the client has written since the last time."""
        self.clock.advance(0)
        written = self.transport.writes[self._read :]
        self._read += len(written)
        data = memoryview(self._undecoded + b"".join(written))
        offset = 0
        while offset < len(data):
            end = self._frame_end(data, offset)
            if end is None:
                break
            self._account(_decode(bytes(data[offset:end])))
            offset = end
        self._undecoded = bytes(data[offset:])

    @staticmethod
    def _frame_end(data: memoryview, offset: int) -> int | None:
        if bytes(data[offset : offset + 4]) == b"AMQP":
            size = 8
        elif len(data) - offset < 7:
            return None
        else:
            size = 8 + struct.unpack_from(">I", data, offset + 3)[0]
        return offset + size if len(data) - offset >= size else None

    def _account(self, decoded: Any) -> None:
        self.frames.append(decoded)
        if isinstance(decoded, frame.Method):
            number = decoded.channel_number
            if isinstance(decoded.method, spec.Confirm.Select):
                self._confirms.setdefault(number, 0)
            elif isinstance(decoded.method, spec.Basic.Publish):
                if number in self._confirms:
                    self._confirms[number] += 1
                self._unfinished[number] = (decoded.method, None, [])
            elif isinstance(decoded.method, (spec.Channel.Open, spec.Channel.Close)):
                self._confirms.pop(number, None)
        elif isinstance(decoded, frame.Header):
            method, _, parts = self._unfinished[decoded.channel_number]
            self._unfinished[decoded.channel_number] = (method, decoded, parts)
            self._finish_content(decoded.channel_number)
        elif isinstance(decoded, frame.Body):
            self._unfinished[decoded.channel_number][2].append(decoded.fragment)
            self._finish_content(decoded.channel_number)

    def _finish_content(self, number: int) -> None:
        method, header, parts = self._unfinished[number]
        body = b"".join(parts)
        assert len(body) <= header.body_size, "the client wrote more body than it announced"
        if len(body) == header.body_size:
            del self._unfinished[number]
            tag = self._confirms.get(number)
            self.published.append(Published(number, method, header.properties, body, tag))

    def methods(self) -> list[Any]:
        """The methods written and not yet taken."""
        self.read()
        return [part.method for part in self.frames if isinstance(part, frame.Method)]

    def names(self) -> list[str]:
        return [method.NAME for method in self.methods()]

    def expect(self, method_class: Any, **fields: Any) -> Any:
        """Take the oldest method of that class (and with those field values) the client wrote."""
        self.read()
        for index, part in enumerate(self.frames):
            if not isinstance(part, frame.Method) or not isinstance(part.method, method_class):
                continue
            if all(getattr(part.method, name) == value for name, value in fields.items()):
                del self.frames[index]
                return part
        raise AssertionError(
            f"the client did not write {method_class.NAME} {fields or ''}, but {self.names()}"
        )

    def expect_none(self, *method_classes: Any) -> None:
        """The client has written none of these (nothing at all when none is named)."""
        found = [
            method.NAME
            for method in self.methods()
            if not method_classes or isinstance(method, method_classes)
        ]
        assert not found, f"the client wrote {found}"

    def forget(self) -> None:
        """Drop what the client has written so far."""
        self.read()
        self.frames.clear()
        self.published.clear()

    def published_body(self, body: bytes) -> Published:
        self.read()
        for message in self.published:
            if message.body == body:
                return message
        raise AssertionError(f"{body!r} was not published: {[m.body for m in self.published]}")

    # Sending.

    def send_bytes(self, data: bytes) -> None:
        if self._batch is not None:
            self._batch.append(data)
            return
        assert self.transport.connected, "the connection is gone"
        self.protocol.dataReceived(data)

    @contextlib.contextmanager
    def one_read(self) -> Iterator[None]:
        """Everything sent inside arrives at the client in one `dataReceived`."""
        self._batch = []
        try:
            yield
        finally:
            data, self._batch = b"".join(self._batch), None
        self.send_bytes(data)

    def send(self, channel: Any, method: amqp_object.Method) -> None:
        self.send_bytes(encoded_method(_number(channel), method))

    def send_content(
        self, channel: Any, method: Any, body: bytes = b"", properties: Any = None
    ) -> None:
        self.send_bytes(encoded_content(_number(channel), method, body, properties))

    def deliver(
        self, channel: Any, consumer_tag: str, *bodies: bytes, first: int = 1, queue: str = "q"
    ) -> None:
        """Deliver messages with delivery tags from `first` on, all in one read."""
        parts = []
        for delivery_tag, body in enumerate(bodies, first):
            method = spec.Basic.Deliver(consumer_tag, delivery_tag, False, "", queue)
            parts.append(encoded_content(_number(channel), method, body))
        self.send_bytes(b"".join(parts))

    def get_ok(
        self, channel: Any, body: bytes, *, tag: int = 1, queue: str = "q", left: int = 0
    ) -> None:
        self.send_content(channel, spec.Basic.GetOk(tag, False, "", queue, left), body)

    def give_back(self, channel: Any, message: Published, properties: Any = None) -> None:
        """Basic.Return for a message the client published."""
        method = spec.Basic.Return(
            312, "NO_ROUTE", message.method.exchange, message.method.routing_key
        )
        self.send_content(channel, method, message.body, properties or message.properties)

    def ack(self, channel: Any, tag: int | None, multiple: bool = False) -> None:
        assert tag is not None, "the broker sends no confirm for this message"
        self.send(channel, spec.Basic.Ack(tag, multiple))

    def close_channel(self, channel: Any, code: int, text: str) -> None:
        self.send(channel, spec.Channel.Close(code, text, 0, 0))

    def heartbeat(self) -> None:
        self.send_bytes(frame.Heartbeat().marshal())

    # The handshake.

    def start(self, product: str = "RabbitMQ", version: tuple[int, int] = (0, 9)) -> None:
        properties = {"product": product, "version": VERSION, "capabilities": dict(CAPABILITIES)}
        self.send(0, spec.Connection.Start(*version, properties, "PLAIN AMQPLAIN", "en_US"))

    def tune(self, channel_max: int = 2047, frame_max: int = 131072, heartbeat: int = 60) -> None:
        self.send(0, spec.Connection.Tune(channel_max, frame_max, heartbeat))

    def open_ok(self) -> None:
        self.send(0, spec.Connection.OpenOk())


def _decode(data: bytes) -> Any:
    if data[7:11] == spec.Connection.UpdateSecret.INDEX.to_bytes(4, "big"):
        # A method of clients only: pika can't decode it.
        length = int.from_bytes(data[11:15], "big")
        secret, rest = data[15 : 15 + length], data[15 + length : -1]
        reason = rest[1 : 1 + rest[0]]
        return frame.Method(0, spec.Connection.UpdateSecret(secret.decode(), reason.decode()))
    return frame.decode_frame(data)[1]


def _number(channel: Any) -> int:
    return channel if isinstance(channel, int) else channel.channel_number
