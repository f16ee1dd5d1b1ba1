"""Every kind of bad octets at an open connection and in the handshake, in memory.

`tests/broker/scenarios_bad_bytes.py` has the same over sockets.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pika import spec
from twisted.internet import error

from tests.support import bad_sessions, bad_talks, wire
from tests.support.bad_bytes import REFUSED
from tests.support.outcome import TwistedLog, run
from tests.support.session import OURS, OURS_THROUGH_PIKA, Adapter, Session


def finish(talk: Any) -> None:
    """A talk in memory is over at once."""
    outcome = run(talk)
    assert outcome.fired
    if outcome.error is not None:
        raise outcome.error


WHOLE, OCTETS = 1, 10**9


class InMemory:
    """Both ends in this process; time is a clock's."""

    def __init__(self, adapter: Adapter) -> None:
        self.session = Session(adapter)

    async def connect(self, **options: Any) -> Any:
        adapter = self.session.adapter.with_options(**options)
        protocol = self.session.connect(factory=adapter.connection)
        self.peer = self.session.peer
        return protocol

    async def until(self, condition: Callable[[], Any], what: str) -> None:
        for _ in range(21):
            if condition():
                return
            self.session.turn(0.05)
        raise AssertionError(f"not within a second: {what}")

    def hang_up(self) -> None:
        self.session.lose(error.ConnectionDone("Connection was closed cleanly."))


@pytest.fixture(params=[OURS, OURS_THROUGH_PIKA], ids=lambda adapter: adapter.name)
def medium(request: pytest.FixtureRequest) -> Iterator[InMemory]:
    with TwistedLog() as log:
        medium = InMemory(request.param)
        yield medium
        medium.session.finish()
        log.assert_empty()


@pytest.mark.parametrize("pieces", [WHOLE, OCTETS], ids=["whole", "octets"])
@pytest.mark.parametrize("name", REFUSED | bad_talks.ALSO_REFUSED)
def test_refused(medium: InMemory, name: str, pieces: int) -> None:
    case = (REFUSED | bad_talks.ALSO_REFUSED)[name]
    finish(bad_sessions.refused(medium, case, pieces))


@pytest.mark.parametrize("pieces", [WHOLE, 7])
@pytest.mark.parametrize("name", bad_talks.LIVES)
def test_survived(medium: InMemory, name: str, pieces: int) -> None:
    finish(bad_sessions.survived(medium, bad_talks.LIVES[name], pieces))


def test_closed_by_the_peer(medium: InMemory) -> None:
    finish(bad_sessions.closed_by_the_peer(medium))


@pytest.mark.parametrize("name", bad_talks.HANDSHAKES)
def test_handshake_failed(medium: InMemory, name: str) -> None:
    finish(bad_sessions.handshake_failed(medium, bad_talks.HANDSHAKES[name]))


@pytest.mark.parametrize("method", spec.methods.values(), ids=lambda method: method.NAME)
def test_any_method_at_any_time(medium: InMemory, method: type[Any]) -> None:
    """With all kinds of arguments, octets that are no UTF-8 too: never an error of the client's."""
    for variant in wire.VARIANTS if inspect.signature(method).parameters else wire.VARIANTS[:1]:
        for number in [0] if method.INDEX >> 16 == spec.Connection.INDEX else [1, 2]:
            talk = bad_sessions.Talk(medium)
            finish(talk.open())
            content = wire.raw_header(number, 0) if spec.has_content(method.INDEX) else b""
            octets = wire.method_frame(number, wire.method_sample(method, variant)) + content
            talk.peer.send_bytes(octets)
            codes = [each.reply_code for each in talk.peer.methods() if hasattr(each, "reply_code")]
            assert spec.INTERNAL_ERROR not in codes
            medium.session.finish()
            medium.session = Session(medium.session.adapter)
