"""`RecoveringService.publisher()`: a publisher that goes on, on one channel after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pika import exceptions as pika_exceptions
from pika import spec
from twisted.python.failure import Failure

from pika_twisted._reasons import fresh_exception
from pika_twisted.publisher import PendingPublish, Publisher

#: What a publish fails with when its channel or connection ends before the confirm.
_LOST = (
    pika_exceptions.ChannelClosed,
    pika_exceptions.ChannelWrongStateError,
    pika_exceptions.AMQPConnectionError,
)


class RecoveringPublisher(Publisher):
    """A `Publisher` whose channel may be lost.

    :param wait_when_down: take publishes while there is no channel
    :param resend_when_lost: send on the next channel what a lost one has left unconfirmed. A broker
        that closes the channel for a publish does not say for which one: those in flight then go
        one at a time, in their order, and the one that is refused alone fails
    :param why_down: returns why there is no connection; None when there is one
    :param on_end: called once when it is closed and nothing is in flight any more
    :param options: as `Publisher`
    """

    def __init__(
        self,
        *,
        wait_when_down: bool = True,
        resend_when_lost: bool = False,
        why_down: Callable[[], BaseException | None] = lambda: None,
        on_end: Callable[[RecoveringPublisher], Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(None, **options)
        self._waits_when_down = wait_when_down
        self._resends = resend_when_lost
        self._reason_for_down = why_down
        self._ended = on_end
        # The channel that the broker closed for a publish, and whether that was alone there.
        self._refused_on: Any = None
        self._was_alone = False

    def go_on(self, channel: Any) -> None:
        """Publish on this channel from now on."""
        self._refused_on = None
        self._attach(channel).addErrback(lambda _: None)  # the channel's end tells of it

    def _why_down(self) -> BaseException | None:
        return self._reason_for_down()

    def _is_kept(self, one: PendingPublish) -> bool:
        return self._resends or super()._is_kept(one)

    def _on_attach_failed(self, why: BaseException | None) -> None:
        pass  # there will be another channel

    def _on_channel_closed(self, channel: Any, reason: BaseException) -> None:
        if channel is self._channel:
            self._channel = None
        if self._waits_when_down:
            return
        # What was sent is here to be sent again: that is when_lost, not when_down.
        new = [one for one in self._waiting if not one.sent]
        for one in new:
            del self._waiting[one]
        for one in new:
            self._finish(one, Failure(fresh_exception(reason)))
        self._check_idle()

    def _has_room(self, one: PendingPublish) -> bool:
        if self._in_flight and next(iter(self._in_flight)).suspect:
            return False
        return super()._has_room(one)

    def _goes_again(self, one: PendingPublish, why: BaseException | None) -> bool:
        refusal = _is_refusal(why)
        if refusal and self._refused_on is not self._channel:  # the oldest, which is told first
            self._refused_on = self._channel
            self._was_alone = len(self._in_flight) == 1
        if not self._resends or self._closed is not None or one.deferred is None:
            return False
        if refusal:
            one.suspect = True
            return not self._was_alone
        return isinstance(why, _LOST)

    def _on_end(self) -> None:
        super()._on_end()
        ended, self._ended = self._ended, None
        if ended is not None:
            ended(self)


def _is_refusal(why: BaseException | None) -> bool:
    """Whether the broker has closed channel or connection for something that was asked of it."""
    if isinstance(why, pika_exceptions.ConnectionClosedByBroker):
        return why.reply_code != spec.CONNECTION_FORCED
    return isinstance(why, pika_exceptions.ChannelClosedByBroker)
