"""The frozen source networks of the suite: trained on Rain100L's training pairs and on the recipe ``light`` only.

SSTL_DATA=/path/to/data python experiments/shift/sources.py [FOLDER]      (about half an hour on two cores)

Writes sources/NAME.safetensors (float16) and sources/sources.json with their hashes. A source that is there is kept.
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from sstl.data import SourceConfig
from sstl.data.stream import PairedPart
from sstl.engine import DataConfig, NetworkConfig, OptimizerConfig, TrainConfig, ValidationConfig, train
from sstl.engine.checkpoint import list_checkpoints
from sstl.networks import load_weights, save_weights
from sstl.networks.weights import DEFAULT, SHIPPED
from sstl.ops.files import write_atomic
from sstl.report.environment import environment

FOLDER = Path(__file__).resolve().parent / "sources"
SEED = 5


@dataclass(frozen=True)
class Source:
    """A network and how long it is trained; narrow ones, so that the suite fits into five hours of two cores.

    Without steps it is the weights that the package ships, reported beside the others and in no pool of theirs: they
    have seen more rain, and the backgrounds of the photos.

    Attributes:
        crop, batch, lr: what it is adapted by, whatever the trial; about as many pixels a step for all.
    """

    network: str
    steps: int = 0
    options: dict[str, Any] = field(default_factory=dict)
    crop: int = 96
    batch: int = 8
    lr: float = 4e-4

    @property
    def name(self) -> str:
        """What cells call it."""
        return self.network if self.steps else "shipped"

    @property
    def path(self) -> Path:
        """The frozen weights."""
        return FOLDER / f"{self.name}.safetensors" if self.steps else SHIPPED / f"{DEFAULT}.safetensors"


SOURCES = (
    Source("joint", 1000),
    Source("prenet", 700, {"stages": 3, "width": 16}),
    Source("jorder", 900, {"width": 24, "recurrences": 2}),
)
# Trained long, at large crops: at the others' crops and rate it forgot about a decibel of Rain100L, unseen by the gate.
PACKAGE = Source("joint", options={"size": "small"}, crop=160, batch=3, lr=5e-5)


def anchor(weight: float = 1.0) -> tuple[PairedPart, ...]:
    """Return the data of the sources, with a total weight: what every adaptation rehearses, too."""
    return (
        PairedPart("manifest.csv", split="train", set="rain100l", weight=weight / 2),
        PairedPart("manifest.csv", split="train", recipe="light", weight=weight / 2),
    )


def recipe(source: Source, output: Path) -> TrainConfig:
    """Return the training of a source."""
    return TrainConfig(
        output=output,
        network=NetworkConfig(source.network, source.options),
        data=DataConfig(anchor(), crop=96),
        optimizer=OptimizerConfig(lr=1.2e-3, warmup_steps=50),
        validation=ValidationConfig((SourceConfig("manifest.csv", split="dev", set="rain100l"),), every=500, limit=8),
        steps=source.steps,
        batch_size=8,
        ema_decay=0.99,
        seed=SEED,
        checkpoint_every=100,
        picture_every=0,
    )


def main() -> None:
    """Train what is not there yet."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/shift/sources")
    FOLDER.mkdir(exist_ok=True)
    notes_file = FOLDER / "sources.json"
    notes = json.loads(notes_file.read_text()) if notes_file.exists() else {}
    for source in SOURCES:
        if source.path.exists():
            continue
        output = folder / source.name
        weights = train(recipe(source, output), resume=bool(list_checkpoints(output / "checkpoints")))
        trained = load_weights(weights)
        save_weights(source.path, trained.network, trained.info, torch.float16)
        notes[source.name] = {
            "sha256": hashlib.sha256(source.path.read_bytes()).hexdigest(),
            "options": source.options, **trained.info, "environment": environment(),
        }  # fmt: skip
        write_atomic(
            notes_file, json.dumps({"command": "python experiments/shift/sources.py", **notes}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
