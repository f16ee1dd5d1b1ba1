"""Run scenarios on one reactor in this process: `python -m tests.broker.run REACTOR [NAME ...]`.

One JSON object per line on stdout: {"event": "start" | "end" | "done", "scenario": ..., ...}.
The broker is read from the environment (broker.ENVIRONMENT), or AMQP_URL, or a node is started.
A scenario fails too when it leaves something behind: an unhandled error, a timer, a socket.
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import importlib
import json
import logging
import os
import sys
import time
import traceback
import warnings
from types import ModuleType
from typing import Any

from tests.broker.broker import ENVIRONMENT, Broker
from tests.broker.registry import IMPLEMENTATION_VARIABLE, REACTORS, Scenario, all_scenarios

IMPLEMENTATIONS = {"ours": "pika_twisted", "pika": "pika.adapters.twisted_connection"}
LEFT_BEHIND = "left behind"
SETTLE_TIME = 2.0  # how long a closed connection may take to give back its socket and timers


def install_reactor(name: str) -> None:
    """Install it as the process's reactor, before anything imports the default one."""
    if name == "asyncio":
        import asyncio

        from twisted.internet import asyncioreactor

        asyncioreactor.install(asyncio.new_event_loop())
    else:
        importlib.import_module(f"twisted.internet.{name}reactor").install()


class Watch:
    """Collects what goes wrong beside the scenario: logged errors and unraisable exceptions."""

    def __init__(self) -> None:
        from twisted.logger import LogLevel, eventAsText, globalLogPublisher

        self.seen: list[str] = []
        self._is_error = lambda event: event.get("log_level") is LogLevel.critical
        self._as_text = eventAsText
        globalLogPublisher.addObserver(self._observe)
        sys.unraisablehook = self._unraisable

    def _observe(self, event: dict[str, Any]) -> None:
        if self._is_error(event):
            self.seen.append("logged: " + self._as_text(event))

    def _unraisable(self, unraisable: Any) -> None:
        text = "".join(traceback.format_exception(unraisable.exc_value))
        self.seen.append(f"unraisable in {unraisable.object!r}: {text}")

    def take(self, allowed: list[str]) -> list[str]:
        """What was seen since the last call, allowed texts left out."""
        seen, self.seen = self.seen, []
        return [text for text in seen if not any(part in text for part in allowed)]


class Runner:
    """Runs the scenarios one after the other and reports each."""

    def __init__(
        self,
        reactor: Any,
        broker: Broker,
        implementation: ModuleType,
        *,
        stop_when_dirty: bool = False,
    ) -> None:
        self.reactor = reactor
        self.broker = broker
        self.implementation = implementation
        # What one scenario left behind would be laid at the next one's door.
        self.stop_when_dirty = stop_when_dirty
        self.watch = Watch()
        # A private copy of stdout: what a scenario prints goes to stderr, not between the lines.
        self.output = os.fdopen(os.dup(1), "w", buffering=1)
        os.dup2(2, 1)

    def report(self, event: str, **fields: Any) -> None:
        self.output.write(json.dumps({"event": event, **fields}) + "\n")

    async def run(self, scenarios: list[Scenario]) -> bool:
        good = True
        for scenario in scenarios:
            self.report("start", scenario=scenario.name, timeout=scenario.timeout)
            # A scenario that blocks the reactor can't be timed out from within.
            faulthandler.dump_traceback_later(scenario.timeout + 30, exit=True)
            before, cpu = time.monotonic(), time.process_time()
            problems, skipped = await self.run_one(scenario)
            faulthandler.cancel_dump_traceback_later()
            good = good and not problems
            dirty = any(text.startswith(LEFT_BEHIND) for text in problems)
            self.report(
                "end",
                scenario=scenario.name,
                problems=problems,
                skipped=skipped,
                seconds=round(time.monotonic() - before, 3),
                cpu=round(time.process_time() - cpu, 3),
            )
            if dirty and self.stop_when_dirty:
                break
        self.report("done")
        return good

    async def run_one(self, scenario: Scenario) -> tuple[list[str], str]:
        """What went wrong, as texts ([] is a pass), and why it was skipped, where it was."""
        from twisted.internet import defer

        from tests.broker.env import Env, NotHere

        skipped = ""
        env = Env(self.reactor, self.broker, self.implementation)
        baseline = self._left_over()
        problems = []
        try:
            running = defer.Deferred.fromCoroutine(scenario.function(env))
            await running.addTimeout(scenario.timeout, self.reactor)
        except NotHere as reason:
            skipped = str(reason)
        except Exception:
            problems.append(traceback.format_exc())
        try:
            await defer.Deferred.fromCoroutine(env.finish()).addTimeout(30, self.reactor)
        except Exception:
            problems.append("while closing what was open:\n" + traceback.format_exc())
        problems += await self._clean(env, baseline)
        allowed = env.allowed_logs
        del env
        gc.collect()  # an unhandled error of a Deferred is logged when it is collected
        return problems + self.watch.take(allowed), skipped

    async def _clean(self, env: Any, baseline: set[Any]) -> list[str]:
        # The scenario's last Deferred may have woken us deep in a connection's own callbacks, whose
        # frames hold what is to be collected: go on from the reactor's loop.
        await env.sleep(0)
        deadline = self.reactor.seconds() + SETTLE_TIME
        while (left := self._left_over() - baseline) and self.reactor.seconds() < deadline:
            await env.sleep(0.005)
        return [f"{LEFT_BEHIND}: {each}" for each in left]

    def _left_over(self) -> set[Any]:
        reactor = self.reactor
        return {*reactor.getDelayedCalls(), *reactor.getReaders(), *reactor.getWriters()}


