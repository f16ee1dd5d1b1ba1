"""What must hold of a program that has run, whatever its steps."""

from __future__ import annotations

from typing import Any

from pika import exceptions, spec
from twisted.internet import defer

from pika_twisted import PublisherOverflow, PublishTimeout
from pika_twisted.exceptions import on_channel
from tests.model.records import Channel, Connection, ProvokedError, Watched
from tests.model.world import World

#: What a broker's Close may say here: what a program provokes. "unknown delivery tag" is not in it.
_PROVOKED = ("by the test", "no queue", "attempt to reuse consumer tag", "in exclusive use")
#: Whose Deferreds the broker answers as long as the channel lives.
_ANSWERED = ("open", "consume", "basic_get", "call", "publish", "publisher", "recover", "handle")


def same(error: BaseException, reason: Any) -> bool:
    """Whether an error is a copy of a reason."""
    if reason is None or str(error) != str(reason):
        return False
    return type(error) is type(reason) or type(error) is type(on_channel(reason))


# While everything goes on


def check_answers(world: World) -> None:
    """Nothing waits for an answer on a channel that lives."""
    for watched in world.watched:
        place: Any = watched.channel or watched.connection
        if watched.kind in _ANSWERED and not watched.fired and place is not None and place.alive:
            world.complain(f"no answer for {watched.kind} {watched.about!r}")


def check_handlings(world: World) -> None:
    """Handlers that work have left nothing in their queue, nor without an ack."""
    for record in world.handlings:
        handling, channel = record.handling, record.channel
        if handling is None or not channel.alive or not handling.running or record.never_works:
            continue
        queue = world.broker.queues.get(record.queue_name)
        if channel.server.unacked_count:
            world.complain(f"{channel.server.unacked_count} messages of {handling!r} stay unacked")
        elif queue is not None and not queue.consumer_count and queue.message_count:
            world.complain(f"{handling!r} runs without a consumer")


def check_unacked(world: World) -> None:
    """What the broker holds for a channel is in the hands of its user, or can be reached."""
    for channel in world.channels:
        server = channel.server
        if not channel.alive or server is None or server.state != "open":
            continue
        there = set(server.consuming.unacked)
        here = set(world.received(channel)) - channel.settled
        if channel.handling is not None:
            if there and channel.handling.stopped:
                world.complain(f"stopped handling left {sorted(there)} unacked")
        elif there != here:
            world.complain(f"unacked at the broker: {sorted(there)}, at the client {sorted(here)}")
        for consumer in channel.consumers:
            if consumer.queue.closed is None and consumer.queue.pending and consumer.queue.waiting:
                world.complain("somebody waits although messages are there")


def check_ended(world: World) -> None:
    """A channel that lives keeps nothing that has ended."""
    for what, channel, reference in world.ended:
        if channel.alive and reference() is not None:
            world.complain(f"a {what} that has ended is kept")


# At the end


def check_deferreds(world: World) -> None:
    """Every Deferred has fired once, for a reason that is true."""
    for watched in world.watched:
        if watched.fired != 1:
            world.complain(f"{watched.kind} {watched.about!r} fired {watched.fired} times")
        elif watched.error is not None:
            if not _plausible(world, watched, watched.error):
                world.complain(f"{watched.kind} {watched.about!r} failed with {watched.error!r}")
        elif watched.kind in ("publish", "publisher"):
            _check_confirmed(world, watched)


def _plausible(world: World, watched: Watched, error: BaseException) -> bool:
    channel, connection, consumer = watched.channel, watched.connection, watched.consumer
    if isinstance(error, defer.CancelledError):
        with_it = watched.kind == "open" and any(
            each.kind == "connect" and each.cancelled for each in world.watched
        )
        return watched.cancelled or with_it
    if channel is not None and same(error, channel.reason):
        return True
    if connection is not None and same(error, connection.reason):
        return True
    if isinstance(error, exceptions.ChannelClosedByClient) and watched.kind == "open":
        return connection is not None and connection.closed_by_us
    if isinstance(error, ProvokedError):
        return consumer is not None and consumer.closed_by_us
    if isinstance(error, exceptions.ConsumerCancelled):
        return _may_be_cancelled(world, watched)
    if isinstance(error, exceptions.ChannelWrongStateError):
        return channel is not None and not channel.alive
    if isinstance(error, exceptions.ConnectionWrongStateError):
        if watched.kind == "publisher":
            return channel is not None and not channel.alive
        return connection is not None and not connection.alive
    if watched.kind in ("publish", "publisher"):
        return _publish_may_fail(world, watched, error)
    return watched.kind == "consume" and isinstance(error, exceptions.DuplicateConsumerTag)


