"""Where to connect to: URLs, pika's parameters and Twisted's endpoints, all made into `Place`s."""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

import pika
from pika.connection import Parameters
from pika.credentials import VALID_TYPES
from twisted.internet import interfaces

from pika_twisted._arguments import check_parameters

from .addresses import HostAddresses

if TYPE_CHECKING:
    from .tls import Secured

_SCHEMES = ("amqp", "amqps", "http", "https")  # pika takes all four
_EXAMPLE = "amqps://user:password@host:5671/vhost"
_ENCODE = "percent-encode / ? # @ in user and password: urllib.parse.quote(password, safe='')"


@dataclass(frozen=True, eq=False)
class Place:
    """One way to a broker."""

    #: For people: in errors and in the log. Has no password in it.
    name: str
    #: Makes the endpoint of one attempt, without the TLS of `tls`.
    endpoint: Callable[[], Any]
    parameters: Parameters
    #: The host that is connected to; None where an endpoint of the user's knows it.
    host: str | None
    #: Gives `tls.Secured` or Twisted's options, anew for each attempt: files are read again.
    #: Deferreds are waited for. None: no TLS, unless the endpoint does it.
    tls: Callable[[], Any] | None
    #: Whether an endpoint of the user's may do TLS by itself; then `tls` stands back.
    may_be_encrypted: bool = False
    #: Instead of the parameters' own, which None leaves; or a function that gives them for one
    #: attempt, and may return a Deferred.
    credentials: Any = None

    def __str__(self) -> str:
        return self.name

    @property
    def attempts(self) -> int:
        """How often to try."""
        return max(1, int(self.parameters.connection_attempts))

    @property
    def retry_delay(self) -> float:
        """Seconds between two attempts."""
        return float(self.parameters.retry_delay)

    @property
    def timeout(self) -> float | None:
        """Seconds that one attempt may take."""
        return self.parameters.stack_timeout or None

    @property
    def encrypted(self) -> bool:
        """Seen from here: an endpoint may encrypt without our knowing."""
        return self.tls is not None

    async def resolved(self) -> list[Place]:
        """The places of this round of attempts."""
        return [self]

    async def login(self) -> Parameters:
        """The parameters of one attempt, with the credentials that count now."""
        given = self.credentials
        if callable(given):
            given = await maybe_await(given())
        if given is None:
            return self.parameters
        parameters = copy.copy(self.parameters)
        parameters.credentials = _as_credentials(given)
        check_parameters(parameters)
        return parameters


@dataclass(frozen=True, eq=False)
class Asked:
    """A function of the user's that says where to connect to, asked before each round."""

    ask: Callable[[], Any]
    make: Callable[[Any], list[Any]]

    def __str__(self) -> str:
        return f"what {getattr(self.ask, '__qualname__', type(self.ask).__name__)}() says"

    async def resolved(self) -> list[Place]:
        """The places of this round of attempts."""
        made = self.make(await maybe_await(self.ask()))
        return [place for each in made for place in await each.resolved()]


def _as_credentials(given: Any) -> Any:
    """pika's credentials; a token alone is a password without a user."""
    if isinstance(given, str):
        return pika.PlainCredentials("", given)
    kinds: Any = VALID_TYPES
    if not isinstance(given, tuple(kinds)):  # pika's own error shows the value
        kind = type(given).__name__
        raise TypeError(f"credentials are pika.PlainCredentials, a token (str), ..., not {kind}")
    return given


async def maybe_await(result: Any) -> Any:
    """What a user's function returned: a coroutine's or a Deferred's result, else itself."""
    return await result if hasattr(result, "__await__") else result


def places(
    target: Any, parameters: Any, tls: Any, reactor: Any, credentials: Any = None
) -> list[Any]:
    """All places that `connect()`'s `target` names, in its order.

    :raises TypeError, ValueError, OSError: it is nothing that can be connected to
    """
    if not (parameters is None or isinstance(parameters, Parameters) or callable(parameters)):
        check_parameters(parameters)
        kind = type(parameters).__name__
        raise TypeError(f"parameters are pika.ConnectionParameters, not {kind}")
    if callable(parameters):
        return [Asked(parameters, partial(_asked_parameters, target, tls, reactor, credentials))]
    if parameters is not None and target is not None and not _has_endpoint(target):
        raise TypeError(
            "parameters are for endpoints, or alone, without a target: a URL and pika's parameters "
            "as the target say everything themselves"
        )
    return _places(target, parameters, tls, reactor, credentials)


