"""What has to hold for any octets: functions of one input that raise where it does not.

Every target takes octets of which the first few choose limits and cuts; the rest is what a peer
sends. libFuzzer mutates the whole.
"""

from __future__ import annotations

import copy
import importlib
import itertools
import pickle
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from pika import exceptions, frame, spec

from pika_twisted import _frame as compiled
from pika_twisted.codec.reference import decoder as reference
from tests.support import shape, wire
from tests.support.oracle import Oracle
from tests.support.pika_versions import PIKA_KEEPS_LONG

Target = Callable[[bytes], None]

# Behind a frame these stand for whatever comes next: nothing may depend on it.
SUFFIXES = (b"\x00" * 40, b"\xff" * 40)

METHODS = tuple(sorted(spec.methods))
START = wire.method_frame(1, wire.deliver())
SUBSCRIBED = ((1, b"ct"), (2, b""), (3, b"\xff"))


def exact(octets: bytes) -> bytes:
    """A copy of its own. The driver's makes the NUL behind it untouchable for AddressSanitizer."""
    return bytes(bytearray(octets))


class Message(NamedTuple):
    channel: Any
    method: Any
    properties: Any
    body: bytes


class Case(NamedTuple):
    """One input of the stream targets."""

    direct: bool
    limits: dict[str, int]
    burst: int
    check: int
    piled_up: bool  # nothing is taken out before everything is in
    calls: bytes  # what to do between the chunks
    chunks: list[bytes]
    stream: bytes


def case(octets: bytes) -> Case:
    """Flags, number of cuts, that many distances between cuts (or calls), the stream itself."""
    flags, count = octets[0], octets[1] & 15
    sizes, stream = octets[2 : 2 + count], octets[2 + count :]
    limits = {"max_message_size": 1 << 20, "max_nesting": 100}
    if flags & 2:
        limits = {"max_message_size": 64, "max_nesting": 2, "frame_max": 128}
        limits["max_header_size"] = 256
    cuts = [0, *itertools.accumulate(max(size, 1) for size in sizes), len(stream)]
    return Case(
        direct=bool(flags & 1),
        limits=limits,
        burst=flags >> 2 & 3,
        check=flags >> 4 & 3,
        piled_up=bool(flags & 64),
        calls=sizes if flags & 128 else b"",
        chunks=[stream[begin:end] for begin, end in itertools.pairwise(cuts)],
        stream=stream,
    )


class Listener:
    """A decoder and all that came out of it."""

    def __init__(self, codec: Any, case: Case) -> None:
        self.codec = codec
        self.decoder = codec.FrameDecoder(Message, **case.limits)
        self.decoder.burst = case.burst
        self.frame_max = max(case.limits.get("frame_max", 131072), self.decoder.max_header_size)
        self.backlogs: dict[tuple[int, bytes], Any] = {}
        self.frames: list[Any] = []
        self.error: tuple[int, str] | None = None
        if case.direct:
            for number, tag in SUBSCRIBED:
                self.subscribe(number, tag)

    def subscribe(self, number: int, tag: bytes) -> None:
        self.backlogs[number, tag] = backlog = self.codec.Backlog()
        self.decoder.subscribe(number, tag, backlog, None, (number, tag))

    def hear(self, chunks: list[bytes], calls: bytes = b"", piled_up: bool = False) -> None:
        for chunk, call in itertools.zip_longest(chunks, calls):
            if call is not None:
                self.call(call)
            self.decoder.feed(exact(chunk))
            if not piled_up and not self.drain():
                return
        self.drain()

    def drain(self) -> bool:
        decoder = self.decoder
        try:
            while (item := decoder.next_frame()) is not None:
                if item is not False:  # the end of a burst
                    self.frames.append(item)
        except exceptions.ProtocolSyntaxError as error:
            self.error = (error.reply_code, error.reply_text)
            assert_stays_failed(decoder, self.error)
            return False
        assert decoder.buffered <= self.frame_max, decoder.buffered
        return True

    def call(self, chosen: int) -> None:
        """What a connection may do to its decoder between two chunks."""
        number, tag = SUBSCRIBED[chosen % 3]
        if chosen & 64:
            self.decoder.forget_channel(number)
        elif chosen & 32:
            self.decoder.unsubscribe(number, tag)
        elif chosen & 16:
            self.frames.append(self.decoder.take_ready())
        else:
            self.subscribe(number, tag)

    def messages(self) -> list[tuple[Any, list[Any]]]:
        return [(key, list(backlog)) for key, backlog in self.backlogs.items()]


def assert_stays_failed(decoder: Any, error: tuple[int, str]) -> None:
    decoder.feed(wire.HEARTBEAT)
    assert shape.drained(decoder) == [shape.of_error(error[0])]
    assert decoder.buffered == 0


def summary(item: Any) -> Any:
    """Comparable, and much cheaper than a shape: properties stay as they are on the wire."""
    kind = type(item)
    if kind is frame.Method:
        return item.channel_number, type(item.method), repr(vars(item.method))
    if kind is frame.Header:
        return item.channel_number, item.body_size, item.properties.raw
    if kind is frame.Body:
        return item.channel_number, item.fragment
    return repr(item)


def summaries(listener: Listener) -> Any:
    messages = [
        (key, [(repr(vars(m.method)), m.properties.raw, m.body) for m in held])
        for key, held in listener.messages()
    ]
    return [summary(item) for item in listener.frames], messages, listener.error


# --------------------------------------------------------------------------- the targets


