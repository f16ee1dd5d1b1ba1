"""Spans of OpenTelemetry: publishes, handlers, gets, batches; and the instrumentation of pika."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.instrumentation.pika import PikaInstrumentor
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from pika import spec
from pika.exceptions import UnroutableError
from twisted.internet import task

import pika_twisted
from pika_twisted.observing import tracing
from pika_twisted.testing import Broker


class Spans:
    """A tracer provider, and the spans that ended."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    def named(self, name: str) -> list[ReadableSpan]:
        return [each for each in self._exporter.get_finished_spans() if each.name == name]

    def one(self, name: str) -> ReadableSpan:
        (span,) = self.named(name)
        return span


@pytest.fixture
def spans() -> Iterator[Spans]:
    made = Spans()
    tracing.instrument(made.provider)
    yield made
    tracing.uninstrument()


def span_id(span: ReadableSpan) -> int:
    assert span.context is not None
    return span.context.span_id


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def test_a_publish_and_its_handler(spans: Spans) -> None:
    broker = Broker()
    handled: list[Any] = []

    async def work() -> None:
        channel = await (await broker.connect()).channel()
        await channel.confirm_delivery()
        await channel.queue_declare("work", durable=True)

        async def handler(message: Any) -> None:
            inside = trace.get_current_span().get_span_context().span_id
            handled.append((message, inside))

        handling = await pika_twisted.consume(channel, "work", handler, reactor=broker.reactor)
        publisher = await (await broker.connect()).channel()
        await publisher.confirm_delivery()
        properties = spec.BasicProperties(message_id="m1", headers={"own": 1})
        await publisher.basic_publish("", "work", b"hello", properties)
        assert properties.headers == {"own": 1}  # the user's object is not changed
        await handling.stop()

    broker.run(work())
    publish, process = spans.one("publish work"), spans.one("process work")
    ((message, inside),) = handled
    assert inside == span_id(process)
    assert message.properties.headers["own"] == 1
    assert process.parent is not None
    assert process.parent.span_id == span_id(publish)
    assert publish.kind is SpanKind.PRODUCER
    assert process.kind is SpanKind.CONSUMER
    assert attributes(publish) == {
        "messaging.system": "rabbitmq",
        "messaging.operation.type": "send",
        "messaging.operation.name": "publish",
        "messaging.destination.name": "",
        "messaging.rabbitmq.destination.routing_key": "work",
        "messaging.message.body.size": 5,
        "messaging.message.id": "m1",
        "server.address": "localhost",
        "server.port": 5672,
    }
    assert attributes(process)["messaging.rabbitmq.message.delivery_tag"] == 1
    assert attributes(process)["messaging.operation.type"] == "process"


def test_a_publish_ends_with_its_confirm(spans: Spans) -> None:
    broker = Broker()

    async def work() -> None:
        channel = await (await broker.connect()).channel()
        await channel.confirm_delivery()
        with pytest.raises(UnroutableError):
            await channel.basic_publish("", "nowhere", b"", None, True)

    broker.run(work())
    span = spans.one("publish nowhere")
    assert span.status.status_code is StatusCode.ERROR
    assert attributes(span)["error.type"] == "UnroutableError"


def test_a_handler_that_fails(spans: Spans) -> None:
    broker = Broker()

    async def work() -> None:
        channel = await (await broker.connect()).channel()
        await channel.queue_declare("work", durable=True)
        await channel.basic_publish("", "work", b"")

        async def handler(_message: Any) -> None:
            raise LookupError("no such order")

        handling = await pika_twisted.consume(
            channel, "work", handler, on_error="dead-letter", reactor=broker.reactor
        )
        while not handling.failed:
            await task.deferLater(broker.reactor, 0.1)
        await handling.stop()

    broker.run(work())
    span = spans.one("process work")
    assert span.status.status_code is StatusCode.ERROR
    assert attributes(span)["error.type"] == "LookupError"


def test_gets_and_batches_are_linked_to_their_publishes(spans: Spans) -> None:
    broker = Broker()

    async def work() -> None:
        channel = await (await broker.connect()).channel()
        await channel.queue_declare("work", durable=True)
        for number in range(3):
            await channel.basic_publish("", "work", b"%d" % number)
        got = await channel.basic_get("work")
        got.ack()
        queue, _tag = await channel.basic_consume("work")
        batch = [await queue.get() for _ in range(2)]
        with tracing.processing(batch, "work", tracer_provider=spans.provider):
            for message in batch:
                message.ack()

    broker.run(work())
    first, second, third = spans.named("publish work")
    assert [each.context.span_id for each in spans.one("receive work").links] == [span_id(first)]
    batch = spans.one("process work")
    assert attributes(batch)["messaging.batch.message_count"] == 2
    linked = [each.context.span_id for each in batch.links]
    assert linked == [span_id(second), span_id(third)]


def test_one_message_by_hand(spans: Spans) -> None:
    broker = Broker()

    async def work() -> None:
        channel = await (await broker.connect()).channel()
        await channel.queue_declare("work", durable=True)
        await channel.basic_publish("", "work", b"")
        queue, _tag = await channel.basic_consume("work")
        message = await queue.get()
        with (
            pytest.raises(LookupError),
            tracing.processing(message, "work", tracer_provider=spans.provider),
        ):
            raise LookupError("no such order")

    broker.run(work())
    process = spans.one("process work")
    assert process.parent is not None
    assert process.parent.span_id == span_id(spans.one("publish work"))
    assert attributes(process)["error.type"] == "LookupError"


def test_headers_that_can_not_be_decoded_cost_only_the_context(spans: Spans) -> None:
    class Poison:
        @property
        def headers(self) -> Any:
            raise pika_twisted.exceptions.UndecodableProperties("bad", b"")

    message = pika_twisted.ReceivedMessage(None, spec.Basic.Deliver(), Poison(), b"")  # type: ignore[arg-type]
    assert not tracing.extract(message)


def test_nothing_is_added_without_it() -> None:
    broker = Broker()

    async def work() -> None:
        channel = await (await broker.connect()).channel()
        assert channel.basic_publish == channel._channel.encoder.basic_publish
        assert "basic_get" not in vars(channel)

    broker.run(work())


def test_the_instrumentation_of_pika_keeps_its_spans() -> None:
    """A program that swaps the import goes on to have the spans that it had with pika's adapter."""
    made = Spans()
    instrumentor = PikaInstrumentor()
    instrumentor.instrument(tracer_provider=made.provider)
    broker = Broker()
    bodies: list[bytes] = []

    async def work() -> None:
        channel = await (await broker.connect()).channel()
        await channel.confirm_delivery()
        await channel.queue_declare("work", durable=True)
        queue, _tag = await channel.basic_consume("work")
        confirmed = await channel.basic_publish("", "work", b"hello")
        assert isinstance(confirmed, spec.Basic.Ack)
        message = await queue.get()
        bodies.append(message.body)
        traceparent = message.properties.headers["traceparent"]
        assert format(span_id(made.one("work send")), "016x") in traceparent
        message.ack()

    try:
        broker.run(work())
    finally:
        instrumentor.uninstrument()
    assert bodies == [b"hello"]
