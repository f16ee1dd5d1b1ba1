"""One Deferred of every kind that waits, on one connection: when each ends, and with what."""

from __future__ import annotations

from typing import Any

from pika.exceptions import AMQPError, ChannelClosed
from twisted.internet import defer
from twisted.python.failure import Failure

from tests.broker.env import Env, as_deferred, check, equal

#: Seconds from the end of TCP until the last Deferred has failed; the promise is one second.
AFTER_TCP = 1.0


class Waiting:
    """A connection on which everything waits once `begin()` was called.

    What begins when the broker does not answer any more can end in one way only: with the reason of
    the connection's end.
    """

    def __init__(self, env: Env, connection: Any) -> None:
        self.env = env
        self.connection = connection
        self.began = 0.0
        self.ended: dict[str, tuple[float, Any]] = {}
        self.watched: set[str] = set()
        self.of_channels: set[str] = set()

    @classmethod
    async def on(cls, env: Env, **arguments: Any) -> Waiting:
        """Open a connection (the arguments are `env.attach()`'s), its channels and consumers."""
        waiting = cls(env, await env.connect(**arguments))
        open_channel = waiting.connection.channel
        waiting.consuming = await open_channel()
        waiting.confirming, waiting.selecting = await open_channel(), await open_channel()
        waiting.calling, waiting.getting = await open_channel(), await open_channel()
        waiting.queue = (await waiting.consuming.queue_declare("", exclusive=True)).method.queue
        waiting.deliveries = [
            (await waiting.consuming.basic_consume(waiting.queue))[0] for _ in range(3)
        ]
        await waiting.confirming.confirm_delivery()
        return waiting

    def begin(self) -> None:
        """Start to wait for everything there is to wait for."""
        self.consume()
        calling, confirming = self.calling, self.confirming
        self.watch("RPC", calling.queue_declare("", exclusive=True), of_channel=True)
        self.watch("RPC behind it", calling.basic_qos(prefetch_count=1), of_channel=True)
        self.watch("basic_get", self.getting.basic_get(self.queue), of_channel=True)
        self.watch("confirm_delivery", self.selecting.confirm_delivery(), of_channel=True)
        for number in range(3):
            publish = confirming.basic_publish("", "nowhere", b"%d" % number, mandatory=True)
            self.watch(f"confirm {number}", publish, of_channel=True)
        self.watch("channel()", self.connection.channel())

    def consume(self) -> None:
        """Wait only for what no broker answers: messages that don't come, and the end."""
        self.began = self.env.reactor.seconds()
        first, second, third = self.deliveries
        self.watch("get", first.get(), of_channel=True)
        self.watch("get_many", second.get_many(10), of_channel=True)
        self.watch("async for", as_deferred(_next(third)), of_channel=True)
        self.watch("on_closed", self.confirming.on_closed, of_channel=True)
        self.watch("closed", self.connection.closed)
        self.watch("when_closed()", self.connection.when_closed())

    def fill(self, octets: int) -> None:
        """Publish so much, and wait for the transport to take it."""
        publish = self.confirming.basic_publish
        for number in range(octets >> 20):
            sent = publish("", "nowhere", bytes(1 << 20))
            self.watch(f"confirm of 1 MiB, {number}", sent, of_channel=True)
        self.watch("drained()", self.connection.drained())

    def watch(self, label: str, deferred: defer.Deferred[Any], *, of_channel: bool = False) -> None:
        """Note when it fires. One that fires twice is logged by whoever does it, as an error."""
        self.watched.add(label)
        if of_channel:
            self.of_channels.add(label)

        def note(result: Any) -> Any:
            self.ended[label] = (self.env.reactor.seconds(), getattr(result, "value", result))
            return None if isinstance(result, Failure) else result

        deferred.addBoth(note)

    async def has_ended(
        self,
        *kinds: type[BaseException],
        since: float,
        within: float = AFTER_TCP,
        code: int = 0,
        words: str = "",
    ) -> float:
        """All has ended so soon, with a reason of these classes; how many seconds it took."""
        env = self.env
        left = since + within + 2 - env.reactor.seconds()
        await env.until(
            lambda: self.watched <= self.ended.keys(),
            f"all of {sorted(self.watched)} ended",
            timeout=max(left, 0.1),
        )
        for label, (at, value) in self.ended.items():
            for kind in kinds:
                check(isinstance(value, kind), f"{label}: {value!r} is no {kind.__name__}")
            if label in self.of_channels:
                check(isinstance(value, ChannelClosed), f"{label}: {value!r} is no ChannelClosed")
            equal(value.args[0], code, f"code of {label}")
            check(words in value.args[1], f"{label}: {words!r} is not in {value!r}")
            check(at - since <= within, f"{label}: after {at - since:.2f} s")
        await self._refuses_all()
        return max(at for at, _ in self.ended.values()) - since

    async def _refuses_all(self) -> None:
        """What is called afterwards fails at once."""
        calls = {
            "get": lambda: self.deliveries[0].get(),
            "queue_declare": lambda: self.calling.queue_declare("q"),
            "basic_publish": lambda: self.confirming.basic_publish("", "q", b""),
            "channel()": self.connection.channel,
            "drained()": self.connection.drained,
        }
        for what, call in calls.items():
            late = await self.env.failure(call(), 0.1)
            check(isinstance(late, AMQPError), f"{what} called late: {late!r}")
        check(self.connection.is_closed, "the connection is closed")


async def _next(queue: Any) -> Any:
    return await queue.__anext__()
