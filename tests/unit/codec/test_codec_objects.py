"""What only the compiled codec's own object layouts can get wrong; the rest runs on both codecs."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from pika import frame, spec

from pika_twisted import _frame
from pika_twisted.channel.queue import ReceivedMessage
from tests.support import wire

PROPERTIES = spec.BasicProperties(content_type="text/plain", headers={"key": [1, {"in": b"x"}]})
METHODS = (
    wire.deliver(),
    spec.Basic.GetOk(1, True, "exchange", "key", 4),
    spec.Basic.Return(312, "NO_ROUTE", "exchange", "key"),
)


def decoded(method: Any) -> tuple[Any, Any]:
    """The light method and properties that the decoder makes of a content."""
    decoder = _frame.FrameDecoder(ReceivedMessage)
    decoder.feed(wire.content(1, b"", PROPERTIES, method=method))
    first, second = decoder.next_frame(), decoder.next_frame()
    assert type(first) is frame.Method and type(second) is frame.Header
    return first.method, second.properties


@pytest.mark.parametrize(
    "make",
    [
        lambda: _frame.FrameDecoder.__new__(_frame.FrameDecoder),
        lambda: _frame.ChannelEncoder.__new__(_frame.ChannelEncoder),
        lambda: _frame.ChannelEncoder(None, 1),  # type: ignore[arg-type]
        lambda: _frame.FrameDecoder(list),  # type: ignore[arg-type]
        lambda: _frame.FrameDecoder(ReceivedMessage).subscribe(1, "tag", None, 0, 0),  # type: ignore[arg-type]
    ],
)
def test_nothing_is_made_without_what_it_needs(make: Callable[[], Any]) -> None:
    with pytest.raises(TypeError):
        make()


def test_objects_made_without_init() -> None:
    for light in (_frame.Deliver, _frame.GetOk, _frame.Return, _frame.BasicProperties):
        blank = light.__new__(light)
        assert vars(blank).keys() == vars(light()).keys()
        repr(blank)
    assert _frame.OutputBuffer.__new__(_frame.OutputBuffer).take() == b""
    assert len(_frame.Backlog.__new__(_frame.Backlog)) == 0


def test_a_field_of_one_class_does_not_fit_another() -> None:
    method, properties = decoded(METHODS[0])
    with pytest.raises(TypeError):
        vars(_frame.BasicProperties)["headers"].__get__(method, None)
    with pytest.raises(TypeError):
        vars(_frame.Deliver)["exchange"].__get__(properties, None)
    with pytest.raises(TypeError):
        vars(_frame.Deliver)["exchange"].__get__(METHODS[0], None)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.NAME)
def test_vars_outlives_its_object(method: Any) -> None:
    light, properties = decoded(method)
    arguments, fields = vars(light), vars(properties)
    del light, properties
    gc.collect()
    assert arguments == vars(method)
    assert fields == vars(PROPERTIES)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.NAME)
def test_vars_is_alive(method: Any) -> None:
    light, _ = decoded(method)
    vars(light)["exchange"] = "elsewhere"
    assert light.exchange == "elsewhere"
    light.routing_key = "other"
    assert vars(light)["routing_key"] == "other"
    del light.routing_key
    with pytest.raises(AttributeError):
        light.routing_key
    light.__dict__ = {"exchange": "third"}
    assert light.exchange == "third"


def test_own_attributes_before_the_fields_are_touched() -> None:
    light, properties = decoded(METHODS[0])
    light.mine = properties.mine = 5
    assert vars(light) == {**vars(METHODS[0]), "mine": 5}
    assert properties.headers == PROPERTIES.headers
    assert vars(properties)["mine"] == 5


def test_sizes() -> None:
    """What a message that waits is made of; 16 octets more each, and the README is wrong."""
    light, properties = decoded(METHODS[0])
    assert sys.getsizeof(light) == 64
    assert sys.getsizeof(properties) == 48


def test_repeated_strings_are_shared() -> None:
    first, second = decoded(METHODS[0])[1], decoded(METHODS[0])[1]
    assert first.content_type == second.content_type == "text/plain"
    if sys._is_gil_enabled() if hasattr(sys, "_is_gil_enabled") else True:
        assert first.content_type is second.content_type


class Meddling(Decimal):
    """A header value whose conversion makes calls on the buffer that is being written to."""

    calls: list[Callable[[], Any]]

    def normalize(self, *args: Any) -> Any:
        for call in self.calls:
            with pytest.raises(RuntimeError):
                call()
        return super().normalize(*args)


def test_calls_in_the_middle_of_a_call() -> None:
    output = _frame.OutputBuffer()
    encoder = output.channel(1)
    value = Meddling("1.5")
    value.calls = [lambda: encoder.ack(1), output.take, lambda: encoder.publish("", "q", b"")]
    encoder.publish("", "q", b"body", spec.BasicProperties(headers={"value": value}))
    expected = _frame.OutputBuffer()
    expected.channel(1).publish(
        "", "q", b"body", spec.BasicProperties(headers={"value": Decimal("1.5")})
    )
    assert output.take() == expected.take()


def outcome_without_memory(at: int, chunks: list[bytes], testcapi: Any) -> str:
    """Decode with allocation number ``at`` failing, and see how it ends."""
    decoder = _frame.FrameDecoder(ReceivedMessage)
    backlog = _frame.Backlog()
    decoder.subscribe(1, "ct", backlog, "channel", "token")
    feed, next_frame = decoder.feed, decoder.next_frame
    gc.disable()  # hypothesis leaves a callback of the collector's, to which an allocation is lost
    testcapi.set_nomemory(at, at + 1)
    try:
        for chunk in chunks:
            feed(chunk)
            while next_frame() is not None:
                pass
    except _frame.DecodeError as error:
        code = error.reply_code
    else:
        return "done"
    finally:
        testcapi.remove_mem_hooks()
        gc.enable()
    feed(b"more")
    with pytest.raises(_frame.DecodeError) as caught:
        next_frame()
    assert code == caught.value.reply_code == spec.RESOURCE_ERROR
    assert decoder.buffered == 0
    for message in backlog:
        assert message.properties.headers == PROPERTIES.headers
    return "failed"


def test_every_allocation_fails_once() -> None:
    testcapi = pytest.importorskip(
        "_testcapi", reason="this Python has no means to fail allocations"
    )
    stream = b"".join(
        wire.content(1, b"z" * size, PROPERTIES, method=method)
        for method in (wire.deliver("ct"), *METHODS)
        for size in (0, 700, 9000)
    )
    stream += wire.method_frame(1, spec.Queue.DeclareOk("q" * 100, 1, 2))
    chunks = [stream[at : at + 997] for at in range(0, len(stream), 997)]
    outcomes = [outcome_without_memory(at, chunks, testcapi) for at in range(1, 400)]
    assert outcomes.count("failed") > 30
    assert outcomes[-1] == "done"
