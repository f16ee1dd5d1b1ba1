"""The attempts of a service at a connection, and how far each has come."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from twisted.internet import defer

from pika_twisted._reasons import fresh_exception
from pika_twisted.connecting.connect import drop, maybe_await
from pika_twisted.protocol import TwistedProtocolConnection

from .events import EventName
from .retries import LASTING, Watchdog

if TYPE_CHECKING:
    from pika_twisted.channel.channel import TwistedChannel

    from .channel import RecoveringChannel
    from .service import RecoveringService

LOGGER = logging.getLogger("pika_twisted")


class Login:
    """What each attempt logs in with.

    :param given: credentials of the user's, or a function
    :param asked: whether the parameters, and the login in them, are asked for at each attempt
    """

    def __init__(self, given: Any, asked: bool) -> None:
        self._renewed: Any = None
        #: For `connect()`: what was given, or the secret that the broker took last.
        self.credentials = given if given is not None or asked else lambda: self._renewed

    def renew(self, credentials: Any) -> None:
        """Use these from now on, unless they are None."""
        self._renewed = credentials or self._renewed


class Attempts:
    """Connects for a service, brings everything back, and notes how the connection ends.

    :param service: whose connection it is
    :param connect: connects once
    :param login: is told of a secret that the broker took
    :param setup: the service's
    :param recovery_timeout: seconds without an answer after which a connection is given up
    :param retry_policy: gives the seconds to wait, of the attempts in a row that were in vain
    """

    def __init__(
        self,
        service: RecoveringService,
        connect: Callable[[], Awaitable[TwistedProtocolConnection]],
        login: Login,
        setup: Callable[[TwistedChannel], Any] | None,
        recovery_timeout: float,
        retry_policy: Callable[[int], float],
    ) -> None:
        self._service = service
        self._connect = connect
        self._login = login
        self._setup = setup
        self._retry_policy = retry_policy
        self._watchdog = Watchdog(service.reactor, recovery_timeout)
        service._recovery.on_progress = self._watchdog.answered
        self._connected_before = False
        self._connected_at = 0.0
        self._failed_in_a_row = 0
        #: Connections in a row that were lost at once.
        self._short_lived = 0

    def pause(self, failed: int) -> float:
        """Return how many seconds to wait before the next attempt; `failed` is ClientService's."""
        return self._retry_policy(failed + self._short_lived)

    async def establish(self) -> TwistedProtocolConnection:
        """Make one attempt: connect, and bring everything back."""
        service = self._service
        service._events.tell("recovering")
        try:
            connection = await self._connect()
            try:
                await self._watchdog.watch(lambda: self._recover(connection))
                if connection.is_closed:
                    raise fresh_exception(await connection.when_closed())
            except BaseException:
                service.connection = None
                service._recovery.end()
                service._totals.keep_connection(connection)
                drop(connection)
                raise
        except (Exception, asyncio.CancelledError) as why:
            if service.running:  # else it was cancelled by the end of the service
                self._on_attempt_failed(why)
            raise
        self._on_connected(connection)
        return connection

    def _on_attempt_failed(self, why: BaseException) -> None:
        service = self._service
        service._totals.failed_attempts += 1
        service.trouble = fresh_exception(why)
        self._failed_in_a_row += 1
        if self._failed_in_a_row == 1:
            # Twisted's log has each, but is seen only where it is begun; a warning always.
            LOGGER.warning("No usable connection to %s: %s; trying again", service._name, why)
        service._events.tell("recovery failed", why)

    async def _recover(self, connection: TwistedProtocolConnection) -> None:
        service, tell = self._service, self._service._events.tell
        connection.add_on_connection_blocked_callback(
            lambda _connection, frame: tell("blocked", frame.method.reason)
        )
        connection.add_on_connection_unblocked_callback(lambda *_: tell("unblocked"))
        if self._setup is not None:
            self._watchdog.answered("setup")
            await maybe_await(self._setup(await connection.channel()))
        self._watchdog.answered("declaring")
        await service._recovery.declare_on(connection)
        service.connection = connection  # channels made from now on see to themselves
        self._watchdog.answered("opening channels")
        opening = []
        for channel in list(service._life.channels):
            opened = defer.Deferred.fromCoroutine(channel._opening.recover_on(connection))
            opening.append(opened.addBoth(self._on_channel_recovered, channel, connection))
        await defer.gatherResults(opening, consumeErrors=True).addErrback(_first_reason)

    def _on_channel_recovered(
        self, result: Any, channel: RecoveringChannel, connection: TwistedProtocolConnection
    ) -> Any:
        """Let a channel that could not be opened try by itself; the others go on without it."""
        self._watchdog.answered()
        why = getattr(result, "value", None)
        if why is None or not connection.is_open or isinstance(why, defer.CancelledError):
            return result
        self._service._events.tell("recovery failed", why)
        channel._opening.open_later(connection)
        return None

    def _on_connected(self, connection: TwistedProtocolConnection) -> None:
        service = self._service
        service.connection = connection
        service.trouble = None
        self._failed_in_a_row = 0
        self._connected_at = service.reactor.seconds()
        connection.when_closed().addCallback(self._on_lost, connection)
        service._recovery.begin(connection)
        service._totals.end_down_time()
        first, self._connected_before = not self._connected_before, True
        service._totals.reconnects += not first
        LOGGER.info("%s to %s", "Connected" if first else "Connected again", service._name)
        # Later: then ClientService knows of the connection, and may be told to stop.
        event: EventName = "connected" if first else "recovered"
        service.reactor.callLater(0, service._events.tell, event, connection)

    def _on_lost(self, reason: Any, connection: TwistedProtocolConnection) -> None:
        service = self._service
        service._totals.keep_connection(connection)
        self._login.renew(connection.renewed_credentials)
        if connection is service.connection:
            service.connection = None
            service._recovery.end()
        service.trouble = fresh_exception(reason)
        lasted = service.reactor.seconds() - self._connected_at >= LASTING
        self._short_lived = 0 if lasted else self._short_lived + 1
        if service.running:
            service._totals.begin_down_time()
            service._events.tell("lost", reason)


def _first_reason(failure: Any) -> Any:
    """Take the reason out of gatherResults()'s."""
    reason = failure.check(defer.FirstError) and failure.value.subFailure
    return reason or failure
