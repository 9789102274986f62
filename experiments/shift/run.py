"""Adapt every source to every target domain by every method, score against the truth, keep one file a cell.

SSTL_DATA=/path/to/data python experiments/shift/run.py [--only PATTERN ...] [--judged] [--work FOLDER] [--minutes M]

A cell, DOMAIN/SOURCE/TRIAL, whose configuration was measured already is skipped, so the suite can be run in several
sittings; PATTERN (as veil/*/control) chooses, and after M minutes no new cell is begun. ``table.py`` draws the tables.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from domains import Domain, build, definition
from sources import PACKAGE, SOURCES, Source, anchor

from sstl.cli.output import defaults
from sstl.config import to_tree
from sstl.data import PairSource, SourceConfig, open_images, open_pairs
from sstl.data.matching import match_photos, recipe_yaml
from sstl.data.stream import PairedPart
from sstl.engine import (
    DataConfig,
    GateConfig,
    MethodConfig,
    NetworkConfig,
    OptimizerConfig,
    TrainConfig,
    learn_routes,
    train,
)
from sstl.methods import METHODS
from sstl.methods.trust import CALIBRATION
from sstl.metrics import matlab_luma, psnr
from sstl.networks import load_weights
from sstl.ops.files import write_atomic
from sstl.rain import load_recipe, streaks_alone
from sstl.report.adaptation import BOLD, KNOWN, LEAST_ALIKE, MATCHED, MIST, boldly_matched, light_of
from sstl.report.environment import environment
from sstl.restore import Restorer, load

CELLS = Path(__file__).resolve().parent / "cells"
STEPS, SNAPSHOTS, SEED = 200, 50, 3
IMAGES = 12  # development pairs and clean photographs on which forgetting and harm are measured
# What the gates judge on, as in ``sstl adapt``: rain like the sources' on photographs that nothing is trained on.
LIKE_SOURCES = ("rain100l_like", "light")
# What the package's weights know besides, and what only they could forget.
KNOWN_TO_PACKAGE = tuple(PairedPart("bundled", recipe=recipe) for recipe in KNOWN)
CAP = 60.0  # dB that an untouched photograph counts


@dataclass(frozen=True)
class Trial:
    """A way to adapt: a method with options, and the rain that its supervised branch sees beside the anchor's.

    Attributes:
        rain: "" (the anchor's alone), "any" (the wide prior), "matched" (streaks fitted to the photos), "truth" (the
            oracle), or what is wrong on purpose, so that the label-free score has something to find: "photos" (the
            photos are taken for their own truth: remove nothing) and "smooth" (their truth, blurred).
        share: how much of the labelled images wear that rain; None leaves it to ``boldly_matched``.
        options: of the method.
        everywhere: run it on all sources, not on joint alone.
        shipped: run it on the weights of the package, too.
        gate: judge without truth and choose, as ``sstl adapt`` does.
        matched: judge on the matched streaks, too.
        held_out: judge on dry photographs of the domain, not on bundled ones.
        routed: keep the start beside the adapted network, for images that do not look like the photos.
        judged: the label-free score is calibrated and checked on its snapshots.
        flattered: the score is checked on its snapshots, too, but not calibrated: it trains on what the score examines.
    """

    method: str = "supervised"
    rain: str = ""
    share: float | None = 0.6
    options: dict[str, Any] = field(default_factory=dict)
    everywhere: bool = False
    gate: bool = False
    matched: bool = True
    held_out: bool = False
    routed: bool = False
    judged: bool = False
    flattered: bool = False
    shipped: bool = False

    @property
    def sources(self) -> tuple[Source, ...]:
        """Where it starts from."""
        return (SOURCES if self.everywhere else SOURCES[:1]) + (PACKAGE,) * self.shipped


# ``sstl adapt`` from weights of one's own, with clear photographs.
DEFAULT = Trial("default", "matched", share=None, options=BOLD, gate=True, held_out=True, routed=True)
TRIALS = {
    "control": Trial(everywhere=True, judged=True, shipped=True),
    "oracle": Trial(rain="truth", everywhere=True, judged=True, shipped=True),
    "default": replace(DEFAULT, everywhere=True, flattered=True, shipped=True),
    # ``sstl adapt`` without them, or from the shipped weights: one network, which must keep what it knew.
    "cautious": Trial("default", "matched", share=MATCHED, gate=True, everywhere=True, shipped=True),
    "streak_transfer": Trial("streak_transfer", judged=True),
    "collapsed": Trial(rain="photos", judged=True),
    "smoothed": Trial(rain="smooth", judged=True),
    "mean_teacher": Trial("mean_teacher"),
    "sirr": Trial("sirr", everywhere=True),
    "matched": Trial(rain="matched"),
    "any": Trial(rain="any", judged=True),
    "best_so_far": Trial("best_so_far"),
    "sirr_released": Trial("sirr_released"),
    "syn2real": Trial("syn2real"),
    "adabn": Trial("adabn", everywhere=True),
    "entropy": Trial("entropy"),
    "consistency": Trial("consistency"),
    "without_router": replace(DEFAULT, routed=False),
    "without_exam": replace(DEFAULT, matched=False),
    "without_matching": replace(DEFAULT, rain="", everywhere=True),
    "without_transfer": replace(DEFAULT, options={**BOLD, "transfer": 0.0}),
    "without_veil": replace(DEFAULT, options={**BOLD, "veil": 0.0}),
    "without_dry": replace(DEFAULT, options={**BOLD, "dry": 0.0}),
    "without_veiled": replace(DEFAULT, options={**BOLD, "veiled": False}),
    "without_rehearsal": replace(DEFAULT, share=1.0),  # matched rain on all labelled pairs
}


def configuration(domain: Domain, source: Source, trial: Trial, output: Path) -> TrainConfig:
    """Return the training of a cell: the same steps, crops and learning rate for all trials of a source."""
    if trial.routed and recognised(domain) < LEAST_ALIKE:
        trial = TRIALS["cautious"]  # as ``sstl adapt`` does
    rain, light = None, None
    share = trial.share if trial.rain else 0.0
    if trial.rain == "matched":
        rain = str(matched(domain))
        light = light_of(rain, open_images(SourceConfig("manifest.csv", split="train"), "clean"), SEED)
    if share is None:
        assert light is not None
        share = boldly_matched(
            source.path, open_images(SourceConfig(str(domain.root / "photos")), "rainy"), light, SEED
        )
    parts, judged = anchor(1 - share), gate(domain, source, trial)
    if trial.rain in ("truth", "photos", "smooth"):
        parts += (PairedPart(str(domain.root), rainy="photos", clean=trial.rain, weight=share),)
    elif trial.rain:
        parts += (PairedPart("manifest.csv", split="train", recipe=rain or trial.rain, weight=share),)
    return TrainConfig(
        output=output,
        network=NetworkConfig(source.network, source.options, str(source.path)),
        method=MethodConfig(trial.method, trial.options),
        data=DataConfig(parts, (SourceConfig(str(domain.root / "photos")),), crop=source.crop),
        optimizer=OptimizerConfig(lr=source.lr, warmup_steps=10, final=0.1),
        steps=STEPS,
        batch_size=source.batch,
        ema_decay=0.97,
        gate=replace(judged, light=light or None, matched=rain if trial.matched else None) if trial.gate else None,
        seed=SEED,
        checkpoint_every=STEPS,
        picture_every=0,
        snapshot_every=SNAPSHOTS,
    )


def gate(domain: Domain, source: Source, trial: Trial) -> GateConfig:
    """Return the gate of a cell."""
    dry = str(domain.root / "held-out") if trial.held_out else "bundled"
    paired = tuple(PairedPart(dry, recipe=recipe) for recipe in LIKE_SOURCES)
    beside = tuple(PairedPart(str(domain.root / "beside"), recipe=recipe, weight=0.5) for recipe in LIKE_SOURCES)
    others = (*anchor(), *beside, PairedPart(beside[0].path, recipe=MIST)) if trial.routed else ()
    return GateConfig(paired=paired, known=() if source.steps else KNOWN_TO_PACKAGE, others=others)


@cache
def recognised(domain: Domain) -> float:
    """Return the share of a domain's photos that a router recognises, whatever the source."""
    source = SOURCES[0]
    network = NetworkConfig(source.network, source.options, str(source.path))
    data = DataConfig(anchor(), (SourceConfig(str(domain.root / "photos")),))
    judged = gate(domain, source, DEFAULT)
    return learn_routes(TrainConfig(output=Path(), network=network, data=data, gate=judged, seed=SEED))["photos"]


