"""py-amqp, the library under Celery: blocking calls and callbacks."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote, urlsplit

import amqp

from benchmarks import wire
from benchmarks.clients import checks
from benchmarks.peer_channel import PUBLISHED, UNACKED
from benchmarks.spec import Spec, Stopwatch, Unsupported


def run(spec: Spec) -> dict[str, Any]:
    """Connect, warm up, measure."""
    work = {"consume": consume, "publish": publish, "ack": acknowledge}.get(spec.case)
    if work is None or spec.style != "await" or spec.channels != 1 or spec.ack == "group":
        raise Unsupported("py-amqp has one way to consume, measured on one channel")
    if spec.confirm:
        raise Unsupported("py-amqp waits for the confirm of each message before the next publish")
    url = urlsplit(spec.url)
    connection = amqp.Connection(
        f"{url.hostname}:{url.port or 5672}",
        url.username,
        url.password,
        virtual_host=unquote(url.path[1:]) or "/",
    )
    connection.connect()
    try:
        if spec.warmup:
            work(connection, spec, spec.warmup_queue, spec.warmup)
        return work(connection, spec, spec.queue, spec.messages).result(spec.messages)
    finally:
        connection.close()


def consume(connection: Any, spec: Spec, queue_name: str, messages: int) -> Stopwatch:
    """Consume `messages` messages in a callback."""
    channel = connection.channel()
    channel.basic_qos(0, spec.prefetch, False)
    tag, left, each = 0, messages, spec.ack == "each"

    def on_message(message: Any) -> None:
        nonlocal tag, left
        tag = message.delivery_tag
        if each:
            channel.basic_ack(tag)
        left -= 1

    watch = Stopwatch()
    watch.start()
    channel.basic_consume(queue_name, callback=on_message, no_ack=not each)
    while left:
        connection.drain_events()
    channel.basic_qos(0, spec.prefetch, False)
    watch.stop()
    checks.last_tag(spec, tag, messages)
    if each:
        check_acks(channel, spec)
    channel.close()
    return watch


def check_acks(channel: Any, spec: Spec) -> None:
    """Ask the peer for its books of acks."""
    if spec.live:
        return
    books = channel.queue_declare(UNACKED, passive=True)
    checks.all_acked(spec, books.message_count, books.consumer_count)


def acknowledge(connection: Any, spec: Spec, queue_name: str, messages: int) -> Stopwatch:
    """Consume without acks, then ack one by one."""
    channel = connection.channel()
    tags: list[int] = []
    channel.basic_consume(queue_name, callback=lambda message: tags.append(message.delivery_tag))
    while len(tags) < messages:
        connection.drain_events()
    watch = Stopwatch()
    watch.start()
    for tag in tags:
        channel.basic_ack(tag)
    channel.basic_qos(0, 0, False)
    watch.stop()
    check_acks(channel, spec)
    channel.close()
    return watch


def publish(connection: Any, spec: Spec, queue_name: str, messages: int) -> Stopwatch:
    """Publish without confirms."""
    channel = connection.channel()
    message = make_message(spec)
    watch = Stopwatch()
    watch.start()
    for _ in range(messages):
        channel.basic_publish(message, routing_key=queue_name)
    channel.basic_qos(0, 0, False)
    watch.stop()
    if not spec.live and messages == spec.messages:
        books = channel.queue_declare(PUBLISHED, passive=True)
        checks.all_published(spec, books.message_count, books.consumer_count)
    channel.close()
    return watch


def make_message(spec: Spec) -> amqp.Message:
    """Return the message to publish."""
    body = wire.make_body(spec.size)
    if spec.properties == "none":
        return amqp.Message(body)
    usual = wire.make_properties(spec.properties)
    return amqp.Message(
        body,
        content_type=usual.content_type,
        delivery_mode=usual.delivery_mode,
        message_id=usual.message_id,
        timestamp=usual.timestamp,
        application_headers=usual.headers,
    )
