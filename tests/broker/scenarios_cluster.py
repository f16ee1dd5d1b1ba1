"""Nodes in a cluster: when one dies the service goes on with another."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from typing import Any

from pika import BasicProperties, exceptions

import pika_twisted
from pika_twisted.recovery.service import RecoveringService
from tests.broker.env import Env, NotHere, check
from tests.broker.node import Node, create_node
from tests.broker.registry import scenario

LONG = os.environ.get("PIKA_TWISTED_TEST_LONG") == "1"
#: How many nodes die, one after the other.
TURNS = 4 if LONG else 1


def create_cluster(vhost: str, mirrored: bool) -> list[Node]:
    """Nodes that go on where one dies: two with mirrored queues, three for quorum queues."""
    nodes = [create_node()]
    try:
        for _ in range(1 if mirrored else 2):
            nodes.append(create_node(cluster_with=nodes[0]))
            nodes[-1].stop_app()
            nodes[-1].ctl("reset")
            nodes[-1].ctl("join_cluster", nodes[0].state.name)
            nodes[-1].start_app()
        if mirrored:
            policy = json.dumps({"ha-mode": "all", "ha-sync-mode": "automatic"})
            nodes[0].ctl("set_policy", "-p", vhost, "everywhere", "^failover", policy)
    except BaseException:
        for node in nodes:
            node.remove()
        raise
    return nodes


@scenario(own_node=True, interface="ours", timeout=480)
async def service_fails_over_to_the_other_node(env: Env) -> None:
    """kill -9 of the node in use, again and again: everything confirmed is handled."""
    if "EPoll" not in type(env.reactor).__name__ and not LONG:
        raise NotHere("half a minute on one reactor; make test-long has it on all")
    logging.getLogger("pika_twisted").setLevel(logging.CRITICAL)
    mirrored = not await env.changed("no mirrored classic queues")
    nodes: list[Node] = await env.thread(create_cluster, env.broker.vhost, mirrored)
    parameters = [
        env.parameters(host="127.0.0.1", port=node.state.port, stack_timeout=5, heartbeat=5)
        for node in nodes
    ]
    service = RecoveringService(
        parameters, reactor=env.reactor, retry_policy=lambda n: min(0.1 * 2**n, 1)
    )
    confirmed: set[bytes] = set()
    handled: dict[bytes, int] = {}

    async def handler(message: Any) -> None:
        handled[message.body] = handled.get(message.body, 0) + 1

    def port() -> int | None:
        """Of the node in use; None while there is none."""
        transport = getattr(service.connection, "transport", None)
        return transport and transport.getPeer().port

    async def publish(begin: int, enough: Callable[[], bool] = lambda: True) -> None:
        number = begin
        while number < begin + 300 or not enough():
            body = b"%d" % number
            number += 1
            try:
                await publisher.publish("", "failover", body, BasicProperties(delivery_mode=2))
                confirmed.add(body)
            except (exceptions.UnroutableError, exceptions.NackError):
                await env.sleep(0.1)  # a copy of the queue is being promoted

    try:
        service.startService()
        kind = {"x-queue-type": "classic" if mirrored else "quorum"}
        await service.channel().queue_declare("failover", durable=True, arguments=kind)
        publisher = service.publisher(when_lost="resend", timeout=60)
        await service.consume("failover", handler, concurrency=5)
        await env.within(30, publish(0), "published")
        for turn in range(1, TURNS + 1):
            used, *others = sorted(nodes, key=lambda node: node.state.port != port())
            ports = [node.state.port for node in others]
            killing = env.thread(used.kill)
            # On and on until it is there: 300 may all be confirmed before the node is dead.
            publishing = publish(100_000 * turn, lambda: port() in ports)  # noqa: B023
            await env.within(60, publishing, "published while a node died")
            await killing
            await env.until(lambda: not confirmed - handled.keys(), "all handled", 30)
            await env.thread(used.start)
            await env.sleep(3)  # its copy of the queue follows
        check(service.reconnects >= TURNS, f"{service.reconnects} reconnects")
        check(len(confirmed) >= 290 * (TURNS + 1), f"{len(confirmed)} confirmed")
    finally:
        await env.within(30, service.stopService(), "stopped")
        for node in reversed(nodes):
            await env.thread(node.remove)
        logging.getLogger("pika_twisted").setLevel(logging.NOTSET)
    check(isinstance(service.stats(), pika_twisted.ServiceStats), "stats")
