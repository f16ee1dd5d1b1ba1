"""Publishing: confirms, returns, refusals by the queue, transactions, flow."""

from __future__ import annotations

from typing import Any

import pika
from pika.exceptions import ChannelClosedByBroker, NackError, UnroutableError
from twisted.internet import defer

from tests.broker.env import Env, check, equal
from tests.broker.registry import scenario


async def outcomes(env: Env, deferreds: list[Any], timeout: float = 30) -> list[Any]:
    """What each Deferred ended with: None for a confirm, else the exception."""
    results = await env.within(
        timeout, defer.DeferredList(deferreds, consumeErrors=True), "every publish settled"
    )
    return [None if success else result.value for success, result in results]


@scenario(
    timeout=60,
    variants={
        "alternating": {"routable": lambda number: number % 2 == 0},
        "halves": {"routable": lambda number: number < 1500},
        "same_body": {"routable": lambda number: number % 2 == 0, "body": b"the same"},
    },
)
async def mandatory_burst(env: Env, routable: Any, body: bytes | None = None) -> None:
    """3,000 mandatory publishes in one burst, half unroutable: each told its own fate (D01)."""
    total = 3000
    _, channel = await env.open()
    queue = env.name()
    await channel.queue_declare(queue, durable=True)
    await channel.confirm_delivery()
    publishes = []
    for number in range(total):
        key = queue if routable(number) else "nowhere-" + queue
        text = body or b"%d" % number
        publishes.append(channel.basic_publish("", key, text, mandatory=True))
    results = await outcomes(env, publishes)
    confirmed_wrongly = unroutable_wrongly = 0
    for number, result in enumerate(results):
        if routable(number):
            unroutable_wrongly += result is not None
        else:
            confirmed_wrongly += not isinstance(result, UnroutableError)
            if isinstance(result, UnroutableError) and body is None:
                [returned] = result.messages
                equal(returned.body, b"%d" % number, "the returned message")
                equal(returned.method.reply_code, 312, "its code")
    equal((confirmed_wrongly, unroutable_wrongly), (0, 0), "wrongly (confirmed, unroutable)")
    bodies = [taken for _, _, taken in await env.take_all(queue)]
    equal(len(bodies), total // 2, "messages that arrived")


@scenario(timeout=60, variants={"plain": {}, "cc_and_bcc": {"CC": ["b"], "BCC": ["c"]}})
async def returns_by_headers(env: Env, **more: Any) -> None:
    """2,000 publishes of one key and body to a headers exchange, every second one unroutable.

    Half way the binding changes: then it is the other half that is unroutable.
    """
    _, channel = await env.open()
    exchange = "returns-" + env.name()
    queue = env.name()
    await channel.exchange_declare(exchange, "headers", auto_delete=True)
    await channel.queue_declare(queue, exclusive=True)
    await channel.queue_bind(queue, exchange, "", {"to": 0, "x-match": "all"})
    await channel.confirm_delivery()

    def publish(number: int) -> Any:
        properties = pika.BasicProperties(headers={"to": number % 2, "n": number, **more})
        return channel.basic_publish(exchange, "k", b"the same", properties, mandatory=True)

    for routed in (0, 1):
        results = await outcomes(env, [publish(number) for number in range(2_000)])
        for number, result in enumerate(results):
            equal(isinstance(result, UnroutableError), number % 2 != routed, f"{number} returned")
            if isinstance(result, UnroutableError):
                equal(result.messages[0].properties.headers["n"], number, "the returned message")
        await channel.queue_bind(queue, exchange, "", {"to": 1, "x-match": "all"})
        await channel.queue_unbind(queue, exchange, "", {"to": 0, "x-match": "all"})


@scenario(timeout=60)
async def confirms_of_persistent_messages(env: Env) -> None:
    """10,000 persistent publishes to a quorum queue: every confirm comes, every message too."""
    total = 10_000
    _, channel = await env.open()
    queue = env.name()
    await channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum"})
    await channel.confirm_delivery()
    persistent = pika.BasicProperties(delivery_mode=2)
    publishes = [
        channel.basic_publish("", queue, b"%d" % number, persistent) for number in range(total)
    ]
    equal(await outcomes(env, publishes), [None] * total, "outcomes")
    await env.settled(queue, total)


@scenario()
async def nacked_publishes(env: Env) -> None:
    """A full queue that rejects publishes nacks those and confirms the others."""
    _, channel = await env.open()
    queue = env.name()
    arguments = {"x-max-length": 5, "x-overflow": "reject-publish"}
    await channel.queue_declare(queue, arguments=arguments, durable=True)
    await channel.confirm_delivery()
    for number in range(8):
        [result] = await outcomes(env, [channel.basic_publish("", queue, b"%d" % number)])
        if number < 5:
            equal(result, None, f"publish {number}")
        else:
            check(isinstance(result, NackError), f"publish {number}: {result!r}")
    await env.settled(queue, 5)


@scenario()
async def publishes_around_confirm_select(env: Env) -> None:
    """Publishes before, between Select and SelectOk, and after: each settles as it should (D02)."""
    _, channel = await env.open()
    queue = env.name()
    await channel.queue_declare(queue, durable=True)
    before = channel.basic_publish("", queue, b"before")
    selecting = channel.confirm_delivery()
    between = [channel.basic_publish("", queue, b"between %d" % number) for number in range(5)]
    await selecting
    again = channel.confirm_delivery()
    after = [
        channel.basic_publish("", key, b"after", mandatory=True)
        for key in (queue, "nowhere-" + queue, queue)
    ]
    await again
    equal(await outcomes(env, [before, *between]), [None] * 6, "before and between")
    first, second, third = await outcomes(env, after, 5)
    equal((first, third), (None, None), "the routable ones")
    check(isinstance(second, UnroutableError), repr(second))
    await env.settled(queue, 8)


@scenario()
async def returns_without_confirms(env: Env) -> None:
    """Unroutable mandatory messages reach the return callbacks, whole and in order."""
    _, channel = await env.open()
    returned: list[Any] = []
    channel.add_on_return_callback(returned.append)
    properties = pika.BasicProperties(message_id="m", headers={"a": [1, "x", None]})
    for number in range(20):
        channel.basic_publish("", "nowhere", b"%d" % number, properties, mandatory=True)
    await env.until(lambda: len(returned) == 20, "all came back")
    for number, message in enumerate(returned):
        equal(message.body, b"%d" % number, "body")
        equal(message.properties, properties, "properties")
        check(message.channel is channel, "the message names the TwistedChannel")
        check(isinstance(message.method, pika.spec.Basic.Return), repr(message.method))
        equal(message.method.reply_code, 312, "code")


@scenario()
async def return_from_before_confirms(env: Env) -> None:
    """The return of a publish from before confirms is blamed on nobody (D03)."""
    _, channel = await env.open()
    queue = env.name()
    await channel.queue_declare(queue, durable=True)
    returned: list[Any] = []
    channel.add_on_return_callback(returned.append)
    channel.basic_publish("", "nowhere", b"early", mandatory=True)
    await channel.confirm_delivery()
    [result] = await outcomes(env, [channel.basic_publish("", queue, b"late", mandatory=True)])
    equal(result, None, "the publish after")
    equal([message.body for message in returned], [b"early"], "returned")


@scenario()
async def publish_to_a_missing_exchange(env: Env) -> None:
    """404 closes the channel: every outstanding confirm fails with it, the connection lives."""
    connection, channel = await env.open()
    queue = env.name()
    await channel.queue_declare(queue, durable=True)
    await channel.confirm_delivery()
    publishes = [channel.basic_publish("", queue, b"x") for _ in range(10)]
    publishes += [channel.basic_publish("no-such-exchange", "", b"x") for _ in range(10)]
    results = await outcomes(env, publishes)
    for result in results[10:]:
        check(isinstance(result, ChannelClosedByBroker), repr(result))
        equal(result.reply_code, 404, "code")
    check(channel.is_closed, "the channel is closed")
    [late] = await outcomes(env, [defer.maybeDeferred(channel.basic_publish, "", queue, b"x")])
    check(isinstance(late, pika.exceptions.AMQPError), repr(late))
    check(connection.is_open, "the connection lives")
    await connection.channel()


@scenario()
async def transactions(env: Env) -> None:
    """Publishes and acks take effect at commit, and not at rollback."""
    connection, channel = await env.open()
    queue = env.name()
    await channel.queue_declare(queue, durable=True)
    check(isinstance((await channel.tx_select()).method, pika.spec.Tx.SelectOk), "SelectOk")
    channel.basic_publish("", queue, b"rolled back")
    check(isinstance((await channel.tx_rollback()).method, pika.spec.Tx.RollbackOk), "RollbackOk")
    for number in range(3):
        channel.basic_publish("", queue, b"%d" % number)
    equal(await env.count(queue), 0, "before the commit")
    check(isinstance((await channel.tx_commit()).method, pika.spec.Tx.CommitOk), "CommitOk")
    await env.settled(queue, 3)
    message = await channel.basic_get(queue)
    channel.basic_ack(message.method.delivery_tag)
    await channel.tx_rollback()  # the ack is undone, the message stays unacknowledged
    await env.close_channel(channel)
    await env.settled(queue, 3)
    plain = await connection.channel()
    error: Any = await env.failure(plain.tx_commit())
    equal(error.reply_code, 406, "commit without select")


@scenario()
async def flow_is_answered(env: Env) -> None:
    """flow(True) fires with the state; two in flight both fire (D14)."""
    _, channel = await env.open()
    equal(await channel.flow(True), True, "flow")
    equal(await channel.flow(True), True, "flow again")
    if env.is_ours:
        both = [channel.flow(True), channel.flow(True)]
        equal(await env.within(5, defer.gatherResults(both), "two in flight"), [True, True], "both")


@scenario(interface="ours")
async def refused_before_it_is_sent(env: Env) -> None:
    """What RabbitMQ answers by closing the connection with 540 fails at the call (D55)."""
    connection, channel = await env.open()
    refused = {
        "basic_recover()": channel.basic_recover,
        "flow(False)": lambda: channel.flow(False),
        "prefetch_size": lambda: channel.basic_qos(prefetch_size=1000),
    }
    for what, call in refused.items():
        error = await env.failure(call())
        check(isinstance(error, pika.exceptions.MethodNotImplemented), f"{what}: {error!r}")
    check(channel.is_open and connection.is_open, "nothing was closed")
    await channel.basic_qos(prefetch_count=5)


@scenario()
async def expiring_and_prioritised(env: Env) -> None:
    """Message properties that the broker acts on: expiration, priority, user_id, timestamp."""
    _, channel = await env.open()
    queue = env.name()
    await channel.queue_declare(queue, durable=True, arguments={"x-max-priority": 10})
    for priority in (1, 9, 5):
        properties = pika.BasicProperties(
            priority=priority, user_id=env.broker.user, timestamp=1_700_000_000 + priority
        )
        channel.basic_publish("", queue, b"%d" % priority, properties)
    await env.settled(queue, 3)
    found = [await channel.basic_get(queue, auto_ack=True) for _ in range(3)]
    equal([message.body for message in found], [b"9", b"5", b"1"], "highest priority first")
    equal([message.properties.timestamp for message in found], [1700000009, 1700000005, 1700000001],
          "timestamps")  # fmt: skip
    equal({message.properties.user_id for message in found}, {env.broker.user}, "user_id")
    channel.basic_publish("", queue, b"expires", pika.BasicProperties(expiration="20"))
    await env.settled(queue, 0)
