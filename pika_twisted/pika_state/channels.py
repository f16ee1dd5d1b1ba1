"""The channels of a connection: opened, numbered, wired to the decoder, and whether one waits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pika.channel
import pika.connection
from pika import exceptions as pika_exceptions
from pika import spec

from pika_twisted.transport.read_gate import ReadGate

from .channel import Channel
from .channel_numbers import ChannelNumbers
from .closing import ClosingConnection


class ConnectionWithChannels(ClosingConnection):
    """pika's connection, whose channels are ours."""

    gate: ReadGate
    _direct_delivery: bool
    _numbers: ChannelNumbers
    #: Channels that have asked for something, and may have their answer by now.
    _asking: dict[Channel, None]
    #: Channels in confirm mode.
    _confirming: dict[Channel, None]

    def _forget_channels(self) -> None:
        """Begin anew: a connection begins, or has ended."""
        self._asking.clear()
        self._confirming.clear()
        self._numbers = ChannelNumbers()

    @property
    def channel_count(self) -> int:
        """How many channels there are, those that open or close included."""
        return len(self._channels)

    @property
    def twisted_channels(self) -> list[Any]:
        """The `TwistedChannel`s that are not closed."""
        found = [each.twisted_channel for each in self._channels.values()]
        return [each for each in found if each is not None and each._closed is None]

    def channel(
        self,
        channel_number: int | None = None,
        on_open_callback: Callable[..., Any] | None = None,
    ) -> Channel:
        """Open a channel. See pika.connection.Connection.channel; a number in use is refused."""
        # Tools such as OpenTelemetry's instrumentation of pika wrap pika's method of this name.
        wrapper = getattr(vars(pika.connection.Connection)["channel"], "_self_wrapper", None)
        if wrapper is None:
            return self._open_channel(channel_number, on_open_callback)
        opened: Channel = wrapper(self._open_channel, self, (channel_number, on_open_callback), {})
        return opened

    def _open_channel(
        self, channel_number: int | None, on_open_callback: Callable[..., Any] | None
    ) -> Channel:
        if channel_number is not None:
            limit = self.params.channel_max or pika.channel.MAX_CHANNELS
            if isinstance(channel_number, bool) or not isinstance(channel_number, int):
                raise TypeError(f"channel_number must be an int, got {channel_number!r}")
            if not 0 <= channel_number <= limit:
                raise pika_exceptions.InvalidChannelNumber(
                    f"channel_number {channel_number} is not between 1 and {limit}"
                )
            if channel_number in self._channels:
                raise pika_exceptions.InvalidChannelNumber(
                    f"channel_number {channel_number} is in use on this connection"
                )
        if not self.is_open:
            raise pika_exceptions.ConnectionWrongStateError(f"The connection is not open: {self}")
        number = channel_number or self._next_channel_number()
        self._numbers.take(number)
        # Not pika's method, which looks the channel up by its number when it has sent Channel.Open:
        # that is forgotten where a transport ends, or brings Channel.Close, within write().
        channel = self._channels[number] = self._create_channel(number, on_open_callback)
        self._add_channel_callbacks(number)
        channel.open()
        return channel

    def _create_channel(
        self, channel_number: int, on_open_callback: Callable[..., Any] | None
    ) -> Channel:
        return Channel(self, channel_number, on_open_callback)

    def subscribe(
        self, channel_number: int, consumer_tag: str, backlog: Any, channel: object, token: object
    ) -> None:
        """Let the decoder put this consumer's messages into `backlog` itself.

        The one shortcut past pika's state machine; `direct_delivery=False` closes it.
        """
        if self._direct_delivery:
            self.inbound.decoder.subscribe(channel_number, consumer_tag, backlog, channel, token)

    def unsubscribe(self, channel_number: int, consumer_tag: str) -> None:
        """Send what comes for this consumer through pika's state machine again."""
        self.inbound.decoder.unsubscribe(channel_number, consumer_tag)

    def last_delivery_tag(self, channel_number: int) -> int:
        """Return the tag of the latest message that the decoder itself has put into a backlog."""
        decoder = self.inbound.decoder
        return 0 if decoder is None else int(decoder.last_delivery_tag(channel_number))

    def collect_confirms(
        self, channel_number: int, confirms: list[Any] | None, token: object
    ) -> None:
        """Let the decoder put this channel's Basic.Ack and Basic.Nack into `confirms` itself."""
        if self._direct_delivery:
            self.inbound.decoder.collect_confirms(channel_number, confirms, token)

    def _next_channel_number(self) -> int:
        limit = self.params.channel_max or pika.channel.MAX_CHANNELS
        return self._numbers.next(self._channels, limit)

    def _on_channel_cleanup(self, channel: Channel) -> None:
        self._numbers.close(channel.channel_number, channel.ever_auto_ack)
        self.inbound.decoder.forget_channel(channel.channel_number)
        self._asking.pop(channel, None)
        self._confirming.pop(channel, None)
        super()._on_channel_cleanup(channel)

    def _awaits_broker(self) -> bool:
        """Whether anything waits for an answer that the transport still has to bring."""
        if not self.is_open or self.callbacks.pending(0, spec.Connection.UpdateSecretOk):
            return True
        # Not all channels: 186 us after each read with 2,000 of them.
        for channel in list(self._asking):
            if channel.awaits_answer():
                return True
            del self._asking[channel]
        return any(channel.unconfirmed() for channel in self._confirming)

    def asks(self, channel: Channel) -> None:
        """Note that `channel` has asked the broker for something, and read on."""
        self._asking[channel] = None
        self.gate.resume()

    def confirms(self, channel: Channel) -> None:
        """Note that `channel` may wait for confirms."""
        self._confirming[channel] = None
