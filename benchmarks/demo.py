"""Half a million messages through pika_twisted and some through pika's adapter, side by side.

``python -m benchmarks.demo`` talks to the embedded peer; ``python -m benchmarks.demo amqp://...``
to a real broker, where it makes a temporary queue, fills it, empties it and deletes it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from benchmarks.clients import checks, reacting
from benchmarks.clients.twisted_client import connect
from benchmarks.live import Broker
from benchmarks.peer import REPOSITORY, PeerProcess
from benchmarks.runner import Prepare, peer_prepare
from benchmarks.spec import Spec, Stopwatch, Unsupported

MESSAGES = {"pika": 30_000, "pika_twisted": 500_000}
LIVE_MESSAGES = {"pika": 50_000, "pika_twisted": 500_000}
WARMUP = 2_000
PARTS = 10  # progress is told so often
MODES = {"auto": "auto-ack", "each": "each acked"}


# The process that consumes


def consume(spec: Spec) -> dict[str, Any]:
    """Consume in this process; print a line of JSON after each part."""

    async def session(reactor: Any) -> dict[str, Any]:
        connection = await connect(reactor, spec)
        take = take_and_ack if spec.ack == "each" else take_only
        for queue_name, messages in ((spec.warmup_queue, spec.warmup), (spec.queue, spec.messages)):
            channel = await connection.channel()
            await channel.basic_qos(prefetch_count=spec.prefetch)
            watch = Stopwatch()
            watch.start()
            queue, _tag = await channel.basic_consume(queue_name, auto_ack=spec.ack == "auto")
            tag = await in_parts(take, queue, channel, messages)
            if spec.ack == "each":
                await channel.basic_qos(prefetch_count=0)  # answered: the acks have arrived
            watch.stop()
            checks.last_tag(spec, tag, messages)
            channel.close()
        return watch.result(spec.messages)

    return reacting.run(session)


async def in_parts(
    take: Callable[[Any, Any, int], Awaitable[int]], queue: Any, channel: Any, messages: int
) -> int:
    """Take all messages and say now and then how many have come."""
    tag, taken = 0, 0
    while taken < messages:
        part = min(max(1, messages // PARTS), messages - taken)
        tag = await take(queue, channel, part)
        taken += part
        print(json.dumps({"taken": taken}), flush=True)
    return tag


async def take_only(queue: Any, channel: Any, messages: int) -> int:
    """Consume as an application does, auto-acked."""
    for _ in range(messages):
        message = await queue.get()
    return int(message.method.delivery_tag)


async def take_and_ack(queue: Any, channel: Any, messages: int) -> int:
    """Consume as an application does, acking each message."""
    for _ in range(messages):
        message = await queue.get()
        channel.basic_ack(message.method.delivery_tag)
    return int(message.method.delivery_tag)


# The process that shows it


def watch_worker(spec: Spec) -> dict[str, Any]:
    """Run `consume` in a process of its own and show how far it is; return its answer."""
    command = [sys.executable, "-m", "benchmarks.demo", "--consume", json.dumps(spec.as_dict())]
    begun = time.monotonic()
    answer: dict[str, Any] = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as worker:
        assert worker.stdout is not None
        for line in worker.stdout:
            answer = json.loads(line)
            if "taken" in answer and spec.messages >= answer["taken"] > spec.warmup:
                show(spec, answer["taken"], time.monotonic() - begun)
    if worker.returncode:
        raise SystemExit(f"{spec.client} failed; its error is printed above")
    if sys.stdout.isatty():
        print()
    return answer


def show(spec: Spec, taken: int, seconds: float) -> None:
    """Draw the progress of one client on its line."""
    full = round(20 * taken / spec.messages)
    bar = "#" * full + "." * (20 - full)
    text = f"{spec.client:13} {MODES[spec.ack]:11} [{bar}] {taken:>8,} messages {seconds:6.1f} s"
    start, end = ("\r", "") if sys.stdout.isatty() else ("", "\n")
    if sys.stdout.isatty() or taken == spec.messages:
        print(start + "  " + text, end=end, flush=True)


def demo(url: str) -> None:
    """Run both clients in both modes and print the table."""
    with ExitStack() as stack:
        prepare: Prepare
        if url:
            print(f"consuming from the broker at {url.rsplit('@', 1)[-1]}")
            prepare, numbers = stack.enter_context(Broker(url)).prepare, LIVE_MESSAGES
        else:
            print("consuming from an embedded AMQP peer over loopback TCP, bodies of 100 bytes")
            prepare = peer_prepare(stack.enter_context(PeerProcess()).url)
            numbers = MESSAGES
        answers = {}
        for ack in MODES:
            for client, messages in numbers.items():
                spec = Spec(
                    client=client, case="consume", ack=ack, messages=messages, warmup=WARMUP
                )
                if url:
                    spec = replace(spec, prefetch=1_000 if ack == "each" else 0)
                    print(f"  publishing {messages:,} messages ...", flush=True)
                answers[client, ack] = watch_worker(prepare(spec))
    print_table(answers)


def print_table(answers: dict[tuple[str, str], dict[str, Any]]) -> None:
    """Print messages per second and CPU per message of both clients."""
    print(f"\n  {'':27}{'messages':>10}{'messages/s':>13}{'CPU us/message':>16}")
    costs = {}
    for (client, ack), answer in answers.items():
        messages = answer["messages"]
        costs[client, ack] = answer["cpu"] / messages * 1e6
        rate = messages / answer["wall"]
        cost = costs[client, ack]
        print(f"  {client:14}{MODES[ack]:13}{messages:>10,}{rate:>13,.0f}{cost:>16.2f}")
    for ack, title in MODES.items():
        ratio = costs["pika", ack] / costs["pika_twisted", ack]
        print(f"  {title}: {ratio:.0f} times less CPU per message than pika's adapter")


def main() -> None:
    """Show the demo, or be the consuming process of one."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["--consume"]:
        try:
            answer = consume(Spec(**json.loads(arguments[1])))
        except (Unsupported, ImportError) as error:
            raise SystemExit(f"cannot run: {error}") from None
        print(json.dumps(answer), flush=True)
        return
    demo(arguments[0] if arguments else "")


if __name__ == "__main__":
    main()
