"""`install()`: let code written for pika's Twisted adapter run on this one, unchanged."""

from __future__ import annotations

import sys
import types
import warnings
from typing import Any

import pika.adapters

from pika_twisted.channel import channel, queue

from . import protocol

NAME = "pika.adapters.twisted_connection"

#: What stands in pika's module, by name.
CLASSES = {
    "ClosableDeferredQueue": queue.ClosableDeferredQueue,
    "ReceivedMessage": queue.ReceivedMessage,
    "TwistedChannel": channel.TwistedChannel,
    "TwistedProtocolConnection": protocol.TwistedProtocolConnection,
    "_TimerHandle": protocol._TimerHandle,
    "_TwistedConnectionAdapter": protocol._TwistedConnectionAdapter,
}


def install() -> None:
    """Make `pika.adapters.twisted_connection` give this package's classes.

    To be called before anything imports that module; may be called again. Where it was imported
    already its classes are replaced in it, with a RuntimeWarning: who has taken them out of it
    before goes on to use pika's.
    """
    module = sys.modules.get(NAME)
    if module is not None and getattr(module, "__pika_twisted__", False):
        return
    if module is not None:
        warnings.warn(
            f"{NAME} was imported before pika_twisted.install(): what has taken classes out of it "
            "already goes on to use pika's. Call install() before other imports.",
            RuntimeWarning,
            stacklevel=2,
        )
    else:
        # pika's own is not even loaded: pika 2.0 has none.
        module = types.ModuleType(NAME, "pika_twisted in the place of pika's Twisted adapter.")
        sys.modules[NAME] = module
    for name, value in CLASSES.items():
        setattr(module, name, value)
    module.__pika_twisted__ = True  # type: ignore[attr-defined]
    adapters: Any = pika.adapters
    adapters.twisted_connection = module
