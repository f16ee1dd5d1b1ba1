"""Talks with a peer that misbehaves, the same over a `Medium` in memory and one of real sockets.

A talk is a coroutine. In memory it never has to wait, so it is done when it returns for the first
time. Nothing here looks for errors in the log: whoever runs the talk does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from pika import exceptions, frame, spec
from twisted.internet import error

from tests.support import wire
from tests.support.bad_talks import START, TUNED, Handshake, Lives
from tests.support.outcome import Outcome, run, watch
from tests.support.peer import Peer, encoded_method

PATIENCE = 0.3  # the handshake timeout of those who are silent


class Medium(Protocol):
    """What joins a client and the peer."""

    peer: Peer

    async def connect(self, **options: Any) -> Any:
        """A TwistedProtocolConnection whose transport is connected."""

    async def until(self, condition: Callable[[], Any], what: str) -> None:
        """Go on when it is true; an AssertionError when it isn't within a second."""

    def hang_up(self) -> None:
        """The peer closes the stream."""


async def expect(medium: Medium, method: Any) -> Any:
    """The next of these methods that the client writes."""

    def written() -> bool:
        return any(isinstance(each, method) for each in medium.peer.methods())

    await medium.until(written, f"the client writes {method.NAME}")
    return medium.peer.expect(method)


class Talk:
    """An open connection, and on it something that waits in every way there is."""

    def __init__(self, medium: Medium) -> None:
        self.medium = medium
        self.messages: list[Any] = []
        self.publishes: list[Outcome] = []

    async def open(self, *, auto_ack: bool = False, **options: Any) -> None:
        """The handshake, channels 1 and 2, consumers on the one, publishes and calls on the other.

        Nothing that waits here is answered.
        """
        self.protocol = await self.medium.connect(**options)
        ready = watch(self.protocol.ready, "ready")
        self.peer.send_bytes(START)
        await expect(self.medium, spec.Connection.StartOk)
        self.peer.send_bytes(TUNED)
        await expect(self.medium, spec.Connection.Open)
        self.peer.open_ok()
        await self.medium.until(lambda: ready.fired, "ready")
        one = await self._ask(self.protocol.channel(1), spec.Channel.Open, spec.Channel.OpenOk())
        two = await self._ask(self.protocol.channel(2), spec.Channel.Open, spec.Channel.OpenOk())
        messages = await self._consume(one, "ct", auto_ack)
        other = await self._consume(one, "other", False)
        await self._ask(two.confirm_delivery(), spec.Confirm.Select, spec.Confirm.SelectOk())
        self.publishes = [watch(two.basic_publish("", "q", b"%d" % n), "publish") for n in range(3)]
        self.of_channel_1 = [
            watch(other.get(), "get()"),
            watch(other.get_many(5), "get_many()"),
            run(self._iterate(messages), "async for"),
            watch(one.on_closed, "on_closed"),
        ]
        self.declaring = watch(two.queue_declare("q"), "queue_declare")
        self.of_connection = [
            watch(two.basic_get("q"), "basic_get"),
            watch(two.on_closed, "on_closed"),
            watch(self.protocol.channel(9), "channel()"),
            watch(self.protocol.update_secret("secret", "expiry"), "update_secret"),
            watch(self.protocol.closed, "closed"),
            watch(self.protocol.when_closed(), "when_closed()"),
        ]
        await expect(self.medium, spec.Queue.Declare)
        await expect(self.medium, spec.Connection.UpdateSecret)
        self.peer.forget()

    @property
    def peer(self) -> Peer:
        """The other end."""
        return self.medium.peer

    @property
    def waiting(self) -> list[Outcome]:
        """Everything that waits."""
        return [*self.of_channel_1, *self.publishes, self.declaring, *self.of_connection]

    async def _ask(self, asked: Any, request: Any, answer: Any) -> Any:
        outcome = watch(asked, request.NAME)
        channel = (await expect(self.medium, request)).channel_number
        self.peer.send(channel, answer)
        await self.medium.until(lambda: outcome.fired, f"the answer to {request.NAME}")
        return outcome.result()

    async def _consume(self, channel: Any, tag: str, auto_ack: bool) -> Any:
        consuming = channel.basic_consume("q", auto_ack=auto_ack, consumer_tag=tag)
        queue, _ = await self._ask(consuming, spec.Basic.Consume, spec.Basic.ConsumeOk(tag))
        return queue

    async def _iterate(self, messages: Any) -> None:
        async for message in messages:
            self.messages.append(message)

    def bodies(self) -> list[bytes]:
        """What was delivered on channel 1."""
        return [message.body for message in self.messages]

    async def gone(self) -> None:
        """The peer sees the end of the stream, and nothing waits any more."""
        await self.medium.until(lambda: not self.peer.transport.connected, "the stream ended")
        await self.medium.until(lambda: self.of_connection[-1].fired, "closed")
        assert [outcome.label for outcome in self.waiting if outcome.fired != 1] == []


def carries(outcome: Outcome, code: int) -> None:
    """It fired with a reason of pika's that holds this code."""
    reason: Any = outcome.error or outcome.value
    assert isinstance(reason, exceptions.AMQPError), f"{outcome.label}: {reason!r}"
    assert reason.args[0] == code, f"{outcome.label}: {reason!r}"


