"""A small broker in memory, for sessions that nobody scripted.

It takes the client's frames in order, answers like RabbitMQ and keeps its answers until it is told
to send some octets of them. What a client must never do is written down in `complaints`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from pika import frame, spec

from tests.support.peer import Peer, encoded_content, encoded_method


@dataclass
class Unacked:
    queue: str
    body: bytes


@dataclass
class ChannelModel:
    consumers: dict[str, tuple[str, bool]] = field(default_factory=dict)  # tag -> queue, auto_ack
    unacked: dict[int, Unacked] = field(default_factory=dict)
    last_tag: int = 0
    last_declared: str = ""
    closing: bool = False  # we sent Channel.Close and wait for CloseOk


class BrokerModel:
    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.queues: dict[str, deque[bytes]] = {}
        self.channels: dict[int, ChannelModel] = {}
        self.outgoing = bytearray()
        self.complaints: list[str] = []
        self.delivered: dict[str, list[bytes]] = {"auto": [], "manual": []}
        self.given_back: list[bytes] = []
        self.closed = False
        self._published = 0
        self._named = 0

    # The wire.

    def work(self) -> None:
        """Take what the client wrote, then deliver to its consumers."""
        self.peer.read()
        frames, self.peer.frames = self.peer.frames, []
        for part in frames:
            if isinstance(part, frame.Method) and not self.closed:
                self._method(part.channel_number, part.method)
        self._deliver()

    def send(self, octets: int) -> None:
        """Let the client read that many octets of what is on its way, in one read."""
        data = bytes(self.outgoing[:octets])
        del self.outgoing[:octets]
        if data and self.peer.transport.connected:
            self.peer.protocol.dataReceived(data)

    def _answer(self, number: int, method: Any) -> None:
        self.outgoing += encoded_method(number, method)

    # What a test lets happen.

    def put(self, queue: str, body: bytes) -> None:
        if queue in self.queues:
            self.queues[queue].append(body)

    def close_channel(self, number: int, code: int = 404, text: str = "NOT_FOUND") -> None:
        channel = self.channels.get(number)
        if channel is not None and not channel.closing:
            self._requeue_all(channel)
            channel.closing = True
            channel.consumers.clear()
            self._answer(number, spec.Channel.Close(code, text, 0, 0))

    def cancel(self, number: int, tag: str) -> None:
        """The broker's own cancel, as after the death of a mirror."""
        if self.channels[number].consumers.pop(tag, None) is not None:
            self._answer(number, spec.Basic.Cancel(tag, True))

    def close(self, code: int = 320, text: str = "CONNECTION_FORCED") -> None:
        self.closed = True
        self._answer(0, spec.Connection.Close(code, text, 0, 0))

    # What the client asks for.

    def _method(self, number: int, method: Any) -> None:
        name = method.NAME.replace(".", "_").lower()
        if number and number not in self.channels and name != "channel_open":
            self.complaints.append(f"{method.NAME} on channel {number}, which is not open")
            return
        if number and self.channels.get(number) and self.channels[number].closing:
            # Everything but the two is dropped by a broker that has closed the channel.
            if name == "channel_closeok":
                del self.channels[number]
            elif name == "channel_close":
                self._answer(number, spec.Channel.CloseOk())
            elif name == "channel_open":
                self.complaints.append(f"channel {number} opened before it was closed")
            return
        handler = getattr(self, f"_{name}", None)
        if handler is None:
            self.complaints.append(f"unexpected {method.NAME}")
        else:
            handler(number, method)

    def _channel_open(self, number: int, method: Any) -> None:
        if number in self.channels:
            self.complaints.append(f"channel {number} opened twice")
        self.channels[number] = ChannelModel()
        self._answer(number, spec.Channel.OpenOk())

    def _channel_close(self, number: int, method: Any) -> None:
        self._requeue_all(self.channels.pop(number))
        self._answer(number, spec.Channel.CloseOk())

    def _connection_close(self, number: int, method: Any) -> None:
        self.closed = True
        self._answer(0, spec.Connection.CloseOk())
        if method.reply_code != 200:
            self.complaints.append(f"refused: {method.reply_code} {method.reply_text}")

    def _queue_declare(self, number: int, method: Any) -> None:
        name = method.queue
        if not name:
            self._named += 1
            name = f"amq.gen-{self._named}"
        self.queues.setdefault(name, deque())
        self.channels[number].last_declared = name
        self._answer(number, spec.Queue.DeclareOk(name, len(self.queues[name]), 0))

    def _queue_name(self, number: int, method: Any) -> str | None:
        name = method.queue or self.channels[number].last_declared
        if name in self.queues:
            return name
        self.close_channel(number, 404, f"NOT_FOUND - no queue '{name}'")
        return None

    def _queue_purge(self, number: int, method: Any) -> None:
        if (name := self._queue_name(number, method)) is not None:
            purged = len(self.queues[name])
            self.queues[name].clear()
            self._answer(number, spec.Queue.PurgeOk(purged))

    def _queue_delete(self, number: int, method: Any) -> None:
        name = method.queue or self.channels[number].last_declared
        messages = len(self.queues.pop(name, ()))
        for other, channel in self.channels.items():
            for tag, (queue, _) in list(channel.consumers.items()):
                if queue == name:
                    self.cancel(other, tag)
        self._answer(number, spec.Queue.DeleteOk(messages))

    def _basic_qos(self, number: int, method: Any) -> None:
        self._answer(number, spec.Basic.QosOk())

    def _tx_select(self, number: int, method: Any) -> None:
        self._answer(number, spec.Tx.SelectOk())

    def _exchange_declare(self, number: int, method: Any) -> None:
        self._answer(number, spec.Exchange.DeclareOk())

    def _confirm_select(self, number: int, method: Any) -> None:
        self._answer(number, spec.Confirm.SelectOk())

    def _basic_consume(self, number: int, method: Any) -> None:
        if (name := self._queue_name(number, method)) is not None:
            channel = self.channels[number]
            if method.consumer_tag in channel.consumers:
                self.complaints.append(f"consumer tag {method.consumer_tag} twice")
            channel.consumers[method.consumer_tag] = (name, method.no_ack)
            self._answer(number, spec.Basic.ConsumeOk(method.consumer_tag))

    def _basic_cancel(self, number: int, method: Any) -> None:
        self.channels[number].consumers.pop(method.consumer_tag, None)
        if not method.nowait:
            self._answer(number, spec.Basic.CancelOk(method.consumer_tag))

    def _basic_get(self, number: int, method: Any) -> None:
        if (name := self._queue_name(number, method)) is None:
            return
        if not self.queues[name]:
            self._answer(number, spec.Basic.GetEmpty())
            return
        body = self.queues[name].popleft()
        tag = self._hand_out(number, name, body, method.no_ack)
        method = spec.Basic.GetOk(tag, False, "", name, len(self.queues[name]))
        self.outgoing += encoded_content(number, method, body)

    def _basic_publish(self, number: int, method: Any) -> None:
        message = self.peer.published[self._published]
        self._published += 1
        queue = message.method.routing_key
        if queue in self.queues:
            self.queues[queue].append(message.body)
        elif message.method.mandatory:
            back = spec.Basic.Return(312, "NO_ROUTE", "", queue)
            self.outgoing += encoded_content(number, back, message.body)
        if message.tag is not None:
            self._answer(number, spec.Basic.Ack(message.tag, False))

    def _basic_ack(self, number: int, method: Any) -> None:
        self._settle(number, method, back=False)

    def _basic_nack(self, number: int, method: Any) -> None:
        self._settle(number, method, back=method.requeue)

    def _basic_reject(self, number: int, method: Any) -> None:
        method.multiple = False
        self._settle(number, method, back=method.requeue)

    def _connection_closeok(self, number: int, method: Any) -> None:
        pass

    def _settle(self, number: int, method: Any, back: bool) -> None:
        channel = self.channels[number]
        tag = method.delivery_tag
        if method.multiple:
            tags = [one for one in channel.unacked if one <= tag or not tag]
        else:
            tags = [tag] if tag in channel.unacked else []
        if not tags:
            self.complaints.append(f"{method.NAME} of unknown delivery tag {tag}")
            self.close_channel(number, 406, f"PRECONDITION_FAILED - unknown delivery tag {tag}")
        for one in tags:
            message = channel.unacked.pop(one)
            if back:
                self.given_back.append(message.body)
                self.put(message.queue, message.body)

    def _hand_out(self, number: int, queue: str, body: bytes, auto_ack: bool) -> int:
        channel = self.channels[number]
        channel.last_tag += 1
        self.delivered["auto" if auto_ack else "manual"].append(body)
        if not auto_ack:
            channel.unacked[channel.last_tag] = Unacked(queue, body)
        return channel.last_tag

    def _requeue_all(self, channel: ChannelModel) -> None:
        for message in channel.unacked.values():
            self.put(message.queue, message.body)
        channel.unacked.clear()

    def _deliver(self) -> None:
        """Round robin over the consumers, a few messages each, with a prefetch of 20."""
        for number, channel in self.channels.items():
            for tag, (name, auto_ack) in channel.consumers.items():
                for _ in range(3):
                    if not self.queues.get(name) or len(channel.unacked) >= 20:
                        break
                    body = self.queues[name].popleft()
                    delivery_tag = self._hand_out(number, name, body, auto_ack)
                    method = spec.Basic.Deliver(tag, delivery_tag, False, "", name)
                    self.outgoing += encoded_content(number, method, body)