def _may_be_cancelled(world: World, watched: Watched) -> bool:
    consumer = watched.consumer
    if consumer is None:
        about = watched.about
        tags = {tag for channel, tag in world.cancelled_by_broker}
        return watched.kind in ("handling", "handle") and (
            about.queue_name in world.deleted or bool(tags)
        )
    return (
        consumer.cancelled
        or consumer.queue_name in world.deleted
        or (consumer.channel.server, consumer.tag) in world.cancelled_by_broker
    )


def _publish_may_fail(world: World, watched: Watched, error: BaseException) -> bool:
    number, mandatory = watched.about[:2]
    if isinstance(error, exceptions.UnroutableError):
        queues = _routed(world).get(number)
        return (
            mandatory
            and queues == ()
            and [m.properties.headers["n"] for m in error.messages] == [number]
        )
    if watched.kind == "publish":
        return False
    record = watched.about[3]
    return (
        (isinstance(error, PublishTimeout) and record.limit is not None)
        or (isinstance(error, PublisherOverflow) and record.max_waiting == 1)
        or (isinstance(error, exceptions.ChannelClosedByClient) and record.closed_by_us)
    )


def _routed(world: World) -> dict[int, tuple[str, ...]]:
    routed: dict[int, tuple[str, ...]] = {}
    for each in world.broker.published:
        routed[each.properties.headers["n"]] = each.queues
    return routed


def _check_confirmed(world: World, watched: Watched) -> None:
    number, mandatory, confirming = watched.about[:3]
    if watched.value is None:
        if confirming:
            world.complain(f"publish {number} was not confirmed, and fired")
        return
    if not isinstance(watched.value, spec.Basic.Ack):
        world.complain(f"publish {number} fired with {watched.value!r}")
    queues = _routed(world).get(number)
    if queues is None:
        world.complain(f"publish {number} was confirmed and never came to the broker")
    elif mandatory and not queues:
        world.complain(f"publish {number} was confirmed and had come back")


def check_ends(world: World) -> None:
    """Connections and channels have ended for what was provoked."""
    for connection in world.connections:
        if not _may_end(connection, connection.reason, connection.closed_by_us):
            world.complain(f"connection ended with {connection.reason!r}")
    for channel in world.channels:
        if isinstance(channel.reason, exceptions.ChannelClosedByBroker) and not _provoked(
            channel.reason
        ):
            world.complain(f"channel ended with {channel.reason!r}")
        elif channel.reason is None:
            world.complain("a channel's on_closed has not fired")
        elif not _may_end_channel(channel):
            world.complain(f"channel ended with {channel.reason!r}")


def _may_end_channel(channel: Channel) -> bool:
    if isinstance(channel.reason, exceptions.ChannelClosedByBroker):
        return True
    if isinstance(channel.reason, exceptions.ChannelClosedByClient):
        return channel.closed_by_us or channel.connection.closed_by_us
    return _may_end(channel.connection, channel.reason, channel.connection.closed_by_us)


def _may_end(connection: Connection, reason: Any, closed_by_us: bool) -> bool:
    if isinstance(reason, exceptions.ConnectionClosedByBroker):
        return _provoked(reason)
    if isinstance(reason, exceptions.ConnectionClosedByClient):
        return closed_by_us and reason.reply_code == 200
    if isinstance(reason, exceptions.AMQPHeartbeatTimeout):
        return connection.stalled
    if isinstance(reason, exceptions.StreamLostError):
        return connection.cut or connection.stalled
    return False


def _provoked(reason: Any) -> bool:
    return any(text in reason.reply_text for text in _PROVOKED)


def check_messages(world: World) -> None:
    """The broker has settled what the client has settled, and nothing else."""
    for each in world.broker.settled:
        body = each.body
        if body == b"twin":
            continue
        if each.outcome == "acked" and body not in world.acked and body not in world.auto_seen:
            if not world.auto_loss:
                world.complain(f"{body!r} was acked, and not handled")
        elif each.outcome == "rejected" and body not in world.refused and not world.handlings:
            world.complain(f"{body!r} was rejected by nobody")
