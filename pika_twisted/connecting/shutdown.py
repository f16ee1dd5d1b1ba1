"""The end of a connection with its reactor: Ctrl-C ends `async for`, and what is written leaves."""

from __future__ import annotations

import logging
from typing import Any

from twisted.internet import defer
from twisted.internet.task import deferLater

LOGGER = logging.getLogger("pika_twisted")

#: Seconds that a program has to close the connection once its consumers are cancelled.
LONGEST = 10.0
#: Seconds after which it is closed all the same where no message is taken and nothing is sent.
IDLE = 1.0
#: Seconds between two looks at that.
LOOK = 0.05


class Shutdown:
    """Closes a connection before its reactor stops, if that is still open then.

    Its consumers are cancelled first, so that `async for` ends after what has been delivered, and
    the program closes the connection itself.
    """

    def __init__(self, connection: Any, reactor: Any) -> None:
        self._connection = connection
        self._reactor = reactor
        self._trigger = reactor.addSystemEventTrigger("before", "shutdown", self._run)
        connection.when_closed().addBoth(self._on_closed)

    def _on_closed(self, _reason: Any) -> None:
        trigger, self._trigger = self._trigger, None
        if trigger is not None:
            self._reactor.removeSystemEventTrigger(trigger)

    def _run(self) -> defer.Deferred[None]:
        self._trigger = None  # it is being called
        return defer.Deferred.fromCoroutine(self._end()).addErrback(self._on_failed)

    async def _end(self) -> None:
        connection = self._connection
        for channel in connection._impl.twisted_channels:
            for tag in list(channel.consumer_tags):
                channel.basic_cancel(tag).addErrback(lambda _: None)
        await self._let_finish()
        if not connection.is_closed:
            connection.close()
            await connection.when_closed()

    async def _let_finish(self) -> None:
        """Wait while the program takes messages or sends something."""
        now = self._reactor.seconds
        begin = since = now()
        last = None
        while not self._connection.is_closed and now() - begin < LONGEST:
            stats = self._connection.stats()
            progress = (stats.queued_messages, stats.bytes_sent, stats.consumers)
            if progress != last:
                last, since = progress, now()
            if now() - since >= IDLE:
                return
            await deferLater(self._reactor, LOOK)

    def _on_failed(self, failure: Any) -> None:
        LOGGER.error("Closing the connection with the reactor failed: %s", failure.value)
