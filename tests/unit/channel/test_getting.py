"""basic_get(): answers, cancelled calls, messages of auto_ack."""

from __future__ import annotations

import pytest
from pika import exceptions
from twisted.internet import defer

from tests.support.outcome import call, watch
from tests.support.session import Session


@pytest.mark.parametrize("auto_ack", [False, True])
def test_a_cancelled_basic_get_when_the_channel_ends(session: Session, auto_ack: bool) -> None:
    channel = session.channel()
    cancelled = channel.basic_get("q", auto_ack=auto_ack)
    outcome = watch(cancelled)
    cancelled.cancel()
    following = call(channel.basic_get, "q", auto_ack=auto_ack)
    session.lose()
    outcome.failure(defer.CancelledError)
    following.failure(exceptions.ChannelClosed)
