"""Fixtures for pytest: a broker in the process of the tests.

pytest finds this by its entry point. It is outside the package so that pytest does not import all
of it, pika and Twisted with it, before the first test that wants a broker.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pika_twisted.testing import Broker


@pytest.fixture
def make_amqp_broker() -> Iterator[Callable[..., Broker]]:
    """Return a function with the parameters of `pika_twisted.testing.Broker`.

    Its brokers are closed when the test has ended.
    """
    from pika_twisted.testing import Broker

    made: list[Broker] = []

    def make(reactor: Any = None, **options: Any) -> Broker:
        broker = Broker(reactor, **options)
        made.append(broker)
        return broker

    yield make
    for broker in made:
        broker.close()


@pytest.fixture
def amqp_broker(make_amqp_broker: Callable[..., Broker]) -> Broker:
    """Return a `pika_twisted.testing.Broker` with a clock of its own."""
    return make_amqp_broker()
