"""`Broker`: an AMQP 0-9-1 broker in this process, for tests."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pika
from twisted.internet import defer, task

from pika_twisted.connecting.connect import Connecting
from pika_twisted.connecting.connect import connect as connect_to
from pika_twisted.testing.channel import ServerChannel
from pika_twisted.testing.clock import Clock, run
from pika_twisted.testing.dialect import dialect
from pika_twisted.testing.encoding import BasicProperties
from pika_twisted.testing.exchange import Exchange
from pika_twisted.testing.memory import MemoryEndpoint
from pika_twisted.testing.message import Message, QueuedMessage, published_message
from pika_twisted.testing.permissions import User
from pika_twisted.testing.planned import PlannedRefusals
from pika_twisted.testing.queue import Queue
from pika_twisted.testing.records import Dropped, Published, Settled
from pika_twisted.testing.refusal import Refusal
from pika_twisted.testing.session import ServerConnection
from pika_twisted.testing.sockets import listen
from pika_twisted.testing.stream import Stream
from pika_twisted.testing.vhost import VirtualHost

T = TypeVar("T")
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


class Broker:
    """An AMQP 0-9-1 broker in this process, with RabbitMQ's answers, for tests.

    With a clock nothing happens until it is advanced, `run()` does it; with a reactor all goes on
    by itself. It has the virtual host "/", and the user "guest" with the password "guest".

    `published`, `settled` and `dropped` list what clients have published, how deliveries ended, and
    what queues gave up, oldest first. `connections` are the clients that are connected.

    :param reactor: a `twisted.internet.task.Clock` or a reactor; a clock of its own when None
    :param version: the RabbitMQ whose answers to give, where releases differ
    :param seed: of the names that the broker makes up, so that a test always sees the same
    :param frame_max: bytes of a frame that it proposes
    :param channel_max: channels of a connection that it proposes
    :param heartbeat: seconds that it proposes; 0 for none
    :param latency: seconds that bytes in memory take from one end to the other
    :param late_deliveries: so many deliveries may follow behind a Channel.Close of the broker, as a
        real RabbitMQ sends them
    """

    def __init__(
        self,
        reactor: Any = None,
        *,
        version: str = "4.1.0",
        seed: int = 0,
        frame_max: int = 131072,
        channel_max: int = 2047,
        heartbeat: int = 60,
        latency: float = 0.0,
        late_deliveries: int = 0,
    ) -> None:
        self.reactor: Any = Clock() if reactor is None else reactor
        self.dialect = dialect(version)
        self.frame_max = frame_max
        self.channel_max = channel_max
        self.heartbeat = heartbeat
        self.latency = latency
        self.late_deliveries = late_deliveries
        #: The mechanisms that it offers for the login, with spaces in between.
        self.mechanisms = "PLAIN EXTERNAL"
        #: The user of a login with EXTERNAL that names none.
        self.external_user = "guest"
        #: False refuses connections.
        self.accepts = True
        self.vhosts: dict[str, VirtualHost] = {}
        self.users: dict[str, User] = {}
        self.connections: list[ServerConnection] = []
        self.published: list[Published] = []
        self.settled: list[Settled] = []
        self.dropped: list[Dropped] = []
        self.updated_secrets: list[str] = []
        self.blocked_reason: str | None = None
        self.holds_confirms = False
        self.frozen = False
        self.reply_addresses: dict[str, tuple[ServerChannel, str]] = {}
        self._random = random.Random(seed)
        self._refusals = PlannedRefusals()
        self._dirty: dict[ServerConnection, None] = {}
        self._calls: set[Any] = set()
        self._ports: list[Any] = []
        self._clients: list[ServerConnection] = []  # those whose TCP connection is there
        self.add_vhost("/")
        self.add_user("guest", "guest")

    def __repr__(self) -> str:
        return f"<Broker: {len(self.connections)} connections, {len(self.queues)} queues>"

    # Clients

    def connect(self, parameters: Any = None, **options: Any) -> Connecting:
        """Connect to this broker in memory.

        :param parameters: pika's parameters; login, virtual host, heartbeat and the like count
        :param options: as of `pika_twisted.connect()`
        :returns: a Deferred that fires with a ready `TwistedProtocolConnection`
        """
        options.setdefault("reactor", self.reactor)
        return connect_to(self.endpoint(), parameters=parameters, **options)

    def endpoint(self) -> MemoryEndpoint:
        """Return a client endpoint that leads here, for `connect()` and `RecoveringService`."""
        return MemoryEndpoint(
            self.reactor, self.build_protocol, lambda: self.latency, "the broker in memory"
        )

    def listen(self, endpoint: Any = None) -> defer.Deferred[Any]:
        """Listen on sockets, too.

        :param endpoint: an `IStreamServerEndpoint`, TLS wrapped around it or not; any free port of
            127.0.0.1 when None
        :returns: a Deferred that fires with the listening port; `close()` ends it
        """
        return listen(self.reactor, self.build_protocol, endpoint).addCallback(self._on_listening)

    def _on_listening(self, port: Any) -> Any:
        self._ports.append(port)
        return port

    def build_protocol(self) -> ServerConnection | None:
        """Return the protocol for one more client; None where none is accepted."""
        return ServerConnection(self) if self.accepts else None

    def run(self, awaitable: Awaitable[T], timeout: float = 60.0) -> T:
        """Advance the clock until a coroutine or a Deferred has its result, and return that.

        :param timeout: seconds of the clock, not of the wall
        :raises TimeoutError: it has none by then, or nothing is left that could bring one
        :raises TypeError: the broker has a reactor
        """
        if not hasattr(self.reactor, "advance"):
            raise TypeError("run() advances a clock, and this broker has a reactor")
        return run(self.reactor, awaitable, timeout)

    def close(self) -> defer.Deferred[None]:
        """End all connections, timers and listening ports.

        :returns: a Deferred that fires when it is done; with a clock it has fired already
        """
        self.accepts = False
        closing = defer.Deferred.fromCoroutine(self._close())
        if hasattr(self.reactor, "advance"):
            self.reactor.pump([0, self.latency, 0])
        return closing

    async def _close(self) -> None:
        ports, self._ports = self._ports, []
        waiting = [defer.maybeDeferred(port.stopListening) for port in ports]
        waiting += [connection.when_lost() for connection in self._clients]
        self.cut()
        for call in list(self._calls):
            if call.active():
                call.cancel()
        self._calls.clear()
        await defer.DeferredList(waiting)
        await task.deferLater(self.reactor, self.latency)  # the other ends, in memory

    # Virtual hosts and users

    def add_vhost(self, name: str) -> VirtualHost:
        """Add a virtual host; users need permissions for it."""
        self.vhosts[name] = VirtualHost(self, name)
        return self.vhosts[name]

    def add_user(self, name: str, password: str, *vhosts: str) -> User:
        """Add a user with all permissions on these virtual hosts, "/" when none is named.

        `User.allow()` gives other permissions.
        """
        user = self.users[name] = User(name, password)
        for vhost in vhosts or ("/",):
            user.allow(vhost)
        return user

    # To look at

    @property
    def queues(self) -> dict[str, Queue | Stream]:
        """The queues of the virtual host "/" by name."""
        return self.vhosts["/"].queues

    @property
    def exchanges(self) -> dict[str, Exchange]:
        """The exchanges of the virtual host "/" by name."""
        return self.vhosts["/"].exchanges

    def queue(self, name: str, vhost: str = "/") -> Queue | Stream:
        """Return a queue.

        :raises KeyError: there is none of that name
        """
        return self.vhosts[vhost].queues[name]

    def exchange(self, name: str, vhost: str = "/") -> Exchange:
        """Return an exchange.

        :raises KeyError: there is none of that name
        """
        return self.vhosts[vhost].exchanges[name]

    def publish(
        self,
        exchange: str,
        routing_key: str,
        body: bytes = b"",
        properties: pika.BasicProperties | None = None,
        vhost: str = "/",
    ) -> list[str]:
        """Publish a message without a client; return the names of the queues that it went to."""
        host = self.vhosts[vhost]
        message = published_message(
            exchange, routing_key, properties or BasicProperties(), body, self.dialect
        )
        queues = host.route(message, host.exchange(exchange))
        for queue in queues:
            queue.publish(message)
        self.flush()
        return [queue.name for queue in queues]

    # Faults

    def cut(self, *, reset: bool = False) -> None:
        """End all connections without a word of AMQP; `reset` as of `ServerConnection.cut()`."""
        for connection in list(self.connections):
            connection.cut(reset=reset)
        self.flush()

    def freeze(self) -> None:
        """Read and write nothing, on no connection, until `thaw()`."""
        self.frozen = True
        for connection in self.connections:
            connection.freeze()

    def thaw(self) -> None:
        """Go on after `freeze()`."""
        self.frozen = False
        for connection in list(self.connections):
            connection.thaw()

    def block(self, reason: str = "low on memory") -> None:
        """Block connections that publish, as RabbitMQ does when memory or disk run out.

        A connection that has published gets Connection.Blocked at once, another when it publishes.
        """
        self.blocked_reason = reason
        for connection in list(self.connections):
            if connection.publishes:
                connection.block(reason)

    def unblock(self) -> None:
        """End `block()`."""
        self.blocked_reason = None
        for connection in list(self.connections):
            connection.unblock()

    def refuse(
        self,
        method: str,
        code: int = 406,
        text: str | None = None,
        *,
        times: int = 1,
        **fields: Any,
    ) -> None:
        """Refuse the next call of a method, once.

        For example::

            broker.refuse("queue.declare", 404, "no such thing", queue="work")

        :param method: as in the specification of AMQP: "queue.declare", "basic.publish"
        :param code: 403, 404, 405, 406 or 311 close the channel, all others the connection
        :param text: what stands behind the code's name
        :param times: how many calls to refuse
        :param fields: only calls with these values of arguments
        """
        self._refusals.add(method, code, text, times, fields)

    def hold_confirms(self) -> None:
        """Confirm nothing until `release_confirms()`."""
        self.holds_confirms = True

    def release_confirms(self) -> None:
        """Send the confirms that were held, and hold none any more."""
        self.holds_confirms = False
        for connection in self.connections:
            for channel in connection.channels.values():
                if channel.publishing.confirmed:
                    connection.confirms_due(channel)
        self.flush()

    def hold_deliveries(self, *queues: str) -> None:
        """Deliver nothing from these queues, or from all, until `release_deliveries()`."""
        for queue in self._named(queues):
            queue.paused = True

    def release_deliveries(self, *queues: str) -> None:
        """Deliver again."""
        for queue in self._named(queues):
            queue.paused = False
            queue.dispatch()
        self.flush()

    def _named(self, names: tuple[str, ...]) -> list[Queue | Stream]:
        return [self.queues[name] for name in names or self.queues]

    def restart(self) -> None:
        """End all connections, and keep only what survives a restart: what is durable.

        Of classic queues that are persistent messages, redelivered where they were unacked.
        """
        self.cut()
        for vhost in self.vhosts.values():
            vhost.restart()

    # For the parts of the broker

    def generated_name(self, prefix: str) -> str:
        """Return a name that was not there before."""
        return prefix + "".join(self._random.choices(_LETTERS, k=22))

    def call_later(self, delay: float, function: Callable[[], Any]) -> Any:
        """Call a function in a while; `close()` cancels it."""

        def call() -> None:
            self._calls.discard(delayed)
            function()

        if len(self._calls) > 1000:
            self._calls = {each for each in self._calls if each.active()}
        delayed = self.reactor.callLater(delay, call)
        self._calls.add(delayed)
        return delayed

    def flushes(self, connection: ServerConnection) -> None:
        """A connection has something to write at the end of this turn."""
        self._dirty[connection] = None

    def flush(self) -> None:
        """Let connections write what this turn has brought."""
        while self._dirty:
            dirty, self._dirty = self._dirty, {}
            for connection in dirty:
                connection.flush()

    def refusal_of(self, method: Any) -> Refusal | None:
        """Return the refusal that a test has asked for, or None."""
        return self._refusals.take(method)

    def on_connected(self, connection: ServerConnection) -> None:
        """A client has connected."""
        self.connections.append(connection)
        self._clients.append(connection)
        if self.frozen:
            connection.freeze()

    def on_disconnected(self, connection: ServerConnection) -> None:
        """A client is gone."""
        if connection in self.connections:
            self.connections.remove(connection)

    def on_lost(self, connection: ServerConnection) -> None:
        """The TCP connection of a client is gone."""
        self._clients.remove(connection)

    def delete_exclusive(self, connection: ServerConnection) -> None:
        """Delete the queues that go with a connection."""
        for queue in list(connection.vhost.queues.values()):
            if queue.owner is connection:
                connection.vhost.delete_queue(queue)

    def on_published(
        self, channel: ServerChannel, message: Message, queues: list[Queue | Stream]
    ) -> None:
        """A client has published."""
        self.published.append(Published(message, tuple(each.name for each in queues), channel))

    def on_settled(self, queue: Queue | Stream, message: QueuedMessage, outcome: str) -> None:
        """A delivery has ended."""
        self.settled.append(Settled(queue.name, message, outcome))

    def on_dropped(self, queue: Queue | Stream, message: QueuedMessage, reason: str) -> None:
        """A queue has given up a message."""
        self.dropped.append(Dropped(queue.name, message, reason))
