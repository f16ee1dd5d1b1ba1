"""amqpstorm: blocking calls over a reader thread."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any
from urllib.parse import unquote, urlsplit

import amqpstorm

from benchmarks import wire
from benchmarks.clients import checks
from benchmarks.peer_channel import PUBLISHED, UNACKED
from benchmarks.spec import Spec, Stopwatch, Unsupported


def run(spec: Spec) -> dict[str, Any]:
    """Connect, warm up, measure."""
    work = {"consume": consume, "publish": publish, "ack": acknowledge}.get(spec.case)
    if work is None or spec.style != "await" or spec.channels != 1 or spec.ack == "group":
        raise Unsupported("amqpstorm has one way to consume, measured on one channel")
    if spec.confirm:
        raise Unsupported("amqpstorm waits for the confirm of each message before the next publish")
    url = urlsplit(spec.url)
    connection = amqpstorm.Connection(
        url.hostname,
        url.username,
        url.password,
        port=url.port or 5672,
        virtual_host=unquote(url.path[1:]) or "/",
    )
    try:
        if spec.warmup:
            work(connection, spec, spec.warmup_queue, spec.warmup)
        return work(connection, spec, spec.queue, spec.messages).result(spec.messages)
    finally:
        connection.close()


def consume(connection: Any, spec: Spec, queue_name: str, messages: int) -> Stopwatch:
    """Consume `messages` messages with the library's generator."""
    channel = connection.channel()
    channel.basic.qos(prefetch_count=spec.prefetch)
    watch, left, each = Stopwatch(), messages, spec.ack == "each"
    watch.start()
    channel.basic.consume(queue=queue_name, no_ack=not each)
    for message in channel.build_inbound_messages():
        if each:
            message.ack()
        left -= 1
        if not left:
            break
    channel.basic.qos(prefetch_count=spec.prefetch)
    watch.stop()
    checks.last_tag(spec, message.delivery_tag, messages)
    if each:
        check_acks(channel, spec)
    channel.close()
    return watch


def check_acks(channel: Any, spec: Spec) -> None:
    """Ask the peer for its books of acks."""
    if spec.live:
        return
    books = channel.queue.declare(UNACKED, passive=True)
    checks.all_acked(spec, books["message_count"], books["consumer_count"])


def acknowledge(connection: Any, spec: Spec, queue_name: str, messages: int) -> Stopwatch:
    """Consume without acks, then ack one by one."""
    channel = connection.channel()
    channel.basic.consume(queue=queue_name)
    tags: list[int] = []
    for message in channel.build_inbound_messages():
        tags.append(message.delivery_tag)
        if len(tags) == messages:
            break
    watch = Stopwatch()
    watch.start()
    for tag in tags:
        channel.basic.ack(tag)
    channel.basic.qos(prefetch_count=0)
    watch.stop()
    check_acks(channel, spec)
    channel.close()
    return watch


def publish(connection: Any, spec: Spec, queue_name: str, messages: int) -> Stopwatch:
    """Publish without confirms."""
    channel = connection.channel()
    body = wire.make_body(spec.size)
    properties = make_properties(spec)
    watch = Stopwatch()
    watch.start()
    for _ in range(messages):
        channel.basic.publish(body, queue_name, properties=properties)
    channel.basic.qos(prefetch_count=0)
    watch.stop()
    if not spec.live and messages == spec.messages:
        books = channel.queue.declare(PUBLISHED, passive=True)
        checks.all_published(spec, books["message_count"], books["consumer_count"])
    channel.close()
    return watch


def make_properties(spec: Spec) -> dict[str, Any] | None:
    """Return the properties to publish with."""
    if spec.properties == "none":
        return None
    usual = wire.make_properties(spec.properties)
    names = ("content_type", "delivery_mode", "message_id", "headers")
    properties = {name: getattr(usual, name) for name in names}
    properties["timestamp"] = datetime.fromtimestamp(usual.timestamp, timezone.utc)
    return properties
