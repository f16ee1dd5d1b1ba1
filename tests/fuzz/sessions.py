"""Whole sessions with a peer that obeys nobody, from the handshake to the end of the connection.

A client makes calls, a broker answers them, and between the two go octets that no broker sends: all
of it chosen by the input. Nothing may leave `dataReceived`, every Deferred fires exactly once, a
refused connection is gone within a second, no timer stays and nothing unhandled is logged.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, TypeVar

from pika import exceptions as pika_exceptions
from pika import frame, spec
from twisted.internet import error

from tests.fuzz import targets
from tests.fuzz.targets import METHODS
from tests.support import wire
from tests.support.client import Client
from tests.support.outcome import Outcome, TwistedLog, watch
from tests.support.session import Adapter, Session

T = TypeVar("T")

SESSION_STEPS = 200
LIMITS = {"max_message_size": 1 << 16, "max_header_size": 4096}
ADAPTERS = [
    Adapter("ours", "pika_twisted", "pika_twisted.protocol", {"direct_delivery": direct, **LIMITS})
    for direct in (True, False)
]


class Chance:
    """random.Random's calls, answered from the input; 0 and the first when it is used up."""

    def __init__(self, octets: bytes) -> None:
        self.rest = memoryview(octets)

    def octet(self) -> int:
        return (self.take(1) or b"\0")[0]

    def take(self, count: int) -> bytes:
        taken, self.rest = self.rest[:count], self.rest[count:]
        return bytes(taken)

    def random(self) -> float:
        return self.octet() / 256

    def randrange(self, start: int, stop: int | None = None) -> int:
        begin, end = (0, start) if stop is None else (start, stop)
        return begin + self.octet() % (end - begin)

    def choice(self, options: Sequence[T]) -> T:
        return options[self.octet() % len(options)]

    def sample(self, options: Sequence[T], k: int) -> list[T]:
        left = list(options)
        return [left.pop(self.octet() % len(left)) for _ in range(k)]


