"""Libraries written for pika's Twisted adapter, unmodified, after pika_twisted.install()."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pika_twisted
from tests.broker.env import Env, NotHere, equal
from tests.broker.registry import scenario

FEDORA_MESSAGING = """
import os
import pika_twisted
pika_twisted.install()
from fedora_messaging import api, config, message
from fedora_messaging.twisted import protocol
assert issubclass(protocol.FedoraMessagingProtocolV2, pika_twisted.TwistedProtocolConnection)
config.conf.load_config()
config.conf.update(amqp_url=os.environ["AMQP_URL"], publish_exchange="amq.topic",
                   tls={"ca_cert": None, "keyfile": None, "certfile": None})
from twisted.internet import defer, reactor, task

queue, count = os.environ["QUEUE"], 200
seen = []

@defer.inlineCallbacks
def main():
    queues = {queue: {"durable": True, "auto_delete": True, "exclusive": False, "arguments": {}}}
    bindings = [{"queue": queue, "exchange": "amq.topic", "routing_keys": [queue]}]
    consumers = yield api.twisted_consume(
        lambda received: seen.append(received.body["n"]), bindings=bindings, queues=queues
    )
    for number in range(count):
        yield api.twisted_publish(message.Message(topic=queue, body={"n": number}))
    for _ in range(200):
        if len(seen) == count:
            break
        yield task.deferLater(reactor, 0.05)
    yield consumers[0].cancel()

def done(result):
    print("result", result, len(seen), seen == list(range(count)), flush=True)
    reactor.stop()

reactor.callWhenRunning(lambda: main().addBoth(done))
reactor.run()
"""


@scenario(interface="ours", timeout=90)
async def fedora_messaging_runs_unmodified(env: Env) -> None:
    """Its service, factory, protocol and consumer: 200 messages published and consumed in order."""
    if importlib.util.find_spec("fedora_messaging") is None:
        if os.environ.get("CI"):
            raise AssertionError("pip install --group broker has fedora-messaging")
        raise NotHere("fedora-messaging is not installed: pip install --group broker")
    environment = {
        **os.environ,
        "AMQP_URL": env.broker.url(),
        "QUEUE": env.name(),
        "PYTHONPATH": str(Path(pika_twisted.__file__).resolve().parents[1]),
    }

    def run() -> Any:
        return subprocess.run(
            [sys.executable, "-c", FEDORA_MESSAGING],
            env=environment,
            capture_output=True,
            text=True,
            timeout=80,
        )

    result = await env.thread(run)
    equal(result.stdout.strip(), "result None 200 True", result.stderr[-3000:])
