"""Publishing on a channel: the confirms and the returned messages that it brings.

The part of `TwistedChannel` that knows its `PublisherConfirms`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, cast

from pika import frame, spec
from twisted.internet import defer

from pika_twisted._guard import guarded
from pika_twisted._reasons import fresh_exception
from pika_twisted.deferreds.lazy import succeeded
from pika_twisted.deferreds.waiters import Waiters
from pika_twisted.pika_state.channel import Channel

from .confirms import PublisherConfirms
from .queue import ReceivedMessage

LOGGER = logging.getLogger("pika_twisted")


class Publishing:
    """Publishes, and tells each publish what became of it."""

    _channel: Any
    _encoder: Any
    _closed: BaseException | None
    _call: Callable[..., defer.Deferred[Any]]

    def __init__(self) -> None:
        super().__init__()
        self._confirms = PublisherConfirms()
        #: Confirm.Select is under way; its waiters may have been cancelled.
        self._selecting = False
        self._select_waiters = Waiters()
        self._return_callbacks: list[Callable[[ReceivedMessage[spec.Basic.Return]], Any]] | None = (
            None
        )

    def basic_publish(
        self,
        exchange: str,
        routing_key: str,
        body: bytes,
        properties: spec.BasicProperties | None = None,
        mandatory: bool = False,
    ) -> defer.Deferred[Any]:
        """Publish a message.

        :returns: a Deferred. Without `confirm_delivery()` it has fired with None: the message is on
            its way. With it, it fires with the broker's Basic.Ack.
        :raises: nothing; the Deferred fails with UnroutableError (a mandatory message was returned;
            its `messages` hold it), NackError, the reason when the channel closes first, TypeError
            or ValueError naming an argument that can't be encoded, or properties of more octets
            than frame_max (nothing is sent then)
        """
        encoder = self._encoder
        if not encoder.open:
            return self._refused()
        try:
            due = encoder.publish(exchange, routing_key, body, properties, mandatory)
        except Exception:
            return defer.fail()
        # Registered before it is written: a transport may answer within write().
        confirms = self._confirms
        if confirms.enabled:
            channel = self._channel
            encoded = channel.encoder.sent_properties if isinstance(channel, Channel) else None
            deferred = confirms.expect(exchange, routing_key, body, mandatory, encoded)
        else:
            deferred = succeeded()
        if due:
            self._channel.flush()
        return deferred

    def _refused(self) -> defer.Deferred[Any]:
        """A Deferred that has failed because the channel can't be used."""
        gone = self._closed or self._channel.close_reason
        if gone is not None:
            return defer.fail(fresh_exception(gone))
        return defer.execute(self._channel.flush)  # which raises: it is closing

    def confirm_delivery(self) -> defer.Deferred[frame.Method[spec.Confirm.SelectOk]]:
        """Turn on publisher confirms: from now on `basic_publish()` waits for the broker's answer.

        May be called again, at any time.

        :returns: a Deferred that fires with the frame of Confirm.SelectOk
        """
        if self._closed:
            return defer.fail(fresh_exception(self._closed))
        waiter = self._select_waiters.wait()
        if not self._selecting and not self._select_waiters.concluded:
            self._selecting = True
            self._watch_returns()
            options: dict[str, Any] = {"ack_nack_callback": self._on_delivery_confirmation}
            if isinstance(self._channel, Channel):
                options["on_sent"] = self._on_select_sent
                self._channel.unconfirmed = lambda: self._confirms.outstanding
                self._confirms.awaited = self._channel.connection.gate.resume
            self._call("confirm_delivery", self._on_select_ok, **options).addBoth(self._selected)
        return waiter

    def _on_select_sent(self) -> None:
        """Confirm.Select was written: the next publish is the first that the broker numbers."""
        self._confirms.select_sent()
        self._channel.encoder.expect = self._confirms.expect
        self._channel.collect_confirms(self._confirms.arrived, self._confirms.wake)

    def _selected(self, result: Any) -> None:
        """Tell everybody who called `confirm_delivery()` how it went."""
        self._selecting = False
        self._select_waiters.fire(result)

    def _on_select_ok(self, method_frame: frame.Method[Any]) -> frame.Method[Any]:
        self._confirms.select_ok()
        self._select_waiters.conclude(method_frame)
        return method_frame

    def _on_delivery_confirmation(self, method_frame: frame.Method[Any]) -> None:
        self._confirms.confirm(method_frame.method)

    @property
    def _deliveries(self) -> dict[int, defer.Deferred[Any]]:
        """Publish number -> Deferred, for every publish that is not yet confirmed."""
        return self._confirms.deliveries

    def add_on_return_callback(
        self, callback: Callable[[ReceivedMessage[spec.Basic.Return]], Any]
    ) -> None:
        """Call `callback(message)` for each message that the broker returns (Basic.Return).

        `message` is a `ReceivedMessage` with this channel, the Basic.Return, the properties and the
        body. An exception in it goes to the Twisted log.
        """
        self._watch_returns().append(guarded(callback, "return callback"))

    def _watch_returns(self) -> list[Callable[[ReceivedMessage[spec.Basic.Return]], Any]]:
        if self._return_callbacks is None:
            self._return_callbacks = []
            self._channel.add_on_return_callback(self._on_returned)
        return self._return_callbacks

    def _on_returned(self, _channel: Any, method: Any, properties: Any, body: bytes) -> None:
        message = ReceivedMessage(cast(Any, self), method, properties, body)
        if self._confirms.enabled and not self._confirms.returned(message):
            LOGGER.warning("Returned message matches no outstanding publish: %r", method)
        for callback in list(self._return_callbacks or ()):
            callback(message)
