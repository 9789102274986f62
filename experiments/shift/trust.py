"""Calibrate the label-free score on the domains that were developed on, and check it on the others.

SSTL_DATA=/path/to/data python experiments/shift/trust.py measure [--only PATTERN ...] [--work FOLDER] [--minutes M]
SSTL_DATA=/path/to/data python experiments/shift/trust.py fit

``measure`` judges the snapshots of some trials that ``run.py`` left in FOLDER on the exam of their domain, without
truth, and notes the true gain beside it, in trust/DOMAIN-SOURCE.json; ``fit`` writes sstl/methods/trust.json and
trust.json.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from domains import Domain, build, reserved
from run import CELLS, TRIALS, configuration, fingerprint
from run import gate as gate_of
from scipy.optimize import nnls
from scipy.stats import spearmanr
from sources import SOURCES, Source

from sstl.data import SourceConfig
from sstl.data.stream import UnpairedStream
from sstl.engine import TrainConfig
from sstl.engine.gate import SEED, Gate
from sstl.methods.trust import CALIBRATION, luma_psnr, measure, restore
from sstl.networks import load_weights
from sstl.ops.files import write_atomic
from sstl.report.environment import environment

FOLDER = Path(__file__).resolve().parent / "trust"
RESULTS = FOLDER.with_suffix(".json")
# Of each measure, the sign of its weight in a score: what rises, or falls, when a restoration becomes better.
SIGNS = {
    "found": 1,
    "matched": 1,
    "cycle": 1,
    "mirror": 1,
    "clean": 1,
    "leftover": -1,
    "leakage": -1,
    "dark": -1,
    "detail": -1,
}
# What scores are the mean of, the first whose measures there are; ``fit`` reports what fitted weights, and others, do.
SCORES = (("found", "matched"), ("found",))
OF_PHOTOS = {"leftover": -1, "dark": -1, "detail": -1}
LEAST = 20  # checkpoints of a domain
NEAR = (0.1, 1.0)  # dB; where it is decided whether to adapt at all
ONE_SIDED = 0.84  # of a normal distribution below its mean plus one standard deviation


class Checkpoint(NamedTuple):
    """A snapshot, its true mean PSNR, and the configuration of the cell that it is of."""

    path: Path
    psnr: float
    cell: str


def checkpoints(domain: Domain, source: Source, work: Path) -> dict[str, Checkpoint]:
    """Return the snapshots of a domain and a source by TRIAL/STEP, the start's first."""
    start = json.loads((CELLS / f"{domain.name}-{source.name}-start.json").read_text())
    found = {"start": Checkpoint(source.path, float(np.mean(start["test"])), start["config"])}
    for name, trial in TRIALS.items():
        file = CELLS / f"{domain.name}-{source.name}-{name}.json"
        folder = work / "cells" / domain.name / source.name / name / "snapshots"
        if not (trial.judged or trial.flattered) or not file.exists() or not folder.exists():
            continue
        cell = json.loads(file.read_text())
        paths = sorted(folder.glob("*.safetensors"))
        true = dict(cell["snapshots"])
        if paths and not trial.gate:  # the last one is what was scored
            true[paths[-1].stem] = float(np.mean(cell["test"]))
        if {path.stem for path in paths} != set(true):
            continue  # of a run that is under way, or was stopped
        found |= {f"{name}/{path.stem}": Checkpoint(path, true[path.stem], cell["config"]) for path in paths}
    return found


def exam_of(domain: Domain, source: Source, work: Path) -> TrainConfig:
    """Return a run whose gate sets the exam of a domain: as the default's does, for one network."""
    config = configuration(domain, source, TRIALS["cautious"], work)
    assert config.gate is not None
    judged = replace(gate_of(domain, source, TRIALS["default"]), matched=config.gate.matched, others=())
    return replace(config, gate=judged)


