"""A recovering service, and the broker that it talks to, without a network."""

from __future__ import annotations

from typing import Any

import pika
from pika import spec
from twisted.internet import defer, error, interfaces, task
from zope.interface import implementer

from pika_twisted.recovery.service import RecoveringService
from tests.support.outcome import watch
from tests.support.peer import Peer
from tests.support.transport import FakeTransport


@implementer(interfaces.IStreamClientEndpoint)
class Broker:
    """An endpoint with a broker behind it that agrees to everything, unless told otherwise."""

    def __init__(self, clock: task.Clock) -> None:
        self.clock = clock
        self.refuse: type[Any] | None = None
        self.reachable = True
        self.peers: list[Peer] = []
        self.said: list[list[str]] = []
        self.heard: list[Any] = []  # the methods behind them, of all connections
        self.stopped = False
        self.postpone: type[Any] | None = None
        self.postponed: list[Any] = []

    def connect(self, factory: Any) -> defer.Deferred[Any]:
        if not self.reachable:
            return defer.fail(error.ConnectionRefusedError())
        protocol = factory.buildProtocol(None)
        transport = FakeTransport(self.clock)
        transport.protocol = protocol
        self.peers.append(Peer(transport, protocol, self.clock))
        self.said.append([])
        protocol.makeConnection(transport)
        return defer.succeed(protocol)

    @property
    def generated(self) -> str:
        """What a queue is called that has no name, on this connection."""
        return f"amq.gen-{len(self.peers)}"

    def catch_up(self) -> None:
        """Answer what was postponed."""
        self.postpone = None
        postponed, self.postponed = self.postponed, []
        for frame in postponed:
            self.answer(frame)
        self.run()

    def asked(self, method: type[Any]) -> list[Any]:
        """All methods of this class that came, on whichever connection."""
        return [each for each in self.heard if isinstance(each, method)]

    @property
    def peer(self) -> Peer:
        return self.peers[-1]

    def run(self, seconds: float = 0.0) -> None:
        """Let time pass, and answer whatever is asked."""
        self.clock.advance(seconds)
        for _ in range(60):
            if self.peers and self.peer.transport.connected:
                self.peer.read()
                frames, self.peer.frames = self.peer.frames, []
                for frame in frames:
                    if self.peer.transport.connected and not self.stopped:
                        self.answer(frame)
                self.peer.transport.finish()
            self.clock.advance(0)

    def answer(self, frame: Any) -> None:
        if isinstance(frame, pika.frame.ProtocolHeader):
            self.peer.start("RabbitMQ")
            return
        method = getattr(frame, "method", None)
        if method is None:
            return
        self.said[-1].append(method.NAME)
        self.heard.append(method)
        if self.postpone is not None and isinstance(method, self.postpone):
            self.postponed.append(frame)
            return
        number = frame.channel_number
        if self.refuse is not None and isinstance(method, self.refuse):
            self.peer.send(number, spec.Channel.Close(406, "PRECONDITION_FAILED", 50, 10))
        elif isinstance(method, spec.Connection.StartOk):
            self.peer.tune(frame_max=131072, heartbeat=0)
        elif isinstance(method, spec.Connection.Open):
            self.peer.open_ok()
        elif isinstance(method, spec.Basic.Consume):
            self.peer.send(number, spec.Basic.ConsumeOk(method.consumer_tag))
        elif isinstance(method, spec.Basic.Cancel):
            self.peer.send(number, spec.Basic.CancelOk(method.consumer_tag))
        elif isinstance(method, spec.Queue.Declare):
            self.peer.send(number, spec.Queue.DeclareOk(method.queue or self.generated, 0, 0))
        elif isinstance(method, spec.Basic.Get):
            self.peer.send(number, spec.Basic.GetEmpty())
        elif isinstance(method, spec.Queue.Delete):
            self.peer.send(number, spec.Queue.DeleteOk(0))
        elif reply := ANSWERS.get(type(method)):
            self.peer.send(number, reply())


ANSWERS = {
    asked: getattr(group, asked.__name__ + "Ok")
    for group in (
        spec.Connection,
        spec.Channel,
        spec.Exchange,
        spec.Queue,
        spec.Basic,
        spec.Confirm,
    )
    for asked in vars(group).values()
    if isinstance(asked, type) and hasattr(group, asked.__name__ + "Ok")
}


class World:
    """A service and its broker."""

    def __init__(self, **options: Any) -> None:
        self.clock = task.Clock()
        self.clock.addSystemEventTrigger = lambda *_: None  # type: ignore[attr-defined]
        self.clock.removeSystemEventTrigger = lambda *_: None  # type: ignore[attr-defined]
        self.broker = Broker(self.clock)
        options.setdefault("retry_policy", lambda _: 1.0)
        self.service = RecoveringService(
            self.broker,
            parameters=pika.ConnectionParameters(heartbeat=0),
            reactor=self.clock,
            **options,
        )
        self.told: list[str] = []
        for name in ("connected", "lost", "recovered", "recovery failed", "consumer cancelled"):
            self.service.add_callback(name, lambda *_, name=name: self.told.append(name))

    def start(self) -> None:
        self.service.startService()
        self.broker.run()

    def lose(self) -> None:
        self.broker.peer.transport.lose(error.ConnectionLost("cut"))
        self.broker.run()

    def finish(self) -> None:
        stopped = watch(self.service.stopService())
        for _ in range(5):
            self.broker.run(5)
        stopped.result()
        assert not self.clock.getDelayedCalls(), self.clock.getDelayedCalls()


def offset(number: Any) -> spec.BasicProperties:
    """Properties of a message of a stream."""
    return spec.BasicProperties(headers={"x-stream-offset": number})


def settled(world: World, deferred: Any) -> Any:
    """Watch a Deferred, let the broker answer."""
    outcome = watch(deferred)
    world.broker.run()
    return outcome


def started(world: World, **options: Any) -> Any:
    """An open channel of a service that is connected."""
    world.start()
    channel = world.service.channel(**options)
    world.broker.run()
    assert channel.is_open
    return channel


def reconnect(world: World) -> None:
    """Lose the connection, get another one."""
    world.lose()
    world.broker.run(1)
