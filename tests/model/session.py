"""Run one program in a world of its own, and say what was wrong."""

from __future__ import annotations

import gc
import logging
import weakref
from typing import Any

from twisted.logger import globalLogPublisher

from tests.model import handlers, oracle
from tests.model.broker_steps import BrokerSteps
from tests.model.client_steps import ClientSteps
from tests.model.clock import Spinning
from tests.model.program import Program, Step
from tests.model.records import ProvokedError
from tests.model.world import World

#: Texts of the package's log that say that it has lost its way.
_CONFUSED = (
    "which is not outstanding",
    "fired by a user",
    "ended unexpectedly",
)


class Log(logging.Handler):
    """Errors in Twisted's log that no program provokes, and texts that must not be."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def __enter__(self) -> Log:
        logger = logging.getLogger("pika_twisted")
        self._before = logger.propagate, logger.level
        logger.propagate = False
        logger.setLevel(logging.WARNING)
        logger.addHandler(self)
        self._pika_level = logging.getLogger("pika").level
        logging.getLogger("pika").setLevel(logging.CRITICAL + 1)
        globalLogPublisher.addObserver(self._observe)
        return self

    def __exit__(self, *exc_info: object) -> None:
        logger = logging.getLogger("pika_twisted")
        logger.removeHandler(self)
        logger.propagate = self._before[0]
        logger.setLevel(self._before[1])
        logging.getLogger("pika").setLevel(self._pika_level)
        globalLogPublisher.removeObserver(self._observe)

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if any(each in text for each in _CONFUSED):
            self.lines.append(text)

    def _observe(self, event: dict[str, Any]) -> None:
        failure = event.get("log_failure")
        if failure is None:
            return
        if not failure.check(ProvokedError):
            self.lines.append(f"Twisted log: {failure.value!r}")
        failure.cleanFailure()  # its frames hold what is to be collected


def run(program: Program, *, collect: bool = True) -> list[str]:
    """Run a program; return what must not be. `collect`: look at what is left in memory, too."""
    with Log() as log:
        complaints, left = _run(program, collect)
        if collect:
            gc.collect()
            complaints += [f"still in memory: {kind}" for kind, ref in left if ref() is not None]
    return complaints + log.lines


def _run(program: Program, collect: bool) -> tuple[list[str], list[tuple[str, Any]]]:
    world = World(program)
    actors: tuple[Any, ...] = (ClientSteps(world), BrokerSteps(world))
    depth = [0]

    def perform(step: Step) -> None:
        for actor in actors:
            method = getattr(actor, f"do_{step.op}", None)
            if method is not None and depth[0] < 30:
                depth[0] += 1
                try:
                    method(step)
                except ProvokedError:
                    raise
                except Exception as error:
                    world.complain(f"{step.op} raised {error!r}")
                finally:
                    depth[0] -= 1

    world.perform = perform
    for step in program.steps:
        perform(step)
        if world.complaints:
            break
    try:
        _finish(world, collect)
    except Spinning as error:
        world.complain(f"it spins: {error}")
    left: list[tuple[str, Any]] = []
    for connection in world.connections:
        left.append(("connection", weakref.ref(connection.client)))
    for channel in world.channels:
        left.append(("channel", weakref.ref(channel.client)))
        left += [("queue", weakref.ref(consumer.queue)) for consumer in channel.consumers]
    left += [(what, ref) for what, _channel, ref in world.ended]
    return world.complaints, left


def _finish(world: World, collect: bool) -> None:
    world.quieten()
    world.perform = lambda step: None
    world.advance(1)
    for record in world.handlings:
        if record.handling is not None and record.never_works:
            handlers.stop(world, record, 1.0)
    world.advance(130)
    oracle.check_answers(world)
    oracle.check_handlings(world)
    for record in world.handlings:
        if record.handling is not None:
            handlers.stop(world, record, 5.0)
    world.advance(10)
    oracle.check_unacked(world)
    if collect:
        gc.collect()
        oracle.check_ended(world)
    for connection in world.connections:
        if connection.alive:
            connection.closed_by_us = True
            world.watch("close", connection.client.close(), connection=connection)
    world.advance(30)
    world.broker.close()
    world.advance(1)
    oracle.check_deferreds(world)
    oracle.check_ends(world)
    oracle.check_messages(world)
    left = world.clock.getDelayedCalls()
    if left:
        world.complain(f"delayed calls are left: {left}")
