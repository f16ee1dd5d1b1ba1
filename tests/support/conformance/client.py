"""A client that sends methods and shows what came, on top of pika's codec alone."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from datetime import datetime
from typing import Any

from pika import amqp_object, frame, spec

from tests.support.conformance.wires import Wire

PATIENCE = 20.0  # seconds that a broker has for an answer
SILENCE = 0.4  # after so many without a byte nothing more is expected

CAPABILITIES = {
    "authentication_failure_close": True,
    "basic.nack": True,
    "connection.blocked": True,
    "consumer_cancel_notify": True,
    "publisher_confirms": True,
}

_GENERATED = re.compile(r"amq\.(gen-|ctag-|rabbitmq\.reply-to\.)[\w\-+/=.]+")
_PROPERTIES = [name for name in vars(spec.BasicProperties()) if not name.startswith(("_", "FLAG"))]

Value = Any  # what JSON has


class Client:
    """One connection. What it shows are lists: [channel, method, arguments, properties, body]."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.ended = False
        self.server_properties: dict[str, Any] = {}
        self._data = b""
        self._items: list[list[Value]] = []
        self._content: dict[int, tuple[Any, Any, bytes]] = {}
        #: Called with the properties of each content, and with the length of each body frame.
        self.on_properties: Callable[[Any], Any] | None = None
        self.on_body: Callable[[int], Any] | None = None

    # Out

    def write(self, data: bytes) -> None:
        self.wire.write(data)

    def send(self, channel: int, *methods: amqp_object.Method) -> None:
        """Send methods, all in one write."""
        self.write(b"".join(frame.Method(channel, each).marshal() for each in methods))

    def publish(
        self,
        channel: int,
        exchange: str,
        routing_key: str,
        body: bytes = b"",
        mandatory: bool = False,
        **properties: Any,
    ) -> None:
        """Send Basic.Publish with its content."""
        method = spec.Basic.Publish(exchange=exchange, routing_key=routing_key, mandatory=mandatory)
        header = frame.Header(channel, len(body), spec.BasicProperties(**properties))
        data = frame.Method(channel, method).marshal() + header.marshal()
        self.write(data + (frame.Body(channel, body).marshal() if body else b""))

    # In

    def _fill(self, seconds: float) -> bool:
        """Read once; False where nothing came."""
        data = self.wire.read(seconds)
        if data is None:
            self.ended = True
            return False
        self._data += data
        while True:
            size, value = frame.decode_frame(self._data)
            if value is None:
                return bool(data)
            self._data = self._data[size:]
            self._take(value)

    def _take(self, value: Any) -> None:
        if isinstance(value, frame.Heartbeat):
            return
        number = getattr(value, "channel_number", 0)
        if isinstance(value, frame.ProtocolHeader):
            self._items.append([0, "AMQP", [value.major, value.minor, value.revision]])
        elif isinstance(value, frame.Method):
            if spec.has_content(value.method.INDEX):
                self._content[number] = (value.method, None, b"")
            else:
                self._on_method(number, value.method)
        else:
            method, header, body = self._content.pop(number)
            if isinstance(value, frame.Header):
                header = value
                if self.on_properties is not None:
                    self.on_properties(value.properties)
            else:
                body += value.fragment
                if self.on_body is not None:
                    self.on_body(len(value.fragment))
            if len(body) == header.body_size:
                shown = [number, method.NAME, _arguments(method), _properties(header.properties)]
                self._items.append([*shown, body.decode("latin-1")])
            else:
                self._content[number] = (method, header, body)

    def _on_method(self, number: int, method: Any) -> None:
        if isinstance(method, spec.Connection.Start):
            self.server_properties = method.server_properties
        self._items.append([number, method.NAME, _arguments(method)])
        if isinstance(method, spec.Channel.Close):
            self.send(number, spec.Channel.CloseOk())
        elif isinstance(method, spec.Connection.Close):
            self.send(0, spec.Connection.CloseOk())

    def next(self, seconds: float = PATIENCE) -> list[Value]:
        """The next thing that comes."""
        while not self._items:
            if not self._fill(seconds):
                return ["end"] if self.ended else ["nothing"]
        return self._items.pop(0)

    def take(self, count: int) -> list[list[Value]]:
        """The next so many things."""
        return [self.next() for _ in range(count)]

    def rest(self, seconds: float = SILENCE) -> list[list[Value]]:
        """All that comes until it is silent for so long."""
        while self._fill(seconds):
            pass
        items, self._items = self._items, []
        return [*items, ["end"]] if self.ended else items

    def ask(self, channel: int, *methods: amqp_object.Method) -> list[Value]:
        """Send methods one by one and return the answer to the last one."""
        answer: list[Value] = []
        for method in methods:
            self.send(channel, method)
            answer = self.next()
        return answer

    def steps(self, channel: int, *methods: amqp_object.Method) -> list[list[Value]]:
        """Send methods one by one; all answers, until one closes something."""
        answers = []
        for method in methods:
            self.send(channel, method)
            answers.append(self.next())
            if answers[-1][0] == "end" or answers[-1][1].endswith(".Close"):
                break
        return answers

    # Ready to use

    def start(
        self, user: str = "guest", password: str = "guest", mechanism: str = "PLAIN"
    ) -> list[Value]:
        """Log in; what follows: Connection.Tune where it worked."""
        self.write(b"AMQP\x00\x00\x09\x01")
        self.next()
        properties = {"product": "conformance", "capabilities": CAPABILITIES}
        self.send(
            0, spec.Connection.StartOk(properties, mechanism, f"\0{user}\0{password}", "en_US")
        )
        return self.next()

    def open(
        self, user: str = "guest", password: str = "guest", vhost: str = "/", channels: int = 1
    ) -> Client:
        """Log in and open channels."""
        self.start(user, password)
        self.send(0, spec.Connection.TuneOk(2047, 131072, 0), spec.Connection.Open(vhost))
        opened = self.next()
        assert opened[1] == "Connection.OpenOk", opened
        for number in range(1, channels + 1):
            self.open_channel(number)
        return self

    def open_channel(self, number: int) -> None:
        opened = self.ask(number, spec.Channel.Open())
        assert opened[1] == "Channel.OpenOk", opened


def shown(value: Any) -> Value:
    """A value as JSON has it, without what differs from run to run."""
    if isinstance(value, dict):
        return {
            name: "a time" if name == "time" else shown(each)
            for name, each in sorted(value.items())
        }
    if isinstance(value, (list, tuple)):
        return [shown(each) for each in value]
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    if isinstance(value, datetime):
        return f"datetime {value.year}"
    if isinstance(value, str):
        return _GENERATED.sub(r"amq.\1*", value)
    return value


def _arguments(method: Any) -> Value:
    skipped = ("ticket", "known_hosts", "server_properties")
    return shown({name: value for name, value in vars(method).items() if name not in skipped})


def _properties(properties: Any) -> Value:
    present = {name: getattr(properties, name) for name in _PROPERTIES}
    return shown({name: value for name, value in present.items() if value is not None})


def raw(kind: int, channel: int, payload: bytes = b"", end: bytes = b"\xce") -> bytes:
    """A frame, right or wrong."""
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + end
