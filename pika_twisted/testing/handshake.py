"""Who the client is, and which limits hold: the part of a connection before Connection.OpenOk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pika import spec

from pika_twisted.testing.permissions import User
from pika_twisted.testing.refusal import Refusal

if TYPE_CHECKING:
    from pika_twisted.testing.session import ServerConnection

CAPABILITIES = {
    "publisher_confirms": True,
    "exchange_exchange_bindings": True,
    "basic.nack": True,
    "consumer_cancel_notify": True,
    "connection.blocked": True,
    "consumer_priorities": True,
    "authentication_failure_close": True,
    "per_consumer_qos": True,
    "direct_reply_to": True,
}


def start(connection: ServerConnection) -> spec.Connection.Start:
    """Return the first method of a connection."""
    broker = connection.broker
    properties: dict[str, Any] = {
        "product": "RabbitMQ",
        "version": broker.dialect.version,
        "platform": "pika_twisted.testing",
        "cluster_name": "rabbit@localhost",
        "capabilities": dict(CAPABILITIES),
    }
    return spec.Connection.Start(0, 9, properties, broker.mechanisms, "en_US")


def authenticate(connection: ServerConnection, method: Any) -> User:
    """Return the user who logs in with a Connection.StartOk.

    :raises Refusal: there is none of that name and password
    """
    broker = connection.broker
    if method.mechanism not in broker.mechanisms.split(" "):
        raise Refusal(406, f"Client requested an unsupported mechanism '{method.mechanism}'")
    response = method.response
    if isinstance(response, str):
        response = response.encode()
    user = None
    if method.mechanism == "EXTERNAL":
        user = broker.users.get(response.decode("utf-8", "replace") or broker.external_user)
    else:
        _, _, login = response.partition(b"\0")
        name, _, password = login.partition(b"\0")
        found = broker.users.get(name.decode("utf-8", "replace"))
        if found is not None and found.password == password.decode("utf-8", "replace"):
            user = found
    if user is None:
        raise Refusal(
            403,
            f"Login was refused using authentication mechanism {method.mechanism}. "
            "For details see the broker logfile.",
        )
    return user


def check_tuning(connection: ServerConnection, method: Any) -> None:
    """Check what a client makes of Connection.Tune.

    :raises Refusal: frame_max or channel_max is out of bounds
    """
    broker = connection.broker
    for name, asked, limit in (
        ("frame_max", method.frame_max, broker.frame_max),
        ("channel_max", method.channel_max, broker.channel_max),
    ):
        if limit and (asked == 0 or asked > limit):
            what = "no limit" if asked == 0 else str(asked)
            raise Refusal(
                530,
                f"negotiated {name} = {what} higher than the maximum allowed value ({limit})",
            )
    least = broker.dialect.min_frame_max
    if method.frame_max and method.frame_max < least:
        raise Refusal(
            530,
            f"negotiated frame_max = {method.frame_max} lower than the minimum allowed value "
            f"({least})",
        )


def open_vhost(connection: ServerConnection, name: str) -> Any:
    """Return the virtual host that a Connection.Open names.

    :raises Refusal: there is none, or the user may not use it
    """
    found = connection.broker.vhosts.get(name)
    if found is None:
        raise Refusal(530, f"vhost {name} not found")
    if name not in connection.user.permissions:
        raise Refusal(530, f"access to vhost '{name}' refused for user '{connection.user.name}'")
    return found
