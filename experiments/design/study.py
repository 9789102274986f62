"""The design study: `joint` with one thing changed at a time, at equal compute, scored on development pairs.

SSTL_DATA=/path/to/data python experiments/design/study.py [--only PATTERN ...] [--work FOLDER] [--minutes M]

Every variant trains for equally many seconds on one thread, so that two can run side by side, and is scored in one cell
of cells/; one that was measured is skipped, and after M minutes no new one is begun. Writes README.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import time
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sstl.config import from_tree, load_config, to_tree, with_overrides
from sstl.data import SourceConfig, open_images, open_pairs
from sstl.engine import TrainConfig, read_log, train
from sstl.ops.files import write_atomic
from sstl.report.environment import environment
from sstl.report.evaluation import evaluate, evaluate_harm
from sstl.restore import load

HERE = Path(__file__).resolve().parent
CELLS = HERE / "cells"
SECONDS = 240.0  # of training, by the clock of one thread
SETS, IMAGES = ("rain100l", "rain100h", "rain800"), 12
# question -> variant -> what it changes
VARIANTS: dict[str, dict[str, list[str]]] = {
    "Base": {"base": [], "another seed": ["seed=2"]},
    "Where the operations go": {
        "wide at 1/2": ["network.options.widths=[64, 64, 80]", "network.options.blocks=[2, 2]"],
        "wide at 1/8": ["network.options.widths=[40, 72, 160]"],
        "shallow": ["network.options.widths=[56, 80, 128]", "network.options.blocks=[2, 2]"],
        "deep": ["network.options.widths=[40, 56, 96]", "network.options.blocks=[4, 5]"],
        "half the size": ["network.options.widths=[32, 48, 80]"],
    },
    "Bottleneck": {
        "no dilation": ["network.options.rates=[1, 1, 1]"],
        "rates 1, 2": ["network.options.rates=[1, 2]"],
        "one block": ["network.options.contexts=1"],
        "four blocks": ["network.options.contexts=4"],
        "context_basic": ["network.options.bottleneck=context_basic"],
    },
    "Heads and stages": {
        "no map": ["network.options.detect=false"],
        "no streak term": ["method.options.streak=0.0"],
        "map term times five": ["method.options.mask=0.05"],
        "bilinear heads": ["network.options.head=bilinear"],
        "two stages": ["network.options.stages=2"],
    },
    "Loss": {
        "all pixels alike": ["method.options.balance=null"],
        "balance 0.01": ["method.options.balance=0.01"],
        "squared": ["method.options.distance=mse", "method.options.balance=0.001", "method.options.mask=0.001"],
        "charbonnier": ["method.options.distance=charbonnier"],
        "ssim": ["method.options.distance=ssim"],
        "edges beside": ["method.options.edge=0.05"],
    },
    "Steps": {
        "crops of 64": ["data.crop=64", "batch_size=18"],
        "crops of 128": ["data.crop=128", "batch_size=4"],
        "batches of 4": ["batch_size=4"],
        "batches of 16": ["batch_size=16"],
        "half the rate": ["optimizer.lr=6.0e-4"],
        "twice the rate": ["optimizer.lr=2.4e-3"],
        "last weights": ["ema_decay=0.0"],
        "fp32": ["precision=fp32"],
    },
}


def configuration(overrides: list[str], output: Path) -> TrainConfig:
    """Return the campaign's training, shortened, with something changed."""
    short = [
        "data.crop=96", "batch_size=8", "data.workers=0", "optimizer.lr=1.2e-3", "optimizer.warmup_steps=20",
        "ema_decay=0.99", "validation=null", "checkpoint_every=1000000", "log_every=20", f"output={output}",
    ]  # fmt: skip
    base = to_tree(load_config(TrainConfig, HERE.parent / "campaign" / "campaign.yaml"))
    return from_tree(TrainConfig, with_overrides(base, [*short, *overrides]), where="design")


def within(seconds: float, overrides: list[str], work: Path) -> int:
    """Return the steps of a budget, by timing a few."""
    trial = configuration([*overrides, "steps=12", "log_every=1"], work / f"trial-{os.getpid()}")
    train(trial, overwrite=True)
    clock = [line["seconds"] for line in read_log(trial.output / "log.jsonl") if "seconds" in line]
    return max(10, int(seconds * (len(clock) - 4) / (clock[-1] - clock[3])))


