"""consume(): handlers that fail, in every way, and attempts that end."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pika
import pytest
from pika import exceptions, spec
from twisted.internet import defer, task

from pika_twisted import DeadLetter, DelayQueue, consume, declare_delay_queue
from tests.support.outcome import TwistedLog, watch
from tests.support.session import OURS, Session


@pytest.fixture
def session() -> Iterator[Session]:
    with TwistedLog() as log:
        session = Session(OURS)
        yield session
        session.finish()
        log.assert_empty()


@pytest.fixture
def channel(session: Session) -> Any:
    return session.channel()


def start(session: Session, channel: Any, handler: Any, **options: Any) -> Any:
    starting = watch(
        consume(channel, "q", handler, reactor=session.clock, consumer_tag="t", **options)
    )
    session.peer.expect(spec.Basic.Qos)
    session.peer.send(channel, spec.Basic.QosOk())
    session.peer.expect(spec.Basic.Consume)
    session.peer.send(channel, spec.Basic.ConsumeOk("t"))
    session.peer.forget()
    return starting.result()


def deliver(
    session: Session,
    channel: Any,
    tag: int,
    *,
    body: bytes = b"x",
    redelivered: bool = False,
    **properties: Any,
) -> None:
    method = spec.Basic.Deliver("t", tag, redelivered, "e", "key")
    session.peer.send_content(channel, method, body, pika.BasicProperties(**properties))


def settled(session: Session) -> list[tuple[str, int]]:
    """What was acknowledged and refused since the last time."""
    found = []
    for method in session.peer.methods():
        if isinstance(method, (spec.Basic.Ack, spec.Basic.Nack, spec.Basic.Reject)):
            requeue = getattr(method, "requeue", None)
            name = "ack" if requeue is None else "requeue" if requeue else "drop"
            found.append((name, method.delivery_tag))
    session.peer.forget()
    return found


def failing(message: Any) -> None:
    raise ValueError("no way")


# What a handler may be, and return


class Awaitable:
    def __init__(self, done: list[str]) -> None:
        self._done = done

    def __await__(self) -> Iterator[Any]:
        yield from defer.succeed(None).__await__()
        self._done.append("ran")


def test_whatever_can_be_awaited_is_awaited(session: Session, channel: Any) -> None:
    done: list[str] = []
    start(session, channel, lambda message: Awaitable(done))
    deliver(session, channel, 1)
    assert (done, settled(session)) == (["ran"], [("ack", 1)])


def forgot_inline_callbacks(message: Any) -> Iterator[Any]:
    yield defer.succeed(None)


async def async_generator(message: Any) -> Any:
    yield 1


@pytest.mark.parametrize("handler", [forgot_inline_callbacks, async_generator])
def test_a_body_that_never_ran_acknowledges_nothing(
    session: Session, channel: Any, handler: Any, caplog: pytest.LogCaptureFixture
) -> None:
    handling = start(session, channel, handler, on_error="dead-letter")
    deliver(session, channel, 1)
    assert settled(session) == [("drop", 1)]
    assert (handling.handled, handling.failed) == (0, 1)
    assert "its body never ran" in caplog.text


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_what_is_no_exception_ends_one_handler(
    session: Session,
    channel: Any,
    error: type[BaseException],
    asynchronous: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As in Twisted's callbacks: the message goes back, the others are handled."""

    def handler(message: Any) -> Any:
        if message.body == b"bad":
            if asynchronous and error is not GeneratorExit:
                return defer.fail(error())
            raise error
        return None

    caplog.set_level(logging.CRITICAL, "pika_twisted")
    handling = start(session, channel, handler, concurrency=2)
    deliver(session, channel, 1, body=b"bad")
    deliver(session, channel, 2, body=b"good")
    session.clock.advance(0.1)
    assert settled(session) == [("ack", 2), ("requeue", 1)]
    assert (handling.handled, handling.failed, handling.running) == (1, 1, True)


def test_what_has_failed_is_rejected_and_what_was_not_begun_is_nacked(
    session: Session, channel: Any
) -> None:
    """Quorum queues of RabbitMQ 4.3 count only the former in their delivery limit."""
    handling = start(session, channel, failing, concurrency=2)
    deliver(session, channel, 1)
    session.clock.advance(0.1)
    stopping = watch(handling.stop())
    deliver(session, channel, 2)
    session.peer.expect(spec.Basic.Reject, delivery_tag=1, requeue=True)
    session.peer.expect(spec.Basic.Nack, delivery_tag=2, requeue=True)
    session.peer.send(channel, spec.Basic.CancelOk("t"))
    stopping.result()


