"""pika's connection state machine, fed by the compiled decoder and written through one buffer.

Its other parts are `channels`, `closing` and `timers`, each a class below this one. pika's own
frame buffer is never used.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import pika.channel
import pika.connection
from pika import exceptions as pika_exceptions
from pika import frame, spec
from twisted.internet import error as twisted_error
from twisted.python.failure import Failure

from pika_twisted._guard import guarded
from pika_twisted._requirements import numbers
from pika_twisted.codec import chooser as _codec
from pika_twisted.codec.methods import encode_method
from pika_twisted.exceptions import BrokerLimit, DecodeError, reason
from pika_twisted.stats import ChannelCounts
from pika_twisted.transport.inbound import Inbound
from pika_twisted.transport.outbound import FRAME_MIN_SIZE, Outbound
from pika_twisted.transport.pacing import FloodGate, IntervalGate
from pika_twisted.transport.read_gate import ReadGate, WaterMarks
from pika_twisted.transport.sockets import abort

from . import heartbeat as liveness
from .channel import Channel
from .channels import ConnectionWithChannels

#: Bytes of Connection.StartOk, its frame included: before the tuning it is `frame_min_size`, which
#: RabbitMQ raised from 4,096 to 8,192 in 4.1, and made a setting (`initial_frame_max`).
LONGEST_LOGIN = 4096

#: What settles publishes of a channel in confirm mode.
_CONFIRMS = (spec.Basic.Ack, spec.Basic.Nack)

#: What may come for a channel that is being opened.
_OPENING = (spec.Channel.OpenOk, spec.Channel.Close)


class Connection(ConnectionWithChannels):
    """pika's connection over a transport that Twisted connects.

    `data_received()` never raises.
    """

    #: Bytes of Connection.StartOk.
    login_size = 0

    #: What a message is made of: `message_class(channel, method, properties, body)`.
    message_class: type[Any]

    def __init__(
        self,
        parameters: pika.connection.Parameters | None,
        on_open_callback: Callable[..., Any] | None,
        on_open_error_callback: Callable[..., Any] | None,
        on_close_callback: Callable[..., Any] | None,
        custom_reactor: Any = None,
        *,
        direct_delivery: bool = True,
        max_message_size: int = 128 << 20,
        max_header_size: int = 1 << 20,
        max_nesting: int = 100,
        handshake_timeout: float = 15.0,
        close_timeout: float = 10.0,
        water_marks: WaterMarks | None = None,
        read_interval: float | None = None,
    ) -> None:
        self.gate = self._make_gate(water_marks, read_interval)
        self.outbound = Outbound(self.call_later)
        self.inbound = Inbound(self.outbound, self.gate, self._process_one, self._refuse)
        self._on_data_available = self.inbound.receive
        self._direct_delivery = direct_delivery
        self._limits = {
            "max_message_size": max_message_size,
            "max_header_size": max_header_size,
            "max_nesting": max_nesting,
        }
        self._handshake_timeout = handshake_timeout
        self._close_timeout = close_timeout
        self._reactor = custom_reactor
        self._transport = None
        # The callbacks of secrets under way. pika would call all of them at the first answer.
        self._secrets: deque[Callable[..., Any] | None] = deque()
        self.past_channels = ChannelCounts()
        self.close_reason: Exception | None = None
        self.is_blocked = False
        self._asking: dict[Channel, None] = {}
        self._confirming: dict[Channel, None] = {}
        super().__init__(
            parameters,
            on_open_callback,
            on_open_error_callback,
            on_close_callback,
            internal_connection_workflow=False,
        )

    def _make_gate(self, water_marks: WaterMarks | None, read_interval: float | None) -> ReadGate:
        watching = (water_marks, self._awaits_broker, self.seconds)
        resting = (lambda: self.messages_received, self.call_later)
        if read_interval is None:
            return FloodGate(*watching, *resting)
        if read_interval:
            return IntervalGate(read_interval, *watching, *resting)
        return ReadGate(*watching)

    def _init_connection_state(self) -> None:
        # pika calls this from its constructor and again after the stream has ended.
        # What was asked for holds from Tune on: an operator can give Connection.Start any number of
        # server properties.
        limit = max(self.params.frame_max or 0, spec.FRAME_MAX_SIZE)
        decoder = _codec.FrameDecoder(self.message_class, frame_max=limit, **self._limits)
        self.inbound.start(decoder)
        super()._init_connection_state()
        self.messages_indirect = 0
        self._forget_channels()

    # What Twisted tells us

    def connection_made(self, transport: Any) -> None:
        """Start the handshake on a connected transport."""
        if self.close_reason is not None:  # closed or cancelled before it was connected
            abort(transport)
            return
        self._transport = self.gate.transport = transport
        self.outbound.attach(transport, self._on_transport_closing)
        if self._handshake_timeout:
            self._guard(self._handshake_timeout, self._on_handshake_timeout)
        self._on_stream_connected()

    def data_received(self, data: bytes) -> None:
        """Take what the transport read, cut anywhere."""
        self._on_data_available(data)

    def connection_lost(self, error: Failure) -> None:
        """The transport is gone: every channel and every waiter learns why."""
        self._transport = None
        self.gate.end()
        self.outbound.detach()
        why: Any = error.value
        if isinstance(why, twisted_error.ConnectionDone):
            # The end that both sides expected; a reason that is known already is the better one.
            if self._error is None:
                self._error = why
            why = None
        self._on_stream_terminated(why)

    # The handshake

    def _on_connection_tune(self, method_frame: frame.Method[Any]) -> None:
        offered = method_frame.method.frame_max
        if 0 < offered < FRAME_MIN_SIZE:
            raise DecodeError(spec.FRAME_ERROR, f"frame_max {offered} is below {FRAME_MIN_SIZE}")
        super()._on_connection_tune(method_frame)
        self.inbound.decoder.frame_max = self.outbound.buffer.frame_max = self.params.frame_max

    def _on_connection_open_ok(self, method_frame: frame.Method[Any]) -> None:
        self._cancel_guard()
        super()._on_connection_open_ok(method_frame)

    def _create_heartbeat_checker(self) -> liveness.HeartbeatChecker | None:
        heartbeat = self.params.heartbeat
        return liveness.HeartbeatChecker(self, heartbeat) if heartbeat else None

    def _adapter_connect_stream(self) -> None:
        raise pika_exceptions.AMQPConnectionError("Twisted connects the transport, not pika")

    # Inbound

    @property
    def late_frames(self) -> int:
        """How many frames came for channels that were closed, and were dropped."""
        return self._numbers.late_frames

    def _process_one(self, value: Any) -> None:
        self._process_frame(value)

    # pika counts from 0 when a connection begins, and adds 1 for a frame that it processes; its
    # heartbeats look whether more octets have come.

    @property
    def bytes_received(self) -> int:
        """How many octets have come."""
        return self.inbound.octets

    @bytes_received.setter
    def bytes_received(self, count: int) -> None:
        self.inbound.octets = count

    @property
    def frames_received(self) -> int:
        """How many frames have come, those that the decoder delivered itself included."""
        return self.inbound.frames

    @frames_received.setter
    def frames_received(self, count: int) -> None:
        self.inbound.frames_processed += count - self.inbound.frames

    @property
    def messages_received(self) -> int:
        """How many messages have come for consumers and gets."""
        return int(self.inbound.decoder.messages_direct) + self.messages_indirect

    def _process_frame(self, value: Any) -> None:
        """Check what pika's state machine takes on trust, then hand the frame to it."""
        if type(value) is frame.Heartbeat:
            # pika's way costs 8 us for each of the thousands that one read can hold.
            self.inbound.frames_processed += 1
            if self._heartbeat_checker is not None:
                self._heartbeat_checker.received()
            return
        if isinstance(value, frame.ProtocolHeader):
            text = f"the server answered with AMQP {value.major}-{value.minor}-{value.revision}"
            self._terminate_stream(pika_exceptions.IncompatibleProtocolError(text))
            return
        number = value.channel_number
        channel = self._channels.get(number)
        if number and self._is_late(number, channel, value):
            return
        if isinstance(value, frame.Method):
            self._process_method(value, channel)
        elif isinstance(value, _codec.OversizedContent):
            channel.refuse_content(value)  # pyright: ignore[reportOptionalMemberAccess]
        else:
            super()._process_frame(value)

    def _is_late(self, number: int, channel: Channel | None, value: Any) -> bool:
        """Whether a frame is of a channel that was closed before, and is to be dropped."""
        if channel is None:
            if self._numbers.drop(number):
                return True
            raise DecodeError(
                spec.CHANNEL_ERROR, f"frame for channel {number}, which was not opened"
            )
        if not channel.is_opening or isinstance(getattr(value, "method", None), _OPENING):
            return False
        self._numbers.late_frames += 1
        return True

    def _process_method(self, value: frame.Method[Any], channel: Channel | None) -> None:
        method = value.method
        if channel is None:
            if not self._expects(value):
                raise DecodeError(spec.COMMAND_INVALID, f"{method.NAME} is not expected now")
            super()._process_frame(value)
        elif type(method) in _CONFIRMS and channel.on_confirm is not None:
            # Through pika's callback manager a confirm costs 11 us, three quarters of them there.
            self.inbound.frames_processed += 1
            channel.take_confirm(value)
        elif type(method) is spec.Basic.Cancel and not channel.take_cancel(method.consumer_tag):
            self.inbound.frames_processed += 1
        elif spec.has_content(method.INDEX):
            # pika would stop at an observer's callback and lose the method of the content.
            self.inbound.frames_processed += 1
            if not isinstance(method, spec.Basic.Return):
                self.messages_indirect += 1
            self._process_callbacks(value)
            if value.channel_number in self._channels:
                channel._handle_content_frame(value)
        else:
            super()._process_frame(value)

    def _expects(self, value: frame.Method[Any]) -> bool:
        """Whether a Connection method may come now; it takes note of blocked and unblocked."""
        method = value.method
        if isinstance(method, (spec.Connection.Blocked, spec.Connection.Unblocked)):
            self.is_blocked = isinstance(method, spec.Connection.Blocked)
            return bool(self._opened)
        return bool(self._has_pending_callbacks(value))

    # Outbound

    def flush(self) -> None:
        """Write everything that was encoded and still waits."""
        self.outbound.flush()

    def _output_marshaled_frames(self, marshaled_frames: Sequence[bytes]) -> None:
        self.outbound.write(marshaled_frames)

    def _send_method(self, channel_number: int, method: Any, content: Any = None) -> None:
        if content:
            super()._send_method(channel_number, method, content)
            return
        encoded = encode_method(channel_number, method)
        if type(method) is spec.Connection.StartOk and self._is_too_long(len(encoded)):
            return
        self._output_marshaled_frames([encoded])

    def _is_too_long(self, size: int) -> bool:
        """Whether the broker resets connections with a Connection.StartOk of this size."""
        self.login_size = size
        version = self.rabbitmq_version
        too_long = version is not None and version < (4, 1) and size > LONGEST_LOGIN
        if too_long:
            text = (
                f"the login is too long: Connection.StartOk has {size:,} bytes, RabbitMQ before "
                f"4.1 takes {LONGEST_LOGIN:,}; shorten the password (token) or client_properties"
            )
            self._terminate_stream(reason(BrokerLimit, 0, text, orderly=False))
        return too_long

    # pika counts from 0 when a connection begins.

    @property
    def bytes_sent(self) -> int:
        """How many octets were written."""
        return int(self.outbound.buffer.bytes_written)

    @bytes_sent.setter
    def bytes_sent(self, count: int) -> None:
        self.outbound.buffer.bytes_written = count

    @property
    def frames_sent(self) -> int:
        """How many frames were written."""
        return int(self.outbound.buffer.frames_written)

    @frames_sent.setter
    def frames_sent(self, count: int) -> None:
        self.outbound.buffer.frames_written = count

    def _adapter_emit_data(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    # Requests of the connection itself

    def update_secret(
        self, new_secret: str, reason: str, callback: Callable[..., Any] | None = None
    ) -> None:
        """See pika.connection.Connection.update_secret; each call gets its own answer, in order."""
        secret = spec.Connection.UpdateSecret(new_secret, reason)
        encode_method(0, secret, self.outbound.buffer.frame_max)
        if self.is_open:  # else pika raises
            self._secrets.append(callback)
        super().update_secret(new_secret, reason, self._on_secret_updated)

    def _on_secret_updated(self, method_frame: frame.Method[Any]) -> None:
        callback = self._secrets.popleft()
        if callback is not None:
            callback(method_frame)

    def _rpc(
        self,
        channel_number: int,
        method: Any,
        callback: Callable[..., Any] | None = None,
        acceptable_replies: Sequence[Any] | None = None,
    ) -> None:
        super()._rpc(channel_number, method, callback, acceptable_replies)
        self.gate.resume()

    @property
    def is_rabbitmq(self) -> bool:
        """Whether the server properties say that the broker is RabbitMQ."""
        return (self.server_properties or {}).get("product") == "RabbitMQ"

    @property
    def rabbitmq_version(self) -> tuple[int, ...] | None:
        """RabbitMQ's version in numbers; None before it says so, or if it is another broker."""
        version = str((self.server_properties or {}).get("version", ""))
        return numbers(version) or None if self.is_rabbitmq else None

    @property
    def accept_consumer_cancel_ok(self) -> bool:
        """Whether the broker takes a Basic.CancelOk for its own Basic.Cancel (RabbitMQ 4.3.7)."""
        return bool((self.server_capabilities or {}).get("accept_consumer_cancel_ok", False))

    @property
    def times_out_deliveries(self) -> bool:
        """Whether the broker cancels consumers whose deliveries time out (RabbitMQ 4.3)."""
        return (self.rabbitmq_version or ()) >= (4, 3)

    # Callbacks of users: pika's methods, kept from raising into the state machine

    def add_on_connection_blocked_callback(self, callback: Callable[..., Any]) -> None:
        """See pika.connection.Connection.add_on_connection_blocked_callback."""
        super().add_on_connection_blocked_callback(guarded(callback, "blocked callback"))

    def add_on_connection_unblocked_callback(self, callback: Callable[..., Any]) -> None:
        """See pika.connection.Connection.add_on_connection_unblocked_callback."""
        super().add_on_connection_unblocked_callback(guarded(callback, "unblocked callback"))
