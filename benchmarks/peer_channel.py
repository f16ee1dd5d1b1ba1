"""One channel of the embedded peer: its consumers, its books, and the replies to its methods."""

from __future__ import annotations

from pika import amqp_object, frame, spec

from benchmarks import wire
from benchmarks.ledger import AckLedger, PublishLedger

FLOOD = "flood"  # "flood.n:1000.size:100.properties:usual": a queue that holds 1000 such messages
UNACKED = "unacked"  # its declare-ok counts deliveries without ack and bad acks
PUBLISHED = "published"  # its declare-ok counts publishes and their body bytes (modulo 2**32)
ENDLESS = 1 << 62


def flood_queue(messages: int, size: int, properties: str) -> str:
    """Return the name of a queue of the peer that holds `messages` messages."""
    return f"{FLOOD}.n:{messages}.size:{size}.properties:{properties}"


class Flood:
    """The deliveries that one consumer still has to get."""

    def __init__(self, train: wire.Train, messages: int, no_ack: bool) -> None:
        self.left = messages
        self.no_ack = no_ack
        self._train = train

    def next_view(self, first_tag: int, limit: int) -> tuple[memoryview, int]:
        """Return the bytes of some deliveries from `first_tag` on, and their number."""
        view = self._train.stretch(first_tag, min(limit, self.left))
        count = len(view) // self._train.unit_size
        self.left -= count
        return view, count


class PeerChannel:
    """State of one channel."""

    def __init__(self, number: int, frame_max: int) -> None:
        self.number = number
        self.acks = AckLedger(number)
        self.publishes = PublishLedger()
        self.floods: dict[str, Flood] = {}
        self._frame_max = frame_max
        self._prefetch = 0
        self._next_tag = 1
        self._confirm_group = 0  # 0: not in confirm mode
        self._confirmed = 0
        self._confirms = wire.acks(number)

    # Deliveries

    def next_view(self, limit: int) -> memoryview | None:
        """Return the next deliveries to send; None when there are none, or prefetch forbids it."""
        for tag, flood in self.floods.items():
            room = limit
            if not flood.no_ack and self._prefetch:
                room = min(limit, self._prefetch - self.acks.unacked)
            if room < 1:
                continue
            view, count = flood.next_view(self._next_tag, room)
            self._next_tag += count
            if not flood.no_ack:
                self.acks.delivered += count
            if not flood.left:
                del self.floods[tag]
            return view
        return None

    # Replies

    def reply(self, method: amqp_object.Method) -> list[amqp_object.Method]:
        """Carry out a method of the client and return the answer to it."""
        if isinstance(method, (spec.Basic.Ack, spec.Basic.Nack)):
            self.acks.settle(method.delivery_tag, method.multiple)
        elif isinstance(method, spec.Basic.Reject):
            self.acks.settle(method.delivery_tag, False)
        elif isinstance(method, spec.Basic.Qos):
            self._prefetch = method.prefetch_count
        elif isinstance(method, spec.Confirm.Select):
            self._confirm_group = 1
        elif isinstance(method, spec.Queue.Declare):
            return [] if method.nowait else [self._declare_ok(method.queue)]
        elif isinstance(method, spec.Basic.Consume):
            return self._consume(method)
        elif isinstance(method, spec.Basic.Cancel):
            self.floods.pop(method.consumer_tag, None)
            return [] if method.nowait else [spec.Basic.CancelOk(method.consumer_tag)]
        return plain_reply(method)

    def _declare_ok(self, queue: str) -> spec.Queue.DeclareOk:
        if queue.startswith(FLOOD):
            return spec.Queue.DeclareOk(queue, int(flood_options(queue)["n"]), 0)
        if queue == UNACKED:
            return spec.Queue.DeclareOk(queue, self.acks.unacked, self.acks.violations)
        if queue == PUBLISHED:
            books = self.publishes
            return spec.Queue.DeclareOk(queue, books.count, books.body_bytes & 0xFFFFFFFF)
        if queue.startswith("confirm"):  # "confirm.100": confirms come by the hundred from now on
            self._confirm_group = int(queue.split(".")[1])
        return spec.Queue.DeclareOk(queue or "amq.gen-peer", 0, 0)

    def _consume(self, method: spec.Basic.Consume) -> list[amqp_object.Method]:
        tag = method.consumer_tag or f"amq.ctag-{self.number}-{len(self.floods)}"
        if method.queue.startswith(FLOOD):
            options = flood_options(method.queue)
            shape = wire.Shape(int(options["size"]), options["properties"])
            train = shape.deliveries(self.number, tag, self._frame_max)
            self.floods[tag] = Flood(train, int(options["n"]), method.no_ack)
        return [] if method.nowait else [spec.Basic.ConsumeOk(tag)]

    # Confirms

    def confirms(self) -> bytes:
        """Return the confirms of what was published since the last call."""
        if not self._confirm_group or self._confirmed == self.publishes.count:
            return b""
        if self._confirm_group == 1:
            return self._single_confirms()
        pieces = []
        while self._confirmed < self.publishes.count:
            self._confirmed = min(self._confirmed + self._confirm_group, self.publishes.count)
            ack = spec.Basic.Ack(self._confirmed, True)
            pieces.append(frame.Method(self.number, ack).marshal())
        return b"".join(pieces)

    def _single_confirms(self) -> bytes:
        pieces = []
        while self._confirmed < self.publishes.count:
            due = self.publishes.count - self._confirmed
            view = self._confirms.stretch(self._confirmed + 1, due)
            self._confirmed += len(view) // self._confirms.unit_size
            pieces.append(bytes(view))
        return b"".join(pieces)


def flood_options(queue: str) -> dict[str, str]:
    """Return the options in the name of a flood queue."""
    return dict(word.split(":", 1) for word in queue.split(".")[1:])


def plain_reply(method: amqp_object.Method) -> list[amqp_object.Method]:
    """Return the ...Ok method that answers `method`, with default arguments."""
    if not method.synchronous or getattr(method, "nowait", False):
        return []
    module = getattr(spec, method.NAME.split(".")[0])
    if isinstance(method, spec.Basic.Get):
        return [spec.Basic.GetEmpty()]
    answer = getattr(module, method.NAME.split(".")[1] + "Ok")
    if answer is spec.Channel.FlowOk:
        return [answer(active=method.active)]
    if answer in (spec.Queue.PurgeOk, spec.Queue.DeleteOk):
        return [answer(message_count=0)]
    return [answer()]
