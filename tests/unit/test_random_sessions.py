"""Sessions nobody scripted: random calls, cancellations and endings against a broker in memory.

However it goes: nothing leaves `dataReceived`, every Deferred fires exactly once, nothing
unhandled is logged, no timer is left, the client does nothing a broker would close a channel for,
and every message the broker handed out is accounted for.

`PIKA_TWISTED_SESSIONS` is how many sessions (default 40), `PIKA_TWISTED_SEED` where they start.
"""

from __future__ import annotations

import os
import random
from collections import Counter

import pytest

from tests.support.client import Client
from tests.support.outcome import TwistedLog
from tests.support.session import OURS, OURS_THROUGH_PIKA, Adapter, Session

SESSIONS = int(os.environ.get("PIKA_TWISTED_SESSIONS", "40"))
FIRST = int(os.environ.get("PIKA_TWISTED_SEED", "0"))


def check(client: Client) -> None:
    wrong = [outcome.label for outcome in client.outcomes if outcome.fired != 1]
    assert not wrong, f"fired never or more than once: {wrong}"
    assert not client.broker.complaints
    left = []
    for queue, *_ in client.queues:
        left += [message.body for message in queue.drain()]
    seen = Counter(client.taken + left + client.broker.given_back)
    auto, manual = client.broker.delivered["auto"], client.broker.delivered["manual"]
    out = Counter(auto + manual + client.rejected)
    assert not seen - out, f"messages out of nowhere: {seen - out}"
    if client.all_read and not client.abandoned_auto_acks:
        lost = Counter(auto) - seen
        assert not lost, f"the broker has forgotten these, and nobody has them: {lost}"


@pytest.mark.parametrize("adapter", [OURS, OURS_THROUGH_PIKA], ids=lambda adapter: adapter.name)
@pytest.mark.parametrize("seed", range(FIRST, FIRST + SESSIONS))
def test_a_random_session(adapter: Adapter, seed: int, twisted_log: TwistedLog) -> None:
    chance = random.Random(seed)
    session = Session(adapter)
    client = Client(session, chance)
    client.open_channel()
    client.wire()
    for _ in range(chance.randrange(20, 200)):
        if not session.transport.connected:
            break
        client.step()
    client.end()
    check(client)
    session.finish()
    client.deferreds.clear()
    twisted_log.assert_empty()
