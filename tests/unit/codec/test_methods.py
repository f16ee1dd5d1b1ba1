"""Encoding methods: what can't be sent fails at the call, and the argument is named."""

from __future__ import annotations

import re

import pytest
from pika import exceptions, spec

from tests.support.outcome import call
from tests.support.session import Session


def test_what_is_longer_than_the_brokers_frame_max_is_refused_at_the_call(session: Session) -> None:
    """RabbitMQ closes the connection, 501 FRAME_ERROR, with all that is on it."""
    limit = spec.FRAME_MIN_SIZE  # 4,096 of AMQP; 8,192 since pika 1.5
    session.open(frame_max=limit)
    channel = session.channel()
    session.confirms(channel)
    session.peer.forget()
    properties = spec.BasicProperties(headers={"trace": "x" * limit})
    text = f"frame of ([45]|[89])[0-9]{{3}} octets, frame_max is {limit}"
    for refused in (
        call(channel.basic_publish, "", "q", b"body", properties),
        call(channel.queue_declare, "q", arguments={"x": "x" * limit}),
        call(session.protocol.update_secret, "token" * (limit // 5), "expiry"),
    ):
        assert re.search(text, str(refused.failure(ValueError)))
    session.peer.expect_none()
    session.publish(channel, b"body")
    assert session.peer.published_body(b"body").tag == 1


def test_the_argument_that_can_t_be_encoded_is_named(session: Session) -> None:
    channel = session.channel()
    why = call(channel.queue_declare, "q", arguments=[1]).failure(TypeError)
    assert "arguments=[1]" in str(why)
    session.peer.expect_none()
    assert channel.is_open


def test_a_value_that_amqp_has_no_field_for_is_named(session: Session) -> None:
    channel = session.channel()
    why = call(channel.queue_declare, "q", arguments={"x": object()}).failure(TypeError)
    assert str(why).startswith("Queue.Declare: can't encode arguments={'x': <object ")
    assert str(why).endswith(": values of object can't be sent")
    assert isinstance(why, exceptions.UnsupportedAMQPFieldException)
    session.peer.expect_none()
    assert channel.is_open


@pytest.mark.parametrize("length", [256, 70_000])
def test_a_name_that_is_too_long_is_named(session: Session, length: int) -> None:
    channel = session.channel()
    why = call(channel.queue_bind, "q", "e", "\xfc" * (length // 2)).failure()
    assert type(why) is exceptions.ShortStringTooLong
    octets = f"a string of {length} octets, 255 is the limit"
    assert str(why) == f"Queue.Bind: routing_key: {octets}"
    why = call(channel.queue_declare, "q", arguments={"\xfc" * (length // 2): 1}).failure()
    assert str(why) == f"Queue.Declare: arguments: {octets}"
    why = call(channel.exchange_bind, "x" * length, "x" * length).failure()
    assert str(why) == f"Exchange.Bind: its arguments: {octets}"
    session.peer.expect_none()
    assert channel.is_open


def test_two_arguments_that_can_t_be_encoded(session: Session) -> None:
    channel = session.channel()
    wrong = call(channel.exchange_bind, "to", "from", routing_key=5, arguments=[1])
    assert "its arguments" in str(wrong.failure(TypeError))
    session.peer.expect_none()
