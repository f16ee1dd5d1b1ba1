"""What a connection and a service have done so far, in numbers.

Counted where it costs a message nothing: by the decoder, or for a whole chunk at a time.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class ConnectionStats:
    """One connection, from its handshake on."""

    #: Octets read from the transport.
    bytes_received: int = 0
    #: Octets written to it.
    bytes_sent: int = 0
    #: Frames of every type, heartbeats too.
    frames_received: int = 0
    #: The same, on the way out.
    frames_sent: int = 0
    #: Messages delivered to consumers or fetched by gets.
    messages_received: int = 0
    #: Publishes on channels in confirm mode.
    published: int = 0
    #: How many of them wait for their confirm now.
    unconfirmed: int = 0
    #: Acks asked for on channels with `ack_batching`, or whose messages settle themselves.
    acks: int = 0
    #: How many Basic.Acks left for them.
    acks_sent: int = 0
    #: Seconds for which reading was paused by full consumer queues (see WaterMarks).
    paused_seconds: float = 0.0
    #: Whether the broker takes no publishes now (Connection.Blocked).
    is_blocked: bool = False
    #: Channels now, those that open or close too.
    channels: int = 0
    #: Consumers now, on open channels.
    consumers: int = 0
    #: Messages that lie in consumers' queue objects and nobody has taken yet.
    queued_messages: int = 0
    #: Octets of their bodies.
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

    #: Whether there is a connection now.
    connected: bool = False
    #: Connections after the first.
    reconnects: int = 0
    #: Attempts that led to no connection, or to one on which something could not be declared.
    failed_attempts: int = 0
    #: Seconds without a connection.
    down_seconds: float = 0.0
    #: Messages dropped from consumers' queues when a connection was lost, to be delivered again.
    dropped: int = 0
    #: Handlers of `consume()` that have done their work.
    handled: int = 0
    #: Handlers that raised, or took too long.
    handler_failures: int = 0
    #: Publishes that the broker confirmed to publishers.
    confirmed: int = 0
    #: Publishes of publishers that failed.
    publish_failures: int = 0
    #: Publishes that were sent once more after a lost connection.
    resent: int = 0
    #: Publishes of publishers that wait for their confirm now.
    in_flight: int = 0
    #: Publishes of publishers that wait for room or a connection now.
    waiting: int = 0
    #: All connections together; what is the case only now, of the one in use.
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
        messages_received=adapter.messages_received,
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
