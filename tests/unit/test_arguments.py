"""Errors for people: what is wrong, and what to do next."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pika
import pytest
from twisted import internet
from twisted.internet import endpoints, error
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.testing import MemoryReactorClock

import pika_twisted
from pika_twisted import exceptions
from pika_twisted.connecting import failures as connect_errors
from pika_twisted.connecting.targets import Place
from pika_twisted.recovery.service import RecoveringService
from tests.support.outcome import watch
from tests.support.session import Session

PARAMETERS = pika.ConnectionParameters()


def explain(why: BaseException, port: int, stage: str) -> BaseException:
    parameters = pika.ConnectionParameters("broker", port, stack_timeout=3)
    place = Place(f"broker:{port}", lambda: None, parameters, "broker", None)
    return connect_errors.explain(why, place, stage)


ENDPOINT = endpoints.TCP4ClientEndpoint(MemoryReactorClock(), "broker", 5672)


def connect(target: Any, **options: Any) -> Any:
    return pika_twisted.connect(target, reactor=MemoryReactorClock(), **options)


def consume(**options: Any) -> Any:
    return pika_twisted.consume(None, "q", print, **options)


WRONG: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: connect(5), TypeError, "amqp:// or amqps:// URL, .* not int"),
    (lambda: connect(b"amqp://localhost"), TypeError, "amqp:// or amqps:// URL, .* not bytes"),
    (lambda: connect([]), ValueError, "list of brokers is empty"),
    (lambda: connect("localhost"), ValueError, "begins with amqp://"),
    (lambda: connect(["redis://localhost"]), ValueError, "begins with amqp://.*not with redis:"),
    (lambda: connect(ENDPOINT, tls="yes"), TypeError, "optionsForClientTLS.* not str"),
    (lambda: connect(ENDPOINT, max_size=1), TypeError, "max_size"),
    (lambda: connect("amqp://localhost/?heartbeat=65536"), ValueError, "heartbeat .* 65536"),
    (lambda: pika_twisted.consume(None, "q", None), TypeError, "handler .* None"),  # type: ignore[arg-type]
    (lambda: pika_twisted.consume(None, "q", print, concurrency=0), ValueError, "concurrency"),
    (lambda: pika_twisted.consume(None, "q", print, on_error="drop"), ValueError, "'drop'"),
    (lambda: consume(concurrency="3"), TypeError, "concurrency .*'3'"),
    (lambda: consume(concurrency=None), TypeError, "concurrency .*None"),
    (lambda: consume(prefetch_count=2.5), TypeError, r"prefetch_count .*2\.5"),
    (lambda: consume(timeout="60"), TypeError, "timeout .*'60'"),
    (lambda: consume(timeout=-1), ValueError, "timeout .*-1"),
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
        ((PARAMETERS,), {"read_interval": -1}, ValueError, "read_interval .*-1"),
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
    ("options", "kind"),
    [
        ({"max_in_flight": "10"}, TypeError),
        ({"max_in_flight": None}, TypeError),
        ({"max_bytes": 1e6}, TypeError),
        ({"max_in_flight": 0}, ValueError),
        ({"max_waiting": -1}, ValueError),
        ({"timeout": "30"}, TypeError),
        ({"timeout": -1}, ValueError),
    ],
)
def test_a_publisher_is_not_made(options: dict[str, Any], kind: type[Exception]) -> None:
    with pytest.raises(kind, match=next(iter(options))):
        pika_twisted.Publisher(**options)


@pytest.mark.parametrize("name", ["call_timeout", "recovery_timeout", "drain_timeout"])
def test_a_service_is_not_made(name: str) -> None:
    clock = MemoryReactorClock()
    with pytest.raises(TypeError, match=f"{name} .*'30'"):
        pika_twisted.RecoveringService(PARAMETERS, reactor=clock, **{name: "30"})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=f"{name} .*-1"):
        pika_twisted.RecoveringService(PARAMETERS, reactor=clock, **{name: -1})  # type: ignore[arg-type]
    if name != "call_timeout":  # a call may wait for ever
        with pytest.raises(TypeError, match=f"{name} .*None"):
            pika_twisted.RecoveringService(PARAMETERS, reactor=clock, **{name: None})  # type: ignore[arg-type]


def test_a_callback_where_auto_ack_belongs(session: Session) -> None:
    """As pika's other adapters have it. It is true, so every message would be acknowledged."""
    channel = session.channel()
    for asking in (channel.basic_consume, channel.basic_get):
        why = watch(asking("q", print)).failure(TypeError)
        assert "takes no callback" in str(why)
    session.peer.expect_none()
    service = pika_twisted.RecoveringService(ENDPOINT, reactor=MemoryReactorClock())
    recovering = service.channel()
    for asking in (recovering.basic_consume, recovering.basic_get):
        watch(asking("q", print)).failure(TypeError)


