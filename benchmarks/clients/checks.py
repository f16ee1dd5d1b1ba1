"""Did the work happen? No client shall be fast by doing less.

Every measurement ends with one of these.
"""

from __future__ import annotations

from benchmarks.spec import Spec


class WorkMissing(Exception):
    """A message was lost, doubled or not acked: the measurement is void."""


def last_tag(spec: Spec, tag: int, messages: int) -> None:
    """Check that the last of `messages` messages had the last delivery tag."""
    if tag != messages:
        raise WorkMissing(f"{spec.client}: last delivery tag {tag} after {messages} messages")


def all_acked(spec: Spec, left: int, bad: int) -> None:
    """Check the peer's books of acks."""
    if not spec.live and (left or bad):
        raise WorkMissing(f"{spec.client}: {left} deliveries without ack, {bad} bad acks")


def all_published(spec: Spec, count: int, body_bytes: int) -> None:
    """Check the peer's books of publishes."""
    expected = spec.messages, spec.messages * spec.size & 0xFFFFFFFF
    if not spec.live and (count, body_bytes) != expected:
        raise WorkMissing(f"{spec.client}: {count} publishes of {body_bytes} bytes, not {expected}")
