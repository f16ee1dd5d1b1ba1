"""Transports that wrap transports, TLS above all; and ending one that may be no socket."""

from __future__ import annotations

from typing import Any

from twisted.protocols.policies import ProtocolWrapper


def innermost(transport: Any) -> Any:
    """The transport at the bottom, which owns the socket.

    A wrapper passes on what it does not know, so its attributes don't tell it from the socket.
    """
    while isinstance(transport, ProtocolWrapper):
        transport = transport.transport
    return transport


def abort(transport: Any) -> None:
    """End it at once; one that can't, as that of a `ProcessEndpoint`, when it has sent its data."""
    getattr(transport, "abortConnection", transport.loseConnection)()
