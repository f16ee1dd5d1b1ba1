"""The light methods and lazy properties are in every respect what pika's own objects are."""

from __future__ import annotations

import copy
import gc
import pickle
import struct
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from pika import DeliveryMode, frame, spec

from tests.support import shape, wire
from tests.support.codecs import Direct, Message, load

LIGHT = {
    "Deliver": spec.Basic.Deliver("ct-é", 2**64 - 1, True, "ex", b"\xff"),
    "GetOk": spec.Basic.GetOk(1, False, "", "rk", 2**32 - 1),
    "Return": spec.Basic.Return(312, "NO_ROUTE", "ex", "rk"),
}
PROPERTIES = {
    "none": spec.BasicProperties(),
    "usual": spec.BasicProperties(
        content_type="a/b", delivery_mode=2, message_id="m", timestamp=5, headers={"a": [1, {}]}
    ),
    "all": spec.BasicProperties(
        **{
            name: {"headers": {}, "delivery_mode": 1, "priority": 0, "timestamp": 2**64 - 1}.get(
                name, f"{name}-é"
            )
            for name in shape.PROPERTY_NAMES
        }
    ),
}
ATTRIBUTES = {
    "Deliver": {"consumer_tag": "x", "delivery_tag": 1, "redelivered": False, "exchange": "y"},
    "GetOk": {"message_count": 3, "delivery_tag": 2**70},
    "Return": {"reply_code": 404, "reply_text": None},
}


def decoded_method(codec: Any, name: str) -> Any:
    decoder = codec.FrameDecoder(Message)
    decoder.feed(wire.method_frame(1, LIGHT[name]))
    return decoder.next_frame().method


def decoded_properties(codec: Any, name: str) -> Any:
    decoder = codec.FrameDecoder(Message)
    decoder.feed(wire.content(1, b"", PROPERTIES[name]))
    decoder.next_frame()
    return decoder.next_frame().properties


def by_hand(codec: Any, name: str) -> Any:
    if name in LIGHT:
        return getattr(codec, name)(**vars(LIGHT[name]))
    return codec.BasicProperties(**vars(PROPERTIES[name]))


def decoded(codec: Any, name: str) -> Any:
    return decoded_method(codec, name) if name in LIGHT else decoded_properties(codec, name)


EVERY = {**LIGHT, **PROPERTIES}
MAKERS = {"decoded": decoded, "by hand": by_hand}

each = pytest.mark.parametrize("name", EVERY)
each_maker = pytest.mark.parametrize("maker", MAKERS)


@each
@each_maker
def test_like_pikas(codec: Any, name: str, maker: str) -> None:
    pikas = EVERY[name]
    ours = MAKERS[maker](codec, name)
    assert isinstance(ours, type(pikas))
    assert ours == pikas
    assert pikas == ours
    assert (ours != pikas, pikas != ours) == (False, False)
    assert ours == MAKERS[maker](codec, name)
    assert repr(ours) == repr(pikas)
    assert str(ours) == str(pikas)
    assert vars(ours) == vars(pikas)
    assert dict(ours.__dict__) == pikas.__dict__
    assert list(vars(ours)) == list(vars(pikas))
    assert ours.encode() == pikas.encode()
    assert (ours.NAME, ours.INDEX) == (pikas.NAME, pikas.INDEX)
    assert ours != None  # noqa: E711 - pika's __eq__ has a branch of its own for None
    assert getattr(ours, "synchronous", None) == getattr(pikas, "synchronous", None)
    with pytest.raises(TypeError):
        hash(ours)
    with pytest.raises(AttributeError):
        ours.no_such_attribute


@each
@each_maker
def test_copies(codec: Any, name: str, maker: str) -> None:
    pikas = EVERY[name]
    ours = MAKERS[maker](codec, name)
    clones = [copy.copy(ours), copy.deepcopy(ours)]
    clones += [pickle.loads(pickle.dumps(ours, p)) for p in range(pickle.HIGHEST_PROTOCOL + 1)]
    for clone in clones:
        assert clone is not ours
        assert type(clone) is type(ours)
        assert clone == ours
        assert clone == pikas
        assert repr(clone) == repr(pikas)
        assert getattr(clone, "raw", None) == getattr(ours, "raw", None)


