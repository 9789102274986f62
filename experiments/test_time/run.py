"""What `sstl derain --adapt-steps 30` gains or costs: images with truth, and real photos without.

SSTL_DATA=/path/to/data python experiments/test_time/run.py [--images N] [--seed S]     (up to two minutes an image)

Restores development images by the shipped weights and by copies that were adapted to each, at the rate of `sstl` and at
five times that. Writes results.json and README.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from sstl.data import SourceConfig, open_images, open_pairs
from sstl.metrics import matlab_luma, psnr
from sstl.networks.weights import DEFAULT
from sstl.ops.files import write_atomic
from sstl.report.environment import environment
from sstl.report.evaluation import RenderedPairs
from sstl.restore import load
from sstl.restore.adapted import LEARNING_RATE, STEPS, adapt_to_photo

HERE = Path(__file__).resolve().parent
ROWS = {
    "rain100h": "Rain100H dev", "rain800": "Rain800 dev", "any": "BSDS dev, rendered: `any`", "real": "real dev photos",
}  # fmt: skip
LONGEST = 481  # pixels; larger photos are cropped
RATES = (LEARNING_RATE, 5 * LEARNING_RATE)
FIRST = 3  # images of each set, by which one of these was chosen, are left out
DEV = "manifest.csv", "dev"

Triple = tuple[str, np.ndarray, np.ndarray | None]
"""A row of the table, a rainy image, and its truth if there is one."""


def images(count: int) -> Iterator[Triple]:
    """Yield the images of each set that come after the first, each once: some pairs are there twice."""
    for name in ("rain100h", "rain800"):
        pairs = open_pairs(SourceConfig(*DEV, set=name))
        yield from distinct(((name, *map(cropped, pairs.load(i))) for i in range(len(pairs))), count)
    clean = open_images(SourceConfig(*DEV, set="bsds"), "clean")
    rendered = RenderedPairs(clean, "any", FIRST + count)
    yield from distinct((("any", *rendered.load(i)) for i in range(len(rendered))), count)
    real = open_images(SourceConfig(*DEV, set="real"), "rainy")
    yield from distinct((("real", cropped(real.load(i)), None) for i in range(len(real))), count)


def distinct(found: Iterable[Triple], count: int) -> Iterator[Triple]:
    """Yield up to ``count`` of the images that are none of the first and none of each other."""
    seen: set[bytes] = set()
    for number, one in enumerate(found):
        new = one[1].tobytes() not in seen
        seen.add(one[1].tobytes())
        if new and number >= FIRST and count:
            count -= 1
            yield one


def cropped(image: np.ndarray) -> np.ndarray:
    """The middle of an image, at most ``LONGEST`` pixels a side."""
    top, left = (max(0, side - LONGEST) // 2 for side in image.shape[:2])
    return np.ascontiguousarray(image[top : top + LONGEST, left : left + LONGEST])


def measure(count: int, seed: int) -> list[dict[str, Any]]:
    """Return what became of each image, by the start (first) and by what was adapted to it at each rate."""
    start, found = load(DEFAULT), []
    for row, rainy, truth in tqdm([*images(count)], unit="image"):
        adapted = [adapt_to_photo(start, rainy, STEPS, seed, rate) for rate in RATES]
        restored = [restorer.restore(rainy) for restorer in (start, *(one.restorer for one in adapted))]
        entry: dict[str, Any] = {"row": row, "kept": [one.reason is None for one in adapted]}
        entry["removed"] = [_removed(rainy, one) for one in restored]
        if truth is not None:
            entry["psnr"] = [psnr(matlab_luma(one), matlab_luma(truth)) for one in restored]
        found.append(entry)
    return found


def _removed(rainy: np.ndarray, restored: np.ndarray) -> float:
    """Light that was removed, mean in grey levels."""
    return float(np.clip(rainy.astype(float) - restored, 0, None).mean())


def page(found: list[dict[str, Any]]) -> str:
    """Return README.md."""
    lines = []
    for (row, title), (number, rate) in product(ROWS.items(), enumerate(RATES, start=1)):
        own = [entry for entry in found if entry["row"] == row]
        before, after = np.array([[entry["removed"][i] for entry in own] for i in (0, number)])
        kept, light = sum(entry["kept"][number - 1] for entry in own), f"{before.mean():.1f} -> {after.mean():.1f}"
        told = "no truth"
        if "psnr" in own[0]:
            before, after = np.array([[entry["psnr"][i] for entry in own] for i in (0, number)])
            worst, best = min(after - before), max(after - before)
            told = f"{before.mean():.2f} -> {after.mean():.2f}, from {worst:+.2f} to {best:+.2f}"
        lines.append(f"| {title} | {rate:g} | {len(own)} | {kept} | {told} | {light} |")
    return f"""# Adapting to a single photo

Written by `run.py`: development images of at most {LONGEST} pixels a side, restored by `{DEFAULT}` and by copies that
were adapted to each in {STEPS} steps, as `sstl derain --adapt-steps {STEPS}` does at the rate {LEARNING_RATE:g}.
*Kept*: how often the held-back strips favoured the copy; where they did not, the start's restoration counts twice. Luma
PSNR in dB; light removed in grey levels. The rate was chosen on other images of the first three sets. Few images: it
says what can happen, and hardly how often.

| images | rate | count | kept | PSNR | light removed |
| --- | --- | --- | --- | --- | --- |
{chr(10).join(lines)}
"""


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=4, help="of each set, if it has so many")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    found = measure(args.images, args.seed)
    command = f"python experiments/test_time/run.py --images {args.images} --seed {args.seed}"
    result = {"command": command, "images": found, "environment": environment(seed=args.seed)}
    write_atomic(HERE / "results.json", json.dumps(result, indent=1) + "\n")
    write_atomic(HERE / "README.md", page(found))
    print(page(found))


if __name__ == "__main__":
    main()
