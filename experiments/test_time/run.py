"""What `sstl derain --adapt-steps 30` gains or costs: images with truth, and real photos without.

SSTL_DATA=/path/to/data python experiments/test_time/run.py [--images N] [--seed S]      (up to a minute an image)

Restores development images by the shipped weights and by a copy that was adapted to each. Writes results.json and
README.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
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
from sstl.restore.adapted import STEPS, adapt_to_photo

HERE = Path(__file__).resolve().parent
ROWS = {
    "rain100h": "Rain100H dev", "rain800": "Rain800 dev", "any": "BSDS dev, rendered: `any`", "real": "real dev photos",
}  # fmt: skip
LONGEST = 481  # pixels; larger photos are cropped
FIRST = 3  # images of each set, on which the rate of the adaptation was chosen, are left out


def images(count: int) -> Iterator[tuple[str, np.ndarray, np.ndarray | None]]:
    """Yield (row, rainy, truth or None) of the images of each set that come after the first."""
    chosen = range(FIRST, FIRST + count)
    for name in ("rain100h", "rain800"):
        pairs = open_pairs(SourceConfig("manifest.csv", split="dev", set=name))
        yield from ((name, *map(cropped, pairs.load(i))) for i in chosen)
    rendered = RenderedPairs(
        open_images(SourceConfig("manifest.csv", split="dev", set="bsds"), "clean"), "any", FIRST + count
    )
    yield from (("any", *rendered.load(i)) for i in chosen)
    real = open_images(SourceConfig("manifest.csv", split="dev", set="real"), "rainy")
    yield from (("real", cropped(real.load(i)), None) for i in chosen)


def cropped(image: np.ndarray) -> np.ndarray:
    """The middle of an image, at most ``LONGEST`` pixels a side."""
    top, left = (max(0, side - LONGEST) // 2 for side in image.shape[:2])
    return np.ascontiguousarray(image[top : top + LONGEST, left : left + LONGEST])


def measure(count: int, seed: int) -> list[dict[str, Any]]:
    """Return what became of each image, by the start and by what was adapted to it."""
    start, found = load(DEFAULT), []
    for row, rainy, truth in tqdm([*images(count)], unit="image"):
        adapted = adapt_to_photo(start, rainy, STEPS, seed)
        before, after = start.restore(rainy), adapted.restorer.restore(rainy)
        entry = {
            "row": row,
            "kept": adapted.reason is None,
            "removed": [_removed(rainy, one) for one in (before, after)],
        }
        if truth is not None:
            entry["psnr"] = [psnr(matlab_luma(one), matlab_luma(truth)) for one in (before, after)]
        found.append(entry)
    return found


def _removed(rainy: np.ndarray, restored: np.ndarray) -> float:
    """Light that was removed, mean in grey levels."""
    return float(np.clip(rainy.astype(float) - restored, 0, None).mean())


def page(found: list[dict[str, Any]]) -> str:
    """Return README.md."""
    lines = []
    for row, title in ROWS.items():
        own = [entry for entry in found if entry["row"] == row]
        removed = np.mean([entry["removed"] for entry in own], axis=0)
        told = "no truth"
        if "psnr" in own[0]:
            before, after = np.array([entry["psnr"] for entry in own]).T
            worst, best = min(after - before), max(after - before)
            told = f"{before.mean():.2f} -> {after.mean():.2f}, from {worst:+.2f} to {best:+.2f}"
        kept = sum(entry["kept"] for entry in own)
        lines.append(f"| {title} | {len(own)} | {kept} | {told} | {removed[0]:.1f} -> {removed[1]:.1f} |")
    return f"""# Adapting to a single photo

Written by `run.py`: development images of at most {LONGEST} pixels a side, restored by `{DEFAULT}` and by a copy that
`sstl derain --adapt-steps {STEPS}` adapts to each. *Kept*: how often the held-back strips favoured the copy; where they
did not, the start's restoration counts twice. The rate of the adaptation was chosen on other images of the first three
sets. Luma PSNR in dB; light removed in grey levels.

| images | count | kept | PSNR | light removed |
| --- | --- | --- | --- | --- |
{chr(10).join(lines)}
"""


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=4, help="of each set")
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