def _asked_parameters(
    target: Any, tls: Any, reactor: Any, credentials: Any, parameters: Any
) -> list[Any]:
    return places(target, parameters, tls, reactor, credentials)


def _has_endpoint(target: Any) -> bool:
    """Whether any part of a target takes parameters, or may."""
    if isinstance(target, (list, tuple)):
        return any(_has_endpoint(each) for each in target)
    return not isinstance(target, (str, bytes, Parameters))


def _places(
    target: Any, parameters: Parameters | None, tls: Any, reactor: Any, credentials: Any
) -> list[Any]:
    if target is None:
        target = parameters if parameters is not None else pika.ConnectionParameters()
    if isinstance(target, str):
        return [_from_url(target, tls, reactor, credentials)]
    if isinstance(target, Parameters):
        return [_from_parameters(target, tls, reactor, credentials)]
    if interfaces.IStreamClientEndpoint.providedBy(target):
        if parameters is None:
            parameters = pika.ConnectionParameters()
        return [_from_endpoint(target, parameters, tls, reactor, credentials)]
    if callable(target):
        return [Asked(target, lambda now: _places(now, parameters, tls, reactor, credentials))]
    if isinstance(target, Iterable) and not isinstance(target, bytes):
        found = [
            place
            for each in target
            for place in _places(each, parameters, tls, reactor, credentials)
        ]
        if not found:
            raise ValueError("the list of brokers is empty")
        return found
    raise TypeError(
        "connect to an amqp:// or amqps:// URL, pika.ConnectionParameters, a Twisted client "
        f"endpoint, a function that gives one, or a list of these, not {type(target).__name__}"
    )


# URLs. No error has a part of the URL in it: one that is not percent-encoded splits anywhere.


def _from_url(url: str, tls: Any, reactor: Any, credentials: Any) -> Place:
    parameters, options = read_url(url)
    if options is None or _is_given(tls):
        # An amqps URL without options gets a default context from pika, which is our default.
        default = parameters.ssl_options is not None
        parameters.ssl_options = None
        given = tls if _is_given(tls) else (True if default else None)
        return _from_parameters(parameters, given, reactor, credentials)
    parameters.ssl_options = None
    from . import tls as tls_module

    asked = partial(tls_module.from_url, options, parameters.host.strip("[]"))
    asked()  # a wrong file is found now
    return _from_parameters(parameters, asked, reactor, credentials)


def read_url(url: str) -> tuple[pika.URLParameters, dict[str, Any] | None]:
    """The parameters of an AMQP URL, and its `ssl_options`.

    :raises ValueError: what is wrong, without any of the URL's text
    """
    try:
        parts = urlsplit(url)
        scheme = parts.scheme
    except ValueError:
        raise ValueError(f"not an AMQP URL, as {_EXAMPLE} is; {_ENCODE}") from None
    if scheme not in _SCHEMES:
        other = f", not with {scheme}:" if url.startswith(f"{scheme}://") else ""
        raise ValueError(f"an AMQP URL begins with amqp:// or amqps://, as {_EXAMPLE} does{other}")
    _check_url(parts, url)
    user, at, host = parts.netloc.rpartition("@")
    if at and ":" not in user:
        parts = parts._replace(netloc=f"{user}:@{host}")  # pika raises where there is no password
        url = urlunsplit(parts)
    query = parse_qsl(parts.query, keep_blank_values=True)
    written = [value for name, value in query if name == "ssl_options"]
    options = _read_ssl_options(written[-1], scheme) if written else None
    if options is not None:
        # pika would read the files into a context of its own making.
        query = [(name, value) for name, value in query if name != "ssl_options"]
        url = urlunsplit(parts._replace(query=urlencode(query, quote_via=quote)))
    return _as_pika_reads_it(url, query), options


