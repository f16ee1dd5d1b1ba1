"""A private RabbitMQ node: own ports, own epmd, own folder; gone without a trace afterwards.

`python -m tests.broker.node` starts one by hand, prints how to use it, and stops it at Ctrl-C.
"""

from __future__ import annotations

import atexit
import base64
import hashlib
import json
import os
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.broker import versions
from tests.broker.broker import ENVIRONMENT, Broker
from tests.broker.certificates import CertificateFiles, write_certificates
from tests.broker.control import Control, NodeState
from tests.broker.installation import Installation, NodeError, find_installation
from tests.broker.reaper import MARK, kill_marked, start_reaper
from tests.broker.registry import REACTORS

USER, PASSWORD = "guest", "guest"
LIMITED_USER, LIMITED_PASSWORD = "limited", "limited-secret"
START_ATTEMPTS = 3  # the ports found free may be taken by somebody else before the node binds them
START_TIMEOUT = 180.0  # 7 s on an idle machine
GONE_AFTER = 2.0  # without a process for so long the server has ended

MAX_MESSAGE_SIZE = 128 << 20  # 16 MiB by default since 4.0
# Denied, so that the tests, the demo and the benchmarks use nothing that RabbitMQ will drop. A
# version knows some of them and does not look at the others; 3.10 looks at none.
DEPRECATED = (
    "amqp_address_v1",
    "amqp_filter_set_bug",
    "classic_queue_mirroring",
    "global_qos",
    "management_metrics_collection",
    "queue_master_locator",
    "ram_node_type",
    "transient_nonexcl_queues",
)

# Erlang's own format: the ini-like one costs 3 s more at boot (its schema is compiled each time).
CONFIGURATION = """\
[{{rabbit, [
    {{tcp_listeners, [{{"127.0.0.1", {port}}}]}},
    {{ssl_listeners, [{{"127.0.0.1", {tls_port}}}]}},
    {{ssl_options, [
        {{cacertfile, "{authority}"}},
        {{certfile, "{certificate}"}},
        {{keyfile, "{key}"}},
        {{verify, verify_none}},
        {{fail_if_no_peer_cert, false}}]}},
    {{load_definitions, "{definitions}"}},
    {{disk_free_limit, 50000000}},
    {{max_message_size, {max_message_size}}},
    {{permit_deprecated_features, #{{{denied}}}}},
    {{collect_statistics_interval, 60000}}]}}].
"""


