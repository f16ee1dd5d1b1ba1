"""Where RabbitMQ's releases give different answers."""

from __future__ import annotations

from dataclasses import dataclass

from pika_twisted.testing.encoding import PROTOCOL_HEADER


@dataclass(frozen=True)
class Dialect:
    """What one release says and does, where others differ."""

    version: str
    #: Default x-delivery-limit of quorum queues; None for none.
    delivery_limit: int | None
    #: Whether Basic.Nack and Basic.Recover count as failed deliveries in quorum queues. From 4.3 on
    #: Basic.Reject does, and the end of a channel:
    #: https://github.com/rabbitmq/rabbitmq-server/discussions/18226
    nack_counts: bool
    #: What a text about Basic.Get calls them.
    quorum_name: str
    #: How many priorities quorum queues tell from each other.
    quorum_priorities: int
    #: Whether x-delivery-count stands in a first delivery, too, where that is a Basic.GetOk.
    counts_from_zero: bool
    #: Whether quorum queues say x-acquired-count: how often a message came back in any way.
    has_acquired_count: bool
    #: Whether what was dead-lettered by Basic.Reject counts as redelivered.
    rejected_is_redelivered: bool
    #: Whether the header x-death of a message that a client publishes is believed.
    trusts_x_death: bool
    #: Whether dead letters have x-last-death-reason and the like.
    has_last_death: bool
    #: Whether deliveries of a stream always have a delivery_mode.
    streams_have_delivery_mode: bool
    #: Whether a direct reply counts as routed.
    replies_are_routed: bool
    #: What it answers to another protocol.
    protocol_header: bytes
    #: Whether the text of a missing permission names it ("configure access to ...").
    names_permission: bool
    #: Code of an exchange type that there is not: 503 closes the connection.
    unknown_exchange_type: int
    #: Whether a queue without x-queue-type is declared as if it said "classic".
    types_are_explicit: bool
    #: Whether texts about streams say "stream queue 'q'", not "stream queues queue 'q'".
    short_stream_texts: bool
    #: Whether a wrong x-stream-offset is a 406; a 541 otherwise.
    checks_stream_offset: bool
    #: Whether x-queue-mode is still known.
    has_queue_modes: bool
    #: The smallest frame_max that a client may have.
    min_frame_max: int


def dialect(version: str) -> Dialect:
    """Return the dialect of a release.

    :raises ValueError: it is no version, such as "4.1.0"
    """
    try:
        number = tuple(int(part) for part in version.split(".")[:2])
    except ValueError:
        raise ValueError(f'version is one of RabbitMQ\'s, as "4.1.0", not {version!r}') from None
    return Dialect(
        version,
        delivery_limit=20 if number >= (4, 0) else None,
        nack_counts=number < (4, 3),
        quorum_name='<<"quorum">>' if number >= (4, 3) else "quorum",
        quorum_priorities=32 if number >= (4, 3) else 2 if number >= (4, 0) else 1,
        counts_from_zero=number < (4, 0),
        has_acquired_count=number >= (4, 3),
        rejected_is_redelivered=number >= (4, 3),
        trusts_x_death=number < (4, 0),
        has_last_death=number >= (3, 13),
        streams_have_delivery_mode=number >= (4, 0),
        replies_are_routed=number >= (4, 3),
        protocol_header=b"AMQP\x03\x01\x00\x00" if number >= (4, 0) else PROTOCOL_HEADER,
        names_permission=number >= (3, 11),
        unknown_exchange_type=406 if number >= (4, 0) else 503,
        types_are_explicit=number >= (4, 0),
        short_stream_texts=number >= (4, 0),
        checks_stream_offset=number >= (4, 3),
        has_queue_modes=number < (4, 3),
        min_frame_max=8192 if number >= (4, 0) else 4096,
    )