def _check_url(parts: Any, url: str) -> None:
    """ValueError for what a password that is not percent-encoded makes of the rest of a URL."""
    try:
        hostname, _ = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError(f"the URL's port is no number up to 65535; {_ENCODE}") from None
    query = parse_qsl(parts.query, keep_blank_values=True)
    if (
        "#" in url
        or "@" in parts.path
        or any("@" in name or (name != "ssl_options" and "@" in value) for name, value in query)
    ):
        raise ValueError(f"the URL has # or @ behind its host; {_ENCODE}")
    if any(each in hostname for each in " \\\"'<>^`{|}"):
        raise ValueError(f"the URL's host name has a character that none has; {_ENCODE}")


def _read_ssl_options(written: str, scheme: str) -> dict[str, Any] | None:
    try:
        options = ast.literal_eval(written)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise ValueError(
            "ssl_options of an amqps URL must be a dict as Python writes it, percent-encoded: "
            "urllib.parse.quote(repr({'ca_certs': '/path/ca.pem'}))"
        ) from None
    if options is None:
        return None
    if not isinstance(options, dict):
        raise ValueError("ssl_options of an amqps URL must be a dict")
    if scheme not in ("amqps", "https"):
        raise ValueError("ssl_options need an amqps URL")
    return options


def _as_pika_reads_it(url: str, query: list[tuple[str, str]]) -> pika.URLParameters:
    """pika's own reading; its errors hold values, which may be parts of a password."""
    try:
        return pika.URLParameters(url)
    except Exception as why:
        known = {name for name, _ in query if hasattr(pika.URLParameters, f"_set_url_{name}")}
        wrong = [name for name in sorted(known) if not _is_readable(name, dict(query)[name])]
        about = f"its option {wrong[0]} has a wrong value" if wrong else "pika can't read it"
        raise ValueError(f"not an AMQP URL ({type(why).__name__}): {about}; {_ENCODE}") from None


def _is_readable(name: str, value: str) -> bool:
    try:
        pika.URLParameters(f"amqp://host/?{urlencode({name: value}, quote_via=quote)}")
    except Exception:
        return False
    return True


# Parameters and endpoints


def _is_given(tls: Any) -> bool:
    return tls is not None and tls is not False  # False is what a setting says that is not set


def _from_parameters(parameters: Parameters, tls: Any, reactor: Any, credentials: Any) -> Place:
    where = f"{parameters.host}:{parameters.port}"
    host = parameters.host.strip("[]")  # a literal IPv6 address
    if not _is_given(tls):
        tls = parameters.ssl_options
    endpoint = partial(
        HostAddresses, reactor, host, parameters.port, parameters.socket_timeout or 30
    )
    endpoint()  # what Twisted finds wrong with the host is found now
    return _place(where, endpoint, parameters, tls, host, credentials)


def _from_endpoint(
    endpoint: Any, parameters: Parameters, tls: Any, reactor: Any, credentials: Any
) -> Place:
    if _is_given(tls) or parameters.ssl_options is None:
        host = None
        return _place(repr(endpoint), lambda: endpoint, parameters, tls, host, credentials)
    # The parameters ask for TLS: where the endpoint does none, it is done here.
    place = _place(
        repr(endpoint),
        lambda: endpoint,
        parameters,
        parameters.ssl_options,
        parameters.host.strip("[]"),
        credentials,
    )
    return replace(place, host=None, may_be_encrypted=True)


def _place(
    where: str,
    endpoint: Callable[[], Any],
    parameters: Parameters,
    tls: Any,
    host: str | None,
    credentials: Any,
) -> Place:
    check_parameters(parameters)
    if credentials is not None and not callable(credentials):
        credentials = _as_credentials(credentials)
    if not _is_given(tls):
        return Place(where, endpoint, parameters, host, None, credentials=credentials)
    from . import tls as tls_module

    if callable(tls):

        async def asked() -> Secured | Any:
            return tls_module.secured(await maybe_await(tls()), host)

        return Place(where, endpoint, parameters, host, asked, credentials=credentials)
    ready = tls_module.secured(tls, host)
    return Place(where, endpoint, parameters, host, lambda: ready, credentials=credentials)
