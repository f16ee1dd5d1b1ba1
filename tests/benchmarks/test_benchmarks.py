"""The benchmark suite itself: its peer counts right, its tables judge right, its cases run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
from pika import frame, spec

from benchmarks import bars, cli, codec, live, report, rows, series, wire
from benchmarks.ledger import AckLedger, PublishLedger
from benchmarks.peer import PeerProcess
from benchmarks.runner import Outcome, measure, peer_prepare
from benchmarks.spec import TOGETHER, Spec


def ack_bytes(*tags: int) -> bytes:
    return b"".join(frame.Method(1, spec.Basic.Ack(tag, False)).marshal() for tag in tags)


@pytest.mark.parametrize("size", [0, 100, 3_000, 70_000, 300_000])
@pytest.mark.parametrize("properties", wire.PROPERTY_SETS)
def test_a_train_is_numbered(size: int, properties: str) -> None:
    train = wire.Shape(size, properties).deliveries(3, "tag", 131072)
    last = 5_000 if size <= 100 else 40
    number = 1
    while number <= last:
        view = bytes(train.stretch(number, last + 1 - number))
        assert view
        for start in range(0, len(view), train.unit_size):
            unit = view[start : start + train.unit_size]
            used, method_frame = frame.decode_frame(unit)
            _used, header = frame.decode_frame(unit[used:])
            assert method_frame.method.delivery_tag == number
            assert method_frame.channel_number == header.channel_number == 3
            assert header.body_size == size
            if properties == "usual":
                assert header.properties.message_id == f"{number:016x}"
            number += 1
    assert number == last + 1


def test_acks_in_order_are_swallowed_at_once() -> None:
    ledger = AckLedger(1)
    ledger.delivered = 5_000
    data = b"head" + ack_bytes(*range(1, 4_001)) + b"tail"
    assert ledger.swallow(data, 4) == len(data) - 8
    assert (ledger.unacked, ledger.violations) == (1_000, 0)
    assert ledger.swallow(ack_bytes(4_002), 0) == 0


def test_acks_out_of_order_count_too() -> None:
    ledger = AckLedger(1)
    ledger.delivered = 10
    for tag in (2, 5, 1):
        ledger.settle(tag, False)
    assert ledger.unacked == 7
    ledger.settle(4, True)
    assert ledger.unacked == 5
    ledger.settle(0, True)
    assert (ledger.unacked, ledger.violations) == (0, 0)


@pytest.mark.parametrize(("tag", "multiple"), [(1, False), (11, False), (3, False), (2, True)])
def test_a_bad_ack_is_a_violation(tag: int, multiple: bool) -> None:
    ledger = AckLedger(1)
    ledger.delivered = 10
    ledger.settle(2, True)
    ledger.settle(3, False)
    ledger.settle(tag, multiple)
    assert ledger.violations == 1


@pytest.mark.parametrize("size", [0, 10, 100_000])
def test_publishes_are_counted(size: int) -> None:
    ledger = PublishLedger()
    body = wire.make_body(size)
    method = frame.Method(1, spec.Basic.Publish(routing_key="q")).marshal()
    header = frame.Header(1, size, spec.BasicProperties()).marshal()
    bodies = [frame.Body(1, body[at : at + 50_000]).marshal() for at in range(0, size, 50_000)]
    for _ in range(3):
        ledger.method(method)
        ledger.header(header, size)
        for each in bodies:
            ledger.body(each)
    whole = method + header + b"".join(bodies)
    swallowed = ledger.swallow(whole * 100 + method, 0)
    assert swallowed in (0, len(whole) * 100)
    count = 3 + swallowed // len(whole)
    assert (ledger.count, ledger.body_bytes, ledger.violations) == (count, count * size, 0)


def test_verdicts() -> None:
    bar = bars.Bar(33, 1.3)
    assert bar.verdicts(33.0, 1.3) == ["pika x33 met", "C x1.3 met"]
    assert bar.verdicts(32.9, 1.31) == ["pika x33 NOT MET", "C x1.3 NOT MET"]
    assert bar.verdicts(None, None) == ["pika x33 not measured", "C x1.3 not measured"]


def outcome(client: str, microseconds: float) -> Outcome:
    answer = {"messages": 1_000, "cpu": microseconds / 1e3, "wall": microseconds / 1e3}
    return Outcome(Spec(client, "consume"), [answer])


def test_a_row_without_pika_is_compared_with_the_row_that_stands_in() -> None:
    options = cli.parser().parse_args(["consume", "--style", "for", "--ack", "auto"])
    row = rows.consume(options)[0]
    results = {
        (row.key, "pika_twisted"): outcome("pika_twisted", 0.5),
        (row.key, "pika"): Outcome(Spec("pika", "consume"), skipped="get() only"),
        ("consume/await/auto", "pika"): outcome("pika", 20.0),
        ("consume/await/auto", "rabbitmq-c"): outcome("rabbitmq-c", 0.5),
    }
    lines = "\n".join(report.row_lines(row, results))
    assert "pika x35 met" in lines
    assert "C x1.2 met" in lines
    assert "skipped: get() only" in lines


def test_growth_of_a_series() -> None:
    line = [series.Point(10, 1.0), series.Point(100, 1.1), series.Point(1_000, 1.0)]
    assert series.growth(line) == pytest.approx(1.1)
    square = [series.Point(x, float(x)) for x in (10, 100, 1_000)]
    assert series.exponent(square) == pytest.approx(1.0)


def test_every_row_has_its_title_and_clients() -> None:
    options = cli.parser().parse_args([])
    every = cli.chosen_rows(options)
    assert len({row.key for row in every}) == len(every) > 40
    assert all(row.title and row.specs for row in every)
    known = {row.key for row in every} | {f"live/{row.specs[0].ack}" for row in live.rows(options)}
    assert set(bars.BARS) <= known


@pytest.mark.parametrize("ack", TOGETHER)
def test_acks_that_leave_together_are_compared_with_single_ones(ack: str) -> None:
    (row,) = live.rows(cli.parser().parse_args(["live", "--ack", ack]))
    modes = {spec.client: spec.ack for spec in row.specs}
    assert modes == {"pika_twisted": ack, "pika": "each", "rabbitmq-c": "each"}
    assert "ack_batching" in row.title and ("ack_delay of 0.5 ms" in row.title) == (
        ack == "delayed"
    )
    assert row.bar.c_client == 1 / 1.15
    (row,) = rows.consume(cli.parser().parse_args(["consume", "--ack", ack]))
    assert [(spec.client, spec.ack) for spec in row.specs] == [("pika_twisted", ack)]


CASES: list[dict[str, Any]] = [
    {"case": "consume", "ack": "each"},
    {"case": "consume", "ack": "each", "channels": 5},
    {"case": "consume", "ack": "batched"},
    {"case": "consume", "ack": "delayed"},
    {"case": "publish", "confirm": 1},
    {"case": "waiting"},
]


@pytest.mark.parametrize("fields", CASES, ids=lambda fields: "-".join(map(str, fields.values())))
def test_a_case_runs(fields: dict[str, Any]) -> None:
    measured = Spec("pika_twisted", messages=1_000, warmup=100, **fields)
    with PeerProcess() as peer:
        answer = measure(peer_prepare(peer.url)(measured))
    assert answer.get("messages") == 1_000, answer


def test_a_client_says_why_it_does_not_run() -> None:
    with PeerProcess() as peer:
        prepared = peer_prepare(peer.url)(Spec("pika", "consume", style="for"))
        assert measure(prepared) == {"skipped": "pika's queue has get() only"}


def test_results_for_machines(tmp_path: Path) -> None:
    options: argparse.Namespace = cli.parser().parse_args(["waiting", "--client", "pika"])
    row = rows.waiting(options)[0]
    results = {(row.key, "pika"): outcome("pika", 20.0)}
    file = tmp_path / "results.json"
    report.write_json(str(file), [row], results, {"python": "3"})
    assert '"min": 20.0' in file.read_text()


@pytest.mark.parametrize("client", ["pika_twisted", "pika"])
def test_awkward_reads_do_their_work(client: str) -> None:
    for call, _ in codec.awkward_reads(client).values():
        call()
        call()
