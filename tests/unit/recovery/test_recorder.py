"""What a service remembers of the calls on its channels."""

from __future__ import annotations

from typing import Any

import pika
import pytest
from pika import exceptions, spec

from pika_twisted.recovery.entities import EntityState
from pika_twisted.recovery.recorder import NAMES_KEPT, Recorder


def declared(name: str) -> Any:
    return pika.frame.Method(1, spec.Queue.DeclareOk(name, 0, 0))


def named_by_broker(name: str = "amq.gen-1", **options: Any) -> Recorder:
    recorder = Recorder()
    recorder.note("queue_declare", {"queue": "", **options}, declared(name))
    return recorder


def test_the_recorder_remembers_what_is_still_there() -> None:
    recorder = Recorder()
    for name in ("a", "b", "gone"):
        recorder.note("exchange_declare", {"exchange": name, "passive": False}, None)
        recorder.note("queue_declare", {"queue": name, "passive": False}, declared(name))
        recorder.note("queue_bind", {"queue": name, "exchange": name, "routing_key": "k"}, None)
        recorder.note("queue_bind", {"queue": name, "exchange": "a", "routing_key": "k"}, None)
    recorder.note("exchange_declare", {"exchange": "looked at", "passive": True}, None)
    recorder.note("queue_declare", {"queue": "looked at", "passive": True}, declared("looked at"))
    recorder.note("exchange_bind", {"destination": "b", "source": "a", "routing_key": ""}, None)
    recorder.note("exchange_bind", {"destination": "gone", "source": "a"}, None)
    recorder.note("exchange_bind", {"destination": "a", "source": "b"}, None)
    recorder.note("exchange_unbind", {"destination": "a", "source": "b", "arguments": None}, None)
    recorder.note("queue_unbind", {"queue": "b", "exchange": "a", "routing_key": "k"}, None)
    recorder.note("exchange_delete", {"exchange": "gone"}, None)
    recorder.note("queue_delete", {"queue": "gone"}, None)
    recorder.note("basic_qos", {"prefetch_count": 1}, None)
    assert list(recorder.exchanges) == ["a", "b"]
    assert list(recorder.queues) == ["a", "b"]
    assert [b.arguments["destination"] for b in recorder.exchange_bindings.values()] == ["b"]
    bound = [(b.arguments["queue"], b.source) for b in recorder.queue_bindings.values()]
    assert bound == [("a", "a"), ("b", "b")]
    assert "2 exchanges, 2 queues, 3 bindings" in repr(recorder)


def test_bindings_follow_a_queue_that_the_broker_names_anew() -> None:
    recorder = named_by_broker()
    recorder.note("queue_bind", {"queue": "amq.gen-1", "exchange": "x", "routing_key": ""}, None)
    (queue,) = recorder.queues.values()
    recorder.rename(queue, "amq.gen-2")
    (binding,) = recorder.queue_bindings.values()
    assert (binding.arguments["queue"], list(recorder.queues)) == ("amq.gen-2", ["amq.gen-2"])
    assert recorder.needed_by(["amq.gen-2"]) == [queue, binding]
    assert recorder.current_name("other") == "other"
    recorder.note("queue_unbind", {"queue": "amq.gen-2", "exchange": "x", "routing_key": ""}, None)
    assert not recorder.queue_bindings


def test_each_name_that_a_user_may_hold_goes_on_to_work() -> None:
    """Those that are evicted in the end are not the first, which queue_declare() gave."""
    recorder = named_by_broker("amq.gen-0")
    (queue,) = recorder.queues.values()
    for number in range(1, 200):
        recorder.rename(queue, f"amq.gen-{number}")
    assert {recorder.current_name(f"amq.gen-{number}") for number in range(200)} == {"amq.gen-199"}
    for number in range(200, 3 * NAMES_KEPT):
        recorder.rename(queue, f"amq.gen-{number}")
    assert recorder.current_name("amq.gen-0") == queue.name
    assert recorder.current_name(f"amq.gen-{3 * NAMES_KEPT - NAMES_KEPT}") == queue.name
    assert len(recorder._names) <= NAMES_KEPT + 1
    recorder.note("queue_delete", {"queue": queue.name}, None)
    assert recorder.current_name("amq.gen-0") == "amq.gen-0"
    assert not recorder._names and not recorder._earlier


def test_a_name_that_a_broker_gives_again_is_the_queue_s() -> None:
    recorder = named_by_broker("first")
    (queue,) = recorder.queues.values()
    for name in ("second", "first"):
        recorder.rename(queue, name)
        assert list(recorder.queues) == [name]
        assert [recorder.current_name(each) for each in ("first", "second")] == [name] * 2


def test_a_queue_s_own_name_as_routing_key_follows_it() -> None:
    recorder = named_by_broker()
    for key in ("amq.gen-1", "k"):
        bound = {"queue": "amq.gen-1", "exchange": "x", "routing_key": key}
        recorder.note("queue_bind", bound, None)
    recorder.rename(*recorder.queues.values(), "now")
    binds = [binding.method() for binding in recorder.queue_bindings.values()]
    assert [(bind.queue, bind.routing_key) for bind in binds] == [("now", "now"), ("now", "k")]


def test_a_binding_without_a_routing_key_has_the_queue_s_name_for_one() -> None:
    recorder = Recorder()
    for key in (None, ""):
        recorder.note("queue_bind", {"queue": "q", "exchange": "x", "routing_key": key}, None)
    assert [b.method().routing_key for b in recorder.queue_bindings.values()] == ["q", ""]
    recorder.note("queue_unbind", {"queue": "q", "exchange": "x", "routing_key": "q"}, None)
    assert [b.method().routing_key for b in recorder.queue_bindings.values()] == [""]


