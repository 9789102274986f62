"""The house: imports point down only, and every file says in one line what it is for."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

import sstl

# Where a module lives decides what it may import: the layers below, and its own folder.
LAYERS = [
    {"types", "config", "registry", "errors", "compat"},
    {"ops", "rain"},
    {"networks", "losses", "metrics", "data"},
    {"methods"},
    {"engine", "restore"},
    {"report"},
    {"demo"},
    {"cli"},
    {"__main__"},
]
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
FILES = sorted((ROOT / "sstl").rglob("*.py"))


def room_of(module: str) -> str:
    """``sstl.networks.joint`` -> ``networks``; the package itself, for its version, is "" and lies below everything."""
    return module.split(".")[1] if "." in module else ""


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield (line, module of sstl) for every import, those in functions and under TYPE_CHECKING too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names if alias.name.split(".")[0] == "sstl")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            if node.module == "sstl":  # a folder, or a public name, which lives in one
                names = (alias.name for alias in node.names)
                yield from (
                    (node.lineno, sstl._HOME.get(n, "sstl" if n == "__version__" else f"sstl.{n}")) for n in names
                )
            elif node.module and node.module.startswith("sstl."):
                yield node.lineno, node.module


def allowed(level: int, other: int) -> bool:
    return other < level or other == level == 0  # the files of the ground floor may use each other


def upward(room: str, source: str) -> list[str]:
    """Return the imports of a file in ``room`` that do not point down."""
    found = [(line, module, room_of(module)) for line, module in imported(ast.parse(source))]
    return [
        f"line {line}: {room} (L{LEVEL[room]}) imports {module}"
        for line, module, other in found
        if other and other != room and not (other in LEVEL and allowed(LEVEL[room], LEVEL[other]))
    ]


def room_of_file(path: Path) -> str:
    return path.relative_to(ROOT / "sstl").parts[0].removesuffix(".py")


def test_every_room_has_a_layer():
    assert {room_of_file(path) for path in FILES} - {"__init__"} <= LEVEL.keys()


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path):
    if path == ROOT / "sstl" / "__init__.py":  # names its homes for type checkers, and imports them on first use
        tree = ast.parse(path.read_text(encoding="utf-8"))
        tree.body = [node for node in tree.body if ast.unparse(getattr(node, "test", node)) != "TYPE_CHECKING"]
        assert [*imported(tree)] == []
    else:
        assert upward(room_of_file(path), path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("room", "line"),
    [
        ("ops", "import sstl.networks"),
        ("networks", "from sstl.methods import create_method"),
        ("restore", "from sstl.engine.loop import run_loop"),
        ("engine", "from sstl.restore import load"),
        ("data", "from sstl import losses"),
        ("methods", "from sstl import train"),
        ("report", "def f():\n    from sstl.cli.main import main"),
        ("config", "if TYPE_CHECKING:\n    from sstl.networks import Network"),
        ("rain", "from sstl.ops.files import write_atomic"),
    ],
)
def test_an_import_that_does_not_point_down_is_found(room, line):
    assert len(upward(room, line)) == 1


@pytest.mark.parametrize(
    ("room", "line"),
    [
        ("networks", "from sstl.ops import dilation, files"),
        ("networks", "import sstl.networks.base"),
        ("cli", "import sstl\nfrom sstl import load, __version__"),
        ("config", "from sstl.errors import ConfigError"),
        ("engine", "import torch\nfrom sstlx import engine"),
    ],
)
def test_an_import_that_points_down_passes(room, line):
    assert upward(room, line) == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_says_in_one_line_what_it_is_for(path):
    first, *rest = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n")
    assert first.endswith(".")
    assert not rest or rest[0] == ""