async def refused(medium: Medium, case: tuple[bytes, bytes, int], pieces: int = 1) -> None:
    """Good frames first; then the code is on the wire, the stream ends, everybody learns why."""
    before, bad, code = case
    talk = Talk(medium)
    await talk.open()
    good = encoded_method(2, spec.Basic.Ack(1, False)) + wire.content(1, b"good")
    octets = good + before + bad
    step = -(-len(octets) // pieces)
    for start in range(0, len(octets), step):
        if talk.peer.transport.connected:
            talk.peer.send_bytes(octets[start : start + step])
    close = (await expect(medium, spec.Connection.Close)).method
    assert close.reply_code == code, f"{close.reply_code} {close.reply_text}"
    assert close.reply_text
    await talk.gone()
    assert talk.bodies()[:1] == [b"good"]
    confirmed, *unconfirmed = talk.publishes
    assert isinstance(confirmed.result(), spec.Basic.Ack | frame.Method), confirmed.value
    talk.publishes = unconfirmed
    for outcome in talk.waiting:
        carries(outcome, code)
    reason = talk.of_connection[-1].result()
    assert isinstance(reason, exceptions.AMQPConnectionError)
    assert isinstance(reason, error.ConnectionLost)
    talk.peer.expect_none(*spec.methods.values())


async def survived(medium: Medium, case: Lives, pieces: int = 1) -> None:
    """What was to be delivered is, the client answers as it should, and the rest goes on."""
    talk = Talk(medium)
    await talk.open(auto_ack=case.auto_ack, **case.options)
    step = -(-len(case.sent) // pieces)
    for start in range(0, len(case.sent), step):
        talk.peer.send_bytes(case.sent[start : start + step])
    for number, method, arguments in case.answers:
        answer = await expect(medium, method)
        said = {name: getattr(answer.method, name) for name in arguments}
        assert (answer.channel_number, said) == (number, arguments)
    if case.closes_channel:
        talk.peer.send(1, spec.Channel.CloseOk())
        await medium.until(lambda: talk.of_channel_1[-1].fired, "channel 1 closed")
        for outcome in talk.of_channel_1:
            carries(outcome, case.closes_channel)
        # What it still has of the message is dropped, not taken for another one's.
        talk.of_channel_1.clear()
    else:
        talk.peer.deliver(1, "ct", b"after", first=8)
        await medium.until(lambda: b"after" in talk.bodies(), "the next message")
        assert talk.bodies() == [*case.bodies, b"after"]
    if case.look is not None:
        case.look(talk.messages[-2])
    talk.peer.send(2, spec.Queue.DeclareOk("q", 0, 0))
    await medium.until(lambda: talk.declaring.fired, "the answer on channel 2")
    talk.declaring.result()
    assert [outcome.fired for outcome in talk.publishes] == [n < case.confirmed for n in range(3)]
    assert [each.label for each in talk.of_channel_1 + talk.of_connection if each.fired] == []
    talk.peer.expect_none(*spec.methods.values())
    assert talk.protocol.is_open
    medium.hang_up()
    await talk.gone()


async def closed_by_the_peer(medium: Medium) -> None:
    """Connection.Close is answered, its reason told; what comes after it is not delivered."""
    talk = Talk(medium)
    await talk.open()
    close = encoded_method(0, spec.Connection.Close(320, "CONNECTION_FORCED", 0, 0))
    talk.peer.send_bytes(wire.content(1, b"good") + close + wire.content(1, b"late") + b"junk")
    await expect(medium, spec.Connection.CloseOk)
    await talk.gone()
    assert talk.bodies() == [b"good"]
    for outcome in talk.waiting:
        carries(outcome, 320)
    assert isinstance(talk.of_connection[-1].result(), exceptions.ConnectionClosedByBroker)


async def handshake_failed(medium: Medium, case: Handshake) -> None:
    """The typed reason, within a second, for `ready` and for whoever asks later."""
    protocol = await medium.connect(handshake_timeout=PATIENCE)
    waiting = [watch(protocol.ready, "ready"), watch(protocol.when_ready(), "when_ready()")]
    peer = medium.peer
    await medium.until(
        lambda: (
            peer.methods() or any(isinstance(each, frame.ProtocolHeader) for each in peer.frames)
        ),
        "the protocol header",
    )
    for method, octets in case.steps:
        if method is not None:
            await expect(medium, method)
        if octets:
            peer.send_bytes(octets)
    if case.ends:
        medium.hang_up()
    await medium.until(lambda: not peer.transport.connected, "the stream ended")
    await medium.until(lambda: waiting[0].fired, "ready")
    waiting.append(watch(protocol.when_ready(), "when_ready(), late"))
    for outcome in waiting:
        reason = outcome.failure(case.kind, exceptions.AMQPConnectionError)
        assert reason.args[0] == case.code, repr(reason)
        assert reason.args[1], repr(reason)
    assert watch(protocol.when_closed()).result().args == waiting[0].error.args
    closes = [each.reply_code for each in peer.methods() if isinstance(each, spec.Connection.Close)]
    assert closes == ([case.code] if case.code > 500 and case.code != 530 else [])
