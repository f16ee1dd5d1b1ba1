"""What tests can make the broker do, seen by a client that shows every frame."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from typing import Any

import pika
import pytest
from pika import exceptions, spec
from twisted.internet import task

from pika_twisted.testing import Broker
from pika_twisted.testing.arguments import type_name
from tests.support.conformance.client import Client
from tests.support.conformance.wires import MemoryWire


@pytest.fixture
def broker() -> Iterator[Broker]:
    broker = Broker()
    yield broker
    broker.close()
    assert not broker.reactor.getDelayedCalls()


@pytest.fixture
def client(broker: Broker) -> Client:
    """A client with a queue "work" and channels 1 and 2."""
    client = Client(MemoryWire(broker)).open(channels=2)
    client.ask(1, spec.Queue.Declare(queue="work"))
    return client


def bodies(items: list[Any]) -> list[Any]:
    """The bodies of deliveries, and the names of other methods."""
    return [each[4] if len(each) == 5 else each[1] for each in items]


def consume(queue: str = "work", **options: Any) -> spec.Basic.Consume:
    return spec.Basic.Consume(queue=queue, consumer_tag="t", **options)


def test_hold_deliveries(broker: Broker, client: Client) -> None:
    client.ask(1, consume())
    broker.hold_deliveries("work")
    broker.publish("", "work", b"held")
    assert client.rest(60) == []
    assert broker.queue("work").message_count == 1
    broker.release_deliveries()
    assert bodies(client.rest()) == ["held"]


def test_global_prefetch_counts_all_consumers(broker: Broker, client: Client) -> None:
    client.ask(1, spec.Queue.Declare(queue="other"))
    client.ask(1, spec.Basic.Qos(prefetch_count=2, global_qos=True))
    client.ask(1, consume(), spec.Basic.Consume(queue="other", consumer_tag="u"))
    for queue in ("work", "other", "work", "other"):
        broker.publish("", queue, queue.encode())
    assert bodies(client.rest()) == ["work", "other"]
    client.send(1, spec.Basic.Ack(1))
    assert bodies(client.rest()) == ["work"]
    client.send(1, spec.Basic.Qos(prefetch_count=0, global_qos=True))
    assert sorted(bodies(client.rest())) == ["Basic.QosOk", "other"]


def test_late_deliveries(broker: Broker, client: Client) -> None:
    broker.late_deliveries = 2
    client.ask(1, consume())
    client.send(1, spec.Queue.Declare(queue="none", passive=True))
    broker.reactor.advance(0)
    for number in range(4):
        broker.publish("", "work", str(number).encode())
    assert bodies(client.rest()) == ["Channel.Close", "0", "1"]
    assert [(each.body, each.redelivered) for each in broker.queue("work").messages] == [
        (b"0", True),
        (b"1", True),
        (b"2", False),
        (b"3", False),
    ]


def test_refuse_several_times(broker: Broker, client: Client) -> None:
    broker.refuse("basic.get", 403, "not now", times=2)
    get = spec.Basic.Get(queue="work")
    for _ in range(2):
        assert client.ask(1, get)[2]["reply_text"] == "ACCESS_REFUSED - not now"
        client.open_channel(1)
    assert client.ask(1, get)[1] == "Basic.GetEmpty"


@pytest.mark.parametrize(
    ("method", "code", "text"),
    [
        ("connection.open", 530, "NOT_ALLOWED - closed today"),
        ("channel.open", 541, "INTERNAL_ERROR"),
    ],
)
def test_refuse_to_open(broker: Broker, method: str, code: int, text: str) -> None:
    broker.refuse(method, code, "closed today" if code == 530 else None)
    client = Client(MemoryWire(broker))
    client.start()
    client.send(0, spec.Connection.TuneOk(2047, 131072, 0), spec.Connection.Open("/"))
    client.send(1, spec.Channel.Open())
    (close,) = [each for each in client.take(2) if each[1:2] == ["Connection.Close"]]
    assert (close[2]["reply_code"], close[2]["reply_text"]) == (code, text)


def test_close_a_connection(broker: Broker, client: Client) -> None:
    broker.connections[0].close(320, "shutdown")
    assert client.next()[1:] == [
        "Connection.Close",
        {
            "class_id": 0,
            "method_id": 0,
            "reply_code": 320,
            "reply_text": "CONNECTION_FORCED - shutdown",
        },
    ]
    assert client.next() == ["end"]
    assert broker.connections == []


def test_a_client_that_does_not_answer_a_close_is_cut(broker: Broker) -> None:
    client = Client(MemoryWire(broker))
    client.start()
    broker.connections[0].close()
    client.wire.write = lambda data: None  # type: ignore[method-assign]
    broker.reactor.advance(29)
    assert not client.ended
    client.rest(2)
    assert client.ended


def test_heartbeats_are_sent_and_missed(broker: Broker) -> None:
    client = Client(MemoryWire(broker))
    client.start()
    client.send(0, spec.Connection.TuneOk(2047, 131072, 4), spec.Connection.Open("/"))
    client.next()
    broker.reactor.pump([1] * 5)
    assert client.wire.read(0) == b"\x08\x00\x00\x00\x00\x00\x00\xce"
    broker.reactor.pump([1] * 8)
    client.rest(0)
    assert client.ended


def test_a_client_that_beats_is_kept(broker: Broker) -> None:
    async def go() -> None:
        connection = await broker.connect(pika.ConnectionParameters(heartbeat=4))
        await task.deferLater(broker.reactor, 100)
        assert connection.is_open

    broker.run(go(), timeout=200)


def test_login_with_external(broker: Broker) -> None:
    broker.add_user("machine", "")
    broker.external_user = "machine"

    async def go() -> None:
        credentials = pika.credentials.ExternalCredentials()
        await broker.connect(pika.ConnectionParameters(credentials=credentials))
        assert broker.connections[0].user.name == "machine"

    broker.run(go())


def test_a_mechanism_that_is_not_offered(broker: Broker) -> None:
    broker.mechanisms = "EXTERNAL"
    with pytest.raises(exceptions.AuthenticationError):
        broker.run(broker.connect())


def test_connections_are_refused(broker: Broker) -> None:
    broker.accepts = False
    with pytest.raises(exceptions.AMQPConnectionError, match="broker in memory"):
        broker.run(broker.connect())


def test_run_needs_a_clock() -> None:
    class Reactor:
        callLater = None  # noqa: N815

    with pytest.raises(TypeError, match="this broker has a reactor"):
        Broker(Reactor()).run(task.deferLater(task.Clock(), 0))


def test_secrets_are_kept(broker: Broker, client: Client) -> None:
    client.ask(0, spec.Connection.UpdateSecret("new", "rotated"))
    assert broker.updated_secrets == ["new"]


def test_a_stream_by_time(broker: Broker, client: Client) -> None:
    client.ask(
        1, spec.Queue.Declare(queue="log", durable=True, arguments={"x-queue-type": "stream"})
    )
    for number in range(3):
        broker.publish("", "log", str(number).encode())
        broker.reactor.advance(10)
    client.ask(1, spec.Basic.Qos(prefetch_count=10))
    for offset, expected in (
        (datetime.fromtimestamp(5), ["1", "2"]),
        ("last", ["2"]),
        (99, []),
        (-1, ["0", "1", "2"]),
    ):
        client.ask(1, consume("log", arguments={"x-stream-offset": offset}))
        assert bodies(client.rest()) == expected
        client.ask(1, spec.Basic.Cancel("t"))
    client.ask(1, spec.Queue.Delete(queue="log"))
    assert "log" not in broker.queues


def test_a_restart_keeps_streams_and_exchanges(broker: Broker, client: Client) -> None:
    client.ask(
        1,
        spec.Queue.Declare(queue="log", durable=True, arguments={"x-queue-type": "stream"}),
        spec.Exchange.Declare(exchange="kept", type="fanout", durable=True),
        spec.Exchange.Declare(exchange="gone", type="fanout"),
        spec.Queue.Bind(queue="log", exchange="kept"),
        spec.Queue.Bind(queue="log", exchange="gone"),
    )
    broker.publish("", "log", b"1")
    broker.restart()
    assert [each.body for each in broker.queue("log").messages] == [b"1"]
    assert [each.target.name for each in broker.exchange("kept").bindings] == ["log"]
    with pytest.raises(KeyError):
        broker.exchange("gone")
    with pytest.raises(KeyError):
        broker.queue("work")


def test_cut_one_of_two(broker: Broker, client: Client) -> None:
    other = Client(MemoryWire(broker)).open()
    broker.connections[0].cut()
    assert client.next() == ["end"]
    assert other.ask(1, spec.Queue.Declare(queue="other"))[1] == "Queue.DeclareOk"


def test_records_of_what_queues_gave_up(broker: Broker, client: Client) -> None:
    client.ask(1, spec.Queue.Declare(queue="short", arguments={"x-max-length": 1}))
    for number in range(2):
        broker.publish("", "short", str(number).encode())
    (dropped,) = broker.dropped
    assert (dropped.queue, dropped.body, dropped.reason) == ("short", b"0", "maxlen")
    client.ask(1, spec.Basic.Get(queue="short"))
    client.send(1, spec.Basic.Reject(1, False))
    client.rest()
    assert [(each.queue, each.body, each.outcome) for each in broker.settled] == [
        ("short", b"1", "rejected")
    ]
    assert broker.dropped[1].reason == "rejected"


def test_things_say_what_they_are(broker: Broker, client: Client) -> None:
    client.ask(1, consume())
    broker.publish("", "work", b"x")
    (connection,) = broker.connections
    texts = [
        repr(each)
        for each in (
            broker,
            connection,
            connection.channels[1],
            connection.channels[1].consumers["t"],
            broker.queue("work"),
            broker.exchange("amq.topic"),
            broker.vhosts["/"],
            broker.queue("work").unacked[0],
        )
    ]
    assert texts == [
        "<Broker: 1 connections, 1 queues>",
        "<ServerConnection: running>",
        "<ServerChannel 1 of <ServerConnection: running>: open>",
        "<Consumer 't' of 'work'>",
        "<Queue 'work': 0 ready, 1 unacked>",
        "<Exchange 'amq.topic' topic>",
        "<VirtualHost '/': 1 queues>",
        "<QueuedMessage '' 'work' b'x'>",
    ]
    assert connection.channels[1].unacked_count == 1


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (True, "bool"),
        (1, "signedint"),
        (1 << 40, "long"),
        (1.5, "double"),
        (Decimal(1), "decimal"),
        ({}, "table"),
        ([], "array"),
        (None, "void"),
        (b"", "binary"),
        ("", "longstr"),
        (datetime(2020, 1, 1), "timestamp"),
    ],
)
def test_types_have_rabbitmqs_names(value: Any, name: str) -> None:
    assert type_name(value) == name
