"""Cost grows with the input, not with its square; memory doesn't grow at all.

No milliseconds are asserted: each case compares two sizes in one process, ten times the input may
take at most twenty times the CPU. Leaks are looked for by counting allocated blocks over repeats of
every path, errors included: 2,000 cases each in an ordinary run, 100,000 runs each (ten minutes of
the compiled codec) with PIKA_TWISTED_EXHAUSTIVE=1.
"""

from __future__ import annotations

import copy
import gc
import pickle
import sys
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from pika import exceptions, spec

from tests.support import corpus, feeding, shape, wire
from tests.support.bad_bytes import POISON, REFUSED
from tests.support.codecs import EXHAUSTIVE, PROPERTIES, Direct, Message
from tests.support.cost import assert_grows_at_most, cpu
from tests.support.samples import WRONG_ARGUMENTS

pytestmark = pytest.mark.timeout(7200 if EXHAUSTIVE else 900)

REPEATS = 100_000 if EXHAUSTIVE else 2_000
MIB = 1 << 20

Work = Callable[[Any, int], Callable[[], Any]]


def drain(decoder: Any) -> int:
    count = 0
    while decoder.next_frame() is not None:
        count += 1
    return count


def heartbeats_in_one_read(codec: Any, size: int) -> Callable[[], Any]:
    stream = wire.HEARTBEAT * size

    def work() -> None:
        decoder = codec.FrameDecoder(Message)
        decoder.feed(stream)
        assert drain(decoder) == size

    return work


def octet_by_octet(codec: Any, size: int) -> Callable[[], Any]:
    stream = wire.raw_frame(8, 0, bytes(size * 10))
    chunks = next(feeding.byte_by_byte(stream))

    def work() -> None:
        decoder = codec.FrameDecoder(Message)
        for chunk in chunks:
            decoder.feed(chunk)
            decoder.next_frame()

    return work


def direct_octet_by_octet(codec: Any, size: int) -> Callable[[], Any]:
    chunks = next(feeding.byte_by_byte(wire.content(1, bytes(size * 10))))

    def work() -> None:
        direct = Direct(codec, (1, "ct"))
        for chunk in chunks:
            direct.decoder.feed(chunk)
            direct.decoder.next_frame()
        assert len(direct.messages()) == 1

    return work


def fed_before_draining(codec: Any, size: int) -> Callable[[], Any]:
    chunks = [wire.HEARTBEAT[:5], wire.HEARTBEAT[5:]] * size

    def work() -> None:
        decoder = codec.FrameDecoder(Message)
        for chunk in chunks:
            decoder.feed(chunk)
        assert drain(decoder) == size

    return work


def small_messages(codec: Any, size: int) -> Callable[[], Any]:
    stream = wire.content(1, b"x" * 100, PROPERTIES) * size

    def work() -> None:
        direct = Direct(codec, (1, "ct"))
        direct.decoder.feed(stream)
        assert drain(direct.decoder) == 0
        assert len(direct.messages()) == size

    return work


def contents_on_many_channels(codec: Any, size: int) -> Callable[[], Any]:
    channels = range(1, 1 + 6 * size)
    stream = b"".join(
        [wire.method_frame(channel, wire.deliver()) for channel in channels]
        + [wire.raw_header(channel, 1) for channel in channels]
        + [wire.body_frame(channel, b"x") for channel in channels]
    )

    def work() -> None:
        decoder = codec.FrameDecoder(Message)
        decoder.feed(stream)
        assert drain(decoder) == 18 * size

    return work


def many_consumers(codec: Any, size: int) -> Callable[[], Any]:
    tags = [f"tag-{number}" for number in range(size)]
    stream = b"".join(wire.content(1, b"x", method=wire.deliver(tag)) for tag in tags)

    def work() -> None:
        direct = Direct(codec, *((1, tag) for tag in tags))
        direct.decoder.feed(stream)
        assert drain(direct.decoder) == 0
        assert len(direct.decoder.take_ready()) == size

    return work


def body_in_frames(codec: Any, size: int) -> Callable[[], Any]:
    # Up to 0.4 MB, ten times over: beyond that the processor's caches and fresh pages of memory
    # weigh more than the decoder does (1 to 10 MB: a plain copy takes 30 times as long).
    stream = wire.content(1, bytes(size * 1000), step=400)

    def work() -> None:
        for _ in range(10):
            direct = Direct(codec, (1, "ct"))
            for at in range(0, len(stream), 65536):
                direct.decoder.feed(stream[at : at + 65536])
                assert direct.decoder.next_frame() is None
            assert len(direct.messages()) == 1

    return work


