"""The broker's end of a connection: a Twisted protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pika import frame, spec
from twisted.internet import defer, protocol

from pika_twisted.codec.errors import DecodeError
from pika_twisted.testing import handshake, syntax
from pika_twisted.testing.channel import ConnectionRefusal, ServerChannel, ids
from pika_twisted.testing.encoding import PROTOCOL_HEADER, FrameDecoder, method_frame
from pika_twisted.testing.heartbeat import Heartbeat
from pika_twisted.testing.permissions import User
from pika_twisted.testing.refusal import Refusal

if TYPE_CHECKING:
    from pika_twisted.testing.broker import Broker
    from pika_twisted.testing.vhost import VirtualHost

STARTING, TUNING, OPENING, RUNNING = "starting", "tuning", "opening", "running"
CLOSING, CLOSED = "closing", "closed"

#: Seconds that a client has to answer Connection.Close, as RabbitMQ's.
_CLOSE_TIMEOUT = 30.0


class _NoMessage(tuple[Any, ...]):
    """The decoder wants a class for deliveries, of which a broker gets none."""


class ServerConnection(protocol.Protocol):
    """One client, as the broker sees it.

    `state` is one of "starting", "tuning", "opening", "running", "closing" and "closed". `user`,
    `vhost`, `heartbeat` (seconds), `frame_max` (bytes) and `channel_max` are what was agreed on,
    `client_properties` what the client said of itself.
    """

    user: User
    vhost: VirtualHost
    transport: Any

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.state = STARTING
        self.client_properties: dict[str, Any] = {}
        self.channels: dict[int, ServerChannel] = {}
        self.frame_max = broker.frame_max
        self.channel_max = broker.channel_max
        self.heartbeat = 0
        #: Whether the client has published on this connection: only such ones are blocked.
        self.publishes = False
        self.blocked = False
        self.frozen = False
        self._greeted = b""
        self._decoder = FrameDecoder(_NoMessage, frame_max=broker.frame_max)
        self._out: list[bytes] = []
        self._in: list[bytes] = []  # what came while frozen or blocked
        self._confirming: dict[ServerChannel, None] = {}
        self._timer: Any = None
        self._lost: list[defer.Deferred[None]] = []
        self._heartbeat = Heartbeat(self)

    def __repr__(self) -> str:
        name = self.client_properties.get("connection_name")
        return f"<ServerConnection{f' {name!r}' if name else ''}: {self.state}>"

    def has_capability(self, name: str) -> bool:
        """Tell whether the client knows a feature."""
        capabilities = self.client_properties.get("capabilities")
        return isinstance(capabilities, dict) and bool(capabilities.get(name))

    # The transport

    def connectionMade(self) -> None:
        """A client has connected."""
        self.broker.on_connected(self)

    def dataReceived(self, data: bytes) -> None:
        """Take bytes of the client."""
        self._heartbeat.received = True
        self._in.append(data)
        self._read()
        self.broker.flush()

    def connectionLost(self, reason: Any = None) -> None:
        """Forget everything that was of this client alone."""
        self._end()
        self._cancel_timer()
        self.broker.on_lost(self)
        for deferred in self._lost:
            deferred.callback(None)
        self.broker.flush()

    def when_lost(self) -> defer.Deferred[None]:
        """Return a Deferred that fires when the TCP connection is gone."""
        deferred: defer.Deferred[None] = defer.Deferred()
        self._lost.append(deferred)
        return deferred

    def _read(self) -> None:
        """Take what has come, until there is a reason not to."""
        if self.frozen or self.blocked or self.state == CLOSED:
            return
        data = b"".join(self._in)
        self._in.clear()
        if len(self._greeted) < len(PROTOCOL_HEADER):
            data = self._greet(data)
        decoder = self._decoder
        try:
            decoder.feed(data)
            while self.state != CLOSED and not self.blocked and not self.frozen:
                value = decoder.next_frame()
                if value is None:
                    break
                self._process(value)
        except ConnectionRefusal as refusal:
            self._refuse(refusal)
        except DecodeError as error:
            self._refuse(ConnectionRefusal(*syntax.refusal_of(error)))

    def _greet(self, data: bytes) -> bytes:
        missing = len(PROTOCOL_HEADER) - len(self._greeted)
        self._greeted += data[:missing]
        if not PROTOCOL_HEADER.startswith(self._greeted):
            self.send(self.broker.dialect.protocol_header)
            self._hang_up()
            return b""
        if self._greeted == PROTOCOL_HEADER:
            self._send(handshake.start(self))
        return data[missing:]

    # Frames

    def _process(self, value: Any) -> None:
        number = getattr(value, "channel_number", 0)
        if self.state == CLOSING:
            if number == 0 and isinstance(value, frame.Method):
                self._process_closing(value.method)
        elif number:
            self._process_on_channel(number, value)
        elif isinstance(value, frame.Method):
            try:
                self._process_method(value.method)
            except Refusal as refusal:
                self._refuse_method(refusal, value.method)

    def _refuse_method(self, refusal: Refusal, method: Any) -> None:
        if self.state == TUNING:  # RabbitMQ says nothing there, but hangs up
            self.cut()
        elif self.state == STARTING:
            raise ConnectionRefusal(refusal)
        else:
            raise ConnectionRefusal(refusal, *ids(method))

    def _process_on_channel(self, number: int, value: Any) -> None:
        if self.state != RUNNING:
            raise ConnectionRefusal(Refusal(504, f"unexpected frame in state {self.state}"))
        channel = self.channels.get(number)
        if channel is not None:
            method = getattr(value, "method", None)
            if isinstance(method, spec.Basic.Publish):
                self.publishes = True
            channel.process(value)
            if self.publishes and self.broker.blocked_reason is not None:
                self.block(self.broker.blocked_reason)
            return
        method = getattr(value, "method", None)
        if isinstance(method, spec.Channel.Open):
            self._open_channel(number, method)
        elif not isinstance(method, (spec.Channel.CloseOk, spec.Channel.Close)):
            raise ConnectionRefusal(Refusal(504, "expected 'channel.open'"), *ids(method))
        elif isinstance(method, spec.Channel.Close):
            self.send(method_frame(number, spec.Channel.CloseOk()))

    def _open_channel(self, number: int, method: Any) -> None:
        refusal = self.broker.refusal_of(method)
        if refusal is None and self.channel_max and len(self.channels) >= self.channel_max:
            refusal = Refusal(
                530,
                f"number of channels opened ({len(self.channels)}) has reached the negotiated "
                f"channel_max ({self.channel_max})",
            )
        if refusal is not None:
            raise ConnectionRefusal(refusal)
        self.channels[number] = ServerChannel(self, number)
        self.send(method_frame(number, spec.Channel.OpenOk()))

    def _process_method(self, method: Any) -> None:
        expected, handler = _HANDLERS.get(type(method), (None, None))
        if handler is None:
            raise Refusal(503, "unimplemented method")
        if expected is not None and expected != self.state:
            raise Refusal(504, f"unexpected method in connection state {self.state}")
        refusal = self.broker.refusal_of(method)
        if refusal is not None:
            raise refusal
        handler(self, method)

    def _process_closing(self, method: Any) -> None:
        if isinstance(method, spec.Connection.CloseOk):
            self._hang_up()
        elif isinstance(method, spec.Connection.Close):
            self._send(spec.Connection.CloseOk())

    def on_start_ok(self, method: Any) -> None:
        """Connection.StartOk."""
        self.client_properties = method.client_properties or {}
        self.user = handshake.authenticate(self, method)
        self.state = TUNING
        self._send(spec.Connection.Tune(self.channel_max, self.frame_max, self.broker.heartbeat))

    def on_tune_ok(self, method: Any) -> None:
        """Connection.TuneOk."""
        handshake.check_tuning(self, method)
        self.channel_max = method.channel_max
        self.frame_max = method.frame_max
        self.heartbeat = method.heartbeat
        if self.frame_max:
            self._decoder.frame_max = self.frame_max
        self.state = OPENING
        self._heartbeat.start(method.heartbeat)

    def on_open(self, method: Any) -> None:
        """Connection.Open."""
        self.vhost = handshake.open_vhost(self, method.virtual_host)
        self.state = RUNNING
        self._send(spec.Connection.OpenOk())

    def on_update_secret(self, method: Any) -> None:
        """Connection.UpdateSecret."""
        self.broker.updated_secrets.append(method.new_secret)
        self._send(spec.Connection.UpdateSecretOk())

    def on_close(self, _method: Any) -> None:
        """Connection.Close."""
        self._end_channels()
        self._send(spec.Connection.CloseOk())
        self.flush()
        self._end()
        # The client ends the TCP connection; where it doesn't, this does.
        self._timer = self.broker.call_later(_CLOSE_TIMEOUT, self._lose_transport)

    # Out

    def _send(self, method: Any) -> None:
        self.send(method_frame(0, method))

    def send(self, data: bytes) -> None:
        """Send bytes at the end of this turn."""
        self._out.append(data)
        self.broker.flushes(self)

    def confirms_due(self, channel: ServerChannel) -> None:
        """Confirm at the end of this turn, as many at once as there are."""
        self._confirming[channel] = None
        self.broker.flushes(self)

    def flush(self) -> None:
        """Write what was sent in this turn."""
        if self.state == CLOSED or self.frozen:
            return
        for channel in list(self._confirming):
            if channel.state == "open":
                channel.publishing.send_confirms()
            if not channel.publishing.confirmed or channel.state != "open":
                del self._confirming[channel]
        if self._out and self.transport is not None:
            data = b"".join(self._out)
            self._out.clear()
            self._heartbeat.sent = True
            self.transport.write(data)

    # For tests

    def close(self, code: int = 320, text: str = "closed by the test") -> None:
        """Close the connection from the broker's side, with Connection.Close."""
        if self.state not in (CLOSING, CLOSED):
            self._refuse(ConnectionRefusal(Refusal(code, text)))
            self.broker.flush()

    def cut(self, *, reset: bool = False) -> None:
        """End the TCP connection without a word of AMQP.

        :param reset: with RST, which the client sees as ConnectionLost, and as ConnectionDone
            otherwise
        """
        transport = self.transport
        if transport is None or self.state == CLOSED:
            return
        self._out.clear()
        self._end()
        if reset:
            transport.abortConnection()
        else:
            transport.loseConnection()

    def freeze(self) -> None:
        """Read and write nothing until `thaw()`."""
        self.frozen = True
        self._pause()

    def thaw(self) -> None:
        """Go on after `freeze()`."""
        self.frozen = False
        self._resume()

    def block(self, reason: str = "low on memory") -> None:
        """Send Connection.Blocked, to clients that know it, and read nothing until `unblock()`."""
        if self.blocked or self.state != RUNNING:
            return
        self.blocked = True
        self._pause()
        if self.has_capability("connection.blocked"):
            self._send(spec.Connection.Blocked(reason))
        self.broker.flush()

    def unblock(self) -> None:
        """Send Connection.Unblocked, and read on."""
        if not self.blocked:
            return
        self.blocked = False
        if self.has_capability("connection.blocked"):
            self._send(spec.Connection.Unblocked())
        self._resume()

    def _pause(self) -> None:
        if self.transport is not None and self.state != CLOSED:
            self.transport.pauseProducing()

    def _resume(self) -> None:
        if self.frozen or self.blocked:
            return
        if self.transport is not None and self.state != CLOSED:
            self.transport.resumeProducing()
        self._read()
        self.broker.flush()

    # The end

    def forget_channel(self, channel: ServerChannel) -> None:
        """The number of a channel is free again."""
        if self.channels.get(channel.number) is channel:
            del self.channels[channel.number]

    def _refuse(self, refusal: ConnectionRefusal) -> None:
        self._end_channels()
        self.state = CLOSING
        self._send(
            spec.Connection.Close(refusal.code, refusal.text, refusal.class_id, refusal.method_id)
        )
        self._cancel_timer()
        self._timer = self.broker.call_later(_CLOSE_TIMEOUT, self.cut)

    def _hang_up(self) -> None:
        self.flush()
        self._end()
        self._lose_transport()

    def _lose_transport(self) -> None:
        if self.transport is not None:
            self.transport.loseConnection()

    def _end_channels(self) -> None:
        for channel in list(self.channels.values()):
            channel.end()
        if hasattr(self, "vhost"):
            self.broker.delete_exclusive(self)

    def _cancel_timer(self) -> None:
        self._heartbeat.stop()
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def _end(self) -> None:
        if self.state == CLOSED:
            return
        self.state = CLOSED
        self._cancel_timer()
        self._end_channels()
        self.broker.on_disconnected(self)


_HANDLERS: dict[type[Any], tuple[str | None, Any]] = {
    spec.Connection.StartOk: (STARTING, ServerConnection.on_start_ok),
    spec.Connection.TuneOk: (TUNING, ServerConnection.on_tune_ok),
    spec.Connection.Open: (OPENING, ServerConnection.on_open),
    spec.Connection.UpdateSecret: (RUNNING, ServerConnection.on_update_secret),
    spec.Connection.Close: (None, ServerConnection.on_close),
}
