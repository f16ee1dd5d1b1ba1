"""Acks of messages that a lost connection delivered: they do nothing, by whichever method."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from twisted.internet import task

import pika_twisted
from pika_twisted.testing import Broker

WAYS = {
    "basic_ack": lambda channel, message: channel.basic_ack(message.method.delivery_tag),
    "basic_ack multiple": lambda channel, message: channel.basic_ack(
        message.method.delivery_tag, multiple=True
    ),
    "basic_nack": lambda channel, message: channel.basic_nack(message.method.delivery_tag),
    "basic_reject": lambda channel, message: channel.basic_reject(message.method.delivery_tag),
    "ack": lambda _channel, message: message.ack(),
    "nack": lambda _channel, message: message.nack(),
    "reject": lambda _channel, message: message.reject(),
}


@pytest.mark.parametrize("settled_before", [False, True], ids=["first", "after message.ack()"])
@pytest.mark.parametrize("way", WAYS)
def test_late_acks_are_silent(
    way: str, settled_before: bool, caplog: pytest.LogCaptureFixture
) -> None:
    broker = Broker()
    service = pika_twisted.RecoveringService(broker.endpoint(), reactor=broker.reactor)

    async def work() -> None:
        service.startService()
        channel = service.channel()
        await channel.queue_declare("work", durable=True)
        for body in (b"1", b"2"):
            await channel.basic_publish("", "work", body)
        queue, _tag = await channel.basic_consume("work")
        first, second = await queue.get(), await queue.get()
        if settled_before:
            first.ack()
        await task.deferLater(broker.reactor, 0.1)
        old: Any = second.channel
        broker.cut()
        await task.deferLater(broker.reactor, 0.1)
        WAYS[way](old, second)
        await service.when_ready()
        WAYS[way](old, second)
        again = await queue.get()
        while again.body != b"2":
            again.ack()
            again = await queue.get()
        again.ack()
        await task.deferLater(broker.reactor, 0.1)
        assert [each.message.body for each in broker.settled if each.outcome == "acked"][-1] == b"2"
        await service.stopService()

    with caplog.at_level(logging.ERROR):
        broker.run(work())
    assert not [each for each in caplog.records if each.levelno >= logging.ERROR]
    assert not broker.queue("work").messages