def matched(domain: Domain) -> Path:
    """Return the streaks that were matched to a domain's photos; match them if that was not done yet."""
    path = domain.root / "streaks.yaml"
    if not path.exists():
        started = time.process_time()
        photos = open_images(SourceConfig(str(domain.root / "photos")), "rainy")
        found = match_photos(photos, open_images(SourceConfig("manifest.csv", split="train"), "clean"))
        seconds = time.process_time() - started
        write_atomic(path.with_name("match.json"), json.dumps({**vars(found), "recipe": None, "seconds": seconds}))
        about = f"Streaks matched to the photos of the domain {domain.name}."
        write_atomic(path, recipe_yaml(streaks_alone(found.recipe), about))
    return path


def scores(restorer: Restorer, pairs: PairSource, most: int | None = None) -> list[float]:
    """Return the luma PSNR of every image."""
    found = []
    for i in range(min(len(pairs), most or len(pairs))):
        rainy, clean = pairs.load(i)
        found.append(psnr(matlab_luma(restorer.restore(rainy)), matlab_luma(clean)))
    return found


def harm(restorer: Restorer) -> float:
    """Return the mean RGB PSNR of clean photographs' restorations against themselves, each capped."""
    photographs = open_images(SourceConfig("manifest.csv", split="dev"), "clean")
    images = [photographs.load(i) for i in range(IMAGES)]
    return float(np.mean([min(psnr(restorer.restore(image), image), CAP) for image in images]))


