"""How long each tutorial takes on this machine, at its full length.

python experiments/benchmarks/tutorials.py

Writes tutorials.json: seconds of the wall clock, each in a process of its own, as one who downloads the script runs it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from tqdm import tqdm

from sstl.ops.files import write_atomic
from sstl.report.environment import environment

HERE = Path(__file__).resolve().parent
TUTORIALS = HERE.parents[1] / "docs" / "tutorials"


def seconds_of(script: Path) -> float:
    """Run a tutorial in an empty folder, its pictures drawn but not shown; raise if it fails."""
    settings = {name: value for name, value in os.environ.items() if name != "SSTL_TUTORIAL_SECONDS"}
    with TemporaryDirectory() as folder:
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, script],
            cwd=folder,
            env={**settings, "MPLBACKEND": "Agg", "TQDM_DISABLE": "1"},
            stdout=subprocess.DEVNULL,
            check=True,
        )
        return round(time.perf_counter() - started, 1)


def main() -> None:
    """Measure and write."""
    seconds = {path.stem: seconds_of(path) for path in tqdm(sorted(TUTORIALS.glob("plot_*.py")))}
    result = {
        "command": "python experiments/benchmarks/tutorials.py", "seconds": seconds,
        "together": round(sum(seconds.values()), 1), "environment": environment(),
    }  # fmt: skip
    write_atomic(Path(__file__).with_suffix(".json"), json.dumps(result, indent=1) + "\n")
    print(json.dumps(seconds, indent=1))


if __name__ == "__main__":
    main()
