"""`connect()` in tasks: awaited on Twisted's asyncio reactor, refused with advice elsewhere."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

PROGRAM = """\
import asyncio

import pika_twisted
from pika_twisted.testing import Broker


async def main():
    loop = asyncio.get_running_loop()
{body}


asyncio.run(main(), debug=True)
"""

INSTALLED = """\
from twisted.internet import asyncioreactor
asyncioreactor.install(loop)
from twisted.internet import reactor
"""

STARTED = INSTALLED + "reactor.startRunning(installSignalHandlers=False)\n"


def run(body: str) -> str:
    """Run it in a process of its own, for there is one reactor in each; what it prints."""
    text = PROGRAM.format(body=textwrap.indent(body, "    "))
    command = [sys.executable, "-W", "error", "-c", text]
    process = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert process.returncode == 0, process.stderr
    assert "never retrieved" not in process.stderr
    assert "Unhandled" not in process.stderr
    return process.stdout


REFUSED = """\
try:
    {how}
except RuntimeError as error:
    print(error)
await asyncio.sleep(0)
"""

WAYS = {
    "await": "await pika_twisted.connect('amqp://127.0.0.1:1/')",
    "async with": "async with pika_twisted.connect('amqp://127.0.0.1:1/'): pass",
}


@pytest.mark.parametrize("way", WAYS)
def test_without_the_asyncio_reactor_the_error_says_what_to_do(way: str) -> None:
    printed = run(REFUSED.format(how=WAYS[way]))
    assert printed == (
        "asyncio's loop is running, but Twisted's reactor is "
        f"{default_reactor()}, which does not run on it: call "
        "twisted.internet.asyncioreactor.install(asyncio.get_running_loop()) before anything "
        "imports twisted.internet.reactor, then reactor.startRunning(installSignalHandlers=False)\n"
    )


def default_reactor() -> str:
    from twisted.internet import default

    return {"epollreactor": "EPollReactor", "pollreactor": "PollReactor"}.get(
        default.install.__module__.rpartition(".")[2], "SelectReactor"
    )


@pytest.mark.parametrize("way", WAYS)
def test_a_reactor_that_was_not_started_is_named(way: str) -> None:
    printed = run(INSTALLED + REFUSED.format(how=WAYS[way]))
    assert printed == (
        "Twisted's asyncio reactor was not started: call "
        "reactor.startRunning(installSignalHandlers=False)\n"
    )


def test_a_task_connects_and_closes() -> None:
    body = """\
broker = Broker(reactor)
port = await broker.listen().asFuture(loop)
url = f"amqp://guest:guest@127.0.0.1:{port.getHost().port}/%2F"
async with pika_twisted.connect(url) as connection:
    print(type(connection).__name__, connection.is_open)
print(connection.is_closed, type(await connection.when_closed()).__name__)
try:
    await asyncio.wait_for(pika_twisted.connect("amqp://guest:wrong@127.0.0.1:1/"), 20)
except pika_twisted.ConnectionRefused:
    print("refused")
await port.stopListening().asFuture(loop)
reactor.getThreadPool().stop()
"""
    assert run(STARTED + body) == (
        "TwistedProtocolConnection True\nTrue ConnectionClosedByClient\nrefused\n"
    )


def test_a_task_that_is_cancelled_connects_no_more() -> None:
    body = """\
broker = Broker(reactor)
port = await broker.listen().asFuture(loop)
broker.freeze()
url = f"amqp://guest:guest@127.0.0.1:{port.getHost().port}/%2F"
try:
    await asyncio.wait_for(pika_twisted.connect(url), 0.3)
except asyncio.TimeoutError:
    print("timed out")
await asyncio.sleep(0.1)
broker.thaw()
await asyncio.sleep(0.1)
print(len(broker.connections))
await port.stopListening().asFuture(loop)
reactor.getThreadPool().stop()
"""
    assert run(STARTED + body) == "timed out\n0\n"
