"""What the broker refuses: logins, virtual hosts, permissions, and mistakes on a channel."""

from __future__ import annotations

from typing import Any

import pika
from pika.exceptions import (
    AMQPConnectionError,
    ChannelClosedByBroker,
    ChannelWrongStateError,
    ProbableAccessDeniedError,
    ProbableAuthenticationError,
)
from twisted.internet import defer, error

from tests.broker.env import Env, check, equal
from tests.broker.registry import scenario

LOGINS: dict[str, dict[str, Any]] = {
    "wrong_password": {
        "login": {"password": "not the password"},
        "expected": ProbableAuthenticationError,
        "code": 403,
        "words": "ACCESS_REFUSED",
    },
    "unknown_user": {
        "login": {"user": "nobody"},
        "expected": ProbableAuthenticationError,
        "code": 403,
        "words": "ACCESS_REFUSED",
    },
    "missing_vhost": {
        "login": {"virtual_host": "no-such-vhost"},
        "expected": ProbableAccessDeniedError,
        "code": 530,
        "words": "vhost",
    },
}


async def login_is_refused(
    env: Env, login: dict[str, Any], expected: type[Exception], code: int, words: str
) -> None:
    connection = await env.attach(**login)
    reason: Any = await env.failure(env.ready(connection), 10)
    check(isinstance(reason, AMQPConnectionError), repr(reason))
    if env.is_ours:
        check(isinstance(reason, expected), f"{reason!r} is no {expected.__name__}")
        equal(reason.args[0], code, "the broker's code")
        check(words in reason.args[1], f"the broker's words are missing: {reason!r}")
        check(isinstance(reason, error.ConnectionDone | error.ConnectionLost), "Twisted's class")
        late = await env.failure(connection.when_ready(), 1)
        equal(late.args, reason.args, "the reason, asked late")
    await env.until(lambda: not connection.transport or connection.is_closed, "closed", 5)


@scenario(variants=LOGINS)
async def login_refused(env: Env, **case: Any) -> None:
    """`ready` fails with the class, the code and the words of the refusal (D19)."""
    await login_is_refused(env, **case)


@scenario(own_node=True)
async def vhost_without_permission(env: Env) -> None:
    """A virtual host that exists but is closed to the user."""
    closed = {"virtual_host": "closed"}
    await login_is_refused(env, closed, ProbableAccessDeniedError, 530, "refused for user")


@scenario(own_node=True)
async def permissions(env: Env) -> None:
    """403 closes the channel that asked; others of the connection go on."""
    user = {"user": env.broker.limited_user, "password": env.broker.limited_password}
    connection, channel = await env.open(**user)
    _, owner = await env.open()
    foreign, own = env.name(), env.name(prefix="open")
    await owner.queue_declare(foreign, durable=True)
    await channel.queue_declare(own, durable=True)
    attempts = {
        "configure": lambda each: each.queue_declare(env.name(), durable=True),
        "read": lambda each: each.basic_consume(foreign),
        "get": lambda each: each.basic_get(foreign),
        "bind": lambda each: each.queue_bind(foreign, "amq.direct", "k"),
        "delete": lambda each: each.queue_delete(foreign),
    }
    for what, attempt in attempts.items():
        each = await connection.channel()
        reason: Any = await env.failure(attempt(each))
        check(isinstance(reason, ChannelClosedByBroker), f"{what}: {reason!r}")
        equal(reason.reply_code, 403, what)
        check("ACCESS_REFUSED" in reason.reply_text, f"{what}: {reason!r}")
    await channel.queue_declare(own, passive=True)


