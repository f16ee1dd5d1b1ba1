"""Both codecs are really there, and have the same face."""

from __future__ import annotations

import inspect
from importlib.machinery import EXTENSION_SUFFIXES
from types import ModuleType

import pytest

from tests.support.codecs import load

NAMES = {
    "IMPLEMENTATION",
    "Backlog",
    "BasicProperties",
    "ChannelEncoder",
    "Deliver",
    "FrameDecoder",
    "GetOk",
    "OutputBuffer",
    "OversizedContent",
    "Return",
}


def test_compiled_is_compiled() -> None:
    compiled = load("compiled")
    assert compiled.IMPLEMENTATION == "compiled"
    assert compiled.__file__ is not None
    assert compiled.__file__.endswith(tuple(EXTENSION_SUFFIXES))
    # A class of an extension module has no dictionary of Python functions behind it.
    assert not inspect.isfunction(compiled.FrameDecoder.next_frame)


def test_reference_is_plain_python() -> None:
    reference = load("reference")
    assert reference.IMPLEMENTATION == "reference"
    assert inspect.isfunction(reference.FrameDecoder.next_frame)


def test_both_have_the_same_names(codec: ModuleType) -> None:
    assert {name for name in NAMES if hasattr(codec, name)} == NAMES


@pytest.mark.parametrize("name", ["FrameDecoder", "Backlog", "OutputBuffer", "ChannelEncoder"])
def test_compiled_has_the_methods_of_the_reference(name: str) -> None:
    def face(module: ModuleType) -> set[str]:
        return {member for member in dir(getattr(module, name)) if not member.startswith("_")}

    reference = face(load("reference"))
    # Attributes that the reference sets in __init__ are class members in the compiled one only.
    assert reference <= face(load("compiled"))


def test_codec_does_not_know_twisted(codec: ModuleType) -> None:
    assert not any(
        getattr(value, "__module__", "").startswith("twisted") for value in vars(codec).values()
    )
