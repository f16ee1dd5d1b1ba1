"""install(): pika's module gives our classes. Each in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

BEFORE = """
import pika_twisted
pika_twisted.install()
pika_twisted.install()
import pika
import pika.adapters.twisted_connection as direct
from pika.adapters import twisted_connection
from pika.adapters.twisted_connection import TwistedProtocolConnection, _TimerHandle
assert direct is twisted_connection is pika.adapters.twisted_connection
for name in ("ClosableDeferredQueue", "ReceivedMessage", "TwistedChannel",
             "TwistedProtocolConnection"):
    assert getattr(direct, name) is getattr(pika_twisted, name), name
class Mine(TwistedProtocolConnection):
    pass
assert issubclass(Mine, pika_twisted.TwistedProtocolConnection)
import sys
assert "twisted.internet.reactor" not in sys.modules
"""

AFTER = """
import warnings
from pika.adapters import twisted_connection
import pika_twisted
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    pika_twisted.install()
assert [each.category for each in caught] == [RuntimeWarning], caught
assert twisted_connection.TwistedChannel is pika_twisted.TwistedChannel
"""


@pytest.mark.parametrize("program", [BEFORE, AFTER], ids=["before", "after"])
def test_install(program: str) -> None:
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr
