"""Arguments looked at before anything begins: the error names the one, and says what is right."""

from __future__ import annotations

from typing import Any

import pika
from pika import spec

from pika_twisted.codec.methods import encode_method

#: Seconds. The gain is there at 0.5 ms (docs/tuning.md). What is acked in the delay comes again
#: after a crash: of a second 30,000 messages, at the rates measured there.
LONGEST_ACK_DELAY = 1.0


def check_parameters(parameters: Any) -> None:
    """TypeError for a URL where pika's parameters belong, ValueError for what AMQP can't say."""
    if isinstance(parameters, (str, bytes)):
        # Not the value: there may be a password in it.
        raise TypeError(
            "parameters are pika.ConnectionParameters(...), or of a URL pika.URLParameters(url), "
            f"not {type(parameters).__name__}; pika_twisted.connect(url) takes the URL itself"
        )
    heartbeat = getattr(parameters, "heartbeat", None)
    if isinstance(heartbeat, int) and heartbeat > 0xFFFF:  # else the handshake finds it out
        raise ValueError(f"heartbeat is in seconds, at most 65,535, not {heartbeat}")
    for name in ("virtual_host", "locale"):
        text = getattr(parameters, name, None)
        if isinstance(text, str) and (size := len(text.encode("utf-8", "replace"))) > 255:
            raise ValueError(f"{name} has {size} bytes, AMQP's limit is 255")
    _check_credentials(getattr(parameters, "credentials", None))
    _check_client_properties(getattr(parameters, "client_properties", None))


def _check_credentials(credentials: Any) -> None:
    """TypeError or ValueError for what SASL's PLAIN can't say; never with the value."""
    if not isinstance(credentials, pika.PlainCredentials):
        return
    for name in ("username", "password"):
        value = getattr(credentials, name)
        if value is not None and not isinstance(value, (str, bytes)):
            raise TypeError(f"credentials: the {name} is a str, not {type(value).__name__}")
        raw = value.encode("utf-8", "replace") if isinstance(value, str) else value or b""
        if b"\0" in raw:
            raise ValueError(f"credentials: the {name} has a NUL, which PLAIN can't say")


def _check_client_properties(properties: Any) -> None:
    """TypeError or ValueError naming the one that AMQP's tables have no type for."""
    if not isinstance(properties, dict):
        return
    for name, value in properties.items():
        try:
            encode_method(0, spec.Connection.StartOk({name: value}, "PLAIN", "", "en_US"))
        except Exception as error:
            # Not its text, which may hold the value.
            kind = ValueError if isinstance(value, (int, str)) else TypeError
            raise kind(
                f"client_properties: {name!r} can't be sent: there is a value in it, or it is one, "
                f"that AMQP has no type for, of {type(value).__name__} ({type(error).__name__})"
            ) from None


def check_whole(**limits: Any) -> None:
    """TypeError or ValueError for a limit that is no whole number between 0 and 2**63 - 1."""
    for name, value in limits.items():
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name} is a whole number, not {value!r}")
        if not 0 <= value < 1 << 63:
            raise ValueError(f"{name} is between 0 and 2**63 - 1, not {value}")


def check_seconds(**limits: Any) -> None:
    """TypeError or ValueError for a time limit that is no number, or below 0. None may be one."""
    for name, value in limits.items():
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"{name} is a number of seconds, not {value!r}")
        if not value >= 0:
            raise ValueError(f"{name} is not below 0 s, as {value} is")


def check_some_seconds(**limits: Any) -> None:
    """The same where there has to be a limit: None is a TypeError, too."""
    for name, value in limits.items():
        if value is None:
            raise TypeError(f"{name} is a number of seconds, not None")
    check_seconds(**limits)


def check_auto_ack(method: str, auto_ack: Any) -> None:
    """TypeError for a callback, which the other adapters of pika take in its place.

    It is true: every message would count as acknowledged at its delivery.
    """
    if callable(auto_ack):
        raise TypeError(
            f"{method}() takes no callback, and auto_ack is True or False, not {auto_ack!r}; "
            "messages come from what the Deferred fires with"
        )


def check_ack_delay(ack_delay: Any, ack_batching: int) -> None:
    """TypeError or ValueError for a delay that is no number from 0 to 1 s, or for single acks."""
    if isinstance(ack_delay, bool) or not isinstance(ack_delay, (int, float)):
        raise TypeError(f"ack_delay is a number of seconds, not {ack_delay!r}")
    if not 0 <= ack_delay <= LONGEST_ACK_DELAY:
        raise ValueError(f"ack_delay is between 0 and {LONGEST_ACK_DELAY:g} s, not {ack_delay}")
    if ack_delay and ack_batching <= 1:
        raise ValueError("set ack_batching first: ack_delay is for acks that leave together")


def check_callable(**functions: Any) -> None:
    """TypeError naming the one that is neither None nor can be called."""
    for name, value in functions.items():
        if value is not None and not callable(value):
            raise TypeError(f"{name} is called; {value!r} can't be")


def check_prefetch_count(prefetch_count: Any) -> None:
    """TypeError or ValueError for what doesn't fit into Basic.Qos."""
    check_whole(prefetch_count=prefetch_count)
    if prefetch_count > 0xFFFF:
        raise ValueError(f"prefetch_count is at most 65,535, not {prefetch_count}")


def check_table(**tables: Any) -> None:
    """TypeError naming the argument that is neither a dict nor None."""
    for name, value in tables.items():
        if value is not None and not isinstance(value, dict):
            raise TypeError(f"{name} is a dict or None, not {value!r}")
