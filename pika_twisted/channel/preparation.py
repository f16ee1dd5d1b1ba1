"""Publishes that can't leave yet: checked at the call, and copied."""

from __future__ import annotations

import copy
from typing import Any

from pika_twisted.codec.chooser import OutputBuffer
from pika_twisted.codec.to_wire import body_octets

#: What a broker takes is known when there is one.
_ANY_SIZE = 1 << 30


class Preparation:
    """Checks and copies arguments of `basic_publish()`."""

    def __init__(self) -> None:
        self._buffer = OutputBuffer(frame_max=_ANY_SIZE)
        self._encoder = self._buffer.channel(1)

    def copied(
        self, exchange: Any, routing_key: Any, body: Any, properties: Any, mandatory: Any
    ) -> tuple[Any, ...]:
        """Return the arguments, to be used later, as they are now.

        :raises TypeError, ValueError: one can't be encoded; as `basic_publish()`
        """
        body = body_octets(body)
        self._encoder.publish(exchange, routing_key, b"", properties, mandatory)
        self._buffer.take()
        if properties is not None:
            properties = copy.copy(properties)
            properties.headers = copy.deepcopy(properties.headers)
        return (exchange, routing_key, body, properties, mandatory)