def free_ports(count: int) -> list[int]:
    """So many different TCP ports that nobody on the loopback listens on right now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def _hashed(password: str) -> str:
    salt = secrets.token_bytes(4)
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def definitions() -> dict[str, object]:
    """Users and permissions, loaded at boot: six times faster than a rabbitmqctl call for each."""
    vhosts = ("/", *(f"on-{reactor}" for reactor in REACTORS))
    users = [(USER, PASSWORD, "administrator"), (LIMITED_USER, LIMITED_PASSWORD, "")]
    return {
        "users": [
            {
                "name": name,
                "password_hash": _hashed(password),
                "hashing_algorithm": "rabbit_password_hashing_sha256",
                "tags": tags,
            }
            for name, password, tags in users
        ],
        "vhosts": [{"name": name} for name in (*vhosts, "closed")],
        "permissions": [
            {"user": user, "vhost": name, "configure": what, "write": what, "read": what}
            for name in vhosts
            # The limited one may use what begins with "open-" and nothing else.
            for user, what in ((USER, ".*"), (LIMITED_USER, "^open-.*"))
        ],
    }


class Node(Control):
    """A node of our own. `Node.create()` starts it, `remove()` stops it and deletes its folder."""

    _reaper: subprocess.Popen[str] | None = None
    _children: list[subprocess.Popen[bytes]]

    def __init__(self, folder: str | Path) -> None:
        super().__init__(folder)
        self._children = []

    @classmethod
    def create(cls, *, wait: bool = True, cluster_with: Node | None = None) -> Node:
        """Start a node; with `wait` it answers AMQP on return, else call wait_ready() later."""
        if sys.platform != "linux":
            raise NodeError("the private node needs Linux; set AMQP_URL to a running broker")
        node = cls(_new_folder(cluster_with))
        if Node._reaper is None or Node._reaper.poll() is not None:
            Node._reaper = start_reaper()
        node._tell_reaper("watch")
        atexit.register(node.remove)
        if cluster_with is None:
            node._spawn(["epmd", "-port", str(node.state.epmd_port), "-address", "127.0.0.1"])
        node.start(wait=wait)
        return node

    @property
    def broker(self) -> Broker:
        """Address, credentials and certificates for the scenarios."""
        return Broker(
            host="127.0.0.1",
            port=self.state.port,
            user=USER,
            password=PASSWORD,
            tls_port=self.state.tls_port,
            authority=str(self.folder / "authority.pem"),
            stranger=str(self.folder / "other.pem"),
            limited_user=LIMITED_USER,
            limited_password=LIMITED_PASSWORD,
            folder=str(self.folder),
        )

    def start(self, *, wait: bool = True) -> None:
        """Start the server, again after stop() or kill() too: ports and data stay the same."""
        for attempt in range(versions.BOOT_TRIES):
            self._spawn([self.installation.script("rabbitmq-server")])
            if not wait:
                return
            try:
                self.wait_ready()
                return
            except NodeError as error:
                last = attempt == versions.BOOT_TRIES - 1
                if last or versions.BOOTS_AT_NEXT_TRY not in str(error):
                    raise

    def wait_ready(self, timeout: float = START_TIMEOUT) -> None:
        """Return once the node answers an AMQP header with Connection.Start."""
        seen = time.monotonic()
        deadline = seen + timeout
        while not _answers(self.state.port):
            # In the middle of an exec a process has no environment to be known by.
            if self.pids():
                seen = time.monotonic()
            elif time.monotonic() - seen > GONE_AFTER:
                raise NodeError(f"RabbitMQ did not start:\n{self.output()}")
            if time.monotonic() > deadline:
                raise NodeError(f"RabbitMQ was not ready after {timeout:.0f} s:\n{self.output()}")
            time.sleep(0.05)

    def stop(self, timeout: float = 20.0) -> None:
        """Stop the server in good order; by SIGKILL where it does not comply."""
        try:
            self.thaw()
            self.evaluate("init:stop()")
        except (NodeError, OSError, subprocess.TimeoutExpired):
            pass  # not up, or frozen half-way: the signal below does it
        deadline = time.monotonic() + timeout
        while self.pids() and time.monotonic() < deadline:
            self._reap()
            time.sleep(0.02)
        self.kill()
        self._reap()

    def remove(self) -> None:
        """End every process of this node, its epmd included, and delete the folder."""
        if not self.folder.exists():
            return
        left = kill_marked(self.state.mark)
        self._reap()
        if left:
            raise NodeError(f"processes of the private node would not end: {left}")
        shutil.rmtree(self.folder, ignore_errors=True)
        self._tell_reaper("forget")
        atexit.unregister(self.remove)

    def output(self, lines: int = 30) -> str:
        """The end of what the node printed and logged, for error messages."""
        texts = []
        for path in (self.folder / "output.txt", *sorted((self.folder / "log").glob("*.log"))):
            if path.exists():
                tail = path.read_text(errors="replace").splitlines()[-lines:]
                texts.append(f"--- {path.name}\n" + "\n".join(tail))
        return "\n".join(texts)

    def _spawn(self, arguments: list[str]) -> None:
        with open(self.folder / "output.txt", "ab") as output:
            child = subprocess.Popen(
                self.installation.command(arguments),
                env=self.state.environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C in the terminal must not reach it before us
            )
        self._children.append(child)

    def _reap(self) -> None:
        self._children = [child for child in self._children if child.poll() is None]

    def _tell_reaper(self, verb: str) -> None:
        reaper = Node._reaper
        if reaper is not None and reaper.poll() is None and reaper.stdin is not None:
            reaper.stdin.write(f"{verb} {self.state.mark} {self.folder}\n")


def _new_folder(cluster_with: Node | None) -> Path:
    """A folder with certificates, configuration and node.json; owned by the node's user."""
    installation = cluster_with.installation if cluster_with else find_installation()
    folder = installation.new_folder("pika-twisted-node-")
    files = write_certificates(folder)
    state = _new_state(installation, folder, cluster_with)
    (folder / "definitions.json").write_text(json.dumps(definitions()))
    (folder / "enabled_plugins").write_text("[].\n")
    (folder / ".erlang.cookie").write_text(state.cookie)
    (folder / ".erlang.cookie").chmod(0o400)  # Erlang refuses a cookie others could read
    (folder / "rabbitmq.config").write_text(_configuration(state, installation, files))
    state.save(folder)
    if installation.as_service_user:
        for path in (folder, *folder.iterdir()):
            os.chown(path, *installation.account())
    return folder


