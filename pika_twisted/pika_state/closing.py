"""How a connection ends: what is still sent, who aborts it when, and the reason that stays."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

from pika import exceptions as pika_exceptions
from pika import frame, spec

from pika_twisted._reasons import final_reason, with_note
from pika_twisted.codec.methods import encode_method
from pika_twisted.exceptions import DecodeError, HandshakeTimeout, ProtocolViolation, reason
from pika_twisted.stats import ChannelCounts
from pika_twisted.transport.inbound import Inbound
from pika_twisted.transport.outbound import Outbound
from pika_twisted.transport.read_gate import ReadGate
from pika_twisted.transport.sockets import abort, unsent

from .timers import TimedConnection

LOGGER = logging.getLogger("pika_twisted")

#: Seconds that an orderly close of the transport may take before it is aborted. By then the peer
#: has answered everything, so only a dead one, or a TLS peer that owes its close_notify, is cut.
LINGER = 0.5

#: So often in a row the peer may have taken nothing of what is unsent; four looks are made in
#: `close_timeout`, and the first finds what the kernel's buffer took.
_STALLED_LOOKS = 3

#: Reasons that mean a silent or stuck peer: waiting for it to take our data would wait for TCP's
#: own timers, about 15 minutes.
_ABORTING = (
    pika_exceptions.AMQPHeartbeatTimeout,
    pika_exceptions.ConnectionBlockedTimeout,
    HandshakeTimeout,
)


#: Ends that need no warning: asked for, or told as an error already.
_KNOWN = (pika_exceptions.ConnectionClosedByClient, ProtocolViolation)


class ClosingConnection(TimedConnection):
    """pika's connection, with one `Reason` for every end: the first that is known.

    It is kept in `close_reason`; channels and waiters are told the same.
    """

    _error: Any
    _handshake_timeout: float
    _close_timeout: float
    inbound: Inbound
    outbound: Outbound
    close_reason: Exception | None
    _block = ""
    _block_counts_until = 0.0
    gate: ReadGate
    _stall_timer: Any = None

    def close(self, reply_code: int = 200, reply_text: str = "Normal shutdown") -> None:
        """Close the connection as AMQP asks; a second call changes nothing.

        The peer has `close_timeout` seconds to answer, then the transport is aborted.
        """
        if self.is_closed or self.is_closing or self.inbound.stopped:  # it ends already
            return
        # The codes that can't be sent fail here, before anything else is closed.
        encode_method(0, spec.Connection.Close(reply_code, reply_text, 0, 0))
        if not self._opened:
            super().close(reply_code, reply_text)
            if self._transport is None:
                self._on_stream_terminated(None)
            return
        self._guard(self._close_timeout, self._on_close_timeout)
        # As channels do before they close; where the transport ends, none is left.
        self.outbound.flush()
        for channel in list(self._channels.values()):
            if not (channel.is_closing or channel.is_closed):
                channel.close(reply_code, reply_text)
        if self.is_closed or self.is_closing:  # the transport has ended, or a callback has, within
            return
        self._set_connection_state(self.CONNECTION_CLOSING)
        self._error = reason(
            pika_exceptions.ConnectionClosedByClient, reply_code, reply_text, orderly=True
        )
        if not self._channels:  # else the last one's end does it
            self._on_close_ready()

    def abort(self, why: Exception) -> None:
        """Drop the transport at once, for the reason given."""
        if self._error is None:
            self._error = why
        self._remove_heartbeat()
        self.inbound.stopped = True
        if self._transport is not None:
            abort(self._transport)
        elif self.close_reason is None:
            self._on_stream_terminated(None)

    def _refuse(self, refusal: DecodeError, cause: BaseException | None = None) -> None:
        """End the connection for what the peer did: Connection.Close and its code, then the end."""
        LOGGER.error("Closing the connection: %s", refusal)
        if self.inbound.stopped or self.is_closed:
            return
        close = spec.Connection.Close(refusal.reply_code, refusal.reply_text[:255], 0, 0)
        why = reason(
            ProtocolViolation,
            refusal.reply_code,
            refusal.reply_text,
            orderly=False,
            cause=cause or refusal,
        )
        self._end_after(close, why)

    def _on_connection_close_from_broker(self, method_frame: frame.Method[Any]) -> None:
        method = method_frame.method
        why = reason(
            pika_exceptions.ConnectionClosedByBroker,
            method.reply_code,
            method.reply_text,
            orderly=True,
        )
        why.method_index = method.class_id << 16 | method.method_id
        self._end_after(spec.Connection.CloseOk(), why)

    def _end_after(self, last: Any, why: Exception) -> None:
        """Send a last method, and end the transport; which may end by itself within write()."""
        if self._error is None:
            self._error = why
        self._send_method(0, last)
        self._terminate_stream(why)

    def _terminate_stream(self, error: Exception | None) -> None:
        """pika's way to end the transport; the first reason is the one that stays."""
        if self._error is None:
            self._error = error
        self._remove_heartbeat()
        self.inbound.stopped = True
        if isinstance(error, _ABORTING):
            self.abort(error)
        else:
            self._adapter_disconnect_stream()

    def _on_stream_terminated(self, error: Exception | None) -> None:
        self.inbound.stopped = True
        self._cancel_guard()
        timer, self._stall_timer = self._stall_timer, None
        if timer is not None:
            timer.cancel()
        why = self._error if self._error is not None else error
        final = final_reason(why, self._opened, self.connection_state)
        if isinstance(final, pika_exceptions.StreamLostError) and self._is_after_block():
            final = with_note(final, self._block)
        self._error = self.close_reason = final
        if self._opened and not isinstance(final, _KNOWN):
            host, port = self.params.host, self.params.port
            LOGGER.warning("Connection to %s:%s lost: %s", host, port, final)
        for channel in list(self._channels.values()):
            channel.lose(self._error)
        # pika would guess from the state why a handshake failed, without the code and the text.
        self._set_connection_state(self.CONNECTION_CLOSED)
        super()._on_stream_terminated(None)
        self.past_channels, self.is_blocked = ChannelCounts(), False

    def note_block(self, seconds: float) -> None:
        """Take note that nothing ran for so long: the broker may have given the connection up."""
        heartbeat = self.params.heartbeat
        note = f"the reactor was blocked for {seconds:.1f} s; heartbeat is {heartbeat} s"
        LOGGER.warning("Heartbeats are late: %s. Let deferToThread() run what blocks", note)
        self._block = note
        self._block_counts_until = self.seconds() + 2 * (heartbeat + 5)

    def _is_after_block(self) -> bool:
        return bool(self._block) and self.seconds() < self._block_counts_until

    def _on_transport_closing(self, how: str) -> None:
        """The transport's `loseConnection()` was called, by us or, as ClientService does, past us.

        It waits until the peer has taken what is unsent, and reads nothing meanwhile, so heartbeats
        don't notice that the peer is gone.
        """
        self.gate.stay_open()
        if how == "loseConnection" and not self.inbound.stopped and self._stall_timer is None:
            self._watch_for_stall(0, None)

    def _watch_for_stall(self, looks: int, before: int | None) -> None:
        """Abort the transport when its peer takes nothing for three quarters of `close_timeout`."""
        left = None if self._transport is None else unsent(self._transport)
        looks = looks + 1 if left == before else 0
        if looks == _STALLED_LOOKS:
            text = f"the peer took no data for {self._close_timeout:g} s after loseConnection()"
            LOGGER.warning("Aborting the connection: %s", text)
            self.abort(reason(pika_exceptions.StreamLostError, 0, text, orderly=False))
            return
        delay = max(self._close_timeout, LINGER) / (_STALLED_LOOKS + 1)
        self._stall_timer = self.call_later(delay, partial(self._watch_for_stall, looks, left))

    def _adapter_disconnect_stream(self) -> None:
        self.outbound.flush()
        self.inbound.stopped = True
        if self._transport is not None:
            self._guard(LINGER, partial(abort, self._transport))
            self._transport.loseConnection()

    def _on_handshake_timeout(self) -> None:
        text = f"the AMQP handshake took longer than handshake_timeout={self._handshake_timeout} s"
        self._terminate_stream(reason(HandshakeTimeout, 0, text, orderly=False))

    def _on_close_timeout(self) -> None:
        LOGGER.warning("No Connection.CloseOk within %s s; aborting", self._close_timeout)
        code, text = self._error.args if self._error else (0, "closed")
        kind = pika_exceptions.ConnectionClosedByClient
        self._error = reason(kind, code, text, orderly=False)
        self.abort(self._error)
