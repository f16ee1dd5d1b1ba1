"""The codec under test: its two modules, and a decoder with what it delivered directly."""

from __future__ import annotations

import importlib
import os
from types import ModuleType
from typing import Any, NamedTuple

import pytest
from pika import spec

# The full size of what is sampled in an ordinary run.
EXHAUSTIVE = os.environ.get("PIKA_TWISTED_EXHAUSTIVE") == "1"
MODULES = {"reference": "pika_twisted.codec.reference.decoder", "compiled": "pika_twisted._frame"}


class Message(NamedTuple):
    """Stands for ReceivedMessage: the codec fills any tuple of four."""

    channel: Any
    method: Any
    properties: Any
    body: bytes


def load(name: str) -> ModuleType:
    try:
        return importlib.import_module(MODULES[name])
    except ImportError as error:
        pytest.fail(f"the {name} codec can't be imported: {error}")


PROPERTIES = spec.BasicProperties(content_type="text/plain", headers={"x": 1}, delivery_mode=2)


class Direct:
    """A decoder with subscriptions, and what they got."""

    def __init__(self, codec: Any, *tags: tuple[int, str], **limits: int) -> None:
        self.decoder = codec.FrameDecoder(Message, **limits)
        self.backlogs = {key: codec.Backlog() for key in tags}
        for (channel, tag), backlog in self.backlogs.items():
            self.decoder.subscribe(channel, tag, backlog, f"channel {channel}", (channel, tag))

    def messages(self, channel: int = 1, tag: str = "ct") -> list[Any]:
        return list(self.backlogs[channel, tag])
