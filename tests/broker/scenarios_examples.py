"""The programs in examples/, each in a process of its own, as a user would run it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from pika.exceptions import ChannelClosedByBroker

import pika_twisted
from tests.broker.env import Env, check, equal
from tests.broker.registry import scenario

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


class Program:
    """A running example; its output so far can be read at any time."""

    def __init__(self, env: Env, queue: str, *arguments: str, **variables: str) -> None:
        handle, self.path = tempfile.mkstemp(prefix="pika-twisted-example-")
        package = str(Path(pika_twisted.__file__).resolve().parents[1])
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            stdout=handle,
            stderr=subprocess.STDOUT,
            cwd=tempfile.gettempdir(),
            env={
                **os.environ,
                "AMQP_URL": env.broker.url(),
                "QUEUE": queue,
                "PYTHONPATH": package,
                "PYTHONWARNINGS": "default",
                **variables,
            },
        )
        os.close(handle)
        self.final = ""

    def text(self) -> str:
        """What it has printed."""
        return self.final or Path(self.path).read_text()

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait(20)

    def stop_often(self) -> int:
        """SIGTERM, and again and again until it has ended; the exit code."""
        deadline = time.monotonic() + 20
        while self.process.poll() is None and time.monotonic() < deadline:
            self.process.send_signal(signal.SIGTERM)
            time.sleep(0.003)
        return self.wait(1)

    def wait(self, seconds: float) -> int:
        """The exit code; the process is gone afterwards in any case."""
        try:
            return self.process.wait(seconds)
        finally:
            self.process.kill()
            self.process.wait()
            if not self.final:
                self.final = self.text() or " "
                os.unlink(self.path)


async def until_text(env: Env, programs: list[Program], count: int, part: str) -> None:
    """Wait until the outputs hold so many of `part` together."""
    deadline = time.monotonic() + 30
    while sum(program.text().count(part) for program in programs) < count:
        texts = "\n---\n".join(program.text()[-2000:] for program in programs)
        check(time.monotonic() < deadline, f"{count} times {part!r} expected:\n{texts}")
        await env.sleep(0.1)


async def until_consumed_by(env: Env, count: int, *queues: str) -> None:
    """Wait until each of these queues is there and has so many consumers."""
    connection = await env.connect()
    deadline = time.monotonic() + 30
    for queue in queues:
        found = None
        while found != count:
            check(time.monotonic() < deadline, f"{queue} has {found} consumers")
            channel = await connection.channel()
            try:
                declared = await channel.queue_declare(queue, passive=True)
                found = declared.method.consumer_count
                channel.close()
            except ChannelClosedByBroker:
                pass  # there is no such queue yet
            await env.sleep(0.05)


async def fill(env: Env, queue: str, count: int) -> None:
    _, channel = await env.open()
    await channel.queue_declare(queue, durable=True)
    publisher = pika_twisted.Publisher(channel, reactor=env.reactor)
    for number in range(count):
        publisher.publish("", queue, f"task {number};")
    await publisher.flush()


@scenario(interface="ours", timeout=60)
async def example_worker_under_twistd(env: Env) -> None:
    """worker.tac: handles what is there, and what a restart of it finds; SIGTERM ends it well."""
    queue = env.name()
    twistd = "from twisted.scripts.twistd import run; run()"
    arguments = ("-c", twistd, "-n", "--pidfile=", "-y", str(EXAMPLES / "worker.tac"))
    await fill(env, queue, 100)
    programs, codes = [Program(env, queue, *arguments)], []
    try:
        await until_text(env, programs, 100, "handled task")
        await fill(env, queue, 1000)
        codes.append(await env.thread(programs[0].stop))  # in the middle of it
        programs.append(Program(env, queue, *arguments))
        await until_text(env, programs, 1100, "handled task")
    finally:
        codes.append(await env.thread(programs[-1].stop))
    for code, program in zip(codes, programs, strict=True):
        # twistd ends by the signal it got, once everything is shut down.
        check(code in (0, -signal.SIGTERM), f"{code}: {program.text()[-2000:]}")
        check("Unhandled" not in program.text(), program.text()[-3000:])
        check("Server Shut Down" in program.text(), program.text()[-2000:])
    handled = sum(program.text().count("handled task") for program in programs)
    equal(handled, 1100, "handled, none twice")
    await env.settled(queue, 0)


@scenario(interface="ours", timeout=60)
async def example_workers_share_a_queue(env: Env) -> None:
    """workers.py with two processes: both get their part, each message is handled once."""
    queue = env.name()
    await fill(env, queue, 1)
    program, total = Program(env, queue, str(EXAMPLES / "workers.py"), "2"), 1
    try:
        await until_consumed_by(env, 2, queue)
        # A process that is kept from running for a moment leaves its part to the other one.
        while not all(program.text().count(f"worker {number}:") > 50 for number in range(2)):
            check(total < 10_000, program.text()[-500:])
            await fill(env, queue, 400)
            total += 400
            await until_text(env, [program], total, "task")
    finally:
        code = await env.thread(program.stop_often)
    text = program.text()
    equal(code, 0, f"exit code; {text[-2000:]}")
    check("Traceback" not in text, text[-2000:])
    equal(text.count("task"), total, "handled")
    await env.settled(queue, 0)


@scenario(interface="ours", timeout=90)
async def example_ordered_partitions(env: Env) -> None:
    """ordered.py: two workers, one leaves in the middle; each key's messages stay in order."""
    name = env.name("partitions")
    env.names.extend(("queue", f"{name}-{number}") for number in range(8))
    path = str(EXAMPLES / "ordered.py")
    workers = [Program(env, name, path), Program(env, name, path)]
    try:
        await until_consumed_by(env, 2, *(f"{name}-{number}" for number in range(8)))
        for turn in range(2):
            publishing = Program(env, name, path, "publish")
            code = await env.thread(publishing.wait, 60)
            equal(code, 0, f"exit code; {publishing.text()[-2000:]}")
            running = workers[turn:]
            await until_text(env, workers, 1000 * (turn + 1), "key")
            if turn == 0:
                await env.thread(workers[0].stop)
    finally:
        for worker in workers:
            await env.thread(worker.stop)
    check(len(running) == 1, "the second round had one worker")
    for worker in workers:
        seen: dict[str, list[int]] = {}
        for line in worker.text().splitlines():
            if line.startswith("key"):
                key, number = line.split()
                seen.setdefault(key, []).append(int(number))
        for key, numbers in seen.items():
            rounds: list[Any] = [numbers[:20], numbers[20:]] if len(numbers) > 20 else [numbers]
            check(all(part == sorted(part) for part in rounds), f"{key}: {numbers}")


