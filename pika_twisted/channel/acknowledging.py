"""Acknowledging through the message itself, and acks that leave together.

The part of `TwistedChannel` that keeps a `Ledger`, from the moment that one is needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pika_twisted._arguments import check_ack_delay
from pika_twisted.exceptions import AlreadySettled
from pika_twisted.pika_state.channel import Channel

from .ledger import Ledger

if TYPE_CHECKING:
    from .consumer import Consumer
    from .consumers import Consumers

#: What `ack_batching = True` means.
BATCH = 100


class Settling:
    """Settles messages for `ReceivedMessage.ack()`, `nack()` and `reject()`."""

    _channel: Any
    _encoder: Any
    _records: Consumers

    def __init__(self) -> None:
        self._ledger: Ledger | None = None
        #: Where a consumer tag changed between manual acks and auto_ack: above which delivery tag,
        #: and to which of the two.
        self._auto_ack_tags: dict[str, list[tuple[int, bool]]] = {}
        #: The latest message that came through pika's state machine, or by Basic.Get.
        self._last_indirect = 0
        #: A consumer or get has been asked for: messages may have come.
        self._has_received = False
        #: Messages of a channel that is gone are settled silently: they are delivered again.
        self._ignore_late = False

    @property
    def ack_batching(self) -> int:
        """How many acks may leave together; 1: each leaves by itself.

        Settable to a number or True (100), before the channel's first consumer or get. Then acks
        leave when the turn of the reactor ends, when so many are held back, and before any other
        method of the connection; those without an open message below them leave as one.
        """
        return self._ledger.batch if self._ledger is not None else 1

    @ack_batching.setter
    def ack_batching(self, messages: int) -> None:
        if messages is True:
            messages = BATCH
        if isinstance(messages, bool) or not isinstance(messages, int) or messages < 1:
            raise ValueError(f"ack_batching must be True or a number above 0, not {messages!r}")
        if self._ledger is not None and self._ledger.complete:
            self._ledger.batch = messages
        elif self._has_received or not isinstance(self._channel, Channel):
            raise ValueError("set ack_batching before the channel's first consumer or get")
        else:
            self._keep_ledger(1, messages, complete=True)

    @property
    def ack_delay(self) -> float:
        """Seconds, 0 to 1, that acks held back for `ack_batching` may wait beyond the turn; 0.

        Settable at any time once `ack_batching` is above 1. The acks still leave when so many are
        held, with whatever else the connection writes, and before it or the channel closes. More of
        them leave as one then, which is cheaper for the broker and for you. The price: the broker
        sends no more than `prefetch_count` messages that are not acknowledged, so with one below
        four times `ack_batching` a consumer waits for its own delay; and the messages whose acks
        were held are delivered again when the process dies or the connection is lost, or the
        reactor stops without `close()`.

        :raises TypeError: it is no number
        :raises ValueError: it is out of range, or `ack_batching` is not set
        """
        return self._ledger.delay if self._ledger is not None else 0.0

    @ack_delay.setter
    def ack_delay(self, seconds: float) -> None:
        check_ack_delay(seconds, self.ack_batching)
        if self._ledger is not None and seconds != self._ledger.delay:
            self._channel.connection.flush()  # what is held goes by the delay until now
            self._ledger.delay = seconds

    def _keep_ledger(self, first: int, batch: int = 1, *, complete: bool = False) -> Ledger:
        """Look at every ack from now on."""
        ours = isinstance(self._channel, Channel)
        hold = self._channel.connection.outbound.hold_acks if ours else None
        ledger = self._ledger = Ledger(self._encoder, first, batch, hold, self._last_delivery_tag)
        ledger.complete = complete
        self._encoder = ledger
        if ours:
            self._channel.encoder.has_ledger = True  # no ack goes past the ledger any more
        for consumer in self._records:
            self._note_deliveries(consumer)
        return ledger

    def _last_delivery_tag(self) -> int:
        """Return the tag of the latest message that has come, handed out or not."""
        channel = self._channel
        direct = channel.last_delivery_tag() if isinstance(channel, Channel) else 0
        return max(direct, self._last_indirect)

    def _on_indirect(self, method: Any, auto_ack: bool) -> None:
        """Note a message that the decoder has not put into a queue itself."""
        self._has_received = True
        delivery_tag = getattr(method, "delivery_tag", 0)  # that of a test's double has none
        self._last_indirect = max(self._last_indirect, delivery_tag)
        if auto_ack and self._ledger is not None:
            self._ledger.skip(delivery_tag)

    def _note_mode(self, consumer_tag: str, auto_ack: bool) -> None:
        """Remember how a consumer that begins is acknowledged; its tag may have been another's."""
        modes = self._auto_ack_tags.get(consumer_tag)
        if modes is None:
            if not auto_ack or self._ledger is not None:  # which is told of each auto_ack message
                return
            modes = self._auto_ack_tags[consumer_tag] = [(0, False)]
        if modes[-1][1] != auto_ack:
            modes.append((self._last_delivery_tag(), auto_ack))

    def _is_auto_ack(self, method: Any) -> bool:
        """Whether a message was delivered with auto_ack, as far as the ledger does not know."""
        modes = self._auto_ack_tags.get(getattr(method, "consumer_tag", None) or "", ())
        return next((auto for above, auto in reversed(modes) if method.delivery_tag > above), False)

    def _note_deliveries(self, consumer: Consumer) -> None:
        """Have the ledger told what comes for an auto_ack consumer."""
        if consumer.auto_ack and consumer.consumer_tag is not None:
            # Its tags are to be skipped one by one; the decoder would hand them out unseen.
            self._channel.deliver_indirectly(consumer.consumer_tag)

    def ignore_late_acks(self) -> None:
        """Ignore acks, nacks and rejects once the channel is gone, instead of raising.

        For a service: what the channel delivered is delivered again, so they mean nothing.
        """
        self._ignore_late = True

    def _is_settled(self, message: Any) -> bool:
        """Whether a message is settled, by whichever method from the first time this is asked."""
        tag = message.method.delivery_tag
        ledger = self._ledger or self._keep_ledger(tag)
        return ledger.is_settled(tag)

    def _settle(self, name: str, message: Any, *arguments: bool) -> None:
        """What a message's `ack()`, `nack()` and `reject()` do."""
        method = message.method
        tag = getattr(method, "delivery_tag", None)
        if tag is None:
            raise TypeError("A message that the broker returned can't be acknowledged or refused")
        if self._auto_ack_tags and self._is_auto_ack(method):
            raise AlreadySettled(
                f"The message with delivery tag {tag} was delivered with auto_ack: the broker "
                "counts it as acknowledged"
            )
        if self._ignore_late and not self._channel.encoder.open:
            return
        ledger = self._ledger or self._keep_ledger(tag)
        if getattr(ledger, name)(tag, *arguments):
            self._channel.flush()
