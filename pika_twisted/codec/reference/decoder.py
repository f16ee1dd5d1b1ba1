"""The reference twin of the compiled codec ``_frame``: same names, same behaviour, plain Python.

Written to be read, not to be fast: it is what the compiled one is tested against, and what runs
where that can't be built (``_codec`` chooses). It does per frame what ``pika.frame.decode_frame``
does, with pika's own classes and decoders, but checks everything that one trusts the peer with.

The rule of both twins: any bytes give frames, messages, or one DecodeError, whatever the split;
frames before a bad one come out first; after an error the decoder stays failed. No I/O, no
callbacks, no logging.

The order of the checks is part of it, since a frame can be wrong in several ways. As soon as the
seven octets are there that every frame begins with: type, channel, size (all 501), then whether a
body frame is awaited (505). When the frame is complete: its last octet and its shape (501), then
for methods: known (540), on the right channel (503), in sequence (505), arguments (502).
"""

from __future__ import annotations

import struct
from typing import Any

from pika import frame, spec

from pika_twisted.codec.errors import (
    DecodeError,
    OversizedContent,
    UndecodableProperties,
    UnsupportedField,
)

from .backlog import Backlog
from .fields import (
    METHODS,
    UNREADABLE,
    BasicProperties,
    Deliver,
    GetOk,
    Return,
    decode_method,
)
from .output import LARGEST_FRAME, LARGEST_SIZE, ChannelEncoder, OutputBuffer
from .read_loop import ReadLoop

__all__ = [
    "IMPLEMENTATION",
    "Backlog",
    "BasicProperties",
    "ChannelEncoder",
    "DecodeError",
    "Deliver",
    "FrameDecoder",
    "GetOk",
    "OutputBuffer",
    "OversizedContent",
    "ReadLoop",
    "Return",
    "UndecodableProperties",
    "UnsupportedField",
    "read_as_slots",
]

IMPLEMENTATION = "reference"

# Frame layout (AMQP 0-9-1, 2.3.5):  type  channel  size | payload ... | 0xCE
#                                     1       2       4       size        1    octets
_FRAME_HEADER = struct.Struct(">BHI")
_METHOD_ID = struct.Struct(">I")
_CONTENT_HEADER = struct.Struct(">HHQ")  # class, weight (unused), body size
_PROTOCOL_HEADER_SIZE = 8
_BLOCK = 64 * 1024

_FRAME_TYPES = (spec.FRAME_METHOD, spec.FRAME_HEADER, spec.FRAME_BODY, spec.FRAME_HEARTBEAT)
_CONTENT_METHODS = (spec.Basic.Deliver, spec.Basic.GetOk, spec.Basic.Return, spec.Basic.Publish)
_CONFIRMS = (spec.Basic.Ack, spec.Basic.Nack)
_CHANNEL_ENDS = (spec.Channel.Close.INDEX, spec.Channel.CloseOk.INDEX)


def read_as_slots(message_class: type) -> None:
    """Nothing to do here: as quickly as a namedtuple's fields are read."""


class _Route:
    """Where the messages of one consumer go, or the confirms of one channel."""

    def __init__(self, backlog: Backlog | list[Any], channel: object, token: object) -> None:
        self.backlog = backlog
        self.channel = channel
        self.token = token
        self.reported = False


class _Content:
    """One content on its way in: its method has come, then its header, then its body."""

    def __init__(self, method: Any, route: _Route | None) -> None:
        self.method = method
        self.route = route
        self.properties: BasicProperties | None = None
        self.missing: int | None = None  # body octets; None until the header has come
        self.blocks: list[bytes | bytearray] = []  # the body so far
        self.swallowed = False  # oversized: the body is read over

    def add(self, payload: bytes) -> None:
        """Keep a part of the body; small ones together, as each alone takes 40 octets more.

        Not all in one bytearray: malloc may copy it as it grows, and 16 MiB then took 32.
        """
        if len(payload) >= _BLOCK:
            self.blocks.append(payload)
            return
        if not self.blocks or len(self.blocks[-1]) >= _BLOCK:
            self.blocks.append(bytearray())
        self.blocks[-1] += payload


