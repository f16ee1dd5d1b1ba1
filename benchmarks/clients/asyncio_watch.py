"""What the two asyncio clients share."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from benchmarks.spec import Spec, Unsupported


def run(session: Coroutine[Any, Any, dict[str, Any]]) -> dict[str, Any]:
    """Run one measurement under an event loop of its own."""
    return asyncio.run(session)


def refuse_other_than_consume_and_publish(spec: Spec) -> None:
    """Say what the asyncio clients are not measured at."""
    if spec.case not in ("consume", "publish", "ack"):
        raise Unsupported(f"no case {spec.case}")
    if spec.case == "consume" and (spec.style not in ("await", "for") or spec.channels != 1):
        raise Unsupported(f"style {spec.style} is Twisted's")
    if spec.ack == "group":
        raise Unsupported("acks are measured one by one")
