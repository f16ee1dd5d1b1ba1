"""The steps of the broker and of the wire."""

from __future__ import annotations

from typing import Any

from tests.model.program import Step
from tests.model.records import Connection
from tests.model.world import QUEUES, World

_METHODS = (
    "queue.declare",
    "basic.consume",
    "basic.publish",
    "basic.get",
    "confirm.select",
    "basic.cancel",
    "basic.qos",
    "channel.open",
)


class BrokerSteps:
    """`do_NAME(step)` for each step of the broker."""

    def __init__(self, world: World) -> None:
        self.world = world

    def _connections(self) -> list[Connection]:
        return [each for each in self.world.connections if each.reason is None]

    def _connection(self, number: int) -> Connection | None:
        alive = self._connections()
        return alive[number % len(alive)] if alive else None

    def _server_channels(self) -> list[Any]:
        return [
            channel
            for connection in self._connections()
            for channel in connection.server.channels.values()
        ]

    def do_put(self, step: Step) -> None:
        for _ in range(1 + step.b % 4):
            self.world.broker.publish(
                "", QUEUES[step.a % len(QUEUES)], b"b%d" % self.world.number()
            )

    def do_cancel_notify(self, step: Step) -> None:
        consumers = [
            (channel, tag) for channel in self._server_channels() for tag in channel.consumers
        ]
        if consumers:
            channel, tag = consumers[step.a % len(consumers)]
            self.world.cancelled_by_broker.add((channel, tag))
            channel.cancel(tag)

    def do_close_by_broker(self, step: Step) -> None:
        channels = self._server_channels()
        if channels:
            code = (404, 406, 403)[step.b % 3]
            channels[step.a % len(channels)].close(code, late=(0, 3)[step.c % 2])

    def do_close_connection_by_broker(self, step: Step) -> None:
        connection = self._connection(step.a)
        if connection is not None:
            connection.server.close((320, 541, 506)[step.b % 3])

    def do_refuse(self, step: Step) -> None:
        code = (404, 403, 406, 541)[step.b % 4 if step.c % 3 == 0 else step.b % 3]
        self.world.broker.refuse(_METHODS[step.a % len(_METHODS)], code, "refused by the test")

    def do_block(self, _step: Step) -> None:
        self._stall()
        self.world.broker.block()

    def do_unblock(self, _step: Step) -> None:
        self.world.broker.unblock()

    def do_freeze(self, _step: Step) -> None:
        self._stall()
        self.world.broker.freeze()

    def do_thaw(self, _step: Step) -> None:
        self.world.broker.thaw()

    def _stall(self) -> None:
        for connection in self.world.connections:
            connection.stalled = True

    def do_hold_confirms(self, _step: Step) -> None:
        self.world.broker.hold_confirms()

    def do_release_confirms(self, _step: Step) -> None:
        self.world.broker.release_confirms()

    def do_hold_deliveries(self, step: Step) -> None:
        name = QUEUES[step.a % len(QUEUES)]
        if name in self.world.broker.queues:
            self.world.broker.hold_deliveries(name)

    def do_release_deliveries(self, _step: Step) -> None:
        self.world.broker.release_deliveries()

    def do_cut(self, step: Step) -> None:
        connection = self._connection(step.a)
        if connection is not None:
            connection.cut = True
            connection.server.cut(reset=step.b % 2 == 0)

    def do_cut_after(self, step: Step) -> None:
        """Cut when the broker has written so many bytes more, in the middle of a frame perhaps."""
        connection = self._connection(step.a)
        if connection is None or connection.cut:
            return
        connection.cut = True
        transport = connection.server.transport
        write, left = transport.write, [step.b * step.c % 400]

        def write_some(data: bytes) -> None:
            if left[0] < 0:
                return
            write(data[: left[0]])
            left[0] -= len(data)
            if left[0] < 0:
                self.world.broker.call_later(0, connection.server.cut)

        transport.write = write_some

    def do_rebind(self, step: Step) -> None:
        """Change the binding that the twins go by."""
        for channel in self.world.channels:
            if channel.alive and channel.handling is None and "q0" in self.world.broker.queues:
                method = channel.client.queue_unbind if step.b % 2 else channel.client.queue_bind
                arguments = {"x-match": "any", "route": True}
                self.world.watch("call", method("q0", "h", arguments=arguments), channel=channel)
                return

    def do_turn(self, step: Step) -> None:
        for _ in range(1 + step.a % 3):
            self.world.clock.advance(self.world.broker.latency)

    def do_wait(self, step: Step) -> None:
        self.world.advance((0.05, 1.0, 1.0, 11.0, 150.0)[step.a % 5])
