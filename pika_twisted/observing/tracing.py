"""Spans for OpenTelemetry: producers, handlers, gets and batches.

`instrument()` switches it on, for the channels and consumers that are made afterwards. Needs the
extra `opentelemetry` (`opentelemetry-api` alone; an SDK is the program's choice). Names and
attributes are those of OpenTelemetry's semantic conventions for messaging and RabbitMQ:

- a publish is a PRODUCER span "publish EXCHANGE" that ends with its confirm, where there are some;
  its context travels in the message's headers;
- the handler of `consume()` runs in a CONSUMER span "process QUEUE", a child of the publish;
- `basic_get()` is a CLIENT span "receive QUEUE", linked to the publish;
- `processing()` does for loops over `get()`, `get_many()` and `async for` what `consume()` does; a
  batch has a link to each of its messages.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, Tracer, TracerProvider
from pika import exceptions as pika_exceptions
from pika import spec
from twisted.internet import defer
from twisted.python.failure import Failure

from pika_twisted import _instruments
from pika_twisted.channel.queue import ReceivedMessage

__all__ = ["extract", "instrument", "processing", "uninstrument"]

_SCOPE = "pika_twisted"


def instrument(tracer_provider: TracerProvider | None = None) -> None:
    """Make spans for every channel and `consume()` that is made from now on.

    A second call replaces the provider for what is made after it.

    :param tracer_provider: where spans go; OpenTelemetry's global one by default
    """
    uninstrument()
    _instruments.add(_Tracing(trace.get_tracer(_SCOPE, tracer_provider=tracer_provider)))


def uninstrument() -> None:
    """Make no spans for channels and consumers that are made from now on."""
    for each in [each for each in _instruments.added() if isinstance(each, _Tracing)]:
        _instruments.remove(each)


def extract(message: ReceivedMessage[Any]) -> Context:
    """Return the context that a message brings in its headers; empty when there is none."""
    return propagate.extract(_headers(message), context=Context())


@contextmanager
def processing(
    messages: ReceivedMessage[Any] | Iterable[ReceivedMessage[Any]],
    queue: str = "",
    *,
    tracer_provider: TracerProvider | None = None,
) -> Iterator[Span]:
    """Run the body of a `with` statement in a CONSUMER span.

    For one message the span is a child of its publish; for several it has a link to each. An
    exception ends the span as failed and goes on.

    :param messages: a message, or an iterable of messages that are handled together
    :param queue: the queue that they came from, for the span's name
    :param tracer_provider: where the span goes; OpenTelemetry's global one by default
    """
    tracer = trace.get_tracer(_SCOPE, tracer_provider=tracer_provider)
    if isinstance(messages, ReceivedMessage):
        with _processing_one(tracer, messages, queue) as span:
            yield span
        return
    batch = list(messages)
    attributes: dict[str, Any] = {
        **_operation("process", "process"),
        "messaging.batch.message_count": len(batch),
    }
    links = [Link(_creation(message)) for message in batch if _creation(message).is_valid]
    name = f"process {queue}".rstrip()
    with _span(tracer, name, SpanKind.CONSUMER, attributes, links=links) as span:
        yield span


class _Tracing:
    """The instrument that makes spans with one tracer."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def on_channel(self, channel: Any) -> None:
        channel.basic_publish = self._traced_publish(channel, channel.basic_publish)
        channel.basic_get = self._traced_get(channel, channel.basic_get)

    def around(self, queue: str) -> Callable[[Any], AbstractContextManager[Any]]:
        return lambda message: _processing_one(self._tracer, message, queue)

    def _traced_publish(self, channel: Any, publish: Callable[..., Any]) -> Callable[..., Any]:
        server = _server(channel)

        def basic_publish(
            exchange: str,
            routing_key: str,
            body: bytes,
            properties: spec.BasicProperties | None = None,
            mandatory: bool = False,
        ) -> defer.Deferred[Any]:
            attributes = {
                **_operation("send", "publish"),
                **_destination(exchange, routing_key),
                **_message(properties, body),
                **server,
            }
            span = self._tracer.start_span(
                f"publish {exchange or routing_key}".rstrip(),
                kind=SpanKind.PRODUCER,
                attributes=attributes,
            )
            with trace.use_span(span, end_on_exit=False):
                properties = _with_context(properties)
                publishing = publish(exchange, routing_key, body, properties, mandatory)
            return publishing.addBoth(_end, span)  # type: ignore[no-any-return]

        return basic_publish

    def _traced_get(self, channel: Any, get: Callable[..., Any]) -> Callable[..., Any]:
        server = _server(channel)

        def basic_get(queue: str, auto_ack: bool = False) -> defer.Deferred[Any]:
            attributes = {**_operation("receive", "receive"), **server}
            span = self._tracer.start_span(
                f"receive {queue}".rstrip(), kind=SpanKind.CLIENT, attributes=attributes
            )

            def got(message: Any) -> Any:
                if isinstance(message, ReceivedMessage):
                    method = message.method
                    span.set_attributes(_destination(method.exchange, method.routing_key))
                    span.set_attributes(_message(message.properties, message.body))
                    if _creation(message).is_valid:
                        span.add_link(_creation(message))
                return message

            return get(queue, auto_ack).addCallback(got).addBoth(_end, span)  # type: ignore[no-any-return]

        return basic_get


