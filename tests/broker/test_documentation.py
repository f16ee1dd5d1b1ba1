"""Every program in the documentation runs as it stands there; commands and files it names exist."""

from __future__ import annotations

import ast
import re
import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest

import pika_twisted
from pika_twisted.recovery import events
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


def imported(module: Path) -> Iterator[str]:
    """The modules of the package that this one needs to be imported."""
    for node in ast.parse(module.read_text()).body:
        inner = node.body + node.orelse if isinstance(node, ast.If) else [node]
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        for each in inner:
            if isinstance(each, ast.ImportFrom) and each.level == 1:
                yield from [each.module] if each.module else [name.name for name in each.names]


# Names for the library's own modules, which `:members:` would show.
INTERNAL = {
    "ConnectionStats": {"plus"},
    "RecoveringChannel": {"subscriptions"},
}


@pytest.mark.parametrize("name", [each for each in pika_twisted.__all__ if each[0] != "_"])
def test_the_reference_has_every_public_name(name: str) -> None:
    """It stands there once, and it and all its methods say what they are for."""
    reference = (ROOT / "docs/reference.md").read_text()
    entries = re.findall(
        rf"^\.\. auto(?:class|exception|function):: pika_twisted\.{name}\n((?: +:.*\n)*)",
        reference,
        re.MULTILINE,
    )
    assert len(entries) == 1, entries
    thing = getattr(pika_twisted, name)
    assert thing.__doc__
    for member, value in vars(thing).items() if isinstance(thing, type) else ():
        if member[0] != "_" and (callable(value) or isinstance(value, property)):
            assert value.__doc__, f"{name}.{member} has no docstring"
    for member in INTERNAL.get(name, ()):
        assert re.search(rf":exclude-members:.*\b{member}\b", entries[0]), member


def test_a_package_index_gets_whole_addresses() -> None:
    """Whatever README.md links to is in the repository, and is linked to by its address there."""
    script = runpy.run_path(str(ROOT / ".github/scripts/absolute_links.py"))
    text = (ROOT / "README.md").read_text()
    paths = [match["path"] for match in script["RELATIVE"].finditer(text)]
    assert "docs/moving.md" in paths
    for path in paths:
        assert (ROOT / path.partition("#")[0]).exists(), path
    whole = script["absolute"](text, "https://host/owner/name", "v1.2.3")
    assert "](https://host/owner/name/blob/v1.2.3/docs/moving.md)" in whole
    assert "](https://host/owner/name/raw/v1.2.3/docs/_static/benchmark.png)" in whole
    assert [each for each in re.findall(r"\]\(([^)]*)\)", whole) if "://" not in each] == []
    assert "](https://twisted.org)" in whole


def test_the_reference_has_what_a_class_takes_from_ours() -> None:
    """autodoc shows inherited methods only where it is asked to."""
    reference = (ROOT / "docs/reference.md").read_text()
    for name in pika_twisted.__all__:
        thing = getattr(pika_twisted, name)
        if not isinstance(thing, type) or issubclass(thing, Exception):
            continue
        entry = reference.partition(f":: pika_twisted.{name}\n")[2].partition("\n.. ")[0]
        for base in thing.__mro__[1:]:
            if base.__module__.startswith("pika_twisted.") and ":inherited-members:" not in entry:
                for member, value in vars(base).items():
                    if member[0] == "_" or member in INTERNAL.get(name, ()):
                        continue
                    if callable(value) or isinstance(value, property):
                        assert f".. automethod:: {member}" in entry, f"{name}.{member}"


def test_the_reference_has_every_number_and_every_event() -> None:
    source = (ROOT / "pika_twisted/stats.py").read_text()
    numbers = re.findall(r"^    (\w+): (?:int|float|bool|ConnectionStats) =", source, re.MULTILINE)
    assert len(numbers) > 20
    for name in numbers:
        assert re.search(rf"^    #: .*\n    {name}:", source, re.MULTILINE), name
    text = pika_twisted.RecoveringService.add_callback.__doc__ or ""
    for event, values in events.EVENTS.items():
        assert f'"{event}"' + (f" ({values})" if values else "") in " ".join(text.split()), event
