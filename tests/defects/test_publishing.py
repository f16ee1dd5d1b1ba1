"""Publishing and confirms: rows D01 to D04, D32 and D48 (D50b is in test_costs.py)."""

from __future__ import annotations

import logging

import pika
import pytest
from pika import exceptions, spec

from tests.support.outcome import call, watch
from tests.support.session import Session


def test_d01_returns_are_matched_to_their_publish(session: Session) -> None:
    """The return comes before the confirm of an earlier, routable publish."""
    channel = session.channel()
    session.confirms(channel)
    routable = session.publish(channel, b"routable", "known", mandatory=True)
    unroutable = session.publish(channel, b"unroutable", "unknown", mandatory=True)

    session.peer.give_back(channel, session.peer.published_body(b"unroutable"))
    session.peer.ack(channel, session.peer.published_body(b"routable").tag)
    session.peer.ack(channel, session.peer.published_body(b"unroutable").tag)

    assert isinstance(routable.result(), spec.Basic.Ack)
    (returned,) = unroutable.failure(exceptions.UnroutableError).messages
    assert (returned.body, returned.method.routing_key) == (b"unroutable", "unknown")
    assert returned.channel is channel


def test_d01_two_returns_before_one_multiple_ack(session: Session) -> None:
    channel = session.channel()
    session.confirms(channel)
    outcomes = [session.publish(channel, b"%d" % n, f"k{n}", mandatory=True) for n in range(4)]
    session.peer.read()

    with session.peer.one_read():
        for n in (1, 3):
            session.peer.give_back(channel, session.peer.published_body(b"%d" % n))
        session.peer.ack(channel, 4, multiple=True)

    failed = [n for n, outcome in enumerate(outcomes) if outcome.error is not None]
    assert failed == [1, 3]
    for n in failed:
        (returned,) = outcomes[n].failure(exceptions.UnroutableError).messages
        assert returned.body == b"%d" % n


def test_d01_equal_messages_are_matched_first_in_first_out(session: Session) -> None:
    """Same exchange, routing key and body: the oldest outstanding one is meant."""
    channel = session.channel()
    session.confirms(channel)
    first, second = (
        session.publish(
            channel,
            b"same",
            mandatory=True,
            properties=pika.BasicProperties(message_id=name, headers={"BCC": ["x"]}),
        )
        for name in "ab"
    )
    plain = session.publish(channel, b"same")  # not mandatory: can't be returned
    published = session.peer.published_body(b"same")

    # RabbitMQ takes the BCC header out before it returns a message.
    stripped = pika.BasicProperties(message_id="a", headers={})
    session.peer.give_back(channel, published, stripped)
    session.peer.ack(channel, 2)
    session.peer.ack(channel, 1)
    session.peer.ack(channel, 3)

    second.result()
    first.failure(exceptions.UnroutableError)
    plain.result()


