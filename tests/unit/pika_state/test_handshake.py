"""The handshake's limits."""

from __future__ import annotations

from pika import spec

from tests.support.outcome import watch
from tests.support.session import Session


def test_connection_start_may_be_longer_than_the_frame_max_asked_for(session: Session) -> None:
    """An operator can configure any number of server properties; Tune comes later."""
    session.connect(frame_max=spec.FRAME_MIN_SIZE)
    ready = watch(session.protocol.ready)
    properties = {"product": "RabbitMQ", "motd": "x" * 2 * spec.FRAME_MIN_SIZE}
    session.peer.send(0, spec.Connection.Start(0, 9, properties, "PLAIN", "en_US"))
    session.peer.expect(spec.Connection.StartOk)
    session.peer.tune(frame_max=spec.FRAME_MIN_SIZE)
    session.peer.expect(spec.Connection.Open)
    session.peer.open_ok()
    ready.result()
    assert session.protocol._impl.inbound.decoder.frame_max == spec.FRAME_MIN_SIZE
