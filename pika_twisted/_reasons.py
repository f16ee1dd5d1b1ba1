"""One reason, many Deferreds: each failure gets an exception object of its own.

An exception that is raised in two places collects both tracebacks: after 200 `await`s of the one
object that pika's adapter shares, its traceback has 600 entries and pins every frame in them.
"""

from __future__ import annotations

import copy

from pika.exceptions import AMQPError
from twisted.python.failure import Failure


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
            return AMQPError(reason.__name__)
    return AMQPError(str(reason))


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
