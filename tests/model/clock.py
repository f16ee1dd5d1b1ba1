"""A clock that notices a program that goes round in circles."""

from __future__ import annotations

from pika_twisted.testing.clock import Clock

#: Calls in one turn; a program of forty steps makes some hundred.
MOST = 5_000


class Spinning(Exception):
    """Calls are followed by others, and no time passes."""


class BoundedClock(Clock):
    """As Twisted's, with an end to a turn."""

    def advance(self, amount: float) -> None:
        """See twisted.internet.task.Clock."""
        self.rightNow += amount
        self._sortCalls()
        made = 0
        while self.calls and self.calls[0].getTime() <= self.seconds():
            call = self.calls.pop(0)
            call.called = 1
            call.func(*call.args, **call.kw)
            made += 1
            if made > MOST:
                raise Spinning(f"{made} calls in one turn")
