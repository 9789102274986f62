"""How long `sstl adapt` takes on 5,000 rainy photos from its call until it works: matches their rain, then trains.

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
    """Call the command, wait for the bar of its matching and for the log of its training, and end it."""
    command = [sys.executable, "-m", "sstl", "adapt", photos, "-o", run, "--steps", "40"]
    said, started = run.with_suffix(".txt"), time.perf_counter()
    signs = {"matching": lambda: "match:" in said.read_text(), "training": (run / "log.jsonl").is_file}
    found: dict[str, Any] = {"photos": PHOTOS}
    with said.open("w") as file, subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=file) as process:
        for work, begun in signs.items():
            while not begun():
                if process.poll() is not None:
                    raise RuntimeError(f"the command ended before its {work}: {said.read_text()[-500:]}")
                time.sleep(0.02)
            found[f"seconds_until_{work}"] = round(time.perf_counter() - started, 2)
        process.send_signal(signal.SIGKILL)
    return found


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
