"""What a peer may say and nobody expects, on an open connection and in the handshake.

Data only; `bad_sessions` has the talks, in memory and over sockets.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, NamedTuple

from pika import exceptions, spec

from pika_twisted.exceptions import HandshakeTimeout, ProtocolViolation, UndecodableProperties
from tests.support import wire
from tests.support.bad_bytes import BEGUN, DELIVER, POISON, Poison
from tests.support.peer import CAPABILITIES

# What the codec takes for good and an open connection can't, with channels 1, 2 and 9 in use.
ALSO_REFUSED: dict[str, tuple[bytes, bytes, int]] = {
    # 503 COMMAND_INVALID
    "second Connection.Start": (
        b"",
        wire.method_frame(0, spec.Connection.Start(0, 9, {}, "PLAIN", "en_US")),
        503,
    ),
    "second Connection.Tune": (
        b"",
        wire.method_frame(0, spec.Connection.Tune(2047, 131072, 60)),
        503,
    ),
    "second Connection.OpenOk": (b"", wire.method_frame(0, spec.Connection.OpenOk()), 503),
    "Connection.Secure": (b"", wire.method_frame(0, spec.Connection.Secure("?")), 503),
    "a client's Connection.StartOk": (
        b"",
        wire.method_frame(0, spec.Connection.StartOk({}, "PLAIN", "", "en_US")),
        503,
    ),
    "Connection.CloseOk for no Close": (b"", wire.method_frame(0, spec.Connection.CloseOk()), 503),
    "Connection.Close on channel 1": (
        b"",
        wire.method_frame(1, spec.Connection.Close(320, "bye", 0, 0)),
        503,
    ),
    # 504 CHANNEL_ERROR
    "delivery on a channel that is not open": (b"", wire.content(7, b"x"), 504),
    "answer on a channel that is not open": (b"", wire.method_frame(7, spec.Basic.QosOk()), 504),
    "Channel.Close of a channel that is not open": (
        b"",
        wire.method_frame(7, spec.Channel.Close(404, "NOT_FOUND", 0, 0)),
        504,
    ),
}


class Lives(NamedTuple):
    """Octets that an open connection survives."""

    sent: bytes
    bodies: tuple[bytes, ...] = ()  # of the messages that arrive on channel 1
    look: Callable[[Any], None] | None = None  # at the last of them
    answers: tuple[tuple[int, Any, dict[str, Any]], ...] = ()  # channel, method, arguments
    confirmed: int = 0  # of the publishes that wait on channel 2
    closes_channel: int = 0  # the code with which the client closes channel 1
    options: dict[str, Any] = {}
    auto_ack: bool = False


def delivered(properties: bytes, **header: Any) -> bytes:
    """A message of these octets as properties."""
    return (
        DELIVER
        + wire.raw_header(1, 4, properties, **header)
        + wire.body_frame(1, b"bo")
        + wire.body_frame(1, b"dy")
    )


def keeps_the_octets(message: Any) -> None:
    assert message.method.routing_key == b"\xff\xfe"
    assert message.method.exchange == b"\x80"


def has_the_last_of_two(message: Any) -> None:
    assert message.properties.headers == {"a": 2}


DELIVER_ARGUMENTS = DELIVER[11:-1]
NOT_UTF8 = b"\x02ct" + struct.pack(">QB", 1, 0) + b"\x01\x80" + b"\x02\xff\xfe"
BODY = wire.raw_header(1, 4) + wire.body_frame(1, b"body")
TWICE = wire.sized(wire.entry(b"a", b"I\0\0\0\1") + wire.entry(b"a", b"I\0\0\0\2"))
STRANGER = wire.content(1, b"for whom", method=wire.deliver("nobody", 7))
LARGE = wire.content(1, b"x" * 1001, step=100)

LIVES: dict[str, Lives] = {
    "surplus octets after the arguments": Lives(
        wire.raw_method(1, spec.Basic.Deliver.INDEX, DELIVER_ARGUMENTS + b"surplus") + BODY,
        (b"body",),
    ),
    "heartbeat with a payload": Lives(wire.raw_frame(8, 0, b"thump")),
    "header with a weight": Lives(delivered(b"\0\0", weight=7), (b"body",)),
    "duplicate table keys": Lives(
        delivered(wire.headers_only(TWICE)), (b"body",), has_the_last_of_two
    ),
    "empty body frames": Lives(
        BEGUN + wire.body_frame(1, b"") * 3 + wire.body_frame(1, b"abcde"), (b"abcde",)
    ),
    "short strings that are not UTF-8": Lives(
        wire.raw_method(1, spec.Basic.Deliver.INDEX, NOT_UTF8) + BODY, (b"body",), keeps_the_octets
    ),
    "message above max_message_size": Lives(
        LARGE,
        answers=((1, spec.Channel.Close, {"reply_code": 311}),),
        closes_channel=311,
        options={"max_message_size": 1000},
    ),
    "4 GiB message above max_message_size": Lives(
        DELIVER + wire.raw_header(1, 1 << 32) + wire.body_frame(1, bytes(100_000)) * 3,
        answers=((1, spec.Channel.Close, {"reply_code": 311}),),
        closes_channel=311,
    ),
    "message of max_message_size": Lives(LARGE, (b"x" * 1001,), options={"max_message_size": 1001}),
    "delivery for a consumer nobody knows": Lives(
        STRANGER,
        answers=(
            (1, spec.Basic.Nack, {"delivery_tag": 7, "requeue": True}),
            (1, spec.Basic.Cancel, {"consumer_tag": "nobody"}),
        ),
    ),
    "delivery for a consumer nobody knows, where one is auto_ack": Lives(
        STRANGER, answers=((1, spec.Basic.Cancel, {"consumer_tag": "nobody"}),), auto_ack=True
    ),
    "many deliveries for a consumer nobody knows": Lives(
        STRANGER * 3,
        answers=(
            (1, spec.Basic.Nack, {"delivery_tag": 7}),
            (1, spec.Basic.Cancel, {"consumer_tag": "nobody"}),
            (1, spec.Basic.Nack, {"delivery_tag": 7}),
            (1, spec.Basic.Nack, {"delivery_tag": 7}),
        ),
    ),
    "delivery for a consumer whose tag is not UTF-8": Lives(
        wire.raw_method(1, spec.Basic.Deliver.INDEX, b"\x01\xff" + DELIVER_ARGUMENTS[3:]) + BODY,
        answers=(
            (1, spec.Basic.Nack, {"delivery_tag": 1}),
            (1, spec.Basic.Cancel, {"consumer_tag": b"\xff"}),
        ),
    ),
    "confirm for a tag nobody waits for": Lives(wire.method_frame(2, spec.Basic.Ack(99, False))),
    "confirm for tag 0": Lives(wire.method_frame(2, spec.Basic.Ack(0, False))),
    "confirms up to tag 0": Lives(wire.method_frame(2, spec.Basic.Ack(0, True)), confirmed=3),
    "confirms beyond the last": Lives(wire.method_frame(2, spec.Basic.Ack(99, True)), confirmed=3),
    "a confirm twice": Lives(wire.method_frame(2, spec.Basic.Ack(1, False)) * 2, confirmed=1),
}


class Lie:
    """Looks at the message of one entry of POISON."""

    def __init__(self, poison: Poison) -> None:
        self.poison = poison

    def __call__(self, message: Any) -> None:
        properties = message.properties
        repr(message)
        if self.poison.bad is None:
            assert properties.headers["k"] == self.poison.value
            return
        raw = None
        try:
            getattr(properties, self.poison.bad)
        except UndecodableProperties as error:
            raw = error.raw
        assert raw == self.poison.raw
        setattr(properties, self.poison.bad, "replaced")
        assert getattr(properties, self.poison.bad) == "replaced"


LIVES.update(
    {name: Lives(delivered(lie.raw), (b"body",), Lie(lie)) for name, lie in POISON.items()}
)


# Handshakes.


class Handshake(NamedTuple):
    """What a peer says, each part after the client's method named before it."""

    steps: tuple[tuple[Any, bytes], ...]
    kind: type[Exception]
    code: int = 0
    ends: bool = False  # the peer closes the stream then


