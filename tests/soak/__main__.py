"""Load for minutes or hours, with the connections cut: `python -m tests.soak`.

Against a private RabbitMQ node, or the broker of AMQP_URL. Prints at intervals and at the end: the
memory of this process and its slope, the counts of messages, errors that nobody handled, Deferreds
that have not fired, delayed calls. Fails when the counts don't balance, on an unhandled error, on
anything left over, and when the memory grows faster than the limit. The slope is judged only over
half an hour and more: over less it says little, and is only printed.
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import logging
import re
import sys
import time
from typing import Any

from tests.broker.control import Control
from tests.broker.registry import REACTORS
from tests.broker.run import Watch, find_broker, install_reactor

JUDGED_FROM = 1800.0  # seconds


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--rate", type=float, default=60.0, help="messages a second, each load")
    parser.add_argument("--channels", type=float, default=2.0, help="channels a second, each load")
    parser.add_argument("--cut", type=float, default=30.0, help="seconds between two cuts")
    parser.add_argument("--interval", type=float, default=15.0, help="seconds between two samples")
    parser.add_argument("--warm-up", type=float, help="seconds that don't count for the slope")
    parser.add_argument("--limit", type=float, default=1.0, help="MB that memory may grow an hour")
    parser.add_argument("--reactor", choices=REACTORS, default="epoll")
    arguments = parser.parse_args()
    if arguments.warm_up is None:
        arguments.warm_up = min(600.0, arguments.seconds / 4)
    return arguments


class Hiccups(logging.Handler):
    """The package logs what a handler raised. Everything else that it logs as an error counts."""

    def __init__(self, seen: list[str]) -> None:
        super().__init__(logging.ERROR)
        self.seen = seen

    def emit(self, record: logging.LogRecord) -> None:
        from tests.soak.loads import Hiccup

        if record.exc_info is None or not isinstance(record.exc_info[1], Hiccup):
            self.seen.append(f"logged: {record.getMessage()}")


class Soak:
    """One run."""

    def __init__(self, reactor: Any, broker: Any, arguments: argparse.Namespace) -> None:
        from twisted.logger import globalLogBeginner

        import pika_twisted
        from tests.broker.env import Env
        from tests.soak.cutter import Cutter
        from tests.soak.memory import Memory

        self.reactor = reactor
        self.broker = broker
        self.arguments = arguments
        self.env = Env(reactor, broker, pika_twisted)
        # As in a program that logs: before it has begun Twisted keeps the last 65,536 events.
        globalLogBeginner.beginLoggingTo([lambda event: None], redirectStandardIO=False)
        self.watch = Watch()
        logging.getLogger("pika_twisted").addHandler(Hiccups(self.watch.seen))
        logging.getLogger("pika_twisted").propagate = False
        self.memory = Memory(arguments.warm_up / 3600)
        self.cutter = Cutter(broker)
        self.loads: list[Any] = []
        self.cuts = 0
        self.errors: list[str] = []
        self.problems: list[str] = ["stopped before its end"]
        self.began = time.monotonic()

    async def run(self) -> None:
        """All of it, until everything is closed."""
        from tests.soak.loads import DropInLoad, ServiceLoad
        from tests.soak.message_log import MessageLog

        arguments = self.arguments
        for kind in (ServiceLoad, DropInLoad):
            log = MessageLog(int(arguments.rate * (arguments.seconds + 60)))
            self.loads.append(
                kind(self.env, self.cutter.port, log, arguments.rate, arguments.channels)
            )
        for load in self.loads:
            await self.env.within(60, load.start(), f"{load.name} started")
        await self._go_on()
        for load in self.loads:
            await load.finish()
        for load in self.loads:
            await self.env.within(60, load.stop(), f"{load.name} stopped")
            self.problems += [
                f"{load.name}: {text}" for text in load.log.problems(may_fail=load.may_fail)
            ]
            await self._check_broker(load)
        self.problems.remove("stopped before its end")

    async def _go_on(self) -> None:
        next_cut, next_sample = self.arguments.cut, 0.0
        while (elapsed := time.monotonic() - self.began) < self.arguments.seconds:
            if elapsed >= next_sample:
                next_sample += self.arguments.interval
                self._report(elapsed)
            if elapsed >= next_cut:
                next_cut += self.arguments.cut
                await self._cut()
            await self.env.sleep(min(next_cut, next_sample) - elapsed)

    async def _cut(self) -> None:
        """By a reset; every third time in good order by the broker, where it is ours."""
        self.cuts += 1
        if self.cuts % 3 == 0 and self.broker.private:
            closing = (
                '[rabbit_networking:close_connection(P, "soak")'
                " || P <- rabbit_networking:connections()]"
            )
            await self.env.thread(Control(self.broker.folder).evaluate, closing)
        else:
            self.cutter.cut()

    async def _check_broker(self, load: Any) -> None:
        """Nothing is left in the queues of a load."""
        if not self.broker.private:
            return
        for queue in load.queues:
            counts = await self.env.thread(
                Control(self.broker.folder).queue_counts, self.broker.vhost, queue
            )
            if counts != (0, 0):
                self.problems.append(f"{queue}: {counts} messages (ready, unacknowledged) remain")

    def _report(self, elapsed: float) -> None:
        sample = self.memory.sample(elapsed / 3600)
        self.errors += self.watch.take([])  # after it: garbage tells of errors nobody looked at
        cpu = 100 * time.process_time() / max(elapsed, 1.0)
        print(
            f"{elapsed:6.0f} s: {sample.resident / 1e6:.1f} MB, kept {sample.kept / 1e6:.2f} MB"
            f" ({self.memory.megabytes_an_hour():+.2f} MB/h after the warm-up),"
            f" {sample.allocated / 1e6:.2f} MB allocated,"
            f" {sample.blocks:,} blocks ({self.memory.blocks_an_hour():+,.0f} an hour),"
            f" {unfired()} Deferreds not fired, {len(self.reactor.getDelayedCalls())} delayed"
            f" calls, {self.cuts} cuts, {len(self.errors)} errors, {cpu:.0f} % CPU"
        )
        for load in self.loads:
            print(f"          {load}")
        sys.stdout.flush()

    def end(self) -> bool:
        """After the reactor has stopped: what is left over; whether all is well."""
        growth, limit = self.memory.megabytes_an_hour(), self.arguments.limit
        self._report(time.monotonic() - self.began)
        judged = self.arguments.seconds >= JUDGED_FROM
        if judged and growth > limit:
            self.problems.append(f"memory grew by {growth:.2f} MB an hour, more than {limit:g}")
        if left := unfired():
            self.problems.append(f"{left} Deferreds never fired")
        for call in self.reactor.getDelayedCalls():
            self.problems.append(f"left over: {re.sub(chr(10), ' ', str(call))}")
        self.problems += self.errors
        verdict = f"at most {limit:g}" if judged else f"not judged under {JUDGED_FROM:g} s"
        print(f"slope {growth:+.2f} MB/h ({verdict}), {len(self.problems)} problems")
        for problem in self.problems:
            print("PROBLEM", problem)
        return not self.problems


def unfired() -> int:
    """How many Deferreds are alive that have not fired."""
    from twisted.internet.defer import Deferred

    return sum(1 for each in gc.get_objects() if isinstance(each, Deferred) and not each.called)


def main() -> int:
    arguments = read_arguments()
    faulthandler.enable()
    install_reactor(arguments.reactor)
    logging.getLogger("pika").setLevel(logging.CRITICAL)
    broker, node = find_broker()
    from twisted.internet import defer, reactor

    soak = Soak(reactor, broker, arguments)

    def failed(failure: Any) -> None:
        soak.problems.append(failure.getTraceback())

    def start() -> None:
        running = defer.Deferred.fromCoroutine(soak.run())
        running.addErrback(failed).addBoth(lambda _: reactor.stop())

    reactor.callWhenRunning(start)
    try:
        reactor.run()
        return 0 if soak.end() else 1
    finally:
        soak.cutter.stop()
        if node is not None:
            node.remove()


if __name__ == "__main__":
    sys.exit(main())