# Attempts


def play(session: Session, channel: Any, most: int, **properties: Any) -> list[tuple[str, int]]:
    """Deliver a message again whenever it is requeued; what became of it, `most` times at most."""
    found: list[tuple[str, int]] = []
    for tag in range(1, most + 1):
        deliver(session, channel, tag, redelivered=tag > 1, **properties)
        ends: list[tuple[str, int]] = []
        for _ in range(200):
            ends = settled(session)
            if ends:
                break
            session.clock.advance(0.5)
        found += ends
        if ends[0][0] != "requeue":
            break
    return found


@pytest.mark.parametrize("concurrency", [1, 2])
def test_a_message_is_given_up_after_so_many_attempts(
    session: Session, channel: Any, concurrency: int, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[bytes] = []

    def handler(message: Any) -> None:
        calls.append(message.body)
        raise ValueError("no way")

    handling = start(session, channel, handler, concurrency=concurrency, max_attempts=5)
    assert play(session, channel, 9)[-1][0] == "drop"
    assert (len(calls), handling.failed, handling.given_up) == (5, 5, 1)
    last = caplog.records[-1].getMessage()
    assert "attempt 5; given up: rejected; it is dead-lettered if the queue has a dead-" in last


def test_a_failure_is_logged_with_what_finds_the_message(
    session: Session, channel: Any, caplog: pytest.LogCaptureFixture
) -> None:
    start(session, channel, failing)
    deliver(session, channel, 7, message_id="the id", headers={"x-delivery-count": 4})
    [record] = [each for each in caplog.records if each.levelno >= logging.ERROR]
    assert record.getMessage() == (
        "Handler of queue 'q' (delivery tag 7, message_id 'the id', routing key 'key') failed at "
        "attempt 5; it goes back into the queue in 1.6 s"
    )
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None and "no way" in str(record.exc_info[1])


DEATHS: list[dict[str, Any]] = [
    {"queue": "q.delay", "reason": "expired", "count": 9},
    {"queue": "q", "reason": "rejected", "count": 2},
    {"queue": "q", "reason": "delivery_limit", "count": 1},
    {"queue": "q", "reason": "expired", "count": 9},
    {"queue": "other", "reason": "rejected", "count": 9},
]


@pytest.mark.parametrize(
    ("properties", "attempt"),
    [
        ({}, 1),
        ({"redelivered": True}, 2),
        ({"headers": {"x-delivery-count": 3}}, 4),
        ({"headers": {"x-death": DEATHS}}, 4),
        ({"headers": {"x-death": DEATHS, "x-delivery-count": 1}, "redelivered": True}, 4),
        ({"headers": {"x-death": "?", "x-delivery-count": "?"}}, 1),
        ({"headers": {"x-death": [1, {"reason": "rejected", "queue": "q", "count": "?"}]}}, 1),
    ],
)
def test_how_attempts_are_counted(
    session: Session,
    channel: Any,
    caplog: pytest.LogCaptureFixture,
    properties: Any,
    attempt: int,
) -> None:
    start(session, channel, failing, concurrency=2)
    deliver(session, channel, 1, **properties)
    assert f"failed at attempt {attempt};" in caplog.text


def test_a_message_that_was_handled_begins_anew(session: Session, channel: Any) -> None:
    fails = iter([True, False, True, True])

    def handler(message: Any) -> None:
        if next(fails):
            raise ValueError("no way")

    start(session, channel, handler, concurrency=2, max_attempts=2)
    ends = []
    for tag in range(1, 5):
        deliver(session, channel, tag)
        session.clock.advance(1)
        ends += settled(session)
    assert ends == [("requeue", 1), ("ack", 2), ("requeue", 3), ("drop", 4)]


def test_one_at_a_time_a_message_is_tried_three_times_before_others_pass(
    session: Session, channel: Any
) -> None:
    seen: list[bytes] = []

    def handler(message: Any) -> None:
        seen.append(message.body)
        if message.body == b"bad":
            raise ValueError("no way")

    start(session, channel, handler)
    deliver(session, channel, 1, body=b"bad")
    deliver(session, channel, 2, body=b"good")
    for _ in range(20):
        session.clock.advance(0.1)
    assert seen == [b"bad", b"bad", b"bad", b"good"]
    assert settled(session) == [("ack", 2), ("requeue", 1)] or settled(session) == []
    deliver(session, channel, 3, body=b"bad", redelivered=True)
    session.clock.advance(30)
    assert seen[4:] == [b"bad"]


def test_a_poison_message_waits_beside_the_others(session: Session, channel: Any) -> None:
    """After 9 attempts it waits 25.6 s; the one handler goes on after 0.1 s."""
    done: list[bytes] = []

    def handler(message: Any) -> None:
        if message.body == b"bad":
            raise ValueError("no way")
        done.append(message.body)

    handling = start(session, channel, handler)
    deliver(session, channel, 1, body=b"bad", headers={"x-delivery-count": 8})
    deliver(session, channel, 2, body=b"good")
    session.clock.advance(0.1)
    assert (done, settled(session)) == ([b"good"], [("ack", 2)])
    session.clock.advance(25.4)
    assert settled(session) == []
    session.clock.advance(0.2)
    assert settled(session) == [("requeue", 1)]
    deliver(session, channel, 3, body=b"bad", headers={"x-delivery-count": 9})
    session.clock.advance(0.1)
    stopping = watch(handling.stop())
    assert settled(session) == [("requeue", 3)]
    session.peer.send(channel, spec.Basic.CancelOk("t"))
    stopping.result()


@pytest.mark.parametrize(
    ("delay", "waited"), [(2, 2.0), (lambda attempt: attempt * 3, 3.0), (lambda _: "?", 0.1)]
)
def test_delays_of_the_user(session: Session, channel: Any, delay: Any, waited: float) -> None:
    start(session, channel, failing, concurrency=2, retry_delay=delay)
    deliver(session, channel, 1)
    passed = 0.0
    while not (ends := settled(session)):
        session.clock.advance(0.05)
        passed += 0.05
    assert ends == [("requeue", 1)]
    assert abs(passed - waited) < 0.1


def test_a_message_of_a_stream_is_skipped_in_the_end(
    session: Session, channel: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    handling = start(session, channel, failing)
    deliver(session, channel, 1, headers={"x-stream-offset": 5})
    for _ in range(1_000):
        session.clock.advance(0.5)
    assert settled(session) == [("ack", 1)]
    assert (handling.failed, handling.given_up) == (20, 1)


# The end


def test_what_is_given_up_is_handed_to_a_function(session: Session, channel: Any) -> None:
    given: list[Any] = []
    waiting: defer.Deferred[None] = defer.Deferred()

    def take(message: Any, error: BaseException) -> defer.Deferred[None]:
        given.append((message.body, str(error)))
        return waiting

    start(session, channel, failing, max_attempts=1, on_give_up=take)
    deliver(session, channel, 1)
    assert (given, settled(session)) == ([(b"x", "no way")], [])
    waiting.callback(None)
    assert settled(session) == [("ack", 1)]


def test_a_function_that_fails_loses_nothing(session: Session, channel: Any) -> None:
    def take(message: Any, error: BaseException) -> None:
        raise LookupError

    handling = start(session, channel, failing, max_attempts=1, on_give_up=take)
    deliver(session, channel, 1)
    session.clock.advance(0.1)
    assert (settled(session), handling.given_up) == ([("requeue", 1)], 0)


def give_up_to(session: Session, channel: Any, **properties: Any) -> Any:
    """Have a message given up with a DeadLetter; what was published."""
    start(session, channel, failing, max_attempts=1, on_give_up=DeadLetter("dlx", "dead"))
    deliver(session, channel, 1, **properties)
    session.peer.expect(spec.Confirm.Select)
    session.peer.send(channel, spec.Confirm.SelectOk())
    session.peer.read()
    [published] = session.peer.published
    return published


def test_a_dead_letter_has_the_reason_in_its_headers(session: Session, channel: Any) -> None:
    published = give_up_to(
        session,
        channel,
        headers={"mine": 1, "CC": ["elsewhere"]},
        user_id="other",
        expiration="5",
        message_id="m",
    )
    assert (published.method.exchange, published.method.routing_key) == ("dlx", "dead")
    assert published.method.mandatory
    assert published.body == b"x"
    assert published.properties == pika.BasicProperties(
        headers={
            "mine": 1,
            "x-failure-reason": "ValueError: no way",
            "x-failure-attempts": 1,
            "x-failure-queue": "q",
        },
        message_id="m",
    )
    assert settled(session) == []
    session.peer.ack(channel, 1)
    assert settled(session) == [("ack", 1)]


def test_a_dead_letter_that_no_queue_takes_goes_back(session: Session, channel: Any) -> None:
    published = give_up_to(session, channel)
    session.peer.give_back(channel, published)
    session.peer.ack(channel, 1)
    session.clock.advance(0.1)
    assert settled(session) == [("requeue", 1)]


def test_the_delay_queue_gets_what_failed_and_the_other_one_what_is_given_up(
    session: Session, channel: Any
) -> None:
    delay = DelayQueue("q", 5, "q.delay", "q.dead")
    start(session, channel, failing, retry_delay=delay, max_attempts=2)
    deliver(session, channel, 1)
    assert settled(session) == [("drop", 1)]
    deaths = [{"queue": "q", "reason": "rejected", "count": 1}]
    deliver(session, channel, 2, headers={"x-death": deaths})
    session.peer.expect(spec.Confirm.Select)
    session.peer.send(channel, spec.Confirm.SelectOk())
    session.peer.read()
    [published] = session.peer.published
    assert (published.method.exchange, published.method.routing_key) == ("", "q.dead")
    assert published.properties.headers["x-failure-attempts"] == 2


def test_the_topology_of_a_delay_queue(session: Session, channel: Any) -> None:
    declaring = watch(declare_delay_queue(channel, "q", 1.5, arguments={"x-delivery-limit": 3}))
    tables = {}
    for _ in range(3):
        declared = session.peer.expect(spec.Queue.Declare).method
        assert declared.durable
        tables[declared.queue] = declared.arguments
        session.peer.send(channel, spec.Queue.DeclareOk(declared.queue, 0, 0))
    assert declaring.result() == DelayQueue("q", 1.5, "q.delay", "q.dead")
    back = {"x-queue-type": "quorum", "x-dead-letter-exchange": ""}
    assert tables == {
        "q.dead": {"x-queue-type": "quorum"},
        "q.delay": {**back, "x-dead-letter-routing-key": "q", "x-message-ttl": 1500},
        "q": {**back, "x-dead-letter-routing-key": "q.delay", "x-delivery-limit": 3},
    }


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"max_attempts": 0}, ValueError),
        ({"max_attempts": "3"}, TypeError),
        ({"retry_delay": -1}, ValueError),
        ({"retry_delay": "1"}, TypeError),
        ({"on_give_up": "drop"}, TypeError),
    ],
)
def test_what_makes_no_sense_is_refused_at_the_call(
    session: Session, channel: Any, wrong: Any, error: type[Exception]
) -> None:
    [name] = wrong
    refused = watch(consume(channel, "q", failing, reactor=session.clock, **wrong)).failure(error)
    assert name in str(refused)
    session.peer.expect_none()


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"delay": None}, TypeError),
        ({"delay": -1}, ValueError),
        ({"queue": ""}, ValueError),
        ({"queue_type": "stream"}, ValueError),
        ({"arguments": [1]}, TypeError),
    ],
)
def test_a_delay_queue_that_makes_no_sense(
    session: Session, channel: Any, wrong: Any, error: type[Exception]
) -> None:
    arguments = {"queue": "q", "delay": 1, **wrong}
    watch(declare_delay_queue(channel, **arguments)).failure(error)
    session.peer.expect_none()


def test_the_channel_s_end_leaves_no_timer(session: Session, channel: Any) -> None:
    handling = start(session, channel, failing, concurrency=2, retry_delay=20)
    deliver(session, channel, 1)
    session.clock.advance(1)
    stopped = watch(handling.when_stopped())
    session.peer.send(channel, spec.Channel.Close(406, "no", 0, 0))
    stopped.failure(exceptions.ChannelClosed)
    assert isinstance(session.clock, task.Clock)