def test_d01_a_return_that_matches_nothing_blames_nobody(
    session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    channel = session.channel()
    session.confirms(channel)
    returned: list[bytes] = []
    channel.add_on_return_callback(lambda message: returned.append(message.body))
    published = session.publish(channel, b"mine", mandatory=True)

    with caplog.at_level(logging.DEBUG):
        stray = spec.Basic.Return(312, "NO_ROUTE", "", "somewhere else")
        session.peer.send_content(channel, stray, b"not mine")
        session.peer.ack(channel, 1)

    assert isinstance(published.result(), spec.Basic.Ack)
    assert returned == [b"not mine"]
    assert [record for record in caplog.records if record.name.startswith("pika_twisted")]


def test_d01_a_burst_with_every_second_message_unroutable(session: Session) -> None:
    """3,000 in flight; the broker returns and confirms in its own grouping. None may be wrong."""
    channel = session.channel()
    session.confirms(channel)
    outcomes = [
        session.publish(channel, b"%d" % n, "known" if n % 2 else "unknown", mandatory=True)
        for n in range(3000)
    ]
    session.peer.read()
    published = {message.body: message for message in session.peer.published}

    for start in range(0, 3000, 50):
        with session.peer.one_read():
            for n in range(start, start + 50, 2):
                session.peer.give_back(channel, published[b"%d" % n])
            session.peer.ack(channel, start + 50, multiple=True)

    unrouted = [isinstance(outcome.error, exceptions.UnroutableError) for outcome in outcomes]
    wrong = sum(found != (n % 2 == 0) for n, found in enumerate(unrouted))
    assert wrong == 0, f"{wrong} of 3000 publishes were told the wrong thing"
    assert all(outcome.fired == 1 for outcome in outcomes)


def test_d02_tags_are_counted_from_confirm_select(session: Session) -> None:
    """A publish between Confirm.Select and SelectOk already has the broker's first tag."""
    channel = session.channel()
    selected = watch(channel.confirm_delivery())
    session.peer.expect(spec.Confirm.Select)
    early = session.publish(channel, b"early")
    session.peer.send(channel, spec.Confirm.SelectOk())
    late = session.publish(channel, b"late")
    selected.result()

    session.peer.ack(channel, session.peer.published_body(b"early").tag)

    assert late.pending, "the confirm of the early publish was taken for the late one's"
    assert isinstance(early.result(), spec.Basic.Ack)
    session.peer.ack(channel, session.peer.published_body(b"late").tag)
    assert isinstance(late.result(), spec.Basic.Ack)


def test_d02_a_publish_written_before_a_queued_confirm_select_has_no_tag(session: Session) -> None:
    """Confirm.Select waits behind another call: what is written before it is not confirmed."""
    channel = session.channel()
    declared = watch(channel.queue_declare("q"))
    selected = watch(channel.confirm_delivery())
    publishes = {b"one": session.publish(channel, b"one")}
    session.peer.expect(spec.Queue.Declare)
    session.peer.send(channel, spec.Queue.DeclareOk("q", 0, 0))
    publishes[b"two"] = session.publish(channel, b"two")
    session.peer.expect(spec.Confirm.Select)
    session.peer.send(channel, spec.Confirm.SelectOk())
    publishes[b"three"] = session.publish(channel, b"three")
    declared.result()
    selected.result()

    for body, outcome in publishes.items():
        tag = session.peer.published_body(body).tag
        if tag is None:
            assert outcome.result() is None
        else:
            assert outcome.pending, f"{body!r} fired before the broker confirmed it"
            session.peer.ack(channel, tag)
            assert isinstance(outcome.result(), spec.Basic.Ack)


def test_d03_a_return_from_before_confirms_is_not_blamed_on_the_next_publish(
    session: Session,
) -> None:
    channel = session.channel()
    returned: list[bytes] = []
    channel.add_on_return_callback(lambda message: returned.append(message.body))
    session.publish(channel, b"before", "unknown", mandatory=True)
    selected = watch(channel.confirm_delivery())
    session.peer.expect(spec.Confirm.Select)
    session.peer.give_back(channel, session.peer.published_body(b"before"))
    session.peer.send(channel, spec.Confirm.SelectOk())
    selected.result()
    after = session.publish(channel, b"after", mandatory=True)

    session.peer.ack(channel, session.peer.published_body(b"after").tag)

    assert isinstance(after.result(), spec.Basic.Ack)
    assert returned == [b"before"]


def test_d03_not_even_when_the_two_messages_are_equal(session: Session) -> None:
    """The broker works in order: a return before SelectOk was published before Confirm.Select."""
    channel = session.channel()
    session.publish(channel, b"same", "unknown", mandatory=True)
    watch(channel.confirm_delivery())
    session.peer.expect(spec.Confirm.Select)
    after = session.publish(channel, b"same", "unknown", mandatory=True)
    session.peer.give_back(channel, session.peer.published_body(b"same"))
    session.peer.send(channel, spec.Confirm.SelectOk())
    session.peer.ack(channel, 1)

    assert isinstance(after.result(), spec.Basic.Ack)


def test_d04_two_confirm_delivery_in_flight(session: Session) -> None:
    channel = session.channel()
    calls = [watch(channel.confirm_delivery(), f"confirm_delivery {n}") for n in (1, 2)]

    def answer() -> None:
        for _ in [name for name in session.peer.names() if name == "Confirm.Select"]:
            session.peer.expect(spec.Confirm.Select)
            session.peer.send(channel, spec.Confirm.SelectOk())

    session.peer.expect(spec.Confirm.Select)
    session.peer.send(channel, spec.Confirm.SelectOk())
    first = session.publish(channel, b"first")
    answer()
    second = session.publish(channel, b"second")
    answer()
    for body in (b"first", b"second"):
        session.peer.ack(channel, session.peer.published_body(body).tag)

    assert isinstance(first.result(), spec.Basic.Ack)
    assert isinstance(second.result(), spec.Basic.Ack)
    for outcome in calls:
        outcome.result()


def test_d04_confirm_delivery_again_later_is_harmless(session: Session) -> None:
    """The answer of a second call fires while publishes are outstanding."""
    channel = session.channel()
    calls = [watch(channel.confirm_delivery()), watch(channel.confirm_delivery())]
    outcomes = {}
    for body in (b"a", b"b", b"c"):
        for _ in [name for name in session.peer.names() if name == "Confirm.Select"]:
            session.peer.expect(spec.Confirm.Select)
            session.peer.send(channel, spec.Confirm.SelectOk())
        outcomes[body] = session.publish(channel, body)
    session.peer.read()
    session.peer.ack(channel, max(m.tag or 0 for m in session.peer.published), multiple=True)

    for outcome in (*calls, *outcomes.values()):
        outcome.result()


@pytest.mark.parametrize("confirming", [False, True])
def test_d32_publishing_on_a_closing_channel_fails_its_deferred(
    session: Session, confirming: bool
) -> None:
    channel = session.channel()
    if confirming:
        session.confirms(channel)
    channel.close()
    session.peer.expect(spec.Channel.Close)

    outcome = call(channel.basic_publish, "", "q", b"too late")

    outcome.failure(exceptions.AMQPChannelError)
    session.peer.expect_none()


@pytest.mark.parametrize(
    "bad",
    [
        {"routing_key": "k" * 256},
        {"exchange": "x" * 256},
        {"body": object()},
        {"properties": pika.BasicProperties(headers={"x": object()})},
        {"properties": pika.BasicProperties(message_id="m" * 256)},
    ],
    ids=["routing_key", "exchange", "body", "headers", "message_id"],
)
def test_d32_an_argument_that_cannot_be_encoded_fails_the_deferred(
    session: Session, bad: dict[str, object]
) -> None:
    channel = session.channel()
    session.confirms(channel)
    arguments = {"exchange": "", "routing_key": "q", "body": b"body", **bad}

    outcome = call(channel.basic_publish, **arguments)

    outcome.failure(Exception)
    session.peer.expect_none()
    good = session.publish(channel, b"good")
    assert session.peer.published_body(b"good").tag == 1
    session.peer.ack(channel, 1)
    assert isinstance(good.result(), spec.Basic.Ack)


def test_d48_a_publish_is_one_write(session: Session) -> None:
    channel = session.channel()
    session.turn()
    before = len(session.transport.writes)

    session.publish(channel, b"body", properties=pika.BasicProperties(message_id="m"))
    session.turn()

    assert len(session.transport.writes) - before == 1
    assert session.peer.published_body(b"body").properties.message_id == "m"


@pytest.mark.parametrize("tls", [False, True])
def test_d48_a_publisher_can_wait_for_the_transport_to_drain(session: Session, tls: bool) -> None:
    session.tls = tls
    channel = session.channel()
    assert hasattr(session.protocol, "drained"), "no way to wait for the transport to drain"
    free = watch(session.protocol.drained())
    session.turn()
    free.result()

    session.transport.fill()
    session.publish(channel, b"more")
    waiting = [watch(session.protocol.drained()) for _ in range(2)]
    cancelled = session.protocol.drained()
    gave_up = watch(cancelled)
    cancelled.cancel()
    session.turn()
    assert [outcome.pending for outcome in waiting] == [True, True]

    session.transport.drain()
    session.turn()
    for outcome in waiting:
        outcome.result()
    assert gave_up.fired == 1
    free = watch(session.protocol.drained())
    session.turn()
    free.result()
    assert session.transport.producer is None  # the user may register one


def test_d48_waiting_to_drain_ends_with_the_connection(session: Session) -> None:
    session.open()
    assert hasattr(session.protocol, "drained"), "no way to wait for the transport to drain"
    session.transport.fill()
    waiting = watch(session.protocol.drained())

    session.lose()

    waiting.failure(exceptions.AMQPConnectionError)
    watch(session.protocol.drained()).failure(exceptions.AMQPConnectionError)


def test_d48_blocked_and_unblocked_are_told(session: Session) -> None:
    protocol = session.open()
    told: list[tuple[object, ...]] = []
    assert hasattr(protocol, "add_on_connection_blocked_callback"), "only through _impl"
    protocol.add_on_connection_blocked_callback(lambda *args: told.append(args))
    protocol.add_on_connection_unblocked_callback(lambda *args: told.append(args))
    assert protocol.is_blocked is False

    session.peer.send(0, spec.Connection.Blocked("low on memory"))
    assert protocol.is_blocked is True
    session.peer.send(0, spec.Connection.Unblocked())
    assert protocol.is_blocked is False

    assert [args[0] for args in told] == [protocol, protocol]
    assert told[0][-1].method.reason == "low on memory"
    assert isinstance(told[1][-1].method, spec.Connection.Unblocked)