def _clamped(name: str, largest: int) -> Any:
    """A limit that is no more than what the compiled twin can hold on this machine."""
    private = f"_{name}"

    def get(self: Any) -> int:
        limit: int = getattr(self, private)
        return limit

    def set_(self: Any, limit: int) -> None:
        setattr(self, private, min(limit, largest))

    return property(get, set_)


class FrameDecoder:
    """Bytes in, frames out; the messages of subscribed consumers go straight to their backlog."""

    frame_max = _clamped("frame_max", LARGEST_FRAME)
    max_header_size = _clamped("max_header_size", LARGEST_FRAME)
    max_message_size = _clamped("max_message_size", LARGEST_SIZE)

    def __init__(
        self,
        message_class: type,
        *,
        frame_max: int = 131072,
        max_header_size: int = 1 << 20,
        max_message_size: int = 128 << 20,
        max_nesting: int = 100,
    ) -> None:
        self.frame_max = frame_max
        self.max_header_size = max_header_size
        self.max_message_size = max_message_size
        self.max_nesting = max_nesting
        self.frames_direct = 0
        self.messages_direct = 0
        #: next_frame() returns False after so many direct messages; 0: no limit.
        self.burst = 0
        self._message_class = message_class
        self._buffer = bytearray()
        self._started = False
        self._failure: DecodeError | None = None
        self._contents: dict[int, _Content] = {}
        self._confirms: dict[int, _Route] = {}
        self._subscriptions: dict[tuple[int, bytes], _Route] = {}
        self._ready: list[_Route] = []
        self._last_tags: dict[int, int] = {}

    @property
    def buffered(self) -> int:
        return len(self._buffer)

    @property
    def ready(self) -> bool:
        return bool(self._ready)

    def feed(self, data: bytes) -> None:
        octets = memoryview(data)
        if self._failure is None:
            self._buffer += octets

    def next_frame(self) -> Any:
        if self._failure is not None:
            raise DecodeError(*self._failure.args)
        last = self.messages_direct + self.burst
        try:
            while (cut := self._cut_frame()) is not None:
                self._started = True
                result = self._take_frame(*cut)
                if result is not None:
                    return result
                self.frames_direct += 1
                if self.burst and self.messages_direct == last:
                    return False
        except DecodeError as error:
            self._failure = DecodeError(*error.args)
            self._buffer.clear()
            self._contents.clear()
            raise
        return None

    def subscribe(
        self,
        channel_number: int,
        consumer_tag: str | bytes,
        backlog: Backlog,
        channel: object,
        token: object,
    ) -> None:
        key = (channel_number, _tag_octets(consumer_tag))
        self._subscriptions[key] = _Route(backlog, channel, token)

    def unsubscribe(self, channel_number: int, consumer_tag: str | bytes) -> None:
        self._subscriptions.pop((channel_number, _tag_octets(consumer_tag)), None)

    def collect_confirms(
        self, channel_number: int, confirms: list[Any] | None, token: object
    ) -> None:
        self._confirms.pop(channel_number, None)
        if confirms is not None:
            self._confirms[channel_number] = _Route(confirms, None, token)

    def take_ready(self) -> list[Any]:
        reported, self._ready = self._ready, []
        for route in reported:
            route.reported = False
        return [route.token for route in reported]

    def last_delivery_tag(self, channel_number: int) -> int:
        return self._last_tags.get(channel_number, 0)

    def forget_channel(self, channel_number: int) -> None:
        self._contents.pop(channel_number, None)
        self._confirms.pop(channel_number, None)
        self._last_tags.pop(channel_number, None)
        for key in [key for key in self._subscriptions if key[0] == channel_number]:
            del self._subscriptions[key]

    def _cut_frame(self) -> tuple[int, int, bytes] | None:
        """Take the next complete frame off the buffer: its type, channel and payload."""
        buffer = self._buffer
        if not buffer:
            return None
        if not self._started and b"AMQP".startswith(buffer[:4]):
            return self._cut_protocol_header()
        if buffer[0] not in _FRAME_TYPES:
            raise DecodeError(spec.FRAME_ERROR, f"unknown frame type {buffer[0]}")
        if len(buffer) < _FRAME_HEADER.size:
            return None
        frame_type, channel_number, size = _FRAME_HEADER.unpack_from(buffer)
        self._check_announcement(frame_type, channel_number, size)
        end = _FRAME_HEADER.size + size
        if len(buffer) <= end:
            return None
        if buffer[end] != spec.FRAME_END:
            raise DecodeError(spec.FRAME_ERROR, f"a frame ends in {buffer[end]:#04x}, not 0xce")
        payload = bytes(buffer[_FRAME_HEADER.size : end])
        del buffer[: end + 1]
        return frame_type, channel_number, payload

    def _cut_protocol_header(self) -> tuple[int, int, bytes] | None:
        """A broker that refuses our version of the protocol begins and ends with its own."""
        if len(self._buffer) < _PROTOCOL_HEADER_SIZE:
            return None
        octets = bytes(self._buffer[:_PROTOCOL_HEADER_SIZE])
        del self._buffer[:_PROTOCOL_HEADER_SIZE]
        return -1, 0, octets

    def _check_announcement(self, frame_type: int, channel_number: int, size: int) -> None:
        """What can be said before the payload is there, so that a refused one is never awaited."""
        if frame_type == spec.FRAME_HEARTBEAT and channel_number != 0:
            raise DecodeError(spec.FRAME_ERROR, f"heartbeat on channel {channel_number}")
        if frame_type in (spec.FRAME_HEADER, spec.FRAME_BODY) and channel_number == 0:
            raise DecodeError(spec.FRAME_ERROR, "content on channel 0")
        limit = self.frame_max
        if frame_type == spec.FRAME_HEADER:
            limit = max(limit, self.max_header_size)
        whole = _FRAME_HEADER.size + size + spec.FRAME_END_SIZE
        if whole > limit:
            raise DecodeError(spec.FRAME_ERROR, f"a frame of {whole} octets, at most {limit}")
        if frame_type == spec.FRAME_BODY:
            content = self._contents.get(channel_number)
            if content is None or content.missing is None:
                raise DecodeError(
                    spec.UNEXPECTED_FRAME, f"body without a header on channel {channel_number}"
                )
            if size > content.missing:
                raise DecodeError(
                    spec.UNEXPECTED_FRAME,
                    f"a body frame of {size} octets on channel {channel_number} "
                    f"where {content.missing} are missing",
                )

    def _take_frame(self, frame_type: int, channel_number: int, payload: bytes) -> Any:
        """What comes out for one complete frame; None where it was part of a direct delivery."""
        if frame_type == spec.FRAME_METHOD:
            return self._take_method(channel_number, payload)
        if frame_type == spec.FRAME_HEADER:
            return self._take_header(channel_number, payload)
        if frame_type == spec.FRAME_BODY:
            return self._take_body(channel_number, payload)
        if frame_type == spec.FRAME_HEARTBEAT:
            return frame.Heartbeat()
        return frame.decode_frame(payload)[1]  # the protocol header

    def _take_method(self, channel_number: int, payload: bytes) -> Any:
        index = self._check_method(channel_number, payload)
        try:
            method = decode_method(index, payload, self.max_nesting)
        except UNREADABLE as error:
            raise DecodeError(
                spec.SYNTAX_ERROR, f"arguments of {METHODS[index].NAME}: {error}"
            ) from error
        if index in _CHANNEL_ENDS:
            self._contents.pop(channel_number, None)
        if isinstance(method, _CONFIRMS) and channel_number in self._confirms:
            self._deliver(self._confirms[channel_number], method)
            return None
        if isinstance(method, _CONTENT_METHODS):
            route = None
            if isinstance(method, spec.Basic.Deliver):
                key = (channel_number, _tag_octets(method.consumer_tag or ""))
                route = self._subscriptions.get(key)
            self._contents[channel_number] = _Content(method, route)
            if route is not None:
                return None
        return frame.Method(channel_number, method)

    def _check_method(self, channel_number: int, payload: bytes) -> int:
        """The id of a method that may come now on this channel."""
        if len(payload) < _METHOD_ID.size:
            raise DecodeError(spec.FRAME_ERROR, f"a method frame of {len(payload)} octets")
        index: int = _METHOD_ID.unpack_from(payload)[0]
        if index not in METHODS:
            raise DecodeError(
                spec.NOT_IMPLEMENTED, f"unknown method {index & 0xFFFF} of class {index >> 16}"
            )
        name = METHODS[index].NAME
        if (index >> 16 == spec.Connection.INDEX) != (channel_number == 0):
            raise DecodeError(spec.COMMAND_INVALID, f"{name} on channel {channel_number}")
        if channel_number in self._contents and index not in _CHANNEL_ENDS:
            raise DecodeError(
                spec.UNEXPECTED_FRAME,
                f"{name} inside an unfinished content on channel {channel_number}",
            )
        return index

    def _take_header(self, channel_number: int, payload: bytes) -> Any:
        if len(payload) < _CONTENT_HEADER.size:
            raise DecodeError(spec.FRAME_ERROR, f"a header frame of {len(payload)} octets")
        class_id, _, body_size = _CONTENT_HEADER.unpack_from(payload)
        if class_id != spec.BasicProperties.INDEX:
            raise DecodeError(spec.FRAME_ERROR, f"a content header of class {class_id}")
        content = self._contents.get(channel_number)
        if content is None or content.missing is not None:
            raise DecodeError(
                spec.UNEXPECTED_FRAME, f"header without a method on channel {channel_number}"
            )
        content.missing = body_size
        if body_size > self.max_message_size:
            content.swallowed = True
            return OversizedContent(
                channel_number, content.method, body_size, self.max_message_size
            )
        properties = BasicProperties.from_raw(payload[_CONTENT_HEADER.size :], self.max_nesting)
        content.properties = properties
        self._finish_if_complete(channel_number, content)
        if content.route is not None:
            return None
        return frame.Header(channel_number, body_size, properties)

    def _take_body(self, channel_number: int, payload: bytes) -> Any:
        content = self._contents[channel_number]
        assert content.missing is not None  # _check_announcement has seen to it
        content.missing -= len(payload)
        direct = content.route is not None
        if direct and not content.swallowed:
            content.add(payload)
        self._finish_if_complete(channel_number, content)
        return None if direct or content.swallowed else frame.Body(channel_number, payload)

    def _finish_if_complete(self, channel_number: int, content: _Content) -> None:
        if content.missing != 0:
            return
        del self._contents[channel_number]
        route = content.route
        if route is None or content.swallowed:
            return
        fields = (
            route.channel,
            content.method,
            content.properties,
            b"".join(content.blocks),
        )
        # Not through message_class(...): as the compiled twin, which fills the tuple directly.
        self._deliver(route, tuple.__new__(self._message_class, fields))
        self.messages_direct += 1
        self._last_tags[channel_number] = content.method.delivery_tag

    def _deliver(self, route: _Route, item: Any) -> None:
        route.backlog.append(item)
        if not route.reported:
            route.reported = True
            self._ready.append(route)


def _tag_octets(consumer_tag: str | bytes) -> bytes:
    return consumer_tag.encode("utf-8") if isinstance(consumer_tag, str) else bytes(consumer_tag)
