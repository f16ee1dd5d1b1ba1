"""`Broker`: what tests of programs see of it, and what they can make it do."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pika
import pytest
from pika import exceptions
from twisted.internet import error, task

import pika_twisted
from pika_twisted.testing import Broker, BrokerMixin

ROOT = Path(__file__).parents[3]


@pytest.fixture
def broker() -> Iterator[Broker]:
    broker = Broker()
    yield broker
    broker.close()
    assert not broker.reactor.getDelayedCalls()


async def with_queue(broker: Broker, name: str = "work", **options: Any) -> Any:
    """A channel on a new connection, and the queue declared."""
    connection = await broker.connect()
    channel = await connection.channel()
    await channel.queue_declare(name, **options)
    return channel


def test_a_message_goes_through(broker: Broker) -> None:
    async def go() -> None:
        channel = await with_queue(broker)
        await channel.basic_publish("", "work", b"hello", pika.BasicProperties(type="t"))
        await channel.queue_declare("work", passive=True)
        (waiting,) = broker.queue("work").messages
        assert (waiting.body, waiting.properties.type) == (b"hello", "t")
        (published,) = broker.published
        assert (published.exchange, published.routing_key) == ("", "work")
        assert published.queues == ("work",)
        queue, _tag = await channel.basic_consume("work")
        message = await queue.get()
        assert message.body == b"hello"
        assert [each.body for each in broker.queue("work").unacked] == [b"hello"]
        channel.basic_ack(message.method.delivery_tag)
        await channel.queue_declare("work", passive=True)
        assert [(each.body, each.outcome) for each in broker.settled] == [(b"hello", "acked")]

    broker.run(go())


def test_publish_from_the_test(broker: Broker) -> None:
    async def go() -> bytes:
        channel = await with_queue(broker)
        queue, _tag = await channel.basic_consume("work")
        assert broker.publish("", "work", b"from the test") == ["work"]
        message = await queue.get()
        return bytes(message.body)

    assert broker.run(go()) == b"from the test"


def test_two_runs_are_the_same() -> None:
    def run() -> list[str]:
        broker = Broker(seed=7)

        async def go() -> list[str]:
            channel = await with_queue(broker)
            return [(await channel.queue_declare("")).method.queue for _ in range(3)]

        names = broker.run(go())
        broker.close()
        return names

    assert run() == run()
    assert all(name.startswith("amq.gen-") for name in run())


def test_run_ends_when_nothing_can_happen_any_more(broker: Broker) -> None:
    async def go() -> None:
        channel = await with_queue(broker)
        queue, _tag = await channel.basic_consume("work")
        await queue.get()

    with pytest.raises(TimeoutError, match="5 seconds of the clock"):
        broker.run(go(), timeout=5)


@pytest.mark.parametrize(
    ("reset", "expected"), [(False, error.ConnectionDone), (True, error.ConnectionLost)]
)
def test_cut(broker: Broker, reset: bool, expected: type[Exception]) -> None:
    async def go() -> Any:
        connection = await broker.connect()
        broker.cut(reset=reset)
        return await connection.when_closed()

    reason = broker.run(go())
    assert isinstance(reason, exceptions.ConnectionClosed | exceptions.StreamLostError | expected)
    assert not broker.connections


def test_refuse_the_next_call(broker: Broker) -> None:
    async def go() -> None:
        channel = await with_queue(broker)
        broker.refuse("queue.declare", 404, "gone", queue="other")
        await channel.queue_declare("work")
        with pytest.raises(exceptions.ChannelClosedByBroker) as caught:
            await channel.queue_declare("other")
        assert (caught.value.reply_code, caught.value.reply_text) == (404, "NOT_FOUND - gone")
        channel = await with_queue(broker, "other")
        await channel.confirm_delivery()
        broker.refuse("basic.publish", 541)
        with pytest.raises(exceptions.ConnectionClosedByBroker) as lost:
            await channel.basic_publish("", "other", b"x")
        assert (lost.value.reply_code, lost.value.reply_text) == (541, "INTERNAL_ERROR")

    broker.run(go())


def test_refuse_names_methods(broker: Broker) -> None:
    with pytest.raises(ValueError, match=r'"queue\.declare", not .queue_declare.'):
        broker.refuse("queue_declare")


def test_blocked(broker: Broker) -> None:
    async def go() -> None:
        channel = await with_queue(broker)
        idle = await broker.connect()
        await channel.basic_publish("", "work", b"1")
        await channel.queue_declare("work")
        broker.block("low on disk")
        await task.deferLater(broker.reactor, 0)
        assert channel.connection.is_blocked
        assert not idle.is_blocked
        await channel.basic_publish("", "work", b"2")
        await task.deferLater(broker.reactor, 1)
        assert [each.body for each in broker.queue("work").messages] == [b"1"]
        broker.unblock()
        await task.deferLater(broker.reactor, 0)
        assert not channel.connection.is_blocked
        assert [each.body for each in broker.queue("work").messages] == [b"1", b"2"]

    broker.run(go())


def test_held_confirms(broker: Broker) -> None:
    async def go() -> None:
        channel = await with_queue(broker)
        await channel.confirm_delivery()
        broker.hold_confirms()
        publishes = [channel.basic_publish("", "work", b"") for _ in range(3)]
        await task.deferLater(broker.reactor, 5)
        assert not any(each.called for each in publishes)
        broker.release_confirms()
        for each in publishes:
            await each

    broker.run(go())


def test_freeze_and_thaw(broker: Broker) -> None:
    async def go() -> None:
        channel = await with_queue(broker)
        broker.freeze()
        declaring = channel.queue_declare("later")
        await task.deferLater(broker.reactor, 5)
        assert not declaring.called
        assert "later" not in broker.queues
        broker.thaw()
        await declaring

    broker.run(go())


def test_a_frozen_broker_is_missed_by_heartbeats(broker: Broker) -> None:
    async def go() -> Any:
        connection = await broker.connect(pika.ConnectionParameters(heartbeat=4))
        broker.freeze()
        return await connection.when_closed()

    assert isinstance(broker.run(go()), exceptions.AMQPHeartbeatTimeout)


def test_cancel_a_consumer(broker: Broker) -> None:
    async def go() -> None:
        channel = await with_queue(broker)
        queue, tag = await channel.basic_consume("work")
        broker.connections[0].channels[1].cancel(tag)
        with pytest.raises(exceptions.ConsumerCancelled):
            await queue.get()
        assert not broker.queue("work").consumers

    broker.run(go())


def test_close_a_channel_with_deliveries_behind(broker: Broker) -> None:
    async def go() -> None:
        connection = await broker.connect()
        channel = await connection.channel()
        await channel.queue_declare("work")
        queue, _tag = await channel.basic_consume("work")
        broker.connections[0].channels[1].close(406, "enough", late=2)
        broker.publish("", "work", b"late")
        with pytest.raises(exceptions.ChannelClosedByBroker, match="enough"):
            await queue.get()
        await task.deferLater(broker.reactor, 1)
        assert [(each.body, each.redelivered) for each in broker.queue("work").messages] == [
            (b"late", True)
        ]

    broker.run(go())


def test_restart(broker: Broker) -> None:
    async def go() -> None:
        channel = await with_queue(broker, durable=True)
        await channel.queue_declare("transient")
        lasting = pika.BasicProperties(delivery_mode=2)
        await channel.basic_publish("", "work", b"kept", lasting)
        await channel.basic_publish("", "work", b"lost")
        await channel.basic_get("work")
        broker.restart()
        assert list(broker.queues) == ["work"]
        assert [each.body for each in broker.queue("work").messages] == [b"kept"]
        assert broker.queue("work").messages[0].redelivered

    broker.run(go())


def test_a_recovering_service_comes_back(broker: Broker) -> None:
    service = pika_twisted.RecoveringService(broker.endpoint(), reactor=broker.reactor)
    service.startService()

    async def go() -> list[bytes]:
        channel = service.channel(prefetch_count=10)
        await channel.queue_declare("work", durable=True)
        queue, _tag = await channel.basic_consume("work")
        broker.publish("", "work", b"before")
        bodies = [(await queue.get()).body]
        broker.restart()
        broker.accepts = False
        await task.deferLater(broker.reactor, 3)
        broker.accepts = True
        await service.when_ready()
        broker.publish("", "work", b"after")
        bodies.append((await queue.get()).body)
        await service.stopService()
        return bodies

    assert broker.run(go()) == [b"before", b"after"]


def test_latency(broker: Broker) -> None:
    broker.latency = 0.5

    async def go() -> float:
        channel = await with_queue(broker)
        start = broker.reactor.seconds()
        await channel.queue_declare("work")
        return float(broker.reactor.seconds() - start)

    assert broker.run(go()) == 1.0


def test_logins(broker: Broker) -> None:
    broker.add_vhost("other")
    broker.add_user("app", "secret", "other")

    async def login(name: str, password: str, vhost: str) -> Any:
        credentials = pika.PlainCredentials(name, password)
        connection = await broker.connect(
            pika.ConnectionParameters(virtual_host=vhost, credentials=credentials)
        )
        await connection.close()

    broker.run(login("app", "secret", "other"))
    with pytest.raises(exceptions.ProbableAuthenticationError, match="Login was refused"):
        broker.run(login("app", "wrong", "other"))
    with pytest.raises(exceptions.ProbableAccessDeniedError, match="vhost nope not found"):
        broker.run(login("app", "secret", "nope"))
    with pytest.raises(exceptions.ProbableAccessDeniedError, match="refused for user 'app'"):
        broker.run(login("app", "secret", "/"))


def test_client_properties(broker: Broker) -> None:
    async def go() -> None:
        await broker.connect(pika.ConnectionParameters(client_properties={"connection_name": "me"}))
        (connection,) = broker.connections
        assert connection.client_properties["connection_name"] == "me"
        assert repr(connection) == "<ServerConnection 'me': running>"

    broker.run(go())


def test_a_version_that_is_none() -> None:
    with pytest.raises(ValueError, match="not 'four'"):
        Broker(version="four")


def test_nothing_else_imports_it() -> None:
    program = "import sys, pika_twisted; print('pika_twisted.testing' in sys.modules)"
    printed = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert printed.strip() == "False"


PLUGIN_TEST = """
import sys

