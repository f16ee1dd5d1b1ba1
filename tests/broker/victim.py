"""A node that may be killed, frozen and restarted: one for each runner, made when it is needed."""

from __future__ import annotations

import os

from tests.broker.env import Env, NotHere
from tests.broker.node import Node, create_node

LONG = os.environ.get("PIKA_TWISTED_TEST_LONG") == "1"

_nodes: list[Node] = []


async def victim(env: Env) -> Node:
    """The node, running; the scenario's connections go to it from now on.

    In an ordinary run on one reactor: what reaches the client of a broker's fate is what
    `scenarios_faults` shows on all of them.
    """
    if "EPoll" not in type(env.reactor).__name__ and not LONG:
        raise NotHere("a node of its own on one reactor; make test-long has it on all")
    if not _nodes:
        _nodes.append(await env.thread(create_node))
    (node,) = _nodes
    if not node.pids():
        await env.thread(node.start)
    env.broker = node.broker
    return node
