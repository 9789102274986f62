"""The page of an evaluation: means, published figures, every image from the worst on, and pictures of the worst."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from sstl.data import Source
from sstl.report.evaluation import INPUT, Evaluation, Values
from sstl.report.evaluation_table import means
from sstl.report.page import Comparison, Figure, Page, Table
from sstl.report.plots import bars
from sstl.report.published import NOTE, PublishedFigure, beside
from sstl.restore import Restorer

PICTURES = 6  # of all sets together, so that the page stays below some 3 MB
ROWS = 1000  # in the table of images; all of them are in images.csv


@dataclass(frozen=True, eq=False)
class EvaluatedSet:
    """A set with what was found on it.

    Attributes:
        name: the set's name.
        source: its images: pairs, or single images if there are no clean ones.
        evaluation: what was found.
        published: published figures of it, under the same protocol.
    """

    name: str
    source: Source[Any]
    evaluation: Evaluation
    published: Sequence[PublishedFigure] = ()

    @cached_property
    def restorations(self) -> list[Restoration]:
        """Every restored image (the input, if it alone was scored), the worst first."""
        several = any(set(row.scores) - {INPUT} for row in self.evaluation.rows)
        found = [
            Restoration(self, row.key, name, values)
            for row in self.evaluation.rows
            for name, values in row.scores.items()
            if name != INPUT or not several
        ]
        return sorted(found, key=lambda one: one.merit)


@dataclass(frozen=True, eq=False)
class Restoration:
    """One image as one candidate restored it, with what was measured."""

    of: EvaluatedSet
    key: str
    candidate: str
    values: Values

    @property
    def merit(self) -> float:
        """What the images are ordered by: the gain, else the PSNR, else how little rain is left over."""
        return self.values.get("gain", self.values.get("psnr", -self.values.get("leftover", 0.0)))


def evaluation_page(sets: Sequence[EvaluatedSet], restorers: Mapping[str, Restorer]) -> Page:
    """Return the page of one or more sets; the images of the pictures are read and restored again."""
    protocols = {one.evaluation.protocol for one in sets} - {None}
    candidates = list(dict.fromkeys(name for one in sets for name in one.evaluation.results if name != INPUT))
    environment = sets[0].evaluation.environment
    return Page(
        title=f"Evaluation on {', '.join(one.name for one in sets)}",
        verdict=verdict(sets),
        facts={
            "Protocol": ", ".join(map(str, protocols)) or "none: no clean images",
            "Images": str(sum(len(one.evaluation.rows) for one in sets)),
            "Candidates": ", ".join(candidates) or INPUT,
            "Arithmetic": str(environment.get("precision", "")) or "none",
            "Version": f"sstl {environment['sstl']}",
            "Date": str(environment["date"])[:10],
        },
        comparisons=[_comparison(one, restorers) for one in _worst(sets)],
        tables=[*_tables(sets), _every_image(sets), *_failures(sets)],
        figures=_figures(sets),
        next_steps=[
            f"sstl derain my-photos -o derained --weights {shlex.quote(name)}"
            for name in candidates
            if name in restorers
        ],
    )


def verdict(sets: Sequence[EvaluatedSet]) -> str:
    """Say in a few sentences what came out: the best candidate of each set, and how often restoring did harm."""
    said = [sentence for one in sets for sentence in _leader(one)]
    gains = [one.values["gain"] for of in sets for one in of.restorations if "gain" in one.values]
    if gains:
        worse = sum(gain < 0 for gain in gains)
        verb = "is" if worse < 2 else "are"
        said.append(f"{worse or 'None'} of the {len(gains)} restored images {verb} worse than the input.")
    elif not said:
        measured = any(one.evaluation.rows for one in sets)
        said.append(
            "Without clean images no figure proves that an image became better: look at them."
            if measured
            else "No image could be evaluated; the reasons are below."
        )
    return " ".join(said)


def _leader(one: EvaluatedSet) -> Iterator[str]:
    """Yield the sentence on a set's best candidate, if it has PSNR."""
    found = {name: of_name for name, of_name in one.evaluation.results.items() if "psnr" in of_name}
    others = {name: of_name for name, of_name in found.items() if name != INPUT} or found
    if others:
        name = max(others, key=lambda name: others[name]["psnr"].mean)
        best = others[name]
        gain = f", {best['gain'].mean:+.2f} dB over the input" if "gain" in best else ""
        yield f"{one.name}: {name} at {best['psnr'].mean:.2f} dB{gain} (mean of {best['psnr'].count} images)."