def test_deepcopy_shares_nothing(codec: Any) -> None:
    ours = decoded(codec, "usual")
    deep, shallow = copy.deepcopy(ours), copy.copy(ours)
    touched = copy.deepcopy(ours)
    touched.headers["a"].append("more")
    assert ours == PROPERTIES["usual"]
    deep.headers["a"].append("more")
    assert ours == PROPERTIES["usual"]
    assert shallow == PROPERTIES["usual"]


@each
@each_maker
def test_attributes_are_assignable(codec: Any, name: str, maker: str) -> None:
    ours, pikas = MAKERS[maker](codec, name), copy.deepcopy(EVERY[name])
    for attribute, value in ATTRIBUTES.get(name, {"headers": {"n": 1}, "type": None}).items():
        setattr(ours, attribute, value)
        setattr(pikas, attribute, value)
        assert getattr(ours, attribute) == value
        assert ours == pikas
        assert repr(ours) == repr(pikas)
        assert vars(ours) == vars(pikas)
    assert ours != EVERY[name]
    ours.of_my_own = pikas.of_my_own = ["anything"]
    assert ours.of_my_own == ["anything"]
    assert ours == pikas
    assert vars(ours) == vars(pikas)
    assert pickle.loads(pickle.dumps(ours)) == ours
    assert copy.copy(ours) == ours
    del ours.of_my_own
    assert ours != pikas
    with pytest.raises(AttributeError):
        ours.of_my_own


@each
def test_decode_and_encode_of_its_own(codec: Any, name: str) -> None:
    """pika's objects have decode(); subclasses keep it."""
    fresh = type(by_hand(codec, name))()
    octets = b"".join(EVERY[name].encode())
    assert fresh.decode(octets) is fresh
    assert fresh == EVERY[name]


def test_in_pikas_frames(codec: Any) -> None:
    """They marshal inside pika's frame objects, as a test's fake broker does it."""
    method = decoded_method(codec, "Deliver")
    assert frame.Method(1, method).marshal() == frame.Method(1, LIGHT["Deliver"]).marshal()
    header = frame.Header(1, 5, decoded_properties(codec, "all"))
    assert header.marshal() == frame.Header(1, 5, PROPERTIES["all"]).marshal()


def test_redelivered_is_a_bool_of_one_bit(codec: Any) -> None:
    octets = wire.method_frame(1, spec.Basic.Deliver("c", 1, False, "e", "r"))
    at = octets.index(b"\x01c") + 2 + 8
    for value in (0, 1, 2, 3, 0xFE, 0xFF):
        decoder = codec.FrameDecoder(Message)
        decoder.feed(octets[:at] + bytes([value]) + octets[at + 1 :])
        assert decoder.next_frame().method.redelivered is bool(value & 1)


def test_constructors_take_what_pikas_take(codec: Any) -> None:
    assert codec.BasicProperties("a/b", None, {"h": 1}, 2) == spec.BasicProperties(
        "a/b", None, {"h": 1}, 2
    )
    persistent = codec.BasicProperties(delivery_mode=DeliveryMode.Persistent)
    assert persistent.delivery_mode == 2
    assert persistent.raw is None
    assert codec.Deliver() == spec.Basic.Deliver()
    assert codec.Deliver("ct", 1, True, "e", "r") == spec.Basic.Deliver("ct", 1, True, "e", "r")
    assert codec.GetOk(delivery_tag=1) == spec.Basic.GetOk(delivery_tag=1)
    assert codec.Return(reply_text="x") == spec.Basic.Return(reply_text="x")
    for name in ("BasicProperties", "Deliver", "GetOk", "Return"):
        with pytest.raises(TypeError):
            getattr(codec, name)(no_such_argument=1)