def scores(weights: Path) -> dict[str, float]:
    """Return means: luma PSNR on development pairs, RGB PSNR of clean photographs, F1 of Rain100L's map in percent."""
    restorers = {"it": load(weights)}
    found = {
        name: evaluate(open_pairs(SourceConfig("manifest.csv", split="dev", set=name)), restorers, limit=IMAGES)
        for name in SETS
    }
    clean = evaluate_harm(open_images(SourceConfig("manifest.csv", split="dev", set="bsds"), "clean"), restorers)
    means = {name: one.results["it"]["psnr"].mean for name, one in [*found.items(), ("clean", clean)]}
    if "f1" in found["rain100l"].results["it"]:  # a network without a map has none
        means["map F1"] = 100 * found["rain100l"].results["it"]["f1"].mean
    return {name: round(float(mean), 3) for name, mean in means.items()}


def measure(name: str, overrides: list[str], work: Path) -> None:
    """Train and score a variant, unless its cell is there."""
    file = CELLS / f"{name.replace(' ', '_').replace('/', '-')}.json"
    tree = to_tree(configuration(overrides, Path("run")))
    digest = hashlib.sha256(json.dumps([tree, SECONDS], sort_keys=True).encode()).hexdigest()[:16]
    if file.exists() and json.loads(file.read_text())["config"] == digest:
        return
    steps = within(SECONDS, overrides, work)
    config = configuration([*overrides, f"steps={steps}"], work / file.stem)
    started = time.process_time()
    weights = train(config, overwrite=True)
    cell = {
        "variant": name, "overrides": overrides, "config": digest, "steps": steps, "batch": config.batch_size,
        "processor_seconds": round(time.process_time() - started, 1), "scores": scores(weights),
        "command": f"python experiments/design/study.py --only '{name}'", "environment": environment(),
    }  # fmt: skip
    CELLS.mkdir(exist_ok=True)
    write_atomic(file, json.dumps(cell, indent=1) + "\n")
    print(f"{name}: {cell['scores']} after {steps} steps", flush=True)


def page() -> str:
    """Return README.md: the differences from the base, question by question."""
    cells: dict[str, dict[str, Any]] = {}
    for path in CELLS.glob("*.json"):
        cell = json.loads(path.read_text())
        cells[cell["variant"]] = cell
    text = (
        "# Design study\n\nWritten by `study.py` from cells/: `joint` small, trained by the campaign's recipe in crops "
        f"of 96 for {SECONDS:.0f} seconds of one thread, with one thing changed at a time. Luma PSNR on {IMAGES} "
        "development pairs a set, RGB PSNR of clean photographs against themselves, F1 of the map on Rain100L in "
        "percent, as differences from the base. So short a training favours what learns fast.\n"
    )
    if "another seed" in cells:
        text += "\n*Another seed* shows how little a small difference means.\n"
    missing = [name for variants in VARIANTS.values() for name in variants if name not in cells]
    if missing:
        text += f"\nNot measured yet: {', '.join(missing)}.\n"
    base = cells.get("base", {}).get("scores", {})
    for question, variants in VARIANTS.items():
        rows = [_row(name, cells[name], base) for name in variants if name in cells]
        if base and rows:
            names = [*base, "mean of pairs", "steps"]
            text += f"\n## {question}\n\n| variant | {' | '.join(names)} |\n|{' --- |' * (len(names) + 1)}\n"
            text += "\n".join(rows) + "\n"
    return text


def _row(name: str, cell: dict[str, Any], base: dict[str, float]) -> str:
    own = cell["scores"]
    pairs = np.mean([own[key] - base[key] for key in SETS])
    told = [_told(own.get(key), None if name == "base" else base[key]) for key in base]
    mean = f"{np.mean([own[key] for key in SETS]):.2f}" if name == "base" else f"{pairs:+.2f}"
    return f"| {name} | {' | '.join(told)} | {mean} | {cell['steps']} |"


def _told(value: float | None, base: float | None) -> str:
    if value is None:
        return "none"
    return f"{value:.2f}" if base is None else f"{value - base:+.2f}"


def main() -> None:
    """Measure what is chosen and not there yet, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", default=["*"], metavar="PATTERN")
    parser.add_argument("--work", type=Path, default=Path("runs/design"))
    parser.add_argument("--minutes", type=float, default=float("inf"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    deadline = time.monotonic() + 60 * args.minutes
    for name, overrides in (pair for variants in VARIANTS.values() for pair in variants.items()):
        if any(fnmatch(name, pattern) for pattern in args.only) and time.monotonic() < deadline:
            measure(name, overrides, args.work.resolve())
    write_atomic(HERE / "README.md", page())
    print(f"wrote {HERE / 'README.md'}")


if __name__ == "__main__":
    main()
