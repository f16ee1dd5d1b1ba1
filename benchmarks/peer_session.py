"""One client's connection to the embedded peer: frames in, frames out.

What is not about channels, the handshake and the end, is left to the broker for tests.
"""

from __future__ import annotations

import select
import socket
import struct
import time

from pika import amqp_object, frame, spec
from twisted.internet.testing import StringTransport

from benchmarks.peer_channel import PeerChannel
from pika_twisted.testing import Broker, ServerConnection

READ_SIZE = 256 * 1024
HEADER_SIZE = 7
METHOD_IDS = slice(HEADER_SIZE, HEADER_SIZE + 4)
ACK_ID = struct.pack(">HH", 60, 80)
PUBLISH_ID = struct.pack(">HH", 60, 40)


class ClientGone(Exception):
    """The client closed its side."""


class Session:
    """Serves one connected socket until the client closes it."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = connection
        self._poll = select.poll()
        self._channels: dict[int, PeerChannel] = {}
        self._connection = ServerConnection(Broker())
        self._connection.makeConnection(_Replies(self))
        self._unread = b""
        self._greeted = False
        self._replies = bytearray()
        self._sending: memoryview | None = None
        self._last_send = time.monotonic()

    def run(self) -> None:
        """Serve until the end of the connection."""
        self._poll.register(self._socket, select.POLLIN)
        try:
            while True:
                self._turn()
        except (ClientGone, ConnectionError):
            pass
        finally:
            self._socket.close()

    def _turn(self) -> None:
        busy, blocked = self._write()
        if self._connection.state == "closed" and not busy:
            raise ClientGone
        self._poll.modify(self._socket, select.POLLIN | (select.POLLOUT if blocked else 0))
        timeout = 0 if busy and not blocked else 1000
        events = self._poll.poll(timeout)
        if events and events[0][1] & ~select.POLLOUT:
            self._read()
        elif not events and timeout and self._connection.heartbeat:
            self._beat()

    def _beat(self) -> None:
        if time.monotonic() - self._last_send > self._connection.heartbeat / 3:
            self._replies += frame.Heartbeat().marshal()

    # Out

    def _write(self) -> tuple[bool, bool]:
        """Send once; return (there was something to send, the socket was full)."""
        if self._sending is None:
            self._sending = self._next_view()
            if self._sending is None:
                return False, False
        try:
            sent = self._socket.send(self._sending)
        except BlockingIOError:
            return True, True
        self._last_send = time.monotonic()
        self._sending = self._sending[sent:] if sent < len(self._sending) else None
        return True, False

    def _next_view(self) -> memoryview | None:
        if self._replies:
            replies, self._replies = self._replies, bytearray()
            return memoryview(replies)
        flooding = [channel for channel in self._channels.values() if channel.floods]
        limit = 1 << 30 if len(flooding) == 1 else 64
        for channel in flooding:
            view = channel.next_view(limit)
            if view is not None:
                if len(flooding) > 1:  # the next turn begins with another channel
                    self._channels[channel.number] = self._channels.pop(channel.number)
                return view
        return None

    def reply(self, data: bytes) -> None:
        """Send bytes before any more deliveries."""
        self._replies += data

    def _send_method(self, channel: int, method: amqp_object.Method) -> None:
        self._replies += frame.Method(channel, method).marshal()

    # In

    def _read(self) -> None:
        data = self._socket.recv(READ_SIZE)
        if not data:
            raise ClientGone
        data = self._unread + data
        position = self._consume_frames(data)
        self._unread = data[position:]
        for channel in self._channels.values():
            self._replies += channel.confirms()

    def _consume_frames(self, data: bytes) -> int:
        position = 0
        if not self._greeted:
            if len(data) < 8:
                return 0
            position = 8
            self._greeted = True
            self._connection.dataReceived(data[:8])
        while len(data) - position >= HEADER_SIZE:
            taken = self._swallow(data, position)
            if not taken:
                kind, number, size = struct.unpack_from(">BHI", data, position)
                taken = size + 8
                if len(data) - position < taken:
                    break
                self._on_frame(kind, number, data[position : position + taken])
            position += taken
        return position

    def _swallow(self, data: bytes, position: int) -> int:
        """Take a run of acks or of equal publishes at once; return its length in bytes."""
        channel = self._channels.get(struct.unpack_from(">H", data, position + 1)[0])
        if channel is None:
            return 0
        method_id = data[position + METHOD_IDS.start : position + METHOD_IDS.stop]
        if method_id == ACK_ID:
            return channel.acks.swallow(data, position)
        if method_id == PUBLISH_ID:
            return channel.publishes.swallow(data, position)
        return 0

    def _on_frame(self, kind: int, number: int, raw: bytes) -> None:
        if kind == spec.FRAME_METHOD:
            self._on_method_frame(number, raw)
        elif kind == spec.FRAME_HEADER:
            body_size = struct.unpack_from(">Q", raw, HEADER_SIZE + 4)[0]
            self._channels[number].publishes.header(raw, body_size)
        elif kind == spec.FRAME_BODY:
            self._channels[number].publishes.body(raw)

    def _on_method_frame(self, number: int, raw: bytes) -> None:
        if raw[METHOD_IDS] == PUBLISH_ID:
            self._channels[number].publishes.method(raw)
            return
        if number == 0:
            self._connection.dataReceived(raw)
            return
        method = spec.methods[struct.unpack_from(">I", raw, HEADER_SIZE)[0]]()
        method.decode(raw[:-1], HEADER_SIZE + 4)
        if isinstance(method, spec.Channel.Open):
            self._channels[number] = PeerChannel(number, self._connection.frame_max)
            self._send_method(number, spec.Channel.OpenOk())
        elif isinstance(method, spec.Channel.Close):
            self._channels.pop(number, None)
            self._send_method(number, spec.Channel.CloseOk())
        elif number in self._channels:
            for answer in self._channels[number].reply(method):
                self._send_method(number, answer)


class _Replies(StringTransport):
    """Takes the answers of the broker for tests."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session

    def write(self, data: bytes) -> None:
        self._session.reply(data)
