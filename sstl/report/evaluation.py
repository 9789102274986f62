"""Evaluation: scores of weights or restored images against clean ones, image by image, with means and intervals."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
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
from sstl.ops.processes import ALONE, Crew
from sstl.ops.progress import hidden
from sstl.rain import Recipe, load_recipe, render
from sstl.report.environment import environment
from sstl.report.evaluation_table import DECIBELS, aligned, means
from sstl.report.noreference import naturalness, without_reference
from sstl.restore import Restorer, load

CAP = 100.0  # dB; what the PSNR of identical images, infinite, counts in a mean
HARM_CAP = 60.0  # dB; above it a change of a clean photograph is invisible, and should not lift the mean
INPUT, RESTORED = "input", "restored"

Weights = Sequence[str | Path] | Mapping[str, Restorer]
Values = dict[str, float]
"""What is measured of one image: psnr, ssim, gain, psnr_rain, psnr_free, f1, ..., seconds; absent if undefined."""
T = TypeVar("T", bound=Image | tuple[Image, Image])
Remember = Callable[[str, Sequence[Image], Callable[[], Values]], Values]
"""Gives what is known of a candidate (its name) on some images, or else calls the function and keeps its answer."""

_BLIND = "NIQE, left over: best is low; leakage: near 0. Each can be fooled, NIQE alone misleads: read all, and look."


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
        protocol: "rgb" or "y-matlab"; None if there were no clean images.
        cap: dB that a PSNR counts at most in a mean, in a gain and in their intervals.
        rows: one per image.
        failures: the images that could not be evaluated; they are in no mean.
        environment: versions, machine, arithmetic and date.
    """

    protocol: Protocol | None
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
                {"key": row.key, "scores": {name: finite(values) for name, values in row.scores.items()}}
                for row in self.rows
            ],
            "failures": [asdict(failure) for failure in self.failures],
            "environment": self.environment,
        }

    def table(self) -> str:
        """Return the means as aligned text, one candidate a line, with what to know about them below."""
        return "\n".join([aligned(means(self.results)), *self.notes()])

    def notes(self) -> list[str]:
        """Return what to know about the means, a line each."""
        capped = [
            f"{name}, {title}: {s.capped} of {s.count} values are above {self.cap:g} dB and count as {self.cap:g} "
            f"({s.infinite} of them infinite: no pixel differs)."
            for name, found in self.results.items()
            for title, metric in DECIBELS.items()
            if (s := found.get(metric)) and s.capped
        ]
        return [*capped, *([_BLIND] if any("niqe" in found for found in self.results.values()) else [])]


def measure_anew(name: str, images: Sequence[Image], measure: Callable[[], Values]) -> Values:  # noqa: ARG001
    """Measure, whatever is known: the `Remember` that remembers nothing."""
    return measure()


