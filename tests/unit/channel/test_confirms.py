"""PublisherConfirms: each publish is settled by its own confirm and its own return, once."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from typing import Any

import pytest
from pika import BasicProperties
from pika.exceptions import ChannelClosedByBroker, NackError, UnroutableError
from pika.spec import Basic
from twisted.internet import defer

from pika_twisted import ReceivedMessage
from pika_twisted.channel.confirms import PublisherConfirms
from tests.support import queues
from tests.support.cost import assert_grows_at_most, cpu
from tests.support.outcome import Outcome, TwistedLog, run, watch

pytestmark = pytest.mark.usefixtures("twisted_log")


@pytest.fixture(autouse=True, scope="module")
def _frozen() -> Iterator[None]:
    with queues.frozen():
        yield


@pytest.fixture(params=queues.IMPLEMENTATIONS)
def make(request: pytest.FixtureRequest) -> type[PublisherConfirms]:
    made: type[PublisherConfirms] = queues.load(request.param, "channel.confirms").PublisherConfirms
    return made


@pytest.fixture
def confirms(make: type[PublisherConfirms]) -> PublisherConfirms:
    """Confirm mode is on."""
    made = make()
    made.select_sent()
    made.select_ok()
    return made


def publish(confirms: PublisherConfirms, body: Any = b"body", mandatory: bool = False) -> Outcome:
    return watch(confirms.expect("exchange", "key", body, mandatory))


def returned(body: bytes = b"body", key: str = "key", exchange: str = "exchange") -> Any:
    method = Basic.Return(312, "NO_ROUTE", exchange, key)
    return ReceivedMessage("channel", method, BasicProperties(), body)


def ack(tag: int, multiple: bool = False) -> Basic.Ack:
    return Basic.Ack(tag, multiple)


def nack(tag: int, multiple: bool = False) -> Basic.Nack:
    return Basic.Nack(tag, multiple)


def assert_empty(confirms: PublisherConfirms) -> None:
    """Nothing is kept of what is settled."""
    assert confirms.outstanding == 0
    held = {name: value for name, value in vars(confirms).items() if isinstance(value, dict)}
    assert len(held) == 6
    assert not any(held.values()), held


# Numbers


def test_it_is_off_until_select_is_written(make: type[PublisherConfirms]) -> None:
    confirms = make()
    assert not confirms.enabled
    assert "off" in repr(confirms)
    confirms.select_sent()
    assert confirms.enabled
    first = publish(confirms)
    confirms.select_ok()
    second = publish(confirms)
    confirms.select_sent()
    assert confirms.last_number == 2
    confirms.confirm(ack(1))
    assert first.result().delivery_tag == 1
    assert second.pending
    assert repr(confirms) == "<PublisherConfirms enabled, 1 outstanding>"


def test_a_publish_fires_with_its_ack(confirms: PublisherConfirms) -> None:
    outcomes = [publish(confirms) for _ in range(3)]
    assert list(confirms.deliveries) == [1, 2, 3]
    assert confirms.deliveries[2] is outcomes[1].deferred
    method = ack(2)
    confirms.confirm(method)
    assert [outcome.pending for outcome in outcomes] == [True, False, True]
    assert outcomes[1].result() is method
    assert len(confirms.deliveries) == confirms.outstanding == 2


def test_an_awaited_publish_fires_with_its_ack(confirms: PublisherConfirms) -> None:
    async def publisher() -> int:
        total = 0
        for _ in range(3):
            total += (await confirms.expect("", "key", b"", False)).delivery_tag
        return total

    outcome = run(publisher())
    for tag in (1, 2, 3):
        confirms.confirm(ack(tag))
    assert outcome.result() == 6


def test_multiple_settles_in_publish_order(confirms: PublisherConfirms) -> None:
    order: list[int] = []
    for number in range(1, 8):
        confirms.expect("", "key", b"", False).addCallback(lambda _, n=number: order.append(n))
    confirms.confirm(ack(3))
    confirms.confirm(ack(5, multiple=True))
    assert order == [3, 1, 2, 4, 5]
    confirms.confirm(ack(7, multiple=True))
    assert order == [3, 1, 2, 4, 5, 6, 7]
    assert_empty(confirms)


@pytest.mark.parametrize("settle", [ack, nack])
@pytest.mark.parametrize(("tag", "settled"), [(0, 4), (9, 4), (2, 2), (4, 4)])
def test_multiple_settles_all_up_to_a_tag(
    confirms: PublisherConfirms, settle: Any, tag: int, settled: int
) -> None:
    outcomes = [publish(confirms) for _ in range(4)]
    confirms.confirm(settle(tag, multiple=True))
    assert [not outcome.pending for outcome in outcomes] == [n < settled for n in range(4)]


def test_multiple_up_to_a_settled_tag_is_logged(
    confirms: PublisherConfirms, caplog: pytest.LogCaptureFixture
) -> None:
    outcomes = [publish(confirms) for _ in range(3)]
    confirms.confirm(ack(2))
    assert not caplog.records
    confirms.confirm(ack(2, multiple=True))
    assert "not outstanding" in caplog.text
    assert not outcomes[0].pending
    assert outcomes[2].pending


@pytest.mark.parametrize("tag", [0, 1, 5, 2**64 - 1])
def test_a_single_unknown_tag_is_logged_and_settles_nothing(
    confirms: PublisherConfirms, caplog: pytest.LogCaptureFixture, tag: int
) -> None:
    publish(confirms)
    confirms.confirm(ack(1))
    outcome = publish(confirms)
    confirms.confirm(ack(tag))
    assert "not outstanding" in caplog.text
    assert outcome.pending


def test_an_absurd_tag_costs_nothing(confirms: PublisherConfirms) -> None:
    outcome = publish(confirms)
    confirms.confirm(ack(2**64 - 1, multiple=True))
    outcome.result()
    later = publish(confirms)
    confirms.confirm(ack(2))
    later.result()


# Nacks and returns


def test_a_nack_fails_the_publish(
    confirms: PublisherConfirms, caplog: pytest.LogCaptureFixture
) -> None:
    plain, mandatory = publish(confirms, b"plain"), publish(confirms, b"mandatory", mandatory=True)
    message = returned(b"mandatory")
    assert confirms.returned(message)
    confirms.confirm(nack(2, multiple=True))
    assert plain.failure(NackError).messages == []
    assert mandatory.failure(NackError).messages == [message]
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_an_acked_publish_that_was_returned_is_unroutable(confirms: PublisherConfirms) -> None:
    outcome = publish(confirms, mandatory=True)
    message = returned()
    assert confirms.returned(message)
    assert outcome.pending
    confirms.confirm(ack(1))
    assert outcome.failure(UnroutableError).messages == [message]
    assert_empty(confirms)


def test_returns_are_matched_first_in_first_out(confirms: PublisherConfirms) -> None:
    outcomes = [publish(confirms, body, True) for body in (b"a", b"b", b"a", b"a")]
    assert confirms.returned(returned(b"a"))
    assert confirms.returned(returned(b"b"))
    assert confirms.returned(returned(b"a"))
    confirms.confirm(ack(4, multiple=True))
    failed = [outcome.error is not None for outcome in outcomes]
    assert failed == [True, True, True, False]
    assert_empty(confirms)


def test_a_return_skips_what_is_confirmed(confirms: PublisherConfirms) -> None:
    outcomes = [publish(confirms, b"same", True) for _ in range(4)]
    confirms.confirm(ack(1))
    confirms.confirm(ack(3))
    assert confirms.returned(returned(b"same"))
    assert confirms.returned(returned(b"same"))
    assert not confirms.returned(returned(b"same"))
    confirms.confirm(ack(4, multiple=True))
    assert [outcome.error is not None for outcome in outcomes] == [False, True, False, True]
    assert_empty(confirms)


@pytest.mark.parametrize(
    "message",
    [returned(b"other"), returned(key="other"), returned(exchange="other"), returned(b"")],
)
def test_a_foreign_return_matches_nothing(confirms: PublisherConfirms, message: Any) -> None:
    outcome = publish(confirms, mandatory=True)
    assert not confirms.returned(message)
    confirms.confirm(ack(1))
    outcome.result()


def test_returns_before_select_ok_are_of_earlier_publishes(make: type[PublisherConfirms]) -> None:
    confirms = make()
    assert not confirms.returned(returned())
    confirms.select_sent()
    outcome = publish(confirms, mandatory=True)
    assert not confirms.returned(returned())
    confirms.select_ok()
    confirms.confirm(ack(1))
    outcome.result()


def test_the_mandatory_publish_is_preferred_to_a_plain_one(confirms: PublisherConfirms) -> None:
    plain, mandatory = publish(confirms), publish(confirms, mandatory=True)
    another = publish(confirms)
    assert confirms.returned(returned())
    assert confirms.returned(returned())
    confirms.confirm(ack(0, multiple=True))
    mandatory.failure(UnroutableError)
    plain.failure(UnroutableError)
    another.result()
    assert_empty(confirms)


def test_long_bodies_are_told_apart(confirms: PublisherConfirms) -> None:
    """They have one key: their length and their ends are equal."""
    bodies = [bytes(2_000) + bytes([number]) + bytes(2_000) for number in range(3)]
    outcomes = [publish(confirms, body, True) for body in bodies]
    assert confirms.returned(returned(bodies[2]))
    assert confirms.returned(returned(bodies[0]))
    assert not confirms.returned(returned(bodies[0]))
    confirms.confirm(ack(3, multiple=True))
    assert [outcome.error is not None for outcome in outcomes] == [True, False, True]
    assert_empty(confirms)


@pytest.mark.parametrize("mandatory", [False, True])
@pytest.mark.parametrize(
    ("body", "wire"),
    [
        ("t\u00e4xt", "t\u00e4xt".encode()),
        (bytearray(b"body"), b"body"),
        (memoryview(b"body" * 1_000), b"body" * 1_000),
    ],
)
def test_bodies_are_compared_as_the_wire_has_them(
    confirms: PublisherConfirms, body: Any, wire: bytes, mandatory: bool
) -> None:
    if isinstance(body, bytearray):
        body = bytearray(body)
    outcome = publish(confirms, body, mandatory)
    if isinstance(body, bytearray):
        body[:] = b"changed"
    assert confirms.returned(returned(wire))
    confirms.confirm(ack(1))
    outcome.failure(UnroutableError)


def test_names_are_compared_as_the_wire_has_them(confirms: PublisherConfirms) -> None:
    outcome = watch(confirms.expect(b"exchange", b"key\xff", b"", True))
    text = watch(confirms.expect(b"exchange", b"key", b"", True))
    method = Basic.Return(312, "NO_ROUTE", "exchange", b"key\xff")
    assert confirms.returned(ReceivedMessage(None, method, BasicProperties(), b""))
    assert confirms.returned(returned(b""))
    confirms.confirm(ack(2, multiple=True))
    outcome.failure(UnroutableError)
    text.failure(UnroutableError)


@pytest.mark.parametrize("seed", range(10))
def test_a_burst_half_unroutable_has_none_wrong(confirms: PublisherConfirms, seed: int) -> None:
    """As RabbitMQ answers: returns in publish order, each before its confirm; these in any order.

    Few bodies, so that many publishes look alike; which of them are unroutable is known only here.
    """
    rng = random.Random(seed)
    bodies = [b"%d" % rng.randrange(20) for _ in range(3_000)]
    keys = [rng.choice(["routed", "nowhere"]) for _ in range(3_000)]
    outcomes = [
        watch(confirms.expect("exchange", key, body, True))
        for key, body in zip(keys, bodies, strict=True)
    ]
    sent, settled = 0, 0
    while settled < 3_000:
        for _ in range(rng.randrange(1, 60)):
            if sent < 3_000:
                if keys[sent] == "nowhere":
                    assert confirms.returned(returned(bodies[sent], "nowhere"))
                sent += 1
        if rng.random() < 0.5:
            settled = rng.randint(settled, sent)
            confirms.confirm(ack(settled, multiple=True) if settled else ack(1))
            settled = max(settled, 1)
        else:
            for tag in rng.sample(range(settled + 1, sent + 1), sent - settled):
                confirms.confirm(ack(tag))
            settled = sent
    for number, outcome in enumerate(outcomes):
        if keys[number] == "nowhere":
            (message,) = outcome.failure(UnroutableError).messages
            assert message.body == bodies[number]
        else:
            outcome.result()
    assert_empty(confirms)


# Cancelling, ending, callbacks that do something


@pytest.mark.parametrize("mandatory", [False, True])
def test_a_cancelled_publish_keeps_its_number(confirms: PublisherConfirms, mandatory: bool) -> None:
    cancelled, kept = publish(confirms, b"1", mandatory), publish(confirms, b"2", mandatory)
    cancelled.deferred.cancel()
    cancelled.failure(defer.CancelledError)
    assert confirms.outstanding == 2
    if mandatory:
        assert confirms.returned(returned(b"1"))
    confirms.confirm(ack(1))
    confirms.confirm(ack(2))
    kept.result()
    assert cancelled.fired == 1
    assert_empty(confirms)


def test_an_awaiting_publisher_can_be_cancelled(confirms: PublisherConfirms) -> None:
    async def publisher() -> None:
        await confirms.expect("", "key", b"", False)

    outcome = run(publisher())
    outcome.deferred.cancel()
    outcome.failure(defer.CancelledError)
    confirms.confirm(ack(1))


def test_a_publish_fired_by_the_user_is_logged(
    confirms: PublisherConfirms, caplog: pytest.LogCaptureFixture
) -> None:
    outcomes = [publish(confirms, mandatory=True) for _ in range(4)]
    for outcome in outcomes:
        outcome.deferred.callback("mine")
    confirms.expect("", "untouched", b"", False).callback("mine")
    confirms.returned(returned())
    confirms.confirm(ack(1))
    confirms.confirm(ack(2))
    confirms.confirm(nack(3))
    confirms.confirm(ack(5))
    confirms.fail_all(LookupError())
    assert caplog.text.count("fired by a user") == 5


def test_the_end_fails_all_in_order_each_with_its_own_exception(
    confirms: PublisherConfirms,
) -> None:
    reason = ChannelClosedByBroker(404, "gone")
    order: list[int] = []
    outcomes = []
    for number in range(5):
        deferred = confirms.expect("", "key", b"", number % 2 == 0)
        deferred.addErrback(lambda failure, n=number: order.append(n) or failure)
        outcomes.append(watch(deferred))
    confirms.confirm(ack(2))
    confirms.fail_all(reason)
    assert order == [0, 2, 3, 4]
    errors = [o.failure(ChannelClosedByBroker) for n, o in enumerate(outcomes) if n != 1]
    assert all(error.args == (404, "gone") for error in errors)
    assert len({id(error) for error in [*errors, reason]}) == 5
    assert_empty(confirms)
    confirms.fail_all(reason)


def test_callbacks_may_publish_confirm_and_end(confirms: PublisherConfirms) -> None:
    notes: list[Any] = []

    def publish_again(_: Any) -> None:
        assert list(confirms.deliveries) == [4]
        notes.append(watch(confirms.expect("", "again", b"", False)))
        confirms.confirm(ack(4))
        confirms.fail_all(LookupError("ended inside"))

    confirms.expect("", "", b"", False).addCallback(publish_again)
    second, third = publish(confirms), publish(confirms)
    fourth = publish(confirms)
    confirms.confirm(ack(3, multiple=True))
    second.result()
    third.result()
    fourth.result()
    notes[0].failure(LookupError)
    assert_empty(confirms)
    after = publish(confirms)
    confirms.confirm(ack(6, multiple=True))
    after.result()


def test_a_callback_that_raises_stops_nobody(
    confirms: PublisherConfirms, twisted_log: TwistedLog
) -> None:
    confirms.expect("", "", b"", False).addCallback(lambda _: 1 / 0)
    second = publish(confirms)
    confirms.confirm(ack(2, multiple=True))
    second.result()
    assert len(twisted_log.flush(ZeroDivisionError)) == 1


# Cost


@pytest.mark.parametrize("mandatory", [False, True])
@pytest.mark.parametrize("step", [1, 7])
def test_multiple_confirms_cost_the_same_whatever_is_outstanding(
    make: type[PublisherConfirms], mandatory: bool, step: int
) -> None:
    def cost(count: int) -> float:
        confirms = make()
        confirms.select_sent()
        confirms.select_ok()
        for _ in range(count):
            confirms.expect("", "key", b"same", mandatory)
        acks = [ack(tag, multiple=True) for tag in range(step, count + 1, step)]
        return cpu(lambda: [confirms.confirm(method) for method in acks])

    assert_grows_at_most(cost, 2_000)


def test_a_multiple_confirm_costs_nothing_for_what_was_confirmed_singly(
    make: type[PublisherConfirms],
) -> None:
    def cost(singly: int) -> float:
        confirms = make()
        confirms.select_sent()
        confirms.select_ok()
        for tag in range(1, singly + 1):
            confirms.expect("exchange", "key", b"body")
            confirms.confirm(ack(tag))
        waiting = [publish(confirms) for _ in range(200)]
        spent = cpu(lambda: confirms.confirm(ack(singly + 199, multiple=True)))
        assert [outcome.pending for outcome in waiting] == [False] * 199 + [True]
        confirms.confirm(ack(singly + 200, multiple=True))
        assert not waiting[-1].pending
        assert_empty(confirms)
        return spent

    assert_grows_at_most(cost, 5_000, factor=3)


def test_one_that_is_never_confirmed_keeps_nothing_else(confirms: PublisherConfirms) -> None:
    waiting = publish(confirms, b"same", mandatory=True)
    for tag in range(2, 2_000):
        publish(confirms, b"same", mandatory=True)
        confirms.confirm(ack(tag))
    (numbers,) = confirms._by_key.values()
    assert len(numbers) < 50
    confirms.confirm(ack(1))
    waiting.result()
    assert_empty(confirms)
