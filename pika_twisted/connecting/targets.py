"""Where to connect to: URLs, pika's parameters and Twisted's endpoints, all made into `Place`s."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import pika
from pika.connection import Parameters
from twisted.internet import endpoints, interfaces


@dataclass(frozen=True)
class Place:
    """One way to a broker."""

    #: For people: in errors and in the log. Has no password in it.
    name: str
    endpoint: Any
    parameters: Parameters
    #: How often to try, how long to wait in between, how long one attempt may take altogether.
    attempts: int
    retry_delay: float
    timeout: float | None
    #: Seen from here: an endpoint may encrypt without our knowing.
    encrypted: bool

    def __str__(self) -> str:
        return self.name


def places(target: Any, parameters: Parameters | None, tls: Any, reactor: Any) -> list[Place]:
    """All places that `connect()`'s `target` names, in its order.

    :raises TypeError, ValueError: it is nothing that can be connected to
    """
    if tls is False:  # says no more than None: an amqps URL stays one
        tls = None
    if target is None:
        target = parameters if parameters is not None else pika.ConnectionParameters()
    if isinstance(target, str):
        return [_from_url(target, tls, reactor)]
    if isinstance(target, Parameters):
        return [_from_parameters(target, tls, reactor)]
    if interfaces.IStreamClientEndpoint.providedBy(target):
        return [_from_endpoint(target, parameters or pika.ConnectionParameters(), tls)]
    if isinstance(target, Iterable) and not isinstance(target, bytes):
        found = [place for each in target for place in places(each, parameters, tls, reactor)]
        if not found:
            raise ValueError("the list of brokers is empty")
        return found
    raise TypeError(
        "connect to an amqp:// or amqps:// URL, pika.ConnectionParameters, a Twisted client "
        f"endpoint or a list of these, not {type(target).__name__}"
    )


def _from_url(url: str, tls: Any, reactor: Any) -> Place:
    parts = urlsplit(url)
    if parts.scheme not in ("amqp", "amqps", "http", "https"):  # pika takes all four
        raise ValueError(
            "an AMQP URL begins with amqp:// or amqps://, as amqps://user:password@host/vhost does"
            + (f", not with {parts.scheme}:" if parts.scheme else "")
        )
    user, at, host = parts.netloc.rpartition("@")
    if at and ":" not in user:
        parts = parts._replace(netloc=f"{user}:@{host}")  # pika raises where there is no password
        url = urlunsplit(parts)
    query = parse_qsl(parts.query, keep_blank_values=True)
    written = [value for name, value in query if name == "ssl_options"]
    options = ast.literal_eval(written[-1]) if written else None
    if options is not None:
        # pika would read the files into a context, and nobody could read them out again.
        if not isinstance(options, dict):
            raise ValueError("ssl_options of an amqps URL must be a dict")
        if parts.scheme not in ("amqps", "https"):
            raise ValueError("ssl_options need an amqps URL")
        query = [(name, value) for name, value in query if name != "ssl_options"]
        url = urlunsplit(parts._replace(query=urlencode(query)))
    parameters = pika.URLParameters(url)
    if options is None:
        # An amqps URL without options gets a default context from pika, which is our default.
        default = parameters.ssl_options is not None
        return _from_parameters(parameters, tls or default, reactor)
    if tls is None:
        from . import tls as tls_module

        tls = tls_module.from_url(options, parameters.host)
    return _from_parameters(parameters, tls, reactor)


def _from_parameters(parameters: Parameters, tls: Any, reactor: Any) -> Place:
    where = f"{parameters.host}:{parameters.port}"
    host = parameters.host.strip("[]")  # a literal IPv6 address
    endpoint: Any = endpoints.HostnameEndpoint(
        reactor, host, parameters.port, timeout=parameters.socket_timeout or 30
    )
    if tls is None and parameters.ssl_options is not None:
        from . import tls as tls_module

        tls = tls_module.from_pika(parameters.ssl_options, host)
    elif tls is True:
        from . import tls as tls_module

        tls = tls_module.for_host(host)
    return _place(where, endpoint, parameters, tls)


def _from_endpoint(endpoint: Any, parameters: Parameters, tls: Any) -> Place:
    if tls is True:
        raise TypeError(
            "tls=True has no host name to verify with an endpoint; pass "
            "tls=twisted.internet.ssl.optionsForClientTLS(hostname)"
        )
    return _place(repr(endpoint), endpoint, parameters, tls)


def _place(where: str, endpoint: Any, parameters: Parameters, tls: Any) -> Place:
    if tls:
        endpoint = endpoints.wrapClientTLS(_creator(tls), endpoint)
    return Place(
        where,
        endpoint,
        parameters,
        max(1, parameters.connection_attempts),
        parameters.retry_delay,
        parameters.stack_timeout or None,
        bool(tls),
    )


def _creator(tls: Any) -> Any:
    """Twisted's TLS options, checked; a wrong object would fail only inside the handshake."""
    if interfaces.IOpenSSLClientConnectionCreator.providedBy(tls) or hasattr(tls, "getContext"):
        from pika_twisted.transport import hostname_check

        return hostname_check.checked(tls)
    raise TypeError(
        "tls must be what twisted.internet.ssl.optionsForClientTLS() or CertificateOptions() "
        f"gives, not {type(tls).__name__}"
    )
