"""Train every network under one recipe and one budget, score it on the development pairs, keep one file per row.

SSTL_DATA=/path/to/data python experiments/systems/run.py [ROW ...]      (about two hours on two cores; all rows)

A row whose configuration was measured already is skipped. ``table.py`` writes README.md from the rows.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from sstl.config import to_tree
from sstl.data import SourceConfig, open_pairs
from sstl.data.stream import PairedPart
from sstl.engine import DataConfig, NetworkConfig, OptimizerConfig, TrainConfig, read_log, train
from sstl.metrics import PROTOCOLS
from sstl.ops.files import write_atomic
from sstl.report.environment import environment
from sstl.report.evaluation import evaluate
from sstl.restore import Restorer, load

ROWS = Path(__file__).with_name("rows")
CPU_SECONDS = 480.0  # of training, over all threads: four minutes on two cores
TRIAL = 6  # steps that measure the pace
SETS = ("rain100l", "rain100h", "rain800")
IMAGES = 8  # of each set: as many development pairs as Rain100H has


@dataclass(frozen=True)
class Row:
    """A network with its options, by the name it has in the table."""

    name: str
    network: str
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def file(self) -> str:
        """The stem of the row's results file."""
        return self.name.replace(", ", "-").replace(" ", "_")


# _r twins, parity variants and the de-veil around a trained jorder_r have no row of their own.
TABLE = (
    Row("joint", "joint"),
    Row("joint, bilinear heads", "joint", {"head": "bilinear"}),
    Row("joint, no map", "joint", {"detect": False}),
    Row("jorder", "jorder"),
    Row("jorder_r", "jorder_r"),
    Row("prn", "prn"),
    Row("prenet", "prenet"),
    Row("ddn", "ddn"),
    Row("hdc", "hdc"),
    Row("duc", "duc"),
    Row("context_basic", "context_basic"),
    Row("context_large", "context_large"),
    Row("jorder_e_practical", "jorder_e_practical"),
    Row("jorder_e", "jorder_e"),
    Row("idcgan", "idcgan"),
    Row("mspfn", "mspfn"),
)


def recipe(row: Row, steps: int, output: Path) -> TrainConfig:
    """Return the one recipe, for a network and a number of steps."""
    return TrainConfig(
        output=output,
        network=NetworkConfig(row.network, row.options),
        data=DataConfig(
            paired=(
                PairedPart("manifest.csv", split="train", set="rain100l", weight=0.4),
                PairedPart("manifest.csv", split="train", set="rain100h", weight=0.3),
                PairedPart("manifest.csv", split="train", set="rain800", weight=0.3),
            ),
            crop=96,
            cache_gb=4.0,
            workers=0,
        ),
        optimizer=OptimizerConfig("adamw", lr=1.0e-3, warmup_steps=max(1, steps // 20), final=0.01),
        steps=steps,
        batch_size=4,
        ema_decay=0.99,
        seed=1,
        checkpoint_every=10**6,
        log_every=max(1, steps // 20),
        picture_every=0,
    )


def fingerprint(row: Row) -> str:
    """Return a hash of all that decides the row's result, but for the code."""
    tree = {"config": to_tree(recipe(row, 1, Path("run"))), "cpu_seconds": CPU_SECONDS, "images": IMAGES}
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:16]


def timed(config: TrainConfig) -> tuple[Path, float]:
    """Train, and return the weights and the processor seconds that it took."""
    start = time.process_time()
    weights = train(config, overwrite=True)
    return weights, time.process_time() - start


def steps_within(cpu_seconds: float, make: Callable[[int], TrainConfig]) -> int:
    """Return how many steps fit into a budget, from the difference of two short trials after one that warms up."""
    _, short, long = (timed(make(steps))[1] for steps in (1, 1, 1 + TRIAL))
    return max(10, round(cpu_seconds * TRIAL / max(long - short, 1e-3)))


class Remembering(Restorer):
    """A restorer that restores each image once, however many protocols score it."""

    def layers(self, image: Any) -> Any:
        """Return the layers of an array, from memory if it was seen."""
        key = hashlib.sha256(image.tobytes()).digest()
        if key not in self.__dict__.setdefault("seen", {}):
            self.seen[key] = {name: np.asarray(layer) for name, layer in super().layers(image).items()}
        return self.seen[key]


def measure(row: Row) -> dict[str, Any]:
    """Train and score one row."""
    with TemporaryDirectory() as folder:
        steps = steps_within(CPU_SECONDS, lambda steps: recipe(row, steps, Path(folder) / "trial"))
        config = recipe(row, steps, Path(folder) / "run")
        weights, seconds = timed(config)
        losses = [line["loss"] for line in read_log(config.output / "log.jsonl") if "loss" in line]
        loaded = load(weights)
        restorer = Remembering(loaded.network, loaded.device, loaded.dtype)
        scores: dict[str, Any] = {}
        for name in SETS:
            pairs = open_pairs(SourceConfig("manifest.csv", split="dev", set=name))
            for protocol in PROTOCOLS:
                found = evaluate(pairs, {"restored": restorer}, protocol, limit=IMAGES, progress=True)
                scores.setdefault(name, {})[protocol] = {
                    key: {metric: asdict(summary) for metric, summary in of_key.items() if metric != "seconds"}
                    for key, of_key in found.results.items()
                }
    return {
        "row": asdict(row),
        "fingerprint": fingerprint(row),
        "command": f"python experiments/systems/run.py '{row.name}'",
        "config": to_tree(replace(config, output=Path("run"))),
        "steps": steps,
        "crops": steps * config.batch_size,
        "cpu_seconds": round(seconds, 1),
        "losses": losses,
        "scores": scores,
        "environment": environment(precision=str(restorer.dtype).removeprefix("torch.")),
    }


def main(names: list[str]) -> None:
    """Measure the rows named, or all, that have no file of the same fingerprint."""
    for row in TABLE:
        path = ROWS / f"{row.file}.json"
        if names and row.name not in names:
            continue
        if path.is_file() and json.loads(path.read_text())["fingerprint"] == fingerprint(row):
            print(f"{row.name}: measured already", flush=True)
            continue
        write_atomic(path, json.dumps(measure(row), indent=1) + "\n")
        print(f"{row.name}: wrote {path}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
