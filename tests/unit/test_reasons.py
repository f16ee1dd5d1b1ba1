"""Each failed Deferred gets an exception of its own."""

from __future__ import annotations

import importlib
import pkgutil
import traceback
from typing import Any

import pytest
from pika.exceptions import (
    ChannelClosedByBroker,
    StreamLostError,
    UnexpectedFrameError,
    UnroutableError,
)
from twisted.python.failure import Failure

import pika_twisted
from pika_twisted import exceptions
from pika_twisted._reasons import final_reason, fresh_exception


class Awkward(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__("something else")
        self.sum = one + two


class Uncopiable(Exception):
    def __reduce__(self) -> Any:
        raise TypeError("not this one")


@pytest.mark.parametrize(
    "kind",
    [
        pika_twisted.AlreadySettled,
        pika_twisted.NotConnected,
        pika_twisted.PublishTimeout,
        pika_twisted.PublisherOverflow,
    ],
)
def test_an_error_of_ours_is_not_unspecified(kind: type[Exception]) -> None:
    """pika's AMQPError has it so: "An unspecified AMQP error has occurred"."""
    assert repr(kind("why")) == f"{kind.__name__}('why')"
    assert str(kind("why")) == "why"


def test_a_fresh_exception_is_equal_and_has_its_own_traceback() -> None:
    cause = KeyError("cause")
    try:
        raise UnroutableError(["message"]) from cause
    except UnroutableError as caught:
        original = caught
    fresh: Any = fresh_exception(original)
    assert fresh is not original
    assert type(fresh) is UnroutableError
    assert fresh.args == original.args
    assert fresh.messages == ["message"]
    assert fresh.__cause__ is cause
    assert fresh.__suppress_context__
    assert fresh.__traceback__ is None
    assert original.__traceback__ is not None


class Changing(Exception):
    def __reduce__(self) -> Any:
        return LookupError, self.args


@pytest.mark.parametrize("original", [Changing("other"), Awkward(1, 2), Uncopiable("no")])
def test_what_cannot_be_copied_is_used_without_its_traceback(original: Exception) -> None:
    try:
        raise original
    except type(original):
        pass
    fresh = fresh_exception(original)
    assert fresh is original
    assert fresh.__traceback__ is None


def test_exceptions_with_fields_in_c_are_copied_whole() -> None:
    for original in (
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "why"),
        OSError(2, "missing", "file"),
        SystemExit(3),
        KeyError("key"),
    ):
        fresh = fresh_exception(original)
        assert fresh is not original
        assert str(fresh) == str(original)
        assert vars(fresh) == vars(original)


def test_a_failure_stands_for_its_exception() -> None:
    original = LookupError("inside")
    fresh = fresh_exception(Failure(original))
    assert type(fresh) is LookupError
    assert fresh is not original


def test_our_own_reasons_are_copied_whole() -> None:
    cause = KeyError("cause")
    original = exceptions.reason(
        exceptions.HandshakeTimeout, 320, "forced", orderly=False, cause=cause
    )
    for reason in (original, exceptions.on_channel(original)):
        fresh = fresh_exception(reason)
        assert fresh is not reason
        assert type(fresh) is type(reason)
        assert fresh.args == (320, "forced")
        assert fresh.__cause__ is cause


def test_a_channel_s_own_reason_stays_as_it_is() -> None:
    why = ChannelClosedByBroker(404, "NOT_FOUND")
    assert exceptions.on_channel(why) is why


def test_an_error_of_pika_s_ends_a_connection_as_a_violation() -> None:
    why = UnexpectedFrameError("odd")
    told = final_reason(why, True, 0)
    assert isinstance(told, exceptions.ProtocolViolation) and told.__cause__ is why
    assert "odd" in str(told)


def exception_classes() -> list[type[BaseException]]:
    """All that the package defines, but for those of its fake broker."""
    found: list[type[BaseException]] = []
    for module in pkgutil.walk_packages(pika_twisted.__path__, "pika_twisted."):
        if ".testing" in module.name or module.name.endswith("__main__"):
            continue
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, type) and issubclass(value, BaseException):
                found.append(value)
    return [each for each in found if each.__module__.startswith("pika_twisted")]


def test_every_exception_is_public() -> None:
    names = {each.__name__ for each in exception_classes()}
    # These never leave the codec, and the recovery of a channel.
    assert names - {"FieldError", "ConsumerRefused"} <= set(exceptions.__all__)


@pytest.mark.parametrize("kind", [StreamLostError, exceptions.ProtocolViolation])
def test_a_reason_is_caught_by_the_name_that_a_traceback_shows(kind: type[Exception]) -> None:
    lost = exceptions.reason(kind, 0, "gone", orderly=False)
    for reason in (lost, exceptions.on_channel(lost)):
        shown = "".join(traceback.format_exception_only(type(reason), reason)).split(":")[0]
        module, _, name = shown.rpartition(".")
        assert getattr(importlib.import_module(module), name) is kind
        assert isinstance(reason, kind)
