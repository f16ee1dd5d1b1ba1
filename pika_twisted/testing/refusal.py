"""What the broker answers instead of doing what it was asked: a code, and RabbitMQ's text."""

from __future__ import annotations

NAMES = {
    311: "CONTENT_TOO_LARGE",
    320: "CONNECTION_FORCED",
    402: "INVALID_PATH",
    403: "ACCESS_REFUSED",
    404: "NOT_FOUND",
    405: "RESOURCE_LOCKED",
    406: "PRECONDITION_FAILED",
    501: "FRAME_ERROR",
    502: "SYNTAX_ERROR",
    503: "COMMAND_INVALID",
    504: "CHANNEL_ERROR",
    505: "UNEXPECTED_FRAME",
    506: "RESOURCE_ERROR",
    530: "NOT_ALLOWED",
    540: "NOT_IMPLEMENTED",
    541: "INTERNAL_ERROR",
}

#: Bytes of a short string.
_LONGEST = 255

#: These close one channel; all others close the connection.
OF_CHANNELS = frozenset((311, 403, 404, 405, 406))


class Refusal(Exception):
    """The reason to close a channel or a connection.

    :param code: AMQP's reply code; it decides whether the channel or the connection is closed
    :param text: the text behind the code's name; None where the whole text is the name
    """

    def __init__(self, code: int, text: str | None = None) -> None:
        super().__init__(code, text)
        self.code = code
        self.text = reply_text(code, text)
        self.hard = code not in OF_CHANNELS


def reply_text(code: int, text: str | None) -> str:
    """Return the text as it stands in a Close method, with the code's name in front."""
    name = NAMES.get(code, "")
    if text is None:
        return name
    if name and not text.startswith(f"{name} - ") and text != name:
        text = f"{name} - {text}"
    encoded = text.encode()
    if len(encoded) > _LONGEST:  # cut as RabbitMQ cuts it
        text = encoded[: _LONGEST - 3].decode(errors="ignore") + "..."
    return text


def no_queue(vhost: str, name: str) -> Refusal:
    """Return the refusal of what names a queue that is not there."""
    return Refusal(404, f"no queue '{name}' in vhost '{vhost}'")


def no_exchange(vhost: str, name: str) -> Refusal:
    """Return the refusal of what names an exchange that is not there."""
    return Refusal(404, f"no exchange '{name}' in vhost '{vhost}'")


def in_exclusive_use(vhost: str, name: str) -> Refusal:
    """Return the refusal of a consumer where a queue has an exclusive one, or should get one."""
    return Refusal(403, f"queue '{name}' in vhost '{vhost}' in exclusive use")


def locked(vhost: str, name: str) -> Refusal:
    """Return the refusal of what another connection asks of an exclusive queue."""
    return Refusal(
        405,
        f"cannot obtain exclusive access to locked queue '{name}' in vhost '{vhost}'. It could be "
        "originally declared on another connection or the exclusive property value does not match "
        "that of the original declaration.",
    )


def inequivalent(
    what: str, name: str, vhost: str, kind: str, received: str, current: str
) -> Refusal:
    """Return the refusal of a declaration that differs from what is there."""
    return Refusal(
        406,
        f"inequivalent arg '{what}' for {kind} '{name}' in vhost '{vhost}': "
        f"received {received} but current is {current}",
    )
