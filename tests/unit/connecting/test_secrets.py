"""No secret in an exception, a repr or a log: 1,000 wrong ways to say where to connect to."""

from __future__ import annotations

import logging
import random
import ssl
import traceback
import uuid
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pika
import pytest
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure

import pika_twisted
from tests.support.outcome import TwistedLog, watch

#: In every password. A case alone would not do: hosts are printed in lower case.
SECRET = "s3cr3t"
SPECIAL = "/?#@:[]%&=+ '\"\\<>{}|^`~!$();,*\t\n\0é€"


class Wrong:
    """Makes arguments of connect() of which at least one has the secret in it."""

    def __init__(self, number: int) -> None:
        self.random = random.Random(number)

    def password(self) -> str:
        def some() -> str:
            return "".join(self.random.choices(SPECIAL + "abc123", k=self.random.randrange(6)))

        return some() + SECRET + some()

    def url(self) -> str:
        password = self.password()
        if self.random.random() < 0.3:
            password = quote(password, safe="")
        scheme = self.random.choice(["amqp", "amqps", "amqp", "amqps", "http", "redis", ""])
        user = self.random.choice(["user", "", "us%40er"])
        host = self.random.choice(
            ["host", "host:5671", "host:x", "[::1]", "[::1", "", "host:70000"]
        )
        options = self.random.choice(
            [
                "",
                "heartbeat=x",
                "heartbeat=70000",
                "frame_max=1",
                "ssl_options=",
                "tcp_options={",
                "a",
            ]
        )
        if options == "ssl_options=" or self.random.random() < 0.2:
            options = f"ssl_options={self.ssl_options()}"
        path = self.random.choice(["", "/", "/%2F", "/v/h", "/" + "v" * 300])
        return f"{scheme}://{user}:{password}@{host}{path}{'?' + options if options else ''}"

    def ssl_options(self) -> str:
        options: dict[Any, Any] = {"password": self.password()}
        name = self.random.choice(["certfile", "ca_certs", "keyfile", "nonsense", "ciphers"])
        options[name] = self.random.choice(["/missing", __file__, 5, "", "x"])
        if self.random.random() < 0.2:
            options[self.password()] = 1
        written = repr(options)
        if self.random.random() < 0.5:
            cut = self.random.randrange(len(written))
            written = written[:cut] + self.random.choice(["", "'", "]", "\0"]) + written[cut + 1 :]
        return quote(written) if self.random.random() < 0.7 else written

    def credentials(self) -> Any:
        password: Any = self.password()
        if self.random.random() < 0.3:
            password = self.random.choice(
                [password.encode(), [password], {password: 1}, (password,)]
            )
        return pika.PlainCredentials("user", password)

    def parameters(self) -> Any:
        named: dict[str, Any] = {"host": "host", "credentials": self.credentials()}
        if self.random.random() < 0.5:
            named["client_properties"] = {
                "token": self.random.choice(
                    [[self.password(), uuid.UUID(int=1)], {1: self.password()}]
                )
            }
        if self.random.random() < 0.3:
            named["virtual_host"] = "v" * 256
        if self.random.random() < 0.3:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            named["ssl_options"] = pika.SSLOptions(context)
        return pika.ConnectionParameters(**named)

    def arguments(self) -> tuple[Any, dict[str, Any]]:
        kind = self.random.random()
        named: dict[str, Any] = {}
        if self.random.random() < 0.2:
            named["tls"] = self.random.choice([0, "", self.password(), True, [self.password()]])
        if self.random.random() < 0.2:
            named["credentials"] = self.random.choice([self.credentials(), self.password()])
        if kind < 0.6:
            target: Any = self.url()
        elif kind < 0.8:
            target = self.parameters()
        elif kind < 0.9:
            target = self.random.choice([self.url().encode(), {"url": self.url()}, (self.url(), 5)])
        else:
            target = None
            named["parameters"] = self.random.choice([self.url(), self.parameters()])
        return target, named


def everything_said(why: BaseException | None) -> Iterator[str]:
    """All that a program, a log or a crash report shows of an exception."""
    while why is not None:
        yield str(why)
        yield repr(why)
        yield "".join(traceback.format_exception(type(why), why, None))
        yield Failure(why).getErrorMessage()
        yield str(getattr(why, "attempts", ""))
        why = why.__cause__ or (None if why.__suppress_context__ else why.__context__)


@pytest.mark.filterwarnings("ignore:Passing HostnameEndpoint a reactor")  # Twisted 22.10
@pytest.mark.parametrize("seed", range(10))
def test_nothing_shows_a_secret(seed: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    failures = 0
    with TwistedLog() as log:
        for number in range(seed * 100, seed * 100 + 100):
            target, named = Wrong(number).arguments()
            said: list[str] = []
            reactor = MemoryReactorClock()
            outcome = watch(pika_twisted.connect(target, reactor=reactor, **named))
            if outcome.fired:
                failures += 1
                said += everything_said(outcome.error)
            else:
                said += [str(client[:2]) for client in reactor.tcpClients]
                outcome.deferred.cancel()
            try:
                service = pika_twisted.RecoveringService(target, reactor=reactor, **named)
            except Exception as error:
                said += everything_said(error)
            else:
                service.startService()
                said += [repr(service), str(service), *everything_said(service.trouble)]
                service.stopService()
            said += [record.getMessage() for record in caplog.records]
            said.append(caplog.text)
            for each in said:
                assert SECRET not in each.lower(), f"{target!r} {named!r}: {each}"
            caplog.clear()
        log.assert_empty()
    assert failures > 50, "most of them are to be wrong"