def find_broker() -> tuple[Broker, Any]:
    """The broker to use, and the node to remove afterwards where it had to be started."""
    if text := os.environ.get(ENVIRONMENT):
        return Broker.from_json(text), None
    if url := os.environ.get("AMQP_URL"):
        return Broker.from_url(url), None
    from tests.broker.node import create_node

    node = create_node()
    return node.broker, node


def choose(names: list[str], exactly: bool, broker: Broker, implementation: str) -> list[Scenario]:
    """The scenarios named (a part of a name is enough), or all that can run here."""
    if exactly:
        return [all_scenarios()[name] for name in names]
    chosen = list(all_scenarios().values())
    if names:
        chosen = [each for each in chosen if any(part in each.name for part in names)]
    if not broker.private:
        chosen = [each for each in chosen if not each.own_node]
    if implementation == "pika":
        chosen = [each for each in chosen if each.interface == "pika"]
    return chosen


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.broker.run", description=__doc__)
    parser.add_argument("reactor", choices=REACTORS)
    parser.add_argument("names", nargs="*", help="parts of scenario names; none: all")
    parser.add_argument(
        "--exactly",
        action="store_true",
        help="the names are whole ones; stop after a scenario that left something behind",
    )
    parser.add_argument(
        "--implementation",
        choices=IMPLEMENTATIONS,
        default=os.environ.get(IMPLEMENTATION_VARIABLE, "ours"),
    )
    arguments = parser.parse_intermixed_args()
    faulthandler.enable()
    logging.getLogger("pika").setLevel(logging.CRITICAL)
    install_reactor(arguments.reactor)
    implementation = importlib.import_module(IMPLEMENTATIONS[arguments.implementation])
    broker, node = find_broker()
    scenarios = choose(arguments.names, arguments.exactly, broker, arguments.implementation)
    from twisted.internet import defer, reactor

    runner = Runner(reactor, broker, implementation, stop_when_dirty=arguments.exactly)
    good: list[bool] = []

    def start() -> None:
        running = defer.Deferred.fromCoroutine(runner.run(scenarios))
        running.addCallbacks(good.append, lambda failure: failure.printTraceback())
        running.addBoth(lambda _: reactor.stop())

    # Ours only: Twisted and pyOpenSSL deprecate parts of each other.
    warnings.filterwarnings("error", module=r"(pika_twisted|tests)\b")
    warnings.filterwarnings("error", category=ResourceWarning)
    reactor.callWhenRunning(start)
    reactor.run()
    if node is not None:
        node.remove()
    return 0 if good == [True] else 1


if __name__ == "__main__":
    sys.exit(main())
