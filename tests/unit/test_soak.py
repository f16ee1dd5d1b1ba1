"""The message log and the memory line of the soak: what they must notice, they notice."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from tests.soak.memory import Memory, Sample, allocated, resident, slope
from tests.soak.message_log import CONTENT, LARGEST, MessageLog, draw_size


def publish(log: MessageLog, *, confirmed: bool = True) -> Any:
    """Publish one; the message that then comes."""
    number, body, properties = log.next_message()
    log.settle(None, number, not confirmed)
    return SimpleNamespace(
        body=body, properties=properties, method=SimpleNamespace(redelivered=False)
    )


def again(message: Any, *, redelivered: bool = True, **changes: Any) -> Any:
    method = SimpleNamespace(redelivered=redelivered)
    return SimpleNamespace(**{**vars(message), **changes, "method": method})


def test_a_log_that_balances() -> None:
    log = MessageLog(10)
    for _ in range(10):
        log.take(publish(log))
    assert log.full
    assert log.problems(may_fail=False) == []


def test_a_message_may_come_again_when_it_says_so() -> None:
    log = MessageLog(1)
    message = publish(log)
    log.take(message)
    log.take(again(message))
    assert (log.handled, log.again, log.redelivered) == (1, 1, 1)
    assert log.problems(may_fail=False) == []


def lose_one(log: MessageLog) -> None:
    publish(log)


def duplicate_one(log: MessageLog) -> None:
    message = publish(log)
    log.take(message)
    log.take(message)


def change_one(log: MessageLog) -> None:
    message = publish(log)
    log.take(again(message, body=message.body + b"x"))


def exchange_one(log: MessageLog) -> None:
    message = publish(log)
    while not message.body:
        log.take(message)
        message = publish(log)
    log.take(again(message, body=bytes([message.body[0] ^ 1]) + message.body[1:]))


def invent_one(log: MessageLog) -> None:
    log.take(publish(MessageLog(1)))
    other = MessageLog(9)
    for _ in range(9):
        message = publish(other)
    log.take(message)


def settle_twice(log: MessageLog) -> None:
    log.take(publish(log))
    log.settle(None, 1, False)


def never_settle(log: MessageLog) -> None:
    log.next_message()


def fail_one(log: MessageLog) -> None:
    publish(log, confirmed=False)


WRONG = {
    "never came": lose_one,
    "marked so": duplicate_one,
    "another body": change_one,
    "with another body": exchange_one,
    "never published": invent_one,
    "settled twice": settle_twice,
    "never settled": never_settle,
    "publishes failed": fail_one,
}


@pytest.mark.parametrize("text", WRONG)
def test_a_log_that_does_not_balance(text: str) -> None:
    log = MessageLog(200)
    log.take(publish(log))
    assert log.problems(may_fail=False) == []
    WRONG[text](log)
    assert text in " ".join(log.problems(may_fail=False))


def test_a_publish_that_failed_may_have_come_or_not() -> None:
    log = MessageLog(3)
    publish(log, confirmed=False)
    log.take(publish(log, confirmed=False))
    assert log.problems(may_fail=True) == []
    assert "2 publishes failed" in " ".join(log.problems(may_fail=False))


def test_nothing_handled_is_a_problem() -> None:
    assert MessageLog(1).problems(may_fail=False) == ["nothing was handled"]


def test_bodies_are_of_all_sizes_and_mostly_small() -> None:
    sizes = [draw_size() for _ in range(20_000)]
    assert min(sizes) == 0
    assert max(sizes) == LARGEST == len(CONTENT)
    assert sorted(sizes)[10_000] <= 1024


def test_the_line_through_points() -> None:
    assert slope([]) == slope([(1.0, 5.0)]) == 0
    assert slope([(x, 3 * x + 7) for x in range(10)]) == pytest.approx(3)
    noisy = [(x, 3 * x + (-1) ** x * 50) for x in range(1000)]
    assert slope(noisy) == pytest.approx(3, abs=0.01)


def test_memory_leaves_the_warm_up_out() -> None:
    memory = Memory(warm_up=1.0)
    memory.samples = [
        Sample(0.1 * n, 0, 10_000_000 if n < 10 else 2_000_000 * n, 0, n) for n in range(20)
    ]
    assert memory.megabytes_an_hour() == pytest.approx(20)
    assert memory.blocks_an_hour() == pytest.approx(10)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_seen_to_grow() -> None:
    before, given = resident(), allocated()
    held = bytearray(b"x") * (64 << 20)
    assert resident() - before > 60 << 20
    assert not given or 60 << 20 < allocated() - given < 68 << 20
    del held
