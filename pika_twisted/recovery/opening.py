"""Opening the channel of a service: on a new connection, and when the broker has closed it."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from pika import spec
from twisted.internet.task import deferLater

from pika_twisted._reasons import fresh_exception
from pika_twisted.channel.channel import TwistedChannel
from pika_twisted.exceptions import NotConnected

from .consumers import ConsumerRefused
from .retries import FIRST_PAUSE, Backoff

if TYPE_CHECKING:
    from .channel import RecoveringChannel

LOGGER = logging.getLogger("pika_twisted")


class Opening:
    """Gives a `RecoveringChannel` one TwistedChannel after the other."""

    def __init__(self, owner: RecoveringChannel) -> None:
        self._owner = owner
        self._backoff = Backoff()

    def open_on(self, connection: Any) -> None:
        """Open it on the service's connection, which is in use already."""

        async def open_first() -> None:
            if not await self._try_to_open(connection):
                self.open_later(connection)

        self._owner.service._run(open_first())

    def open_later(self, connection: Any) -> None:
        """Try again after a pause, on a connection that is in use."""
        self._keep_opening(connection, self._backoff.fail(self._now()))

    async def _try_to_open(self, connection: Any) -> bool:
        """Open it; whether it need not be tried again. A failure is told."""
        try:
            await self.recover_on(connection)
        except (Exception, asyncio.CancelledError) as why:
            wanted = self._owner._closed is None  # else it was cancelled by the end of the service
            if wanted and self._is_in_use(connection):
                self._owner.service._events.tell("recovery failed", why)
                return False
        return True

    async def recover_on(self, connection: Any) -> None:
        """Open a channel on this connection, and put it into the state of the last one."""
        while True:
            channel = await connection.channel()
            channel.add_on_close_callback(self._on_channel_closed)
            try:
                await self._owner._set_up(channel)
                await self._owner._subscribe_all(channel, connection)
                if not channel.is_open:
                    raise fresh_exception(
                        channel._closed or NotConnected("The channel closed again")
                    )
                break
            except ConsumerRefused:
                continue  # without that one
            except BaseException:
                if channel.is_open:
                    channel.close()  # the next attempt opens another one
                raise
        if self._owner._closed is not None:
            channel.close()
            return
        self._backoff.succeed(self._now())
        self._owner._use(channel)

    def _on_channel_closed(self, channel: TwistedChannel, reason: BaseException) -> None:
        if channel is not self._owner.current:
            return
        self._owner.current = None
        self._owner._tell_closed(reason)
        connection = self._owner.service.connection
        if self._owner._closed is None and self._is_in_use(connection):
            LOGGER.warning("Channel closed (%s); opening it again", reason)
            # A call's refusal closes it as often as its user asks.
            pause = (
                FIRST_PAUSE
                if channel is self._owner._refused_on
                else self._backoff.fail(self._now())
            )
            self._keep_opening(connection, pause, reason)

    def _keep_opening(
        self, connection: Any, pause: float, reason: BaseException | None = None
    ) -> None:
        """Open it again after a pause, until it works or the connection is lost."""

        def is_needed() -> bool:
            return (
                self._is_in_use(connection)
                and self._owner._closed is None
                and not self._owner.is_open
            )

        async def keep_trying(pause: float) -> None:
            while is_needed():
                await deferLater(self._owner.service.reactor, pause)
                if not is_needed():
                    return
                try:
                    await self._declare_what_is_needed(connection, reason)
                except (Exception, asyncio.CancelledError) as why:
                    if is_needed():
                        self._owner.service._events.tell("recovery failed", why)
                else:
                    if not is_needed() or await self._try_to_open(connection):
                        return
                pause = self._backoff.fail(self._now())

        self._owner.service._run(keep_trying(pause))

    async def _declare_what_is_needed(self, connection: Any, reason: BaseException | None) -> None:
        recovery = self._owner.service._recovery
        if getattr(reason, "reply_code", 0) == spec.NOT_FOUND:
            await recovery.declare_everything(connection)  # of what it missed only the text tells
        else:
            queues = [each.queue_name for each in self._owner.subscriptions if not each.is_over]
            await recovery.declare_for(connection, queues)

    def _is_in_use(self, connection: Any) -> bool:
        """Whether it is the service's connection now, and open."""
        in_use = self._owner.service.connection
        return in_use is not None and connection is in_use and in_use.is_open

    def _now(self) -> float:
        return float(self._owner.service.reactor.seconds())
