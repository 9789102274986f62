"""What an adaptation did, in figures that need no truth (and one that does), and in a sentence."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from sstl.data import PairSource, SourceConfig, open_images
from sstl.data.files import Image
from sstl.data.images import read_rgb8
from sstl.errors import InputError
from sstl.networks.weights import read_info
from sstl.report.evaluation import RenderedPairs, evaluate, evaluate_harm
from sstl.restore import Restorer, load

SHOWN = 12  # photos on the page and in the label-free figures
FEW = 20  # photos; with fewer the result depends on which they happen to be
BEFORE, AFTER = "before", "after"
Figures = Mapping[str, Mapping[str, float]]
"""Measure -> {"before": value, "after": value}, for some also "input"."""

MEASURES = {
    "removed": "light removed from your photos, mean in grey levels (0-255)",
    "second_pass": "what a second pass still changes, mean in grey levels: rain left over or texture eaten",
    "mirror": "disagreement between a photo and its mirror image, mean in grey levels: doubt",
    "clean_psnr": "output against input on rain-free photographs, dB: harm done without rain (60 is none)",
    "rain_psnr": "restoration of made-up rain on the same photographs, dB: what is not forgotten",
    "truth_psnr": "restoration of test images of the target domain against their truth, dB",
}


@dataclass(frozen=True)
class Outcome:
    """What came of an adaptation, as far as that can be said without truth.

    Attributes:
        photos: how many could be read.
        cover: share of their pixels that hold rain, as the shipped weights see it; None if nobody looked.
        accepted: whether the weights differ from the start's; None without a gate, when they do whatever they are.
        gain, error: predicted change of the luma PSNR on the photos, and by how much it may be too high, in dB.
        forgotten: loss of luma PSNR on the known rain that lost most, in dB.
        step, share: of which step the weights are, and how much of the way from the start was kept.
        recognised, mistaken: share of the photos, and of other images, that a router takes for photos which did not
            learn from them; None without.
        alike: whether there is no router because it would have recognised too few photos: ``recognised`` is how many.
    """

    photos: int
    cover: float | None = None
    accepted: bool | None = None
    gain: float | None = None
    error: float | None = None
    forgotten: float | None = None
    step: int | None = None
    share: float | None = None
    recognised: float | None = None
    mistaken: float | None = None
    alike: bool = False

    @classmethod
    def of(cls, weights: Path, photos: int, cover: float | None) -> Self:
        """Read what the gate wrote beside the weights."""
        trust = read_info(weights)["info"].get("trust")
        if trust is None:
            return cls(photos, cover)
        best = trust["best"] or {}
        said: dict[str, Any] = {name: best.get(name) for name in ("gain", "error", "forgotten", "step", "share")}
        routing = trust.get("routing") or {}
        return cls(
            photos,
            cover,
            trust["accepted"],
            **said,
            recognised=routing.get("photos"),
            mistaken=routing.get("others"),
        )

    @property
    def dry(self) -> bool:
        """Whether the photos were taken for dry, so that nothing was trained."""
        return self.cover is not None and self.accepted is None


def measure(
    weights: str | Path, adapted: Path, photos: Sequence[Path], truth: PairSource | None
) -> dict[str, dict[str, float]]:
    """Return the figures of ``MEASURES`` before and after; ``truth_psnr`` and its input only where there is truth."""
    restorers = {BEFORE: load(weights), AFTER: load(adapted)}
    crops = [_crop(read_rgb8(photo)) for photo in spread(photos)]
    figures: dict[str, dict[str, float]] = {name: {} for name in ("removed", "second_pass", "mirror")}
    for name, restorer in restorers.items():
        for key, value in _label_free(restorer, crops).items():
            figures[key][name] = value
    dev = open_images(SourceConfig("bundled", split="dev"), "clean")
    harm = evaluate_harm(dev, restorers)
    rain = evaluate(RenderedPairs(dev, "mixed", 6), restorers)
    figures["clean_psnr"] = {name: harm.results[name]["psnr"].mean for name in restorers}
    figures["rain_psnr"] = {name: rain.results[name]["psnr"].mean for name in ("input", *restorers)}
    if truth is not None:
        found = evaluate(truth, restorers).results
        figures["truth_psnr"] = {name: found[name]["psnr"].mean for name in ("input", *restorers)}
    return figures


def verdict(figures: Figures, outcome: Outcome) -> str:
    """Say in a few sentences what came out, and warn of the ways in which an adaptation fails."""
    said = [*_of_truth(figures), judged(outcome)]
    if outcome.alike:
        said.append(
            f"Your photos look much like others: {outcome.recognised:.0%} would have been told from them, so no router "
            "keeps the start for the rest, and one network was adapted with care."
        )
    if outcome.photos < FEW:
        said.append(f"With {outcome.photos} photos the result depends on which they are; {FEW} or more are better.")
    if outcome.accepted is not False and not outcome.dry:
        said += [_of_removal(figures), _of_harm(figures)]
    return " ".join(said)


def _of_truth(figures: Figures) -> list[str]:
    gain = _true_gain(figures)
    if gain is None:
        return []
    return [f"Against the truth, adaptation {'gained' if gain >= 0 else 'LOST'} {abs(gain):.2f} dB on test images."]


def _true_gain(figures: Figures) -> float | None:
    truth = figures.get("truth_psnr")
    return None if truth is None else truth[AFTER] - truth[BEFORE]


def judged(outcome: Outcome) -> str:
    """Say in a sentence or two whether anything was adapted, as the gate saw it."""
    if outcome.dry:
        return (
            f"Nothing to adapt to: rain is found in {outcome.cover:.1%} of your photos' pixels. The start is returned."
        )
    if outcome.accepted is None:
        return "Nobody judged: the last weights are kept, whatever they are."
    if outcome.gain is None:
        return (
            "No network was found that neither forgets nor harms clear photographs nor takes other things for rain. "
            "The start is returned."
        )
    digits = 1 if abs(outcome.gain) >= 1 else 2
    told = f"{outcome.gain:+.{digits}f} ± {outcome.error:.{digits}f} dB"
    if not outcome.accepted:
        short = "that counts" if outcome.gain > (outcome.error or 0) else "beyond its own uncertainty"
        return f"No gain {short} ({told}, predicted without truth). The start is returned."
    kept = f"the network of step {outcome.step} is kept"
    if outcome.recognised is not None and not outcome.alike:
        kept += f" for images that look like your photos; of those held back, {outcome.recognised:.0%} were recognised"
    return f"Adapted: your photos gain {told} (predicted without truth; {kept})."


def _of_removal(figures: Figures) -> str:
    ratio = figures["removed"][AFTER] / max(figures["removed"][BEFORE], 1e-6)
    if ratio < 0.5:
        return "Warning: less than half as much is removed from your photos as before; the weights may have collapsed."
    if ratio > 2 and (_true_gain(figures) or 0) <= 0:  # a start that was blind to the rain removes far more afterwards
        return f"Warning: {ratio:.1f} times as much light is removed as before; look whether your photos were darkened."
    if abs(ratio - 1) < 0.05:
        return "About as much light is removed from your photos as before."
    return f"{abs(ratio - 1):.0%} {'more' if ratio > 1 else 'less'} light is removed from your photos than before."


def _of_harm(figures: Figures) -> str:
    harm = figures["clean_psnr"]
    if harm[AFTER] < min(34.0, harm[BEFORE] - 1):
        return (
            f"Warning: rain-free photographs suffer ({harm[AFTER]:.1f} dB, before {harm[BEFORE]:.1f}): texture may be "
            "taken for rain. Use fewer steps or more clean photographs (--clean)."
        )
    return f"Rain-free photographs are left as they are ({harm[AFTER]:.1f} dB against their input)."


def spread(photos: Sequence[Path], count: int = SHOWN) -> list[Path]:
    """Return up to ``count`` photos, spread evenly over the folder; for one that cannot be read the next that can."""
    starts = np.unique(np.linspace(0, len(photos) - 1, min(count, len(photos))).round().astype(int)).tolist()
    found = (next(filter(_readable, photos[a:b]), None) for a, b in itertools.pairwise([*starts, len(photos)]))
    return [photo for photo in found if photo is not None]


def _readable(photo: Path) -> bool:
    try:
        read_rgb8(photo)
    except InputError:
        return False
    return True


def _label_free(restorer: Restorer, crops: Sequence[Image]) -> dict[str, float]:
    """Means over crops, in grey levels; no truth is used, so none of them alone says that a restoration is good."""
    values = []
    for rainy in crops:
        once = restorer.restore(rainy)
        mirrored = restorer.restore(np.ascontiguousarray(rainy[:, ::-1]))[:, ::-1]
        values.append(
            {
                "removed": np.maximum(rainy.astype(float) - once, 0).mean(),
                "second_pass": np.abs(once.astype(float) - restorer.restore(once)).mean(),
                "mirror": np.abs(once.astype(float) - mirrored).mean(),
            }
        )
    return {key: float(np.mean([value[key] for value in values])) for key in values[0]}


def _crop(image: Image, side: int = 512) -> Image:
    top, left = (max(0, (size - side) // 2) for size in image.shape[:2])
    return np.ascontiguousarray(image[top : top + side, left : left + side])
