"""Messages as objects: no crash from Python, and no cycle that the collector can't free."""

from __future__ import annotations

import gc
import pickle
import sys
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from pika import spec

from pika_twisted import ReceivedMessage
from tests.support import wire


class Plain(ReceivedMessage):
    """A user's own, with an instance dict."""


class Slotted(Plain):
    """One of another class of a user's."""

    __slots__ = ()

    def __init_subclass__(cls, *, option: int = 0, **others: Any) -> None:
        super().__init_subclass__(**others)
        cls.option = option  # type: ignore[attr-defined]


class Third(Slotted, option=3):
    __slots__ = ()


CLASSES = [ReceivedMessage, Plain, Slotted, Third]
NAMES = ("channel", "method", "properties", "body")


@pytest.mark.parametrize("size", range(7))
@pytest.mark.parametrize("kind", CLASSES)
def test_a_message_of_any_length_is_no_crash(kind: Any, size: int) -> None:
    """`tuple.__new__(ReceivedMessage, (1,)).body` read what lay behind the object."""
    for _ in range(100):  # what lies there differs
        message = tuple.__new__(kind, [object() for _ in range(size)])
        assert len(message) == size
        for place, name in enumerate(NAMES):
            if place < size:
                assert getattr(message, name) is message[place]
            else:
                with pytest.raises(AttributeError):
                    getattr(message, name)
        gc.collect(0)


@pytest.mark.parametrize("kind", CLASSES)
def test_a_shorter_tuple_becomes_no_message(kind: Any) -> None:
    short = type("Short", (tuple,), {"__slots__": ()})((1,))
    if kind is not Plain and sys.implementation.name == "cpython":
        with pytest.raises(TypeError, match="__class__ assignment"):
            short.__class__ = kind


def test_subclasses_are_what_they_were() -> None:
    assert Third.option == 3  # type: ignore[attr-defined]
    message: Any = Plain(1, 2, 3, b"4")  # type: ignore[arg-type]
    message.mine = 5
    again = pickle.loads(pickle.dumps(message))
    assert (again, again.mine, type(again)) == ((1, 2, 3, b"4"), 5, Plain)
    assert message._replace(body=b"x").body == b"x"


def received(codec: Any) -> Any:
    decoder, backlog = codec.FrameDecoder(ReceivedMessage), codec.Backlog()
    decoder.subscribe(1, "t", backlog, None, None)
    properties = spec.BasicProperties(headers={"a": [1]})
    decoder.feed(
        wire.raw_frame(8, 0, b"") + wire.content(1, b"x", properties, method=wire.deliver("t"))
    )
    while decoder.next_frame() is not None:
        pass
    return backlog.popleft()


class Mark:
    """Shows whether it was freed."""

    message: Any


def attribute(message: Any, mark: Mark) -> None:
    message.method.mine = (message, mark)


def field(message: Any, mark: Mark) -> None:
    message.method.exchange = (message, mark)


def header(message: Any, mark: Mark) -> None:
    message.properties.headers["mine"] = (message, mark)


def in_header(message: Any, mark: Mark) -> None:
    message.properties.headers["a"].append((message, mark))


def of_properties(message: Any, mark: Mark) -> None:
    message.properties.mine = [message, mark]


def through_another(message: Any, mark: Mark) -> None:
    mark.message = message
    message.method.mine = mark


@pytest.mark.parametrize(
    "lead_back", [attribute, field, header, in_header, of_properties, through_another]
)
def test_what_leads_back_to_its_message_is_freed(
    codec: Any, lead_back: Callable[[Any, Mark], None]
) -> None:
    message, mark = received(codec), Mark()
    lead_back(message, mark)
    gone = weakref.ref(mark)
    del mark
    gc.collect()
    assert gone() is not None  # all of it is reachable
    assert message.method.delivery_tag == 1
    method = message.method
    del message
    gc.collect()
    assert method.consumer_tag == "t"  # not cleared under the hands of its user
    del method
    gc.collect()
    assert gone() is None
