"""Messages of one key in order, while several processes share the work.

    python examples/ordered.py            a worker; start as many as you like
    python examples/ordered.py publish    1,000 messages for 50 keys

A key always goes to the same one of 8 queues, and of each queue's consumers only one is active: it
gets every message, one at a time. When its process goes away RabbitMQ activates another worker's.
(The rabbitmq_consistent_hash_exchange plugin can choose the queue instead of `partition_of()`.)
"""

from __future__ import annotations

import os
import sys
import zlib
from typing import Any

from twisted.internet import defer, task

from pika_twisted import RecoveringService

URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/").split()
NAME = os.environ.get("QUEUE", "ordered")
PARTITIONS = 8


def partition_of(key: str) -> str:
    """The queue of a key; the same in every process and on every day."""
    return f"{NAME}-{zlib.crc32(key.encode()) % PARTITIONS}"


async def declare(channel: Any) -> None:
    """One queue for each partition."""
    for number in range(PARTITIONS):
        await channel.queue_declare(
            f"{NAME}-{number}", durable=True, arguments={"x-single-active-consumer": True}
        )


async def handle(message: Any) -> None:
    """One message; the next of this partition comes when it is done, also when it failed."""
    print(message.body.decode(), flush=True)


async def worker(reactor: Any, service: RecoveringService) -> None:
    """Stand by for every partition; RabbitMQ decides which are ours."""
    for number in range(PARTITIONS):
        await service.consume(f"{NAME}-{number}", handle, concurrency=1, prefetch_count=100)
    await defer.Deferred()  # until the reactor stops


async def publish(reactor: Any, service: RecoveringService) -> None:
    """Publishes, each confirmed."""
    publisher = service.publisher(when_lost="resend")
    for number in range(1000):
        key = f"key{number % 50}"
        await publisher.publish("", partition_of(key), f"{key} {number}")
    await service.stopService()


async def main(reactor: Any) -> None:
    """The service, and what it is for."""
    service = RecoveringService(URL, setup=declare, call_timeout=None, reactor=reactor)
    service.startService()
    await service.when_ready()
    await (publish if sys.argv[1:] == ["publish"] else worker)(reactor, service)


if __name__ == "__main__":
    task.react(lambda reactor: defer.ensureDeferred(main(reactor)))
