"""What a connection and a service have done so far, in numbers.

Counted where it costs a message nothing: by the decoder, or for a whole chunk at a time.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class ConnectionStats:
    """One connection, from its handshake on."""

    #: Bytes read from the transport.
    bytes_received: int = 0
    #: Bytes written to it.
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
    #: Messages that wait in consumers' queue objects.
    queued_messages: int = 0
    #: Bytes of their bodies.
    queued_bytes: int = 0
    #: Frames that came for channels which were closed by then, and were dropped.
    late_frames: int = 0

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


class EntityState(enum.Enum):
    """Where an entity is between a call that asked for it and the call that ends it."""

    #: Asked for by a call; the connection in use, if there is one, has not been asked yet.
    RECORDED = "recorded"
    #: Asked for on the connection in use; the broker has not answered yet.
    RECOVERING = "recovering"
    #: The broker has it on the connection in use.
    DECLARED = "declared"
    #: The broker said no; asked for again after a pause.
    REFUSED = "refused"
    #: Deleted, unbound or cancelled by this client, or ended by its channel or service.
    GONE = "gone"


@dataclass(frozen=True)
class EntityStatus:
    """One exchange, queue, binding or consumer of a service, as `stats()` and events show it."""

    #: "exchange", "queue", "binding" or "consumer".
    kind: str
    #: Which one, for people: `queue 'work'`, `binding of queue 'work' to exchange 'x' by 'key'`.
    name: str
    state: EntityState
    #: Why the broker refused it last; None when it has not.
    reason: BaseException | None
    #: How often in a row the broker has refused it.
    refusals: int

    def __str__(self) -> str:
        return self.name


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
    #: Exchanges, queues, bindings and consumers that the broker has now.
    declared: int = 0
    #: Those that wait for a connection, or for the broker's answer.
    recovering: int = 0
    #: Those that the broker has refused to have again, each with its reason.
    refused: tuple[EntityStatus, ...] = ()
    #: All connections together; what is the case only now, of the one in use.
    connection: ConnectionStats = ConnectionStats()


@dataclass(frozen=True)
class ChannelCounts:
    """What one channel adds to the numbers of its connection."""

    published: int = 0
    acks: int = 0
    acks_sent: int = 0

    def plus(self, other: ChannelCounts) -> ChannelCounts:
        """Return the sum of both."""
        return ChannelCounts(
            self.published + other.published,
            self.acks + other.acks,
            self.acks_sent + other.acks_sent,
        )


def of_connection(connection: Any) -> ConnectionStats:
    """Count what one connection's state machine and its channels know."""
    channels = connection.twisted_channels
    queues = [queue for channel in channels for queue in channel._queues()]
    counts = connection.past_channels
    for channel in channels:
        counts = counts.plus(channel._counts())
    return ConnectionStats(
        bytes_received=connection.bytes_received,
        bytes_sent=connection.bytes_sent,
        frames_received=connection.frames_received,
        frames_sent=connection.frames_sent,
        messages_received=connection.messages_received,
        published=counts.published,
        unconfirmed=sum(channel._confirms.outstanding for channel in channels),
        acks=counts.acks,
        acks_sent=counts.acks_sent,
        paused_seconds=connection.gate.paused_seconds,
        is_blocked=connection.is_blocked,
        channels=connection.channel_count,
        consumers=len(queues),
        queued_messages=sum(len(queue.pending) for queue in queues),
        queued_bytes=sum(queue.pending.body_bytes for queue in queues),
        late_frames=connection.late_frames,
    )
