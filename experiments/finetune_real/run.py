"""Adapt the shipped weights to real rainy photos without truth, and score the photos that were held out.

SSTL_DATA=/path/to/data python experiments/finetune_real/run.py [FOLDER] [--many [--routed]] [--options KEY=VALUE ...]

Adapts to the manifest's real training photos by ``sstl adapt`` as it is, and measures the weights before and after on
its real development photos (no truth: NIQE, leftover, leakage, directionality, doubt), on clean photographs and on the
development pairs of the synthetic sets. With ``--many``, rain is laid over the manifest's clean training photographs
and judged on its development ones, instead of over the bundled few; with ``--routed`` besides, the start is kept for
what does not look like the photos; with ``--no-gate`` nothing is judged. Writes results.json, or with options
results-OPTION.json; the restored photos stay in FOLDER, for ``sstl compare --blind FOLDER/before FOLDER/after``.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from sstl.config import with_overrides
from sstl.data import SourceConfig, open_pairs
from sstl.data.images import Photo, read_rgb8
from sstl.data.manifest import read_manifest
from sstl.metrics import matlab_luma, psnr
from sstl.ops.files import write_atomic
from sstl.report.adaptation import adapt
from sstl.report.environment import environment
from sstl.report.noreference import without_reference
from sstl.restore import Restorer, load, plan, restore_files

RESULTS = Path(__file__).resolve().with_name("results.json")
MANIFEST = "manifest.csv"
SETS = ("rain100l", "rain100h", "rain800")
CAP, SEED = 60.0, 1


def photos(split: str, kind: str = "real") -> list[Path]:
    """Return the real photos of a split, or its clean photographs."""
    root = Path(os.environ["SSTL_DATA"])
    rows = [row for row in read_manifest(root / MANIFEST) if row.kind == kind and row.split == split]
    return [root / (row.clean if kind == "clean" else row.rainy) for row in rows]


def linked(files: list[Path], folder: Path) -> Path:
    """Return a folder that holds the files as links."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        if not (folder / file.name).exists():
            (folder / file.name).symlink_to(file)
    return folder


def blind(restorer: Restorer, files: list[Path]) -> dict[str, float]:
    """Return the means of what can be measured of restored photos without truth."""
    rows = []
    for file in files:
        rainy = read_rgb8(file)
        layers = restorer.restore_photo(Photo(rainy), ("background", "doubt"))
        restored = np.ascontiguousarray(layers["background"].pixels[..., :3])
        removed = np.maximum(rainy.astype(int) - restored, 0).mean()
        doubt = layers["doubt"].pixels.mean() / 8
        rows.append({**without_reference(rainy, restored), "removed": removed, "doubt": doubt})
    return {key: round(float(np.mean([row[key] for row in rows if key in row])), 4) for key in rows[0]}


def on_pairs(restorer: Restorer) -> dict[str, float]:
    """Return the luma PSNR on development pairs of the synthetic sets, and the RGB PSNR of clean sides."""
    found: dict[str, float] = {}
    clean: list[float] = []
    for name in SETS:
        pairs = open_pairs(SourceConfig(MANIFEST, split="dev", set=name))
        scores = []
        for i in range(len(pairs)):
            rainy, truth = pairs.load(i)
            scores.append(psnr(matlab_luma(restorer.restore(rainy)), matlab_luma(truth)))
            if name == "rain100l":
                clean.append(min(psnr(restorer.restore(truth), truth), CAP))
        found[name] = round(float(np.mean(scores)), 3)
    return {**found, "clean": round(float(np.mean(clean)), 3)}


def main() -> None:
    """Adapt, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("runs/finetune_real"))
    parser.add_argument("--options", metavar="KEY=VALUE", nargs="+", default=(), help="of the default method")
    parser.add_argument("--many", action="store_true", help="rain on the manifest's clean photographs")
    parser.add_argument("--routed", action="store_true", help="keep the start beside what is adapted; needs --many")
    parser.add_argument("--no-gate", action="store_true", help="keep the last weights, whatever is judged")
    args = parser.parse_args()
    folder = args.folder.resolve()
    train, dev = (linked(photos(split), folder / split) for split in ("train", "dev"))
    started, used = time.perf_counter(), time.process_time()
    chosen = with_overrides({}, args.options)
    sides = {"clean": "train", "held_out": "dev"} if args.many else {}
    clean: Any = {name: linked(photos(split, "clean"), folder / name) for name, split in sides.items()}
    result = adapt(
        train, folder / "run", options=chosen, gate=not args.no_gate, routed=args.routed or None, seed=SEED,
        overwrite=True, **clean,
    )  # fmt: skip
    minutes, processor = (time.perf_counter() - started) / 60, (time.process_time() - used) / 60
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    weights: dict[str, Callable[[], Restorer]] = {"before": load, "after": lambda: load(result.weights)}
    scores: dict[str, Any] = {}
    for name, restorer in weights.items():
        scores[name] = {"real_dev": blind(restorer(), sorted(dev.iterdir())), "pairs_dev": on_pairs(restorer())}
        jobs, _ = plan([train, dev], folder / name)
        for _ in restore_files(restorer(), jobs, overwrite=True):
            pass
    options = shlex.join(argument for argument in sys.argv[1:] if argument != str(args.folder))
    results = {
        "command": f"python experiments/finetune_real/run.py {options}".strip(),
        "photos": len(list(train.iterdir())), "seed": SEED, "outcome": vars(result.outcome), **scores,
        "minutes": round(minutes, 2), "processor_minutes": round(processor, 2), "peak_gib": round(peak, 2),
        "environment": environment(),
    }  # fmt: skip
    given = {"many": args.many, "routed": args.routed, **dict.fromkeys(args.options, True), "ungated": args.no_gate}
    changed = "".join(f"-{name}" for name, there in given.items() if there)
    write_atomic(RESULTS.with_stem(f"results{changed}".replace("=", "-")), json.dumps(results, indent=1) + "\n")
    print(json.dumps({key: results[key] for key in ("outcome", "before", "after", "minutes", "peak_gib")}, indent=1))
    print(f"next: sstl compare --blind {folder / 'before'} {folder / 'after'}")


if __name__ == "__main__":
    main()
