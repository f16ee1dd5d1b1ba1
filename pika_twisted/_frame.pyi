"""What ``_frame.pyx`` and its twin ``_frame_py.py`` promise."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, SupportsIndex, final, overload

from pika import frame, spec
from typing_extensions import Self, disjoint_base

from pika_twisted.codec.errors import DecodeError as DecodeError
from pika_twisted.codec.errors import UndecodableProperties as UndecodableProperties

__all__ = [
    "IMPLEMENTATION",
    "Backlog",
    "BasicProperties",
    "ChannelEncoder",
    "DecodeError",
    "Deliver",
    "FrameDecoder",
    "GetOk",
    "OutputBuffer",
    "OversizedContent",
    "ReadLoop",
    "Return",
    "UndecodableProperties",
    "read_as_slots",
]

IMPLEMENTATION: str

class Deliver(spec.Basic.Deliver): ...
class GetOk(spec.Basic.GetOk): ...
class Return(spec.Basic.Return): ...

class BasicProperties(spec.BasicProperties):
    """Decoded when touched.

    Where the octets mean nothing, the first property that can't be decoded and all behind it (in
    the order of the wire, which is that of the constructor) raise UndecodableProperties, until
    they are assigned. repr, ==, copy and pickle never raise.
    """

    @property
    def raw(self) -> bytes | None: ...

def read_as_slots(message_class: type[tuple[Any, ...]]) -> None:
    """Let the four fields of a namedtuple's subclass be read as quickly as slots."""

class OversizedContent:
    """In place of the header of a content longer than ``max_message_size``.

    Its method frame has been returned before, unless it was a direct delivery. Its body is read
    over by the decoder.
    """

    channel_number: int
    method: Any
    body_size: int
    limit: int
    def __init__(self, channel_number: int, method: Any, body_size: int, limit: int) -> None: ...

@final
class FrameDecoder:
    """Bytes in, frames and whole messages out.

    next_frame() gives one frame after the other, None when more data is needed, or raises
    DecodeError; after that it raises the same again, and feed() drops what it gets. MemoryError
    becomes a DecodeError with code 506. No other exception comes out.

    Limits count whole frames with their 8 octets; ``max_header_size`` holds for content headers
    where it is more than ``frame_max``. ``max_nesting`` (at most 1000) is how deep tables and
    arrays may lie inside the outermost table.

    ``burst``: next_frame() returns False after so many direct messages, so that they can be handed
    out before the next ones are made; 0 for no limit.

    ``frames_direct`` counts the frames that next_frame() did not return: those of direct
    deliveries, and the body frames of oversized contents.
    """

    frame_max: int
    max_header_size: int
    max_message_size: int
    max_nesting: int
    burst: int
    @property
    def frames_direct(self) -> int: ...
    @property
    def messages_direct(self) -> int: ...
    @property
    def buffered(self) -> int: ...
    @property
    def ready(self) -> bool: ...
    def __new__(
        cls,
        message_class: type[tuple[Any, ...]],
        *,
        frame_max: int = 131072,
        max_header_size: int = 1 << 20,
        max_message_size: int = 128 << 20,
        max_nesting: int = 100,
    ) -> Self: ...
    def feed(self, data: bytes | bytearray | memoryview) -> None: ...
    def next_frame(
        self,
    ) -> (
        frame.Method[Any]
        | frame.Header
        | frame.Body
        | frame.Heartbeat
        | frame.ProtocolHeader
        | OversizedContent
        | Literal[False]
        | None
    ): ...
    def subscribe(
        self,
        channel_number: int,
        consumer_tag: str | bytes,
        backlog: Backlog,
        channel: object,
        token: object,
    ) -> None: ...
    def unsubscribe(self, channel_number: int, consumer_tag: str | bytes) -> None: ...
    def collect_confirms(
        self, channel_number: int, confirms: list[Any] | None, token: object
    ) -> None: ...
    def take_ready(self) -> list[Any]: ...
    def last_delivery_tag(self, channel_number: int) -> int: ...
    def forget_channel(self, channel_number: int) -> None: ...