def measure_domain(domain: Domain, source: Source, work: Path, deadline: float) -> None:
    """Measure the checkpoints that were not measured yet, on the crops that the gate of an adaptation takes."""
    file = FOLDER / f"{domain.name}-{source.name}.json"
    config = exam_of(domain, source, work)
    digest = fingerprint(replace(config, output=Path()), source, domain, work, calibrated=False)
    tree = json.loads(file.read_text()) if file.exists() else {}
    known: dict[str, Any] = tree.get("checkpoints", {})
    places = checkpoints(domain, source, work)
    if tree.get("exam") != digest:
        if len(places) < max(2, len(known)):
            print(
                f"{domain.name}/{source.name}: of {len(known)} checkpoints {len(places)} are left, none measured anew"
            )
            return
        known = {}
    wanted = {
        name: place
        for name, place in places.items()
        if [known.get(name, {}).get(key) for key in ("cell", "psnr")] != [place.cell, place.psnr]
    }
    if not wanted:
        return
    gate = Gate(config, load_weights(source.path).network, torch.device("cpu"))
    assert config.gate is not None
    truth = UnpairedStream((SourceConfig(str(domain.root / "truth")),), config.gate.side, config.seed + SEED, None, 0)
    clean = truth[range(config.gate.crops)].rainy
    for name, place in wanted.items():
        network = load_weights(place.path).network
        with gate.arithmetic():
            found = measure(network, gate.trust.exam)
            of_crops = luma_psnr(restore(network, gate.trust.exam.photos).background, clean)
        values = {key: [round(float(value), 4) for value in column] for key, column in found.items()}
        crops = [round(float(value), 3) for value in of_crops]
        known[name] = {"cell": place.cell, "psnr": place.psnr, "crops": crops, "measures": values}
        write_atomic(file, json.dumps({"exam": digest, "checkpoints": known, "environment": environment()}) + "\n")
        print(f"{domain.name}/{source.name} {name}: {place.psnr:.2f} dB", flush=True)
        if time.monotonic() > deadline:
            return


class Measured:
    """The checkpoints of one domain and source: what changed against the start, and the true gains.

    Args:
        file: of ``measure_domain``.
        flattered: those that were trained on what the score examines, in place of the others.
    """

    def __init__(self, file: Path, flattered: bool = False) -> None:
        tree = json.loads(file.read_text())["checkpoints"]
        self.domain, self.source = file.stem.rsplit("-", 1)
        start = tree.pop("start")
        rest = [entry for name, entry in tree.items() if TRIALS[name.split("/")[0]].flattered == flattered]
        self.gain = np.array([entry["psnr"] - start["psnr"] for entry in rest])
        self.change = {
            key: np.array([entry["measures"][key] for entry in rest]).reshape(-1, len(values)) - np.array(values)
            for key, values in start["measures"].items()
        }  # (checkpoints, crops)
        before = np.array(start["crops"])
        self.crops = np.array([entry["crops"] for entry in rest]).reshape(-1, len(before)) - before

    def weighed(self, weights: dict[str, float]) -> np.ndarray:
        """The weighted sum of what each measure changed, (checkpoints,)."""
        return np.asarray(sum(weight * self.change[name].mean(axis=1) for name, weight in weights.items()))


def calibrated(seen: list[Measured], names: tuple[str, ...]) -> dict[str, float]:
    """Return the weights of measures, fitted to domains that count alike, however much there is to gain in them."""
    spread = {one.domain: one.gain.std() for one in seen}
    columns = {n: np.concatenate([one.change[n].mean(axis=1) / spread[one.domain] for one in seen]) for n in names}
    wanted = np.concatenate([one.gain / spread[one.domain] for one in seen])
    return fitted(columns, wanted, {name: SIGNS[name] for name in names})


def scored(seen: list[Measured], names: tuple[str, ...]) -> dict[str, Any]:
    """Return the score that is the mean of some measures: its scale, and the error of what it predicts."""
    told, gains = ([one.weighed(dict.fromkeys(names, 1 / len(names))) for one in seen], [one.gain for one in seen])
    spread = [gain.std() for gain in gains]
    x, y = (np.concatenate([v / s for v, s in zip(values, spread, strict=True)]) for values in (told, gains))
    scale = float(x @ y / (x @ x))
    predicted, gain = scale * np.concatenate(told), np.concatenate(gains)
    near = (predicted > NEAR[0]) & (predicted < NEAR[1])
    error = max(0.0, float(np.quantile(1 - gain[near] / predicted[near], ONE_SIDED)))
    return {"measures": list(names), "scale": round(scale, 4), "error": round(error, 3)}


