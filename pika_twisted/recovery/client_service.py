"""What Twisted's ClientService sees of an AMQP connection.

ClientService connects an endpoint, takes the protocol that comes out, and connects again when that
one's connection is lost. Out of this endpoint comes a stand-in whose life begins when the AMQP
connection is ready and all that was declared is there again, and ends with the connection. So a
refused login or a topology that fails is one more failed attempt, with ClientService's pauses
between them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet import defer, interfaces, protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from pika_twisted._reasons import as_exception


class Link(protocol.Protocol):
    """Stands for one AMQP connection, `connection`."""

    connection: Any = None


class LinkFactory(protocol.Factory):
    """Makes the stand-ins."""

    noisy = False
    protocol = Link


class _LinkTransport:
    """How ClientService ends the connection."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection

    def loseConnection(self) -> None:
        """Close it as AMQP asks."""
        self.connection.close()


@implementer(interfaces.IStreamClientEndpoint)
class LinkEndpoint:
    """Connects by calling `establish()`, which gives a Deferred of a ready connection."""

    def __init__(self, name: str, establish: Callable[[], Awaitable[Any]]) -> None:
        self._name = name
        self._establish = establish

    def __repr__(self) -> str:
        return self._name

    def connect(self, factory: Any) -> defer.Deferred[Any]:
        """As IStreamClientEndpoint has it."""
        establishing: defer.Deferred[Any] = defer.ensureDeferred(
            self._establish()  # type: ignore[arg-type]
        )
        return establishing.addCallback(_hand_over, factory)


def _hand_over(connection: Any, factory: Any) -> Any:
    link = factory.buildProtocol(None)
    link._protocol.connection = connection
    link.makeConnection(_LinkTransport(connection))
    connection.when_closed().addCallback(
        lambda reason: link.connectionLost(Failure(as_exception(reason)))
    )
    return link
