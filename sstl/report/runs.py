"""Runs to compare: what the folders of trainings, adaptations and evaluations hold."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sstl.config import flatten, read_tree
from sstl.engine import read_log
from sstl.errors import ConfigError
from sstl.metrics import Summary
from sstl.ops.files import read_json
from sstl.report.adaptation import FIGURES

Settings = dict[str, Any]
"""Key -> value, with dots and brackets for what is nested: ``optimizer.lr``, ``data.paired[0].path``."""


@dataclass(frozen=True, eq=False)
class ScoredSet:
    """What one evaluation found on one set, without the single images.

    Attributes:
        name: of the set.
        protocol: "rgb" or "y-matlab"; None without clean images.
        count: how many images.
        results: candidate -> metric -> mean over the images.
    """

    name: str
    protocol: str | None
    count: int
    results: dict[str, dict[str, Summary]]


@dataclass(frozen=True, eq=False)
class Run:
    """The folder of a training, an adaptation or an evaluation.

    Attributes:
        name: the folder's name, or as much of its path as tells it from the others.
        folder: the folder.
        settings: its configuration, but for the folder itself.
        log: the lines of ``log.jsonl``; none for an evaluation.
        figures: of an adaptation: measure -> {"before": value, "after": value}.
        sets: of an evaluation.
    """

    name: str
    folder: Path
    settings: Settings
    log: Sequence[Mapping[str, Any]] = ()
    figures: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    sets: Sequence[ScoredSet] = ()

    @property
    def weights(self) -> Path | None:
        """The final weights, if the run came to its end."""
        path = self.folder / "weights.safetensors"
        return path if path.is_file() else None


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Read two or more runs.

    Raises:
        ConfigError: there are fewer than two, a folder is named twice, is no run or holds a damaged file.
    """
    if len({folder.resolve() for folder in folders}) < max(2, len(folders)):
        raise ConfigError("give two or more runs, each once.")
    return [read_run(folder, name) for folder, name in zip(folders, _names(folders), strict=True)]


def differing(runs: Sequence[Run]) -> dict[str, list[str]]:
    """Return the settings that are not the same in all runs: key -> value of each run as text, "–" if it has none."""
    keys = dict.fromkeys(key for run in runs for key in run.settings)
    told = {key: [_told(run.settings[key]) if key in run.settings else "–" for run in runs] for key in keys}
    return {key: values for key, values in told.items() if len(set(values)) > 1}


def best_validation(run: Run) -> tuple[float, int] | None:
    """Return the highest validation PSNR with its step."""
    checks = [(line["validation"].get("psnr"), line["step"]) for line in run.log if "validation" in line]
    return max((check for check in checks if check[0] is not None), default=None)


def read_run(folder: Path, name: str = "") -> Run:
    """Read one run; ConfigError if the folder is none, or holds a damaged file."""
    name = name or folder.resolve().name
    config, scores = folder / "config.yaml", folder / "scores.json"
    if config.is_file():
        tree = read_tree(config)
        if not isinstance(tree, dict):
            raise ConfigError(f"{config} is no configuration of a run; give the folder of a training.")
        figures = read_json(folder / FIGURES, lambda tree: tree["figures"]) if (folder / FIGURES).is_file() else {}
        settings = flatten({key: value for key, value in tree.items() if key != "output"})
        return Run(name, folder, settings, read_log(folder / "log.jsonl"), figures)
    if scores.is_file():
        tree = read_json(scores, lambda tree: {**tree, "sets": [_set(*item) for item in tree["sets"].items()]})
        settings = flatten({"data": tree.get("data", {}), "weights": list(tree.get("weights", {}))})
        return Run(name, folder, settings, sets=tree["sets"])
    raise ConfigError(
        f"{folder} is no run: it holds neither config.yaml nor scores.json; give the folder of an "
        "'sstl train', an 'sstl adapt' or an 'sstl evaluate -o'."
    )


def _set(name: str, tree: Mapping[str, Any]) -> ScoredSet:
    results = {
        candidate: {metric: Summary(**summary) for metric, summary in found.items()}
        for candidate, found in tree["results"].items()
    }
    return ScoredSet(name, tree["protocol"], tree["count"], results)


def _names(folders: Sequence[Path]) -> list[str]:
    """Return the ends of the paths, as short as tells them apart."""
    parts = [folder.resolve().parts for folder in folders]
    length = next(n for n in range(1, max(map(len, parts)) + 1) if len({part[-n:] for part in parts}) == len(parts))
    return ["/".join(part[-length:]) for part in parts]


def _told(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
