"""consume(): handlers, how many at a time, what becomes of failures, stopping."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from pika import exceptions, spec
from twisted.internet import defer

from pika_twisted.consuming.handlers import consume
from tests.support import wire
from tests.support.outcome import TwistedLog, call, watch
from tests.support.session import OURS, Session


@pytest.fixture
def session(caplog: pytest.LogCaptureFixture) -> Iterator[Session]:
    caplog.set_level(logging.CRITICAL, "pika_twisted")
    with TwistedLog() as log:
        session = Session(OURS)
        yield session
        session.finish()
        log.assert_empty()


def start(session: Session, channel: Any, handler: Any, **options: Any) -> Any:
    options.setdefault("consumer_tag", "t")
    starting = watch(consume(channel, "q", handler, reactor=session.clock, **options))
    session.peer.expect(spec.Basic.Qos)
    session.peer.send(channel, spec.Basic.QosOk())
    session.peer.expect(spec.Basic.Consume)
    session.peer.send(channel, spec.Basic.ConsumeOk("t"))
    return starting.result()


def settled(session: Session) -> list[tuple[str, int]]:
    """What was acknowledged and refused since the last time."""
    found = []
    for method in session.peer.methods():
        if isinstance(method, (spec.Basic.Ack, spec.Basic.Nack, spec.Basic.Reject)):
            requeue = getattr(method, "requeue", None)
            name = "ack" if requeue is None else "requeue" if requeue else "drop"
            found.append((name, method.delivery_tag))
    session.peer.frames.clear()
    return found


def agree_to_cancel(session: Session, channel: Any) -> None:
    session.peer.expect(spec.Basic.Cancel)
    session.peer.send(channel, spec.Basic.CancelOk("t"))


def plain(message: Any) -> None:
    pass


async def coroutine(message: Any) -> None:
    await defer.succeed(None)


@defer.inlineCallbacks
def generator(message: Any) -> Any:
    yield defer.succeed(None)


@pytest.mark.parametrize("handler", [plain, coroutine, generator])
def test_each_kind_of_handler_is_acknowledged(session: Session, handler: Any) -> None:
    channel = session.channel()
    handling = start(session, channel, handler, prefetch_count=7)
    session.peer.deliver(channel, "t", b"1", b"2")
    assert settled(session) == [("ack", 1), ("ack", 2)]
    assert (handling.handled, handling.running) == (2, True)


@pytest.mark.parametrize(("concurrency", "begun"), [(1, [1]), (3, [1, 2, 3])])
def test_so_many_at_a_time(session: Session, concurrency: int, begun: list[int]) -> None:
    channel = session.channel()
    waiting: dict[int, defer.Deferred[None]] = {}

    def handler(message: Any) -> defer.Deferred[None]:
        return waiting.setdefault(message.method.delivery_tag, defer.Deferred())

    start(session, channel, handler, concurrency=concurrency)
    session.peer.deliver(channel, "t", *[b"x"] * 5)
    assert list(waiting) == begun
    waiting[1].callback(None)
    assert list(waiting) == [*begun, begun[-1] + 1]
    assert settled(session) == [("ack", 1)]
    for tag in range(2, 6):
        waiting[tag].callback(None)
    assert settled(session) == [("ack", tag) for tag in range(2, 6)]


def test_a_failing_handler_pauses_longer_and_longer(session: Session) -> None:
    channel = session.channel()
    times: list[float] = []

    def handler(message: Any) -> None:
        times.append(session.clock.seconds())
        raise RuntimeError("no")

    handling = start(session, channel, handler, concurrency=2)
    begin = session.clock.seconds()
    session.peer.deliver(channel, "t", b"x")
    tag = 1
    while len(times) < 12:
        while not settled(session):
            session.clock.advance(0.05)
        tag += 1
        session.peer.deliver(channel, "t", b"x", first=tag)
    pauses = [round(b - a, 1) for a, b in itertools.pairwise(times)]
    wanted = [min(0.1 * 2**n, 30) for n in range(11)]
    assert all(abs(found - want) <= 0.15 for found, want in zip(pauses, wanted, strict=False)), (
        pauses
    )
    assert (handling.failed, handling.handled, begin) == (12, 0, times[0])


def test_order_is_kept_when_a_handler_fails(session: Session) -> None:
    """With a concurrency of 1 the message stays here, and those behind it wait."""
    channel = session.channel()
    seen: list[bytes] = []

    async def handler(message: Any) -> None:
        seen.append(message.body)
        if message.body == b"2" and len(seen) < 4:
            raise RuntimeError("no")

    start(session, channel, handler)
    session.peer.deliver(channel, "t", b"1", b"2", b"3", b"4")
    assert settled(session) == [("ack", 1)]
    session.clock.advance(0.1)
    session.clock.advance(0.1)
    assert settled(session) == []
    session.clock.advance(0.1)
    assert settled(session) == [("ack", tag) for tag in (2, 3, 4)]
    assert seen == [b"1", b"2", b"2", b"2", b"3", b"4"]


def test_dead_lettering(session: Session) -> None:
    channel = session.channel()

    def handler(message: Any) -> None:
        if message.body == b"bad":
            raise RuntimeError("no")

    start(session, channel, handler, on_error="dead-letter")
    session.peer.deliver(channel, "t", b"bad", b"good", b"bad")
    assert settled(session) == [("drop", 1), ("ack", 2), ("drop", 3)]


def test_a_handler_may_settle_by_itself(session: Session) -> None:
    channel = session.channel()

    def handler(message: Any) -> None:
        message.reject(requeue=False)
        if message.body == b"2":
            raise RuntimeError("no")

    start(session, channel, handler, concurrency=2)
    session.peer.deliver(channel, "t", b"1", b"2")
    session.clock.advance(0.1)
    assert settled(session) == [("drop", 1), ("drop", 2)]  # by itself, and nothing more
    assert channel.is_open


@pytest.mark.parametrize("by", ["message", "channel"])
def test_a_handler_that_settles_and_then_fails_is_not_called_again(
    session: Session, by: str
) -> None:
    channel = session.channel()
    seen: list[Any] = []

    def handler(message: Any) -> None:
        seen.append(message.body)
        if by == "message":
            message.ack()
        else:
            channel.basic_ack(message.method.delivery_tag)
        if message.body == b"bad":
            raise RuntimeError("no")

    handling = start(session, channel, handler)
    session.peer.deliver(channel, "t", b"bad", b"good")
    session.turn(1)
    assert seen == [b"bad", b"good"]
    assert settled(session) == [("ack", 1), ("ack", 2)]
    assert (handling.handled, handling.failed) == (1, 1)


def test_time_outs(session: Session) -> None:
    channel = session.channel()
    cancelled: list[Any] = []

    async def handler(message: Any) -> None:
        await defer.Deferred(cancelled.append)

    handling = start(session, channel, handler, timeout=5, on_error="dead-letter")
    session.peer.deliver(channel, "t", b"x")
    session.clock.advance(5)
    assert settled(session) == [("drop", 1)]
    assert (len(cancelled), handling.failed) == (1, 1)


def test_stopping_lets_handlers_finish(session: Session) -> None:
    channel = session.channel()
    waiting: list[defer.Deferred[None]] = []

    def handler(message: Any) -> defer.Deferred[None]:
        waiting.append(defer.Deferred())
        return waiting[-1]

    handling = start(session, channel, handler, concurrency=2)
    session.peer.deliver(channel, "t", *[b"x"] * 4)
    stopped, twice = watch(handling.stop()), watch(handling.stop(60))
    agree_to_cancel(session, channel)
    assert settled(session) == [("requeue", 3), ("requeue", 4)]
    waiting[1].callback(None)
    assert stopped.pending
    waiting[0].callback(None)
    for outcome in (stopped, twice, watch(handling.when_stopped())):
        assert outcome.result() is None
    assert settled(session) == [("ack", 2), ("ack", 1)]
    assert len(waiting) == 2


def test_stopping_by_a_deadline(session: Session) -> None:
    channel = session.channel()
    cancelled: list[Any] = []

    def handler(message: Any) -> defer.Deferred[None]:
        return defer.Deferred(cancelled.append)

    handling = start(session, channel, handler)
    session.peer.deliver(channel, "t", b"x", b"y")
    stopped = watch(handling.stop(3))
    agree_to_cancel(session, channel)
    session.clock.advance(3)
    stopped.result()
    assert len(cancelled) == 1
    assert settled(session) == [("requeue", 2), ("requeue", 1)]


def test_stopping_gives_up_on_a_handler_that_goes_on(
    session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "pika_twisted")
    channel = session.channel()
    endless: defer.Deferred[None] = defer.Deferred(lambda _: endless.callback(None))
    end: defer.Deferred[None] = defer.Deferred()

    async def swallows(message: Any) -> None:
        if message.body == b"heeds":
            await defer.Deferred()
        await endless
        await end

    handling = start(session, channel, swallows, concurrency=2)
    session.peer.deliver(channel, "t", b"swallows", b"heeds", b"waits")
    stopped = watch(handling.stop(3))
    agree_to_cancel(session, channel)
    session.clock.advance(3)
    session.clock.advance(0.9)
    assert stopped.pending
    session.clock.advance(0.1)
    assert stopped.result() is None
    assert settled(session) == [("requeue", 3), ("requeue", 2)]
    (warning,) = (each.getMessage() for each in caplog.records if "go on" in each.getMessage())
    assert warning.startswith("1 handler(s) of 'q', ")
    assert "swallows" in warning
    end.callback(None)  # it may still settle its message, where the channel is open
    assert settled(session) == [("ack", 1)]
    assert watch(handling.when_stopped()).result() is None


@pytest.mark.parametrize(("deadline", "error"), [("3", TypeError), (-1, ValueError)])
def test_a_deadline_that_can_t_be_stops_nothing(
    session: Session, deadline: Any, error: type[Exception]
) -> None:
    channel = session.channel()
    handling = start(session, channel, plain)
    with pytest.raises(error, match="deadline"):
        handling.stop(deadline)
    assert handling.running
    session.peer.expect_none()


def test_stopping_while_it_pauses(session: Session) -> None:
    channel = session.channel()

    def handler(message: Any) -> None:
        raise RuntimeError("no")

    handling = start(session, channel, handler)
    session.peer.deliver(channel, "t", b"x")
    stopped = watch(handling.stop(30))
    agree_to_cancel(session, channel)
    session.clock.advance(0.2)
    stopped.result()
    assert settled(session) == [("requeue", 1)]


def test_the_end_of_the_channel_is_told(session: Session) -> None:
    channel = session.channel()
    waiting: defer.Deferred[None] = defer.Deferred()
    handling = start(session, channel, lambda message: waiting, concurrency=2)
    session.peer.deliver(channel, "t", b"x")
    ended = watch(handling.when_stopped())
    session.lose()
    assert ended.pending  # one handler is at work
    waiting.callback(None)
    ended.failure(exceptions.ChannelClosed)
    watch(handling.stop()).result()


def test_the_broker_cancels(session: Session) -> None:
    channel = session.channel()
    handling = start(session, channel, plain)
    ended = watch(handling.when_stopped())
    session.peer.send(channel, spec.Basic.Cancel("t", True))
    ended.failure(exceptions.ConsumerCancelled)


def test_what_waits_when_the_broker_cancels_goes_back(session: Session) -> None:
    channel = session.channel()
    waiting: list[defer.Deferred[None]] = []

    def handler(message: Any) -> defer.Deferred[None]:
        waiting.append(defer.Deferred())
        return waiting[-1]

    handling = start(session, channel, handler)
    session.peer.deliver(channel, "t", b"1", b"2", b"3")
    session.peer.send(channel, spec.Basic.Cancel("t", True))
    waiting[0].callback(None)
    watch(handling.when_stopped()).failure(exceptions.ConsumerCancelled)
    assert settled(session) == [("ack", 1), ("requeue", 2), ("requeue", 3)]


def test_around_each_message(session: Session) -> None:
    channel = session.channel()
    seen: list[str] = []

    @contextlib.contextmanager
    def around(message: Any) -> Iterator[None]:
        seen.append("in")
        try:
            yield
        finally:
            seen.append("out")

    start(session, channel, lambda message: seen.append("work"), around=around)
    session.peer.deliver(channel, "t", b"x")
    assert seen == ["in", "work", "out"]


def test_arguments_that_make_no_sense(session: Session) -> None:
    channel = session.channel()
    for wrong in ({"concurrency": 0}, {"concurrency": 5, "prefetch_count": 4}, {"on_error": "x"}):
        watch(consume(channel, "q", plain, **wrong)).failure(ValueError)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "wrong", "error"),
    [
        ("concurrency", 1.5, TypeError),
        ("concurrency", None, TypeError),
        ("prefetch_count", "20", TypeError),
        ("timeout", "5", TypeError),
        ("timeout", -1, ValueError),
        ("around", 5, TypeError),
    ],
)
def test_an_argument_that_can_t_be_is_named(
    session: Session, name: str, wrong: Any, error: type[Exception]
) -> None:
    channel = session.channel()
    session.peer.forget()
    refused = call(consume, channel, "q", plain, **{name: wrong}).failure(error)
    assert str(refused).startswith(name)
    session.peer.expect_none()


def test_what_comes_while_it_stops_goes_back(session: Session) -> None:
    channel = session.channel()
    seen: list[Any] = []
    handling = start(session, channel, seen.append)
    assert repr(handling) == "<Handling of 'q': 0 handled, 0 failed>"
    stopped = watch(handling.stop())
    session.peer.deliver(channel, "t", b"late")
    session.peer.expect(spec.Basic.Nack, requeue=True)
    agree_to_cancel(session, channel)
    stopped.result()
    assert (seen, handling.handled) == ([], 0)


def test_a_handler_that_fails_while_it_stops_makes_no_pause(session: Session) -> None:
    channel = session.channel()
    waiting: defer.Deferred[None] = defer.Deferred()
    handling = start(session, channel, lambda message: waiting)
    session.peer.deliver(channel, "t", b"x")
    stopped = watch(handling.stop())
    agree_to_cancel(session, channel)
    waiting.errback(RuntimeError("no"))
    stopped.result()
    assert settled(session) == [("requeue", 1)]
    assert handling.failed == 1


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def run_once(loop: asyncio.AbstractEventLoop) -> None:
    loop.call_soon(loop.stop)
    loop.run_forever()


def test_a_handler_that_waits_for_asyncio_may_take_too_long(
    session: Session, loop: asyncio.AbstractEventLoop
) -> None:
    channel = session.channel()

    async def handler(message: Any) -> None:
        await defer.Deferred.fromFuture(loop.create_future())

    handling = start(session, channel, handler, timeout=5, on_error="dead-letter")
    session.peer.deliver(channel, "t", b"x", b"y")
    for tag in (1, 2):
        session.clock.advance(5)
        run_once(loop)
        assert settled(session) == [("drop", tag)]
    assert (handling.running, handling.failed) == (True, 2)


def test_a_future_of_asyncio_is_waited_for(
    session: Session, loop: asyncio.AbstractEventLoop
) -> None:
    channel = session.channel()
    futures: list[asyncio.Future[None]] = []

    def handler(message: Any) -> asyncio.Future[None]:
        futures.append(loop.create_future())
        return futures[-1]

    start(session, channel, handler, timeout=5, on_error="dead-letter")
    session.peer.deliver(channel, "t", b"x", b"y")
    assert settled(session) == []
    futures[0].set_result(None)
    run_once(loop)
    assert settled(session) == [("ack", 1)]
    session.clock.advance(5)
    run_once(loop)
    assert settled(session) == [("drop", 2)]
    assert futures[1].cancelled()


def test_a_handler_that_waits_for_asyncio_is_stopped_by_a_deadline(
    session: Session, loop: asyncio.AbstractEventLoop
) -> None:
    channel = session.channel()

    async def handler(message: Any) -> None:
        await defer.Deferred.fromFuture(loop.create_future())

    handling = start(session, channel, handler)
    session.peer.deliver(channel, "t", b"x")
    stopped = watch(handling.stop(3))
    agree_to_cancel(session, channel)
    session.clock.advance(3)
    run_once(loop)
    stopped.result()
    assert (settled(session), handling.failed) == ([("requeue", 1)], 0)


class Fatal(BaseException):
    """As SystemExit: no failure of a handler, the end of it all."""


def test_an_end_that_nobody_foresaw(session: Session) -> None:
    channel = session.channel()

    def handler(message: Any) -> None:
        raise Fatal("now")

    handling = start(session, channel, handler)
    session.peer.deliver(channel, "t", b"x")
    assert settled(session) == []
    watch(handling.when_stopped()).failure(Fatal)
    assert not handling.running


@pytest.mark.parametrize(
    ("properties", "kept"),
    [
        (wire.headers_only(wire.sized(wire.entry(b"x-stream-offset", b"?"))), False),
        (wire.headers_only(wire.sized(wire.entry(b"x-stream-offset", b"t\x01"))), True),
    ],
    ids=["undecodable", "a stream's"],
)
def test_only_a_stream_s_message_stays_with_many_handlers(
    session: Session, properties: bytes, kept: bool
) -> None:
    channel = session.channel()
    begun: list[Any] = []

    def handler(message: Any) -> None:
        begun.append(message)
        raise RuntimeError("no")

    start(session, channel, handler, concurrency=2)
    session.peer.send_bytes(wire.content(1, b"x", properties, wire.deliver("t")))
    session.clock.advance(0.1)
    assert settled(session) == ([] if kept else [("requeue", 1)])
    assert len(begun) == 1 + kept
