"""The loop around the decoder, compiled and in Python: in which order it calls whom."""

from __future__ import annotations

from typing import Any

import pytest
from pika import spec

from tests.support import wire
from tests.support.codecs import Message

OTHER = wire.HEARTBEAT
ACK = wire.method_frame(1, spec.Basic.Ack(1))


def message(tag: str = "ct") -> bytes:
    """A whole message for this consumer."""
    return wire.content(1, b"body", method=wire.deliver(tag))


class Transport:
    """Keeps what is written."""

    def __init__(self, calls: list[Any]) -> None:
        self.calls = calls

    def write(self, octets: bytes) -> None:
        self.calls.append(("write", octets))


class Talk:
    """A loop with one consumer on channel 1, and what it called."""

    def __init__(self, codec: Any) -> None:
        self.calls: list[Any] = []
        self.full: dict[str, None] = {}
        self.buffer = codec.OutputBuffer()
        self.buffer.transport = Transport(self.calls)
        self.buffer.can_hold = True
        self.encoder = self.buffer.channel(1)
        self.loop = self.make(codec)
        self.loop.decoder = codec.FrameDecoder(Message)
        self.backlog = codec.Backlog()
        self.loop.decoder.subscribe(1, "ct", self.backlog, None, self.woken)

    def make(self, codec: Any) -> Any:
        talk = self

        class Loop(codec.ReadLoop):  # type: ignore[misc]
            def process(self, value: Any) -> None:
                talk.processed(value)

            def end(self, error: Exception) -> None:
                talk.calls.append(("end", error))

            def flush(self) -> None:
                talk.calls.append(("flush", None))

            def after_read(self) -> None:
                talk.calls.append(("after_read", None))

        return Loop(self.buffer, self.full)

    def woken(self) -> None:
        self.calls.append(("wake", len(self.backlog)))

    def processed(self, value: Any) -> None:
        self.calls.append(("process", value.NAME))

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.calls]


@pytest.fixture
def talk(codec: Any) -> Talk:
    return Talk(codec)


def test_messages_are_woken_for_before_another_frame_is_handed_on(talk: Talk) -> None:
    talk.loop.receive(message() + message() + OTHER + message())
    assert talk.calls == [("wake", 2), ("process", "Heartbeat"), ("wake", 3)]
    assert talk.loop.octets == 3 * len(message()) + len(OTHER)


def test_each_of_several_consumers_is_woken_once_in_order(talk: Talk, codec: Any) -> None:
    decoder = talk.loop.decoder
    for tag in ("second", "third"):
        decoder.subscribe(1, tag, codec.Backlog(), None, lambda t=tag: talk.calls.append((t, 0)))
    talk.loop.receive(message("third") + message() * 2 + message("second"))
    assert talk.names == ["third", "wake", "second"]
    talk.loop.receive(message())
    assert talk.names == ["third", "wake", "second", "wake"]


def test_a_burst_is_handed_out_before_the_next_is_made(talk: Talk) -> None:
    talk.loop.decoder.burst = 2
    talk.loop.receive(message() * 5)
    assert talk.calls == [("wake", 2), ("wake", 4), ("wake", 5)]


def test_octets_that_come_within_a_callback_wait_for_their_turn(talk: Talk) -> None:
    def again(value: Any) -> None:
        talk.calls.append(("begin", value))
        if len(talk.calls) == 1:
            talk.loop.receive(OTHER)
        talk.calls.append(("done", value))

    talk.processed = again  # type: ignore[method-assign]
    talk.loop.receive(OTHER)
    assert talk.names == ["begin", "done", "begin", "done"]


def test_what_is_encoded_meanwhile_leaves_with_one_write(talk: Talk) -> None:
    def ack() -> None:
        assert talk.buffer.held
        assert talk.encoder.ack(1) is False  # it need not be written now
        assert talk.encoder.ack(2) is False

    talk.loop.decoder.subscribe(1, "ct", talk.backlog, None, ack)
    talk.buffer.writes = 7
    talk.loop.receive(message())
    [(name, octets)] = talk.calls
    assert name == "write" and len(octets) == 2 * len(ACK)
    assert not talk.buffer.held and talk.buffer.writes == 0
    assert (talk.buffer.bytes_written, talk.buffer.frames_written) == (len(octets), 2)


