"""Why a connection or a channel ended, as exceptions that pika's and Twisted's users both catch.

pika's adapter reports a lost connection as pika's class or as Twisted's, and mostly
without the broker's words. Here one object is both: `reason()` builds, say, an exception that is a
`pika.exceptions.ConnectionClosedByBroker` and a `twisted.internet.error.ConnectionDone`, and
`on_channel()` makes of it one that is a `pika.exceptions.ChannelClosed` too, for what belonged to a
channel; it is no `AMQPChannelError`, so that pika's recipe for reconnecting works. All of them have
args `(reply_code, reply_text)`; the code is 0 where no AMQP code was exchanged, and the text is the
transport's then.
"""

from __future__ import annotations

import functools
from typing import Any, cast

from pika import exceptions as pika_exceptions
from twisted.internet import error

from pika_twisted.codec.errors import DecodeError, UndecodableProperties, UnsupportedField

__all__ = [
    "AlreadySettled",
    "BrokerLimit",
    "ConnectFailed",
    "ConnectionRefused",
    "ConnectionTimedOut",
    "DecodeError",
    "HandshakeTimeout",
    "HostNotFound",
    "NoFreeChannels",
    "NotConnected",
    "ProtocolViolation",
    "PublishTimeout",
    "PublisherOverflow",
    "Reason",
    "RecoveryTimeout",
    "TLSFailed",
    "TokenRefused",
    "UndecodableProperties",
    "UnsupportedField",
    "WithText",
    "on_channel",
    "reason",
]


class WithText(Exception):
    """What says itself what is wrong; pika's and Twisted's classes add words, or hide them."""

    def __init__(self, text: str = "") -> None:
        # Not super(): the mixed-in classes disagree about their arguments.
        Exception.__init__(self, text)

    def __str__(self) -> str:
        return str(self.args[0])

    __repr__ = Exception.__repr__


class HandshakeTimeout(pika_exceptions.AMQPConnectionError):
    """The peer did not finish the AMQP handshake within `handshake_timeout` seconds."""


class ProtocolViolation(pika_exceptions.AMQPConnectionError, pika_exceptions.ProtocolSyntaxError):
    """The peer sent what AMQP 0-9-1 forbids; the reply code says what (spec 1.2, constants)."""


class NoFreeChannels(WithText, pika_exceptions.NoFreeChannels):
    """As many channels are open as the broker, or `channel_max`, allows."""


class RecoveryTimeout(WithText, pika_exceptions.AMQPError, error.TimeoutError):
    """A new connection was silent for `recovery_timeout` seconds while a service recovered."""


class TokenRefused(WithText, pika_exceptions.AMQPConnectionError):
    """A token endpoint of OAuth 2.0 gave no token; the text says what it answered."""


class BrokerLimit(pika_exceptions.AMQPConnectionError, ValueError):
    """The parameters ask for what this broker has a limit for; the text says which limit."""


class AlreadySettled(WithText, pika_exceptions.AMQPError):
    """The message was acknowledged or refused before, or was delivered with auto_ack."""


class NotConnected(WithText, pika_exceptions.ConnectionWrongStateError, error.TimeoutError):
    """The service had no connection for too long, or is stopped; `__cause__` is why, if known."""


class PublishTimeout(WithText, pika_exceptions.AMQPError, error.TimeoutError):
    """No confirm in time. The broker may have the message or not.

    Where a service has no connection then, its text and `__cause__` say why.
    """


class PublisherOverflow(WithText, pika_exceptions.AMQPError):
    """More publishes wait for room than `max_waiting` allows."""


class ConnectFailed(pika_exceptions.AMQPConnectionError):
    """No connection came about. Its args are `(0, text)`, as those of all reasons without a code.

    :ivar attempts: every attempt's `(where, exception)`, the last being this one
    """

    def __init__(self, reply_code: int = 0, reply_text: str = "") -> None:
        # Not super(): the mixed-in classes disagree about their arguments.
        Exception.__init__(self, reply_code, reply_text)
        self.attempts: list[tuple[str, BaseException]] = []

    def __str__(self) -> str:
        return str(self.args[1])

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.args[0]}, {self.args[1]!r})"


