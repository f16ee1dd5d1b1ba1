"""When to try again: pauses that grow, and a limit that begins anew with each answer."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from twisted.internet import defer

from pika_twisted.exceptions import RecoveryTimeout

#: Seconds of the first pause, and of the longest; each is twice the one before.
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 30.0

#: Seconds that a connection or a channel has to last before its pauses begin with the first again.
LASTING = 10.0

T = TypeVar("T")


class Backoff:
    """The pauses between the attempts at one thing."""

    def __init__(self) -> None:
        #: How often in a row it has failed.
        self.failures = 0
        self._since: float | None = None

    def fail(self, now: float) -> float:
        """Note a failure; return how many seconds to wait before the next attempt.

        What had lasted for `LASTING` seconds begins anew.
        """
        if self._since is not None and now - self._since >= LASTING:
            self.failures = 0
        self._since = None
        pause = min(FIRST_PAUSE * 2.0 ** min(self.failures, 20), LONGEST_PAUSE)
        self.failures += 1
        return pause

    def succeed(self, now: float) -> None:
        """Note that it works, from now on."""
        if self._since is None:
            self._since = now

    def reset(self) -> None:
        """Begin anew at once."""
        self.failures = 0
        self._since = None


class Watchdog:
    """Cancels what waits for a silent broker: so many seconds after its last answer."""

    def __init__(self, reactor: Any, seconds: float) -> None:
        self._reactor = reactor
        self._seconds = seconds
        self._last = reactor.seconds()
        self._doing = "the recovery"

    def answered(self, doing: str | None = None) -> None:
        """Note an answer, and what is waited for now, for the text of the error."""
        self._last = self._reactor.seconds()
        if doing is not None:
            self._doing = doing

    def watch(self, start: Callable[[], Coroutine[Any, Any, T]]) -> defer.Deferred[T]:
        """Run a coroutine.

        :returns: a Deferred that fires with its result. It fails with RecoveryTimeout once there
            was no answer for so long; the coroutine is cancelled then
        """
        self.answered()
        running: defer.Deferred[T] = defer.Deferred.fromCoroutine(start())
        late: list[bool] = []
        timer: Any = None

        def look() -> None:
            nonlocal timer
            left = self._last + self._seconds - self._reactor.seconds()
            if left > 0:
                timer = self._reactor.callLater(left, look)
            else:
                late.append(True)
                running.cancel()

        def ended(result: Any) -> Any:
            if timer.active():
                timer.cancel()
            if late and getattr(result, "check", None) and result.check(defer.CancelledError):
                raise RecoveryTimeout(
                    f"no answer for recovery_timeout={self._seconds:g} s in {self._doing}"
                )
            return result

        timer = self._reactor.callLater(self._seconds, look)
        return running.addBoth(ended)
