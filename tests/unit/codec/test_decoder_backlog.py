"""Backlog: first in, first out, and in every other way like the list it replaces."""

from __future__ import annotations

import random
from collections import deque
from typing import Any

import pytest

from tests.support import wire
from tests.support.codecs import Direct, Message
from tests.support.cost import assert_grows_at_most, cpu


def filled(codec: Any, *items: Any) -> Any:
    backlog = codec.Backlog()
    for item in items:
        backlog.append(item)
    return backlog


def test_empty(codec: Any) -> None:
    backlog = codec.Backlog()
    assert len(backlog) == 0
    assert not backlog
    assert list(backlog) == []
    assert backlog == []
    assert repr(backlog) == "[]"
    assert backlog.body_bytes == 0
    assert backlog.popmany(5) == []
    assert backlog.copy() == []
    backlog.clear()
    backlog.track()
    with pytest.raises(IndexError):
        backlog.popleft()
    for index in (0, -1, 5):
        with pytest.raises(IndexError):
            backlog[index]


def test_first_in_first_out(codec: Any) -> None:
    backlog = filled(codec, 1, "two", None)
    assert backlog
    assert [backlog.popleft() for _ in range(3)] == [1, "two", None]
    assert not backlog


def test_popmany(codec: Any) -> None:
    backlog = filled(codec, *range(10))
    assert backlog.popmany(0) == []
    assert backlog.popmany(-3) == []
    assert backlog.popmany(4) == [0, 1, 2, 3]
    assert type(backlog.popmany(1)) is list
    assert backlog.popmany(100) == [5, 6, 7, 8, 9]
    assert backlog.popmany(1) == []


def test_any_operations_like_a_deque(codec: Any) -> None:
    """20,000 operations by chance against a deque."""
    rng = random.Random(1)
    backlog, model = codec.Backlog(), deque[Any]()
    for number in range(20_000):
        action = rng.randrange(12)
        if action < 6:
            item = number if rng.random() < 0.5 else Message(None, None, None, b"x" * (number % 9))
            backlog.append(item)
            model.append(item)
        elif action < 10:
            if model:
                assert backlog.popleft() is model.popleft()
        elif action == 10:
            count = rng.randrange(-1, 6)
            assert backlog.popmany(count) == [
                model.popleft() for _ in range(min(count, len(model)))
            ]
        elif rng.random() < 0.02:
            backlog.clear()
            model.clear()
        assert len(backlog) == len(model)
        if number % 50 == 0:
            assert backlog == list(model)
            assert list(backlog) == list(model)
            assert backlog.body_bytes == sum(len(m.body) for m in model if isinstance(m, Message))


@pytest.mark.parametrize("popped", [0, 1, 5])
def test_indexes_and_slices_as_a_list(codec: Any, popped: int) -> None:
    backlog, model = filled(codec, *range(-popped, 7)), list(range(7))
    backlog.popmany(popped)
    for index in range(-7, 7):
        assert backlog[index] == model[index]
    for index in (7, -8, 100, -100, 2**70):
        with pytest.raises(IndexError):
            backlog[index]
    bounds = [None, *range(-9, 10), 2**70]
    for begin in bounds:
        for end in bounds:
            for step in (None, 1, 2, -1, -3, 100):
                assert backlog[begin:end:step] == model[begin:end:step]
    assert type(backlog[:]) is list
    with pytest.raises(ValueError, match="zero"):
        backlog[::0]
    with pytest.raises(TypeError):
        backlog["0"]


def test_equality_as_a_list(codec: Any) -> None:
    backlog = filled(codec, 1, 2)
    assert backlog == [1, 2]
    assert backlog == [1, 2]
    assert backlog == filled(codec, 1, 2)
    assert backlog != [1]
    assert backlog != [1, 2, 3]
    assert backlog != filled(codec, 2, 1)
    assert (backlog == (1, 2)) is False
    assert (backlog != (1, 2)) is True
    assert (backlog == None) is False  # noqa: E711
    with pytest.raises(TypeError):
        hash(backlog)


def test_contains_repr_iteration(codec: Any) -> None:
    backlog = filled(codec, 0, 1, "x", [2])
    backlog.popleft()
    assert 1 in backlog
    assert [2] in backlog
    assert 0 not in backlog
    assert repr(backlog) == "[1, 'x', [2]]"
    assert str(backlog) == repr(backlog)
    assert list(backlog) == [1, "x", [2]]
    assert list(iter(backlog)) == backlog.copy()
    copied = backlog.copy()
    copied.append("new")
    assert len(backlog) == 3


def test_made_of_items_and_reversed(codec: Any) -> None:
    backlog = codec.Backlog([Message(None, None, None, b"123"), 2])
    assert backlog.body_bytes == 3
    assert list(reversed(backlog)) == [2, backlog[0]]
    assert codec.Backlog(iter("abc")) == ["a", "b", "c"]


