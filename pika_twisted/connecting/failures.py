"""Why `connect()` failed: the exception and its text, which pika's and Twisted's users both catch.

What the broker itself refused keeps the class that the connection gives it: wrong login is
`pika.exceptions.ProbableAuthenticationError`, a virtual host that is missing or forbidden
`ProbableAccessDeniedError`. Here are the failures from before a broker could say anything. Each
text says which broker, what happened, and what to look at next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pika import exceptions as pika_exceptions
from twisted.internet import error

from pika_twisted.exceptions import (
    BrokerLimit,
    ConnectFailed,
    ConnectionRefused,
    ConnectionTimedOut,
    HostNotFound,
    ProtocolViolation,
    Reason,
    TLSFailed,
    reason,
)

from . import tls_failures

if TYPE_CHECKING:
    from .targets import Place

_REFUSED_HINT = (
    ". No process listens there: is the broker running, and is this its AMQP port (5672 unless "
    "configured otherwise, 5671 with TLS)?"
)
_NOT_FOUND_HINT = ". Is the name spelled right, and known to the DNS that this machine asks?"
_NO_WAY_HINT = ". Does a firewall drop it, or is the address another machine's?"
_HANDSHAKE_HINT = ". Is it an AMQP port, and TLS on both sides or on none?"
#: What the codec says of TLS: its answer to plain AMQP is an alert, record type 21 (RFC 8446, 5.1).
_IS_TLS = "unknown frame type 21"
_IS_TLS_HINT = (
    ": the port speaks TLS, and was spoken to without. Use an amqps URL or connect(tls=...), or "
    "the broker's port for plain AMQP, mostly 5672"
)
#: Ports of RabbitMQ that are not for AMQP 0-9-1, unless configured otherwise.
_OTHER_PORTS = {
    1883: "MQTT",
    4369: "epmd, Erlang's port mapper",
    5552: "streams",
    8883: "MQTT",
    15670: "examples over HTTP",
    15671: "the management plugin's HTTPS",
    15672: "the management plugin's HTTP",
    15674: "STOMP over WebSocket",
    15675: "MQTT over WebSocket",
    15692: "Prometheus metrics over HTTP",
    25672: "Erlang distribution between nodes",
    61613: "STOMP",
    61614: "STOMP",
}
#: What RabbitMQ takes since 4.1; before, and in AMQP, it is 4,096.
_LEAST_FRAME_MAX = 8192
_AMQP_PORT = "AMQP is mostly at 5672, and at 5671 with TLS"
_LOGIN_HINT = "are user and password right, and may this user log in from here (guest: localhost)?"
_VHOST_HINT = "does it exist, spelled like this, and has the user permissions for it?"


def explain(
    why: BaseException,
    place: Place,
    stage: str,
    version: tuple[int, ...] | None = None,
    login_size: int = 0,
) -> BaseException:
    """The typed reason for what an attempt to connect to a place ended with.

    :param stage: how far it had come
    :param version: of the broker, if it has said that it is RabbitMQ
    :param login_size: bytes of the Connection.StartOk that was sent
    """
    where = place.name
    tls_error: BaseException | None = why
    while tls_error is not None and not tls_failures.is_tls_error(tls_error):
        tls_error = tls_error.__cause__
    if tls_error is not None:
        text = tls_failures.text_of(tls_error)
        return _built(TLSFailed, f"{where}: TLS handshake failed: {text}", why)
    if isinstance(why, ProtocolViolation) and why.args[1] == _IS_TLS:
        return _built(TLSFailed, f"{where}{_IS_TLS_HINT}", why)
    if isinstance(why, Reason):
        return _from_broker(why, place, version, login_size)
    if isinstance(why, pika_exceptions.AMQPError):
        return why
    if isinstance(why, error.ConnectionRefusedError):
        return _built(ConnectionRefused, f"{where}: connection refused{_REFUSED_HINT}", why)
    if isinstance(why, error.DNSLookupError):
        text = str(why).rstrip(".")
        text = f"{where}: no address found for this host: {text}{_NOT_FOUND_HINT}"
        return _built(HostNotFound, text, why)
    if is_timeout(why):
        limit = "" if place.timeout is None else f" within {place.timeout:g} s"
        hint = _NO_WAY_HINT if "TCP" in stage else _HANDSHAKE_HINT
        return _built(ConnectionTimedOut, f"{where}: {stage} did not finish{limit}{hint}", why)
    return _built(ConnectFailed, f"{where}: {stage} failed: {why}", why)


def is_timeout(why: BaseException) -> bool:
    """Whether it is one of the many TimeoutErrors."""
    return isinstance(why, error.TimeoutError) or type(why).__name__ == "TimeoutError"


def _built(kind: type[ConnectFailed], text: str, cause: BaseException) -> ConnectFailed:
    built = kind(0, text)
    built.__cause__ = cause
    return built


# The AMQP handshake


def _from_broker(
    why: Reason, place: Place, version: tuple[int, ...] | None, login_size: int
) -> BaseException:
    """The same reason, in a text that names the broker and the next step."""
    kind = type(why).__bases__[1]
    text = why.reply_text.rstrip(".")
    asked = place.parameters.frame_max
    if isinstance(why, BrokerLimit):
        text = f"{place}: {text}"
    elif why.reply_code == 0 and login_size > _LEAST_FRAME_MAX and version is not None:
        text = (
            f"{place}: the login is too long: Connection.StartOk has {login_size:,} bytes, "
            f"RabbitMQ takes {_LEAST_FRAME_MAX:,} since 4.1, unless initial_frame_max says more "
            f"({text})"
        )
        kind = BrokerLimit
    elif issubclass(kind, pika_exceptions.ProbableAuthenticationError):
        text = f"{place} refused the login: {text}; {_LOGIN_HINT}"
    elif _refuses_frame_max(asked, version) and not isinstance(why, error.ConnectionDone):
        text = (
            f"{place}: RabbitMQ takes no frame_max below {_LEAST_FRAME_MAX:,} since 4.1, and the "
            f"parameters ask for {asked:,} ({text})"
        )
        kind = BrokerLimit
    elif issubclass(kind, pika_exceptions.ProbableAccessDeniedError):
        vhost = place.parameters.virtual_host
        text = f"{place} refused the virtual host {vhost!r}: {text}; {_VHOST_HINT}"
    elif issubclass(kind, pika_exceptions.IncompatibleProtocolError):
        text = f"{place} does not speak AMQP 0-9-1: {text}; {_port_hint(place)}"
    else:
        text = f"{place}: {text}"
    orderly = isinstance(why, error.ConnectionDone)
    return reason(kind, why.reply_code, text, orderly=orderly, cause=why)


def _refuses_frame_max(asked: Any, version: tuple[int, ...] | None) -> bool:
    """Whether a broker, if it is RabbitMQ, refuses what the parameters ask for."""
    small = isinstance(asked, int) and 0 < asked < _LEAST_FRAME_MAX
    return small and version is not None and version >= (4, 1)


def _port_hint(place: Place) -> str:
    port = place.parameters.port if place.host is not None else None
    usual = _OTHER_PORTS.get(port) if isinstance(port, int) else None
    if usual is not None:
        return f"port {port} is mostly for {usual}; {_AMQP_PORT}"
    return f"is it the broker's AMQP port, and TLS on both sides or on none? {_AMQP_PORT}"