@pytest.mark.parametrize("auto_ack", [False, True])
def test_a_queue_s_name_that_is_none(session: Session, auto_ack: bool) -> None:
    channel = session.channel()
    wrong: Any = ["q"]
    why = watch(channel.basic_get(wrong, auto_ack=auto_ack)).failure(TypeError)
    assert "queue must be a str" in str(why)
    session.peer.expect_none()
    watch(channel.basic_get("q", auto_ack=auto_ack))
    session.peer.expect(pika.spec.Basic.Get)


def test_a_connection_says_where_to_and_in_what_state(session: Session) -> None:
    protocol = session.adapter.connection()
    assert repr(protocol) == "<TwistedProtocolConnection: not connected>"
    protocol = session.connect()
    watch(protocol.ready)
    assert repr(protocol) == "<TwistedProtocolConnection to 192.0.2.1:5672: opening>"
    session = Session(session.adapter)
    protocol = session.open()
    assert repr(protocol) == "<TwistedProtocolConnection to 192.0.2.1:5672: open>"
    protocol.close()
    assert repr(protocol) == "<TwistedProtocolConnection to 192.0.2.1:5672: closing>"
    session.finish()
    assert repr(protocol) == "<TwistedProtocolConnection to 192.0.2.1:5672: closed>"


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
    text = str(explain(why, 5672, stage))
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
    explained = explain(why, 5671, "the TLS or AMQP handshake")
    assert type(explained) is connect_errors.TLSFailed
    assert words in str(explained)


def test_a_port_that_wants_tls_is_told_by_its_answer() -> None:
    why = exceptions.reason(
        exceptions.ProtocolViolation, 501, "unknown frame type 21", orderly=False
    )
    explained = explain(why, 5671, "the AMQP handshake")
    assert type(explained) is connect_errors.TLSFailed
    assert "amqps" in str(explained)
    other = exceptions.reason(exceptions.ProtocolViolation, 501, "no frame end", orderly=False)
    explained = explain(other, 5671, "the AMQP handshake")
    assert isinstance(explained, exceptions.ProtocolViolation)
    assert explained.args == (501, "broker:5671: no frame end")


def test_the_installed_reactor_is_the_default(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = session.clock
    monkeypatch.setattr(internet, "reactor", clock, raising=False)
    target = TCP4ClientEndpoint(clock, "localhost", 5672)
    assert RecoveringService(target).reactor is clock
    connecting = pika_twisted.connect([])
    watch(connecting).failure(ValueError)
    channel = session.channel()
    publisher = pika_twisted.Publisher(channel, timeout=5)
    publishing = watch(publisher.publish("", "q", b"x"))
    handling = watch(pika_twisted.consume(channel, "q", print))
    clock.advance(5)
    assert str(publishing.failure(pika_twisted.PublishTimeout)) == "not confirmed within 5 s"
    assert handling.pending  # and fails with the connection
    session.lose()
    handling.failure(pika.exceptions.ChannelClosed)