def left_out(seen: list[Measured], names: tuple[str, ...]) -> dict[str, float]:
    """Return the rank correlation in each domain by weights that were fitted to the others."""
    found = {}
    for one in seen:
        weights = calibrated([other for other in seen if other is not one], names)
        found[one.domain] = round(float(spearmanr(one.weighed(weights), one.gain).statistic), 3) if weights else 0.0
    return found


def fitted(columns: dict[str, np.ndarray], wanted: np.ndarray, signs: dict[str, int]) -> dict[str, float]:
    """Return weights of the given signs by least squares; what weighs nothing is left out."""
    matrix = np.stack([sign * columns[name] for name, sign in signs.items()], axis=1)
    found, _ = nnls(matrix, wanted)
    return {
        name: round(sign * float(value), 4)
        for (name, sign), value in zip(signs.items(), found, strict=True)
        if value > 1e-3
    }


def fit() -> None:
    """Fit the weights on the developed domains, write them, and report how the prediction fares everywhere."""
    files = [file for file in sorted(FOLDER.glob("*.json")) if "exam" in json.loads(file.read_text())]
    measured = [Measured(file) for file in files]
    developed_on = reserved()["developed_on"]
    seen = [one for one in measured if one.domain in developed_on]
    tried = [("found",), *(("found", name) for name in SIGNS if name != "found")]
    others = {" + ".join(names): left_out(seen, names) for names in tried}
    print(json.dumps(others, indent=1))
    of_crops = {name: np.concatenate([one.change[name].ravel() for one in seen]) for name in OF_PHOTOS}
    calibration = {
        "scores": [scored(seen, names) for names in SCORES],
        "photo_weights": fitted(of_crops, np.concatenate([one.crops.ravel() for one in seen]), OF_PHOTOS),
    }
    rows, score = [], calibration["scores"][0]
    names = dict.fromkeys(score["measures"], score["scale"] / len(score["measures"]))
    for one, file in zip(measured, files, strict=True):
        flattered = Measured(file, flattered=True)
        told, too = one.weighed(names), flattered.weighed(names)
        rows.append(
            {
                "domain": one.domain, "source": one.source, "calibrated_on": one.domain in developed_on,
                "checkpoints": len(told), "gains": [float(one.gain.min()), float(one.gain.max())],
                "spearman": float(spearmanr(told, one.gain).statistic),
                "of_measures": {k: float(spearmanr(v.mean(axis=1), one.gain).statistic) for k, v in one.change.items()},
                "error": float(np.sqrt(np.mean((told - one.gain) ** 2))),
                "points": _points(told, one.gain),
                "flattered": _points(too, flattered.gain),
                "spearman_with_flattered": float(
                    spearmanr(np.concatenate([told, too]), np.concatenate([one.gain, flattered.gain])).statistic
                ),
            }
        )  # fmt: skip
    for name, untouched in (("developed on", False), ("untouched", True)):
        own = [row for row in rows if row["calibrated_on"] != untouched and row["checkpoints"] >= LEAST]
        if own:
            print(f"{name}: median within-domain Spearman {np.median([row['spearman'] for row in own]):.3f}")
    for row in rows:
        print({key: value for key, value in row.items() if key not in ("points", "flattered")})
    print(calibration)
    write_atomic(CALIBRATION, json.dumps(calibration, indent=1) + "\n")
    write_atomic(
        RESULTS,
        json.dumps({"calibration": calibration, "left_out": others, "rows": rows, "environment": environment()}) + "\n",
    )


def _points(told: np.ndarray, gain: np.ndarray) -> list[list[float]]:
    return [[round(float(a), 3), round(float(b), 3)] for a, b in zip(told, gain, strict=True)]


def main() -> None:
    """Measure or fit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("measure", "fit"))
    parser.add_argument("--only", nargs="+", default=["*"], metavar="PATTERN", help="of DOMAIN/SOURCE")
    parser.add_argument("--work", type=Path, default=Path("runs/shift"))
    parser.add_argument("--minutes", type=float, default=float("inf"))
    args = parser.parse_args()
    if args.what == "fit":
        fit()
        return
    FOLDER.mkdir(exist_ok=True)
    work = args.work.resolve()
    for domain in build(work / "domains"):
        for source in SOURCES[:1]:  # on which all trials run that are judged
            if any(fnmatch(f"{domain.name}/{source.name}", pattern) for pattern in args.only):
                measure_domain(domain, source, work, time.monotonic() + 60 * args.minutes)


if __name__ == "__main__":
    main()