MISTAKES: dict[str, dict[str, Any]] = {
    "missing_queue": {"code": 404, "call": lambda c, q: c.queue_declare("no-" + q, passive=True)},
    "consume_missing": {"code": 404, "call": lambda c, q: c.basic_consume("no-" + q)},
    "get_missing": {"code": 404, "call": lambda c, q: c.basic_get("no-" + q)},
    "bind_missing": {"code": 404, "call": lambda c, q: c.queue_bind(q, "no-" + q)},
    "missing_exchange": {
        "code": 404,
        "call": lambda c, q: c.exchange_declare("no-" + q, passive=True),
    },
    "other_arguments": {"code": 406, "call": lambda c, q: c.queue_declare(q, auto_delete=True)},
    "reserved_name": {"code": 403, "call": lambda c, q: c.queue_declare("amq.mine")},
    "second_mode": {
        "code": 406,
        "call": lambda c, q: defer.gatherResults(
            [c.tx_select(), c.confirm_delivery()], consumeErrors=True
        ),
    },
}


@scenario(variants=MISTAKES)
async def channel_error(env: Env, code: int, call: Any) -> None:
    """A mistake costs its channel, with the broker's code; the next channel works."""
    connection, channel = await env.open()
    queue = env.name()
    await channel.queue_declare(queue, durable=True)
    reason: Any = await env.failure(call(channel, queue))
    if isinstance(reason, defer.FirstError):
        reason = reason.subFailure.value
    check(isinstance(reason, ChannelClosedByBroker), repr(reason))
    equal(reason.reply_code, code, "code")
    check(channel.is_closed and not channel.is_open, "the channel is closed")
    check(connection.is_open, "the connection lives")
    again = await connection.channel()
    await again.queue_declare(queue, passive=True)


@scenario(
    variants={
        "ack": {"settle": lambda c: c.basic_ack(999)},
        "nack": {"settle": lambda c: c.basic_nack(999)},
        "reject": {"settle": lambda c: c.basic_reject(999)},
    }
)
async def unknown_delivery_tag(env: Env, settle: Any) -> None:
    """406 reaches everybody waiting on the channel, and each later call says why (D33)."""
    connection, channel = await env.open()
    queue = env.name()
    await channel.queue_declare(queue, durable=True)
    deliveries, _ = await channel.basic_consume(queue)
    waiting = deliveries.get()
    settle(channel)
    reason: Any = await env.failure(waiting)
    check(isinstance(reason, ChannelClosedByBroker), repr(reason))
    equal(reason.reply_code, 406, "code")
    check(connection.is_open and channel.is_closed, "only the channel is closed")
    for call in (channel.basic_ack, channel.basic_nack, channel.basic_reject):
        try:
            call(1)
        except ChannelWrongStateError as error_:
            if env.is_ours:
                check("406" in str(error_), f"the reason is not in {error_}")
                check(isinstance(error_.__cause__, ChannelClosedByBroker), "the cause is missing")
        else:
            check(False, f"{call.__name__} on a closed channel did not raise")
    failed = await env.failure(defer.maybeDeferred(channel.queue_declare, queue))
    check(isinstance(failed, pika.exceptions.AMQPError), repr(failed))


@scenario()
async def acked_twice(env: Env) -> None:
    """The second ack of one delivery closes the channel with 406; the message stays acked."""
    connection, channel = await env.open()
    queue = env.name()
    await channel.queue_declare(queue, durable=True)
    channel.basic_publish("", queue, b"once")
    deliveries, _ = await channel.basic_consume(queue)
    message = await env.within(5, deliveries.get(), "delivery")
    channel.basic_ack(message.method.delivery_tag)
    channel.basic_ack(message.method.delivery_tag)
    reason: Any = await env.failure(deliveries.get())
    equal(getattr(reason, "reply_code", None), 406, f"code of {reason!r}")
    await env.settled(queue, 0)
    check(connection.is_open, "the connection lives")


@scenario()
async def exclusive_queue_of_another(env: Env) -> None:
    """405: the queue belongs to another connection."""
    _, owner = await env.open()
    connection, channel = await env.open()
    queue = env.name()
    await owner.queue_declare(queue, exclusive=True)
    reason: Any = await env.failure(channel.queue_declare(queue, exclusive=True))
    equal(reason.reply_code, 405, "code")
    check(connection.is_open, "the connection lives")
    await owner.queue_delete(queue)
