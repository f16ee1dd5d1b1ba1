"""A peer that sends without end, over a socket: the client's memory and CPU. No broker is involved.

Streams of `tests/unit/codec/test_hostile_volume.py`: 128 MiB of each in an ordinary run,
1 GiB in a long one (PIKA_TWISTED_TEST_LONG=1).
"""

from __future__ import annotations

import gc
import logging
import os
import socket
import struct
import time
from collections.abc import Iterator
from typing import Any

import pika
from pika import spec
from twisted.internet import endpoints

from tests.broker.env import Env, OneShot, check
from tests.broker.registry import scenario
from tests.support import hostile, wire
from tests.support.bad_talks import OPEN_OK, START, TUNED

MIB = hostile.MIB
LARGE = 1024 if os.environ.get("PIKA_TWISTED_TEST_LONG") == "1" else 128
TURN = 0.05  # CPU seconds, below which two runs can't be compared

# What the peer says when so many frames have come from the client.
DIALOGUE = (
    (0, START),
    (1, TUNED),
    (3, OPEN_OK),
    (4, wire.method_frame(1, spec.Channel.OpenOk())),
    (5, wire.method_frame(1, spec.Basic.ConsumeOk("t"))),
)


def frames(line: socket.socket) -> Iterator[int]:
    """How many frames have come, each time another one has."""
    data = b""
    header, count = 8, 0
    while received := line.recv(65536):
        data += received
        while header and len(data) >= header:  # the protocol header is no frame
            data, header = data[header:], 0
            yield 0
        while len(data) >= 8:
            size = 8 + struct.unpack_from(">I", data, 3)[0]
            if len(data) < size:
                break
            data, count = data[size:], count + 1
            yield count


def serve(listening: socket.socket, stream: hostile.Stream, octets: int) -> None:
    """Be the peer of one connection, in a thread."""
    line, _ = listening.accept()
    with line:
        said = dict(DIALOGUE)
        for count in frames(line):
            if count in said:
                line.sendall(said.pop(count))
            if not said:
                break
        try:
            for data in hostile.reads(stream, octets):
                line.sendall(data)
            line.shutdown(socket.SHUT_WR)
            while line.recv(65536):
                pass
        except ConnectionError:
            pass  # the client has had enough


async def cost(env: Env, name: str, octets: int) -> tuple[float, int]:
    """CPU seconds of the reactor's thread, and octets of memory at the worst."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        serving = env.thread(serve, listening, hostile.STREAMS[name], octets)
        connection = env.implementation.TwistedProtocolConnection(
            pika.ConnectionParameters(heartbeat=0), env.reactor
        )
        env.connections.append(connection)
        closed = connection.when_closed()
        gc.collect()
        hostile.reset()
        before, began = hostile.peak(), time.thread_time()
        endpoint = endpoints.TCP4ClientEndpoint(env.reactor, "127.0.0.1", port)
        await endpoint.connect(OneShot(connection))
        await connection.when_ready()
        channel = await connection.channel()
        await channel.basic_consume("q", consumer_tag="t")
        await closed
        spent, grown = time.thread_time() - began, hostile.peak() - before
        await serving
    return spent, grown


@scenario(interface="ours", timeout=300)
async def hostile_volume(env: Env) -> None:
    """At most 8 MiB more than the message allowed; ten times as much costs at most 20 times."""
    logging.getLogger("pika_twisted").setLevel(logging.CRITICAL)
    env.cleanups.append(lambda: logging.getLogger("pika_twisted").setLevel(logging.NOTSET))
    problems: list[Any] = []
    for name, stream in hostile.STREAMS.items():
        large, grown = await cost(env, name, LARGE * MIB)
        small, _ = await cost(env, name, LARGE * MIB // 10)
        print(f"{name}: {LARGE} MiB took {large:.3f} s CPU, +{grown / MIB:.1f} MiB")
        if large > 20 * max(small, TURN) or grown > stream.allowed + 8 * MIB:
            problems.append((name, small, large, grown))
    check(not problems, f"(name, CPU of a tenth, CPU, memory): {problems}")
