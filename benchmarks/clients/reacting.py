"""A measurement under Twisted's reactor."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet import defer, task

Session = Callable[[Any], Coroutine[Any, Any, dict[str, Any]]]


def run(session: Session) -> dict[str, Any]:
    """Run ``session(reactor)`` under the reactor; return its answer or raise its error."""
    answers: list[dict[str, Any]] = []
    errors: list[BaseException] = []

    async def kept(reactor: Any) -> None:
        try:
            answers.append(await session(reactor))
        except Exception as error:  # task.react would log it and leave with SystemExit(1)
            errors.append(error)

    def start(reactor: Any) -> defer.Deferred[None]:
        return defer.ensureDeferred(kept(reactor))

    try:
        task.react(start)
    except SystemExit:
        pass
    if errors:
        raise errors[0]
    return answers[0]
