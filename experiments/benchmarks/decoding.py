"""What the cache of decoded images saves in time and memory, and how long 100,000 files hold up the start.

python experiments/benchmarks/decoding.py                 (a few minutes; Linux)

Times are processor times, so that other work on the machine spoils them less; each ratio is of one run. Memory is that
of the training process and its two workers after every image was drawn, by proportional set size, which counts a page
that several processes share once. "A memory in each worker" is what a plain dictionary of arrays would be.
"""

from __future__ import annotations

import gc
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sstl.data import SourceConfig, cached, open_images, open_pairs
from sstl.data.stream import GlobalBatches, UnpairedStream, endless
from sstl.ops.files import write_atomic
from sstl.report.environment import environment

IMAGES, HEIGHT, WIDTH = 48, 1024, 1536
BATCH, CROP, BATCHES = 16, 96, 30
FILES = 100_000


class Private:
    """A source that remembers in the process that reads it."""

    def __init__(self, source: Any) -> None:
        self.source, self.items = source, {}

    def __len__(self) -> int:
        """Return the number of items of the source."""
        return len(self.source)

    def key(self, i: int) -> str:
        """Return the name of item ``i``."""
        return self.source.key(i)

    def load(self, i: int) -> Any:
        """Return item ``i``."""
        if i not in self.items:
            self.items[i] = self.source.load(i)
        return self.items[i]


MEMORIES: dict[str, Callable[[Any], Any]] = {
    "none": lambda source: source,
    "a memory in each worker": Private,
    "one shared file": lambda source: cached(source, 10**9),
}


def make_images(folder: Path) -> int:
    """Write smooth, noisy photographs' likes as JPEG; return their decoded size in bytes."""
    rng = np.random.default_rng(0)
    for i in range(IMAGES):
        small = Image.fromarray(rng.integers(0, 256, (HEIGHT // 16, WIDTH // 16, 3), dtype=np.uint8))
        smooth = np.asarray(small.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)).astype(np.int16)
        noisy = (smooth + rng.integers(-8, 9, smooth.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / f"{i}.jpg", quality=92)
    return IMAGES * HEIGHT * WIDTH * 3


def stream(folder: Path, memory: str) -> UnpairedStream:
    """Return a stream of crops from the folder with one of the memories."""
    made = UnpairedStream([SourceConfig(str(folder))], CROP, 0, None, 0)
    made.sources = [MEMORIES[memory](open_images(SourceConfig(str(folder)), "rainy"))]
    return made


def milliseconds_a_crop(folder: Path, memory: str) -> float:
    """Return the median processor time of a crop once every image was read, in this process."""
    crops = stream(folder, memory)
    for i in range(IMAGES):
        crops.sources[0].load(i)
    times = []
    for step in range(BATCHES):
        start = time.process_time()
        crops[range(step * BATCH, (step + 1) * BATCH)]
        times.append(time.process_time() - start)
    return 1000 * statistics.median(times) / BATCH


def megabytes_with_two_workers(folder: Path, memory: str) -> float:
    """Return what the process and two workers take after both workers drew (nearly) every image."""
    batches = endless(stream(folder, memory), GlobalBatches(BATCH), workers=2)
    for _ in range(2 * BATCHES):
        next(batches)
    taken = sum(map(_proportional_kilobytes, (os.getpid(), *(child.pid for child in active_children()))))
    return taken / 1024


def _proportional_kilobytes(pid: int | None) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def starts(root: Path) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield the seconds of processor time that opening 100,000 empty files takes, and reading their folders alone."""
    layouts = {
        "images in one folder": ["{}.png"],
        "pairs in two folders": ["rain/{}.png", "norain/{}.png"],
        "pairs in one folder": ["{}_rain.png", "{}_clean.png"],
    }
    for name, templates in layouts.items():
        folder = root / name
        for template in templates:
            (folder / template).parent.mkdir(parents=True, exist_ok=True)
            for i in range(FILES // len(templates)):
                (folder / template.format(i)).touch()
        config = SourceConfig(str(folder))
        gc.collect()
        start = time.process_time()
        source = open_images(config, "rainy") if len(templates) == 1 else open_pairs(config)
        opened = time.process_time()
        assert sum(len(files) for _, _, files in os.walk(folder)) == FILES == len(source) * len(templates)
        yield name, {"open": opened - start, "read_folders": time.process_time() - opened}


def main() -> None:
    """Measure in one run, so that the ratios compare."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "images")
        folder.mkdir()
        decoded = make_images(folder) / 2**20
        memories = {}
        for memory in MEMORIES:
            crop, taken = milliseconds_a_crop(folder, memory), megabytes_with_two_workers(folder, memory)
            memories[memory] = {"milliseconds_a_crop": crop, "megabytes_with_two_workers": taken}
            print(f"{memory:24} {crop:7.2f} ms a crop, {taken:6.0f} MB with two workers", flush=True)
        bare = memories["none"]["megabytes_with_two_workers"]
        shared = memories["one shared file"]["milliseconds_a_crop"]
        ratios = {
            "times_faster_than_decoding": memories["none"]["milliseconds_a_crop"] / shared,
            "copies_of_the_images_in_memory": {
                memory: (figures["megabytes_with_two_workers"] - bare) / decoded for memory, figures in memories.items()
            },
        }
        print(ratios, flush=True)
        seconds = {}
        for layout, spent in starts(Path(name)):
            seconds[layout] = spent
            print(f"{layout:24} {spent['open']:5.2f} s to open {FILES} files, of which reading the folders once "
                  f"takes {spent['read_folders']:.2f} s", flush=True)  # fmt: skip
    tree = {
        "command": "python experiments/benchmarks/decoding.py",
        "images": IMAGES, "size": [HEIGHT, WIDTH], "decoded_megabytes": decoded, "batch": BATCH, "crop": CROP,
        "memories": memories, "ratios": ratios,
        "files": FILES, "seconds": seconds, "environment": environment(),
    }  # fmt: skip
    write_atomic(Path(__file__).with_suffix(".json"), json.dumps(tree, indent=1) + "\n")


if __name__ == "__main__":
    main()
