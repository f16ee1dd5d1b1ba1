"""What the codec raises. Knows pika's exception tree and nothing else of this package."""

from __future__ import annotations

from pika import exceptions


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
    """A header value of a type that AMQP has no field for, or none that pika sends."""

    def __str__(self) -> str:
        return str(self.args[0])
