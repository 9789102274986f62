"""The page of one run of any kind: the one that is there if it is up to date, else written again."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from sstl.errors import ConfigError
from sstl.report.adaptation import FIGURES, report_run
from sstl.report.page import PAGE, Figure, Page, Table, write_page
from sstl.report.plots import training_curves
from sstl.report.runs import Run, best_validation, read_run

SOURCES = (FIGURES, "log.jsonl", "config.yaml", "weights.safetensors")


def page_of(folder: Path, rebuild: bool = False) -> Path:
    """Return the page of an adaptation, a training (also one that goes on) or an evaluation.

    Args:
        folder: of the run.
        rebuild: write the page again although nothing of the run is newer.

    Raises:
        ConfigError: ``folder`` is no run, holds a damaged file, or lacks what its page is made of.
    """
    run, page = read_run(folder), folder / PAGE
    if run.sets:
        if rebuild or not page.is_file():
            why = "the page of an evaluation is written by 'sstl evaluate -o'"
            raise ConfigError(f"{folder}: {why}; give the same command again: what it has measured is kept.")
        return page
    if page.is_file() and not rebuild and not _newer(folder, page):
        return page
    return report_run(folder) if (folder / FIGURES).is_file() else write_page(page, training_page(run))


def training_page(run: Run) -> Page:
    """Return the page of a training: curves, what came out, and its settings."""
    if not run.log:
        raise ConfigError(f"{run.folder}: has logged nothing yet; wait for its first steps, or train on with --resume.")
    steps = [line for line in run.log if "loss" in line]
    best = best_validation(run)
    done = f"{steps[-1]['step']} of {run.settings.get('steps', '?')} steps" if steps else "no step"
    said = f"{'Finished' if run.weights else 'Not finished'}: {done}."
    if best:
        said += f" It validated best at step {best[1]}, at {best[0]:.2f} dB (luma PSNR)."
    names = ("method.name", "network.name", "network.weights", "seed")
    settings = [(key, value if isinstance(value, str) else json.dumps(value)) for key, value in run.settings.items()]
    weights = run.folder / ("best.safetensors" if best else "weights.safetensors")
    return Page(
        title=f"Training {run.name}",
        verdict=said,
        facts={key: str(run.settings[key]) for key in names if run.settings.get(key) is not None},
        tables=[Table("Settings", ("setting", "value"), settings)],
        figures=[Figure("Training", training_curves(run.log), "As logged; the terms are explained in the docs.")],
        next_steps=[f"sstl derain my-photos -o derained --weights {shlex.quote(str(weights))}"]
        if weights.is_file()
        else [],
    )


def _newer(folder: Path, page: Path) -> bool:
    written = page.stat().st_mtime
    return any((folder / name).is_file() and (folder / name).stat().st_mtime > written for name in SOURCES)
