"""The broker over real sockets, with a reactor, for this package and for pika."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]

PROGRAM = """
import pika
import pika_twisted
from pika_twisted.testing import Broker
from twisted.internet import defer, task, threads


def blocking(port):
    connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", port))
    channel = connection.channel()
    channel.queue_declare("work", passive=True)
    channel.confirm_delivery()
    channel.basic_publish("", "work", b"x" * 300_000)
    method, properties, body = channel.basic_get("work", auto_ack=True)
    connection.close()
    return len(body)


async def main(reactor):
    broker = Broker(reactor)
    port = await broker.listen()
    number = port.getHost().port
    url = f"amqp://guest:guest@127.0.0.1:{number}/%2F"
    connection = await pika_twisted.connect(url, reactor=reactor)
    channel = await connection.channel()
    await channel.queue_declare("work")
    print(await threads.deferToThread(blocking, number))
    broker.connections[0].freeze()
    declaring = channel.queue_declare("later")
    await task.deferLater(reactor, 0.1)
    print(declaring.called)
    broker.connections[0].thaw()
    await declaring
    broker.cut(reset=True)
    print(type(await connection.when_closed()).__name__)
    await broker.close()
    try:
        await pika_twisted.connect(url, reactor=reactor)
    except pika_twisted.ConnectionRefused:
        print("refused")
    print(reactor.getDelayedCalls())


task.react(lambda reactor: defer.ensureDeferred(main(reactor)))
"""


def test_over_sockets() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout.split("\n")[:5] == ["300000", "False", "StreamLostError", "refused", "[]"], (
        done.stdout + done.stderr
    )
