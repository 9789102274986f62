"""How long `sstl adapt` takes on 5,000 rainy photos from its call until its training begins.

python experiments/reliability/load_adapt.py            (a minute on two cores)

The photos are copies of a few of scikit-image's under rendered rain; weights, method and gate are the defaults.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from PIL import Image

from sstl.data import SourceConfig, open_images
from sstl.ops.files import write_atomic
from sstl.report.environment import environment
from sstl.report.evaluation import RenderedPairs

PHOTOS, DIFFERENT, SEED = 5_000, 10, 0
SIDE = 256


def write_photos(folder: Path) -> None:
    """Write the photos, each some bytes of its own."""
    pairs = RenderedPairs(open_images(SourceConfig("bundled"), "clean"), "heavy", DIFFERENT, SEED)
    folder.mkdir()
    for i in range(DIFFERENT):
        rainy, _ = pairs.load(i)
        Image.fromarray(rainy[:SIDE, :SIDE]).save(folder / f"{i:04d}.jpg", quality=92)
    for i in range(DIFFERENT, PHOTOS):
        shutil.copy(folder / f"{i % DIFFERENT:04d}.jpg", folder / f"{i:04d}.jpg")


def start(photos: Path, run: Path) -> dict[str, Any]:
    """Call the command, wait for the log of its training, and end it."""
    command = [sys.executable, "-m", "sstl", "adapt", photos, "-o", run, "--steps", "40"]
    log, started = run / "log.jsonl", time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not log.is_file():
            time.sleep(0.02)
        seconds = time.perf_counter() - started
        if process.poll() is not None:
            assert process.stderr is not None
            raise RuntimeError(f"the command ended before its training: {process.stderr.read()[-500:]}")
        process.send_signal(signal.SIGKILL)
    return {"photos": PHOTOS, "seconds_until_training": round(seconds, 2)}


def main() -> None:
    """Measure in a temporary folder, and write."""
    with tempfile.TemporaryDirectory() as name:
        write_photos(Path(name) / "photos")
        found = start(Path(name) / "photos", Path(name) / "run")
    result = {
        "command": "python experiments/reliability/load_adapt.py", **found, "environment": environment(seed=SEED)
    }  # fmt: skip
    write_atomic(Path(__file__).with_suffix(".json"), json.dumps(result, indent=1) + "\n")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
