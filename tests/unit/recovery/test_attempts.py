"""Attempts to connect: which of them have failed, and what is logged."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.logger import eventAsText, globalLogPublisher

from tests.support.service import World, settled


@pytest.mark.parametrize(
    ("name", "wrong"), [("max_size", 1), ("max_message_size", "1M"), ("handshake_timeout", "5")]
)
def test_an_option_that_can_t_be_fails_at_once(name: str, wrong: Any) -> None:
    with pytest.raises(TypeError, match=name):
        World(**{name: wrong})


def test_the_log_names_the_broker(world: World) -> None:
    said: list[str] = []

    def observe(event: Any) -> None:
        said.append(eventAsText(event))

    globalLogPublisher.addObserver(observe)
    try:
        world.broker.reachable = False
        world.start()
    finally:
        globalLogPublisher.removeObserver(observe)
    assert any("retry" in line and str(world.service._name) in line for line in said), said


def test_an_attempt_that_the_end_of_the_service_cuts_off_has_not_failed(world: World) -> None:
    world.broker.stopped = True
    world.start()
    stopping = settled(world, world.service.stopService())
    world.broker.run(1)
    stopping.result()
    assert (world.service.stats().failed_attempts, world.service.trouble) == (0, None)
    world.broker.reachable = False
    world.start()
    assert world.service.stats().failed_attempts == 1
    assert "refused" in str(world.service.trouble)
