"""Evaluation: scores of weights or restored images against clean ones, image by image, with means and intervals."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from tqdm import tqdm

from sstl.data import ImageSource, PairSource, Source
from sstl.data.files import Image
from sstl.errors import InputError, SstlError
from sstl.metrics import Protocol, Score, Summary, detection, f1_of_all_ones, rain_map, score, summarize
from sstl.networks.weights import DEFAULT
from sstl.ops.precision import Precision
from sstl.rain import Recipe, load_recipe, render
from sstl.report.environment import environment
from sstl.restore import Restorer, load

CAP = 100.0  # dB; what the PSNR of identical images, infinite, counts in a mean
HARM_CAP = 60.0  # dB; above it a change of a clean photograph is invisible, and should not lift the mean
INPUT, RESTORED = "input", "restored"

Weights = Sequence[str | Path] | Mapping[str, Restorer]
Values = dict[str, float]
"""What is measured of one image: psnr, ssim, gain, psnr_rain, psnr_free, f1, ..., seconds; absent if undefined."""
T = TypeVar("T", bound=Image | tuple[Image, Image])


@dataclass(frozen=True)
class Row:
    """One image: its name and what was measured of each candidate (the input, each weights)."""

    key: str
    scores: dict[str, Values]


@dataclass(frozen=True)
class Failure:
    """An image that could not be evaluated, and why."""

    key: str
    error: str


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        protocol: "rgb" or "y-matlab".
        cap: dB that a PSNR counts at most in a mean, in a gain and in their intervals.
        rows: one per image.
        failures: the images that could not be evaluated; they are in no mean.
        environment: versions, machine, arithmetic and date.
    """

    protocol: Protocol
    cap: float
    rows: list[Row]
    failures: list[Failure]
    environment: dict[str, str | int | None]

    @cached_property
    def results(self) -> dict[str, dict[str, Summary]]:
        """Candidate -> metric -> mean with its interval, over the images where the metric is defined."""
        columns: dict[str, dict[str, list[float]]] = {}
        for row in self.rows:
            for name, values in row.scores.items():
                for metric, value in values.items():
                    columns.setdefault(name, {}).setdefault(metric, []).append(value)
        return {
            name: {metric: summarize(values, self._cap(metric)) for metric, values in of_name.items()}
            for name, of_name in columns.items()
        }

    def _cap(self, metric: str) -> float:
        return self.cap if metric.startswith("psnr") else math.inf

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values for JSON; an infinite PSNR is None."""
        return {
            "protocol": self.protocol,
            "cap_db": self.cap,
            "count": len(self.rows),
            "results": {name: {m: asdict(s) for m, s in of_name.items()} for name, of_name in self.results.items()},
            "images": [
                {"key": row.key, "scores": {name: _finite(values) for name, values in row.scores.items()}}
                for row in self.rows
            ],
            "failures": [asdict(failure) for failure in self.failures],
            "environment": self.environment,
        }

    def table(self) -> str:
        """Return the means as aligned text, one candidate a line, with what to know about them below."""
        cells = [["", *(title for title, _ in _COLUMNS)]]
        cells += [[name, *(cell(found) for _, cell in _COLUMNS)] for name, found in self.results.items()]
        columns = [column for column in zip(*cells, strict=True) if any(column[1:])]
        widths = [max(map(len, column)) for column in columns]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
            for line in zip(*columns, strict=True)
        ]
        return "\n".join([*lines, *self._notes()])

    def _notes(self) -> list[str]:
        return [
            f"{name}, {title}: {s.capped} of {s.count} values are above {self.cap:g} dB and count as {self.cap:g} "
            f"({s.infinite} of them infinite: no pixel differs)."
            for name, found in self.results.items()
            for title, metric in _DECIBELS.items()
            if (s := found.get(metric)) and s.capped
        ]


def evaluate(
    pairs: PairSource,
    weights: Weights = (DEFAULT,),
    protocol: Protocol = "y-matlab",
    *,
    precision: Precision = "auto",
    device: str = "auto",
    limit: int | None = None,
    progress: bool = False,
) -> Evaluation:
    """Score the rainy images, and what each network makes of them, against the clean images.

    Images are read, restored and scored one at a time. One that cannot be read, is too small for SSIM or whose sizes
    differ becomes a failure; the others are done.

    Args:
        pairs: rainy and clean images, for example ``sstl.data.open_pairs(...)`` or ``RenderedPairs``.
        weights: names or files of weights, or loaded networks by name; none scores the input alone.
        protocol: "y-matlab" (the published tables) or "rgb".
        precision: "auto", "fp32" or "bf16".
        device: "auto", "cpu" or "cuda".
        limit: take only so many, the first.
        progress: show a bar on stderr.

    Raises:
        SstlError: weights cannot be loaded, or two have one name.
    """
    restorers = _load(weights, precision, device)

    def measure(pair: tuple[Image, Image]) -> dict[str, Values]:
        rainy, clean = pair
        rain = rain_map(rainy, clean)
        before = score(rainy, clean, protocol, rain)
        scores = {INPUT: _values(before)}
        for name, restorer in restorers.items():
            layers, seconds = _restore(restorer, rainy)
            after = score(layers["background"], clean, protocol, rain)
            gain = min(after.psnr, CAP) - min(before.psnr, CAP)
            scores[name] = {**_values(after), "gain": gain, "seconds": seconds}
            if "mask" in layers:
                found = asdict(detection(layers["mask"] > 127, rain))
                scores[name] |= {**found, "f1_all_ones": f1_of_all_ones(rain)}
        return scores

    return Evaluation(protocol, CAP, *_each(pairs, measure, limit, progress), _environment(restorers))


def evaluate_restored(
    pairs: PairSource, protocol: Protocol = "y-matlab", *, limit: int | None = None, progress: bool = False
) -> Evaluation:
    """Score images that some other program has restored; ``pairs`` gives (restored, clean). Else as `evaluate`."""

    def measure(pair: tuple[Image, Image]) -> dict[str, Values]:
        return {RESTORED: _values(score(*pair, protocol))}

    return Evaluation(protocol, CAP, *_each(pairs, measure, limit, progress), environment())


def evaluate_harm(
    images: ImageSource,
    weights: Weights = (DEFAULT,),
    *,
    precision: Precision = "auto",
    device: str = "auto",
    limit: int | None = None,
    progress: bool = False,
) -> Evaluation:
    """Give networks photographs without rain and score their output against the input: best is no change at all.

    The protocol is "rgb" and each PSNR counts at most 60 dB. Else as `evaluate`.
    """
    restorers = _load(weights, precision, device)

    def measure(clean: Image) -> dict[str, Values]:
        scores = {}
        for name, restorer in restorers.items():
            layers, seconds = _restore(restorer, clean)
            scores[name] = {**_values(score(layers["background"], clean, "rgb")), "seconds": seconds}
        return scores

    return Evaluation("rgb", HARM_CAP, *_each(images, measure, limit, progress), _environment(restorers))


class RenderedPairs:
    """Rain of a recipe over clean images, 8 bits: pair ``i`` is a function of (clean image, recipe, seed, i).

    Args:
        images: the clean images; used again, with other rain, if ``count`` is larger than their number.
        recipe: a recipe, the name of one, or its YAML file.
        count: how many pairs; as many as there are images if None.
        seed: of the rain.
    """

    def __init__(
        self, images: ImageSource, recipe: str | Path | Recipe, count: int | None = None, seed: int = 0
    ) -> None:
        self.images = images
        self.recipe = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
        self.count = len(images) if count is None else count
        self.seed = seed

    def __len__(self) -> int:
        """Return the number of pairs."""
        return self.count

    def key(self, i: int) -> str:
        """Return the clean image's name with the pair's number."""
        return f"{self.images.key(i % len(self.images))}-{i}"

    def load(self, i: int) -> tuple[Image, Image]:
        """Read the clean image of pair ``i`` and rain on it."""
        clean = self.images.load(i % len(self.images))
        background = torch.tensor(clean).permute(2, 0, 1)[None] / 255
        rainy = render(background, self.recipe, self.seed, [i]).rainy
        return (rainy[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy(), clean


def _load(weights: Weights, precision: Precision, device: str) -> Mapping[str, Restorer]:
    names = [INPUT, *map(str, weights)]
    for name in names:
        if names.count(name) > 1:
            raise SstlError(f"'{name}' would be in the table twice; give each weights once, and none called 'input'.")
    if isinstance(weights, Mapping):
        return weights
    return {str(name): load(name, device=device, precision=precision) for name in weights}


def _restore(restorer: Restorer, image: Image) -> tuple[dict[str, Image], float]:
    start = time.perf_counter()
    layers: dict[str, Image] = {name: np.asarray(layer) for name, layer in restorer.layers(image).items()}
    return layers, time.perf_counter() - start


def _environment(restorers: Mapping[str, Restorer]) -> dict[str, str | int | None]:
    devices = {str(restorer.device) for restorer in restorers.values()}
    dtypes = {str(restorer.dtype).removeprefix("torch.") for restorer in restorers.values()}
    return environment(device=", ".join(sorted(devices)), precision=", ".join(sorted(dtypes)))


def _each(
    source: Source[T], measure: Callable[[T], dict[str, Values]], limit: int | None, progress: bool
) -> tuple[list[Row], list[Failure]]:
    rows, failures = [], []
    count = len(source) if limit is None else min(limit, len(source))
    for i in tqdm(range(count), desc="evaluate", unit="image", disable=not progress):
        try:
            rows.append(Row(source.key(i), measure(source.load(i))))
        except InputError as error:
            failures.append(Failure(source.key(i), str(error)))
    return rows, failures


def _values(found: Score) -> Values:
    return {metric: value for metric, value in asdict(found).items() if value is not None}


def _finite(values: Values) -> dict[str, float | None]:
    return {metric: value if math.isfinite(value) else None for metric, value in values.items()}


def _number(metric: str, form: str, interval: bool = False) -> Callable[[dict[str, Summary]], str]:
    def cell(found: dict[str, Summary]) -> str:
        if metric not in found:
            return ""
        bounds = found[metric].interval if interval else None
        return f"{found[metric].mean:{form}}" + (f" [{bounds[0]:{form}}, {bounds[1]:{form}}]" if bounds else "")

    return cell


def _f1(found: dict[str, Summary]) -> str:
    return f"{found['f1'].mean:.3f} ({found['f1_all_ones'].mean:.3f})" if "f1" in found else ""


_DECIBELS = {"PSNR dB": "psnr", "rainy px dB": "psnr_rain", "rain-free px dB": "psnr_free"}
_COLUMNS = (
    ("PSNR dB [95 %]", _number("psnr", ".2f", interval=True)),
    ("SSIM", _number("ssim", ".4f")),
    ("gain dB [95 %]", _number("gain", "+.2f", interval=True)),
    ("rainy px dB", _number("psnr_rain", ".2f")),
    ("rain-free px dB", _number("psnr_free", ".2f")),
    ("map F1 (all ones)", _f1),
    ("s/image", _number("seconds", ".3f")),
)
