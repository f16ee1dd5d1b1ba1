"""One in-memory connection between the adapter under test and the fake broker."""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import pika
from pika import spec
from twisted.internet import error, protocol, task
from twisted.protocols import policies

from tests.support.cost import needs_fine_clock
from tests.support.outcome import Outcome, watch
from tests.support.peer import Peer
from tests.support.transport import FakeSocket, FakeTransport, FdClock


@dataclass(frozen=True)
class Adapter:
    """An implementation of the interface: ours, or pika's for the self-check."""

    name: str
    module_name: str
    private_module_name: str
    options: dict[str, Any] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        module = self.private_module_name if name.startswith("_") else self.module_name
        return getattr(importlib.import_module(module), name)

    def with_options(self, **options: Any) -> Adapter:
        """The same with these options of the connection, too."""
        return replace(self, options={**self.options, **options})

    def connection(self, parameters: Any = None, reactor: Any = None) -> Any:
        return self.TwistedProtocolConnection(parameters, reactor, **self.options)


OURS = Adapter("direct", "pika_twisted", "pika_twisted.protocol")
# Every frame through pika's state machine: the results have to be the same.
OURS_THROUGH_PIKA = Adapter(
    "through_pika", "pika_twisted", "pika_twisted.protocol", {"direct_delivery": False}
)
PIKA = Adapter("pika", "pika.adapters.twisted_connection", "pika.adapters.twisted_connection")


class Session:
    def __init__(self, adapter: Adapter, clock: task.Clock | None = None) -> None:
        self.adapter = adapter
        # Set before connecting.
        self.tls = False
        self.layers = "transport"
        self.clock = clock or task.Clock()
        self.transport: FakeTransport = None  # type: ignore[assignment]
        self.protocol: Any = None
        self.peer: Peer = None  # type: ignore[assignment]
        self._closed: Outcome | None = None

    # Setting up.

    def connect(self, *, reactor: Any = None, factory: Any = None, **parameters: Any) -> Any:
        """A connection whose transport is there and whose handshake has not begun."""
        parameters.setdefault("heartbeat", 0)
        settings = pika.ConnectionParameters(**parameters)
        if factory is None:
            factory = self.adapter.connection
        if self.layers != "transport":
            self.clock = FdClock()
        self.protocol = factory(settings, self.clock if reactor is None else reactor)
        if self.layers == "transport":
            self.transport = FakeTransport(self.clock, self.tls)
        else:
            self.transport = FakeSocket(self.clock, self.tls)  # type: ignore[arg-type]
        outermost = self.protocol
        if self.layers == "wrapped socket":  # as TLS does it, and Twisted's policies
            wrapping = policies.WrappingFactory(protocol.Factory())
            outermost = policies.ProtocolWrapper(wrapping, self.protocol)
        self.transport.protocol = outermost
        self.peer = Peer(self.transport, outermost, self.clock)
        outermost.makeConnection(self.transport)
        self.peer.read()
        return self.protocol

    def open(
        self, *, product: str = "RabbitMQ", broker_heartbeat: int = 60, **parameters: Any
    ) -> Any:
        """An open connection."""
        protocol = self.connect(**parameters)
        ready = watch(protocol.ready, "ready")
        self.peer.start(product)
        self.peer.expect(spec.Connection.StartOk)
        self.peer.tune(frame_max=protocol._impl.params.frame_max, heartbeat=broker_heartbeat)
        self.peer.expect(spec.Connection.TuneOk)
        self.peer.expect(spec.Connection.Open)
        self.peer.open_ok()
        ready.result()
        self._closed = watch(protocol.closed, "closed")
        self.peer.forget()
        return protocol

    def channel(self, number: int | None = None) -> Any:
        """An open channel, on an open connection (opened when there is none)."""
        if self.protocol is None:
            self.open()
        channel = watch(self.protocol.channel(number), "channel()")
        opened = self.peer.expect(spec.Channel.Open)
        self.peer.send(opened.channel_number, spec.Channel.OpenOk())
        return channel.result()

    def consumer(self, channel: Any, tag: str = "t", queue: str = "q", **options: Any) -> Any:
        """The queue object of a consumer the broker has accepted."""
        consuming = watch(
            channel.basic_consume(queue, consumer_tag=tag, **options), f"basic_consume {tag}"
        )
        self.peer.expect(spec.Basic.Consume)
        self.peer.send(channel, spec.Basic.ConsumeOk(tag))
        return consuming.result()[0]

    def confirms(self, channel: Any) -> None:
        """Put the channel into confirm mode."""
        selected = watch(channel.confirm_delivery(), "confirm_delivery")
        self.peer.expect(spec.Confirm.Select)
        self.peer.send(channel, spec.Confirm.SelectOk())
        selected.result()

    def publish(self, channel: Any, body: bytes, key: str = "q", **options: Any) -> Outcome:
        return watch(channel.basic_publish("", key, body, **options), f"publish {body!r}")

    # Time and endings.

    def turn(self, seconds: float = 0) -> None:
        """Let timers run, then deliver the end of the connection where the client asked for it."""
        while seconds > 0:
            self.clock.advance(min(seconds, 0.5))
            seconds -= 0.5
        self.clock.advance(0)
        self.transport.finish()

    def lose(self, reason: Exception | None = None) -> None:
        """The TCP connection ends, without a word of AMQP."""
        self.transport.lose(reason or error.ConnectionLost("Connection to the other side was lost"))
        self.clock.advance(0)

    @property
    def closed(self) -> Outcome:
        assert self._closed is not None
        return self._closed

    def finish(self) -> None:
        """End whatever is still there; nothing may be left over."""
        if self.transport is not None:
            self.lose()
        assert not self.clock.getDelayedCalls(), (
            f"delayed calls left after the connection's end: {self.clock.getDelayedCalls()}"
        )


def cpu_growth(measure: Callable[[int], float], small: int, large: int) -> float:
    """How many times the CPU of `small` the work of size `large` takes.

    The least of eight runs each, in turn; where the larger one takes long, of three.
    """
    needs_fine_clock()
    cheap = dear = math.inf
    for number in range(8):
        cheap = min(cheap, measure(small))
        if number < 3 or dear < 0.1:
            dear = min(dear, measure(large))
    return dear / cheap


def public_names(cls: type) -> dict[str, Any]:
    """Public attributes written in the class itself or its bases below `object`."""
    return {
        name: inspect.getattr_static(cls, name) for name in dir(cls) if not name.startswith("_")
    }


def bodies(messages: Iterable[Any]) -> list[bytes]:
    """Return the bodies of messages, in their order."""
    return [message.body for message in messages]
