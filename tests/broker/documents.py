"""The programs in the documentation, and how to run one against a broker.

Every block that begins with ```python is one, in README.md and docs/. A comment right before it
says what it needs and what it prints; readers don't see it:

    <!-- test: queue=jobs:3; expect=b'message 2'; signal=SIGTERM -->

- `queue=NAME` or `queue=NAME:3`: there is a durable queue, with three messages; may be repeated
- `expect=TEXT`: a line of the output contains it; repeated ones come in that order
- `signal=SIGINT`: sent when what is expected before it has been printed
- `tls`: needs our own node, whose TLS port and authority are put in
- `with=trial` or `with=pytest`: a file of tests; `with=twistd`: a .tac file
- `code=1`: it exits with that status

A block that is no whole program (it starts no reactor) runs in a coroutine where `reactor`,
`connection` and `channel` are there.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
from dataclasses import dataclass, field
from pathlib import Path

import pika

from tests.broker.broker import Broker

ROOT = Path(__file__).parents[2]
DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
TIME_LIMIT = 30.0
# The plugin by name: a checkout that is not installed has no entry points.
PYTEST_OPTIONS = ("-q", "-p", "no:cacheprovider", "-p", "pytest_pika_twisted")
TWISTD = "from twisted.scripts.twistd import run; run()"

_BLOCK = re.compile(
    r"(?:^<!-- test:(?P<needs>[^>]*?)-->\n+)?^(?P<indent> *)```python\n(?P<code>.*?)^ *```$",
    re.MULTILINE | re.DOTALL,
)
_STARTS_ITSELF = re.compile(
    r"task\.react\(|reactor\.run\(|asyncio\.run\(|TestCase\)|^def test_|application =", re.M
)
# What may stand in the documentation for the broker's address.
_ADDRESS = re.compile(r"amqp://(?:guest:guest@)?localhost(?::5672)?(?:/%2F)?")
_TLS_ADDRESS = re.compile(r"amqps://(?:guest:guest@)?localhost(?::5671)?(?:/%2F)?")
_TROUBLE = re.compile(r"Unhandled error in Deferred|Traceback \(most recent|was never awaited")

_FRAGMENT = """\
import pika
import pika_twisted
from twisted.internet import defer, task


async def _main(reactor):
    async with pika_twisted.connect("amqp://guest:guest@localhost:5672/%2F") as connection:
        channel = await connection.channel()
{body}


task.react(lambda reactor: defer.ensureDeferred(_main(reactor)))
"""


@dataclass
class Program:
    """One block."""

    name: str
    code: str
    queues: list[str] = field(default_factory=list)
    #: ("expect", text) and ("signal", name), in order.
    steps: list[tuple[str, str]] = field(default_factory=list)
    tls: bool = False
    runner: str | None = None
    exit_code: int = 0

    @property
    def text(self) -> str:
        """The whole program."""
        if self.runner or _STARTS_ITSELF.search(self.code):
            return self.code
        return _FRAGMENT.format(body=textwrap.indent(self.code, " " * 8))


def _program(document: Path, match: re.Match[str]) -> Program:
    line = document.read_text()[: match.start("code")].count("\n") + 1
    program = Program(f"{document.name}:{line}", textwrap.dedent(match["code"]))
    for need in filter(None, (part.strip() for part in (match["needs"] or "").split(";"))):
        key, _, value = need.partition("=")
        if key == "queue":
            program.queues.append(value)
        elif key in ("expect", "signal"):
            program.steps.append((key, value))
        elif key == "tls":
            program.tls = True
        elif key == "with":
            program.runner = value
        elif key == "code":
            program.exit_code = int(value)
        else:
            raise ValueError(f"{program.name}: no such need: {need}")
    return program


def programs() -> list[Program]:
    """All of them, in order."""
    return [
        _program(document, match)
        for document in DOCUMENTS
        for match in _BLOCK.finditer(document.read_text())
    ]


def prepare(program: Program, broker: Broker) -> None:
    """Make the queues it needs, empty but for their messages."""
    connection = pika.BlockingConnection(pika.URLParameters(broker.url(heartbeat=0)))
    try:
        channel = connection.channel()
        for need in program.queues:
            name, _, count = need.partition(":")
            channel.queue_delete(name)
            channel.queue_declare(name, durable=True)
            for number in range(int(count or 0)):
                channel.basic_publish("", name, f"message {number}".encode())
    finally:
        connection.close()


def clean(program: Program, broker: Broker) -> None:
    """Delete the queues."""
    connection = pika.BlockingConnection(pika.URLParameters(broker.url(heartbeat=0)))
    try:
        channel = connection.channel()
        for need in program.queues:
            channel.queue_delete(need.partition(":")[0])
    finally:
        connection.close()


def run(program: Program, broker: Broker, folder: Path) -> str:
    """Run it in a process of its own; its output. Raises AssertionError when it misbehaves."""
    text = _ADDRESS.sub(lambda _: broker.url(), program.text)
    if program.tls:
        url = broker.url().replace("amqp://", "amqps://")
        url = url.replace(f"{broker.host}:{broker.port}", f"localhost:{broker.tls_port}")
        text = _TLS_ADDRESS.sub(lambda _: url, text)
        text = text.replace("/etc/rabbitmq/authority.pem", str(broker.authority))
    file = folder / (
        "test_documented.py" if program.runner in ("trial", "pytest") else "program.py"
    )
    file.write_text(text)
    command = {
        None: [sys.executable, "-X", "dev", "-W", "ignore::DeprecationWarning", file.name],
        "trial": [sys.executable, "-m", "twisted.trial", file.stem],
        "pytest": [sys.executable, "-m", "pytest", *PYTEST_OPTIONS, file.name],
        "twistd": [sys.executable, "-c", TWISTD, "--pidfile=", "-noy", file.name],
    }[program.runner]
    process = subprocess.Popen(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
            "PYTHONUNBUFFERED": "1",
        },
        # As a terminal starts it: where the tests run in a shell's background SIGINT is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    timer = threading.Timer(TIME_LIMIT, process.kill)
    timer.start()
    try:
        return _follow(program, process)
    finally:
        timer.cancel()
        if process.poll() is None:
            process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def _follow(program: Program, process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    output, steps, sent = [], list(program.steps), []
    for line in process.stdout:
        output.append(line)
        if steps and steps[0][0] == "expect" and steps[0][1] in line:
            steps.pop(0)
        while steps and steps[0][0] == "signal":
            sent.append(signal.Signals[steps.pop(0)[1]])
            process.send_signal(sent[-1])
    status = process.wait()
    text = "".join(output)
    assert not steps, f"{program.name} did not print {steps[0][1]!r}:\n{text}"
    if program.exit_code == 0:
        assert not _TROUBLE.search(text), f"{program.name}:\n{text}"
    assert status in (program.exit_code, *(-each for each in sent)), (
        f"{program.name}: {status}\n{text}"
    )
    return text
