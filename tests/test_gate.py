"""The linters are part of the tests, so that the README's test command is the whole gate."""

from __future__ import annotations

import re
import stat
import subprocess

import pytest
from conftest import ROOT, repository_files


@pytest.mark.parametrize("arguments", ["ruff check --no-cache", "ruff format --check --no-cache", "mypy"])
def test_linters_are_content(run_process, arguments):
    outcome = run_process("-m", *arguments.split(), cwd=ROOT, timeout=900)
    assert outcome.code == 0, outcome.out + outcome.err


@pytest.mark.parametrize("script", ["run", "resolve"])
def test_the_scripts_of_the_gate_can_be_run(script):
    path = ROOT / ".ci" / script
    assert path.stat().st_mode & stat.S_IXUSR
    subprocess.run(["bash", "-n", path], check=True)


def test_no_file_depends_on_one_machine():
    absolute = re.compile(r"(?<![\w./:-])/(home|root|work|Users)/\w")
    for path in repository_files(".py", ".md", ".yaml", ".toml", ".cff", ""):
        found = absolute.search(path.read_text(encoding="utf-8"))
        assert found is None, f"{path}: {found}"
