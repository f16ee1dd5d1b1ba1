"""Every input of the fuzzer's corpus, through the same functions that the fuzzer calls."""

from __future__ import annotations

import pytest

from tests.fuzz import seeds
from tests.fuzz.targets import TARGETS, target


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus(name: str) -> None:
    inputs = [*seeds.kept(name), *seeds.first(name)]
    assert len(seeds.kept(name)) > 20
    check = target(name)
    for octets in inputs:
        try:
            check(octets)
        except Exception as error:
            raise AssertionError(f"{name} {octets.hex()}") from error
