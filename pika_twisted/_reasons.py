"""One reason, many Deferreds: each failure gets an exception object of its own.

An exception that is raised in two places collects both tracebacks: after 200 `await`s of the one
object that pika's adapter shares, its traceback has 600 entries and pins every frame in them.
"""

from __future__ import annotations

import copy
from typing import Any

from pika import exceptions as pika_exceptions
from pika import spec
from pika.connection import Connection
from twisted.internet import error
from twisted.python.failure import Failure

from .exceptions import NotConnected, ProtocolViolation, Reason, reason


def as_exception(reason: object) -> BaseException:
    """The exception that `reason` stands for.

    A Failure stands for its value, an exception class for an instance of it. Anything else (pika's
    adapter takes any true object, its own tests pass a string) is wrapped in an AMQPError.
    """
    if isinstance(reason, Failure):  # which is an exception, too
        reason = reason.value
    if isinstance(reason, BaseException):
        return reason
    if isinstance(reason, type) and issubclass(reason, BaseException):
        try:
            return reason()
        except Exception:  # its constructor wants arguments that are unknown here
            return pika_exceptions.AMQPError(reason.__name__)
    return pika_exceptions.AMQPError(str(reason))


def fresh_exception(reason: object) -> BaseException:
    """A new exception like `reason`: its class, args, attributes and `__cause__`, no traceback.

    One that can't be copied is returned itself, without its traceback.
    """
    original = as_exception(reason)
    try:
        clone = copy.copy(original)
        if type(clone) is not type(original) or clone is original:
            return original.with_traceback(None)
        # copy passes args to the constructor again, which may have made them of something else:
        # UnroutableError(messages) has the args ("1 unroutable message(s) returned",).
        clone.args = original.args
    except Exception:
        return original.with_traceback(None)
    clone.__cause__ = original.__cause__
    clone.__suppress_context__ = original.__suppress_context__
    return clone.with_traceback(None)


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


def is_loss(why: BaseException) -> bool:
    """Whether it says that the connection was lost, not that the broker refused a call."""
    if isinstance(why, NotConnected):
        return False
    if isinstance(why, pika_exceptions.AMQPConnectionError):
        return True
    if isinstance(why, pika_exceptions.ChannelWrongStateError):
        return not isinstance(why.__cause__, pika_exceptions.ChannelClosedByBroker)
    return isinstance(why, Reason)


#: How a broker says that its metadata store had no majority just then: as an internal error.
_TEMPORARY = ("metadata store", "timed out", "timeout")


def is_hard_error(why: BaseException) -> bool:
    """Whether the broker closed the connection for what was asked of it.

    Not so when an operator closes it (320), nor when its metadata store has no majority.
    """
    if not isinstance(why, Reason) or not isinstance(why, pika_exceptions.ConnectionClosedByBroker):
        return False
    if why.reply_code == spec.INTERNAL_ERROR:
        return not any(words in why.reply_text for words in _TEMPORARY)
    return why.reply_code != spec.CONNECTION_FORCED


def blames(why: BaseException, method: Any) -> bool:
    """Whether the broker closed the connection for a method of this class.

    :param method: a method of `pika.spec`, or its class
    """
    if isinstance(why, pika_exceptions.ChannelWrongStateError) and why.__cause__ is not None:
        why = why.__cause__
    return is_hard_error(why) and getattr(why, "method_index", 0) in (0, method.INDEX)