def test_lazily(request):
    assert "pika_twisted" not in sys.modules

def test_broker(amqp_broker, make_amqp_broker):
    async def go():
        connection = await amqp_broker.connect()
        channel = await connection.channel()
        await channel.queue_declare("work")
    amqp_broker.run(go())
    assert list(amqp_broker.queues) == ["work"]
    assert make_amqp_broker(heartbeat=5).heartbeat == 5
"""


def test_the_pytest_plugin(tmp_path: Path) -> None:
    (tmp_path / "test_program.py").write_text(PLUGIN_TEST)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "pytest_pika_twisted", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "2 passed" in done.stdout, done.stdout


class FakeCase:
    """A test case of trial, as far as the mixin knows it."""

    def __init__(self) -> None:
        self.cleanups: list[Callable[[], Any]] = []

    def addCleanup(self, function: Callable[[], Any]) -> None:  # noqa: N802
        self.cleanups.append(function)


class Case(BrokerMixin, FakeCase):
    pass


def test_the_mixin_for_trial() -> None:
    case = Case()
    broker = case.make_broker(version="3.10.8")
    broker.run(broker.connect())
    assert len(broker.connections) == 1
    for cleanup in case.cleanups:
        cleanup()
    assert not broker.connections
    assert not broker.reactor.getDelayedCalls()
