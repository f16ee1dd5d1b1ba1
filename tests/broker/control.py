"""Commands to a running node: rabbitmqctl, Erlang expressions, signals. Blocking, so use a thread.

An Erlang expression goes through erl_call, a small C program (about 10 ms); where the
distribution has none, through `rabbitmqctl eval` (about 0.5 s).
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.broker import versions
from tests.broker.installation import Installation, NodeError
from tests.broker.reaper import marked_processes

STATE_FILE = "node.json"
FOUND_WITHIN = 5.0
CTL_TIMEOUT = 120.0  # rabbitmqctl takes 0.6 s on an idle machine, and 31 with five to a core


@dataclass(frozen=True)
class NodeState:
    """All that another process needs to command a node; kept as JSON in the node's folder."""

    name: str
    mark: str
    cookie: str
    port: int
    tls_port: int
    distribution_port: int
    epmd_port: int
    root: str
    environment: dict[str, str]

    def save(self, folder: Path) -> None:
        (folder / STATE_FILE).write_text(json.dumps(asdict(self)))

    @classmethod
    def load(cls, folder: Path) -> NodeState:
        return cls(**json.loads((folder / STATE_FILE).read_text()))


class Control:
    """Commands for the node whose data is in `folder`; usable from any process of the test run."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.state = NodeState.load(self.folder)

    @property
    def installation(self) -> Installation:
        """The RabbitMQ that the node runs."""
        return Installation(self.state.root)

    def run(self, arguments: list[str], *, text: str = "", timeout: float = CTL_TIMEOUT) -> str:
        """Run one command in the node's environment; its output, or NodeError with it."""
        result = subprocess.run(
            self.installation.command(arguments),
            env=self.state.environment,
            cwd=self.folder,
            input=text,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        if result.returncode != 0:
            raise NodeError(f"{' '.join(arguments)} failed:\n{result.stdout}{result.stderr}")
        return result.stdout

    def ctl(self, *arguments: str, timeout: float = CTL_TIMEOUT) -> str:
        """`rabbitmqctl --quiet ARGUMENTS`."""
        return self.run(
            [self.installation.script("rabbitmqctl"), "--quiet", *arguments], timeout=timeout
        )

    def diagnostics(self, *arguments: str, timeout: float = CTL_TIMEOUT) -> str:
        """`rabbitmq-diagnostics --quiet ARGUMENTS`."""
        return self.run(
            [self.installation.script("rabbitmq-diagnostics"), "--quiet", *arguments],
            timeout=timeout,
        )

    def evaluate(self, expression: str) -> str:
        """The printed value of an Erlang expression (without its final dot), run on the node."""
        program = self.installation.program("erl_call")
        if program is None:
            return self.ctl("eval", expression + ".").strip()
        address = f"127.0.0.1:{self.state.distribution_port}"
        # The node refuses a second caller of one name; by default all have the same.
        name = f"tests-{uuid.uuid4().hex}"
        output = self.run(
            [program, "-h", name, "-address", address, "-c", self.state.cookie, "-e"],
            text=expression + ".\n",
        ).strip()
        matched = re.fullmatch(r"\{ok, (.*)\}", output, re.DOTALL)
        if matched is None:
            raise NodeError(f"{expression}: {output}")
        return matched[1]

    def version(self) -> str:
        """RabbitMQ's version, as "3.10.8"."""
        return self.evaluate("rabbit_misc:version()").strip('"')

    def add_vhost(self, name: str) -> None:
        self.ctl("add_vhost", name)

    def delete_vhost(self, name: str) -> None:
        self.ctl("delete_vhost", name)

    def add_user(self, name: str, password: str) -> None:
        self.ctl("add_user", name, password)

    def set_permissions(self, user: str, vhost: str, *patterns: str) -> None:
        """`patterns` are three regular expressions: configure, write, read."""
        self.ctl("set_permissions", "-p", vhost, user, *patterns)

    def close_all_connections(self, reason: str, vhost: str | None = None) -> None:
        where = ["--global"] if vhost is None else ["--vhost", vhost]
        self.ctl("close_all_connections", *where, reason)

    def set_memory_watermark(self, fraction: float) -> None:
        """0 raises the memory alarm at once (connections that publish get blocked)."""
        self.ctl("set_vm_memory_high_watermark", str(fraction))

    def stop_app(self) -> None:
        self.ctl("stop_app")

    def start_app(self) -> None:
        for attempt in range(versions.BOOT_TRIES):
            try:
                self.ctl("start_app", timeout=240)
                return
            except NodeError as error:
                last = attempt == versions.BOOT_TRIES - 1
                if last or versions.BOOTS_AT_NEXT_TRY not in str(error):
                    raise

    def connection_names(self) -> list[str]:
        """The connections the node has open now."""
        return self.ctl("list_connections", "name").splitlines()[1:]

    def close_connection(self, name: str, reason: str) -> None:
        """Connection.Close 320 to the connection with that connection_name."""
        closing = f'rabbit_networking:close_connection(P, "{reason}")'
        self._do_to_connection(name, closing)

    def cut_connection(self, name: str) -> None:
        """Kill the broker's end of it: TCP closes, no AMQP is said."""
        self._do_to_connection(name, "exit(P, kill)")

    def _do_to_connection(self, name: str, action: str) -> None:
        # A connection that is busy may not say its name when asked; one that comes back takes time.
        deadline = time.monotonic() + FOUND_WITHIN
        while True:
            try:
                self.evaluate(self._for_connection(name, action))
                return
            except NodeError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def _for_connection(self, name: str, action: str) -> str:
        # A connection may end between being listed and being asked (catch), or be in the middle of
        # its handshake (its properties are no list yet).
        return (
            f"[] =/= [{action} || P <- rabbit_networking:connections(), "
            "[{client_properties, [_ | _] = Properties}] <- "
            "[(catch rabbit_networking:connection_info(P, [client_properties]))], "
            f'{{<<"connection_name">>, _, <<"{name}">>}} <- Properties] '
            'orelse error("no such connection")'
        )

    def queue_counts(self, vhost: str, queue: str) -> tuple[int, int]:
        """Messages ready and unacknowledged, asked from the queue's process itself."""
        found = (
            f'{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"{vhost}">>, queue, <<"{queue}">>'
            ")), [R, U] = [element(2, I) || I <- rabbit_amqqueue:info(Q, [messages_ready, "
            "messages_unacknowledged])], {R, U}"
        )
        ready, unacknowledged = re.findall(r"\d+", self.evaluate(found))
        return int(ready), int(unacknowledged)

    def pids(self) -> list[int]:
        """Every process of this node that lives, epmd left out."""
        return [pid for pid in marked_processes(self.state.mark) if not _is_epmd(pid)]

    def server_pid(self) -> int:
        """The Erlang virtual machine, as it wrote it down itself."""
        return int((self.folder / "server.pid").read_text())

    def kill(self) -> None:
        """SIGKILL to the node, with no word of farewell; epmd stays for a restart."""
        self._signal(signal.SIGKILL)
        deadline = time.monotonic() + 10
        while self.pids():
            if time.monotonic() > deadline:
                raise NodeError(f"these processes survived SIGKILL: {self.pids()}")
            self._signal(signal.SIGKILL)
            time.sleep(0.02)

    def freeze(self) -> None:
        """SIGSTOP: connections stay open, nothing is answered any more."""
        os.kill(self.server_pid(), signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.server_pid(), signal.SIGCONT)

    def _signal(self, number: int) -> None:
        for pid in self.pids():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass


def _is_epmd(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip() == "epmd"
    except OSError:
        return False
