"""The page of an adaptation: verdict, what changed most, where to doubt it, what was forgotten, and how to undo it."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from sstl.data.files import Image
from sstl.data.images import Photo, read_rgb8
from sstl.engine import TrainConfig, read_log
from sstl.rain import load_recipe
from sstl.report.findings import AFTER, BEFORE, MEASURES, Figures, Outcome, spread, verdict
from sstl.report.page import Comparison, Figure, Page, Table, for_page
from sstl.report.plots import bars, histogram, judgement_curve, training_curves
from sstl.restore import Restorer

RAIN = "rain.yaml"  # in the run's folder: the streaks that were matched to the photos
_TINT = np.array([220, 40, 90], dtype=np.float32)  # of the rain map over the photo


def adaptation_page(
    config: TrainConfig,
    run: Path,
    photos: Sequence[Path],
    failures: Mapping[Path, str],
    figures: Figures,
    outcome: Outcome,
    source: Restorer,
    adapted: Restorer,
) -> Page:
    """Return the page of the adaptation in the folder ``run``: ``photos`` were used, ``failures`` could not be read."""
    shown = spread(photos)
    started = time.perf_counter()
    found = [_comparison(photo, source, adapted) for photo in tqdm(shown, desc="draw page", unit="photo")]
    seconds = (time.perf_counter() - started) / (6 * len(shown))
    found.sort(key=lambda entry: -entry.changed)
    log = read_log(run / "log.jsonl")
    trained = max((line.get("seconds", 0) for line in log), default=0)
    weights = run / "weights.safetensors"
    folder = config.data.unpaired[0].path
    start = str(config.network.weights)
    return Page(
        title=f"{_what(outcome)} {Path(folder).name}",
        verdict=verdict(figures, outcome),
        facts={
            "Photos": f"{len(photos)}" + (f" ({len(failures)} more could not be read)" if failures else ""),
            "Start": start,
            "Method": config.method.name,
            "Training": f"{_last_step(log)} steps, {trained / 60:.1f} minutes",
            "Score": _score(outcome),
            "Restoring": f"{seconds:.2f} s per photo",
            "Seed": str(config.seed),
            **_matched(run / RAIN, config),
        },
        comparisons=[entry.comparison for entry in found],
        tables=[
            _table(figures),
            *_judgement_table(outcome),
            _doubtful(found),
            _undo(start, weights, folder),
            *_failure_table(failures),
        ],
        figures=[
            *_judgement_figure(log, outcome),
            *_training_figure(log),
            *_truth_figure(figures),
            Figure("Light removed", _removed(found), "Over the pixels of the photos shown above, in grey levels."),
        ],
        next_steps=[
            f"sstl derain {shlex.quote(folder)} -o derained --weights {shlex.quote(str(weights))}",
            f"sstl derain {shlex.quote(folder)} -o as-before --weights {shlex.quote(start)}",
            f"sstl adapt {shlex.quote(folder)} -o another-run --weights {shlex.quote(start)} "
            f"--steps {config.steps * 2}",
        ],
    )


def _what(outcome: Outcome) -> str:
    if outcome.dry:
        return "Nothing to adapt to in"
    return "Not adapted to" if outcome.accepted is False else "Adapted to"


def _matched(path: Path, config: TrainConfig) -> dict[str, str]:
    """What rain was matched to the photos, if any was, and how much of the labelled images wore it."""
    if not path.exists():
        return {}
    share = sum(part.weight for part in config.data.paired if Path(part.recipe or "").name == path.name)
    share /= sum(part.weight for part in config.data.paired)
    recipe = load_recipe(path)
    (left, right), (short, long) = recipe.angle, recipe.length
    found = f"streaks at {left:.0f}° to {right:.0f}° from the vertical, {short:.0f} to {long:.0f} pixels long"
    found = found if recipe.layers[1] else "none"
    return {"Matched rain": f"{found} ({path.name}), on {share:.0%} of the clean photographs"}


class _Found(NamedTuple):
    """What is shown of a photo.

    Attributes:
        comparison: it before and after.
        changed, doubt: how much the adaptation changed it, and how much doubt there is, in grey levels.
        removed: light that was removed from some of its pixels before and after the adaptation.
    """

    comparison: Comparison
    changed: float
    doubt: float
    removed: tuple[Image, Image]


def _comparison(photo: Path, source: Restorer, adapted: Restorer) -> _Found:
    rainy = read_rgb8(photo)
    names = (*adapted.names, "doubt")
    layers = {name: _rgb8(layer) for name, layer in adapted.restore_photo(Photo(rainy), names).items()}
    before, after = source.restore(rainy), layers["background"]
    changed = float(np.abs(after.astype(int) - before).mean())
    doubt = float(layers["doubt"].mean()) / 8
    more = {"before adaptation": before, "light removed": _difference(rainy, after), "doubt": layers["doubt"]}
    if "mask" in layers:
        more["rain map"] = _tinted(rainy, layers["mask"])
    note = f"Changed by {changed:.1f} grey levels by the adaptation; doubt {doubt:.1f}."
    labels = ("Photo", "Restored")  # by what the run wrote, which may be the start
    comparison = Comparison(photo.name, rainy, after, note, layers=more, labels=labels)
    removed = (_difference(rainy, before)[::4, ::4].ravel(), more["light removed"][::4, ::4].ravel())
    return _Found(for_page(comparison), changed, doubt, removed)


def _rgb8(photo: Photo) -> Image:
    return np.ascontiguousarray(photo.pixels[..., :3])


def _difference(rainy: Image, restored: Image) -> Image:
    return np.clip(rainy.astype(int) - restored, 0, 255).astype(np.uint8)


def _tinted(rainy: Image, mask: Image) -> Image:
    """The photo in grey with the rain map in colour over it."""
    share = mask[..., :1].astype(np.float32) / 255
    grey = rainy.mean(axis=2, keepdims=True)
    tinted: Image = ((1 - share) * grey + share * (0.4 * grey + 0.6 * _TINT)).round().astype(np.uint8)
    return tinted


def _removed(found: Sequence[_Found]) -> bytes:
    before, after = (np.concatenate(parts) for parts in zip(*(entry.removed for entry in found), strict=True))
    return histogram(before, after, "Light removed per pixel and channel", "grey levels")


def _last_step(log: Sequence[Mapping[str, float]]) -> int:
    return int(max((line["step"] for line in log), default=0))


def _score(outcome: Outcome) -> str:
    if outcome.gain is None:
        return "not judged" if outcome.accepted is None else "nothing admissible"
    return f"{outcome.gain:+.2f} ± {outcome.error:.2f} dB, predicted"


def _judgement_table(outcome: Outcome) -> list[Table]:
    if outcome.gain is None or outcome.forgotten is None:
        return []
    rows = [
        ("predicted gain on your photos", f"{outcome.gain:+.2f} ± {outcome.error:.2f} dB"),
        (
            "the known rain that lost most, on photographs held out",
            f"{-outcome.forgotten:+.2f} dB (below 0: lost)",
        ),
        ("judged best", f"step {outcome.step}, {outcome.share:.0%} of the way from the start"),
        ("kept", "the best" if outcome.accepted else "the start"),
    ]
    if outcome.recognised is not None and outcome.mistaken is not None:
        told = f"{outcome.recognised:.0%} of your photos, {outcome.mistaken:.0%} of other images"
        rows.append(("recognised as like your photos, if held back; the start restores the rest", told))
    note = (
        "Without ground truth: from rain that was found in your photos, or matched to them, laid over clean images "
        "whose truth is known; see docs/methods.md, Trust. Less than the whole way is taken where the whole would "
        "forget too much, or find more rain than there is."
    )
    return [Table("The judgement", ("", "value"), rows, note)]


def _doubtful(found: Sequence[_Found]) -> Table:
    worst = sorted(found, key=lambda entry: -entry.doubt)[:4]
    rows = [(entry.comparison.name, f"{entry.changed:.1f}", f"{entry.doubt:.1f}") for entry in worst]
    note = "Where the restorations of a photo and its mirror images disagree most; look at these first."
    return Table("Worst cases", ("photo", "changed, grey levels", "doubt, grey levels"), rows, note)


def _undo(start: str, weights: Path, folder: str) -> Table:
    rows = [
        ("use the start again", f"sstl derain {shlex.quote(folder)} -o as-before --weights {shlex.quote(start)}"),
        ("remove the adapted weights", f"rm -r {shlex.quote(str(weights.parent))}"),
    ]
    return Table("How to undo it", ("", "command"), rows, "Neither your photos nor the start's weights were changed.")


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


def _judgement_figure(log: Sequence[Mapping[str, Any]], outcome: Outcome) -> list[Figure]:
    judged = [line["trust"] for line in log if "trust" in line]
    if not judged:
        return []
    caption = "Predicted without truth, with its error; hollow where the network forgot, harmed or found too much."
    return [Figure("Score", judgement_curve(judged, outcome.step if outcome.accepted else None), caption)]


def _training_figure(log: Sequence[Mapping[str, Any]]) -> list[Figure]:
    if not log:
        return []
    return [Figure("Training", training_curves(log), "One point per ten steps. The terms are explained in the docs.")]


def _truth_figure(figures: Figures) -> list[Figure]:
    if "truth_psnr" not in figures:
        return []
    found = figures["truth_psnr"]
    drawn = bars(["rainy input", "before", "after"], {"PSNR": list(found.values())}, "PSNR on the test images")
    return [Figure("True gain", drawn, "On test images of the target domain, disjoint from the photos adapted to.")]
