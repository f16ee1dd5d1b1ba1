"""TLS that is less than was asked for is refused: a negative test of each promise.

All rows are tried in one process on real sockets (`tests.support.tls_table`).
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from OpenSSL import SSL

from tests.support.tls_table import WAYS

ROOT = Path(__file__).resolve().parents[3]
REFUSED = {
    "no SAN": "has no subjectAltName",
    "no SAN, address": "has no subjectAltName",
    "wrong SAN": "DNSMismatch",
    "wrong address": "IPAddressMismatch",
    "address in a DNS name": "Invalid DNS pattern",
    "expired": "certificate verify failed",
    "not yet valid": "certificate verify failed",
    "wrong authority": "certificate verify failed",
    "self-signed": "certificate verify failed",
    "weak key": "certificate verify failed",
    "TLS 1.1 only": "protocol version",
    "TLS 1.0 only": "protocol version",
}


@pytest.fixture(scope="module")
def table() -> dict[str, list[str]]:
    asked = [sys.executable, "-m", "tests.support.tls_table"]
    ran = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    found: dict[str, list[str]] = json.loads(ran.stdout)
    return found


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("wrong", REFUSED)
def test_refused(table: dict[str, list[str]], wrong: str, way: str) -> None:
    if wrong == "weak key" and SSL.OPENSSL_VERSION_NUMBER < 0x30200000:
        pytest.skip("OpenSSL has refused RSA keys of 1,024 bits since 3.2")
    client, server = table[f"{wrong}/{way}"]
    assert server == "", "the AMQP header was sent"
    kind = "StreamLostError" if way == "protocol" else "TLSFailed"
    assert client.startswith(kind) and REFUSED[wrong] in client


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("right", ["good", "good address"])
def test_accepted(table: dict[str, list[str]], right: str, way: str) -> None:
    assert table[f"{right}/{way}"][1] == "AMQP\0\0\x09\x01"