class ConnectionRefused(ConnectFailed, error.ConnectionRefusedError):
    """Connection refused: no process listens at the port."""


class ConnectionTimedOut(ConnectFailed, error.TimeoutError):
    """TCP, TLS or the AMQP handshake took too long; the text says which."""


class HostNotFound(ConnectFailed, error.DNSLookupError):
    """The host name has no address."""


class TLSFailed(ConnectFailed, error.ConnectionLost):
    """No TLS: a certificate that doesn't verify, or only one of the two sides speaks it."""


class Reason(Exception):
    """What every reason built by this module has in common; never raised by itself."""

    #: The method that a broker's Connection.Close is about, class and method as in the `INDEX` of
    #: pika's `spec.Queue.Declare` and the like; 0 where it names none.
    method_index: int = 0

    def __init__(self, reply_code: int = 0, reply_text: str = "") -> None:
        # Not super(): the mixed-in classes disagree about their arguments.
        Exception.__init__(self, int(reply_code), str(reply_text))

    @property
    def reply_code(self) -> int:
        """The AMQP reply code (spec 1.2), 0 when none was exchanged."""
        return cast(int, self.args[0])

    @property
    def reply_text(self) -> str:
        """The peer's text, or the transport's where no AMQP code was exchanged."""
        return cast(str, self.args[1])

    def __str__(self) -> str:
        return f"({self.reply_code}) {self.reply_text}" if self.reply_code else self.reply_text

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.reply_code}, {self.reply_text!r})"

    def __reduce__(self) -> Any:
        # The class is made at run time, so a pickle names its ingredients instead.
        return _rebuild, (type(self).__bases__[1:], self.args), self.__dict__ or None


class _LostWithItsConnection(type):
    """Makes classes that are `ChannelClosed` and no `AMQPChannelError`, its base.

    The recipe of pika's documentation is `except AMQPChannelError: give up`, then `except
    AMQPConnectionError: reconnect`, and what waits on a channel is to fail with `ChannelClosed`.
    """

    def mro(cls) -> list[type]:
        return [each for each in super().mro() if each is not pika_exceptions.AMQPChannelError]


@functools.cache
def _reason_class(bases: tuple[type[Exception], ...]) -> type[Reason]:
    """The one class that mixes `bases`; named after pika's class, which comes first."""
    lost = pika_exceptions.ChannelClosed in bases
    make = _LostWithItsConnection if lost else type
    first = bases[0]  # a traceback shows its name, which can be imported and caught
    names = {"__module__": first.__module__}
    return cast("type[Reason]", make(first.__name__, (Reason, *bases), names))


def _rebuild(bases: tuple[type[Exception], ...], args: tuple[int, str]) -> Reason:
    """Undo `Reason.__reduce__` (pickle, copy)."""
    return _reason_class(bases)(*args)


def reason(
    pika_class: type[Exception],
    reply_code: int,
    reply_text: str,
    *,
    orderly: bool,
    cause: BaseException | None = None,
) -> Reason:
    """Build the reason why a connection ended.

    `orderly` chooses Twisted's half: `ConnectionDone` where client or broker closed as AMQP asks,
    `ConnectionLost` for everything else (end of the stream, timeouts, abort, protocol errors).
    """
    twisted_class = error.ConnectionDone if orderly else error.ConnectionLost
    built = _reason_class((pika_class, twisted_class))(reply_code, reply_text)
    built.__cause__ = cause
    return built


def on_channel(why: BaseException) -> BaseException:
    """The same reason for a channel's Deferreds and queues: it is a `ChannelClosed` as well."""
    if not isinstance(why, Reason) or isinstance(why, pika_exceptions.ChannelClosed):
        return why
    bases = (*type(why).__bases__[1:], pika_exceptions.ChannelClosed)
    built = _reason_class(bases)(*why.args)
    built.__cause__ = why.__cause__
    built.__dict__.update(why.__dict__)
    return built
