"""OAuth 2.0 client credentials: fetching and renewing tokens, and what is said when that fails."""

from __future__ import annotations

import base64
import json
import logging
from typing import Any
from urllib.parse import parse_qs

import pika
import pytest
from twisted.internet import defer, task
from twisted.internet import error as twisted_error
from twisted.python.failure import Failure
from twisted.web.client import FileBodyProducer

import pika_twisted
from pika_twisted.exceptions import TokenRefused
from pika_twisted.oauth2 import MAX_ANSWER, ClientCredentials
from pika_twisted.testing import Broker

SECRET = "S3cr3t/with:signs"


class Response:
    def __init__(self, code: int, body: bytes) -> None:
        self.code = code
        self._body = body

    def deliverBody(self, protocol: Any) -> None:  # noqa: N802
        protocol.dataReceived(self._body)
        protocol.connectionLost(None)


class Endpoint:
    """Stands for the Agent: answers with what it is given, one after the other."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.answers: list[Any] = []
        self.given = 0

    def request(
        self, method: bytes, url: bytes, headers: Any, body: FileBodyProducer
    ) -> defer.Deferred[Any]:
        fields = parse_qs(body._inputFile.read().decode())  # type: ignore[attr-defined]
        authorization = (headers.getRawHeaders("Authorization") or [None])[0]
        self.requests.append(
            {"method": method, "url": url, "fields": fields, "authorization": authorization}
        )
        if not self.answers:
            self.given += 1
            return defer.succeed(token(f"token-{self.given}"))
        answer = self.answers.pop(0)
        return answer if isinstance(answer, defer.Deferred) else defer.succeed(answer)


def token(text: str, **fields: Any) -> Response:
    return Response(200, json.dumps({"access_token": text, "expires_in": 100, **fields}).encode())


class Fetch:
    """A `ClientCredentials` with a clock and an endpoint of its own."""

    def __init__(self, reactor: Any = None, **options: Any) -> None:
        self.clock = reactor or task.Clock()
        self.credentials = ClientCredentials(
            "https://id.example.com/token?x=1", "orders", SECRET, reactor=self.clock, **options
        )
        self.endpoint = Endpoint()
        self.credentials._agent = self.endpoint  # type: ignore[assignment]

    def login(self) -> tuple[str, str]:
        results: list[Any] = []
        self.credentials().addBoth(results.append)
        (result,) = results
        if isinstance(result, Failure):
            result.raiseException()
        return result.username, result.password


def test_the_request() -> None:
    fetch = Fetch(scope="a b", extra={"audience": "rabbitmq"})
    assert fetch.login() == ("orders", "token-1")
    (request,) = fetch.endpoint.requests
    assert request["method"] == b"POST"
    assert request["url"] == b"https://id.example.com/token?x=1"
    assert request["fields"] == {
        "grant_type": ["client_credentials"],
        "scope": ["a b"],
        "audience": ["rabbitmq"],
    }
    encoded = request["authorization"].removeprefix("Basic ")
    assert base64.b64decode(encoded) == b"orders:S3cr3t%2Fwith%3Asigns"


def test_the_secret_in_the_body() -> None:
    fetch = Fetch(secret_in_body=True)
    fetch.login()
    (request,) = fetch.endpoint.requests
    assert request["authorization"] is None
    assert request["fields"]["client_id"] == ["orders"]
    assert request["fields"]["client_secret"] == [SECRET]


def test_a_token_is_used_for_three_quarters_of_its_life() -> None:
    fetch = Fetch()
    assert fetch.login()[1] == "token-1"
    fetch.clock.advance(74)
    assert fetch.login()[1] == "token-1"
    fetch.clock.advance(1)
    assert fetch.login()[1] == "token-2"


def test_several_ask_at_once() -> None:
    fetch = Fetch()
    answer: defer.Deferred[Any] = defer.Deferred()
    fetch.endpoint.answers = [answer]
    got: list[Any] = []
    first = fetch.credentials()
    first.addErrback(lambda failure: got.append(failure.type))
    fetch.credentials().addCallback(lambda each: got.append(each.password))
    first.cancel()
    answer.callback(token("one"))
    assert got == [defer.CancelledError, "one"]
    assert len(fetch.endpoint.requests) == 1


def web_token(**claims: Any) -> str:
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"e30.{payload}.c2ln"


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        ({"access_token": "plain", "expires_in": "40"}, 40),
        ({"access_token": web_token(iat=1000, exp=1200)}, 200),
        ({"access_token": web_token(exp=1200)}, 300),
        ({"access_token": "plain"}, 300),
        ({"access_token": "plain", "expires_in": True}, 300),
        ({"access_token": "plain", "expires_in": -5}, 300),
    ],
)
def test_lifetimes(fields: dict[str, Any], seconds: float) -> None:
    fetch = Fetch()
    fetch.endpoint.answers = [Response(200, json.dumps(fields).encode())]
    fetch.login()
    assert fetch.credentials.renewal_due() == seconds * 0.75


@pytest.mark.parametrize(
    ("response", "text"),
    [
        (
            Response(401, b'{"error": "invalid_client", "error_description": "no such client"}'),
            "HTTP 401 invalid_client: no such client",
        ),
        (Response(503, b"<html>"), "HTTP 503, and the answer is no JSON object"),
        (Response(200, b"[]"), "the answer is no JSON object"),
        (Response(200, b"{}"), "the answer has no access_token"),
        (Response(200, b"{" + b" " * (MAX_ANSWER + 9)), "the answer is no JSON object"),
    ],
)
def test_refusals(response: Response, text: str) -> None:
    fetch = Fetch()
    fetch.endpoint.answers = [response]
    with pytest.raises(TokenRefused) as caught:
        fetch.login()
    assert text in str(caught.value)
    assert "S3cr3t" not in str(caught.value)
    assert "x=1" not in str(caught.value)


def test_a_silent_endpoint() -> None:
    fetch = Fetch(timeout=5.0)
    fetch.endpoint.answers = [defer.Deferred()]
    failures: list[Any] = []
    fetch.credentials().addErrback(failures.append)
    fetch.clock.advance(5)
    (failure,) = failures
    assert failure.check(defer.TimeoutError)
    assert fetch.login()[1] == "token-1"


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ((None, "a", "b"), TypeError, "token_url"),
        (("ftp://x", "a", "b"), ValueError, "token_url"),
        (("https://x", "", "b"), TypeError, "client_id"),
        (("https://x", "a", 12345), TypeError, "client_secret must be a str, not int"),
    ],
)
def test_arguments(arguments: tuple[Any, ...], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        ClientCredentials(*arguments, reactor=task.Clock())


def test_nothing_shows_the_secret() -> None:
    assert repr(Fetch().credentials) == (
        "<ClientCredentials of 'orders' at https://id.example.com/token>"
    )


def test_a_connection_is_given_a_new_token() -> None:
    broker = Broker()
    fetch = Fetch(broker.reactor)

    async def work() -> None:
        await fetch.credentials()
        connection = await broker.connect()
        renewal = fetch.credentials.keep_fresh(connection)
        await task.deferLater(broker.reactor, 74)
        assert broker.updated_secrets == []
        await task.deferLater(broker.reactor, 2)
        assert broker.updated_secrets == ["token-2"]
        await task.deferLater(broker.reactor, 75)
        assert broker.updated_secrets == ["token-2", "token-3"]
        renewal.stop()
        await task.deferLater(broker.reactor, 300)
        assert len(broker.updated_secrets) == 2
        await connection.close()

    broker.run(work(), timeout=600)


def test_a_renewal_that_fails_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    broker = Broker()
    fetch = Fetch(broker.reactor)

    async def work() -> None:
        await fetch.credentials()
        connection = await broker.connect()
        fetch.credentials.keep_fresh(connection)
        fetch.endpoint.answers = [
            defer.fail(twisted_error.ConnectionRefusedError()),
            Response(500, b"{}"),
            token("new"),
        ]
        await task.deferLater(broker.reactor, 75.5)
        assert broker.updated_secrets == []
        await task.deferLater(broker.reactor, 1)
        assert broker.updated_secrets == []
        await task.deferLater(broker.reactor, 2)
        assert broker.updated_secrets == ["new"]
        await connection.close()

    with caplog.at_level(logging.WARNING, logger="pika_twisted"):
        broker.run(work(), timeout=600)
    warnings = [each.getMessage() for each in caplog.records if "no new token" in each.message]
    assert len(warnings) == 2
    assert "the present one is still valid; again in 1 s" in warnings[0]
    assert "HTTP 500" in warnings[1]


def test_a_service_renews_on_each_connection() -> None:
    broker = Broker()
    fetch = Fetch(broker.reactor)
    service = pika_twisted.RecoveringService(
        broker.endpoint(),
        credentials=lambda: pika.PlainCredentials("guest", "guest"),
        reactor=broker.reactor,
    )
    fetch.credentials.keep_fresh(service)

    async def work() -> None:
        await fetch.credentials()
        service.startService()
        await service.when_ready()
        await task.deferLater(broker.reactor, 80)
        assert broker.updated_secrets == ["token-2"]
        broker.cut()
        await task.deferLater(broker.reactor, 5)
        await service.when_ready()
        await task.deferLater(broker.reactor, 75)
        assert broker.updated_secrets == ["token-2", "token-3"]
        await service.stopService()

    broker.run(work(), timeout=600)
    assert broker.reactor.getDelayedCalls() == []
