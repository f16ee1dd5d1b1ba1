"""What the codec raises or returns in place of a frame."""

from __future__ import annotations

from typing import Any

from pika import exceptions


class FieldError(Exception):
    """An argument, property or table entry that can't be what it claims to be."""


class OversizedContent:
    """Comes out instead of the header of a content that is longer than ``max_message_size``."""

    def __init__(self, channel_number: int, method: Any, body_size: int, limit: int) -> None:
        self.channel_number = channel_number
        self.method = method
        self.body_size = body_size
        self.limit = limit

    def __repr__(self) -> str:
        return (
            f"<OversizedContent channel_number={self.channel_number} method={self.method!r} "
            f"body_size={self.body_size} limit={self.limit}>"
        )


class DecodeError(exceptions.ProtocolSyntaxError):
    """The peer's bytes break the protocol: the connection has to be closed with ``reply_code``."""

    def __init__(self, reply_code: int, reply_text: str) -> None:
        super().__init__(reply_code, reply_text)
        self.reply_code = reply_code
        self.reply_text = reply_text

    def __str__(self) -> str:
        return f"{self.reply_text} ({self.reply_code})"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.reply_code!r}, {self.reply_text!r})"


class UndecodableProperties(exceptions.AMQPError):
    """A property was touched whose octets on the wire mean nothing; ``raw`` holds them all.

    Deliberately no AttributeError: ``getattr(properties, "headers", None)`` must not hide it.
    """

    def __init__(self, text: str, raw: bytes | None) -> None:
        super().__init__(text, raw)
        self.raw = raw

    def __str__(self) -> str:
        return str(self.args[0])

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.args[0]!r})"


class UnsupportedField(exceptions.UnsupportedAMQPFieldException, TypeError):
    """A header value of a type that AMQP has no field for."""

    def __str__(self) -> str:
        return str(self.args[0])
