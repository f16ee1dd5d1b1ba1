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
#: What the text says to users of connect().
REFUSED = {
    "no SAN": "is not for this host",
    "no SAN, address": "is not for this host",
    "wrong SAN": "is not for this host",
    "wrong address": "is not for this host",
    "address in a DNS name": "is not for this host",
    "expired": "has expired",
    "not yet valid": "is not valid yet",
    "revoked": "has been revoked",
    "wrong authority": "is not known here",
    "self-signed": "is not known here",
    "weak key": "is too weak",
    "TLS 1.1 only": "1.2 or newer",
    "TLS 1.0 only": "1.2 or newer",
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
    if wrong == "revoked" and way != "context":
        pytest.skip("revocation lists are a context's")
    twisted = way not in ("url", "context")
    if wrong == "weak key" and twisted and SSL.OPENSSL_VERSION_NUMBER < 0x30200000:
        pytest.skip("OpenSSL has refused RSA keys of 1,024 bits since 3.2")
    client, server = table[f"{wrong}/{way}"]
    assert server == "", "the AMQP header was sent"
    if way == "protocol":
        assert client.startswith("StreamLostError")
    else:
        assert client.startswith("TLSFailed") and REFUSED[wrong] in client


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("right", ["good", "good address"])
def test_accepted(table: dict[str, list[str]], right: str, way: str) -> None:
    assert table[f"{right}/{way}"][1] == "AMQP\0\0\x09\x01"