@final
class Backlog:
    """A queue that looks like a list.

    Messages in it are hidden from the cyclic collector until they are taken, looked at, or
    ``track()`` is called.
    """

    __hash__ = None  # type: ignore[assignment]
    @property
    def body_bytes(self) -> int: ...
    def __init__(self, items: Iterable[Any] = ()) -> None: ...
    def append(self, item: Any) -> None: ...
    def appendleft(self, item: Any) -> None: ...
    def extend(self, items: Iterable[Any]) -> None: ...
    def insert(self, index: int, item: Any) -> None: ...
    def pop(self, index: int = -1) -> Any: ...
    def remove(self, item: Any) -> None: ...
    def index(self, item: Any, *borders: int) -> int: ...
    def count(self, item: Any) -> int: ...
    def sort(self, *, key: Callable[[Any], Any] | None = None, reverse: bool = False) -> None: ...
    def reverse(self) -> None: ...
    @overload
    def __setitem__(self, index: SupportsIndex, value: Any, /) -> None: ...
    @overload
    def __setitem__(self, index: slice, value: Iterable[Any], /) -> None: ...
    def __delitem__(self, index: SupportsIndex | slice, /) -> None: ...
    def __iadd__(self, items: Iterable[Any], /) -> Self: ...
    def __add__(self, items: list[Any], /) -> list[Any]: ...
    def __radd__(self, items: list[Any], /) -> list[Any]: ...
    def popleft(self) -> Any: ...
    def popmany(self, count: int) -> list[Any]: ...
    def clear(self) -> None: ...
    def copy(self) -> list[Any]: ...
    def track(self) -> None: ...
    def __len__(self) -> int: ...
    def __bool__(self) -> bool: ...
    def __iter__(self) -> Iterator[Any]: ...
    def __reversed__(self) -> Iterator[Any]: ...
    def __contains__(self, item: object, /) -> bool: ...
    @overload
    def __getitem__(self, index: SupportsIndex, /) -> Any: ...
    @overload
    def __getitem__(self, index: slice, /) -> list[Any]: ...
    def __eq__(self, other: object, /) -> bool: ...

@final
class OutputBuffer:
    """Encoded frames, waiting to be written.

    Where memory runs out in take(), what was encoded is lost: the connection has to be dropped.

    ``write_out()`` writes it to ``transport``, or drops it where that is None. It may be held back
    only while ``can_hold`` is true: where the transport is made to flush it before it ends.

    ``ledgers`` hold acks back until the turn ends, ``delayed`` ones until anything is written: who
    puts them there has them encode their acks first. ``writes`` counts those of the turn that went
    out at the call.
    """

    frame_max: int
    @property
    def limit(self) -> int: ...
    can_hold: bool
    writes: int
    ledgers: list[Any]
    delayed: list[Any]
    transport: Any
    bytes_written: int
    frames_written: int
    held: bool
    @property
    def frames(self) -> int: ...
    def __new__(cls, *, frame_max: int = 131072, limit: int = 65536) -> Self: ...
    def __len__(self) -> int: ...
    def take(self) -> bytes: ...
    def write_out(self) -> None: ...
    def write(self, octets: bytes, frames: int) -> None: ...
    def channel(self, number: int) -> ChannelEncoder: ...

@final
class ChannelEncoder:
    """Each call returns whether the buffer is to be written out now.

    Or it raises and has done nothing: TypeError or ValueError for an argument that can't be
    encoded, pika's ShortStringTooLong, or what a properties object's own encode() raises.
    """

    open: bool
    flush: Any  # called by basic_ack() and basic_publish() when the buffer is to be written out
    has_ledger: bool
    slow_ack: Any
    slow_publish: Any
    succeeded: Any
    expect: Any
    @property
    def sent_properties(self) -> bytes | None: ...
    @property
    def number(self) -> int: ...
    def __new__(cls, output: OutputBuffer, number: int) -> Self: ...
    def ack(self, delivery_tag: int | None = 0, multiple: bool = False) -> bool: ...
    def basic_ack(self, delivery_tag: int | None = 0, multiple: bool = False) -> None: ...
    def nack(
        self, delivery_tag: int | None = 0, multiple: bool = False, requeue: bool = True
    ) -> bool: ...
    def reject(self, delivery_tag: int | None, requeue: bool = True) -> bool: ...
    def publish(
        self,
        exchange: str | bytes,
        routing_key: str | bytes,
        body: str | bytes | bytearray | memoryview,
        properties: spec.BasicProperties | None = None,
        mandatory: bool = False,
    ) -> bool: ...
    def basic_publish(
        self,
        exchange: str | bytes,
        routing_key: str | bytes,
        body: str | bytes | bytearray | memoryview,
        properties: spec.BasicProperties | None = None,
        mandatory: bool = False,
    ) -> Any: ...

@disjoint_base
class ReadLoop:
    """The one loop that every received byte of a connection goes through.

    A subclass gives it what it calls: ``process(value)`` with each value of ``next_frame()``,
    ``end(error)`` with an exception, ``flush()`` to write where ledgers hold acks back, and
    ``after_read()`` after a read while ``wants_after_read`` is true. ``on_reads()`` is called after
    ``reads_left`` reads, and returns the next number of them; 0 for never. The decoder's tokens are
    called, too.

    ``octets`` have come, ``frames_processed`` were handed to ``process()``; once ``stopped``
    whatever comes is ignored.
    """

    decoder: FrameDecoder
    octets: int
    frames_processed: int
    stopped: bool
    process: Any
    flush: Any
    after_read: Any
    on_reads: Any
    reads_left: int
    def __init__(self, buffer: OutputBuffer, wants_after_read: object) -> None: ...
    end: Any
    def receive(self, data: bytes) -> None:
        """Take what the transport read, cut anywhere, and decode all of it. Raises nothing."""