@each
def test_subclasses(codec: Any, name: str) -> None:
    ours = by_hand(codec, name)

    class Mine(type(ours)):  # type: ignore[misc]
        def shout(self) -> str:
            return self.NAME.upper()

    mine = Mine(**vars(EVERY[name]))
    assert mine.shout() == EVERY[name].NAME.upper()
    assert mine == EVERY[name]
    mine.extra = 1
    assert mine.extra == 1


def test_properties_encode_after_changes(codec: Any) -> None:
    """What was decoded lazily and then changed is published as it is now."""
    ours, pikas = decoded(codec, "usual"), copy.deepcopy(PROPERTIES["usual"])
    for properties in (ours, pikas):
        properties.headers["a"].append("more")
        properties.priority = 5
        properties.message_id = None
    assert ours.encode() == pikas.encode()
    raw = ours.raw
    assert raw == b"".join(PROPERTIES["usual"].encode())


def test_messages_with_the_same_properties_share_nothing_that_can_be_changed(codec: Any) -> None:
    """Equal octets are kept once, wherever empty, other and very long ones come between."""
    usual, other = (b"".join(PROPERTIES[name].encode()) for name in ("usual", "all"))
    long = b"\x20\x00" + struct.pack(">I", 6000) + b"\x01kS" + struct.pack(">I", 5993) + b"x" * 5993
    raws = [usual, usual, b"", usual, other, usual, usual, long, long, usual, b"", b"", usual[:2]]
    decoder, seen = codec.FrameDecoder(Message), []
    for raw in raws:
        decoder.feed(wire.content(1, b"", raw))
        decoder.next_frame()
        seen.append(decoder.next_frame().properties)
    assert [properties.raw for properties in seen] == raws
    alike = [properties for properties, raw in zip(seen, raws, strict=True) if raw == usual]
    for number, properties in enumerate(alike):
        properties.headers["number"] = number
        properties.message_id = str(number)
    assert [properties.headers["number"] for properties in alike] == list(range(6))
    assert [properties.message_id for properties in alike] == list("012345")
    assert {properties.raw for properties in alike} == {usual}
    del decoder
    assert [pickle.loads(pickle.dumps(properties)).raw for properties in seen] == raws


@pytest.mark.parametrize(
    "headers", [{"a": 1, "b": "text"}, {"a": {"deep": 1}}, {"a": [1]}, {}, {"long": "x" * 300}]
)
def test_equal_headers_are_each_messages_own(codec: Any, headers: dict[str, Any]) -> None:
    """What a user does with the headers of one message shows in no other one."""
    decoder = codec.FrameDecoder(Message)
    for number in range(6):
        properties = spec.BasicProperties(headers=copy.deepcopy(headers), message_id=str(number))
        decoder.feed(wire.content(1, b"", b"".join(properties.encode())))
        decoder.next_frame()
        decoded = decoder.next_frame().properties
        assert decoded.headers == headers
        for value in decoded.headers.values():
            if isinstance(value, dict):
                value["deep"] = "changed"
            elif isinstance(value, list):
                value.append("changed")
        decoded.headers.update(dict.fromkeys(headers, number), own=number)
    decoder.feed(wire.content(1, b"", b"".join(spec.BasicProperties(headers={"a": 2}).encode())))
    decoder.next_frame()
    assert decoder.next_frame().properties.headers == {"a": 2}


def test_raw(codec: Any) -> None:
    for name in PROPERTIES:
        ours = decoded(codec, name)
        assert ours.raw == b"".join(PROPERTIES[name].encode())
        assert by_hand(codec, name).raw is None
    decoder = codec.FrameDecoder(Message)
    decoder.feed(wire.content(1, b"", b"\x80\x00\x01x" + b"surplus"))
    decoder.next_frame()
    properties = decoder.next_frame().properties
    assert properties.raw == b"\x80\x00\x01xsurplus"
    assert properties == spec.BasicProperties(content_type="x")


# ------------------------------------------------------------------ the cyclic collector


class Holder:
    """Stands for a channel: something that messages point at and that points back."""

    def __init__(self) -> None:
        self.kept: list[Any] = []