def _tables(sets: Sequence[EvaluatedSet]) -> Iterator[Table]:
    for one in sets:
        if one.evaluation.rows:
            header, *rows = means(one.evaluation.results)
            protocol = one.evaluation.protocol or "none"
            title = f"{one.name}: means over {len(one.evaluation.rows)} images, protocol {protocol}"
            yield Table(title, ["candidate", *header[1:]], rows, " ".join(one.evaluation.notes()))
        if one.published:
            header, *rows = beside(one.published, one.evaluation.results)
            title = f"{one.name}: beside published figures, protocol {one.published[0].protocol}"
            yield Table(title, header, rows, NOTE)


def _every_image(sets: Sequence[EvaluatedSet]) -> Table:
    every = sorted((one for of in sets for one in of.restorations), key=lambda one: one.merit)
    shown = [column for column in _COLUMNS if any(column[1] in one.values for one in every)]
    rows = [
        [one.key, one.of.name, _short(one.candidate), *(_cell(one.values, metric, form) for _, metric, form in shown)]
        for one in every[:ROWS]
    ]
    note = "Click a heading to sort." + (f" The worst {ROWS} of {len(every)}." if len(every) > ROWS else "")
    header = ["image", "set", "candidate", *(title for title, _, _ in shown)]
    return Table("Every image, the worst first", header, rows, note, sortable=True)


def _cell(values: Values, metric: str, form: str) -> str:
    if metric not in values:
        return ""
    return f"{values[metric]:{form}}" if math.isfinite(values[metric]) else "∞"


def _figures(sets: Sequence[EvaluatedSet]) -> list[Figure]:
    found = [
        (f"{one.name}, {_short(name)}", of_name["psnr"])
        for one in sets
        for name, of_name in one.evaluation.results.items()
        if "psnr" in of_name
    ]
    if not found:
        return []
    labels, summaries = [label for label, _ in found], [summary for _, summary in found]
    drawn = bars(
        labels,
        {"PSNR": [summary.mean for summary in summaries]},
        "Mean PSNR",
        intervals={"PSNR": [summary.interval for summary in summaries]},
    )
    return [Figure("Mean PSNR", drawn, "The line is the 95 % bootstrap interval of the mean over images.")]


def _failures(sets: Sequence[EvaluatedSet]) -> list[Table]:
    rows = [(failure.key, one.name, failure.error) for one in sets for failure in one.evaluation.failures]
    return [Table("Images that could not be evaluated", ("image", "set", "reason"), rows)] if rows else []


def _worst(sets: Sequence[EvaluatedSet]) -> list[Restoration]:
    """Return the worst restorations of each set, no image twice, as many of each."""
    share = max(1, PICTURES // len(sets))
    chosen = []
    for one in sets:
        images = {restoration.key: restoration for restoration in reversed(one.restorations)}
        chosen += sorted(images.values(), key=lambda restoration: restoration.merit)[:share]
    return chosen[:PICTURES]


def _comparison(one: Restoration, restorers: Mapping[str, Restorer]) -> Comparison:
    source = one.of.source
    item = source.load(next(i for i in range(len(source)) if source.key(i) == one.key))
    first, *clean = item if isinstance(item, tuple) else (item,)
    told = [_told(title, cell) for title, metric, form in _COLUMNS if (cell := _cell(one.values, metric, form))]
    note = f"{one.of.name}, {_short(one.candidate)}: {', '.join(told[:3])}."
    if one.candidate not in restorers:
        return Comparison(one.key, first, clean[0], note, labels=("Scored", "Clean"))
    layers = restorers[one.candidate].layers(first)
    background = np.asarray(layers["background"])
    removed = np.clip(first.astype(int) - background, 0, 255).astype(np.uint8)
    more = {"clean": clean[0]} if clean else {}
    more |= {"light removed": removed} | ({"rain map": np.asarray(layers["mask"])} if "mask" in layers else {})
    return Comparison(one.key, first, background, note, more, ("Input", "Restored"))


def _short(name: str) -> str:
    """Return the end of a long path, which tells more than its beginning."""
    return name if len(name) <= 32 else f"…{name[-31:]}"


def _told(title: str, cell: str) -> str:
    return f"{title.removesuffix(' dB')} {cell}{' dB' * title.endswith(' dB')}"


_COLUMNS = (
    ("PSNR dB", "psnr", ".2f"),
    ("SSIM", "ssim", ".4f"),
    ("gain dB", "gain", "+.2f"),
    ("rainy px dB", "psnr_rain", ".2f"),
    ("rain-free px dB", "psnr_free", ".2f"),
    ("map F1", "f1", ".3f"),
    ("NIQE", "niqe", ".2f"),
    ("oriented", "directionality", ".3f"),
    ("left over", "leftover", ".3f"),
    ("leakage", "leakage", "+.3f"),
)
