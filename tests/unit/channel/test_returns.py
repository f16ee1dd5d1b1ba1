"""Which of several mandatory publishes the broker has returned: the one with its properties."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pika
import pytest
from pika import spec
from pika.exceptions import UnroutableError

from tests.support.outcome import Outcome, watch
from tests.support.session import OURS, OURS_THROUGH_PIKA, Session

pytestmark = pytest.mark.usefixtures("twisted_log")


@pytest.fixture(params=[OURS, OURS_THROUGH_PIKA], ids=lambda adapter: adapter.name)
def session(request: pytest.FixtureRequest) -> Iterator[Session]:
    session = Session(request.param)
    yield session
    session.finish()


@pytest.fixture
def channel(session: Session) -> Any:
    channel = session.channel()
    session.confirms(channel)
    return channel


def publish(channel: Any, properties: Any, body: bytes = b"") -> Outcome:
    return watch(channel.basic_publish("hx", "k", body, properties, mandatory=True))


def bounce(session: Session, channel: Any, properties: Any, body: bytes = b"") -> None:
    method = spec.Basic.Return(312, "NO_ROUTE", "hx", "k")
    session.peer.send_content(channel, method, body, properties)


def headers(**fields: Any) -> pika.BasicProperties:
    return pika.BasicProperties(headers=fields)


def test_the_one_with_equal_headers_has_failed(session: Session, channel: Any) -> None:
    routed, lost = publish(channel, headers(to="A")), publish(channel, headers(to="B"))
    bounce(session, channel, headers(to="B"))
    session.peer.send(channel, spec.Basic.Ack(2, True))
    routed.result()
    assert lost.failure(UnroutableError).messages[0].properties.headers == {"to": "B"}


def test_properties_count_as_they_were_at_the_call(session: Session, channel: Any) -> None:
    properties = headers(to="A")
    routed = publish(channel, properties)
    properties.headers["to"] = "B"
    lost = publish(channel, properties)
    bounce(session, channel, headers(to="B"))
    session.peer.send(channel, spec.Basic.Ack(2, True))
    routed.result()
    lost.failure(UnroutableError)


@pytest.mark.parametrize("body", [b"", b"x" * 5_000])
def test_bcc_is_stripped(session: Session, channel: Any, body: bytes) -> None:
    first = publish(channel, headers(to="A", BCC=["x"], CC=["y"]), body)
    second = publish(channel, headers(to="B", BCC=["x"], CC=["y"]), body)
    bounce(session, channel, headers(to="B", CC=["y"]), body)
    session.peer.send(channel, spec.Basic.Ack(2, True))
    first.result()
    second.failure(UnroutableError)


def test_of_equal_ones_the_oldest_has_failed(session: Session, channel: Any) -> None:
    """A binding came between the two: returns are in publish order."""
    lost, routed = publish(channel, headers(to="A")), publish(channel, headers(to="A"))
    bounce(session, channel, headers(to="A"))
    session.peer.send(channel, spec.Basic.Ack(2, True))
    lost.failure(UnroutableError)
    routed.result()


def test_properties_that_a_broker_has_changed_match_by_the_rest(
    session: Session, channel: Any
) -> None:
    lost, routed = publish(channel, headers(to="A")), publish(channel, headers(to="B"))
    bounce(session, channel, headers(to="C"))
    session.peer.send(channel, spec.Basic.Ack(2, True))
    lost.failure(UnroutableError)
    routed.result()


def test_some_properties_that_can_be_sent_can_not_be_read(session: Session, channel: Any) -> None:
    """pika has no timestamps beyond the year 9999; BCC makes both be looked into."""
    odd = [pika.BasicProperties(timestamp=2**60 + n, headers={"BCC": ["x"]}) for n in range(2)]
    lost, routed = publish(channel, odd[0]), publish(channel, odd[1])
    bounce(session, channel, pika.BasicProperties(timestamp=2**60))
    session.peer.send(channel, spec.Basic.Ack(2, True))
    lost.failure(UnroutableError)
    routed.result()


def test_2000_of_one_key_and_body_every_second_unroutable(session: Session, channel: Any) -> None:
    rng = random.Random(3)
    lost = [number for number in range(2_000) if rng.random() < 0.5]
    outcomes = [publish(channel, headers(number=number)) for number in range(2_000)]
    for number in lost:
        bounce(session, channel, headers(number=number))
    session.peer.send(channel, spec.Basic.Ack(2_000, True))
    failed = [number for number, outcome in enumerate(outcomes) if outcome.error is not None]
    assert failed == lost