def empty_bodies(codec: Any, size: int) -> Callable[[], Any]:
    begun = wire.method_frame(1, wire.deliver()) + wire.raw_header(1, 5)
    stream = begun + wire.body_frame(1, b"") * size + wire.body_frame(1, b"abcde")

    def work() -> None:
        direct = Direct(codec, (1, "ct"))
        direct.decoder.feed(stream)
        assert drain(direct.decoder) == 0
        assert direct.decoder.frames_direct == size + 3

    return work


def wide_table(codec: Any, size: int) -> Callable[[], Any]:
    entries = b"".join(wire.entry(str(key).encode(), b"t\x01") for key in range(5 * size))
    stream = wire.content(1, b"", wire.headers_only(wire.sized(entries)))

    def work() -> None:
        decoder = codec.FrameDecoder(Message, max_header_size=1 << 30)
        decoder.feed(stream)
        decoder.next_frame()
        assert len(decoder.next_frame().properties.headers) == 5 * size

    return work


def publishes(codec: Any, size: int) -> Callable[[], Any]:
    def work() -> None:
        output = codec.OutputBuffer()
        output.held = True
        encoder = output.channel(1)
        for number in range(size):
            encoder.publish("", "q", b"body", PROPERTIES)
            encoder.ack(number)
        output.take()

    return work


# name -> (work, smaller size)
LINEAR: dict[str, tuple[Work, int]] = {
    work.__name__: (work, size)
    for work, size in (
        (heartbeats_in_one_read, 819),
        (octet_by_octet, 1000),
        (direct_octet_by_octet, 1000),
        (fed_before_draining, 500),
        (small_messages, 300),
        (contents_on_many_channels, 100),
        (many_consumers, 150),
        (body_in_frames, 40),
        (empty_bodies, 1000),
        (wide_table, 200),
        (publishes, 300),
    )
}


@pytest.mark.parametrize("name", LINEAR)
def test_linear(codec: Any, name: str) -> None:
    make, size = LINEAR[name]

    def cost(units: int) -> float:
        work = make(codec, units)
        gc.collect()
        gc.disable()  # its cost depends on all that is alive in the process
        try:
            # A clock that is too coarse for the compiled codec counts as 0.2 ms.
            return max(cpu(work), 0.0002)
        finally:
            gc.enable()

    make(codec, size)()
    assert_grows_at_most(cost, size)


# ------------------------------------------------------------------ memory


def traced(work: Callable[[], Any]) -> tuple[int, int]:
    """Octets kept after ``work`` and at its worst."""
    gc.collect()
    tracemalloc.start()
    try:
        kept = work()
        current, peak = tracemalloc.get_traced_memory()
        del kept
    finally:
        tracemalloc.stop()
    return current, peak


def test_a_claimed_size_is_not_allocated(codec: Any) -> None:
    """128 MiB announced, nothing sent: at most the 16 MiB that are allocated ahead."""
    stream = wire.method_frame(1, wire.deliver()) + wire.raw_header(1, 128 * MIB)

    def work() -> Any:
        direct = Direct(codec, (1, "ct"))
        direct.decoder.feed(stream)
        assert direct.decoder.next_frame() is None
        return direct

    assert traced(work)[1] < 17 * MIB


def test_an_oversized_body_is_not_kept(codec: Any) -> None:
    """64 MiB that nobody wants: swallowed as they come."""
    begun = wire.method_frame(1, wire.deliver()) + wire.raw_header(1, 1 << 40)
    body = wire.body_frame(1, bytes(131072 - 8))

    def work() -> Any:
        direct = Direct(codec, (1, "ct"))
        direct.decoder.feed(begun)
        assert type(direct.decoder.next_frame()) is codec.OversizedContent
        for _ in range(512):
            direct.decoder.feed(body)
            assert direct.decoder.next_frame() is None
        return direct

    assert traced(work)[1] < MIB


