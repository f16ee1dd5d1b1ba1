"""Encoding methods: what can't be sent fails at the call, and the argument is named."""

from __future__ import annotations

import re

from pika import spec

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
