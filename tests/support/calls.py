"""Every method that returns a Deferred, and how the broker answers it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pika import spec
from twisted.internet import defer

from tests.support.session import Session


@dataclass(frozen=True)
class Call:
    """A method that returns a Deferred, and how the broker answers it."""

    name: str
    start: Callable[[Session, Any], defer.Deferred[Any]]
    answer: Callable[[Session, Any], None] | None = None
    prepare: Callable[[Session, Any], None] | None = None
    #: Whether it belongs to a channel: it then ends with the channel, with a ChannelClosed.
    on_channel: bool = True


def rpc(name: str, reply: Any, *args: Any, **kwargs: Any) -> Call:
    return Call(
        name,
        lambda _session, channel: getattr(channel, name)(*args, **kwargs),
        lambda session, channel: session.peer.send(channel, reply),
    )


def consumer_call(name: str, ask: Callable[[Any], Any]) -> Call:
    def prepare(session: Session, channel: Any) -> None:
        session.queue = session.consumer(channel)  # type: ignore[attr-defined]

    return Call(
        name,
        lambda session, _channel: ask(session.queue),  # type: ignore[attr-defined]
        lambda session, channel: session.peer.send_content(
            channel, spec.Basic.Deliver("t", 1, False, "", "q"), b"body"
        ),
        prepare,
    )


def one(queue: Any) -> defer.Deferred[Any]:
    async def wait() -> Any:
        return await queue.__anext__()

    return defer.ensureDeferred(wait())


CALLS = [
    rpc("queue_declare", spec.Queue.DeclareOk("q", 0, 0), "q"),
    rpc("queue_bind", spec.Queue.BindOk(), "q", "x"),
    rpc("queue_unbind", spec.Queue.UnbindOk(), "q", "x"),
    rpc("queue_purge", spec.Queue.PurgeOk(0), "q"),
    rpc("queue_delete", spec.Queue.DeleteOk(0), "q"),
    rpc("exchange_declare", spec.Exchange.DeclareOk(), "x"),
    rpc("exchange_delete", spec.Exchange.DeleteOk(), "x"),
    rpc("exchange_bind", spec.Exchange.BindOk(), "x", "y"),
    rpc("exchange_unbind", spec.Exchange.UnbindOk(), "x", "y"),
    rpc("basic_qos", spec.Basic.QosOk(), prefetch_count=1),
    rpc("basic_recover", spec.Basic.RecoverOk(), requeue=True),
    rpc("flow", spec.Channel.FlowOk(True), True),
    rpc("tx_select", spec.Tx.SelectOk()),
    rpc("tx_commit", spec.Tx.CommitOk()),
    rpc("tx_rollback", spec.Tx.RollbackOk()),
    rpc("confirm_delivery", spec.Confirm.SelectOk()),
    rpc("basic_consume", spec.Basic.ConsumeOk("t"), "q", consumer_tag="t"),
    rpc("basic_cancel", spec.Basic.CancelOk("t"), "t"),
    rpc("basic_get", spec.Basic.GetEmpty(), "q"),
    Call(
        "basic_get with a message",
        lambda _session, channel: channel.basic_get("q"),
        lambda session, channel: session.peer.send_content(
            channel, spec.Basic.GetOk(1, False, "", "q", 0), b"body"
        ),
    ),
    Call(
        "basic_publish with confirms",
        lambda _session, channel: channel.basic_publish("", "q", b"body"),
        lambda session, channel: session.peer.send(channel, spec.Basic.Ack(1, False)),
        lambda session, channel: session.confirms(channel),
    ),
    consumer_call("queue.get", lambda queue: queue.get()),
    consumer_call("queue.get_many", lambda queue: queue.get_many(10)),
    consumer_call("async for", one),
    Call(
        "callback_deferred",
        lambda _session, channel: observed(channel),
        lambda session, channel: session.peer.send(channel, spec.Channel.Flow(True)),
    ),
    Call(
        "channel()",
        lambda session, _channel: session.protocol.channel(7),
        lambda session, _channel: session.peer.send(7, spec.Channel.OpenOk()),
        on_channel=False,
    ),
    Call(
        "update_secret",
        lambda session, _channel: session.protocol.update_secret("token", "expiry"),
        lambda session, _channel: session.peer.send(0, spec.Connection.UpdateSecretOk()),
        on_channel=False,
    ),
    Call(
        "drained",
        lambda session, _channel: session.protocol.drained(),
        lambda session, _channel: session.transport.drain(),
        lambda session, _channel: session.transport.fill(),
        on_channel=False,
    ),
]


def observed(channel: Any) -> defer.Deferred[Any]:
    deferred: defer.Deferred[Any] = defer.Deferred()
    channel.callback_deferred(deferred, [spec.Channel.Flow])
    return deferred


def late_answer(session: Session, call: Call, channel: Any) -> None:
    if call.answer is not None and session.transport.connected:
        call.answer(session, channel)
        session.turn()
