"""The publisher: confirms pipelined within bounds."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pika
import pytest
from pika import exceptions, spec
from twisted.internet import defer

from pika_twisted.exceptions import PublisherOverflow, PublishTimeout
from pika_twisted.publisher import Publisher
from pika_twisted.recovery.publisher import RecoveringPublisher
from tests.support import peer
from tests.support.cost import assert_grows_at_most, cpu
from tests.support.outcome import Outcome, TwistedLog, call, watch
from tests.support.session import OURS, Session


@pytest.fixture
def session(twisted_log: TwistedLog) -> Iterator[Session]:
    session = Session(OURS)
    yield session
    session.finish()


def publisher(session: Session, channel: Any = None, **options: Any) -> Publisher:
    channel = channel or session.channel()
    made = Publisher(channel, reactor=session.clock, **options)
    session.peer.expect(spec.Confirm.Select)
    session.peer.send(channel, spec.Confirm.SelectOk())
    return made


def publish(target: Publisher, body: bytes, **options: Any) -> Outcome:
    return watch(target.publish("", "q", body, **options), f"publish {body!r}")


def sent(session: Session) -> list[bytes]:
    session.peer.read()
    return [message.body for message in session.peer.published]


def test_it_waits_for_room_and_keeps_the_order(session: Session) -> None:
    channel = session.channel()
    target = publisher(session, channel, max_in_flight=2)
    outcomes = [publish(target, b"%d" % n) for n in range(5)]
    assert sent(session) == [b"0", b"1"]
    assert (target.in_flight, target.waiting) == (2, 3)
    session.peer.ack(channel, 2)
    outcomes[1].result()
    assert outcomes[0].pending
    assert sent(session) == [b"0", b"1", b"2"]
    session.peer.ack(channel, 3, multiple=True)
    session.peer.ack(channel, 5, multiple=True)
    assert all(isinstance(outcome.result(), spec.Basic.Ack) for outcome in outcomes)
    assert (target.in_flight, target.waiting, target.confirmed) == (0, 0, 5)


def test_publishes_wait_for_confirm_mode(session: Session) -> None:
    channel = session.channel()
    declaring = watch(channel.queue_declare("slow"))
    target = Publisher(channel, reactor=session.clock)
    outcome = publish(target, b"x")
    assert sent(session) == []
    session.peer.send(channel, spec.Queue.DeclareOk("slow", 0, 0))
    session.peer.send(channel, spec.Confirm.SelectOk())
    declaring.result()
    assert sent(session) == [b"x"]
    session.peer.ack(channel, 1)
    outcome.result()


def test_bytes_in_flight_are_bounded(session: Session) -> None:
    channel = session.channel()
    target = publisher(session, channel, max_bytes=100)
    large, small, other = (publish(target, b"x" * size) for size in (500, 60, 60))
    assert [len(body) for body in sent(session)] == [500]
    session.peer.ack(channel, 1)
    assert [len(body) for body in sent(session)] == [500, 60]
    session.peer.ack(channel, 2)
    session.peer.ack(channel, 3)
    for outcome in (large, small, other):
        outcome.result()


def test_returned_and_refused(session: Session) -> None:
    channel = session.channel()
    target = publisher(session, channel)
    good, lost, refused = (publish(target, body) for body in (b"good", b"lost", b"refused"))
    assert session.peer.published_body(b"lost").method.mandatory
    session.peer.give_back(channel, session.peer.published_body(b"lost"))
    session.peer.ack(channel, 2, multiple=True)
    session.peer.send(channel, spec.Basic.Nack(3))
    good.result()
    (returned,) = lost.failure(exceptions.UnroutableError).messages
    assert returned.body == b"lost"
    refused.failure(exceptions.NackError)
    wrong = watch(target.publish("", "q", b"x", properties=5))  # type: ignore[arg-type]
    wrong.failure(TypeError)
    assert (target.in_flight, target.confirmed, target.failed) == (0, 1, 3)


def test_time_outs(session: Session) -> None:
    channel = session.channel()
    target = publisher(session, channel, max_in_flight=1, timeout=5)
    sent_one, waiting = publish(target, b"1"), publish(target, b"2")
    patient = publish(target, b"3", timeout=60)
    session.clock.advance(5)
    sent_one.failure(PublishTimeout)
    waiting.failure(PublishTimeout, defer.TimeoutError.__mro__[1])
    assert sent(session) == [b"1"]  # its room is taken until the broker has answered
    session.peer.ack(channel, 1)
    assert sent(session) == [b"1", b"3"]
    session.peer.ack(channel, 2)
    patient.result()


def test_a_publish_fails_once(session: Session) -> None:
    """Late, it is not counted again when its channel ends without a confirm."""
    channel = session.channel()
    target = publisher(session, channel, timeout=1)
    late = publish(target, b"x")
    session.clock.advance(1)
    late.failure(PublishTimeout)
    session.peer.close_channel(channel, 406, "PRECONDITION_FAILED")
    assert (target.failed, target.confirmed, target.in_flight) == (1, 0, 0)


def test_cancelling(session: Session) -> None:
    channel = session.channel()
    target = publisher(session, channel, max_in_flight=1)
    first, second, third = (publish(target, body) for body in (b"1", b"2", b"3"))
    second.deferred.cancel()
    first.deferred.cancel()
    first.failure(defer.CancelledError)
    second.failure(defer.CancelledError)
    session.peer.ack(channel, 1)
    assert sent(session) == [b"1", b"3"]
    session.peer.ack(channel, 2)
    third.result()


def test_the_end_of_the_channel_fails_all_in_order(session: Session) -> None:
    channel = session.channel()
    target = publisher(session, channel, max_in_flight=2)
    order: list[int] = []
    outcomes = []
    for number in range(4):
        deferred = target.publish("", "q", b"x")
        deferred.addBoth(lambda result, number=number: order.append(number) or result)
        outcomes.append(watch(deferred))
    session.lose()
    for outcome in outcomes:
        outcome.failure(exceptions.ChannelClosed)
    assert order == [0, 1, 2, 3]
    publish(target, b"late").failure(exceptions.ChannelClosed)
    assert len({id(outcome.error) for outcome in outcomes}) == 4


def test_flush_and_overflow(session: Session) -> None:
    channel = session.channel()
    target = publisher(session, channel, max_in_flight=1, max_waiting=1)
    watch(target.flush()).result()
    first, second = publish(target, b"1"), publish(target, b"2")
    publish(target, b"3").failure(PublisherOverflow)
    flushed = watch(target.flush())
    session.peer.ack(channel, 1)
    assert flushed.pending
    session.peer.ack(channel, 2)
    flushed.result()
    first.result(), second.result()
    target.close()
    publish(target, b"late").failure(exceptions.ChannelClosedByClient)


def test_overflow_where_octets_are_the_bound(session: Session) -> None:
    channel = session.channel()
    target = publisher(session, channel, max_bytes=100, max_waiting=2)
    outcomes = [publish(target, b"x" * 60) for _ in range(3)]
    publish(target, b"x" * 60).failure(PublisherOverflow)
    publish(target, b"x").failure(PublisherOverflow)  # there is room for it, behind the others
    assert (target.in_flight, target.waiting) == (1, 2)
    for tag, outcome in enumerate(outcomes, 1):
        session.peer.ack(channel, tag)
        outcome.result()


def test_publishing_from_a_confirm_does_not_recurse(session: Session) -> None:
    channel = session.channel()
    target = publisher(session, channel, max_in_flight=1)
    outcomes = [publish(target, b"x") for _ in range(3000)]
    for number in range(1, 3001):
        session.peer.ack(channel, number)
    outcomes[-1].result()


def test_the_hook_before_publish(session: Session) -> None:
    channel = session.channel()

    def add(arguments: dict[str, Any]) -> None:
        if arguments["body"] == b"bad":
            raise LookupError("no")
        arguments["properties"] = spec.BasicProperties(headers={"trace": "1"})

    target = publisher(session, channel, before_publish=add)
    outcome = publish(target, b"x")
    publish(target, b"bad").failure(LookupError)
    assert session.peer.published_body(b"x").properties.headers == {"trace": "1"}
    session.peer.ack(channel, 1)
    outcome.result()


def test_the_hook_may_take_arguments_out_and_put_them_in_again(session: Session) -> None:
    channel = session.channel()

    def add(arguments: dict[str, Any]) -> None:
        properties = arguments.pop("properties") or spec.BasicProperties()
        properties.app_id = "tests"
        arguments["properties"] = properties

    target = publisher(session, channel, before_publish=add)
    outcome = publish(target, b"x")
    published = session.peer.published_body(b"x")
    assert (published.properties.app_id, published.method.mandatory) == ("tests", True)
    session.peer.ack(channel, 1)
    outcome.result()


def test_what_the_hook_makes_up_fails_its_publish_only(session: Session) -> None:
    channel = session.channel()

    def add(arguments: dict[str, Any]) -> None:
        if arguments["body"] == b"bad":
            arguments["headers"] = {}

    target = publisher(session, channel, before_publish=add, max_in_flight=1)
    assert "headers" in str(publish(target, b"bad").failure(TypeError))
    outcome = publish(target, b"x")
    session.peer.ack(channel, 1)
    outcome.result()
    watch(target.flush()).result()


def test_resending_on_another_channel(session: Session) -> None:
    channel = session.channel()
    early = Publisher(reactor=session.clock)
    publish(early, b"too early").failure(exceptions.ConnectionWrongStateError)
    target = RecoveringPublisher(resend_when_lost=True, reactor=session.clock, max_in_flight=2)
    target.go_on(channel)
    outcomes = [publish(target, b"%d" % n) for n in range(3)]
    session.peer.expect(spec.Confirm.Select)
    session.peer.send(channel, spec.Confirm.SelectOk())
    channel.close()
    session.peer.expect(spec.Channel.Close)
    session.peer.send(channel, spec.Channel.CloseOk())
    assert target.waiting == 3
    session.peer.forget()
    again = session.channel()
    target.go_on(again)
    session.peer.expect(spec.Confirm.Select)
    session.peer.send(again, spec.Confirm.SelectOk())
    assert sent(session) == [b"0", b"1"]
    session.peer.ack(again, 2, multiple=True)
    session.peer.ack(again, 3)
    for outcome in outcomes:
        outcome.result()
    assert target.resent == 2


def test_a_message_that_closes_its_channel_is_not_resent_for_ever(session: Session) -> None:
    target = RecoveringPublisher(resend_when_lost=True, reactor=session.clock)
    outcome = publish(target, b"x")
    channel = session.channel()
    target.go_on(channel)
    session.peer.expect(spec.Confirm.Select)
    session.peer.send(channel, spec.Confirm.SelectOk())
    session.peer.send(channel, spec.Channel.Close(404, "NOT_FOUND", 60, 40))
    assert outcome.failure(exceptions.ChannelClosedByBroker).reply_code == 404


def next_channel(session: Session, target: RecoveringPublisher) -> Any:
    """Another channel in confirm mode, as a service opens it after a loss."""
    channel = session.channel()
    target.go_on(channel)
    session.peer.expect(spec.Confirm.Select)
    session.peer.forget()
    session.peer.send(channel, spec.Confirm.SelectOk())
    return channel


def serve_until_settled(session: Session, target: RecoveringPublisher) -> list[bytes]:
    """Confirm what comes as a broker does, but close the channel for b"bad". What was taken."""
    taken: list[bytes] = []
    channel, tag = next_channel(session, target), 0
    while target.in_flight or target.waiting:
        arrived = sent(session)
        session.peer.forget()
        for body in arrived:
            if body.startswith(b"bad"):
                session.peer.send(channel, spec.Channel.Close(404, body.decode(), 60, 40))
                channel, tag = next_channel(session, target), 0
                break
            taken.append(body)
            tag += 1
            session.peer.ack(channel, tag)
    return taken


def test_the_one_that_is_refused_fails_alone(session: Session) -> None:
    target = RecoveringPublisher(resend_when_lost=True, reactor=session.clock)
    bodies = [b"0", b"1", b"bad 1", b"2", b"3", b"bad 2", b"4"]
    outcomes = {body: publish(target, body) for body in bodies}
    taken = serve_until_settled(session, target)
    for body, outcome in outcomes.items():
        if body.startswith(b"bad"):
            assert body.decode() in str(outcome.failure(exceptions.ChannelClosedByBroker))
        else:
            outcome.result()
    assert taken == [b"0", b"1", b"2", b"3", b"4"]
    assert (target.confirmed, target.failed) == (5, 2)


def test_after_a_refusal_the_others_go_one_at_a_time(session: Session) -> None:
    target = RecoveringPublisher(resend_when_lost=True, reactor=session.clock)
    outcomes = [publish(target, b"%d" % number) for number in range(3)]
    channel = next_channel(session, target)
    assert sent(session) == [b"0", b"1", b"2"]
    session.peer.send(channel, spec.Channel.Close(404, "NOT_FOUND", 60, 40))
    outcomes.append(publish(target, b"new"))
    channel = next_channel(session, target)
    for number in range(3):
        assert sent(session) == [b"%d" % number]
        session.peer.forget()
        session.peer.ack(channel, number + 1)
    assert sent(session) == [b"new"]
    session.peer.ack(channel, 4)
    assert all(outcome.result() for outcome in outcomes)
    assert target.resent == 3


def test_a_cancelled_one_may_be_the_one_that_was_refused(session: Session) -> None:
    target = RecoveringPublisher(resend_when_lost=True, reactor=session.clock)
    bad, good = publish(target, b"bad"), publish(target, b"good")
    channel = next_channel(session, target)
    bad.deferred.cancel()
    session.peer.send(channel, spec.Channel.Close(404, "NOT_FOUND", 60, 40))
    channel = next_channel(session, target)
    assert sent(session) == [b"good"]
    session.peer.ack(channel, 1)
    good.result()


def test_a_publish_is_what_it_was_at_the_call(session: Session) -> None:
    """One BasicProperties and one bytearray for three messages, while there is no channel."""
    target = RecoveringPublisher(resend_when_lost=True, reactor=session.clock)
    body, properties = bytearray(1), pika.BasicProperties(headers={"n": [0]})
    outcomes = []
    for number in range(3):
        body[:] = b"%d" % number
        properties.headers["n"][0] = number
        outcomes.append(watch(target.publish("", "q", body, properties)))  # type: ignore[arg-type]
    for _ in range(2):  # the second time they are sent again
        channel = next_channel(session, target)
        session.peer.read()
        assert [
            (message.body, message.properties.headers["n"]) for message in session.peer.published
        ] == [(b"0", [0]), (b"1", [1]), (b"2", [2])]
        properties.headers["n"][0] = 9
        if len(outcomes) and target.resent == 0:
            channel.close()
            session.peer.expect(spec.Channel.Close)
            session.peer.send(channel, spec.Channel.CloseOk())
    session.peer.ack(channel, 3, multiple=True)
    assert all(outcome.result() for outcome in outcomes)


def test_what_can_t_be_sent_fails_at_the_call_without_a_channel(session: Session) -> None:
    target = RecoveringPublisher(reactor=session.clock)
    unsendable = pika.BasicProperties(headers={"key": object()})
    error = watch(target.publish("", "q", b"", unsendable)).failure(exceptions.AMQPError)
    assert "headers['key']" in str(error)
    watch(target.publish("", 5, b"")).failure(TypeError)  # type: ignore[arg-type]
    assert target.waiting == 0


@pytest.mark.parametrize("wrong", ["max_in_flight", "max_bytes", "max_waiting"])
def test_bounds_that_make_no_sense(wrong: str) -> None:
    with pytest.raises(ValueError, match=f"^{wrong} is between 0"):
        Publisher(None, **{wrong: -1})


@pytest.mark.parametrize(("wrong", "error"), [("5", TypeError), (-1, ValueError)])
def test_a_time_limit_that_can_t_be(session: Session, wrong: Any, error: type[Exception]) -> None:
    channel = session.channel()
    with pytest.raises(error, match="timeout"):
        Publisher(None, timeout=wrong)
    target = publisher(session, channel)
    refused = call(target.publish, "", "q", b"x", timeout=wrong).failure(error)
    assert "timeout" in str(refused)
    assert (sent(session), target.in_flight) == ([], 0)


def test_a_broker_without_confirms(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(peer.CAPABILITIES, "publisher_confirms", False)
    target = Publisher(session.channel(), reactor=session.clock)
    publish(target, b"x").failure(exceptions.MethodNotImplemented)
    assert sent(session) == []


def test_cancelling_is_cheap_however_many_publishes_wait() -> None:
    def cancelling(count: int) -> float:
        publisher = RecoveringPublisher()
        waiting = [publisher.publish("e", "k", b"x") for _ in range(count)]
        random.Random(1).shuffle(waiting)
        for deferred in waiting:
            deferred.addErrback(lambda _: None)
        assert publisher.waiting == count
        cost = cpu(lambda: [deferred.cancel() for deferred in waiting])
        assert publisher.waiting == 0
        return cost

    assert_grows_at_most(cancelling, 1_000)


@pytest.mark.parametrize("body", [None, 5])
def test_a_body_that_can_t_be_is_named(session: Session, body: Any) -> None:
    """With the same text as basic_publish()."""
    channel = session.channel()
    target = publisher(session, channel)
    text = f"body must be str or bytes-like, not {type(body).__name__}"
    assert str(publish(target, body).failure(TypeError)) == text
    assert str(call(channel.basic_publish, "", "q", body).failure(TypeError)) == text
    assert sent(session) == []


def test_a_body_that_is_changed_while_it_waits(session: Session) -> None:
    channel = session.channel()
    target = publisher(session, channel, max_in_flight=1)
    body = bytearray(b"one")
    outcomes = [publish(target, b"zero"), publish(target, body)]  # type: ignore[arg-type]
    body[:] = b"two"
    session.peer.ack(channel, 1)
    assert sent(session) == [b"zero", b"one"]
    session.peer.ack(channel, 2)
    assert all(outcome.result() for outcome in outcomes)
