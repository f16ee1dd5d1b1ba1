"""Which module may know which: imports of the package point one way, tests share in support."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pika.channel
import pika.connection
import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "pika_twisted"
MODULES = sorted(PACKAGE.rglob("*.py"))
COMPILED = {"_frame": "codec", "_ready": "deferreds"}

#: What marshals frames, or reads them.
WIRE = {"struct", "pika.data", "pika.amqp_object"}


def dotted(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 2 else parts)


def room(module: str) -> str:
    """The folder of a module, or the module itself where it lies flat."""
    name = module.split(".")[1]
    return COMPILED.get(name, name)


def is_for_checkers(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes below `node` that run; not what only type checkers read."""
    for child in ast.iter_child_nodes(node):
        if not is_for_checkers(child):
            yield child
            yield from statements(child)


def imported(path: Path) -> Iterator[str]:
    """The modules that a module imports, in full."""
    package = ".".join(path.parent.relative_to(ROOT).parts)
    for node in statements(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            up = package.split(".")[: len(package.split(".")) - node.level + 1]
            start = [*(up if node.level else []), *([node.module] if node.module else [])]
            for each in node.names:
                whole = ".".join([*start, each.name])
                found = any(
                    (ROOT / whole.replace(".", "/")).with_suffix(suffix).exists()
                    for suffix in (".py", ".pyi")
                )
                yield whole if found else ".".join(start)


OWN = {
    dotted(path): sorted({name for name in imported(path) if name.startswith("pika_twisted.")})
    for path in MODULES
}


def table() -> list[list[str]]:
    """The rooms of docs/how-it-works.md, row by row."""
    text = (ROOT / "docs/how-it-works.md").read_text()
    section = text.partition("## Who may know what")[2].partition("\n## ")[0]
    return [re.findall(r"`(\w+)`", row) for row in re.findall(r"^\| (`.*?) \|", section, re.M)]


def test_every_room_stands_in_the_table_once() -> None:
    rooms = {path.name if path.is_dir() else path.stem for path in PACKAGE.iterdir()}
    rooms = {name.partition(".")[0] for name in rooms} - {"__pycache__", "py", "_frame"}
    assert sorted(name for row in table() for name in row) == sorted(rooms)


def test_every_module_of_a_folder_stands_in_its_row() -> None:
    text = (ROOT / "docs/how-it-works.md").read_text()
    for folder in (path for path in PACKAGE.iterdir() if (path / "__init__.py").exists()):
        (row,) = re.findall(rf"^\| `{folder.name}` \| (.*?) \|", text, re.M)
        for module in folder.iterdir():
            name = module.stem.partition(".")[0]
            if module.suffix in (".py", ".pyx") and name != "__init__":
                assert re.search(rf"`{name}(\.pyx)?`", row), f"{folder.name}: {name}"


@pytest.mark.parametrize("module", OWN)
def test_imports_point_up_the_table(module: str) -> None:
    row_of = {name: number for number, row in enumerate(table()) for name in row}
    for other in OWN[module]:
        assert row_of[room(other)] <= row_of[room(module)], f"{module} imports {other}"
        if row_of[room(other)] == row_of[room(module)]:
            assert module.split(".")[1] != "__init__"


def test_no_modules_import_each_other() -> None:
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path, module))
        if module not in done:
            for other in OWN.get(module, ()):
                visit(other, (*path, module))
            done.add(module)

    for module in OWN:
        visit(module, ())


def private_names_of_pika() -> set[str]:
    texts = [Path(each.__file__).read_text() for each in (pika.channel, pika.connection)]
    found = {name for text in texts for name in re.findall(r"\bself\.(_[a-z]\w*)", text)}
    assert len(found) > 100
    return found


@pytest.mark.parametrize(
    "path", [each for each in MODULES if "pika_state" not in each.parts], ids=dotted
)
def test_only_pika_state_touches_private_names_of_pika(path: Path) -> None:
    private = private_names_of_pika()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and node.attr in private:
            owner = ast.unparse(node.value)
            assert owner in ("self", "cls"), f"line {node.lineno}: {owner}.{node.attr}"


@pytest.mark.parametrize(
    "path", [each for each in MODULES if "codec" not in each.parts], ids=dotted
)
def test_only_the_codec_knows_the_wire(path: Path) -> None:
    assert not WIRE & set(imported(path))


TESTS = sorted((ROOT / "tests").rglob("*.py"))


@pytest.mark.parametrize("path", TESTS, ids=dotted)
def test_no_test_module_is_imported(path: Path) -> None:
    """What several tests use stands in tests/support."""
    for name in imported(path):
        assert not re.match(r"tests\..*\b(test_\w+|conftest)$", name), f"imports {name}"