def test_an_oversized_frame_is_not_awaited(codec: Any) -> None:
    chunk = bytes(65536)

    def work() -> Any:
        decoder = codec.FrameDecoder(Message)
        decoder.feed(b"\x01\x00\x01\xff\xff\xff\xff" + chunk)
        assert shape.drained(decoder) == [shape.of_error(501)]
        for _ in range(1000):
            decoder.feed(chunk)
        return decoder

    assert traced(work)[1] < MIB


def test_a_begun_body_is_dropped_at_an_error(codec: Any) -> None:
    """8 of 16 MiB had come when the peer broke the protocol: they go at once."""
    begun = wire.method_frame(1, wire.deliver()) + wire.raw_header(1, 16 * MIB)
    body = wire.body_frame(1, bytes(65536))

    def work() -> Any:
        direct = Direct(codec, (1, "ct"))
        direct.decoder.feed(begun)
        for _ in range(128):
            direct.decoder.feed(body)
            assert direct.decoder.next_frame() is None
        direct.decoder.feed(b"\xff")
        assert shape.drained(direct.decoder) == [shape.of_error(501)]
        return direct

    assert traced(work)[0] < MIB


def test_a_body_costs_its_size(codec: Any) -> None:
    """16 MiB in reads of 64 KiB: the message's bytes, of which the reference makes two copies."""
    stream_begin = wire.method_frame(1, wire.deliver()) + wire.raw_header(1, 16 * MIB)
    body = wire.body_frame(1, bytes(65536))

    def work() -> Any:
        direct = Direct(codec, (1, "ct"))
        direct.decoder.feed(stream_begin)
        for _ in range(256):
            direct.decoder.feed(body)
            assert direct.decoder.next_frame() is None
        assert len(direct.messages()[0].body) == 16 * MIB
        return direct

    kept, peak = traced(work)
    assert kept < 16.5 * MIB
    assert peak < (17 if codec.IMPLEMENTATION == "compiled" else 35) * MIB


# ------------------------------------------------------------------ leaks


def streams_of_the_corpus(codec: Any) -> None:
    for stream in corpus.streams().values():
        shape.trace(codec.FrameDecoder(Message), [stream[:20], stream[20:]])


def refused_streams(codec: Any) -> None:
    for before, bad, _ in REFUSED.values():
        direct = Direct(codec, (1, "ct"))
        shape.trace(direct.decoder, [before + bad[:4], bad[4:]])
        shape.drained(direct.decoder)


def poison(codec: Any) -> None:
    for name, case in POISON.items():
        if len(case.raw) < 1000:
            direct = Direct(codec, (1, "ct"))
            direct.decoder.feed(wire.content(1, b"x", case.raw))
            assert direct.decoder.next_frame() is None
            properties = direct.messages()[0].properties
            shape.of_properties(properties)
            repr(properties)
            properties.headers = {name: 1}
            assert properties == copy.copy(properties)
            try:
                properties.encode()
            except exceptions.AMQPError:
                pass


def direct_deliveries(codec: Any) -> None:
    direct = Direct(codec, (1, "ct"), (2, "ct"))
    stream = wire.content(1, b"x" * 300, PROPERTIES, step=100) + wire.content(2, b"")
    for at in range(0, len(stream), 50):
        direct.decoder.feed(stream[at : at + 50])
        direct.decoder.next_frame()
    direct.decoder.take_ready()
    backlog = direct.backlogs[1, "ct"]
    assert backlog[0] in backlog
    assert backlog[:] == backlog.copy() == list(backlog)
    backlog.popleft()
    direct.backlogs[2, "ct"].popmany(2)
    direct.decoder.unsubscribe(1, "ct")


def abandoned_decoders(codec: Any) -> None:
    """Dropped in the middle of everything."""
    stream = wire.content(1, b"abcdef", PROPERTIES, step=2)
    for at in range(0, len(stream), 3):
        direct = Direct(codec, (1, "ct"))
        direct.decoder.feed(stream[:at])
        direct.decoder.next_frame()
        direct.decoder.feed(stream[at:])
        if at % 2:
            direct.decoder.forget_channel(1)


def copies_and_pickles(codec: Any) -> None:
    decoder = codec.FrameDecoder(Message)
    decoder.feed(wire.content(1, b"", PROPERTIES))
    method, properties = decoder.next_frame().method, decoder.next_frame().properties
    for item in (method, properties):
        assert pickle.loads(pickle.dumps(item)) == copy.deepcopy(item)
        item.of_my_own = 1
        vars(item)
        repr(item)
        del item.of_my_own
        item.encode()


