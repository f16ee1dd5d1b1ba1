"""An AMQP 0-9-1 broker in this process, with RabbitMQ's answers, to test programs with.

For example::

    broker = Broker()                       # with a clock of its own

    async def work():
        connection = await broker.connect()
        channel = await connection.channel()
        await channel.queue_declare("work", durable=True)
        await channel.basic_publish("", "work", b"hello")
        assert [message.body for message in broker.queue("work").messages] == [b"hello"]

    broker.run(work())

Nothing else of the package imports this.
"""

from __future__ import annotations

from pika_twisted.testing.broker import Broker
from pika_twisted.testing.channel import ServerChannel
from pika_twisted.testing.clock import Clock
from pika_twisted.testing.message import Message, QueuedMessage
from pika_twisted.testing.queue import Queue
from pika_twisted.testing.records import Dropped, Published, Settled
from pika_twisted.testing.session import ServerConnection
from pika_twisted.testing.trial import BrokerMixin

__all__ = [
    "Broker",
    "BrokerMixin",
    "Clock",
    "Dropped",
    "Message",
    "Published",
    "Queue",
    "QueuedMessage",
    "ServerChannel",
    "ServerConnection",
    "Settled",
]