class Bugs(logging.Handler):
    """The exceptions that the connection caught and logged: each is a bug, if a survived one."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and not self.is_refusal(record):
            self.found.append(logging.Formatter().format(record))

    @staticmethod
    def is_refusal(record: logging.LogRecord) -> bool:
        """Whether pika says that it turns away a peer of another protocol version or log-in."""
        error = record.exc_info[1] if record.exc_info else None
        refusals = pika_exceptions.ProtocolVersionMismatch, pika_exceptions.AuthenticationError
        return record.name.startswith("pika.") and isinstance(error, refusals)

    def __enter__(self) -> Bugs:
        self.loggers = [logging.getLogger(name) for name in ("pika_twisted", "pika")]
        self.states = [(logger.propagate, logger.level) for logger in self.loggers]
        for logger in self.loggers:
            logger.addHandler(self)
            logger.propagate = False
            logger.setLevel(logging.ERROR)
        return self

    def __exit__(self, *exc_info: object) -> None:
        for logger, (propagate, level) in zip(self.loggers, self.states, strict=True):
            logger.removeHandler(self)
            logger.propagate = propagate
            logger.setLevel(level)


class Stranger:
    """The peer that sends what the input says."""

    def __init__(self, session: Session, chance: Chance) -> None:
        self.session = session
        self.chance = chance

    def act(self) -> None:
        self.chance.choice([self.octets, self.frame, self.method, self.content, self.wait])()

    def send(self, octets: bytes) -> None:
        if self.session.transport.connected:
            self.session.protocol.dataReceived(targets.exact(octets))

    def some(self) -> bytes:
        return self.chance.take(self.chance.octet())

    def octets(self) -> None:
        self.send(self.some())

    def frame(self) -> None:
        kind, channel = self.chance.choice([1, 2, 3, 8]), self.chance.octet() & 3
        self.send(wire.raw_frame(kind, channel, self.some()))

    def method(self) -> None:
        index = self.chance.choice(METHODS)
        channel = self.chance.octet() & 3 if index >> 16 != spec.Connection.INDEX else 0
        self.send(wire.raw_method(channel, index, self.some()))

    def content(self) -> None:
        """A content of the right order, about which everything else may be wrong."""
        chance, number = self.chance, 1 + (self.chance.octet() & 1)
        channel = self.session.protocol._impl._channels.get(number)
        tags = ["ct", *(channel._consumers if channel is not None else ())]
        method = (
            spec.Basic.Deliver(chance.choice(tags), chance.octet(), False, "", "red"),
            spec.Basic.GetOk(chance.octet(), False, "", "red", 0),
            spec.Basic.Return(312, "NO_ROUTE", "", "nowhere"),
        )[chance.octet() % 3]
        properties, body = self.some() or b"\0\0", self.some()
        claimed = len(body) if chance.octet() & 1 else chance.octet() << (chance.octet() & 31)
        self.send(
            wire.method_frame(number, method)
            + wire.raw_header(number, claimed, properties)
            + (wire.body_frame(number, body) if body else b"")
        )

    def wait(self) -> None:
        self.session.clock.advance(self.chance.octet() / 8)
        self.session.transport.finish()


def session(octets: bytes) -> None:
    chance = Chance(octets)
    flags = chance.octet()
    this = Session(ADAPTERS[flags & 1])
    with TwistedLog() as twisted_log, Bugs() as bugs:
        outcomes = (handshake if flags & 2 else opened)(this, chance)
        wrong = [outcome.label for outcome in outcomes if outcome.fired != 1]
        assert not wrong, f"fired never or more than once: {wrong}"
        this.finish()
        outcomes.clear()
        assert not bugs.found, "\n".join(bugs.found)
        twisted_log.assert_empty()


def opened(this: Session, chance: Chance) -> list[Outcome]:
    """Calls on an open connection, the broker's answers, and a stranger's octets among them."""
    client = Client(this, chance)
    stranger = Stranger(this, chance)
    client.keep(client.protocol.when_closed(), "when_closed")
    client.open_channel()
    client.wire()
    for _ in range(SESSION_STEPS):
        if not chance.rest or not this.transport.connected:
            break
        if chance.octet() < 128:
            client.step()
        else:
            stranger.act()
        end_refused(this, client.outcomes)
    if this.transport.connected:
        client.end()
    return client.outcomes


def handshake(this: Session, chance: Chance) -> list[Outcome]:
    """A connection that is about to be opened, by a peer that may know how to."""
    protocol = this.connect(heartbeat=chance.choice([0, 10, None]))
    outcomes = [
        watch(deferred, label)
        for deferred, label in (
            (protocol.ready, "ready"),
            (protocol.when_ready(), "when_ready"),
            (protocol.when_closed(), "when_closed"),
        )
    ]
    stranger = Stranger(this, chance)
    for _ in range(SESSION_STEPS):
        if not chance.rest or not this.transport.connected:
            break
        if chance.octet() < 128:
            answer(this)
        else:
            stranger.act()
        end_refused(this, outcomes)
    if protocol.closed is not None:
        outcomes.append(watch(protocol.closed, "closed"))
    this.lose(error.ConnectionLost("the end"))
    return outcomes


def answer(this: Session) -> None:
    """What a good broker would say to the oldest thing that it was not asked before."""
    this.peer.read()
    if not this.peer.frames or not this.transport.connected:
        return
    asked: Any = this.peer.frames.pop(0)
    if isinstance(asked, frame.ProtocolHeader):
        this.peer.start()
    elif isinstance(asked, frame.Method) and isinstance(asked.method, spec.Connection.StartOk):
        this.peer.tune()
    elif isinstance(asked, frame.Method) and isinstance(asked.method, spec.Connection.Open):
        this.peer.open_ok()


def end_refused(this: Session, outcomes: list[Outcome]) -> None:
    """Once one side has ended the connection, a second is all that it takes."""
    if this.transport.connected and this.transport.disconnecting:
        this.turn(1)
        assert not this.transport.connected, "refused, but still there after a second"
    if not this.transport.connected:
        waiting = [outcome.label for outcome in outcomes if outcome.pending]
        assert not waiting, f"the connection is gone, and these still wait: {waiting}"
