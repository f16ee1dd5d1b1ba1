"""`BrokerMixin`: brokers for the test cases of trial."""

from __future__ import annotations

from typing import Any

from pika_twisted.testing.broker import Broker


class BrokerMixin:
    """For a `twisted.trial` test case, before its base class.

    For example::

        class Tests(BrokerMixin, SynchronousTestCase):
            def test_work(self):
                broker = self.make_broker()
                broker.run(work(broker))
    """

    def make_broker(self, reactor: Any = None, **options: Any) -> Broker:
        """Return a broker that is closed when the test has ended.

        :param reactor: as of `Broker`: a clock of its own when None
        :param options: as of `Broker`
        """
        broker = Broker(reactor, **options)
        self.addCleanup(broker.close)  # type: ignore[attr-defined]
        return broker