def test_where_nothing_may_wait_nothing_is_held(talk: Talk) -> None:
    talk.buffer.can_hold = False
    dues: list[bool] = []
    talk.loop.decoder.subscribe(
        1, "ct", talk.backlog, None, lambda: dues.append(talk.encoder.ack(1))
    )
    talk.loop.receive(message())
    assert dues == [True]


@pytest.mark.parametrize("acks", [0, 1])
@pytest.mark.parametrize("kind", ["ledgers", "delayed"])
def test_acks_that_are_held_back_are_encoded_first(talk: Talk, kind: str, acks: int) -> None:
    """Those that may be held longer leave with whatever else is written, and with nothing else."""
    getattr(talk.buffer, kind).append(object())
    for _ in range(acks):
        talk.encoder.ack(1)
    talk.loop.receive(OTHER)
    expected = ["flush"] if kind == "ledgers" or acks else []
    assert talk.names == ["process", *expected]


def test_full_queues_are_looked_at_when_all_is_written(talk: Talk) -> None:
    talk.full["a queue"] = None
    talk.encoder.ack(1)
    talk.loop.receive(OTHER)
    assert talk.names == ["process", "write", "after_read"]


def test_once_deaf_it_only_counts(talk: Talk) -> None:
    def deafen(_value: Any) -> None:
        talk.loop.stopped = True

    talk.processed = deafen  # type: ignore[method-assign]
    talk.loop.receive(OTHER + message())
    talk.loop.receive(message())
    assert talk.calls == []
    assert talk.loop.octets == len(OTHER) + 2 * len(message())


def test_deafened_by_whoever_is_woken(talk: Talk) -> None:
    def deafen() -> None:
        talk.loop.stopped = True

    talk.loop.decoder.subscribe(1, "ct", talk.backlog, None, deafen)
    talk.loop.receive(message() + OTHER)
    assert talk.calls == []


def test_octets_that_are_no_frames_end_it_after_what_came_before(talk: Talk, codec: Any) -> None:
    talk.encoder.ack(1)
    talk.loop.receive(OTHER + b"nonsense")
    assert talk.names == ["process", "end", "write"]
    assert isinstance(talk.calls[1][1], codec.DecodeError)


def test_whatever_a_callback_raises_ends_it(talk: Talk) -> None:
    error = LookupError("broken")

    def fail(_value: Any) -> None:
        raise error

    talk.processed = fail  # type: ignore[method-assign]
    talk.loop.receive(OTHER)
    assert talk.calls == [("end", error)]
    assert not talk.buffer.held


def test_an_interrupt_goes_on_and_leaves_it_in_order(talk: Talk) -> None:
    def interrupt(_value: Any) -> None:
        raise KeyboardInterrupt

    talk.processed = interrupt  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        talk.loop.receive(OTHER)
    del talk.processed
    assert not talk.buffer.held
    talk.loop.receive(OTHER)
    assert talk.names == ["process"]


def test_without_a_transport_what_is_written_is_dropped(talk: Talk) -> None:
    talk.buffer.transport = None
    talk.encoder.ack(1)
    talk.buffer.write_out()
    talk.buffer.write_out()
    assert len(talk.buffer) == 0
    assert (talk.buffer.bytes_written, talk.buffer.frames_written) == (len(ACK), 1)


def test_a_loop_without_a_decoder_says_so(codec: Any) -> None:
    """It is an exception, not the end of the process."""
    loop = codec.ReadLoop(codec.OutputBuffer(), {})
    with pytest.raises(AttributeError):
        loop.receive(b"AMQP")
    loop.decoder = codec.FrameDecoder(Message)
    loop.decoder = None
    with pytest.raises(AttributeError):
        loop.receive(b"AMQP")


def test_a_loop_that_was_not_initialised_says_so(codec: Any) -> None:
    loop = codec.ReadLoop.__new__(codec.ReadLoop)
    with pytest.raises(AttributeError):
        loop.receive(b"AMQP")
    loop.decoder = codec.FrameDecoder(Message)
    with pytest.raises(AttributeError):
        loop.receive(b"AMQP")


def test_none_is_not_written(codec: Any) -> None:
    buffer = codec.OutputBuffer()
    with pytest.raises(TypeError, match="None"):
        buffer.write(None, 1)
    assert buffer.bytes_written == buffer.frames_written == 0
