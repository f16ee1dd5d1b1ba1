"""Errors for people: what is wrong, and what to do next."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pika
import pytest
from twisted.internet import endpoints, error
from twisted.internet.testing import MemoryReactorClock

import pika_twisted
from pika_twisted import connect_errors, exceptions
from tests.support.outcome import watch

PARAMETERS = pika.ConnectionParameters()


ENDPOINT = endpoints.TCP4ClientEndpoint(MemoryReactorClock(), "broker", 5672)


def connect(target: Any, **options: Any) -> Any:
    return pika_twisted.connect(target, reactor=MemoryReactorClock(), **options)


WRONG: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: connect(5), TypeError, "amqp:// or amqps:// URL, .* not int"),
    (lambda: connect(b"amqp://localhost"), TypeError, "amqp:// or amqps:// URL, .* not bytes"),
    (lambda: connect([]), ValueError, "list of brokers is empty"),
    (lambda: connect("localhost"), ValueError, "begins with amqp://"),
    (lambda: connect(["redis://localhost"]), ValueError, "begins with amqp://.*not with redis:"),
    (lambda: connect(ENDPOINT, tls="yes"), TypeError, "optionsForClientTLS.* not str"),
    (lambda: connect(ENDPOINT, max_size=1), TypeError, "max_size"),
    (lambda: pika_twisted.consume(None, "q", None), TypeError, "handler .* None"),  # type: ignore[arg-type]
    (lambda: pika_twisted.consume(None, "q", print, concurrency=0), ValueError, "concurrency"),
    (lambda: pika_twisted.consume(None, "q", print, on_error="drop"), ValueError, "'drop'"),
]


@pytest.mark.parametrize(("call", "kind", "text"), WRONG)
def test_a_call_fails_with_what_is_wrong(
    call: Callable[[], Any], kind: type[Exception], text: str
) -> None:
    why = watch(call()).failure()
    assert type(why) is kind
    assert re.search(text, str(why)), why


@pytest.mark.parametrize(
    ("arguments", "options", "kind", "text"),
    [
        (("amqp://me:secret@localhost",), {}, TypeError, r"pika.URLParameters\(url\), not str"),
        ((PARAMETERS,), {"max_message_size": "1M"}, TypeError, "max_message_size .*'1M'"),
        ((PARAMETERS,), {"max_message_size": -1}, ValueError, "max_message_size .*-1"),
        ((PARAMETERS,), {"max_message_size": True}, TypeError, "max_message_size .*True"),
        ((PARAMETERS,), {"close_timeout": True}, TypeError, "close_timeout .*True"),
        ((PARAMETERS,), {"buffer_size": None}, TypeError, "buffer_size .*None"),
        ((PARAMETERS,), {"max_nesting": 1 << 64}, ValueError, "max_nesting"),
        ((PARAMETERS,), {"handshake_timeout": "15"}, TypeError, "handshake_timeout .*'15'"),
        ((PARAMETERS,), {"close_timeout": -1}, ValueError, "close_timeout .*-1"),
        ((PARAMETERS,), {"close_timeout": float("nan")}, ValueError, "close_timeout .*nan"),
        ((PARAMETERS,), {"water_marks": pika_twisted.WaterMarks(1, 2)}, ValueError, "low_messages"),
    ],
)
def test_a_connection_is_not_made(
    arguments: tuple[Any, ...], options: dict[str, Any], kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind, match=text) as caught:
        pika_twisted.TwistedProtocolConnection(*arguments, **options)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("why", "stage", "words"),
    [
        (error.ConnectionRefusedError(), "the TCP connection", ["refused", "5672", "5671"]),
        (error.DNSLookupError("no results"), "the TCP connection", ["no results. Is the name"]),
        (error.TimeoutError(), "the TCP connection", ["within 3 s", "firewall"]),
        (error.TimeoutError(), "the AMQP handshake", ["within 3 s", "AMQP port"]),
    ],
)
def test_why_connect_failed_and_what_to_look_at(
    why: Exception, stage: str, words: list[str]
) -> None:
    text = str(connect_errors.explain(why, "broker:5672", stage, 3))
    assert text.startswith("broker:5672: ")
    for each in words:
        assert each in text


@pytest.mark.parametrize(
    ("openssl", "words"),
    [
        ("wrong version number", "does not speak TLS"),
        ("certificate verify failed", "trustRoot="),
        ("tlsv13 alert certificate required", "clientCertificate="),
    ],
)
def test_why_tls_failed_and_what_to_do(openssl: str, words: str) -> None:
    from OpenSSL import SSL

    why = SSL.Error([("SSL routines", "", openssl)])
    explained = connect_errors.explain(why, "broker:5671", "the TLS or AMQP handshake", 3)
    assert type(explained) is connect_errors.TLSFailed
    assert words in str(explained)


def test_a_port_that_wants_tls_is_told_by_its_answer() -> None:
    why = exceptions.reason(
        exceptions.ProtocolViolation, 501, "unknown frame type 21", orderly=False
    )
    explained = connect_errors.explain(why, "broker:5671", "the AMQP handshake", 3)
    assert type(explained) is connect_errors.TLSFailed
    assert "amqps" in str(explained)
    other = exceptions.reason(exceptions.ProtocolViolation, 501, "no frame end", orderly=False)
    assert connect_errors.explain(other, "broker:5671", "the AMQP handshake", 3) is other
