"""Watching Deferreds and the Twisted log without a reactor."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

from twisted.internet import defer
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure


class Outcome:
    """What became of one Deferred, looked at without ever waiting."""

    def __init__(self, deferred: defer.Deferred[Any], label: str = "the Deferred") -> None:
        assert isinstance(deferred, defer.Deferred), f"{label}: {deferred!r} is no Deferred"
        self.label = label
        self.deferred = deferred
        self.fired = 0
        self.value: Any = None
        self.error: BaseException | None = None
        deferred.addCallbacks(self._succeeded, self._failed)

    def _succeeded(self, value: Any) -> Any:
        self.fired += 1
        self.value = value
        return value  # for whoever else has callbacks on it

    def _failed(self, failure: Failure) -> None:
        self.fired += 1
        self.error = failure.value

    @property
    def pending(self) -> bool:
        return self.fired == 0

    def result(self) -> Any:
        """The value it fired with; anything else is a failed test."""
        assert self.fired, f"{self.label} never fired"
        assert self.error is None, f"{self.label} failed with {self.error!r}"
        return self.value

    def failure(self, *classes: type[BaseException]) -> Any:
        """The exception it failed with, which must be of every class named."""
        assert self.fired, f"{self.label} never fired"
        assert self.error is not None, f"{self.label} succeeded with {self.value!r}"
        for wanted in classes:
            assert isinstance(self.error, wanted), (
                f"{self.label} failed with {self.error!r}, not with a {wanted.__name__}"
            )
        return self.error


def watch(deferred: Any, label: str = "the Deferred") -> Outcome:
    return Outcome(deferred, label)


def call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Outcome:
    """Call something that has to report through its Deferred, never by raising."""
    name = getattr(function, "__name__", repr(function))
    try:
        deferred = function(*args, **kwargs)
    except Exception as error:
        raise AssertionError(f"{name} raised {error!r} instead of failing its Deferred") from error
    return Outcome(deferred, name)


def run(coroutine: Any, label: str = "the coroutine") -> Outcome:
    return Outcome(defer.ensureDeferred(coroutine), label)


class TwistedLog:
    """Collects the errors that reach Twisted's log, unhandled Deferreds among them."""

    _frozen = False

    def __init__(self) -> None:
        self.errors: list[dict[str, Any]] = []

    def __enter__(self) -> TwistedLog:
        gc.collect()  # what earlier tests left behind is not this test's
        if not TwistedLog._frozen:
            # All modules are imported by now: a collection takes 80 ms with them.
            gc.freeze()
            TwistedLog._frozen = True
        globalLogPublisher.addObserver(self._observe)
        return self

    def __exit__(self, *exc_info: object) -> None:
        globalLogPublisher.removeObserver(self._observe)

    def _observe(self, event: dict[str, Any]) -> None:
        # "Unhandled error in Deferred" is a headline without a failure, and an event with it.
        if event.get("log_failure") is not None:
            self.errors.append(event)

    def flush(self, *classes: type[BaseException]) -> list[Failure]:
        """Take out and return the failures logged so far, only those of `classes` when given."""
        taken: list[Failure] = []
        kept: list[dict[str, Any]] = []
        gc.collect()
        while self.errors:
            for event in self.errors:
                failure = event["log_failure"]
                if not classes or failure.check(*classes):
                    taken.append(failure)
                    # Twisted's log keeps what is logged before it begins. The frames of a failure
                    # hold other Deferreds, whose failures would come out in a later test.
                    failure.cleanFailure()
                else:
                    kept.append(event)
            self.errors.clear()
            gc.collect()
        self.errors = kept
        return taken

    def assert_empty(self) -> None:
        gc.collect()
        described = [
            f"{event.get('log_format') or event.get('why') or ''} {event['log_failure']!r}"
            for event in self.errors
        ]
        assert not described, f"errors in the Twisted log: {described}"
