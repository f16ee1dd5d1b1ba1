"""Why `connect()` failed, as exceptions that pika's and Twisted's users both catch.

What the broker itself refused keeps the class that the connection gives it: wrong login is
`pika.exceptions.ProbableAuthenticationError`, a virtual host that is missing or forbidden
`ProbableAccessDeniedError`. Here are the failures from before a broker could say anything.
"""

from __future__ import annotations

from pika import exceptions as pika_exceptions
from twisted.internet import error

from pika_twisted.exceptions import ProtocolViolation

__all__ = [
    "ConnectFailed",
    "ConnectionRefused",
    "ConnectionTimedOut",
    "HostNotFound",
    "TLSFailed",
    "explain",
]

#: What to look at next. For people, as the rest of the text.
_REFUSED_HINT = (
    ". Nothing listens there: is the broker running, and is this its AMQP port (5672 unless "
    "configured otherwise, 5671 with TLS)?"
)
_NOT_FOUND_HINT = ". Is the name spelled right, and known to the DNS that this machine asks?"
_NO_WAY_HINT = ". Does a firewall drop it, or is the address another machine's?"
_HANDSHAKE_HINT = ". Is it an AMQP port, and TLS on both sides or on none?"
#: OpenSSL's words for "this is no TLS at all".
_NO_TLS = ("wrong version number", "record layer failure", "packet length too long")
_NO_TLS_HINT = ". The port does not speak TLS: brokers have it on another one, mostly 5671"
#: What the codec says of TLS: its answer to plain AMQP is an alert, record type 21 (RFC 8446, 5.1).
_IS_TLS = "unknown frame type 21"
_IS_TLS_HINT = (
    ": the port speaks TLS, and was spoken to without. Use an amqps URL or connect(tls=...), or "
    "the broker's port for plain AMQP, mostly 5672"
)
_NOT_TRUSTED_HINT = (
    ". If the broker's authority is your own: "
    "connect(tls=twisted.internet.ssl.optionsForClientTLS(host, trustRoot=authority))"
)
_NOT_THE_HOST_HINT = (
    "the broker's certificate is not for this host: its subjectAltName has to name the host that "
    "you connect to; the common name does not count"
)
#: OpenSSL's words for "your certificate is missing, or not to my liking".
_ABOUT_OUR_CERTIFICATE = ("certificate required", "bad certificate", "handshake failure")
_CERTIFICATE_HINT = (
    "; if the broker wants a client certificate: one in an ssl.SSLContext can't be read out of it, "
    "so pass connect(tls=twisted.internet.ssl.optionsForClientTLS(..., clientCertificate=...)) or "
    "name its files in the ssl_options of an amqps URL"
)


class ConnectFailed(pika_exceptions.AMQPConnectionError):
    """No connection came about. Its args are `(0, text)`, as those of all reasons without a code.

    :ivar attempts: every attempt's `(where, exception)`, the last being this one
    """

    def __init__(self, reply_code: int = 0, reply_text: str = "") -> None:
        # Not super(): the mixed-in classes disagree about their arguments.
        Exception.__init__(self, reply_code, reply_text)
        self.attempts: list[tuple[str, BaseException]] = []

    def __str__(self) -> str:
        return str(self.args[1])

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.args[0]}, {self.args[1]!r})"


class ConnectionRefused(ConnectFailed, error.ConnectionRefusedError):
    """Nobody listens there."""


class ConnectionTimedOut(ConnectFailed, error.TimeoutError):
    """TCP, TLS or the AMQP handshake took too long; the text says which."""


class HostNotFound(ConnectFailed, error.DNSLookupError):
    """The host name has no address."""


class TLSFailed(ConnectFailed, error.ConnectionLost):
    """No TLS: a certificate that doesn't verify, or only one of the two sides speaks it."""


def explain(why: BaseException, where: str, stage: str, timeout: float | None) -> BaseException:
    """The typed reason for what an attempt to connect to `where` ended with.

    `stage` says how far it had come. What has a type already is returned as it is.
    """
    tls_error: BaseException | None = why
    while tls_error is not None and not _is_tls_error(tls_error):
        tls_error = tls_error.__cause__
    if tls_error is not None:
        return _built(TLSFailed, f"{where}: TLS handshake failed: {_tls_text(tls_error)}", why)
    if isinstance(why, ProtocolViolation) and why.args[1] == _IS_TLS:
        return _built(TLSFailed, f"{where}{_IS_TLS_HINT}", why)
    if isinstance(why, pika_exceptions.AMQPError):
        return why
    if isinstance(why, error.ConnectionRefusedError):
        return _built(ConnectionRefused, f"{where}: connection refused{_REFUSED_HINT}", why)
    if isinstance(why, error.DNSLookupError):
        text = str(why).rstrip(".")
        text = f"{where}: no address found for this host: {text}{_NOT_FOUND_HINT}"
        return _built(HostNotFound, text, why)
    if isinstance(why, error.TimeoutError) or type(why).__name__ == "TimeoutError":
        limit = "" if timeout is None else f" within {timeout:g} s"
        hint = _NO_WAY_HINT if "TCP" in stage else _HANDSHAKE_HINT
        return _built(ConnectionTimedOut, f"{where}: {stage} did not finish{limit}{hint}", why)
    return _built(ConnectFailed, f"{where}: {stage} failed: {why}", why)


def _built(kind: type[ConnectFailed], text: str, cause: BaseException) -> ConnectFailed:
    built = kind(0, text)
    built.__cause__ = cause
    return built


def _is_tls_error(why: BaseException) -> bool:
    # By the name of the module, so that connecting without TLS imports no OpenSSL.
    return type(why).__module__.split(".")[0] in ("OpenSSL", "service_identity")


def _tls_text(why: BaseException) -> str:
    """OpenSSL's reasons in words: its errors carry lists of (library, function, reason)."""
    if type(why).__module__.startswith("service_identity"):
        return f"{_NOT_THE_HOST_HINT} ({why or repr(why)})"
    entries = why.args[0] if why.args and isinstance(why.args[0], list) else []
    text = ", ".join(str(entry[-1]) for entry in entries if isinstance(entry, tuple))
    text = text or str(why) or repr(why)
    if any(words in text for words in _ABOUT_OUR_CERTIFICATE):
        text += _CERTIFICATE_HINT
    elif any(words in text for words in _NO_TLS):
        text += _NO_TLS_HINT
    elif "certificate verify failed" in text:
        text += _NOT_TRUSTED_HINT
    return text
