"""Peers that break TLS end `connect()` soon, with their reason (`tests.support.tls_hostile`)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.tls_hostile import PEERS

ROOT = Path(__file__).resolve().parents[3]
NO_TLS = "TLSFailed: .* The port does not speak TLS"
ENDED = "TLSFailed: .* the peer closed the connection"
NO_AMQP = "IncompatibleProtocolError: .* does not speak AMQP"
EXPECTED = {
    "silent": "ConnectionTimedOut: .* the TLS or AMQP handshake did not finish within 2 s",
    "half": "ConnectionTimedOut: .* the TLS or AMQP handshake did not finish within 2 s",
    "http": NO_TLS,
    "plain_amqp": NO_TLS,
    "closes": ENDED,
    "resets": ENDED,
    "cut_record": NO_AMQP,
    "garbage": "TLSFailed: .* wrong version number",
    "tiny_records": "ProtocolViolation: .* at most 131072",
    "close_notify": NO_AMQP,
}


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    asked = [sys.executable, "-m", "tests.support.tls_hostile"]
    ran = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    result: dict[str, Any] = json.loads(ran.stdout)
    return result


@pytest.mark.parametrize("peer", [each.__name__ for each in PEERS])
def test_it_ends_with_its_reason(found: dict[str, Any], peer: str) -> None:
    got, seconds = found[peer]
    assert seconds < 10  # 2.1 s at most on an idle machine
    text = f"{peer}: {got}"
    with pytest.raises(AssertionError, match=EXPECTED[peer]):
        raise AssertionError(text)
