"""What a model card tells of weights: the data, training, figures and limits that the folder of their run holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sstl.config import load_config
from sstl.data import SourceConfig
from sstl.engine import TrainConfig
from sstl.networks.weights import read_info
from sstl.report.findings import MEASURES
from sstl.report.runs import Run, read_run

PROTOCOL = "y-matlab (PSNR on MATLAB's 8-bit luma), averaged weights"
LIMITS = (
    "Drops on the lens, snow and the veil of distant rain mostly stay; thin bright structures can be thinned.",
    "Figures on rendered or development images do not compare with published ones on test sets.",
)
UNLABELLED = "It learnt from photos without ground truth: no figure proves that they became better; look at them."


def about_weights(name: str | Path, scores: Path | None = None) -> dict[str, Any]:
    """Return the notes of weights for ``save_pretrained`` and ``push_to_hub``.

    Args:
        name: the folder of a run; or weights by name or file, of which only what was saved in them is known.
        scores: the folder of an ``sstl evaluate -o`` of these weights, whose figures stand in the card.

    Raises:
        WeightsError: there are no such weights, or the run is not finished.
        ConfigError: a file of the run or of the evaluation is damaged.
    """
    info = dict(read_info(name)["info"])
    if Path(name, "config.yaml").is_file():
        info |= _of_run(read_run(Path(name)), load_config(TrainConfig, Path(name, "config.yaml")))
    if scores is not None:
        info["figures"] = [*_scored(read_run(scores)), *info.get("figures", [])]
        info["protocol"] = "; ".join(filter(None, ("as the table says", info.get("protocol"))))
    return info


def _of_run(run: Run, config: TrainConfig) -> dict[str, Any]:
    labelled = [
        f"labelled: {_source(part)}" + (f", recipe {part.recipe}" if part.recipe else "") for part in config.data.paired
    ]
    unlabelled = [f"unlabelled photos: {_source(part)}" for part in config.data.unpaired]
    validated = [f"validation: {_source(part)}" for part in config.validation.sources] if config.validation else []
    figures = [*_validated(run), *_adapted(run)]
    return {
        "data": [*labelled, *unlabelled, *validated],
        "start": Path(config.network.weights).name if config.network.weights else "fresh weights",
        "optimizer": f"{config.optimizer.name}, learning rate {config.optimizer.lr:g}",
        "crops a step": config.batch_size,
        **({"protocol": PROTOCOL} if figures else {}),
        "figures": figures,
        "limits": [*LIMITS, *([UNLABELLED] if unlabelled else [])],
    }


def _source(source: SourceConfig) -> str:
    """Name a source without the folders of this machine."""
    parts = {"set": source.set, "split": source.split}
    path = source.path if source.path.startswith("hub:") else Path(source.path).name
    return ", ".join([path, *(f"{key} {value}" for key, value in parts.items() if value)])


def _validated(run: Run) -> Iterator[dict[str, Any]]:
    checks = [line for line in run.log if line.get("validation", {}).get("psnr") is not None]
    if checks:
        yield {"what": f"validation at step {checks[-1]['step']}, dB", "after": checks[-1]["validation"]["psnr"]}


def _adapted(run: Run) -> Iterator[dict[str, Any]]:
    for key, found in run.figures.items():
        yield {"what": MEASURES.get(key, key), **{name: float(value) for name, value in found.items()}}


def _scored(run: Run) -> Iterator[Mapping[str, Any]]:
    for one in run.sets:
        for candidate, found in one.results.items():
            means = {metric: float(summary.mean) for metric, summary in found.items()}
            what = f"{one.name}: {candidate}, {one.count} images, protocol {one.protocol or 'none'}"
            yield {"what": what, **means}
