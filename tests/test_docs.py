"""What the documentation says can be typed: its Python names what exists, and its commands parse."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import ROOT, repository_files

import sstl
from sstl.cli.main import COMMANDS, build_parser


class Block(NamedTuple):
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks_of(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL):
        yield Block(page, text.count("\n", 0, match.start()) + 2, match[1], match[2])


BLOCKS = [block for page in sorted(repository_files(".md")) for block in blocks_of(page)]


def calls_of_sstl(script: str) -> Iterator[list[str]]:
    """Yield the arguments of each ``sstl ...``, ``some/folder/sstl ...`` and ``... -m sstl ...`` of a shell script."""
    for line in script.replace("\\\n", " ").splitlines():
        words = shlex.shlex(line, posix=True, punctuation_chars=True)  # splits at && | ; > too
        words.whitespace_split = True
        command: list[str] = []
        for word in [*words, ";"]:
            if word[0] not in ";&|<>()":
                command.append(word)
                continue
            if command and Path(command[0]).name == "sstl":
                yield command[1:]
            elif "-m sstl" in " ".join(command):
                yield command[command.index("sstl") + 1 :]
            command = []


def test_calls_are_found():
    script = "a && .venv/bin/sstl derain 'my photo.jpg' -o \\\n out # sstl x\nsstl networks > f\npip install sstl\n"
    assert [*calls_of_sstl(script)] == [["derain", "my photo.jpg", "-o", "out"], ["networks"]]
    assert [*calls_of_sstl("accelerate launch --config_file a.yaml -m sstl train c.yaml x=1")] == [
        ["train", "c.yaml", "x=1"]
    ]


def test_blocks_are_marked_in_one_way():
    assert {block.language for block in BLOCKS} <= {"sh", "python", "yaml", "json", "text"}


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "sh"], ids=str)
def test_commands_parse(block):
    for arguments in calls_of_sstl(block.text):
        command = next((word for word in arguments if not word.startswith("-")), None)
        if command is not None:
            assert command in COMMANDS
            build_parser(command).parse_args(arguments)


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "python"], ids=str)
def test_python_names_what_exists(block):
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "sstl":
            assert node.attr in sstl.__all__
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "sstl":
            module = importlib.import_module(node.module)
            assert all(hasattr(module, alias.name) for alias in node.names)


@pytest.mark.parametrize("name", ["install", "test"])
def test_the_readme_marks_the_commands_that_the_gate_runs(name):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(re.findall(rf"^<!-- command: {name} -->\n```sh\n.+\n```$", text, flags=re.MULTILINE)) == 1


def test_the_readme_speaks_of_every_command():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [command for command in COMMANDS if f"sstl {command}" not in text] == []
