"""What the documentation says can be typed is typed here: Python runs, commands run or parse, links lead somewhere."""

from __future__ import annotations

import doctest
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import yaml
from conftest import ROOT, repository_files
from PIL import Image
from skimage import data

import sstl
from sstl.cli.main import COMMANDS, build_parser, main
from sstl.config import from_tree
from sstl.engine import TrainConfig
from sstl.methods import METHODS
from sstl.report.adaptation import adapt

# Blocks of shell that are only parsed: (page or folder, words of the block) -> why.
ONLY_PARSED = {
    ("README.md", ".venv/bin/"): "installs, tests or launches; the gate runs the first two as they stand",
    ("README.md", "accelerate launch"): "needs data that are not here, and several devices",
    ("README.md", "data.root=/path/to/data"): "needs data that are not here, and hours",
    ("docs/commands.md", "PHOTO-OR-FOLDER"): "its names in capitals stand for the reader's; each command has its tests",
    ("docs/reliability-inputs.md", ""): "harnesses that take hours; the tests run light versions of them",
    ("docs/tutorials/plot_many_processes.py", ""): "needs several devices, or machines",
    ("docs/how-to/these-pages.md", ""): "installs, and builds these pages, which test_site.py does",
}
# Commands that are left out of the blocks that run: how they begin -> why.
LEFT_OUT = {
    "python3 -m venv": "the gate makes an environment and installs into it",
    ". .venv/bin/activate": "as above",
    "pip install": "as above",
    "sstl quickstart": "the gate runs it, in the README's install command",
    "sstl compare --blind": "serves a page until somebody has voted",
}
TRAINING = """\
output: runs/trained
data: {paired: [{path: bundled, split: train, recipe: light}], crop: 32, workers: 0}
network: {name: joint, options: {size: tiny}}
steps: 2
batch_size: 2
picture_every: 0
"""


class Block(NamedTuple):
    """A fenced block of a page; one under the line ``<!-- file: NAME -->`` is the file that its page speaks of."""

    page: Path
    line: int
    language: str
    text: str
    file: str | None = None

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks_of(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".py":  # a tutorial, which runs itself but for what it shows in comments
        for match in re.finditer(r"^# \.\. code-block:: (\w+)\n#\n((?:#    .*\n)+)", text, flags=re.MULTILINE):
            shown = re.sub(r"^#    ", "", match[2], flags=re.MULTILINE)
            yield Block(page, text.count("\n", 0, match.start(2)) + 1, match[1], shown)
        return
    pattern = r"(?:^<!-- file: (\S+) -->\n)?^```(\w*)\n(.*?)^```$"
    for match in re.finditer(pattern, text, flags=re.MULTILINE | re.DOTALL):
        yield Block(page, text.count("\n", 0, match.start(3)) + 1, match[2], match[3], match[1])


PAGES = sorted(repository_files(".md"))
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("plot_*.py"))
BLOCKS = [block for page in [*PAGES, *TUTORIALS] for block in blocks_of(page)]


def why_only_parsed(block: Block) -> str | None:
    page = block.page.relative_to(ROOT).as_posix()
    return next((why for (at, words), why in ONLY_PARSED.items() if page.startswith(at) and words in block.text), None)


def commands_of(script: str) -> Iterator[list[str]]:
    """Yield the words of each simple command of a shell script."""
    for line in script.replace("\\\n", " ").splitlines():
        words = shlex.shlex(line, posix=True, punctuation_chars=True)  # splits at && | ; > too
        words.whitespace_split = True
        command: list[str] = []
        for word in [*words, ";"]:
            if word[0] not in ";&|<>()":
                command.append(word)
            elif command:
                yield command
                command = []


def calls_of_sstl(script: str) -> Iterator[list[str]]:
    """Yield the arguments of each ``sstl ...``, ``some/folder/sstl ...`` and ``... -m sstl ...`` of a shell script."""
    for command in commands_of(script):
        if Path(command[0]).name == "sstl":
            yield command[1:]
        elif "-m sstl" in " ".join(command):
            yield command[command.index("sstl") + 1 :]


def shortened(arguments: list[str]) -> list[str]:
    """Return a command's arguments with the training of an adaptation cut to two steps."""
    if arguments[0] != "adapt":
        return arguments
    told = [i for i, word in enumerate(arguments) if word in ("--steps", "--minutes")]
    kept = [word for i, word in enumerate(arguments) if i not in told and i - 1 not in told]
    return [*kept, "--steps", "2"]


