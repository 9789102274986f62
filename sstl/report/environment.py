"""With what a figure was made: versions, machine, arithmetic and date, to stand beside it in a report."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

import sstl
from sstl.ops.precision import resolve_precision


def environment(**more: str | int | None) -> dict[str, str | int | None]:
    """Return the versions, kind and number of processors, threads and UTC date as plain values for JSON.

    Args:
        **more: what the caller knows, for example ``precision="bf16", seed=0``.
    """
    return {
        "sstl": sstl.__version__,
        "commit": commit(Path(sstl.__file__).parent),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "instructions": _instructions(),
        "threads": torch.get_num_threads(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **more,
    }


def _instructions() -> str:
    """What the arithmetic of this processor is known by: times on one kind say little of another."""
    native = resolve_precision("auto", torch.device("cpu")) == torch.bfloat16
    return torch.backends.cpu.get_cpu_capability() + " with bfloat16" * native


def commit(package: Path) -> str | None:
    """Return the git commit of a package's source, with "-dirty" if files changed; None if it is not in git."""
    # Asked of a file: a package that lies, untracked, in another project's checkout has none of its commits.
    if _git(package, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    return _git(package, "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty")


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
