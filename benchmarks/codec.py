"""Micro-benchmarks of the codec with pyperf: decoding by kind of frame and by chunk, encoding.

``python -m benchmarks codec``. The numbers are for one frame, one message or one call; pika's own
decoder and marshalling stand beside ours. Nothing of Twisted runs here but in the last four, which
are for a connection.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import pika.frame
from pika import spec

from benchmarks import wire
from benchmarks.inprocess import (
    CHANNEL,
    CONSUMER_TAG,
    Loopless,
    cut,
    deliveries,
    fired,
    method_bytes,
)

FRAME_MAX = 131072
MESSAGES = 256  # in one call of a decoding case
CHUNKS = (1, 16, 256, 4096, 65536)

OCTETS = 128 * 1024  # of a frame that comes in as many chunks
HEARTBEATS = 8192

Case = Callable[[], Any]


def frames_of_kind() -> dict[str, bytes]:
    """Return a stream of `MESSAGES` equal frames for each kind."""
    usual = pika.frame.Header(CHANNEL, 0, wire.make_properties("usual")).marshal()
    get_ok = method_bytes(CHANNEL, spec.Basic.GetOk(7, False, "exchange", "key", 3))
    return {
        "heartbeat": pika.frame.Heartbeat().marshal() * MESSAGES,
        "Basic.Ack": method_bytes(CHANNEL, spec.Basic.Ack(7, True)) * MESSAGES,
        "Queue.DeclareOk": method_bytes(CHANNEL, spec.Queue.DeclareOk("q", 1, 2)) * MESSAGES,
        "Basic.GetOk and empty content": (get_ok + usual) * MESSAGES,
    }


def decode_with_pika(data: bytes) -> None:
    """Decode a stream as pika's connection does, without its buffer."""
    while data:
        used, _frame = pika.frame.decode_frame(data)
        data = data[used:]


def decode_frames(codec: Any, data: bytes) -> None:
    """Decode a stream to frames."""
    decoder = codec.FrameDecoder(codec_message(), frame_max=FRAME_MAX)
    decoder.feed(data)
    while decoder.next_frame() is not None:
        pass


def codec_message() -> type:
    """Return the message class of the package."""
    from pika_twisted import ReceivedMessage

    return ReceivedMessage


def decode_messages(codec: Any, chunks: list[bytes]) -> int:
    """Decode deliveries into a backlog and take them out of it."""
    decoder = codec.FrameDecoder(codec_message(), frame_max=FRAME_MAX)
    backlog = codec.Backlog()
    decoder.subscribe(CHANNEL, CONSUMER_TAG, backlog, None, None)
    for chunk in chunks:
        decoder.feed(chunk)
        decoder.next_frame()
    decoder.take_ready()
    return len(backlog.popmany(len(backlog)))


def encoder_of(codec: Any) -> Any:
    """Return an encoder and the buffer behind it."""
    output = codec.OutputBuffer(frame_max=FRAME_MAX)
    return output.channel(CHANNEL), output


def decoding_cases(codec: Any) -> dict[str, tuple[Case, int]]:
    """Return name -> (call, number of inner units)."""
    cases: dict[str, tuple[Case, int]] = {}
    for kind, data in frames_of_kind().items():
        cases[f"decode {kind}"] = partial(decode_frames, codec, data), MESSAGES
        cases[f"decode {kind} (pika)"] = partial(decode_with_pika, data), MESSAGES
    for properties in wire.PROPERTY_SETS:
        data = deliveries(MESSAGES, 100, properties)
        name = f"decode message, properties {properties}"
        cases[name] = partial(decode_messages, codec, [data]), MESSAGES
        cases[f"{name} (pika)"] = partial(decode_with_pika, data), MESSAGES
    data = deliveries(MESSAGES, 100, "usual")
    for size in CHUNKS:
        chunks = cut(data, size)
        name = f"decode message, chunks of {size}"
        cases[name] = partial(decode_messages, codec, chunks), MESSAGES
    return cases


