"""Restore 10,000 small photos in one call: memory, pace, and going on after a kill.

nice python experiments/reliability/load_many.py            (some ten minutes on one core; Linux)

The network is the smallest with fresh weights, so that what is measured is the handling of files. Pace is processor
time, which other work on the machine spoils less. Then the command is killed half way, run again, and must leave what
it had finished untouched.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sstl.networks import create_network, save_weights
from sstl.ops.files import write_atomic
from sstl.report.environment import environment
from sstl.restore import load, plan, restore_files

PHOTOS, SEED = 10_000, 0


def write_photos(folder: Path, count: int) -> None:
    """Write smooth photographs' likes of nine sizes, as JPEG and PNG."""
    rng = np.random.default_rng(SEED)
    folder.mkdir()
    for i in range(count):
        small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        size = (48 + 8 * (i % 3), 40 + 8 * (i // 3 % 3))
        small.resize(size, Image.Resampling.BICUBIC).save(folder / f"{i:05d}.{'jpg' if i % 2 else 'png'}")


def measure(folder: Path, weights: Path, count: int) -> dict[str, Any]:
    """Restore the photos in this process; return resident memory and processor time at each tenth."""
    restorer = load(weights, "cpu")
    jobs, _ = plan([folder / "photos"], folder / "out")
    outcomes, memory, clock = [], [], [time.process_time()]
    for done, outcome in enumerate(restore_files(restorer, jobs), 1):
        outcomes.append(outcome)  # as the command does, for its report
        if done % (count // 10) == 0:
            memory.append(_resident())
            clock.append(time.process_time())
    assert all(outcome.written for outcome in outcomes)
    seconds = np.diff(clock)
    # The first tenth fills caches of the libraries: memory is looked at from its end on, pace without it too.
    slope = np.polyfit(np.arange(1, 10), memory[1:], 1)[0] / (count // 10)
    return {
        "photos": len(outcomes),
        "resident_megabytes_at_each_tenth": [value / 1e6 for value in memory],
        "bytes_more_for_each_photo": float(slope),
        "processor_seconds_of_each_tenth": seconds.tolist(),
        "last_tenth_to_first": float(seconds[-1] / seconds[0]),
    }


def _resident() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def resume(folder: Path, weights: Path, count: int) -> dict[str, Any]:
    """Kill the command half way and run it again."""
    out = folder / "again"
    command = [sys.executable, "-m", "sstl", "derain", folder / "photos", "-o", out, "--weights", weights]
    command += ["--json", folder / "found.json"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while not out.is_dir() or len([*out.iterdir()]) < count // 2:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir() if path.suffix != ".part"}
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    found = json.loads((folder / "found.json").read_text())
    touched = [name for name, changed in before.items() if (out / name).stat().st_mtime_ns != changed]
    for path in out.iterdir():
        if path.suffix != ".part":
            with Image.open(path) as image:
                image.load()
    return {
        "finished_before_the_kill": len(before),
        "kept": found["kept"],
        "written_by_the_second_run": found["written"],
        "finished_files_touched": len(touched),
        "results": len([path for path in out.iterdir() if path.suffix != ".part"]),
    }


def main() -> None:
    """Measure all in a temporary folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=PHOTOS)
    count = parser.parse_args().photos
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = save_weights(folder / "w.safetensors", create_network("joint", size="tiny"))
        write_photos(folder / "photos", count)
        one_call = measure(folder, weights, count)
        print(one_call, flush=True)
        resumed = resume(folder, weights, count)
        print(resumed, flush=True)
    figures = {
        "command": f"python experiments/reliability/load_many.py --photos {count}",
        "seed": SEED,
        "one_call": one_call,
        "resumed": resumed,
        "environment": environment(),
    }
    write_atomic(Path(__file__).with_suffix(".json"), json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
