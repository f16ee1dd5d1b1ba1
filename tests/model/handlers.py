"""`consume()` with handlers that work, fail, take long, settle by themselves, or are none."""

from __future__ import annotations

import weakref
from typing import Any

from twisted.internet import defer, task

from pika_twisted import consume
from tests.model.program import Step
from tests.model.records import Connection, HandlingRecord, ProvokedError
from tests.model.world import World, failure_of


def start(world: World, connection: Connection, queue: str, step: Step) -> None:
    """Open a channel of its own and consume."""

    def opened(client: Any) -> Any:
        channel = world.note_channel(connection, client, 1, 0)
        record = HandlingRecord(channel, queue, 1 + step.b % 3, step.c % 11 == 0)
        channel.handling = record
        world.handlings.append(record)

        def started(handling: Any) -> Any:
            record.handling = handling
            world.watch("handling", handling.when_stopped(), channel=channel, about=record)
            return handling

        deferred = consume(
            client,
            queue,
            _handler(world, record, step.c),
            concurrency=record.concurrency,
            prefetch_count=record.concurrency + step.a % 3,
            timeout=(None, 1.0)[step.a % 2],
            on_error=("requeue", "requeue", "dead-letter")[step.c % 3],
            max_attempts=(None, 2)[step.b % 2],
            reactor=world.clock,
        )
        world.watch(
            "handle",
            deferred.addCallback(started),
            channel=channel,
            about=record,
            inside=step.inside,
        )
        return client

    world.watch("open", connection.client.channel().addCallback(opened), connection=connection)


def stop(
    world: World, record: HandlingRecord, deadline: float | None, inside: tuple[Step, ...] = ()
) -> None:
    """Stop it; the channel must not keep it."""
    record.stopped = True
    handling, record.handling = record.handling, None
    world.ended.append(("Handling", record.channel, weakref.ref(handling)))
    world.watch(
        "stop", handling.stop(deadline), channel=record.channel, about=record, inside=inside
    )


def _handler(world: World, record: HandlingRecord, kind: int) -> Any:
    async def handle(message: Any) -> None:
        record.running += 1
        if record.running > record.concurrency:
            world.complain(f"{record.running} handlers at work, of {record.concurrency}")
        try:
            await _behave(world, record, message, kind)
        finally:
            record.running -= 1
        world.acked.add(message.body)

    if record.never_works:

        def generator(message: Any) -> Any:
            yield message

        return generator
    if kind % 4 == 1:
        return lambda message: defer.ensureDeferred(handle(message))
    return handle


async def _behave(world: World, record: HandlingRecord, message: Any, kind: int) -> None:
    how = (
        0 if world.healed else (int(message.body[1:] if message.body != b"twin" else 0) + kind) % 9
    )
    if how in (3, 7):
        raise ProvokedError("in a handler")
    if how in (4, 5, 6):
        await task.deferLater(world.clock, (0.0, 0.5, 3.0)[how - 4])
    if how == 6:
        raise ProvokedError("in a handler, later")
    if how == 8 and not message.redelivered:  # else it goes round in circles
        name = ("ack", "nack", "reject")[kind % 3]
        if failure_of(getattr(message, name)) is None:
            (world.acked if name == "ack" else world.refused).add(message.body)