def encoding_cases(codec: Any) -> dict[str, tuple[Case, int]]:
    """Return name -> (call, number of inner units)."""
    encoder, output = encoder_of(codec)
    usual, body = wire.make_properties("usual"), wire.make_body(100)

    def ack() -> None:
        for tag in range(MESSAGES):
            encoder.ack(tag, False)
        output.take()

    def ack_pika() -> None:
        for tag in range(MESSAGES):
            pika.frame.Method(CHANNEL, spec.Basic.Ack(tag, False)).marshal()

    def publish(properties: Any) -> None:
        for _ in range(MESSAGES):
            encoder.publish("", "bench", body, properties, False)
        output.take()

    def publish_pika(properties: Any) -> None:
        for _ in range(MESSAGES):
            pika.frame.Method(CHANNEL, spec.Basic.Publish(routing_key="bench")).marshal()
            pika.frame.Header(CHANNEL, 100, properties).marshal()
            pika.frame.Body(CHANNEL, body).marshal()

    empty = spec.BasicProperties()
    return {
        "encode ack": (ack, MESSAGES),
        "encode ack (pika)": (ack_pika, MESSAGES),
        "encode publish, no properties": (partial(publish, None), MESSAGES),
        "encode publish, no properties (pika)": (partial(publish_pika, empty), MESSAGES),
        "encode publish, usual properties": (partial(publish, usual), MESSAGES),
        "encode publish, usual properties (pika)": (partial(publish_pika, usual), MESSAGES),
    }


def property_cases(codec: Any) -> dict[str, tuple[Case, int]]:
    """Return the cost of looking at properties, which are decoded when first touched."""
    decoder = codec.FrameDecoder(codec_message(), frame_max=FRAME_MAX)
    backlog = codec.Backlog()
    decoder.subscribe(CHANNEL, CONSUMER_TAG, backlog, None, None)
    data = deliveries(MESSAGES, 100, "usual")

    def decode_and_touch() -> None:
        decoder.feed(data)
        decoder.next_frame()
        for message in backlog.popmany(MESSAGES):
            message[2].content_type

    return {"decode message and touch its properties": (decode_and_touch, MESSAGES)}


def all_cases() -> dict[str, tuple[Case, int]]:
    """Return every case of the codec in use."""
    from pika_twisted.codec import chooser as _codec

    return {**decoding_cases(_codec), **property_cases(_codec), **encoding_cases(_codec)}


def awkward_reads(client: str) -> dict[str, tuple[Case, int]]:
    """Return the cost of reads that no network makes often, for a whole connection."""
    loopless = Loopless(client, heartbeat=60)
    receive, queue = loopless.receive, loopless.queue
    body = bytes(OCTETS - 8)
    header = pika.frame.Header(CHANNEL, len(body), spec.BasicProperties()).marshal()
    deliver = method_bytes(CHANNEL, spec.Basic.Deliver(CONSUMER_TAG, 1, False, "", "bench"))
    octets = cut(pika.frame.Body(CHANNEL, body).marshal(), 1)
    heartbeats = pika.frame.Heartbeat().marshal() * HEARTBEATS

    def octet_by_octet() -> None:
        receive(deliver + header)
        for octet in octets:
            receive(octet)
        if len(fired(queue.get()).body) != len(body):
            raise RuntimeError("the message is not whole")

    suffix = "" if client == "pika_twisted" else f" ({client})"
    return {
        f"a 128 KiB frame in 1-byte chunks{suffix}": (octet_by_octet, 1),
        f"8,192 heartbeats in one read{suffix}": (partial(receive, heartbeats), 1),
    }


def main() -> None:
    """Be a pyperf runner: parent and worker processes both come here."""
    import pyperf

    runner = pyperf.Runner(program_args=("-m", "benchmarks.codec"))
    runner.metadata["description"] = "one frame, message or call of the codec"
    cases = {**all_cases(), **awkward_reads("pika_twisted"), **awkward_reads("pika")}
    for name, (call, inner) in cases.items():
        runner.bench_func(name, call, inner_loops=inner)


def run(arguments: list[str]) -> None:
    """Run pyperf in this process with its own arguments."""
    try:
        import pyperf  # noqa: F401
    except ImportError:
        raise SystemExit("codec needs pyperf (pip install pyperf)") from None
    sys.argv[1:] = arguments
    main()


if __name__ == "__main__":
    main()