def test_a_binding_is_the_same_whatever_the_order_of_its_arguments() -> None:
    """The broker compares tables by their values, so that is what it unbinds."""
    recorder = Recorder()
    table = {"x-match": "all", "a": 1, "b": {"c": [1, "2"], "d": b"3"}}
    turned = {"b": {"d": b"3", "c": [1, "2"]}, "a": 1, "x-match": "all"}
    assert list(table) != list(turned)
    bound = {"queue": "q", "exchange": "x", "routing_key": "", "arguments": table}
    for arguments in (table, turned):
        recorder.note("queue_bind", {**bound, "arguments": arguments}, None)
        recorder.note(
            "exchange_bind", {"destination": "y", "source": "x", "arguments": arguments}, None
        )
    assert (len(recorder.queue_bindings), len(recorder.exchange_bindings)) == (1, 1)
    for other in ({**table, "a": True}, {**table, "a": 2}, {}, {**table, "b": {"c": ["2", 1]}}):
        recorder.note("queue_unbind", {**bound, "arguments": other}, None)
    assert len(recorder.queue_bindings) == 1
    recorder.note("queue_unbind", {**bound, "arguments": turned}, None)
    recorder.note("exchange_unbind", {"destination": "y", "source": "x", "arguments": turned}, None)
    assert not recorder.queue_bindings and not recorder.exchange_bindings
    assert not recorder._bindings_of


def test_what_a_queue_needs() -> None:
    recorder = Recorder()
    for name in ("first", "second", "other"):
        recorder.note("exchange_declare", {"exchange": name}, None)
    recorder.note("exchange_bind", {"destination": "second", "source": "first"}, None)
    recorder.note("exchange_bind", {"destination": "first", "source": "second"}, None)
    recorder.note("exchange_bind", {"destination": "other", "source": "second"}, None)
    for name in ("q", "r"):
        recorder.note("queue_declare", {"queue": name}, declared(name))
    for queue, exchange in (("q", "second"), ("q", "amq.topic"), ("r", "other")):
        recorder.note("queue_bind", {"queue": queue, "exchange": exchange}, None)
    assert list(map(str, recorder.needed_by(["q", "unknown"]))) == [
        "exchange 'first'",
        "exchange 'second'",
        "binding of exchange 'second' to exchange 'first' by ''",
        "binding of exchange 'first' to exchange 'second' by ''",
        "queue 'q'",
        "binding of queue 'q' to exchange 'second' by 'q'",
        "binding of queue 'q' to exchange 'amq.topic' by 'q'",
    ]


@pytest.mark.parametrize(
    ("options", "new_connection", "asks"),
    [
        ({}, True, True),
        ({"durable": True}, True, True),
        ({"exclusive": True}, True, False),
        ({"auto_delete": True}, True, False),
        ({"exclusive": True}, False, True),
    ],
)
def test_whether_a_queue_is_asked_for_by_the_name_it_got(
    options: dict[str, Any], new_connection: bool, asks: bool
) -> None:
    recorder = named_by_broker(**options)
    (queue,) = recorder.queues.values()
    queue.prepare(new_connection)
    method = queue.method()
    assert (method.queue, method.passive) == (("amq.gen-1", True) if asks else ("", False))
    missing = exceptions.ChannelClosedByBroker(404, "NOT_FOUND")
    assert queue.on_refused(missing, 0.0) is asks
    assert queue.state is (EntityState.DECLARED if asks else EntityState.REFUSED)
    assert queue.method().queue == ""


def test_a_look_at_a_queue_by_the_name_that_the_broker_gave_it() -> None:
    """The name is the broker's: on the next connection it could not be declared."""
    recorder = named_by_broker(exclusive=True)
    recorder.note("queue_declare", {"queue": "amq.gen-1", "exclusive": True}, declared("amq.gen-1"))
    (queue,) = recorder.queues.values()
    queue.prepare(True)
    assert queue.method().queue == ""


@pytest.mark.parametrize("end", ["queue_unbind", "queue_delete", "exchange_unbind"])
def test_an_auto_delete_exchange_goes_with_its_last_binding(end: str) -> None:
    """So it does at the broker, and what it is bound to as a destination with it."""
    recorder = Recorder()
    for name, auto_delete in (("first", True), ("second", True), ("stays", False), ("new", True)):
        recorder.note("exchange_declare", {"exchange": name, "auto_delete": auto_delete}, None)
    recorder.note("queue_declare", {"queue": "q"}, declared("q"))
    binding = {"queue": "q", "exchange": "second", "routing_key": "k"}
    other = {**binding, "routing_key": "other"}
    stays = {**binding, "exchange": "stays"}
    for each in (binding, other, stays):
        recorder.note("queue_bind", each, None)
    chain = {"destination": "second", "source": "first"}
    recorder.note("exchange_bind", chain, None)
    recorder.note("queue_unbind", other, None)
    recorder.note("queue_unbind", {**other, "exchange": "new"}, None)  # there was none
    recorder.note("queue_unbind", stays, None)
    assert list(recorder.exchanges) == ["first", "second", "stays", "new"]
    if end == "exchange_unbind":
        recorder.note("exchange_unbind", chain, None)
        assert list(recorder.exchanges) == ["second", "stays", "new"]
        return
    recorder.note(end, binding if end == "queue_unbind" else {"queue": "q"}, None)
    assert list(recorder.exchanges) == ["stays", "new"]
    assert not recorder.exchange_bindings and not recorder.queue_bindings