def encoders(codec: Any) -> None:
    output = codec.OutputBuffer()
    encoder = output.channel(1)
    headers = {"a": [1, "x", None, {"b": b"\xff"}], "l": 2**40}
    encoder.publish("ex", "rk", "body", spec.BasicProperties(headers=headers, timestamp=5))
    encoder.publish("ex", "rk", bytearray(b"body"), codec.BasicProperties(headers=headers))
    encoder.ack(5)
    encoder.nack(2**63)
    encoder.reject(1)
    output.take()


def failing_encoders(codec: Any) -> None:
    encoder = codec.OutputBuffer().channel(1)
    for arguments, _, _ in WRONG_ARGUMENTS.values():
        try:
            encoder.publish(*arguments)
        except (TypeError, ValueError, exceptions.AMQPError):
            pass
    for tag in (-1, 2**70, "x", 1.5):
        try:
            encoder.ack(tag)
        except (TypeError, ValueError):
            pass


def oversized(codec: Any) -> None:
    direct = Direct(codec, (1, "ct"), max_message_size=3)
    shape.trace(direct.decoder, [wire.content(1, b"four") + wire.content(1, b"3")])


# name -> (path, how many cases one run of it holds)
PATHS: dict[str, tuple[Callable[[Any], None], int]] = {
    path.__name__: (path, weight)
    for path, weight in (
        (streams_of_the_corpus, 20),
        (refused_streams, len(REFUSED)),
        (poison, len(POISON)),
        (direct_deliveries, 2),
        (abandoned_decoders, 30),
        (copies_and_pickles, 2),
        (encoders, 5),
        (failing_encoders, 42),
        (oversized, 2),
    )
}


@pytest.mark.parametrize("name", PATHS)
def test_nothing_is_left_behind(codec: Any, name: str) -> None:
    path, weight = PATHS[name]
    repeats = REPEATS if EXHAUSTIVE else REPEATS // weight + 20
    growth = []
    for _ in range(4):  # free lists and other caches of Python's still fill in the first rounds
        path(codec)
        gc.collect()
        before = sys.getallocatedblocks()
        for _ in range(repeats):
            path(codec)
        gc.collect()
        growth.append(sys.getallocatedblocks() - before)
        if growth[-1] < repeats // 2:
            break
    assert min(growth) < repeats // 2, (repeats, growth)


def test_reference_counts(codec: Any) -> None:
    """What the caller lends the decoder is given back: channel, token, backlog, class, tag."""

    class Kind(Message):
        pass

    channel, token, backlog, tag = object(), object(), codec.Backlog(), "a tag of its own"

    def counts() -> list[int]:
        gc.collect()
        return [sys.getrefcount(item) for item in (channel, token, backlog, tag, Kind)]

    def work() -> None:
        decoder = codec.FrameDecoder(Kind)
        decoder.subscribe(1, tag, backlog, channel, token)
        for _ in range(3):
            decoder.feed(wire.content(1, b"body", method=wire.deliver(tag)))
            decoder.next_frame()
        assert decoder.take_ready() == [token]
        backlog.popleft()
        backlog.popmany(1)
        backlog.clear()
        decoder.feed(wire.content(1, b"body", method=wire.deliver(tag))[:-3])
        decoder.next_frame()
        decoder.subscribe(1, tag, backlog, channel, token)
        decoder.subscribe(2, tag, backlog, channel, token)
        decoder.unsubscribe(2, tag)

    work()
    before = counts()
    for _ in range(1000):
        work()
    assert counts() == before


def test_constants_keep_their_counts(codec: Any) -> None:
    """None, True and small integers are shared: a count too few would one day free them."""
    if sys.version_info >= (3, 12):
        constants: tuple[Any, ...] = ()  # immortal there
    else:
        constants = (None, True, False, b"", "", 0, 1)
    gc.collect()  # garbage of earlier tests holds them thousands of times
    before = [sys.getrefcount(item) for item in constants]
    for _ in range(REPEATS // 10):
        direct_deliveries(codec)
        encoders(codec)
        streams = corpus.contents()
        for stream in streams.values():
            shape.trace(codec.FrameDecoder(Message), [stream])
    gc.collect()
    after = [sys.getrefcount(item) for item in constants]
    for item, first, last in zip(constants, before, after, strict=True):
        assert abs(last - first) < 100, item