def test_iteration_while_it_changes(codec: Any) -> None:
    """No crash and no item twice, whatever is done meanwhile; an error is as good as an end."""
    backlog = filled(codec, *range(1000))
    seen = []
    try:
        for item in backlog:
            seen.append(item)
            if item % 10 == 0:
                backlog.popmany(30)
            if item == 500:
                backlog.clear()
    except RuntimeError:
        pass
    assert len(set(seen)) == len(seen)


def test_body_bytes(codec: Any) -> None:
    backlog = filled(
        codec,
        Message(None, None, None, b"12345"),
        (1, 2, 3, b"123"),
        (1, 2, b"12345"),
        [1, 2, 3, b"123"],
        (1, 2, 3, bytearray(b"12")),
        (1, 2, 3, None),
        None,
    )
    assert backlog.body_bytes == 8
    backlog.popleft()
    assert backlog.body_bytes == 3
    backlog.popmany(3)
    assert backlog.body_bytes == 0
    backlog.append((1, 2, 3, b"1"))
    backlog.clear()
    assert backlog.body_bytes == 0


def test_body_bytes_of_deliveries(codec: Any) -> None:
    direct = Direct(codec, (1, "ct"))
    direct.decoder.feed(b"".join(wire.content(1, bytes(size)) for size in (0, 10, 5000)))
    assert direct.decoder.next_frame() is None
    backlog = direct.backlogs[1, "ct"]
    assert backlog.body_bytes == 5010
    backlog.append("sentinel")
    assert backlog.body_bytes == 5010
    backlog.track()
    backlog.popmany(2)
    assert backlog.body_bytes == 5000
    backlog.popmany(2)
    assert backlog.body_bytes == 0


def test_constant_cost_whatever_its_length(codec: Any) -> None:
    """append and popleft with 300,000 waiting cost what they cost with 3,000."""

    def cost(length: int) -> float:
        backlog = filled(codec, *range(length))

        def work() -> None:
            for _ in range(3000):
                backlog.append(None)
                backlog.popleft()

        return cpu(work)

    cost(100)
    assert_grows_at_most(cost, 3_000, times=100)


def test_memory_is_given_back(codec: Any) -> None:
    """A long life at a steady length doesn't grow: the head of the list is trimmed."""
    import tracemalloc

    backlog = filled(codec, *range(10))
    tracemalloc.start()
    try:
        for _ in range(2):
            before = tracemalloc.get_traced_memory()[0]
            for _ in range(200_000):
                backlog.append(None)
                backlog.popleft()
            grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 20_000


def list_operation(rng: random.Random) -> Any:
    """Something that a list can do, on whatever it is given."""
    at, to, step = rng.randrange(-9, 9), rng.randrange(-9, 9), rng.choice([None, 1, 2, -1])
    item = rng.randrange(5)
    operations: list[Any] = [
        lambda it: it.append(item),
        lambda it: it.extend([item, 7]),
        lambda it: it.insert(at, item),
        lambda it: it.pop(),
        lambda it: it.pop(at),
        lambda it: it.remove(item),
        lambda it: it.index(item),
        lambda it: it.count(item),
        lambda it: it.sort(reverse=to > 0),
        lambda it: it.sort(key=lambda each: -each),
        lambda it: it.reverse(),
        lambda it: it.__setitem__(at, item),
        lambda it: it.__setitem__(slice(at, to), [1, 2, 3]),
        lambda it: it.__delitem__(at),
        lambda it: it.__delitem__(slice(at, to, step)),
        lambda it: it.__iadd__([item]) and None,
        lambda it: it + [item],  # noqa: RUF005
        lambda it: [item] + it,  # noqa: RUF005
        lambda it: it[at],
        lambda it: it[at:to:step],
    ]
    return rng.choice(operations)


def test_any_operations_like_a_list(codec: Any) -> None:
    """20,000 operations by chance: the same results, the same errors."""
    rng = random.Random(7)
    backlog, model = codec.Backlog(), list[Any]()

    def outcome(operation: Any, target: Any) -> Any:
        try:
            return operation(target)
        except (IndexError, ValueError) as error:
            return type(error)

    for _ in range(20_000):
        operation = list_operation(rng)
        assert outcome(operation, backlog) == outcome(operation, model)
        assert backlog == model
        if len(model) > 60:
            del backlog[:], model[:]


def test_what_a_list_can_do_keeps_the_count_of_bytes(codec: Any) -> None:
    backlog = filled(codec, *(Message(None, None, None, b"x" * size) for size in range(10)))
    assert backlog.pop().body == b"x" * 9
    del backlog[1:3]
    backlog.insert(0, Message(None, None, None, b"123"))
    backlog.appendleft(Message(None, None, None, b"12"))
    backlog.sort(key=lambda message: message.body)
    assert backlog.body_bytes == sum(len(message.body) for message in backlog) == 38


def test_a_long_backlog_is_taken_from_the_front_by_pop_0(codec: Any) -> None:
    def taken(size: int) -> float:
        backlog = codec.Backlog(range(size))
        return cpu(lambda: [backlog.pop(0) for _ in range(size)])

    assert_grows_at_most(taken, 2_000)