def all_scores(weights: Path, domain: Domain) -> dict[str, Any]:
    """Return the scores of weights: per test image, on the source's development pairs, on clean photographs."""
    restorer = load(weights)
    tests = open_pairs(SourceConfig(str(domain.root / "test"), rainy="rainy", clean="clean"))
    source = open_pairs(SourceConfig("manifest.csv", split="dev", set="rain100l"))
    return {
        "test": scores(restorer, tests),
        "source_psnr": float(np.mean(scores(restorer, source, IMAGES))),
        "clean_psnr": harm(restorer),
    }


def fingerprint(config: TrainConfig, source: Source, domain: Domain, work: Path, calibrated: bool = True) -> str:
    """Return a hash of all that a cell follows from, but the code and the data.

    That is its training with every option of the method, the recipes that it and its gate name, the score, if it is
    ``calibrated`` and has a say, the domain, and the weights of its start.
    """
    settings = to_tree(config)
    settings["method"]["options"] = defaults(METHODS[config.method.name]) | settings["method"]["options"]
    parts, names = config.data.paired, []
    if config.gate is not None:
        parts += config.gate.paired + config.gate.known + config.gate.others
        names.append(config.gate.matched)
    names += [part.recipe for part in parts]
    recipes = [to_tree(load_recipe(name)) for name in names if name]
    judges = calibrated and (config.gate is not None or config.method.name == "best_so_far")
    calibration = json.loads(CALIBRATION.read_text(encoding="utf-8")) if judges else {}
    tree = [settings, recipes, calibration, definition(domain), sha256(source.path.read_bytes()).hexdigest()]
    return _digest(json.dumps(tree, sort_keys=True).replace(str(work), "").replace(str(source.path.parent), ""))


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:16]


