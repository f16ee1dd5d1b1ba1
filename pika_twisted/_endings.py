"""Which reason everybody is told when a connection ends."""

from __future__ import annotations

from typing import Any

from pika import exceptions as pika_exceptions
from pika import spec
from pika.connection import Connection
from twisted.internet import error

from .exceptions import ProtocolViolation, Reason, reason

#: Codes by which a broker refuses a login or a virtual host; 0: it only closed the stream.
_REFUSALS = (0, spec.ACCESS_REFUSED, spec.NOT_ALLOWED, spec.INVALID_PATH)

#: Where the handshake broke off says what the broker disliked, as pika concludes.
_PROBABLE_CAUSE = {
    Connection.CONNECTION_PROTOCOL: pika_exceptions.IncompatibleProtocolError,
    Connection.CONNECTION_START: pika_exceptions.ProbableAuthenticationError,
    Connection.CONNECTION_TUNE: pika_exceptions.ProbableAccessDeniedError,
}


def final_reason(why: Any, opened: bool, state: int) -> Reason:
    """The reason in the shape of `exceptions.reason`.

    :param why: what ended the connection: a `Reason`, an error of pika's or of the transport
    :param opened: whether the handshake was finished
    :param state: pika's state of the connection
    """
    code, text, orderly = 0, str(why), False
    kind: type[Exception] = pika_exceptions.StreamLostError
    if isinstance(why, Reason):
        code, text, orderly = *why.args, isinstance(why, error.ConnectionDone)
        kind = type(why).__bases__[1]
    elif isinstance(why, pika_exceptions.AMQPConnectionError):
        kind, text = type(why), " ".join(map(str, why.args))
    elif isinstance(why, pika_exceptions.ProtocolVersionMismatch):
        kind, text = pika_exceptions.IncompatibleProtocolError, repr(why)
    elif isinstance(why, pika_exceptions.AMQPError):
        kind, text = ProtocolViolation, repr(why)
    if not opened and isinstance(why, (Reason, error.ConnectionClosed)):
        kind = _probable_cause(kind, code, state)
    if isinstance(why, Reason) and issubclass(type(why), kind):
        return why
    return reason(kind, code, text, orderly=orderly, cause=why)


def with_note(why: Reason, note: str) -> Reason:
    """Return the same reason, with something more in its text."""
    noted = type(why)(why.reply_code, f"{why.reply_text} ({note})")
    noted.__cause__ = why.__cause__
    return noted


def _probable_cause(kind: type[Exception], code: int, state: int) -> type[Exception]:
    ended = (pika_exceptions.StreamLostError, pika_exceptions.ConnectionClosedByBroker)
    if kind not in ended or code not in _REFUSALS:
        return kind
    return _PROBABLE_CAUSE.get(state, kind)
