"""The loops of a consumer on Twisted, one for each way to write it.

None does more than its user has to. Each takes (queue, channel, messages) and returns the last
delivery tag. The loops are written out instead of sharing one with a branch in it: at half a
microsecond per message a test of a flag would be seen.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import Any

from twisted.internet import defer

from benchmarks.spec import ACK_GROUP, BATCH

Loop = Callable[[Any, Any, int], Awaitable[int]]


async def await_auto(queue: Any, channel: Any, messages: int) -> int:
    for _ in range(messages):
        message = await queue.get()
    return int(message.method.delivery_tag)


async def await_each(queue: Any, channel: Any, messages: int) -> int:
    for _ in range(messages):
        message = await queue.get()
        channel.basic_ack(message.method.delivery_tag)
    return int(message.method.delivery_tag)


async def await_group(queue: Any, channel: Any, messages: int) -> int:
    for count in range(1, messages + 1):
        message = await queue.get()
        if not count % ACK_GROUP:
            channel.basic_ack(message.method.delivery_tag, multiple=True)
    if messages % ACK_GROUP:
        channel.basic_ack(message.method.delivery_tag, multiple=True)
    return int(message.method.delivery_tag)


@defer.inlineCallbacks
def inline_auto(
    queue: Any, channel: Any, messages: int
) -> Generator[defer.Deferred[Any], Any, int]:
    for _ in range(messages):
        message = yield queue.get()
    return int(message.method.delivery_tag)


@defer.inlineCallbacks
def inline_each(
    queue: Any, channel: Any, messages: int
) -> Generator[defer.Deferred[Any], Any, int]:
    for _ in range(messages):
        message = yield queue.get()
        channel.basic_ack(message.method.delivery_tag)
    return int(message.method.delivery_tag)


async def for_auto(queue: Any, channel: Any, messages: int) -> int:
    async for message in queue:  # noqa: B007 (used after the loop)
        messages -= 1
        if not messages:
            break
    return int(message.method.delivery_tag)


async def for_each(queue: Any, channel: Any, messages: int) -> int:
    async for message in queue:
        channel.basic_ack(message.method.delivery_tag)
        messages -= 1
        if not messages:
            break
    return int(message.method.delivery_tag)


async def many_auto(queue: Any, channel: Any, messages: int) -> int:
    while messages:
        batch = await queue.get_many(BATCH)
        for _message in batch:
            pass
        messages -= len(batch)
    return int(batch[-1].method.delivery_tag)


async def many_each(queue: Any, channel: Any, messages: int) -> int:
    while messages:
        batch = await queue.get_many(BATCH)
        for message in batch:
            channel.basic_ack(message.method.delivery_tag)
        messages -= len(batch)
    return int(batch[-1].method.delivery_tag)


async def many_group(queue: Any, channel: Any, messages: int) -> int:
    while messages:
        batch = await queue.get_many(ACK_GROUP)
        channel.basic_ack(batch[-1].method.delivery_tag, multiple=True)
        messages -= len(batch)
    return int(batch[-1].method.delivery_tag)


def read_fields(message: Any) -> None:
    """Touch every field of a delivery."""
    method, properties, _body = message.method, message.properties, message.body
    method.consumer_tag
    method.delivery_tag
    method.redelivered
    method.exchange
    method.routing_key
    properties.content_type
    properties.content_encoding
    properties.headers
    properties.delivery_mode
    properties.priority
    properties.correlation_id
    properties.reply_to
    properties.expiration
    properties.message_id
    properties.timestamp
    properties.type
    properties.user_id
    properties.app_id
    properties.cluster_id


async def fields_auto(queue: Any, channel: Any, messages: int) -> int:
    for _ in range(messages):
        message = await queue.get()
        read_fields(message)
    return int(message.method.delivery_tag)


async def fields_each(queue: Any, channel: Any, messages: int) -> int:
    for _ in range(messages):
        message = await queue.get()
        read_fields(message)
        channel.basic_ack(message.method.delivery_tag)
    return int(message.method.delivery_tag)


LOOPS: dict[tuple[str, str], Loop] = {
    ("await", "auto"): await_auto,
    ("await", "each"): await_each,
    ("await", "group"): await_group,
    ("await", "batched"): await_each,
    ("await", "delayed"): await_each,
    ("inline", "auto"): inline_auto,
    ("inline", "each"): inline_each,
    ("for", "auto"): for_auto,
    ("for", "each"): for_each,
    ("many", "auto"): many_auto,
    ("many", "each"): many_each,
    ("many", "group"): many_group,
    ("fields", "auto"): fields_auto,
    ("fields", "each"): fields_each,
}