def run_cell(domain: Domain, source: Source, name: str, work: Path) -> bool:
    """Train and score a cell unless it is there; return whether it had to be run."""
    trial = TRIALS[name]
    output = work / "cells" / domain.name / source.name / name
    config = configuration(domain, source, trial, output)
    digest = fingerprint(replace(config, output=Path(name)), source, domain, work)
    file = CELLS / f"{domain.name}-{source.name}-{name}.json"
    if file.exists() and json.loads(file.read_text())["config"] == digest:
        return False
    started, used = time.perf_counter(), time.process_time()
    weights = train(config, overwrite=True)
    minutes, processor = (time.perf_counter() - started) / 60, (time.process_time() - used) / 60
    snapshots = sorted((output / "snapshots").glob("*.safetensors")) if trial.gate or trial.judged else []
    tests = open_pairs(SourceConfig(str(domain.root / "test"), rainy="rainy", clean="clean"))
    cell = {
        "domain": domain.name, "source": source.name, "trial": name, "config": digest, "seed": SEED,
        "steps": STEPS, "minutes": round(minutes, 2), "processor_minutes": round(processor, 2),
        **all_scores(weights, domain), "trust": load_weights(weights).info.get("trust"),
        # Without a gate the last one is what was scored.
        "snapshots": {
            path.stem: float(np.mean(scores(load(path), tests))) for path in snapshots[: None if trial.gate else -1]
        },
        "environment": environment(),
    }  # fmt: skip
    CELLS.mkdir(exist_ok=True)
    write_atomic(file, json.dumps(cell, indent=1) + "\n")
    print(f"{domain.name}/{source.name}/{name}: {np.mean(cell['test']):.2f} dB in {minutes:.1f} minutes", flush=True)
    return True


def run_start(domain: Domain, source: Source) -> None:
    """Score the source as it is, and the rainy input."""
    file = CELLS / f"{domain.name}-{source.name}-start.json"
    digest = _digest(json.dumps([definition(domain), sha256(source.path.read_bytes()).hexdigest()], sort_keys=True))
    if file.exists() and json.loads(file.read_text())["config"] == digest:
        return
    tests = open_pairs(SourceConfig(str(domain.root / "test"), rainy="rainy", clean="clean"))
    given = [psnr(*(matlab_luma(image) for image in tests.load(i))) for i in range(len(tests))]
    cell = {
        "domain": domain.name, "source": source.name, "trial": "start", "config": digest, "input": given,
        **all_scores(source.path, domain), "environment": environment(),
    }  # fmt: skip
    CELLS.mkdir(exist_ok=True)
    write_atomic(file, json.dumps(cell, indent=1) + "\n")
    print(f"{domain.name}/{source.name}: input {np.mean(given):.2f}, start {np.mean(cell['test']):.2f} dB", flush=True)


def main() -> None:
    """Run what is chosen and not there yet, the cheap and telling cells first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", default=["*"], metavar="PATTERN")
    parser.add_argument("--judged", action="store_true", help="only trials that the score is calibrated on")
    parser.add_argument("--work", type=Path, default=Path("runs/shift"))
    parser.add_argument("--minutes", type=float, default=float("inf"))
    args = parser.parse_args()
    deadline = time.monotonic() + 60 * args.minutes
    work = args.work.resolve()
    domains = build(work / "domains")
    for name, trial in TRIALS.items():
        if args.judged and not trial.judged:
            continue
        for source in trial.sources:
            for domain in domains:
                path = f"{domain.name}/{source.name}/{name}"
                if not any(fnmatch(path, pattern) for pattern in args.only):
                    continue
                run_start(domain, source)
                if time.monotonic() > deadline:
                    return
                run_cell(domain, source, name, work)


if __name__ == "__main__":
    main()
