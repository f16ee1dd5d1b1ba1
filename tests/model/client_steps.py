"""The steps of the client under test."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pika
from pika import exceptions, spec
from twisted.internet import defer

from pika_twisted import AlreadySettled, Publisher
from tests.model import handlers
from tests.model.program import Step
from tests.model.records import Channel, Connection, Consumer, ProvokedError, PublisherRecord
from tests.model.world import QUEUES, World, failure_of

#: What a call on a closed channel raises, or its Deferred fails with.
_GONE = (exceptions.ChannelWrongStateError, exceptions.ConnectionWrongStateError)
_TAGS = ("t0", "t1", None)


class ClientSteps:
    """`do_NAME(step)` for each step of the client."""

    def __init__(self, world: World) -> None:
        self.world = world

    # What a step works on

    def _connection(self, number: int) -> Connection | None:
        return _pick([each for each in self.world.connections if each.alive], number)

    def _channel(self, number: int) -> Channel | None:
        plain = [each for each in self.world.channels if each.handling is None]
        if number % 10:
            plain = [each for each in plain if each.alive]
        return _pick(plain, number)

    def _consumer(self, number: int) -> Consumer | None:
        consumers = [each for channel in self.world.channels for each in channel.consumers]
        if number % 10:
            consumers = [each for each in consumers if each.queue.closed is None] or consumers
        return _pick(consumers, number)

    def _holder(self, number: int) -> Channel | None:
        return _pick([each for each in self.world.channels if each.held], number)

    def _call(self, step: Step, channel: Channel, deferred: defer.Deferred[Any]) -> None:
        self.world.watch("call", deferred, channel=channel, inside=step.inside)

    # Channels and connections

    def do_connect(self, step: Step) -> None:
        if len(self.world.connections) < 3:
            self.world.watch("connect", self.world.connect(), inside=step.inside)

    def do_channel(self, step: Step) -> None:
        connection = self._connection(step.a)
        if connection is not None:
            self.world.open_channel(connection, step.b, step.c)

    def do_close_channel(self, step: Step) -> None:
        channel = self._channel(step.a)
        if channel is not None and channel.alive:
            channel.closed_by_us = True
            self._expect_none(channel, failure_of(channel.client.close))

    def do_close_connection(self, step: Step) -> None:
        connection = self._connection(step.a)
        if connection is not None:
            connection.closed_by_us = True
            self.world.watch(
                "close", connection.client.close(), connection=connection, inside=step.inside
            )

    def _expect_none(self, channel: Channel, error: BaseException | None) -> None:
        if error is not None and not (isinstance(error, _GONE) and not self._is_open(channel)):
            self.world.complain(f"raised {error!r} on {channel.client!r}")

    @staticmethod
    def _is_open(channel: Channel) -> bool:
        # A channel of a connection that has just been lost learns it a moment later.
        return channel.client.is_open and channel.connection.client.is_open

    def do_qos(self, step: Step) -> None:
        channel = self._channel(step.a)
        if channel is not None:
            self._call(step, channel, channel.client.basic_qos(prefetch_count=step.b % 5))

    def do_declare(self, step: Step) -> None:
        channel = self._channel(step.a)
        if channel is not None:
            self._call(step, channel, channel.client.queue_declare(_queue(step.b)))

    def do_delete(self, step: Step) -> None:
        channel = self._channel(step.a)
        if channel is not None:
            self.world.deleted.add(_queue(step.b))
            self._call(step, channel, channel.client.queue_delete(_queue(step.b)))

    def do_purge(self, step: Step) -> None:
        channel = self._channel(step.a)
        if channel is not None:
            self._call(step, channel, channel.client.queue_purge(_queue(step.b)))

    def do_watch_frame(self, step: Step) -> None:
        channel = self._channel(step.a)
        if channel is not None:
            deferred: defer.Deferred[Any] = defer.Deferred()
            self.world.watch("frame", deferred, channel=channel, inside=step.inside)
            channel.client.callback_deferred(deferred, [spec.Basic.CancelOk, spec.Basic.QosOk])

    # Consuming

    def do_consume(self, step: Step) -> None:
        channel = self._channel(step.a)
        if channel is None:
            return
        auto = step.c % 4 == 0
        name = _queue(step.b)

        def consuming(result: Any) -> Any:
            queue, tag = result
            channel.consumers.append(Consumer(channel, name, queue, tag, auto))
            return result

        deferred = channel.client.basic_consume(name, auto_ack=auto, consumer_tag=_TAGS[step.c % 3])
        self.world.watch(
            "consume",
            deferred.addCallback(consuming),
            channel=channel,
            about=auto,
            inside=step.inside,
        )

    def do_cancel_consumer(self, step: Step) -> None:
        consumer = self._consumer(step.a)
        if consumer is not None:
            consumer.cancelled = True
            channel = consumer.channel
            for other in channel.consumers:  # the tag may be another's by now
                other.cancelled = other.cancelled or other.tag == consumer.tag
            self._call(step, channel, channel.client.basic_cancel(consumer.tag))

    def do_get(self, step: Step) -> None:
        consumer = self._consumer(step.a)
        if consumer is not None:

            def got(message: Any) -> Any:
                self._take(consumer, message)
                return message

            self._waits(step, "get", consumer, consumer.queue.get().addCallback(got))

    def do_get_many(self, step: Step) -> None:
        consumer = self._consumer(step.a)
        if consumer is not None:

            def got(messages: Any) -> Any:
                if not 1 <= len(messages) <= 1 + step.b % 5:
                    self.world.complain(f"get_many({1 + step.b % 5}) gave {len(messages)}")
                for message in messages:
                    self._take(consumer, message)
                return messages

            deferred = consumer.queue.get_many(1 + step.b % 5).addCallback(got)
            self._waits(step, "get_many", consumer, deferred)

    def do_iterate(self, step: Step) -> None:
        consumer = self._consumer(step.a)
        if consumer is None:
            return

        async def loop(most: int) -> None:
            async for message in consumer.queue:
                self._take(consumer, message)
                most -= 1
                if not most:
                    return

        self._waits(step, "iterate", consumer, defer.Deferred.fromCoroutine(loop(1 + step.b % 5)))

    def _take(self, consumer: Consumer, message: Any) -> None:
        self.world.take(consumer.channel, message, consumer, consumer.auto_ack)

    def _waits(
        self, step: Step, kind: str, consumer: Consumer, deferred: defer.Deferred[Any]
    ) -> None:
        self.world.watch(
            kind, deferred, channel=consumer.channel, consumer=consumer, inside=step.inside
        )

    def do_drain(self, step: Step) -> None:
        consumer = self._consumer(step.a)
        if consumer is not None:
            for message in consumer.queue.drain():
                self._take(consumer, message)

    def do_close_queue(self, step: Step) -> None:
        consumer = self._consumer(step.a)
        if consumer is not None and consumer.queue.closed is None:
            consumer.closed_by_us = True
            consumer.queue.close(ProvokedError("closed by its user"))

    def do_basic_get(self, step: Step) -> None:
        channel = self._channel(step.a)
        if channel is None:
            return
        auto = step.c % 3 == 0

        def got(message: Any) -> Any:
            if message is not None:
                self.world.take(channel, message, None, auto)
            return message

        try:
            deferred = channel.client.basic_get(_queue(step.b), auto_ack=auto)
        except exceptions.DuplicateGetOkCallback:
            return
        self.world.watch(
            "basic_get", deferred.addCallback(got), channel=channel, about=auto, inside=step.inside
        )

    # Settling

    def do_ack(self, step: Step) -> None:
        self._settle(step, "ack")

    def do_nack(self, step: Step) -> None:
        self._settle(step, "nack", step.c % 4 != 0)

    def do_reject(self, step: Step) -> None:
        self._settle(step, "reject", step.c % 4 != 0)

    def _settle(self, step: Step, name: str, requeue: bool = True) -> None:
        channel = self._holder(step.a)
        if channel is None or channel.recovering:
            return
        message = channel.held[step.b % len(channel.held)]
        tag = message.method.delivery_tag
        by_message = channel.by_message or (channel.complete and step.c % 2 == 0)
        unseen = not by_message or channel.recovered
        if tag in channel.settled and unseen and not channel.complete:
            return  # the broker would close the channel
        options = () if name == "ack" else (requeue,)
        if by_message:
            error = failure_of(getattr(message, name), *options)
        elif name == "nack":
            error = failure_of(channel.client.basic_nack, tag, False, requeue)
        else:
            error = failure_of(getattr(channel.client, f"basic_{name}"), tag, *options)
        self._judge(channel, tag, error, name)
        if error is None:
            channel.settled.add(tag)
            (self.world.acked if name == "ack" else self.world.refused).add(message.body)
        if error is None or not channel.alive:
            channel.held.remove(message)
            if step.c % 5 == 0 and channel.alive:
                channel.held.append(message)  # to be settled again

    def _judge(self, channel: Channel, tag: int, error: BaseException | None, name: str) -> None:
        settled, open_ = tag in channel.settled, channel.client.is_open
        if error is None:
            if settled:
                self.world.complain(f"{name} of settled tag {tag} was taken")
        elif isinstance(error, AlreadySettled):
            if not settled:
                self.world.complain(f"{name} of open tag {tag}: {error!r}")
        elif not isinstance(error, exceptions.ChannelWrongStateError) or open_:
            self.world.complain(f"{name} of tag {tag}: {error!r}")

    def do_ack_up_to(self, step: Step) -> None:
        channel = self._holder(step.a)
        if (
            channel is None
            or channel.recovering
            or not (channel.complete or not channel.by_message)
        ):
            return
        tag = channel.held[step.b % len(channel.held)].method.delivery_tag
        if tag in channel.settled and not channel.complete:
            return
        received = self.world.received(channel)
        error = failure_of(channel.client.basic_ack, tag, True)
        self._judge(channel, tag, error, "ack up to")
        if error is None:
            self._sweep(channel, {each: received[each] for each in received if each <= tag})

    def do_ack_all(self, step: Step) -> None:
        channel = self._channel(step.a)
        if channel is None or not channel.complete or channel.recovering:
            return
        received = self.world.received(channel)
        error = failure_of(channel.client.basic_ack, 0, True)
        self._expect_none(channel, error)
        if error is None:
            self._sweep(channel, received)

    def _sweep(self, channel: Channel, received: dict[int, bytes]) -> None:
        self.world.acked.update(received[tag] for tag in received if tag not in channel.settled)
        channel.settled.update(received)

    def do_settle_again(self, step: Step) -> None:
        channel = self._holder(step.a)
        if channel is not None and (
            channel.complete or (channel.by_message and not channel.recovered)
        ):
            settled = [m for m in channel.held if m.method.delivery_tag in channel.settled]
            if settled and not channel.recovering:
                message = settled[step.b % len(settled)]
                error = failure_of(message.ack)
                self._judge(channel, message.method.delivery_tag, error, "ack again")
                channel.held.remove(message)

    def do_recover(self, step: Step) -> None:
        channel = self._channel(step.a)
        if channel is None:
            return
        channel.recovering += 1
        channel.recovered = True
        deferred = channel.client.basic_recover(True)
        channel.settled.update(self.world.received(channel))

        def recovered(result: Any) -> Any:
            channel.recovering -= 1
            channel.settled.update(self.world.received(channel))
            return result

        self.world.watch(
            "recover", deferred.addBoth(recovered), channel=channel, inside=step.inside
        )

    # Publishing

    def do_confirm(self, step: Step) -> None:
        channel = self._channel(step.a)
        if channel is not None:
            self._call(step, channel, self._confirming(channel, channel.client.confirm_delivery()))

    @staticmethod
    def _confirming(channel: Channel, answer: defer.Deferred[Any]) -> defer.Deferred[Any]:
        # Only then: Confirm.Select waits for calls before it, and publishes do not.
        def selected(result: Any) -> Any:
            channel.confirming = True
            return result

        return answer.addCallback(selected)

    def do_publish(self, step: Step) -> None:
        channel = self._channel(step.a)
        if channel is not None:
            key = "nowhere" if step.b % 5 == 0 else _queue(step.b)
            self._publish(step, channel, "", key, None, step.c % 2 == 0)

    def do_twins(self, step: Step) -> None:
        """Same exchange, key and body; a header decides where they go."""
        channel = self._channel(step.a)
        if channel is not None:
            for route in (step.b % 2 == 0, step.c % 2 == 0, step.b % 3 == 0):
                self._publish(step, channel, "h", "same", b"twin", True, route=route)

    def _publish(
        self,
        step: Step,
        channel: Channel,
        exchange: str,
        key: str,
        body: bytes | None,
        mandatory: bool,
        **headers: Any,
    ) -> None:
        number = self.world.number()
        properties = pika.BasicProperties(headers={"n": number, **headers})
        deferred = channel.client.basic_publish(
            exchange, key, b"c%d" % number if body is None else body, properties, mandatory
        )
        about = (number, mandatory, channel.confirming)
        self.world.watch("publish", deferred, channel=channel, about=about, inside=step.inside)

    def do_publisher(self, step: Step) -> None:
        channel = self._channel(step.a)
        if channel is None:
            return
        limit, most = (None, None, 1.0)[step.c % 3], (1, 1000)[step.b % 2]
        publisher = Publisher(
            channel.client,
            max_in_flight=1 + step.b % 3,
            max_waiting=most,
            timeout=limit,
            reactor=self.world.clock,
        )
        self.world.publishers.append(PublisherRecord(channel, publisher, limit, most))

    def do_publisher_publish(self, step: Step) -> None:
        record = _pick(self.world.publishers, step.a)
        if record is None:
            return
        number = self.world.number()
        key = "nowhere" if step.b % 5 == 0 else _queue(step.b)
        body = bytearray(b"c%d" % number)
        properties = pika.BasicProperties(headers={"n": number})
        mandatory = step.c % 3 != 0
        deferred = record.publisher.publish("", key, body, properties, mandatory=mandatory)
        body[:] = b"changed"
        properties.headers["n"] = -number
        self.world.watch(
            "publisher",
            deferred,
            channel=record.channel,
            about=(number, mandatory, True, record),
            inside=step.inside,
        )

    def do_publisher_close(self, step: Step) -> None:
        record = _pick(self.world.publishers, step.a)
        if record is not None:
            self.world.publishers.remove(record)
            record.closed_by_us = True
            record.publisher.close()
            self.world.watch("flush", record.publisher.flush(), channel=record.channel)
            self.world.ended.append(("Publisher", record.channel, weakref.ref(record.publisher)))
            record.publisher = None

    # Handlers

    def do_handle(self, step: Step) -> None:
        connection = self._connection(step.a)
        if connection is not None:
            handlers.start(self.world, connection, _queue(step.b), step)

    def do_stop(self, step: Step) -> None:
        record = _pick([each for each in self.world.handlings if not each.stopped], step.a)
        if record is not None and record.handling is not None:
            handlers.stop(self.world, record, (None, 0.0, 2.0)[step.b % 3], step.inside)

    # Anything

    def do_cancel(self, step: Step) -> None:
        watched = _pick(
            [w for w in self.world.watched if w.deferred is not None and w.kind != "recover"],
            step.a,
        )
        if watched is None:
            return
        watched.cancelled = True
        if watched.kind in ("consume", "basic_get") and watched.about:
            self.world.auto_loss = True
        assert watched.deferred is not None
        error = failure_of(watched.deferred.cancel)
        if error is not None:
            self.world.complain(f"cancel() of {watched.kind} raised {error!r}")

    def do_collect(self, _step: Step) -> None:
        gc.collect()


def _queue(number: int) -> str:
    return QUEUES[number % len(QUEUES)]


def _pick(things: list[Any], number: int) -> Any:
    return things[number % len(things)] if things else None