@contextmanager
def _processing_one(tracer: Tracer, message: ReceivedMessage[Any], queue: str) -> Iterator[Span]:
    method: Any = message.method
    attributes: dict[str, Any] = {
        **_operation("process", "process"),
        **_destination(method.exchange, method.routing_key),
        **_message(message.properties, message.body),
        **_server(message.channel),
        "messaging.rabbitmq.message.delivery_tag": method.delivery_tag,
    }
    name = f"process {queue or method.routing_key}".rstrip()
    with _span(tracer, name, SpanKind.CONSUMER, attributes, context=extract(message)) as span:
        yield span


@contextmanager
def _span(
    tracer: Tracer, name: str, kind: SpanKind, attributes: dict[str, Any], **options: Any
) -> Iterator[Span]:
    """A span that is the current one within; `error.type` and its status say how it went."""
    with tracer.start_as_current_span(
        name, kind=kind, attributes=attributes, record_exception=False, **options
    ) as span:
        try:
            yield span
        except BaseException as error:
            _note_error(span, error)
            raise


def _end(result: Any, span: Span) -> Any:
    if isinstance(result, Failure) and result.value is not None:
        _note_error(span, result.value)
    span.end()
    return result


def _note_error(span: Span, error: BaseException) -> None:
    span.set_attribute("error.type", type(error).__qualname__)
    span.record_exception(error)
    span.set_status(Status(StatusCode.ERROR, str(error)))


def _operation(kind: str, name: str) -> dict[str, str]:
    return {
        "messaging.system": "rabbitmq",
        "messaging.operation.type": kind,
        "messaging.operation.name": name,
    }


def _destination(exchange: Any, routing_key: Any) -> dict[str, str]:
    """The exchange's name, empty for the default exchange, as the conventions for RabbitMQ say."""
    found = {"messaging.destination.name": str(exchange)}
    if routing_key:
        found["messaging.rabbitmq.destination.routing_key"] = str(routing_key)
    return found


def _message(properties: Any, body: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if isinstance(body, str):
        body = body.encode(errors="replace")
    if isinstance(body, (bytes, bytearray, memoryview)):
        found["messaging.message.body.size"] = memoryview(body).nbytes
    for field, attribute in (
        ("message_id", "messaging.message.id"),
        ("correlation_id", "messaging.message.conversation_id"),
    ):
        try:
            value = getattr(properties, field, None)
        except pika_exceptions.AMQPError:  # properties that can't be decoded
            continue
        if value is not None:
            found[attribute] = str(value)
    return found


def _server(channel: Any) -> dict[str, Any]:
    params = getattr(getattr(channel, "connection", None), "params", None)
    host, port = getattr(params, "host", None), getattr(params, "port", None)
    return {"server.address": host, "server.port": port} if host and port else {}


def _headers(message: ReceivedMessage[Any]) -> Mapping[str, str]:
    """The headers of a message that are text: all that a propagator can use."""
    try:
        headers = message.properties.headers or {}
    except pika_exceptions.AMQPError:  # headers that can't be decoded
        return {}
    return {key: value for key, value in headers.items() if isinstance(value, str)}


def _creation(message: ReceivedMessage[Any]) -> trace.SpanContext:
    return trace.get_current_span(extract(message)).get_span_context()


def _with_context(properties: spec.BasicProperties | None) -> spec.BasicProperties:
    """A copy of the user's properties with the current context in its headers."""
    copied = spec.BasicProperties() if properties is None else copy.copy(properties)
    try:
        headers = dict(copied.headers or {})
    except (pika_exceptions.AMQPError, TypeError, ValueError):
        return copied  # the publish itself says what is wrong
    propagate.inject(headers)
    copied.headers = headers or None
    return copied