def ids(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


def pages_with(language: str) -> list[Path]:
    return sorted({b.page for b in BLOCKS if b.language == language and not (language == "sh" and why_only_parsed(b))})


@pytest.fixture
def readers_folder(tmp_path, monkeypatch):
    """A folder with what the pages speak of: photos, dry ones, a training file; an adaptation takes two steps in it."""
    photos = {"my-photos/a.jpg": data.astronaut()[:96, :128], "my-photos/b.png": data.coffee()[:80, :96]}
    dry = {f"my-dry-photos/{i:02}.png": data.chelsea()[5 * i : 5 * i + 128, :128] for i in range(20)}
    dry["photo.jpg"] = data.chelsea()[:96, :96]
    for name, pixels in {**photos, **dry}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / name)
    np.save(tmp_path / "rainy.npy", np.full((40, 56, 3), 0.5, np.float32))
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    (tmp_path / "train.yaml").write_text(TRAINING, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(METHODS, "_entries", dict(METHODS._entries))  # what a page registers is forgotten
    monkeypatch.setattr(sstl, "adapt", lambda *a, **options: adapt(*a, **{**options, "steps": 2}), raising=False)
    return tmp_path


def write_files(page: Path, folder: Path) -> None:
    for block in BLOCKS:
        if block.page == page and block.file:
            (folder / block.file).write_text(block.text, encoding="utf-8")


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


def test_what_is_not_run_is_there():
    for page, words in ONLY_PARSED:
        assert any(str(block).startswith(page) and words in block.text for block in BLOCKS if block.language == "sh")
    run = [block.text for block in BLOCKS if block.language == "sh" and not why_only_parsed(block)]
    commands = [shlex.join(command) for text in run for command in commands_of(text)]
    assert [words for words in LEFT_OUT if not any(command.startswith(words) for command in commands)] == []


@pytest.mark.parametrize("page", pages_with("sh"), ids=ids(pages_with("sh")))
def test_commands_run(page, readers_folder, run_process):
    write_files(page, readers_folder)
    for block in BLOCKS:
        if block.page == page and block.language == "sh" and not why_only_parsed(block):
            for command in commands_of(block.text):
                if any(shlex.join(command).startswith(words) for words in LEFT_OUT):
                    continue
                if command[0] == "sstl":
                    assert main(shortened(command[1:])) == 0, f"{block}: {shlex.join(command)}"
                else:
                    assert command[0] == "python", f"{block}: {shlex.join(command)} is neither run nor left out"
                    outcome = run_process(command[1], *shortened(command[2:]), cwd=readers_folder)
                    assert outcome.code == 0, f"{block}: {outcome.err}"


PYTHON = [page for page in pages_with("python") if page != ROOT / "docs" / "loops.md"]  # test_loops.py looks closer


@pytest.mark.parametrize("page", PYTHON, ids=ids(PYTHON))
def test_python_runs(page, readers_folder):
    names: dict[str, object] = {"__name__": page.stem}
    write_files(page, readers_folder)
    for block in BLOCKS:
        if block.page == page and block.language == "python":
            exec(compile("\n" * block.line + block.text, str(block), "exec"), names)


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "yaml"], ids=str)
def test_yaml_is_what_it_is_said_to_be(block):
    tree = yaml.safe_load(block.text)
    if "data" in tree:
        from_tree(TrainConfig, {"output": "runs/mine", **tree}, where=str(block))
    else:
        assert block.file, "a file that a command of its page reads"


@pytest.mark.parametrize("page", PAGES, ids=ids(PAGES))
def test_links_in_the_repository_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\((?!\w+:)([^)\s]+)\)", text):
        path, _, heading = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if heading:
            titles = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), flags=re.MULTILINE)
            assert heading in [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles], link


SOURCES = [path for path in repository_files(".py") if ROOT / "sstl" in path.parents]
WITH_EXAMPLES = [path for path in SOURCES if ">>> " in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=ids(WITH_EXAMPLES))
def test_examples_in_docstrings_give_what_they_say(path):
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    outcome = doctest.testmod(importlib.import_module(name.removesuffix(".__init__")), optionflags=doctest.ELLIPSIS)
    assert outcome.attempted > 0
    assert outcome.failed == 0


def test_spelling(run_process):
    files = [path for path in repository_files(".md", ".py", ".rst", ".yaml", ".html") if "tests" not in path.parts]
    outcome = run_process("-m", "codespell_lib", "--ignore-words-list", "inpt", *files)  # torchvision's word
    assert outcome.code == 0, outcome.out


@pytest.mark.parametrize("name", ["install", "test"])
def test_the_readme_marks_the_commands_that_the_gate_runs(name):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(re.findall(rf"^<!-- command: {name} -->\n```sh\n.+\n```$", text, flags=re.MULTILINE)) == 1


def test_the_readme_speaks_of_every_command():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [command for command in COMMANDS if f"sstl {command}" not in text] == []
