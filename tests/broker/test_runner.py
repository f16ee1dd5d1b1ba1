"""The runner notices: failures, timeouts, unhandled errors, and what a scenario leaves behind."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.broker.pool import ROOT
from tests.broker.registry import REACTORS

PROGRAM = """
import sys
import tests.broker.run
from tests.broker.run import Runner, install_reactor
tests.broker.run.SETTLE_TIME = 0.1
install_reactor(sys.argv[1])
import pika_twisted
from twisted.internet import defer, reactor
from tests.broker.broker import Broker
from tests.broker.env import NotHere
from tests.broker.registry import Scenario

async def good(env):
    await env.sleep(0.01)

async def fails(env):
    await env.sleep(0)
    raise ValueError("the scenario's own")

async def hangs(env):
    await defer.Deferred()

async def unhandled(env):
    defer.fail(ValueError("nobody listens"))

async def allowed(env):
    env.allow_log("Unhandled error in Deferred")
    env.allow_log("nobody listens")
    defer.fail(ValueError("nobody listens"))

async def timer(env):
    env.reactor.callLater(30, print)

async def listener(env):
    from twisted.internet import protocol
    env.reactor.listenTCP(0, protocol.Factory(), interface="127.0.0.1")

async def unraisable(env):
    class Bad:
        def __del__(self):
            raise ValueError("in a destructor")
    Bad()

async def not_here(env):
    raise NotHere("needs another broker")

functions = [good, fails, hangs, unhandled, allowed, timer, listener, unraisable, not_here, good]
scenarios = [Scenario(f.__name__, f, 0.3, False, False, "ours") for f in functions]
runner = Runner(reactor, Broker("127.0.0.1", 1), pika_twisted)
def start():
    running = defer.Deferred.fromCoroutine(runner.run(scenarios))
    running.addBoth(lambda result: reactor.stop())
reactor.callWhenRunning(start)
reactor.run()
"""

EXPECTED = {
    "fails": "ValueError: the scenario's own",
    "hangs": "TimeoutError",
    "unhandled": "ValueError: nobody listens",
    "timer": "left behind: <DelayedCall",
    "listener": "left behind: <",
    "unraisable": "ValueError: in a destructor",
}


@pytest.mark.parametrize("reactor", REACTORS)
def test_the_runner_notices(reactor: str) -> None:
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, reactor],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    events = [json.loads(line) for line in run.stdout.splitlines()]
    assert events[-1] == {"event": "done"}, run.stderr
    ended = [event for event in events if event["event"] == "end"]
    assert len(ended) == 10
    for event in ended:
        text = "\n".join(event["problems"])
        if event["scenario"] in EXPECTED:
            assert EXPECTED[event["scenario"]] in text
        else:
            assert not event["problems"], text
    assert [event["skipped"] for event in ended if event["skipped"]] == ["needs another broker"]
