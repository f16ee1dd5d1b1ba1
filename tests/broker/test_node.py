"""The private node itself: it obeys, and nothing of it is left, however the test run ends."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.broker.broker import Broker
from tests.broker.installation import Installation, NodeError, find_installation, folder_of
from tests.broker.node import create_node
from tests.broker.pool import ROOT
from tests.broker.reaper import marked_processes


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.own_node
@pytest.mark.timeout(600)
def test_a_node_obeys_and_leaves_nothing() -> None:
    node = create_node()
    try:
        with ThreadPoolExecutor(8) as several:  # test processes ask it at the same time
            versions = set(several.map(lambda _: node.version(), range(40)))
        assert [version.count(".") for version in versions] == [2]
        assert "RabbitMQ version" in node.diagnostics("status")
        node.add_vhost("kept")
        node.add_user("somebody", "secret")
        node.set_permissions("somebody", "kept", ".*", ".*", ".*")
        assert "somebody" in node.ctl("list_permissions", "-p", "kept")
        node.kill()
        assert node.pids() == []
        node.start()
        assert "kept" in node.ctl("list_vhosts")
        node.stop()
        assert node.pids() == []
        assert len(marked_processes(node.state.mark)) == 1  # epmd, for a restart
    finally:
        node.remove()
    assert marked_processes(node.state.mark) == []
    assert not node.folder.exists()
    assert not is_listening(node.state.epmd_port)
    assert not is_listening(node.state.port)


ENDINGS = {
    "at its end": "",
    "by an exception": "raise RuntimeError('as a test may')",
    "by SIGTERM": "os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)",
    "by SIGKILL": "os.kill(os.getpid(), signal.SIGKILL)",
    "frozen, by SIGKILL": "freeze(); os.kill(os.getpid(), signal.SIGKILL)",
}
PROGRAM = """
import os, signal, time
from tests.broker.node import Node
node = Node.create(wait=False)
def freeze():
    pid = node.folder / "server.pid"
    while not pid.exists() or not pid.read_text():  # it is made first and written then
        time.sleep(0.05)
    node.freeze()
deadline = time.monotonic() + 20
while len(node.pids()) < 2 and time.monotonic() < deadline:
    time.sleep(0.02)
print(node.state.mark, node.folder, flush=True)
{ending}
"""


@pytest.mark.own_node
@pytest.mark.parametrize("ending", list(ENDINGS))
def test_nothing_is_left_when_the_run_ends(ending: str) -> None:
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(ending=ENDINGS[ending])],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert run.stdout, run.stderr
    mark, folder = run.stdout.split()
    deadline = time.monotonic() + 30
    while marked_processes(mark) or Path(folder).exists():
        assert time.monotonic() < deadline, f"left: {marked_processes(mark)}, {folder}"
        time.sleep(0.05)


def test_a_missing_server_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.broker.installation.SCRIPT_FOLDERS", ())
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.delenv("RABBITMQ_BIN", raising=False)
    with pytest.raises(NodeError, match=r"apt install rabbitmq-server.*AMQP_URL.*make test-unit"):
        Installation().script("rabbitmq-server")


def test_a_version_that_is_not_installed_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("BROKER", "9.9")
    with pytest.raises(NodeError, match=r"BROKER=9\.9: .*/9\.9\. .*: \.ci/setup broker 9\.9"):
        find_installation()


def test_a_version_or_a_folder_is_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("os.geteuid", lambda: 0)
    root = folder_of("9.9")
    assert root == tmp_path / "pika-twisted/brokers/9.9"
    (root / "usr/lib/rabbitmq/lib/rabbitmq_server-9.9.1").mkdir(parents=True)
    (root / "etc").mkdir()
    (root / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\nrabbitmq:x:101:102::/:/bin/sh\n")
    for choice in ("9.9", str(root)):
        monkeypatch.setenv("BROKER", choice)
        found = find_installation()
        assert found == Installation(str(root))
    assert found.inside(root / "tmp/node") == "/tmp/node"
    chroot = ["chroot", "--userspec=101:102", "--groups=102", str(root), "x"]
    assert found.command(["x"])[-6:] == [str(root), *chroot]
    monkeypatch.setenv("BROKER", "9")  # a version is two numbers
    with pytest.raises(NodeError, match="BROKER=9: there is no RabbitMQ"):
        find_installation()
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setenv("BROKER", "9.9")
    with pytest.raises(NodeError, match=r"needs root.*AMQP_URL"):
        find_installation()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("amqp://host", Broker("host", 5672)),
        ("amqp://u:p%40ss@host:1234/a%2Fb", Broker("host", 1234, "u", "p@ss", "a/b")),
        ("amqp://host/%2F", Broker("host", 5672)),
    ],
)
def test_a_broker_from_its_url(url: str, expected: Broker) -> None:
    broker = Broker.from_url(url)
    assert broker == expected
    assert Broker.from_json(broker.to_json()) == broker
    assert Broker.from_url(broker.url()) == broker


@pytest.mark.parametrize("url", ["http://host", "amqps://host", "host:5672", ""])
def test_a_url_that_can_not_be_used(url: str) -> None:
    with pytest.raises(ValueError, match="AMQP_URL must look like"):
        Broker.from_url(url)
