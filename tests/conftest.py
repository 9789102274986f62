"""What the tests share: one torch thread, the repository's files, a small network, a photograph, the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings
from skimage import data
from torch import Tensor

from sstl.cli.main import main
from sstl.engine import Interrupted
from sstl.networks import Network, create_network

ROOT = Path(__file__).resolve().parent.parent

# A loaded machine is no reason to fail; the gate draws the same examples each time, a developer new ones.
settings.register_profile(
    "sstl", deadline=None, derandomize="CI" in os.environ, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("sstl")


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest file first, so that the other process is not waiting for it at the end."""
    items.sort(key=lambda item: item.path.name != "test_site.py")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(call: pytest.CallInfo[None]) -> Iterator[None]:
    """End the suite on a signal that a training took for its own; it would go on with the next test."""
    if call.excinfo is not None and call.excinfo.errisinstance(Interrupted):
        pytest.exit(str(call.excinfo.value), returncode=call.excinfo.value.exit_code)
    return (yield)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def repository_files(*suffixes: str) -> Iterator[Path]:
    """Yield the repository's own files with these suffixes: all but what .gitignore names."""
    ignored = [".git", *(line.strip("/") for line in (ROOT / ".gitignore").read_text().split())]
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if not any(fnmatch(name, pattern) for pattern in ignored)]
        yield from (Path(folder, name) for name in sorted(names) if Path(name).suffix in suffixes)


@pytest.fixture
def tiny_network() -> Network:
    """The smallest ``joint``, with fresh weights, in evaluation mode."""
    return create_network("joint", size="tiny").eval()


@pytest.fixture(scope="session")
def photo() -> Tensor:
    """A clean photograph, (1, 3, 96, 128): scikit-image's astronaut, around the face."""
    crop = data.astronaut()[40:136, 160:288]
    return torch.from_numpy(crop).movedim(-1, 0)[None].float() / 255


@pytest.fixture
def run_cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run ``sstl ARGUMENTS`` in this process."""

    def run(*arguments: object) -> Outcome:
        capsys.readouterr()
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as stop:  # argparse's --help and --version
            code = int(stop.code or 0)
        return Outcome(code, *capsys.readouterr())

    return run


@pytest.fixture
def run_process(tmp_path: Path) -> Callable[..., Outcome]:
    """Run ``python ARGUMENTS`` in a process of its own, by default in an empty folder."""

    def run(*arguments: object, cwd: Path = tmp_path, timeout: float = 300) -> Outcome:
        done = subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=cwd,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    return run
