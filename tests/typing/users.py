"""What a user's checker infers. Never run: mypy and pyright compare each `assert_type`."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pika
import pika.exceptions
from pika import frame, spec
from twisted.internet import defer, error
from typing_extensions import assert_type

from pika_twisted import (
    ClosableDeferredQueue,
    Handling,
    ReceivedMessage,
    TwistedChannel,
    TwistedProtocolConnection,
    connect,
    consume,
)
from pika_twisted.exceptions import Reason


async def connecting() -> None:
    connection = await connect("amqps://user:password@host/vhost")
    assert_type(connection, TwistedProtocolConnection)
    async with connect() as other:
        assert_type(other, TwistedProtocolConnection)
    await connect(tls=True, close_timeout=5, water_marks=None, credentials=lambda: "token")
    # Errors of both checkers, as an unused "ignore" is one: a typo, a wrong type.
    await connect(bufer_size=1)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    await connect(buffer_size="1")  # type: ignore[call-overload]  # pyright: ignore
    await connect(protocol=TwistedProtocolConnection, anything=1)
    own = TwistedProtocolConnection(pika.ConnectionParameters(heartbeat=30))
    assert_type(await own.when_ready(), TwistedProtocolConnection)
    assert_type(await own.channel(), TwistedChannel)
    assert_type(await own.drained(), None)
    assert_type(own.is_blocked, bool)
    assert_type(await own.close(), Reason)
    why = await own.when_closed()
    assert_type(why, Reason)
    assert_type(why.reply_code, int)
    if isinstance(why, pika.exceptions.ConnectionClosed):
        assert_type(why.reply_text, str)
    if isinstance(why, error.ConnectionDone):
        assert_type(why.reply_text, str)
    elif isinstance(why, pika.exceptions.AMQPHeartbeatTimeout):
        raise why


async def consuming(channel: TwistedChannel) -> None:
    queue, consumer_tag = await channel.basic_consume("jobs", auto_ack=False)
    assert_type(queue, ClosableDeferredQueue)
    assert_type(consumer_tag, str)
    message = await queue.get()
    assert_type(message, ReceivedMessage[spec.Basic.Deliver])
    assert_type(message.body, bytes)
    assert_type(message.properties, spec.BasicProperties)
    assert_type(message.method, spec.Basic.Deliver)
    assert_type(message.channel, TwistedChannel)
    assert_type(message.redelivered, bool)
    assert_type(message.ack(), None)
    async for each in queue:
        assert_type(each, ReceivedMessage[spec.Basic.Deliver])
        channel.basic_ack(each.method.delivery_tag)
    assert_type(await queue.get_many(10), list[ReceivedMessage[spec.Basic.Deliver]])
    _, method, _, body = message
    assert_type(body, bytes)
    assert_type(method, spec.Basic.Deliver)
    canceled = await channel.basic_cancel(consumer_tag)
    assert_type(canceled.method, spec.Basic.CancelOk)


async def asking(channel: TwistedChannel) -> None:
    declared = await channel.queue_declare("", exclusive=True)
    assert_type(declared, frame.Method[spec.Queue.DeclareOk])
    assert_type(declared.method, spec.Queue.DeclareOk)
    assert_type((await channel.queue_purge("jobs")).method, spec.Queue.PurgeOk)
    assert_type((await channel.exchange_declare("orders")).method, spec.Exchange.DeclareOk)
    assert_type((await channel.basic_qos(prefetch_count=10)).method, spec.Basic.QosOk)
    assert_type((await channel.confirm_delivery()).method, spec.Confirm.SelectOk)
    assert_type((await channel.tx_select()).method, spec.Tx.SelectOk)
    assert_type(await channel.flow(True), bool)
    got = await channel.basic_get("jobs")
    assert_type(got, "ReceivedMessage[spec.Basic.GetOk] | None")
    if got is not None:
        assert_type(got.method, spec.Basic.GetOk)


def returned(message: ReceivedMessage[spec.Basic.Return]) -> None:
    assert_type(message.method, spec.Basic.Return)


async def handling(channel: TwistedChannel) -> None:
    async def handler(message: ReceivedMessage) -> None:
        assert_type(message.body, bytes)

    channel.add_on_return_callback(returned)
    working = await consume(channel, "jobs", handler, concurrency=4)
    assert_type(working, Handling)
    assert_type(await working.stop(deadline=10), None)


@defer.inlineCallbacks
def generators(channel: TwistedChannel) -> Generator[defer.Deferred[Any], Any, bytes]:
    # `yield` gives whatever the Deferred had: no checker knows more.
    message: ReceivedMessage = yield ClosableDeferredQueue().get()
    return message.body


def mistakes(connection: TwistedProtocolConnection, channel: TwistedChannel) -> None:
    channel.queue_declare(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    channel.basic_ack("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    connection.channel("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