class Pages:
    """What a probe sees of the program at a port."""

    def __init__(self, env: Env, port: int) -> None:
        self._env = env
        self._port = port

    async def get(self, path: str) -> tuple[int, str]:
        """Status and text of a page."""
        return await self._env.thread(self._get, path)

    def _get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self._port}/{path}", timeout=10
            ) as page:
                return page.status, page.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    async def until(self, path: str, expected: tuple[int, str]) -> None:
        """Ask until the page says that."""
        deadline, found = time.monotonic() + 30, None
        while found != expected:
            check(time.monotonic() < deadline, f"{path}: {found}")
            await self._env.sleep(0.05)
            found = await self.get(path)


@scenario(interface="ours", timeout=90)
async def example_production(env: Env) -> None:
    """production.py: ready, cut, not ready, ready again; metrics; SIGTERM drains."""
    queue = env.name()
    await fill(env, queue, 20)
    proxy = await env.proxy()
    at_proxy = env.broker.url().replace(f":{env.broker.port}/", f":{proxy.port}/")
    program = Program(
        env,
        queue,
        str(EXAMPLES / "production.py"),
        AMQP_URL=at_proxy,
        HTTP_PORT="0",
        WORK_SECONDS="0.3",
    )
    try:
        await until_text(env, [program], 1, "pages at port")
        port = re.search(r"pages at port (\d+)", program.text())
        check(port is not None, program.text())
        pages = Pages(env, int(port[1]))  # type: ignore[index]
        await until_text(env, [program], 20, "handled task")
        await pages.until("readyz", (200, "ready\n"))
        equal(await pages.get("healthz"), (200, "ok\n"), "health")

        proxy.links[-1].cut()
        await pages.until("readyz", (503, "not connected\n"))
        equal(await pages.get("healthz"), (200, "ok\n"), "alive all the same")
        await pages.until("readyz", (200, "ready\n"))
        await fill(env, queue, 40)
        await until_text(env, [program], 30, "handled task")
        _, metrics = await pages.get("metrics")
        for line in (
            f'pika_twisted_connected{{name="{queue}"}} 1.0',
            f'pika_twisted_reconnects_total{{name="{queue}"}} 1.0',
            f'pika_twisted_handler_seconds_count{{queue="{queue}"}}',
        ):
            check(line in metrics, f"{line}:\n{metrics}")
        stopping = env.thread(program.stop)
        await pages.until("readyz", (503, "stopping\n"))
        code = await stopping
    finally:
        await env.thread(program.wait, 0.1)
    text = program.text()
    equal(code, 0, f"exit code; {text[-2000:]}")
    for part in ("Traceback", "Unhandled", "guest:guest"):
        check(part not in text, text[-2000:])
    handled = re.findall(r"handled (task \d+)", text)
    left = await env.count(queue)
    equal(len(handled) + left, 60, "handled and acknowledged, or still there")


