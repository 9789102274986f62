"""Trust: how much better or worse a network is than its start on photos without truth, and how sure that is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sstl.errors import SstlError
from sstl.methods.exchange import as_pairs, crowded, darkness, lay_over, lay_veil, moved, rain_found, veil_share
from sstl.metrics import leakage, leftover
from sstl.networks import Network
from sstl.ops.random import seeded
from sstl.ops.veil import dark_channel
from sstl.rain import Recipe, render
from sstl.types import PairedBatch, Restoration

CALIBRATION = Path(__file__).with_name("trust.json")
CLEAR = 45.0  # dB; a clean photograph that is changed no more than this looks as it did, a restored one like its truth
CAP = 60.0  # dB that an untouched image counts
BRIGHTNESS = (0.2, 0.55)  # of the streaks in an exam: the finder overlooks the brightest, and much of dense rain
AGAIN = (0.2, 0.3)  # of those that are laid over restored photos
RESAMPLES = 200
_BATCH = 8
_LUMA = (65.481 / 255, 128.553 / 255, 24.966 / 255)

Measures = dict[str, Tensor]
"""Measure -> one value per crop, (N,)."""


@dataclass(frozen=True)
class Exam:
    """What networks are compared on; the same for all.

    Attributes:
        photos: crops of the rainy photos, (N, 3, S, S) in [0, 1].
        rehearsed: pairs as the supervised branch meets them, N too; what must not be forgotten.
        found: their clean images under the rain that was seen in one or two photos, behind a photo's veil.
        streak: the streaks of ``found``, (N, 1, S, S).
        matched: their clean images under streaks that were matched to the photos, behind a photo's veil; None if none
            were.
        known: pairs under other rains that a start may know, a batch each of any length.
    """

    photos: Tensor
    rehearsed: PairedBatch
    found: PairedBatch
    streak: Tensor
    matched: PairedBatch | None = None
    known: tuple[PairedBatch, ...] = ()


@dataclass(frozen=True)
class Harm:
    """What a network does worse than the start where the truth is known.

    Attributes:
        forgotten: loss of luma PSNR on the rehearsed pairs, or on those of a known rain that lost more, in dB; negative
            if all became better.
        clean: luma PSNR of clean images against themselves, in dB; ``clean_before`` is the start's.
    """

    forgotten: float
    clean: float
    clean_before: float

    @property
    def harmless(self) -> bool:
        """Whether clean photographs stay as clear as they were, or clear enough."""
        return self.clean >= min(CLEAR, self.clean_before - 0.1)


@dataclass(frozen=True)
class Judgement(Harm):
    """What is said of a network in comparison with the start, without any truth of the photos.

    Attributes:
        gain: predicted change of the luma PSNR on the photos, in dB.
        error: by how much ``gain`` may be too high, one standard deviation: of the crops that were looked at, and of
            the prediction.
        measures: mean of each measure over the crops.
    """

    gain: float
    error: float
    measures: dict[str, float]


def rain_seen(finder: Network, photos: Tensor) -> Tensor:
    """Return the streaks that a network sees in photos, (N, 3, S, S) -> (N, 1, S, S)."""
    return rain_found(photos, restore(finder, photos))


def unseen(network: Network, photos: Tensor, amount: float) -> float:
    """Return the share of the photos' rain that a network does not see, in [0, 1].

    Args:
        photos: crops of them, (N, 3, S, S) in [0, 1].
        amount: mean of their streaks as ``sstl.rain.match`` estimates it, which needs no network: that of its recipe.
    """
    seen = float(rain_seen(network, photos).mean())
    return min(1.0, max(0.0, 1 - seen / amount)) if amount > 0 else 0.0


def make_exam(
    photos: Tensor,
    seen: Tensor,
    rehearsed: PairedBatch,
    seed: int,
    known: Sequence[PairedBatch] = (),
    matched: Recipe | None = None,
) -> Exam:
    """Return the exam of photos, which the networks that are compared face alike.

    Args:
        photos: (N, 3, S, S) in [0, 1], N at least 2.
        seen: the streaks in them, (N, 1, S, S); see ``rain_seen``.
        rehearsed: N labelled pairs of the same size.
        seed: of all choices; the global random state is left as it was.
        known: see ``Exam``.
        matched: a recipe of streaks alone (``sstl.rain.streaks_alone``), as ``sstl.rain.match`` finds it in photos.
    """
    if len(photos) < 2 or photos.shape != rehearsed.clean.shape:
        raise SstlError(
            f"an exam needs as many crops of photos as of pairs, of one size and at least 2, not {tuple(photos.shape)} "
            f"and {tuple(rehearsed.clean.shape)}."
        )
    clean, keys = rehearsed.clean, rehearsed.key
    with seeded(seed):
        streakless = (photos - seen).clamp(0, 1)
        streak, others = (moved(layer, turn=10.0, zoom=1.2) for layer in (seen, seen.roll(1, 0)))
        streak = crowded(streak, others, 0.5)
        found = lay_over(clean, streak, BRIGHTNESS, keys)
    share = veil_share(darkness(streakless), darkness(clean))

    def behind_veil(pairs: PairedBatch) -> PairedBatch:
        return as_pairs(_in_levels(lay_veil(pairs, streakless, share).rainy), clean, keys)

    under = None
    if matched is not None:
        with torch.autocast("cpu", enabled=False):
            rainy = render(clean.cpu(), matched, seed, range(len(clean))).rainy.to(clean)
        under = behind_veil(as_pairs(rainy, clean, keys))
    return Exam(photos, rehearsed, behind_veil(found), streak, under, tuple(known))


@torch.inference_mode()
def restore(network: Network, rainy: Tensor) -> Restoration:
    """Return a network's restorations of a batch in evaluation mode, in parts that fit into the memory; clipped.

    The network is left as it was; under autocast it computes as training does.
    """
    training = network.training
    network.eval()
    parts = [network(part.contiguous(memory_format=torch.channels_last)) for part in torch.split(rainy, _BATCH)]
    network.train(training)
    logits = [part.mask_logits for part in parts]
    return Restoration(
        torch.cat([part.background for part in parts]).float().clamp(0, 1),
        torch.cat([part.streak for part in parts]).float(),
        None if logits[0] is None else torch.cat([found for found in logits if found is not None]).float(),
    )


def measure(network: Network, exam: Exam, shipped: Network | None = None) -> Measures:
    """Return what can be measured of a network on an exam, one value per crop.

    Where the network restores only the photos, because another takes the rest, ``shipped`` holds both; it is what
    rehearsed and known rain and clean images are measured of.

    - ``found``: luma PSNR on those pairs, at most ``CLEAR``. Removing nothing, too little, too much or texture fails.
    - ``matched``: the same on those pairs, if there are any.
    - ``rehearsed``, ``clean``: luma PSNR on the rehearsed pairs, and of clean images against themselves.
    - ``known_0``, ...: luma PSNR on the pairs of each known rain, of the length of its batch.
    - ``cycle``: luma PSNR of the restored photo, rained on again and restored again, against itself (re-rain cycle).
      A flat image passes; the pairs forbid it.
    - ``mirror``: luma PSNR of the restoration of the mirror image, mirrored back, against the restoration: doubt.
    - the measures of ``look``.
    """
    background = restore(network, exam.photos).background
    mirrored = restore(network, exam.photos.flip(-1)).background.flip(-1)
    with seeded(0):
        again = lay_over(background, exam.streak.roll(1, 0), AGAIN, exam.rehearsed.key)
    exams = {"found": exam.found} | ({} if exam.matched is None else {"matched": exam.matched})
    return {
        **measure_harm(shipped or network, exam),
        "mirror": luma_psnr(mirrored, background),
        **look(exam.photos, background),
        # Where there was little rain, how far above that a network stands tells nothing of rain.
        **{
            name: luma_psnr(restore(network, pairs.rainy).background, pairs.clean).clamp(max=CLEAR)
            for name, pairs in exams.items()
        },
        "cycle": luma_psnr(restore(network, _in_levels(again.rainy)).background, background),
    }


def measure_harm(network: Network, exam: Exam) -> Measures:
    """Return what ``measure`` says of rehearsed and known rain and of clean images, which is quickly found."""
    rains = {"rehearsed": exam.rehearsed, **{f"known_{i}": pairs for i, pairs in enumerate(exam.known)}}
    clean = exam.rehearsed.clean
    return {
        **{name: luma_psnr(restore(network, pairs.rainy).background, pairs.clean) for name, pairs in rains.items()},
        "clean": luma_psnr(restore(network, clean).background, clean),
    }


def look(photos: Tensor, restored: Tensor) -> Measures:
    """Return what can be measured of restored photos alone, (B, 3, H, W) in [0, 1], one value each.

    - ``leftover``: log of what is left of the fine energy in the streaks' direction; see ``sstl.metrics.leftover``.
    - ``leakage``: see ``sstl.metrics.leakage``.
    - ``dark``: log of the mean dark channel: veil that is left.
    - ``detail``: log of the mean step between neighbouring pixels: streaks that are left, or texture.
    """
    both = zip(_arrays(photos), _arrays(restored), strict=True)
    found = restored.new_tensor([(leftover(rainy, clean), leakage(rainy, clean)) for rainy, clean in both])
    return {
        "leftover": found[:, 0].clamp(1e-3, 1e3).log(),
        "leakage": found[:, 1],
        "dark": (dark_channel(restored).mean(dim=(1, 2, 3)) + 1e-3).log(),
        "detail": (restored.diff(dim=-1).abs().mean(dim=(1, 2, 3)) + 1e-4).log(),
    }


class Trust:
    """Judges networks against the start of an adaptation on one exam.

    The predicted gain is what the mean of ``found`` and ``matched`` changed, or ``found`` alone where nothing was
    matched, times a scale. Both weigh alike: the finder may overlook the photos' rain, the renderer may not know how to
    draw it, and neither is known. Scales and errors were calibrated on checkpoints of known gain
    (``experiments/shift/trust.py``); the other measures are shown.
    """

    def __init__(self, start: Network, exam: Exam) -> None:
        self.exam, self.before = exam, measure(start, exam)

    def harm(self, network: Network) -> Harm:
        """Return what a network does worse where the truth is known, without judging the photos."""
        return self._harm(measure_harm(network, self.exam))

    def judge(self, network: Network, shipped: Network | None = None) -> Judgement:
        """Return what is to be said of a network; ``shipped`` is as in ``measure``."""
        after = measure(network, self.exam, shipped)
        gain, error = predict({name: after[name] - self.before[name] for name in after})
        means = {name: float(values.mean()) for name, values in after.items()}
        return Judgement(**vars(self._harm(after)), gain=gain, error=error, measures=means)

    def _harm(self, after: Measures) -> Harm:
        rains = [name for name in after if name == "rehearsed" or name.startswith("known_")]
        forgotten = max(float((self.before[name] - after[name]).mean()) for name in rains)
        return Harm(forgotten, float(after["clean"].mean()), float(self.before["clean"].mean()))


def predict(change: Measures, scores: Sequence[dict[str, Any]] | None = None) -> tuple[float, float]:
    """Return the predicted gain in dB and by how much it may be too high, from the change of each measure on each crop.

    Args:
        change: measure -> after minus before, (N,).
        scores: the first whose ``measures`` are all there is taken: their mean times its ``scale``; its ``error`` is a
            share of the predicted gain. By default those that were calibrated.
    """
    score = next(one for one in scores or _calibration()["scores"] if set(one["measures"]) <= set(change))
    columns = [change[name].double().cpu().numpy() for name in score["measures"]]
    crops: NDArray[np.float64] = score["scale"] * np.mean(columns, axis=0)
    rng = np.random.default_rng(0)
    resampled = crops[rng.integers(len(crops), size=(RESAMPLES, len(crops)))].mean(axis=1)
    gain = float(crops.mean())
    return gain, float(np.hypot(resampled.std(), score["error"] * gain))


def quality(seen: Measures) -> Tensor:
    """Return how good restored photos look, in dB up to a constant of the photo, (B,): compare those of one photo.

    Args:
        seen: what ``look`` returns.
    """
    weights = _calibration()["photo_weights"]
    total: Tensor = sum(weight * seen[name] for name, weight in weights.items())
    return total


@cache
def _calibration() -> dict[str, Any]:
    return dict(json.loads(CALIBRATION.read_text(encoding="utf-8")))


def luma_psnr(restored: Tensor, truth: Tensor) -> Tensor:
    """Return the PSNR on luma (y-matlab, not rounded) of each image of a batch, (B, 3, H, W) in [0, 1], at most 60."""
    weights = truth.new_tensor(_LUMA).view(1, 3, 1, 1)
    error = ((restored - truth) * weights).sum(dim=1).square().mean(dim=(1, 2))
    return -10 * error.clamp(min=10 ** (-CAP / 10)).log10()


def _in_levels(images: Tensor) -> Tensor:
    """What a file of 8 bits would keep."""
    return (images * 255).round() / 255


def _arrays(images: Tensor) -> list[NDArray[np.uint8]]:
    return list(np.ascontiguousarray((images * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()))