def stream(octets: bytes) -> None:
    """The compiled decoder alone: neither cuts nor what stands behind a frame matter."""
    if len(octets) < 2:
        return
    this = case(octets)
    if this.calls:
        Listener(compiled, this).hear(this.chunks, this.calls)  # whatever comes out
        return
    expected = listen(compiled, this, [this.stream])
    if this.check < 2:
        assert listen(compiled, this, this.chunks) == expected
        return
    frames, messages, error = expected
    suffixed = this.stream + SUFFIXES[this.check - 2]
    more, more_messages, later_error = listen(compiled, this, [suffixed])
    assert more[: len(frames)] == frames
    assert error is None or (later_error == error and len(more) == len(frames))
    for (_, held), (_, also) in zip(messages, more_messages, strict=True):
        assert also[: len(held)] == held


def listen(codec: Any, case: Case, chunks: list[bytes]) -> Any:
    listener = Listener(codec, case)
    listener.hear(chunks, piled_up=case.piled_up)
    return summaries(listener)


def differential(octets: bytes) -> None:
    """Both codecs against pika's decode_frame with the listed differences, and to each other."""
    if len(octets) < 2:
        return
    this = case(octets)
    ours, plain = Listener(compiled, this), Listener(reference, this)
    ours.hear(this.chunks, this.calls, this.piled_up)
    if this.calls:
        plain.hear(this.chunks, this.calls, this.piled_up)
    else:
        plain.hear([this.stream])
    assert shapes(ours) == shapes(plain)
    if not this.direct and not this.calls:
        assert shapes(ours)[0] == Oracle(**this.limits).trace(this.stream)


def shapes(listener: Listener) -> Any:
    frames = [
        ("ready", *item) if isinstance(item, list) else shape.of_frame(item)
        for item in listener.frames
    ]
    if listener.error is not None:
        frames.append(shape.of_error(listener.error[0]))
    held = [(key, list(map(shape.of_message, items))) for key, items in listener.messages()]
    return frames, held


def arguments(octets: bytes) -> None:
    """One method frame: its arguments as both codecs and the oracle read them."""
    if not octets:
        return
    index = METHODS[octets[0] % len(METHODS)]
    channel = 0 if index >> 16 == spec.Connection.INDEX else 1
    one_frame = wire.raw_method(channel, index, octets[1:])
    expected = Oracle().trace(one_frame)
    for codec in (compiled, reference):
        assert first_shape(codec, one_frame) == expected, codec.IMPLEMENTATION
    for suffix in SUFFIXES:
        assert first_shape(compiled, one_frame + suffix) == expected, suffix


def first_shape(codec: Any, octets: bytes) -> list[Any]:
    decoder = codec.FrameDecoder(Message)
    decoder.feed(exact(octets))
    try:
        item = decoder.next_frame()
    except exceptions.ProtocolSyntaxError as error:
        return [shape.of_error(error.reply_code)]
    return [] if item is None else [shape.of_frame(item)]


def properties(octets: bytes) -> None:
    """The properties of one message: read, shown, copied, and sent on."""
    if not octets:
        return
    limits = {"max_nesting": (100, 0, 3, 100)[octets[0] & 3]}
    check = octets[0] >> 2 & 3
    codec = (compiled, compiled, compiled, reference)[check]
    content = START + wire.raw_header(1, 0, octets[1:])
    expected = Oracle(**limits).trace(content)[1]
    decoder = codec.FrameDecoder(Message, **limits)
    decoder.feed(exact(content * 3 if check == 3 else content * 3 + SUFFIXES[check & 1]))
    for _ in range(3):  # what repeats is read from what is remembered, and is nobody else's
        decoder.next_frame()
        got = decoder.next_frame()  # whatever they are, the message comes
        assert shape.of_frame(got) == expected, codec.IMPLEMENTATION
        assert got.properties.raw == octets[1:]
        if isinstance(got.properties.__dict__.get("headers"), dict) and check == 0:
            got.properties.__dict__["headers"]["changed"] = True
    fields = expected[3]
    if check == 1:
        check_copies(got.properties, fields)
    elif check > 1:
        check_sending(codec, got.properties, fields)


def check_copies(read: Any, fields: shape.Shape) -> None:
    assert repr(read)
    for twin in (copy.copy(read), copy.deepcopy(read), pickle.loads(pickle.dumps(read))):
        assert shape.of_properties(twin) == fields


def check_sending(codec: Any, read: Any, fields: shape.Shape) -> None:
    """What was received and is published again leaves as pika writes it, where pika does."""
    if shape.UNDECODABLE in fields:
        return
    output = codec.OutputBuffer()
    try:
        pikas = frame.Header(1, 0, plain_copy(read)).marshal()
    except Exception:
        pikas = None
    try:
        output.channel(1).publish("", "", b"", read)
        (_, ours) = wire.split_frames(output.take())
    except Exception:
        ours = None
    if pikas is None:
        return  # before 1.5 pika refuses floats, which it reads as well
    assert ours is not None
    if PIKA_KEEPS_LONG:  # else it sends 64-bit integers as 32-bit ones where they fit
        assert ours == pikas


def plain_copy(read: Any) -> spec.BasicProperties:
    return spec.BasicProperties(**{name: getattr(read, name) for name in shape.PROPERTY_NAMES})


# The slowest, and the one with most to find, comes first: it gets the time that is left over.
TARGETS: dict[str, str] = {
    "session": "tests.fuzz.sessions",
    "stream": "tests.fuzz.targets",
    "differential": "tests.fuzz.targets",
    "arguments": "tests.fuzz.targets",
    "properties": "tests.fuzz.targets",
}


def target(name: str) -> Target:
    found: Target = getattr(importlib.import_module(TARGETS[name]), name)
    return found


def targets() -> Iterator[tuple[str, Target]]:
    for name in TARGETS:
        yield name, target(name)
