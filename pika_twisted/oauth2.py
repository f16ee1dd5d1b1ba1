"""Tokens of OAuth 2.0 as credentials: fetched, and renewed before they expire."""

from __future__ import annotations

import base64
import binascii
import io
import json
import logging
from typing import Any
from urllib.parse import quote, urlencode

import pika
from twisted.internet import defer
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.web.client import Agent, FileBodyProducer
from twisted.web.http_headers import Headers

from pika_twisted.connecting import tls
from pika_twisted.deferreds.waiters import Waiters

from ._arguments import check_some_seconds
from .exceptions import TokenRefused

__all__ = ["ClientCredentials", "Renewal"]

LOGGER = logging.getLogger("pika_twisted")

#: Seconds that a token lives when neither the endpoint nor the token says so.
DEFAULT_LIFETIME = 300.0
#: The part of its life after which a token is renewed.
RENEW_AFTER = 0.75
#: Seconds before a failed renewal is tried again: the first time, and at most.
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
#: Bytes of an answer that are looked at; tokens have a few thousand.
MAX_ANSWER = 1 << 20


class ClientCredentials:
    """Credentials by OAuth 2.0's client credentials grant (RFC 6749, 4.4).

    Called without arguments, as `connect(credentials=...)` and `RecoveringService(credentials=...)`
    do at each attempt, it returns a Deferred that fires with `pika.PlainCredentials` of a token
    that is not about to expire::

        tokens = ClientCredentials("https://id.example.com/token", "orders", secret)
        connection = await connect("amqps://broker.example.com", credentials=tokens)
        tokens.keep_fresh(connection)

    RabbitMQ needs its plugin `rabbitmq_auth_backend_oauth2`. When a token has expired, it refuses
    the calls of its connection or closes it, so `keep_fresh()` gives it a new one before that
    (Connection.UpdateSecret).

    :param token_url: the token endpoint, https or http
    :param client_id: the client's name there
    :param client_secret: its secret
    :param scope: what is asked for, separated by spaces; None leaves that to the endpoint
    :param extra: further fields of the request, such as `audience` or `resource`
    :param secret_in_body: send name and secret as fields of the request, for endpoints that don't
        take HTTP's Basic authentication
    :param timeout: seconds that one request may take
    :param tls: an `ssl.SSLContext` for https; the platform's authorities by default
    :param reactor: the default reactor when None
    """

    def __init__(
        self,
        token_url: str,
        client_id: str,
        client_secret: str,
        *,
        scope: str | None = None,
        extra: dict[str, str] | None = None,
        secret_in_body: bool = False,
        timeout: float = 10.0,
        tls: Any = None,
        reactor: Any = None,
    ) -> None:
        for name, value in (("token_url", token_url), ("client_id", client_id)):
            if not isinstance(value, str) or not value:
                raise TypeError(f"{name} must be a str that is not empty, not {value!r}")
        if not isinstance(client_secret, str):
            raise TypeError(f"client_secret must be a str, not {type(client_secret).__name__}")
        if not token_url.startswith(("https://", "http://")):
            raise ValueError("token_url must begin with https:// or http://")
        check_some_seconds(timeout=timeout)
        if reactor is None:
            from twisted.internet import reactor
        self._reactor = reactor
        self._url = token_url
        self._client = (client_id, client_secret)
        self._fields = {"grant_type": "client_credentials", **(extra or {})}
        if scope is not None:
            self._fields["scope"] = scope
        self._in_body = secret_in_body
        self._timeout = timeout
        self._agent: Any = Agent.usingEndpointFactory(reactor, _Endpoints(reactor, tls))
        self._token = ""
        self._renew_at = 0.0
        self._expires_at = 0.0
        self._waiters = Waiters()
        self._fetching = False

    def __repr__(self) -> str:
        return f"<ClientCredentials of {self._client[0]!r} at {self._url.partition('?')[0]}>"

    def __call__(self) -> defer.Deferred[pika.PlainCredentials]:
        """Return a Deferred that fires with credentials that hold a fresh token.

        It fails with TokenRefused when the endpoint says no, and with the error of Twisted's HTTP
        client when it can't be reached.
        """
        fresh = self.token()
        return fresh.addCallback(lambda token: pika.PlainCredentials(self._client[0], token))

    def token(self, *, renew: bool = False) -> defer.Deferred[str]:
        """Return a Deferred that fires with a token, from the endpoint where that is due.

        :param renew: fetch a new one in any case
        """
        if not renew and self._token and self._reactor.seconds() < self._renew_at:
            return defer.succeed(self._token)
        waiter = self._waiters.wait()
        if not self._fetching:
            self._fetching = True
            defer.Deferred.fromCoroutine(self._fetch()).addBoth(self._fetched)
        return waiter

    def keep_fresh(self, source: Any) -> Renewal:
        """Give the broker a new token before each one expires.

        A renewal that fails is tried again, after 1 s that doubles to 30 s, and stands in the log.

        :param source: a `TwistedProtocolConnection`, until it is closed; or a `RecoveringService`,
            for each of its connections
        :returns: what stops it
        """
        renewal = Renewal(self)
        if hasattr(source, "add_callback"):
            source.add_callback("connected", renewal.begin)
            source.add_callback("recovered", renewal.begin)
            if source.connection is not None:
                renewal.begin(source.connection)
        else:
            renewal.begin(source)
        return renewal

    def renewal_due(self) -> float:
        """Return how many seconds from now the token in use is to be renewed."""
        due: float = max(0.0, self._renew_at - self._reactor.seconds())
        return due

    def is_valid(self) -> bool:
        """Return whether the token in use has not expired."""
        return self._reactor.seconds() < self._expires_at  # type: ignore[no-any-return]

    def later(self, seconds: float) -> defer.Deferred[None]:
        """Return a Deferred that fires after some seconds of the reactor's clock."""
        return deferLater(self._reactor, seconds)

    def _fetched(self, result: Any) -> None:
        self._fetching = False
        self._waiters.fire(result)

    async def _fetch(self) -> str:
        asked_at = self._reactor.seconds()
        fields, headers = dict(self._fields), Headers()
        headers.addRawHeader("Content-Type", "application/x-www-form-urlencoded")
        headers.addRawHeader("Accept", "application/json")
        if self._in_body:
            fields["client_id"], fields["client_secret"] = self._client
        else:  # RFC 6749, 2.3.1: each form-encoded, then Basic
            pair = ":".join(quote(each, safe="") for each in self._client)
            encoded = base64.b64encode(pair.encode()).decode()
            headers.addRawHeader("Authorization", f"Basic {encoded}")
        body = FileBodyProducer(io.BytesIO(urlencode(fields).encode()))
        asking = self._agent.request(b"POST", self._url.encode(), headers, body)
        response = await asking.addTimeout(self._timeout, self._reactor)
        reading = _Body()
        response.deliverBody(reading)
        answer = await reading.done.addTimeout(self._timeout, self._reactor)
        token, lifetime = self._read(response.code, answer)
        self._token = token
        self._expires_at = asked_at + lifetime
        self._renew_at = asked_at + lifetime * RENEW_AFTER
        return token

    def _read(self, code: int, answer: bytes) -> tuple[str, float]:
        """Return token and lifetime, or raise what the endpoint says; never with what it sent."""
        try:
            fields = json.loads(answer)
        except ValueError:
            fields = None
        if not isinstance(fields, dict):
            raise TokenRefused(f"{self!r}: HTTP {code}, and the answer is no JSON object")
        if code != 200:
            # RFC 6749, 5.2: a word and a text for people, none of them secret.
            said = [fields.get("error"), fields.get("error_description")]
            text = ": ".join(str(each)[:200] for each in said if each)
            raise TokenRefused(f"{self!r}: HTTP {code} {text}".rstrip())
        token = fields.get("access_token")
        if not isinstance(token, str) or not token:
            raise TokenRefused(f"{self!r}: the answer has no access_token")
        lifetime = fields.get("expires_in")
        if isinstance(lifetime, str) and lifetime.isdecimal():
            lifetime = float(lifetime)
        if isinstance(lifetime, bool) or not isinstance(lifetime, (int, float)) or lifetime <= 0:
            lifetime = _lifetime_in(token) or DEFAULT_LIFETIME
        return token, float(lifetime)


