"""The broker seen through a second client, pika's blocking one: what really arrived there."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pika

from tests.broker.broker import Broker


@contextmanager
def _channel(broker: Broker) -> Iterator[Any]:
    connection = pika.BlockingConnection(pika.URLParameters(broker.url(heartbeat=0)))
    try:
        yield connection.channel()
    finally:
        if connection.is_open:
            connection.close()


@functools.cache
def version(broker: Broker) -> str:
    """RabbitMQ's version, as the broker says it."""
    with _channel(broker) as channel:
        return str(channel.connection._impl.server_properties["version"])


def count(broker: Broker, queue: str) -> int:
    """Messages ready in the queue."""
    with _channel(broker) as channel:
        return int(channel.queue_declare(queue, passive=True).method.message_count)


def take_all(broker: Broker, queue: str) -> list[Any]:
    """Empty the queue: (method, properties, body) each, in order."""
    taken = []
    with _channel(broker) as channel:
        while (message := channel.basic_get(queue, auto_ack=True))[0] is not None:
            taken.append(message)
    return taken


def delete(broker: Broker, names: list[tuple[str, str]]) -> None:
    """Delete queues and exchanges; those that do not exist count as deleted (as RabbitMQ does)."""
    with _channel(broker) as channel:
        for kind, name in names:
            if kind == "queue":
                channel.queue_delete(name)
            else:
                channel.exchange_delete(name)


def publish_raw(broker: Broker, queue: str, body: bytes, properties: pika.BasicProperties) -> bool:
    """Publish what the broker may refuse by closing the connection; True when it was taken."""
    connection = pika.BlockingConnection(pika.URLParameters(broker.url(heartbeat=0)))
    try:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.basic_publish("", queue, body, properties)
        return True
    except pika.exceptions.AMQPError:
        return False
    finally:
        if connection.is_open:
            connection.close()