def start(version: tuple[int, int] = (0, 9), mechanisms: str = "PLAIN AMQPLAIN") -> bytes:
    properties = {"product": "RabbitMQ", "version": "3.10.8", "capabilities": dict(CAPABILITIES)}
    return wire.method_frame(0, spec.Connection.Start(*version, properties, mechanisms, "en_US"))


def tune(frame_max: int = 131072) -> bytes:
    return wire.method_frame(0, spec.Connection.Tune(2047, frame_max, 0))


def close(code: int, text: str) -> bytes:
    return wire.method_frame(0, spec.Connection.Close(code, text, 0, 0))


START, TUNED, OPEN_OK = start(), tune(), wire.method_frame(0, spec.Connection.OpenOk())
START_OK, OPEN = spec.Connection.StartOk, spec.Connection.Open
LYING_START = b"\0\x09" + wire.sized(wire.entry(b"a", b"?")) + bytes(8)

HANDSHAKES: dict[str, Handshake] = {
    "silence": Handshake((), HandshakeTimeout),
    "half a frame and silence": Handshake(((None, START[:50]),), HandshakeTimeout),
    "silence after Start": Handshake(((None, START),), HandshakeTimeout),
    "silence after Tune": Handshake(((None, START), (START_OK, TUNED)), HandshakeTimeout),
    "HTTP": Handshake(((None, b"HTTP/1.1 400 Bad Request\r\n\r\n"),), ProtocolViolation, 501),
    "TLS": Handshake(((None, b"\x15\x03\x01\x00\x02\x02\x28"),), ProtocolViolation, 501),
    "SSH": Handshake(((None, b"SSH-2.0-OpenSSH_9.2p1\r\n"),), ProtocolViolation, 501),
    "4 GiB claimed": Handshake(((None, b"\x01\0\0\xff\xff\xff\xff"),), ProtocolViolation, 501),
    "Start that lies": Handshake(
        ((None, wire.raw_method(0, spec.Connection.Start.INDEX, LYING_START)),),
        ProtocolViolation,
        502,
    ),
    "Tune before Start": Handshake(((None, TUNED),), ProtocolViolation, 503),
    "OpenOk before Start": Handshake(((None, OPEN_OK),), ProtocolViolation, 503),
    "OpenOk before Tune": Handshake(((None, START), (START_OK, OPEN_OK)), ProtocolViolation, 503),
    "Start again": Handshake(((None, START), (START_OK, START)), ProtocolViolation, 503),
    "Tune again": Handshake(
        ((None, START), (START_OK, TUNED), (OPEN, TUNED)), ProtocolViolation, 503
    ),
    "a delivery": Handshake(
        ((None, START), (START_OK, wire.content(1, b"x"))), ProtocolViolation, 504
    ),
    "frame_max 1": Handshake(((None, START), (START_OK, tune(1))), ProtocolViolation, 501),
    "frame_max 4095": Handshake(((None, START), (START_OK, tune(4095))), ProtocolViolation, 501),
    "another version": Handshake(
        ((None, b"AMQP\x01\x01\x00\x0a"),), exceptions.IncompatibleProtocolError, ends=True
    ),
    "Start of another version": Handshake(
        ((None, start((8, 0))),), exceptions.IncompatibleProtocolError
    ),
    "no mechanism in common": Handshake(
        ((None, start(mechanisms="GSSAPI EXTERNAL")),), exceptions.AuthenticationError
    ),
    "login refused": Handshake(
        ((None, START), (START_OK, close(403, "ACCESS_REFUSED"))),
        exceptions.ProbableAuthenticationError,
        403,
    ),
    "virtual host refused": Handshake(
        ((None, START), (START_OK, TUNED), (OPEN, close(530, "NOT_ALLOWED"))),
        exceptions.ProbableAccessDeniedError,
        530,
    ),
    "node in maintenance": Handshake(
        ((None, START), (START_OK, close(320, "CONNECTION_FORCED"))),
        exceptions.ConnectionClosedByBroker,
        320,
    ),
    "end before Start": Handshake((), exceptions.IncompatibleProtocolError, ends=True),
    "end after Start": Handshake(
        ((None, START), (START_OK, b"")), exceptions.ProbableAuthenticationError, ends=True
    ),
    "end after Tune": Handshake(
        ((None, START), (START_OK, TUNED), (OPEN, b"")),
        exceptions.ProbableAccessDeniedError,
        ends=True,
    ),
}
