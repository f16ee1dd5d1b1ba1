"""Every program in the documentation runs as it stands there; commands and files it names exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.broker.broker import Broker
from tests.broker.documents import DOCUMENTS, ROOT, Program, clean, prepare, programs, run

PROGRAMS = [
    pytest.param(each, id=each.name, marks=[pytest.mark.own_node] if each.tls else [])
    for each in programs()
]


@pytest.mark.parametrize("program", PROGRAMS)
def test_program(program: Program, broker: Broker, tmp_path: Path) -> None:
    prepare(program, broker)
    try:
        run(program, broker, tmp_path)
    finally:
        clean(program, broker)


def test_there_are_programs() -> None:
    assert len(PROGRAMS) > 15


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_and_files_exist(document: Path) -> None:
    text = document.read_text()
    for name in re.findall(r"`((?:tests|benchmarks|pika_twisted|examples|\.github)/[^`*]*)`", text):
        assert (ROOT / name).exists(), name
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:^|`|\$ )make ([a-z-]+)", text, re.MULTILINE))
    assert named <= targets
