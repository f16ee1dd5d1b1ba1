"""Methods and contents to frames, through this package's own encoder."""

from __future__ import annotations

from typing import Any

from pika import frame, spec

from pika_twisted.codec.chooser import BasicProperties, FrameDecoder, OutputBuffer

__all__ = [
    "HEARTBEAT",
    "PROTOCOL_HEADER",
    "BasicProperties",
    "FrameDecoder",
    "content_frames",
    "copied_properties",
    "method_frame",
]

PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"
HEARTBEAT = b"\x08\x00\x00\x00\x00\x00\x00\xce"

_ACK = b"\x00<\x00P"
_NACK = b"\x00<\x00x"

#: The method frame of the Basic.Publish that the encoder puts before a content: 7 + 4 + 2 + 1 + 1
#: + 1 + 1 bytes, with an empty exchange and routing key.
_PUBLISH_SIZE = 17

_buffers: dict[int, OutputBuffer] = {}


def method_frame(channel: int, method: Any) -> bytes:
    """Return the frame of a method."""
    return frame.Method(channel, method).marshal()


def confirm_frame(channel: int, tag: int, multiple: bool, nack: bool) -> bytes:
    """Return the frame of a confirm."""
    return (
        b"\x01"
        + channel.to_bytes(2, "big")
        + b"\x00\x00\x00\x0d"
        + (_NACK if nack else _ACK)
        + tag.to_bytes(8, "big")
        + (b"\x01\xce" if multiple else b"\x00\xce")
    )


def content_frames(channel: int, properties: Any, body: bytes, frame_max: int) -> bytes:
    """Return header and body frames of one message.

    Properties that came over the wire and were not changed leave as they came, to the byte.
    """
    buffer = _buffers.get(frame_max)
    if buffer is None:
        buffer = _buffers[frame_max] = OutputBuffer(frame_max=frame_max or 1 << 30)
        buffer.held = True
    buffer.channel(channel).publish("", "", body, properties)
    return buffer.take()[_PUBLISH_SIZE:]


def copied_properties(properties: Any, **changes: Any) -> spec.BasicProperties:
    """Return a copy of message properties with some of them changed."""
    copy = spec.BasicProperties()
    for name in PROPERTIES:
        value = getattr(properties, name)
        if value is not None:
            setattr(copy, name, value)
    for name, value in changes.items():
        setattr(copy, name, value)
    return copy


PROPERTIES = (
    "content_type",
    "content_encoding",
    "headers",
    "delivery_mode",
    "priority",
    "correlation_id",
    "reply_to",
    "expiration",
    "message_id",
    "timestamp",
    "type",
    "user_id",
    "app_id",
    "cluster_id",
)
