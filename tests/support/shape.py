"""Plain, strictly comparable pictures of what comes out of a decoder.

``==`` is too weak for a differential test: True == 1 == 1.0, nan != nan, pika compares objects of
different classes as equal. A shape holds the exact types too.
"""

from __future__ import annotations

import inspect
import struct
from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import Any

from pika import exceptions, frame, spec

Shape = tuple[Any, ...]

PROPERTY_NAMES = tuple(list(inspect.signature(spec.BasicProperties.__init__).parameters)[1:])
ARGUMENT_NAMES = {
    method.INDEX: tuple(list(inspect.signature(method.__init__).parameters)[1:])
    for method in spec.methods.values()
}
UNDECODABLE = ("undecodable",)


def of_value(value: Any) -> Shape:
    """A field's value with its exact type, all the way down."""
    kind = type(value)
    if kind is dict:
        return ("dict", *((of_value(key), of_value(item)) for key, item in value.items()))
    if kind is list:
        return ("list", *map(of_value, value))
    if kind is float:
        return ("float", struct.pack(">d", value))
    if kind is Decimal:
        return ("Decimal", value.as_tuple())
    if kind is datetime:
        return ("datetime", value.replace(tzinfo=None), value.utcoffset())
    return (kind.__name__, value)


def of_method(method: Any) -> Shape:
    names = ARGUMENT_NAMES[method.INDEX]
    return (method.NAME, *(of_value(getattr(method, name)) for name in names))


def of_properties(properties: Any) -> Shape:
    """All 14 fields, UNDECODABLE for those that say so on touch."""
    fields = []
    for name in PROPERTY_NAMES:
        try:
            fields.append(of_value(getattr(properties, name)))
        except exceptions.AMQPError:
            fields.append(UNDECODABLE)
    return tuple(fields)


def of_frame(item: Any) -> Shape:
    """A frame of pika's, or a codec's OversizedContent."""
    kind = type(item)
    if kind is frame.Method:
        return ("method", item.channel_number, of_method(item.method))
    if kind is frame.Header:
        return ("header", item.channel_number, item.body_size, of_properties(item.properties))
    if kind is frame.Body:
        return ("body", item.channel_number, of_value(item.fragment))
    if kind is frame.Heartbeat:
        return ("heartbeat", item.channel_number)
    if kind is frame.ProtocolHeader:
        return ("protocol", item.major, item.minor, item.revision)
    return (
        "oversized",
        item.channel_number,
        of_method(item.method),
        item.body_size,
        item.limit,
    )


def of_message(message: Any) -> Shape:
    """A message of a direct delivery, apart from its channel object."""
    _, method, properties, body = message
    return (of_method(method), of_properties(properties), of_value(body))


def of_error(reply_code: int) -> Shape:
    return ("error", reply_code)


def drained(decoder: Any) -> list[Shape]:
    """Everything the decoder has, up to None or the error, which has to stay."""
    shapes: list[Shape] = []
    try:
        while (item := decoder.next_frame()) is not None:
            shapes.append(of_frame(item))
    except exceptions.ProtocolSyntaxError as error:
        shapes.append(of_error(error.reply_code))
    return shapes


def trace(decoder: Any, chunks: Iterable[bytes]) -> list[Shape]:
    """What comes out when the chunks are fed one by one and drained after each."""
    shapes: list[Shape] = []
    for chunk in chunks:
        decoder.feed(chunk)
        shapes += drained(decoder)
        if shapes and shapes[-1][0] == "error":
            break
    return shapes
