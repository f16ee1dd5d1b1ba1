"""What takes acks in the tests: an encoder that does to the tags what RabbitMQ would."""

from __future__ import annotations

from typing import Any

from pika_twisted.channel.ledger import Ledger
from tests.support.outcome import watch


class Broker:
    """An encoder that does to the tags what RabbitMQ would, and counts what was written."""

    open = True

    def __init__(self) -> None:
        self.unacked: set[int] = set()
        self.acked: set[int] = set()
        self.refused: set[int] = set()
        self.written: list[Any] = []

    def publish(self, *_: Any) -> bool:
        return False

    def _take(self, tag: int, multiple: bool, into: set[int]) -> bool:
        taken = {t for t in self.unacked if t <= tag or tag == 0} if multiple else {tag}
        assert tag in self.unacked or (multiple and tag == 0), f"406: unknown delivery tag {tag}"
        self.unacked -= taken
        into |= taken
        return False

    def ack(self, tag: int, multiple: bool = False) -> bool:
        self.written.append(("ack", tag, multiple))
        return self._take(tag, multiple, self.acked)

    def nack(self, tag: int, multiple: bool = False, requeue: bool = True) -> bool:
        self.written.append(("nack", tag, multiple))
        return self._take(tag, multiple, self.refused)

    def reject(self, tag: int, requeue: bool = True) -> bool:
        return self.nack(tag, False, requeue)


def deliver(ledger: Ledger, broker: Broker, tag: int, *, auto_ack: bool = False) -> None:
    if auto_ack:
        ledger.skip(tag)
    else:
        broker.unacked.add(tag)
        ledger.note(tag)


def take(queue: Any, count: int) -> list[Any]:
    return [watch(queue.get()).result() for _ in range(count)]
