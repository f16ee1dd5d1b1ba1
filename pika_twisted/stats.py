"""What a connection and a service have done so far, in numbers.

Counted where it costs a message nothing: by the decoder, or for a whole chunk at a time.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class ConnectionStats:
    """One connection, from its handshake on."""

    bytes_received: int = 0
    bytes_sent: int = 0
    frames_received: int = 0
    frames_sent: int = 0
    #: Delivered to consumers or fetched by gets.
    messages_received: int = 0
    #: Publishes on channels in confirm mode, and how many of them wait for their confirm.
    published: int = 0
    unconfirmed: int = 0
    #: On channels with `ack_batching`, or whose messages settle themselves: acks asked for, and
    #: how many left for them.
    acks: int = 0
    acks_sent: int = 0
    #: How long reading was paused by full consumer queues (see WaterMarks).
    paused_seconds: float = 0.0
    is_blocked: bool = False
    channels: int = 0
    consumers: int = 0
    #: What lies in consumers' queue objects and nobody has taken yet.
    queued_messages: int = 0
    queued_bytes: int = 0

    def plus(self, other: ConnectionStats) -> ConnectionStats:
        """Both together; of what is the case only now, the other's."""
        now = ("is_blocked", "channels", "consumers", "queued_messages", "queued_bytes")
        summed = {
            field.name: getattr(other, field.name)
            if field.name in (*now, "unconfirmed")
            else getattr(self, field.name) + getattr(other, field.name)
            for field in fields(self)
        }
        return ConnectionStats(**summed)


@dataclass(frozen=True)
class ServiceStats:
    """A service, from its start on, over all its connections."""

    connected: bool = False
    reconnects: int = 0
    failed_attempts: int = 0
    #: How long there was no connection.
    down_seconds: float = 0.0
    #: Messages dropped from consumers' queues when a connection was lost, to be delivered again.
    dropped: int = 0
    #: Handlers of `consume()`.
    handled: int = 0
    handler_failures: int = 0
    #: Publishers.
    confirmed: int = 0
    publish_failures: int = 0
    resent: int = 0
    in_flight: int = 0
    waiting: int = 0
    #: All connections together.
    connection: ConnectionStats = ConnectionStats()


class PastChannels:
    """What the closed channels of a connection add to its numbers."""

    def __init__(self) -> None:
        self.published = 0
        self.acks = 0
        self.acks_sent = 0

    def add(self, channel: Any) -> None:
        """This TwistedChannel closes."""
        self.published += channel._confirms.last_number
        if channel._ledger is not None:
            self.acks += channel._ledger.acks_in
            self.acks_sent += channel._ledger.acks_out


def of_connection(adapter: Any) -> ConnectionStats:
    """Count what one connection's state machine and its channels know."""
    faces = [each.face for each in adapter._channels.values() if each.face is not None]
    channels = [face for face in faces if face._closed is None]
    queues = [queue for channel in channels for queue in channel._consumers.values()]
    past = adapter.past
    ledgers = [channel._ledger for channel in channels if channel._ledger is not None]
    return ConnectionStats(
        bytes_received=adapter.bytes_received,
        bytes_sent=adapter.bytes_sent,
        frames_received=adapter.frames_received,
        frames_sent=adapter.frames_sent,
        messages_received=adapter._decoder.messages_direct + adapter.messages_indirect,
        published=past.published + sum(channel._confirms.last_number for channel in channels),
        unconfirmed=sum(channel._confirms.outstanding for channel in channels),
        acks=past.acks + sum(ledger.acks_in for ledger in ledgers),
        acks_sent=past.acks_sent + sum(ledger.acks_out for ledger in ledgers),
        paused_seconds=adapter.gate.paused_seconds,
        is_blocked=adapter.is_blocked,
        channels=len(adapter._channels),
        consumers=len(queues),
        queued_messages=sum(len(queue.pending) for queue in queues),
        queued_bytes=sum(queue.pending.body_bytes for queue in queues),
    )