PLAIN = """\
import os

import pika_twisted
from twisted.internet import defer, task


async def main(reactor):
    {connect}
        channel = await connection.channel()
        await channel.basic_qos(prefetch_count=10)
        {body}


task.react(lambda reactor: defer.ensureDeferred(main(reactor)))
"""
ASYNC_WITH = 'async with pika_twisted.connect(os.environ["AMQP_URL"]) as connection:'
NEVER_CLOSED = 'connection = await pika_twisted.connect(os.environ["AMQP_URL"])\n    if True:'
LOOP = """
        queue, tag = await channel.basic_consume(os.environ["QUEUE"])
        async for message in queue:
            print(message.body.decode(), flush=True)
            message.ack()"""
HANDLERS = """
        def handle(message):
            print(message.body.decode(), flush=True)
        handling = await pika_twisted.consume(channel, os.environ["QUEUE"], handle)
        await handling.when_stopped()"""
PUBLISHES = """
        for number in range(3000):
            channel.basic_publish("", os.environ["QUEUE"], b"x" * 1000)
        print("published", flush=True)
        reactor.stop()"""


@scenario(
    interface="ours",
    timeout=60,
    variants={
        "async for": {"connect": ASYNC_WITH, "body": LOOP},
        "async for, never closed": {"connect": NEVER_CLOSED, "body": LOOP},
        "consume": {"connect": ASYNC_WITH, "body": HANDLERS},
    },
)
async def plain_consumer_ends_on_ctrl_c(env: Env, connect: str, body: str) -> None:
    """Without a line for it: SIGINT ends the program at once, with no traceback; acks have left."""
    queue = env.name()
    await fill(env, queue, 20)
    program = Program(env, queue, "-c", PLAIN.format(connect=connect, body=body))
    try:
        await until_text(env, [program], 20, "task")
        program.process.send_signal(signal.SIGINT)
        begin = time.monotonic()
        code = await env.thread(program.wait, 20)
    finally:
        await env.thread(program.wait, 0.1)
    check(time.monotonic() - begin < 5, "it ended at once")
    check("Traceback" not in program.text(), program.text()[-3000:])
    check("Unhandled" not in program.text(), program.text()[-3000:])
    check(code in (0, -signal.SIGINT), f"{code}: {program.text()[-2000:]}")
    await env.settled(queue, 0)


@scenario(interface="ours", timeout=60)
async def what_was_published_leaves_before_the_reactor_stops(env: Env) -> None:
    """3 MB, reactor.stop() in the same turn, a connection that is never closed: all arrive."""
    queue = env.name()
    await fill(env, queue, 0)
    program = Program(env, queue, "-c", PLAIN.format(connect=NEVER_CLOSED, body=PUBLISHES))
    code = await env.thread(program.wait, 30)
    check("Traceback" not in program.text(), program.text()[-3000:])
    equal(code, 0, program.text()[-2000:])
    await env.settled(queue, 3000)
