"""Logins, limits, and frames that break the protocol."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pika import frame, spec

from tests.support.conformance.client import Client, raw
from tests.support.conformance.refusals import bind, consume, declare
from tests.support.conformance.world import World, add, scenario


@scenario
def wrong_protocol(world: World) -> Any:
    client = world.connect()
    client.write(b"AMQP\x01\x01\x00\x0a")
    return client.take(2)


@scenario
def wrong_password(world: World) -> Any:
    client = world.connect()
    return [client.start(password="wrong"), client.next()]


@scenario
def unknown_user(world: World) -> Any:
    client = world.connect()
    return [client.start("nobody"), client.next()]


@scenario
def unknown_vhost(world: World) -> Any:
    client = world.connect()
    client.start()
    client.send(0, spec.Connection.TuneOk(2047, 131072, 0), spec.Connection.Open("nope"))
    return client.take(2)


@scenario
def refused_vhost(world: World) -> Any:
    client = world.connect()
    client.start("limited", "limited-secret")
    client.send(0, spec.Connection.TuneOk(2047, 131072, 0), spec.Connection.Open("closed"))
    return client.take(2)


@scenario
def tune(world: World) -> Any:
    return world.connect().start()


@scenario
def frame_max_too_large(world: World) -> Any:
    return _tuned(world, spec.Connection.TuneOk(2047, 200000, 0))


@scenario
def frame_max_too_small(world: World) -> Any:
    return _tuned(world, spec.Connection.TuneOk(2047, 4000, 0))


@scenario
def channel_max_too_large(world: World) -> Any:
    return _tuned(world, spec.Connection.TuneOk(5000, 131072, 0))


def _tuned(world: World, method: spec.Connection.TuneOk) -> Any:
    client = world.connect()
    client.start()
    client.send(0, method)
    client.send(0, spec.Connection.Open("/"))
    return client.next()


@scenario
def too_many_channels(world: World) -> Any:
    client = world.connect()
    client.start()
    client.send(0, spec.Connection.TuneOk(2, 131072, 0), spec.Connection.Open("/"))
    client.next()
    return [client.ask(number, spec.Channel.Open()) for number in (1, 2, 3)]


@scenario
def small_frames(world: World) -> Any:
    client = world.connect()
    client.start()
    client.send(0, spec.Connection.TuneOk(2047, 8192, 0), spec.Connection.Open("/"))
    client.next()
    client.open_channel(1)
    client.ask(1, declare(world.name()))
    header = frame.Header(1, 20000, spec.BasicProperties())
    method = spec.Basic.Publish(exchange="", routing_key=world.name())
    client.write(frame.Method(1, method).marshal() + header.marshal())
    for size in (8184, 8184, 3632):
        client.write(frame.Body(1, b"x" * size).marshal())
    client.rest()
    client.send(1, spec.Basic.Get(queue=world.name(), no_ack=True))
    sizes: list[int] = []
    client.on_body = sizes.append
    return [client.next()[1], sizes]


@scenario
def close_connection(world: World) -> Any:
    client = world.client()
    return client.steps(0, spec.Connection.Close(200, "bye", 0, 0))


@scenario
def close_channel_and_open_again(world: World) -> Any:
    client = world.client()
    return client.steps(1, spec.Channel.Close(200, "bye", 0, 0), spec.Channel.Open())


@scenario
def channel_is_usable_after_its_close(world: World) -> Any:
    client = world.client()
    closed = client.ask(1, declare(world.name(), passive=True))
    return [closed, *client.steps(1, spec.Channel.Open(), declare(world.name()))]


@scenario
def method_on_a_closed_channel(world: World) -> Any:
    return world.client().ask(7, declare(world.name()))


@scenario
def update_secret(world: World) -> Any:
    return world.client().ask(0, spec.Connection.UpdateSecret("guest", "test"))


@scenario
def permissions(world: World) -> Any:
    client = world.client(user="limited", password="limited-secret", channels=6)
    client.ask(1, spec.Queue.Declare(queue="open-q", durable=True))
    answers = [
        client.ask(2, declare("closed-q")),
        client.ask(3, consume("closed-q")),
        client.ask(4, bind("open-q", "amq.direct")),
        client.ask(5, spec.Exchange.Declare(exchange="closed-e", type="fanout")),
    ]
    client.publish(6, "", "open-q", b"x")
    answers.append(client.next())
    client.ask(1, spec.Queue.Delete(queue="open-q"))
    return answers


def _content(queue: str) -> bytes:
    return frame.Method(1, spec.Basic.Publish(exchange="", routing_key=queue)).marshal()


_HEADER = frame.Header(1, 3, spec.BasicProperties()).marshal()

#: Bytes on a connection with channel 1.
BYTES: dict[str, Callable[[str], bytes]] = {
    "header_alone": lambda queue: _HEADER,
    "body_alone": lambda queue: frame.Body(1, b"abc").marshal(),
    "method_inside_content": lambda queue: _content(queue) * 2,
    "immediate": lambda queue: (
        frame.Method(
            1, spec.Basic.Publish(exchange="", routing_key=queue, immediate=True)
        ).marshal()
        + _HEADER
        + frame.Body(1, b"abc").marshal()
    ),
    "method_on_channel_0": lambda queue: frame.Method(0, declare(queue)).marshal(),
    "unknown_frame_type": lambda queue: raw(5, 1),
    "wrong_frame_end": lambda queue: raw(8, 0, b"", b"\xcd"),
    "frame_too_large": lambda queue: raw(3, 1, b"a" * 200000),
}


def _bytes(make: Callable[[str], bytes]) -> Callable[[World], Any]:
    def run(world: World) -> Any:
        client: Client = world.client()
        client.ask(1, declare(world.name()))
        client.write(make(world.name()))
        return client.next()

    return run


for _name, _make in BYTES.items():
    add(_name, _bytes(_make))
