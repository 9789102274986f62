"""The page that compares runs: differing settings, curves, figures, and photos as each run restores them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sstl.data.files import Image
from sstl.data.images import read_rgb8
from sstl.errors import ConfigError
from sstl.report.adaptation import check_photos
from sstl.report.evaluation import INPUT
from sstl.report.evaluation_table import means
from sstl.report.findings import AFTER, BEFORE, MEASURES, spread
from sstl.report.page import Comparison, Figure, Page, Table
from sstl.report.plots import compared_curves
from sstl.report.runs import Run, best_validation, differing
from sstl.restore import load

PICTURES = 6  # each is shown once per run; so a page of a few runs stays below some 5 MB


def runs_page(runs: Sequence[Run], photos: Path | None = None) -> Page:
    """Return the page of two or more runs.

    Args:
        runs: from ``read_runs``.
        photos: a folder of rainy photos that each run restores; by default the folder that all runs with weights learnt
            from without labels, if it is one and is still there.

    Raises:
        ConfigError: ``photos`` holds no image, or fewer than two runs have final weights to restore them.
    """
    settings = differing(runs)
    return Page(
        title=f"{len(runs)} runs side by side",
        verdict=verdict(runs, settings),
        facts={run.name: _kind(run) for run in runs},
        comparisons=_comparisons(runs, photos),
        tables=[*_settings(runs, settings), *_training(runs), *_adapted(runs), *_evaluated(runs)],
        figures=_curves(runs),
    )


def verdict(runs: Sequence[Run], settings: Mapping[str, Sequence[str]]) -> str:
    """Say in a few sentences what differs, and which validated best if all validated on the same images."""
    if not settings:
        said = "The configurations do not differ."
    elif len(settings) <= 6:
        said = f"The configurations differ in {', '.join(settings)}."
    else:
        said = f"The configurations differ in {len(settings)} settings."
    best = {run.name: found[0] for run in runs if (found := best_validation(run))}
    if len(best) == len(runs) and not any(key.startswith("validation") for key in settings):
        name = max(best, key=lambda name: best[name])
        others = max(value for other, value in best.items() if other != name)
        said += f" {name} validated best, at {best[name]:.2f} dB ({best[name] - others:+.2f} dB over the next)."
    return said


def _kind(run: Run) -> str:
    if run.sets:
        return "evaluation"
    what = f"{run.settings.get('method.name', 'unknown method')}, {run.settings.get('network.name', 'unknown network')}"
    return what if run.weights else f"{what}, unfinished"


def _settings(runs: Sequence[Run], settings: Mapping[str, Sequence[str]]) -> list[Table]:
    rows = [(key, *values) for key, values in settings.items()]
    return [Table("Settings that differ", ("setting", *(run.name for run in runs)), rows)] if rows else []


def _training(runs: Sequence[Run]) -> list[Table]:
    """Return the table of the logged runs: their length, their last loss and their best validation."""
    rows = []
    for run in runs:
        steps = [line for line in run.log if "loss" in line]
        if steps:
            last, best = steps[-1], best_validation(run)
            rows.append(
                (
                    run.name,
                    str(last.get("step", "")),
                    f"{last.get('seconds', 0) / 60:.1f}",
                    "n/a" if last["loss"] is None else f"{last['loss']:.4g}",
                    f"{best[0]:.2f}" if best else "",
                    str(best[1]) if best else "",
                )
            )
    header = ("run", "steps", "minutes", "last loss", "best validation, dB", "at step")
    note = "Losses compare only between runs with the same terms and weights of them."
    return [Table("Training", header, rows, note)] if rows else []


def _adapted(runs: Sequence[Run]) -> list[Table]:
    """Return the table of what the adaptations measured, before and after."""
    adapted = [run for run in runs if run.figures]
    keys = dict.fromkeys(key for run in adapted for key in run.figures)
    rows = [(MEASURES.get(key, key), *(_change(run.figures.get(key, {})) for run in adapted)) for key in keys]
    note = "Before → after. On one's own photos the figures of two runs compare only if the photos are the same."
    return [Table("Adaptation", ("measure", *(run.name for run in adapted)), rows, note)] if rows else []


def _change(found: Mapping[str, float]) -> str:
    return f"{found[BEFORE]:.2f} → {found[AFTER]:.2f}" if BEFORE in found and AFTER in found else ""


def _evaluated(runs: Sequence[Run]) -> Iterator[Table]:
    """Yield a table for each set, protocol and number of images; the untouched input is told once if it is the same."""
    groups: dict[tuple[str, str | None, int], dict[str, Any]] = {}
    for run in runs:
        for one in run.sets:
            rows = groups.setdefault((one.name, one.protocol, one.count), {})
            for candidate, found in one.results.items():
                if candidate == INPUT and found in rows.values():
                    continue
                rows[f"{run.name}: {candidate}"] = found
    for (name, protocol, count), rows in groups.items():
        if rows:
            header, *lines = means(rows)
            title = f"{name}: means over {count} images, protocol {protocol or 'none'}"
            yield Table(title, ("run: candidate", *header[1:]), lines)


def _curves(runs: Sequence[Run]) -> list[Figure]:
    caption = "Losses are smoothed; shown is what two or more of the runs logged."
    drawn = compared_curves({run.name: run.log for run in runs if run.log})
    return [Figure("Curves", drawn, caption)] if drawn else []


def _comparisons(runs: Sequence[Run], photos: Path | None) -> list[Comparison]:
    """Return photos as the runs with weights restore them: the first two beside the line, the others to switch to."""
    able = [(run.name, run.weights) for run in runs if run.weights]
    if len(able) < 2:
        if photos:
            raise ConfigError("--photos needs two or more runs with final weights; finish them, or leave it out.")
        return []
    folder = photos or _common_photos([run for run in runs if run.weights])
    if folder is None:
        return []
    restorers = {name: load(weights) for name, weights in able if weights}
    found = []
    for photo in spread(check_photos(folder)[0], PICTURES):
        rainy = read_rgb8(photo)
        (first, before), (second, after), *others = ((name, r.restore(rainy)) for name, r in restorers.items())
        layers = {"photo": rainy, **dict(others), "difference": _difference(before, after)}
        note = f"Difference: where {first} and {second} differ, four times as strong, on grey."
        found.append(Comparison(photo.name, before, after, note, layers, (first, second)))
    return found


def _difference(first: Image, second: Image) -> Image:
    return np.clip(128 + 4 * (second.astype(int) - first), 0, 255).astype(np.uint8)


def _common_photos(runs: Sequence[Run]) -> Path | None:
    folders = {run.settings.get("data.unpaired[0].path") for run in runs}
    folder = Path(str(folders.pop())) if len(folders) == 1 else None
    return folder if folder and folder.is_dir() else None
