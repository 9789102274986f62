"""The page of an adaptation: what its run folder holds, as pictures, figures and curves."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from sstl.data.images import read_rgb8
from sstl.engine import TrainConfig, read_log
from sstl.report.findings import AFTER, BEFORE, MEASURES, Figures, spread, verdict
from sstl.report.page import Comparison, Figure, Page, Table
from sstl.report.plots import bars, histogram, training_curves
from sstl.restore import Restorer


def adaptation_page(
    config: TrainConfig,
    run: Path,
    photos: Sequence[Path],
    failures: Mapping[Path, str],
    figures: Figures,
    source: Restorer,
    adapted: Restorer,
) -> Page:
    """Return the page of the adaptation in the folder ``run``: ``photos`` were used, ``failures`` could not be read."""
    shown = spread(photos)
    started = time.perf_counter()
    comparisons = [_comparison(photo, source, adapted) for photo in tqdm(shown, desc="draw page", unit="photo")]
    seconds = (time.perf_counter() - started) / (2 * len(shown))
    log = read_log(run / "log.jsonl")
    trained = max((line.get("seconds", 0) for line in log), default=0)
    weights = run / "weights.safetensors"
    folder = config.data.unpaired[0].path
    return Page(
        title=f"Adapted to {Path(folder).name}",
        verdict=verdict(figures),
        facts={
            "Photos": f"{len(photos)}" + (f" ({len(failures)} more could not be read)" if failures else ""),
            "Start": str(config.network.weights),
            "Method": config.method.name,
            "Training": f"{config.steps} steps, {trained / 60:.1f} minutes",
            "Restoring": f"{seconds:.2f} s per photo",
            "Seed": str(config.seed),
        },
        comparisons=comparisons,
        tables=[_table(figures), *_failure_table(failures)],
        figures=[
            Figure("Training", training_curves(log), "One point per ten steps. The terms are explained in the docs."),
            *_truth_figure(figures),
            Figure(
                "Light removed", _removed(comparisons), "Over the pixels of the photos shown above, in grey levels."
            ),
        ],
        next_steps=[
            f"sstl derain {shlex.quote(folder)} -o derained --weights {shlex.quote(str(weights))}",
            f"sstl adapt {shlex.quote(folder)} -o another-run --weights {shlex.quote(str(config.network.weights))} "
            f"--steps {config.steps * 2}",
        ],
    )


def _comparison(photo: Path, source: Restorer, adapted: Restorer) -> Comparison:
    rainy = read_rgb8(photo)
    layers = adapted.layers(rainy)
    removed = np.clip(rainy.astype(int) - layers["background"], 0, 255).astype(np.uint8)
    more = {"before adaptation": source.restore(rainy), "light removed": removed}
    if "mask" in layers:
        more["rain map"] = layers["mask"]
    return Comparison(photo.name, rainy, layers["background"], layers=more, labels=("Photo", "Adapted"))


def _removed(comparisons: Sequence[Comparison]) -> bytes:
    before = [np.clip(c.before.astype(int) - c.layers["before adaptation"], 0, 255)[::4, ::4] for c in comparisons]
    after = [c.layers["light removed"][::4, ::4] for c in comparisons]
    flat = [np.concatenate([part.ravel() for part in parts]) for parts in (before, after)]
    return histogram(flat[0], flat[1], "Light removed per pixel and channel", "grey levels")


def _table(figures: Figures) -> Table:
    def cell(found: Mapping[str, float], name: str) -> str:
        return f"{found[name]:.2f}" if name in found else ""

    rows = [
        (MEASURES[key], cell(found, "input"), cell(found, BEFORE), cell(found, AFTER)) for key, found in figures.items()
    ]
    truth = "" if "truth_psnr" in figures else (
        "Without ground truth no figure can prove that your photos became better: look at them. "
    )  # fmt: skip
    return Table(
        "Before and after adaptation",
        ("measure", "rainy input", BEFORE, AFTER),
        rows,
        truth + "PSNR is on luma (y-matlab protocol). The two rain-free photographs are never trained on.",
    )


def _failure_table(failures: Mapping[Path, str]) -> list[Table]:
    rows = [(path.name, reason) for path, reason in failures.items()]
    return [Table("Photos that could not be read", ("photo", "reason"), rows)] if rows else []


def _truth_figure(figures: Figures) -> list[Figure]:
    if "truth_psnr" not in figures:
        return []
    found = figures["truth_psnr"]
    drawn = bars(["rainy input", "before", "after"], {"PSNR": list(found.values())}, "PSNR on the test images")
    return [Figure("True gain", drawn, "On test images of the target domain, disjoint from the photos adapted to.")]
