"""Fixtures of the unit tests: the codec comes twice, as the reference and as the compiled module.

A compiled module that can't be imported is a failure of each test that wants it, never a skip.

What the specification leaves to the decoder, and both twins have to decide alike:

- type, channel and size are judged as soon as the seven octets of a frame's header are there (501),
  and so is a body frame's place in its content (505), before its payload and its end octet;
- in a complete frame 501 goes before 540 (unknown class or method), that before 503 (a Connection
  method on another channel than 0, any other method on channel 0), that before 505 (sequence), and
  that before 502 (arguments);
- content on channel 0 is 501; content on a channel nobody has opened is not the codec's to judge;
- an empty body frame is fine while body octets are missing, and 505 after the last one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.support.codecs import MODULES, Message, load
from tests.support.outcome import TwistedLog
from tests.support.service import World
from tests.support.session import OURS, OURS_THROUGH_PIKA, Adapter, Session

# Its limit of 200 ms for an example is about the machine: a core that is shared takes longer.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")


@pytest.fixture(params=list(MODULES))
def codec(request: pytest.FixtureRequest) -> ModuleType:
    """The module under test."""
    return load(request.param)


@pytest.fixture
def decoder(codec: ModuleType) -> Any:
    """A fresh decoder with the limits of the defaults."""
    return codec.FrameDecoder(Message)


@pytest.fixture
def make_decoder(codec: ModuleType) -> Callable[..., Any]:
    """Makes decoders, for tests that need many or other limits."""

    def make(**limits: int) -> Any:
        return codec.FrameDecoder(Message, **limits)

    return make


@pytest.fixture
def twisted_log() -> Iterator[TwistedLog]:
    """Errors in Twisted's log. What a test has not flushed at its end fails it."""
    with TwistedLog() as log:
        yield log
        log.assert_empty()


@pytest.fixture(params=[OURS, OURS_THROUGH_PIKA], ids=["direct", "through_pika"])
def adapter(request: pytest.FixtureRequest) -> Adapter:
    """Ours, in both ways of delivery."""
    chosen: Adapter = request.param
    return chosen


@pytest.fixture
def session(adapter: Adapter, twisted_log: TwistedLog) -> Iterator[Session]:
    """A connection with its peer, in both ways of delivery; it leaves nothing behind."""
    session = Session(adapter)
    yield session
    session.finish()


@pytest.fixture
def world(caplog: pytest.LogCaptureFixture, twisted_log: TwistedLog) -> Iterator[World]:
    caplog.set_level(logging.CRITICAL, "pika_twisted")
    world = World()
    yield world
    world.finish()