def evaluate(
    pairs: PairSource,
    weights: Weights = (DEFAULT,),
    protocol: Protocol = "y-matlab",
    *,
    precision: Precision = "auto",
    device: str = "auto",
    limit: int | None = None,
    progress: bool = False,
    no_reference: bool = False,
    remember: Remember = measure_anew,
    processes: Crew = ALONE,
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
        no_reference: add what can be measured without the clean image: NIQE and the removed layer's measures.
        remember: where to look up and keep what was measured, for example ``Ledger.remember``.
        processes: who shares the images; all call this alike, the first gets all rows, the others only their own.

    Raises:
        SstlError: weights cannot be loaded, or two have one name.
    """
    restorers = load_restorers(weights, precision, device)

    def measure(pair: tuple[Image, Image]) -> dict[str, Values]:
        rainy, clean = pair
        rain = rain_map(rainy, clean)

        def of_input() -> Values:
            blind = naturalness(rainy) if no_reference else {}
            return _values(score(rainy, clean, protocol, rain)) | blind

        def of_output(restorer: Restorer) -> Values:
            layers, seconds = _restore(restorer, rainy)
            restored = layers["background"]
            found = {**_values(score(restored, clean, protocol, rain)), "seconds": seconds}
            if "mask" in layers:
                found |= {**asdict(detection(layers["mask"] > 127, rain)), "f1_all_ones": f1_of_all_ones(rain)}
            return found | (without_reference(rainy, restored) if no_reference else {})

        scores = {INPUT: remember(INPUT, pair, of_input)}
        for name, restorer in restorers.items():
            found = remember(name, pair, partial(of_output, restorer))
            gain = min(found["psnr"], CAP) - min(scores[INPUT]["psnr"], CAP)
            scores[name] = {**found, "gain": gain}
        return scores

    return Evaluation(protocol, CAP, *_each(pairs, measure, limit, progress, processes), _environment(restorers, pairs))


def evaluate_unpaired(
    images: ImageSource,
    weights: Weights = (DEFAULT,),
    *,
    precision: Precision = "auto",
    device: str = "auto",
    limit: int | None = None,
    progress: bool = False,
    remember: Remember = measure_anew,
    processes: Crew = ALONE,
) -> Evaluation:
    """Measure rainy images that have no clean ones, and what each network makes of them: NIQE and the removed layer.

    The protocol is None. Else as `evaluate`.
    """
    restorers = load_restorers(weights, precision, device)

    def measure(rainy: Image) -> dict[str, Values]:
        def of_output(restorer: Restorer) -> Values:
            layers, seconds = _restore(restorer, rainy)
            return {**without_reference(rainy, layers["background"]), "seconds": seconds}

        scores = {INPUT: remember(INPUT, (rainy,), partial(naturalness, rainy))}
        scores |= {name: remember(name, (rainy,), partial(of_output, r)) for name, r in restorers.items()}
        return scores

    return Evaluation(None, CAP, *_each(images, measure, limit, progress, processes), _environment(restorers))


def evaluate_restored(
    pairs: PairSource,
    protocol: Protocol = "y-matlab",
    *,
    limit: int | None = None,
    progress: bool = False,
    no_reference: bool = False,
    remember: Remember = measure_anew,
    processes: Crew = ALONE,
) -> Evaluation:
    """Score images that some other program has restored; ``pairs`` gives (restored, clean). Else as `evaluate`.

    Without the rainy images, NIQE is all that ``no_reference`` adds.
    """

    def measure(pair: tuple[Image, Image]) -> dict[str, Values]:
        def of_restored() -> Values:
            return _values(score(*pair, protocol)) | (naturalness(pair[0]) if no_reference else {})

        return {RESTORED: remember(RESTORED, pair, of_restored)}

    return Evaluation(protocol, CAP, *_each(pairs, measure, limit, progress, processes), environment())


def evaluate_harm(
    images: ImageSource,
    weights: Weights = (DEFAULT,),
    *,
    precision: Precision = "auto",
    device: str = "auto",
    limit: int | None = None,
    progress: bool = False,
    remember: Remember = measure_anew,
    processes: Crew = ALONE,
) -> Evaluation:
    """Give networks photographs without rain and score their output against the input: best is no change at all.

    The protocol is "rgb" and each PSNR counts at most 60 dB. Else as `evaluate`.
    """
    restorers = load_restorers(weights, precision, device)

    def measure(clean: Image) -> dict[str, Values]:
        def of_output(restorer: Restorer) -> Values:
            layers, seconds = _restore(restorer, clean)
            return {**_values(score(layers["background"], clean, "rgb")), "seconds": seconds}

        return {name: remember(name, (clean,), partial(of_output, r)) for name, r in restorers.items()}

    return Evaluation("rgb", HARM_CAP, *_each(images, measure, limit, progress, processes), _environment(restorers))


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
        sample = render(background, self.recipe, self.seed, [i])
        rainy, clean = (
            (image[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy() for image in (sample.rainy, sample.clean)
        )
        return rainy, clean


def load_restorers(weights: Weights, precision: Precision = "auto", device: str = "auto") -> Mapping[str, Restorer]:
    """Return loaded networks by name, loading those that are not; SstlError if two would have one name."""
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


def _environment(restorers: Mapping[str, Restorer], source: object = None) -> dict[str, str | int | None]:
    devices = {str(restorer.device) for restorer in restorers.values()}
    dtypes = {str(restorer.dtype).removeprefix("torch.") for restorer in restorers.values()}
    seed = source.seed if isinstance(source, RenderedPairs) else None  # nothing else is random
    return environment(device=", ".join(sorted(devices)), precision=", ".join(sorted(dtypes)), seed=seed)


def _each(
    source: Source[T],
    measure: Callable[[T], dict[str, Values]],
    limit: int | None,
    progress: bool,
    processes: Crew,
) -> tuple[list[Row], list[Failure]]:
    found: dict[int, Row | Failure] = {}
    count = len(source) if limit is None else min(limit, len(source))
    own = range(processes.rank, count, processes.world)
    for i in tqdm(own, desc="evaluate", unit="image", **hidden(not progress or processes.rank > 0)):
        try:
            found[i] = Row(source.key(i), measure(source.load(i)))
        except InputError as error:
            found[i] = Failure(source.key(i), str(error))
    results = processes.gather(found)
    return [r for r in results if isinstance(r, Row)], [r for r in results if isinstance(r, Failure)]


def _values(found: Score) -> Values:
    return {metric: value for metric, value in asdict(found).items() if value is not None}


def finite(values: Values) -> dict[str, float | None]:
    """Return the values as JSON can hold them: what is not finite is None."""
    return {metric: value if math.isfinite(value) else None for metric, value in values.items()}
