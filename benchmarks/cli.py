"""The command line: which cases, how often, for whom the results."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence

from benchmarks import callgrind, demo, environment, report, rows, scale
from benchmarks import codec as micro
from benchmarks import live as real
from benchmarks.peer import PeerProcess
from benchmarks.rows import Row
from benchmarks.runner import Prepare, Runner, peer_prepare
from benchmarks.spec import ACK_MODES, STYLES
from benchmarks.wire import PROPERTY_SETS
from benchmarks.worker import CLIENTS

CASES: dict[str, Callable[[argparse.Namespace], list[Row]]] = {
    "consume": rows.consume,
    "publish": rows.publish,
    "ack": rows.ack,
    "bodies": rows.bodies,
    "waiting": rows.waiting,
    "backlog": rows.backlog,
    "memory": rows.memory,
    "gc": rows.collection,
}
OTHER_CASES = {
    "all": "everything below except live and codec",
    "scale": "cost as the work grows: messages, channels, sizes, chunks, backlog",
    "codec": "micro-benchmarks of the codec with pyperf, or instructions with --callgrind",
    "live": "throughput at a real broker (--url)",
    "demo": "half a million messages beside pika's adapter, in a few seconds",
}


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measures pika_twisted beside pika, rabbitmq-c and other AMQP clients.",
    )
    made.add_argument(
        "case",
        nargs="?",
        default="all",
        choices=[*OTHER_CASES, *CASES],
        help="; ".join(f"{name}: {text}" for name, text in OTHER_CASES.items()),
    )
    made.add_argument("--client", action="append", choices=CLIENTS, help="only these (repeatable)")
    made.add_argument("--ack", choices=ACK_MODES, help="one ack mode")
    made.add_argument("--style", choices=STYLES, help="one way to write the consumer")
    made.add_argument("--size", type=int, default=100, help="bytes of a body (100)")
    made.add_argument("--properties", choices=PROPERTY_SETS, default="usual")
    made.add_argument("--prefetch", type=int, default=0, help="0: no limit")
    made.add_argument("--messages", type=int, default=0, help="the same number for every client")
    made.add_argument("--repeats", type=int, default=5)
    made.add_argument("--url", default="", help="a real broker instead of the embedded peer")
    made.add_argument("--json", metavar="FILE", help="write the results for machines")
    made.add_argument("--picture", metavar="FILE", help="draw FILE.png and FILE.svg (matplotlib)")
    made.add_argument("--callgrind", action="store_true", help="codec: instructions per message")
    made.add_argument(
        "--ceilings",
        choices=("check", "write"),
        help="codec: no more instructions than ceilings.json allows (CPython 3.11)",
    )
    made.add_argument("--verbose", action="store_true", help="print the error output of failures")
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what the command line asks for."""
    options = parser().parse_args(arguments)
    if options.case == "demo":
        demo.demo(options.url)
    elif options.case == "codec":
        codec(options)
    elif options.case == "live" or options.url:
        live(options)
    else:
        with PeerProcess() as peer:
            measure(options, chosen_rows(options), peer_prepare(peer.url))


def chosen_rows(options: argparse.Namespace) -> list[Row]:
    """Return the rows of the case."""
    if options.case == "scale":
        return scale.rows(options)
    if options.case == "all":
        return [row for make in CASES.values() for row in make(options)] + scale.rows(options)
    return CASES[options.case](options)


def measure(options: argparse.Namespace, chosen: list[Row], prepare: Prepare) -> None:
    """Run rows and report them."""
    found = environment.describe()
    runner = Runner(prepare, options.repeats, options.verbose)
    with interrupted_is_enough():
        runner.run(chosen)
    chosen = [
        row for row in chosen if any((row.key, spec.client) in runner.results for spec in row.specs)
    ]
    print(report.table(chosen, runner.results, found))
    if options.json:
        report.write_json(options.json, chosen, runner.results, found)
    if options.picture:
        from benchmarks import picture

        picture.draw(options.picture, chosen, runner.results, found)


@contextlib.contextmanager
def interrupted_is_enough() -> Iterator[None]:
    """After Ctrl-C report what is there."""
    try:
        yield
    except KeyboardInterrupt:
        print("\ninterrupted: the results so far", file=sys.stderr)


def codec(options: argparse.Namespace) -> None:
    """Run the codec's own benchmarks."""
    if options.callgrind:
        callgrind.run()
        return
    if options.ceilings:
        {"check": callgrind.check, "write": callgrind.write_ceilings}[options.ceilings]()
        return
    arguments = ["--quiet", *(["--fast"] if options.repeats < 10 else [])]
    if options.json:
        arguments += ["-o", options.json]
    micro.run(arguments)


def live(options: argparse.Namespace) -> None:
    """Run against a real broker."""
    if not options.url:
        raise SystemExit("live needs --url amqp://user:password@host/vhost")
    whole = options.case in ("live", "all", "consume")
    chosen = real.rows(options) if whole else chosen_rows(options)
    with real.Broker(options.url) as broker:
        measure(options, chosen, broker.prepare)