class Renewal:
    """Renews the tokens of connections; made by `ClientCredentials.keep_fresh()`."""

    def __init__(self, credentials: ClientCredentials) -> None:
        self._credentials = credentials
        self._running: defer.Deferred[None] | None = None
        self._stopped = False

    def begin(self, connection: Any) -> None:
        """Renew for this connection from now on, instead of the one before."""
        self._cancel()
        if self._stopped or connection.is_closed:
            return
        running = defer.Deferred.fromCoroutine(self._keep(connection))
        self._running = running
        running.addErrback(self._on_failed)
        connection.when_closed().addCallback(lambda _: running.cancel())

    def stop(self) -> None:
        """Renew no more; the connection lives on until its token expires."""
        self._stopped = True
        self._cancel()

    def _cancel(self) -> None:
        running, self._running = self._running, None
        if running is not None:
            running.cancel()

    def _on_failed(self, failure: Any) -> None:
        if not failure.check(defer.CancelledError):
            LOGGER.error("Renewing tokens ended unexpectedly: %s", failure.value)

    async def _keep(self, connection: Any) -> None:
        credentials, pause = self._credentials, FIRST_PAUSE
        await credentials.later(credentials.renewal_due())
        while not connection.is_closed:
            try:
                token = await credentials.token(renew=True)
                await connection.update_secret(token, "renewed before it expires")
            except defer.CancelledError:
                raise
            except Exception as why:
                said = "still valid" if credentials.is_valid() else "expired: expect to be closed"
                LOGGER.warning(
                    "The broker has no new token (%s); the present one is %s; again in %.0f s",
                    why,
                    said,
                    pause,
                )
                await credentials.later(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                pause = FIRST_PAUSE
                await credentials.later(credentials.renewal_due())


class _Body(Protocol):
    """Collects the body of an answer, `MAX_ANSWER` bytes at most."""

    def __init__(self) -> None:
        self.done: defer.Deferred[bytes] = defer.Deferred(lambda _: self._stop())
        self._received = b""

    def dataReceived(self, data: bytes) -> None:
        self._received += data[: MAX_ANSWER + 1 - len(self._received)]
        if len(self._received) > MAX_ANSWER:
            self._stop()

    def connectionLost(self, reason: Any = connectionDone) -> None:
        if not self.done.called:
            self.done.callback(self._received)

    def _stop(self) -> None:
        transport: Any = self.transport
        if transport is not None:
            transport.loseConnection()


class _Endpoints:
    """Where an `Agent` connects to; https by `connecting.tls`, which checks the host itself."""

    def __init__(self, reactor: Any, context: Any) -> None:
        self._reactor = reactor
        self._context = context

    def endpointForURI(self, uri: Any) -> Any:  # noqa: N802
        host = uri.host.decode()
        endpoint = HostnameEndpoint(self._reactor, host, uri.port)
        if uri.scheme != b"https":
            return endpoint
        chosen = True if self._context is None else self._context
        return tls.wrapped(endpoint, tls.secured(chosen, host), self._reactor)


def _lifetime_in(token: str) -> float | None:
    """The seconds that a JSON web token says it lives (RFC 7519: exp - iat); None if it doesn't."""
    try:
        _header, payload, _signature = token.split(".")
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        lifetime = claims["exp"] - claims["iat"]
    except (ValueError, KeyError, TypeError, binascii.Error):
        return None
    return float(lifetime) if lifetime > 0 else None
