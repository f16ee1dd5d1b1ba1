"""Tokens as credentials, with RabbitMQ's OAuth 2.0 plugin and a token endpoint of our own."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from typing import Any

from pika import exceptions as pika_exceptions
from twisted.web import resource, server

import pika_twisted
from pika_twisted.oauth2 import ClientCredentials
from tests.broker.env import Env, equal
from tests.broker.registry import scenario
from tests.broker.victim import victim

KEY = b"a key for tests, of 32 bytes ...."
LIFETIME = 8  # seconds; RabbitMQ closes a connection whose token has expired

CONFIGURE = """\
application:set_env(rabbitmq_auth_backend_oauth2, resource_server_id, <<"rabbitmq">>),
Key = #{{<<"alg">> => <<"HS256">>, <<"kid">> => <<"k">>, <<"kty">> => <<"oct">>,
         <<"k">> => <<"{key}">>, <<"value">> => <<"{key}">>}},
application:set_env(rabbitmq_auth_backend_oauth2, key_config,
    [{{default_key, <<"k">>}}, {{signing_keys, #{{<<"k">> => {{map, Key}}}}}}]),
application:set_env(rabbit, auth_backends,
    [rabbit_auth_backend_oauth2, rabbit_auth_backend_internal])"""


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def signed(**claims: Any) -> str:
    """A JSON web token that the node takes."""
    head = encoded(json.dumps({"alg": "HS256", "typ": "JWT", "kid": "k"}).encode())
    body = f"{head}.{encoded(json.dumps(claims).encode())}"
    return f"{body}.{encoded(hmac.new(KEY, body.encode(), hashlib.sha256).digest())}"


class TokenEndpoint(resource.Resource):
    """Gives tokens to the client "orders"."""

    isLeaf = True  # noqa: N815

    def __init__(self) -> None:
        super().__init__()
        self.given = 0
        self.lifetime = LIFETIME

    def render_POST(self, request: Any) -> bytes:  # noqa: N802
        if (request.getUser(), request.getPassword()) != (b"orders", b"secret"):
            request.setResponseCode(401)
            return b'{"error": "invalid_client"}'
        self.given += 1
        now = int(time.time())
        token = signed(
            sub="orders",
            aud=["rabbitmq"],
            iat=now,
            exp=now + self.lifetime,
            scope=["rabbitmq.configure:*/*", "rabbitmq.write:*/*", "rabbitmq.read:*/*"],
        )
        return json.dumps({"access_token": token, "expires_in": self.lifetime}).encode()


@scenario(own_node=True, interface="ours", timeout=240, beside=True)
async def oauth2_tokens_are_renewed(env: Env) -> None:
    """A service works over the lives of several tokens, on one connection; a plain one does not."""
    node = await victim(env)
    plugins = [node.installation.script("rabbitmq-plugins"), "--quiet"]
    await env.thread(node.evaluate, CONFIGURE.format(key=encoded(KEY)))
    await env.thread(node.run, [*plugins, "enable", "rabbitmq_auth_backend_oauth2"])
    endpoint = TokenEndpoint()
    port = env.reactor.listenTCP(0, server.Site(endpoint), interface="127.0.0.1")
    env.cleanups.append(port.stopListening)
    url = f"http://127.0.0.1:{port.getHost().port}/token"
    target = f"amqp://{env.broker.host}:{env.broker.port}/%2F"

    tokens = ClientCredentials(url, "orders", "secret", reactor=env.reactor)
    service = pika_twisted.RecoveringService(target, credentials=tokens, reactor=env.reactor)
    tokens.keep_fresh(service)
    service.startService()
    env.cleanups.append(service.stopService)
    await env.within(20, service.when_ready(), "the service is connected")
    channel = service.channel(confirm=True)
    queue = env.name()
    await channel.queue_declare(queue, exclusive=True)

    other = await pika_twisted.connect(target, credentials=tokens, reactor=env.reactor)
    env.cleanups.append(other.close)
    begin = env.reactor.seconds()
    while env.reactor.seconds() - begin < 2 * LIFETIME:
        await channel.basic_publish("", queue, b"x")
        await env.sleep(0.5)
    # Without renewal the broker refuses what is asked (3.10), or has closed the connection (4.x).
    try:
        await (await other.channel()).queue_declare(env.name(), exclusive=True)
    except pika_exceptions.AMQPError:
        pass
    else:
        equal("declared", "refused", "a declare with a token that has expired")
    equal(service.stats().reconnects, 0, "connections after the first")
    equal(endpoint.given > 2, True, "tokens were renewed")

    wrong = ClientCredentials(url, "orders", "wrong", reactor=env.reactor)
    connecting = pika_twisted.connect(target, credentials=wrong, reactor=env.reactor)
    try:
        await connecting
    except pika_twisted.exceptions.TokenRefused as refused:
        equal("HTTP 401 invalid_client" in str(refused), True, str(refused))
    else:
        equal("connected", "refused", "a wrong secret")
