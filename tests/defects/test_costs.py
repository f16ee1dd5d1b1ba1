"""Rows about cost: D49, D50 and D50b. Two sizes are compared in one process, never milliseconds.

Linear work grows with its size; `ROOM` times that is allowed for caches, allocation and noise.
"""

from __future__ import annotations

import gc
from time import process_time
from typing import Any

from pika import frame, spec

from tests.support.outcome import watch
from tests.support.peer import encoded_content, encoded_method
from tests.support.session import Adapter, Session, cpu_growth

ROOM = 2


class QuietGc:
    """A collection that falls into one of the two measurements would spoil their comparison."""

    def __enter__(self) -> None:
        gc.collect()
        gc.disable()

    def __exit__(self, *exc_info: object) -> None:
        gc.enable()


def test_d49_one_large_read_costs_in_proportion_to_its_size(session: Session) -> None:
    """No frame of a read may be paid for by copying what follows it."""
    channel = session.channel()
    queue = session.consumer(channel, auto_ack=True)

    def measure(frames: int) -> float:
        body = bytes(frames * 4000)
        message = encoded_content(1, spec.Basic.Deliver("t", 1, False, "", "q"), body)
        data = frame.Heartbeat().marshal() * frames + message
        with QuietGc():
            begun = process_time()
            session.protocol.dataReceived(data)
            spent = process_time() - begun
        assert len(watch(queue.get()).result().body) == len(body)
        return spent

    # Both leave the processor's cache and take fresh pages: 10 times, 82 to 109 where it copies.
    assert cpu_growth(measure, 200, 2_000) < ROOM * 15


def test_d50_taking_a_message_costs_the_same_whatever_the_backlog(adapter: Adapter) -> None:
    def measure(backlog: int) -> float:
        queue = adapter.ClosableDeferredQueue()
        for n in range(backlog):
            queue.put(n)
        with QuietGc():
            begun = process_time()
            for _ in range(2000):
                queue.get()
            return process_time() - begun

    assert cpu_growth(measure, 2_500, 300_000) < ROOM * 2


def test_d50_giving_up_a_get_costs_the_same_however_many_wait(adapter: Adapter) -> None:
    def measure(waiters: int) -> float:
        queue = adapter.ClosableDeferredQueue()
        waiting: list[Any] = [queue.get() for _ in range(waiters)]
        for deferred in waiting:
            deferred.addErrback(lambda failure: None)
        waiting.reverse()
        with QuietGc():
            begun = process_time()
            for deferred in waiting:
                deferred.cancel()
            return process_time() - begun

    assert cpu_growth(measure, 300, 6_000) < ROOM * 20


def test_d50b_confirming_costs_the_same_however_many_are_outstanding(session: Session) -> None:
    """`multiple` confirms, each settling one publish while all the later ones wait."""
    session.open()

    def measure(outstanding: int) -> float:
        channel = session.channel()
        session.confirms(channel)
        number = channel.channel_number
        outcomes = [channel.basic_publish("", "q", b"x") for _ in range(outstanding)]
        acks = [encoded_method(number, spec.Basic.Ack(n + 1, True)) for n in range(outstanding)]
        # Few at a time: the cost of a large read is the row above.
        reads = [b"".join(acks[start : start + 50]) for start in range(0, len(acks), 50)]
        with QuietGc():
            begun = process_time()
            for data in reads:
                session.protocol.dataReceived(data)
            spent = process_time() - begun
        assert all(outcome.called for outcome in outcomes)
        session.peer.forget()
        return spent

    assert cpu_growth(measure, 300, 6_000) < ROOM * 20
