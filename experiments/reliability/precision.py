"""What bfloat16 costs: the shipped weights on rendered rain, and a short training, in it and in float32.

python experiments/reliability/precision.py        (about four minutes)
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from toy_run import history, make_data, settings, write_results

from sstl.data import SourceConfig, open_images
from sstl.engine import MethodConfig, ValidationConfig, train
from sstl.report.evaluation import RenderedPairs, evaluate
from sstl.restore import load

ARITHMETIC = ("fp32", "bf16")


def restored(weights: str, count: int) -> dict[str, float]:
    """Return the mean luma PSNR on so many bundled photographs under rendered rain, and the largest difference."""
    pairs = RenderedPairs(open_images(SourceConfig("bundled"), "clean", Path()), "mixed", count)
    found = evaluate(pairs, {name: load(weights, precision=name) for name in ARITHMETIC})
    means = {name: found.results[name]["psnr"].mean for name in ARITHMETIC}
    worst = max(abs(row.scores["bf16"]["psnr"] - row.scores["fp32"]["psnr"]) for row in found.rows)
    return {**means, "difference": means["bf16"] - means["fp32"], "largest_of_an_image": worst}


def trained(steps: int, seeds: int) -> dict[str, Any]:
    """Return the validation PSNR after trainings of joint tiny in each arithmetic, both validated as trained.

    A training amplifies the rounding of its first step: one pair of runs tells of chance. Over the seeds, the mean
    difference has a standard error, and float32 differs from itself by its spread.
    """
    found: dict[str, list[float]] = {name: [] for name in ARITHMETIC}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_data(folder / "data")
        for seed in range(seeds):
            for precision in ARITHMETIC:
                config = settings(
                    folder / "data", folder / f"{precision}-{seed}", MethodConfig("supervised"), steps=steps, seed=seed,
                    precision=precision, checkpoint_every=steps, picture_every=0,
                    validation=ValidationConfig((SourceConfig("pairs"),), every=steps),
                )  # fmt: skip
                train(config)
                ends = [line["validation"]["psnr"] for line in history(config.output) if "validation" in line]
                found[precision].append(ends[-1])
    differences = np.subtract(found["bf16"], found["fp32"])
    return {
        **found, "difference": differences.mean(),
        "standard_error": differences.std(ddof=1) / seeds**0.5 if seeds > 1 else None,
        "spread_of_fp32": np.std(found["fp32"], ddof=1) if seeds > 1 else None,
    }  # fmt: skip


def main() -> None:
    """Measure, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", nargs="+", default=["joint-small", "quickstart-source"])
    parser.add_argument("--count", type=int, default=12, help="images")
    parser.add_argument("--steps", type=int, default=200, help="of the training")
    parser.add_argument("--seeds", type=int, default=4, help="trainings in each arithmetic")
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).with_suffix(".json"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Any] = {"images": args.count, "weights": {}}
    for weights in args.weights:
        found["weights"][weights] = restored(weights, args.count)
        print(weights, found["weights"][weights], flush=True)
    if args.steps:
        found["training"] = {"steps": args.steps, **trained(args.steps, args.seeds)}
        print(found["training"])
    write_results(args.output, 0, found)


if __name__ == "__main__":
    main()