def _configuration(state: NodeState, installation: Installation, files: CertificateFiles) -> str:
    authority, certificate, key = map(
        installation.inside, (files.authority, files.certificate, files.key)
    )
    return CONFIGURATION.format(
        port=state.port,
        tls_port=state.tls_port,
        authority=authority,
        certificate=certificate,
        key=key,
        max_message_size=MAX_MESSAGE_SIZE,
        denied=", ".join(f"{name} => false" for name in DEPRECATED),
        definitions=installation.inside(Path(files.authority).with_name("definitions.json")),
    )


def _new_state(installation: Installation, folder: Path, cluster_with: Node | None) -> NodeState:
    mark = secrets.token_hex(8)
    port, tls_port, distribution_port, epmd_port = free_ports(4)
    cookie = secrets.token_hex(10)
    if cluster_with is not None:  # nodes of one cluster share the cookie and find one epmd
        epmd_port, cookie = cluster_with.state.epmd_port, cluster_with.state.cookie
    name = f"pika-twisted-{mark}@localhost"
    home = installation.inside(folder)
    environment = {
        "PATH": installation.path,
        "LANG": "C.UTF-8",
        "HOME": home,
        MARK: mark,
        "ERL_EPMD_PORT": str(epmd_port),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODENAME": name,
        "RABBITMQ_DIST_PORT": str(distribution_port),
        "RABBITMQ_MNESIA_BASE": f"{home}/data",
        "RABBITMQ_LOG_BASE": f"{home}/log",
        "RABBITMQ_CONFIG_FILE": f"{home}/rabbitmq.config",
        "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        "RABBITMQ_ENABLED_PLUGINS_FILE": f"{home}/enabled_plugins",
        "RABBITMQ_PID_FILE": f"{home}/server.pid",
        # Listen on the loopback only; and do not spin while idle, the tests need the other core.
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
            "-kernel inet_dist_use_interface {127,0,0,1} +sbwt none +sbwtdcpu none +sbwtdio none"
        ),
    }
    return NodeState(
        name,
        mark,
        cookie,
        port,
        tls_port,
        distribution_port,
        epmd_port,
        installation.root,
        environment,
    )


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as peer:
            peer.sendall(b"AMQP\0\0\x09\x01")
            return peer.recv(1) == b"\x01"
    except OSError:
        return False


def create_node(**options: Any) -> Node:
    """Node.create(**options), tried again where another program took one of the ports meanwhile."""
    for attempt in range(START_ATTEMPTS):
        node = None
        try:
            node = Node.create(wait=False, **options)
            node.wait_ready()
            return node
        except NodeError as error:
            if node is not None:
                node.remove()
            if attempt == START_ATTEMPTS - 1 or "eaddrinuse" not in str(error):
                raise
    raise AssertionError("unreachable")


def main() -> None:
    """Run a node until Ctrl-C or SIGTERM."""
    # Set here: a shell starts what it puts into the background with SIGINT ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    node = create_node()
    print(f"# RabbitMQ {node.version()} in {node.folder}: {node.broker.url()}")
    print("# for python -m tests.broker.run REACTOR in another terminal:")
    print(f"export {ENVIRONMENT}={shlex.quote(node.broker.to_json())}", flush=True)
    try:
        while node.pids():
            time.sleep(0.5)
    except KeyboardInterrupt:
        pass
    finally:
        node.stop()
        node.remove()


if __name__ == "__main__":
    main()