def cycle_through(codec: Any, take: Callable[[Any], list[Any]], count: int) -> weakref.ref[Holder]:
    """Messages that reach the user and are kept on the channel they point at."""
    holder = Holder()
    decoder = codec.FrameDecoder(Message)
    backlog = codec.Backlog()
    decoder.subscribe(1, "ct", backlog, holder, None)
    decoder.feed(wire.content(1, b"x", PROPERTIES["usual"]) * count)
    assert decoder.next_frame() is None
    holder.kept += take(backlog)
    assert len(holder.kept) >= 1
    return weakref.ref(holder)


TAKES: dict[str, Callable[[Any], list[Any]]] = {
    "popleft": lambda backlog: [backlog.popleft()],
    "popmany": lambda backlog: backlog.popmany(2),
    "index": lambda backlog: [backlog[0]],
    "slice": lambda backlog: backlog[:2],
    "iteration": lambda backlog: list(iter(backlog)),
    "copy": lambda backlog: backlog.copy(),
    "track": lambda backlog: (backlog.track(), [backlog])[1],
}


@pytest.mark.parametrize("count", [3, 40])
@pytest.mark.parametrize("take", TAKES)
def test_cycles_are_collected(codec: Any, take: str, count: int) -> None:
    """Messages waiting in a backlog are hidden from the collector; taken ones must not be."""
    reference = cycle_through(codec, TAKES[take], count)
    gc.collect()
    gc.collect()
    assert reference() is None


def test_cycles_of_what_users_put_into_a_backlog_are_collected(codec: Any) -> None:
    holder = Holder()
    backlog = codec.Backlog()
    decoder = codec.FrameDecoder(Message)
    decoder.subscribe(1, "ct", backlog, None, None)
    decoder.feed(wire.content(1, b"x", PROPERTIES["usual"]) * 40)
    assert decoder.next_frame() is None
    for _ in range(100):
        backlog.append([holder])
    holder.kept.append(backlog)
    reference = weakref.ref(holder)
    del holder, backlog, decoder
    gc.collect()
    assert reference() is None


def test_a_long_backlog_is_hidden_while_only_the_decoder_fills_it() -> None:
    """A collection would look at each of its messages: x1.7 with 100,000 of them, not x1.0."""
    codec = load("compiled")
    backlog = codec.Backlog()

    def is_shown() -> bool:
        (ring,) = [each for each in gc.get_referents(backlog) if isinstance(each, list)]
        return gc.is_tracked(ring)

    def deliver() -> None:
        decoder = codec.FrameDecoder(Message)
        decoder.subscribe(1, "ct", backlog, None, None)
        decoder.feed(wire.content(1, b"x", PROPERTIES["usual"]) * 1_100)
        assert decoder.next_frame() is None

    for show in (backlog.track, lambda: backlog[5], lambda: backlog.append(None), backlog.copy):
        deliver()
        assert not is_shown()
        backlog.popmany(50)
        assert not is_shown()
        show()
        assert is_shown()
        backlog.clear()
    assert len(backlog) == 0


@pytest.mark.parametrize("take", [name for name in TAKES if name != "track"])
def test_taken_messages_are_tracked(codec: Any, take: str) -> None:
    direct = Direct(codec, (1, "ct"))
    direct.decoder.feed(wire.content(1, b"x", PROPERTIES["usual"]) * 3)
    assert direct.decoder.next_frame() is None
    for message in TAKES[take](direct.backlogs[1, "ct"]):
        assert gc.is_tracked(message)


def test_light_objects_and_the_collector(codec: Any) -> None:
    """The compiled ones are no business of the collector's (tests/differences.py, OBJECTS).

    A full collection with 100,000 messages queued would else look at every one of them. The price
    is that a cycle which a user builds through an attribute of his own on them is never collected.
    """
    compiled = codec.IMPLEMENTATION == "compiled"
    for name in EVERY:
        anchor = Holder()
        ours = decoded(codec, name)
        ours.of_my_own = [ours, anchor]
        reference = weakref.ref(anchor)
        del anchor
        if compiled:
            assert not gc.is_tracked(ours)
            del ours.of_my_own
        del ours
        gc.collect()
        assert reference() is None, name
