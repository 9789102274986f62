"""Adaptation to unlabelled photos from start to page: check the photos, train under a gate, compare, explain."""

from __future__ import annotations

import filecmp
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import yaml
from tqdm import tqdm

from sstl.config import load_config, to_tree
from sstl.data import ImageSource, PairSource, SourceConfig, open_images
from sstl.data.images import list_images, read_rgb8
from sstl.data.matching import SIDE, draw_crops, match_photos, recipe_yaml
from sstl.data.stream import PairedPart
from sstl.engine import (
    DataConfig,
    GateConfig,
    Interrupted,
    MethodConfig,
    NetworkConfig,
    OptimizerConfig,
    TrainConfig,
    build_network,
    check_output,
    clear_run,
    learn_routes,
    only_run,
    read_log,
    train,
)
from sstl.errors import ConfigError, InputError
from sstl.methods import create_method
from sstl.methods.trust import rain_seen, unseen
from sstl.networks import load_weights, save_weights
from sstl.networks.joint import Size
from sstl.networks.weights import DEFAULT, SHIPPED, read_info
from sstl.ops.files import read_json, write_atomic
from sstl.rain import load_recipe, mean_streak, streaks_alone
from sstl.report.adaptation_page import RAIN, adaptation_page
from sstl.report.findings import Outcome, measure
from sstl.report.page import PAGE, write_page
from sstl.restore import load
from sstl.restore.folder import place

DECODED = 300  # up to so many photos are all decoded before training, so that a damaged one is known at once
MATCHED = 0.1  # see experiments/shift
# What the shipped weights for general use were trained on: most of it would be forgotten unseen.
KNOWN = ("light", "rain100l_like", "rain100h_like", "heavy", "veil", "mixed", "real_mix")
DRY = 0.05  # share of the pixels with rain below which photos count as dry; see experiments/dry
LOOKED_AT = 48  # crops, to see how much of their rain is seen
LEAST_CLEAN = 20  # photographs, for a router to learn what others than the photos look like
LEAST_ALIKE = 0.25  # share of the photos that a router must recognise: of all, one network without it learns as much
MIST = "mist"  # a third of what a router learns others from: else it takes misty photographs for rain behind a veil
# What the method ``default`` does where a router keeps the start: streak transfer at its full weight, everything behind
# the photos' veil, and half as much of labelled pairs, which wear matched rain in so far as the start sees none; see
# ``boldly_matched`` and experiments/shift.
BOLD = {"dry": 0.2, "supervised": 0.5, "transfer": 1.0, "balance": 0.01, "veil": 1.0, "veiled": True}
FIGURES = "figures.json"
Failures = dict[Path, str]


@dataclass(frozen=True)
class Adaptation:
    """What an adaptation made.

    Attributes:
        weights: the adapted weights.
        report: the page.
        figures: measure -> {"before": value, "after": value}; see ``sstl.report.findings.MEASURES``.
        outcome: what the gate said.
        failures: photos that could not be read, and why.
    """

    weights: Path
    report: Path
    figures: dict[str, dict[str, float]]
    outcome: Outcome
    failures: Failures


def adapt(
    photos: str | Path,
    output: str | Path,
    weights: str | Path = DEFAULT,
    method: str = "default",
    steps: int = 300,
    minutes: float | None = None,
    *,
    gate: bool = True,
    clean: str | Path = "bundled",
    held_out: str | Path = "bundled",
    recipe: str = "streaks",
    known: Sequence[str] | None = None,
    matched: float | None = None,
    routed: bool | None = None,
    options: Mapping[str, Any] | None = None,
    learning_rate: float = 5e-5,
    seed: int = 0,
    truth: PairSource | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> Adaptation:
    """Adapt weights to a folder of rainy photos without ground truth, and write a page about it.

    Writes ``weights.safetensors``, ``log.jsonl``, ``config.yaml``, ``rain.yaml`` (the streaks that were matched to the
    photos), ``checkpoints/`` and ``report.html`` into ``output``. The supervised branch, which prevents forgetting,
    rains on clean photographs. The gate judges the network every fifty steps without truth, and the best that neither
    forgets any rain that the start knows nor harms clean photographs nor finds much more rain than there is is kept; if
    none is better than the start by more than the judgement's own error, or if the photos hold no rain to speak of, the
    weights that are written are the start's, and the page says so.

    Args:
        photos: the folder of rainy photos.
        output: the run's folder.
        weights: where to start: a shipped name or a file.
        method: a method that uses unlabelled photos, or ``supervised`` as the control.
        steps: optimiser steps, if ``minutes`` is None.
        minutes: train for about so long: the pace is measured first and the number of steps follows from it.
        gate: judge and choose; without, the last weights are written whatever they are.
        clean: a folder of clean photographs for the supervised branch; ``bundled`` is three of scikit-image's.
        held_out: a folder of clean photographs that the gate judges on, with none of ``clean``; ``bundled`` is two
            others of scikit-image's.
        recipe: the rain that is rendered on both, by default without a veil: rehearsed on few photographs, a veil
            teaches a network to darken whatever is not among them.
        known: recipes of more rain that the weights know, none of which they may lose for the photos' sake: by default
            ``KNOWN`` for the shipped weights for general use, and none for others.
        matched: share of the clean photographs that wear rain of the photos' kind instead, which is matched to them
            (``rain.yaml`` in ``output``); 0 matches nothing. By default a tenth, if ``routed`` what ``boldly_matched``
            says, and none for the control. The gate judges on it, too (``gate.matched``), and takes from it how much
            rain there is (``gate.light``); with 0 it does neither.
        routed: keep the start beside the adapted network, for images that do not look like the photos; then nothing of
            what is learned is given back for their sake (``sstl.networks.routed``). What others look like is learned
            from ``clean``, which must be a folder of ``LEAST_CLEAN`` photographs or more: of a few, the router would
            learn the photographs. The method ``default`` then learns with the options ``BOLD``. By default, where that
            method has a gate and so many photographs, and the weights are not the shipped ones for general use: those
            see much of most rain, and what they learned of it so boldly from real photos took thin bright things along.
        options: options of the method.
        learning_rate: of AdamW; a twentieth of a training's from scratch.
        seed: of everything random.
        truth: pairs of the target domain to report the true gain on, where they exist; never used in training.
        resume: go on with an interrupted run.
        overwrite: replace a run in ``output``.

    Raises:
        ConfigError: the folder holds no photo, or an option does not fit.
        InputError: no photo can be read.
    """
    photos, output = Path(photos), Path(output)
    usable, failures = check_photos(photos)
    info = read_info(weights)
    # As it is written into the run's folder, which may be looked at from elsewhere.
    start = str(Path(weights).resolve()) if Path(weights).exists() else str(weights)
    check_folders(photos, output, clean, held_out)
    general = for_general_use(info["path"])
    if routed:
        check_router(clean, gate)
    try:
        optimizer = OptimizerConfig(lr=learning_rate, warmup_steps=20, final=0.1)
        config = TrainConfig(
            output=output,
            network=NetworkConfig(info["network"], info["config"], start),
            method=MethodConfig(method, dict(options or {})),
            data=DataConfig(
                paired=(_rained_on(clean, "train", recipe),),
                unpaired=(SourceConfig(str(photos.resolve())),),
                crop=160,  # at crops of 96 pixels the shipped weights unlearn what lies beyond
                workers=0,
            ),
            # A short decay: the averaged weights must have left the start behind by the end of a few hundred steps.
            ema_decay=0.98,
            optimizer=optimizer,
            steps=steps,
            batch_size=4,
            seed=seed,
            checkpoint_every=100,
            log_every=10,
            picture_every=0,
        )
    except ValueError as error:
        raise ConfigError(str(error)) from None
    # Before anything is looked for or written, what would stop the training.
    check_output(output, resume, overwrite, start)
    if matched is None and method == "supervised":
        matched = 0.0
    if matched is not None and not 0 <= matched <= 1:
        raise ConfigError(f"'matched' is {matched}; give a share between 0 and 1.")
    if known is None:
        known = KNOWN if general else ()
    create_method(method, build_network(config.network), **config.method.options)
    for name in (recipe, *known):
        load_recipe(name)
    judged = _judged_on(held_out, (recipe, *known), clean)
    for part in (*config.data.paired, *judged.paired):
        open_images(part, "clean")
    found = rain_cover(open_images(config.data.unpaired[0], "rainy"), seed) if gate else None
    dry = found is not None and found < DRY
    alike: dict[str, Any] = {}
    if routed is None:
        routed = method == "default" and gate and not general and clear_photographs(clean) >= LEAST_CLEAN
        if routed and not dry and (share := learn_routes(replace(config, gate=judged))["photos"]) < LEAST_ALIKE:
            routed, alike = False, {"recognised": share, "alike": True}
    if routed and method == "default":
        config = replace(config, method=MethodConfig(method, {**BOLD, **config.method.options}))
    if not routed:
        judged = replace(judged, others=())
        matched = MATCHED if matched is None else matched
    with only_run(output):
        if not resume:
            for name in (FIGURES, RAIN, PAGE):  # of a run that is replaced
                (output / name).unlink(missing_ok=True)
        if dry:
            adapted = _nothing_to_do(config)
        else:
            config, light = _with_matched_rain(config, matched, resume)
            judged = replace(judged, light=light or None, matched=None if light is None else str(rain_of(config)))
    if not dry:
        if minutes is not None:
            began = output / "config.yaml"  # a run that is resumed has as many steps as it was to have
            steps = load_config(TrainConfig, began).steps if resume else steps_for(minutes, config)
            config = replace(config, steps=steps)
        adapted = train(replace(config, gate=judged if gate else None), resume=resume, overwrite=overwrite)
    outcome = replace(Outcome.of(adapted, len(usable), found), **alike)
    figures = measure(weights, adapted, usable, truth)
    write_atomic(output / FIGURES, json.dumps({"outcome": vars(outcome), "figures": figures}, indent=1) + "\n")
    return Adaptation(adapted, report_run(output), figures, outcome, failures)


def report_run(run: str | Path) -> Path:
    """Write (again) ``report.html`` of an adaptation from what its folder holds, and return its path.

    Raises:
        ConfigError: ``run`` is not the folder of a finished adaptation, or its photos are gone.
    """
    run = Path(run)
    if not (run / FIGURES).is_file():
        raise ConfigError(f"{run} holds no {FIGURES}; give the folder of a finished 'sstl adapt'.")
    config = load_config(TrainConfig, run / "config.yaml")
    figures, outcome = read_json(run / FIGURES, lambda tree: (tree["figures"], Outcome(**tree["outcome"])))
    usable, failures = check_photos(Path(config.data.unpaired[0].path))
    source, adapted = load(config.network.weights or DEFAULT), load(run / "weights.safetensors")
    return write_page(run / PAGE, adaptation_page(config, run, usable, failures, figures, outcome, source, adapted))


def check_folders(photos: Path, output: Path, clean: str | Path, held_out: str | Path) -> None:
    """Refuse folders that must not be what they are: ConfigError.

    The run's folder must not hold the photos, because to undo an adaptation is to remove it; and nothing may be judged
    on photographs that are trained on.
    """
    if place(output) in {place(folder) for folder in (photos, *photos.resolve().parents)}:
        raise ConfigError(f"{output} holds the photos; give a folder of its own to write into.")
    if "bundled" not in (str(clean), str(held_out)) and Path(clean).is_dir() and Path(held_out).is_dir():
        trained = {place(path) for path in list_images(clean)}
        if shared := [path for path in list_images(held_out) if place(path) in trained]:
            raise ConfigError(f"{shared[0]} is in --clean and in --held-out; what is judged on must not be trained on.")


def clear_photographs(clean: str | Path) -> int:
    """Return how many photographs of its own ``clean`` holds; bundled ones do not count."""
    return len(list_images(clean)) if str(clean) != "bundled" and Path(clean).is_dir() else 0


def for_general_use(path: str | Path) -> bool:
    """Whether a file holds the shipped weights for general use, under whatever name."""
    return any(filecmp.cmp(path, SHIPPED / f"joint-{size}.safetensors", shallow=False) for size in get_args(Size))


def check_router(clean: str | Path, gate: bool) -> None:
    """Refuse a router that nobody judges, or that has too few photographs to learn from: ConfigError."""
    if not gate:
        raise ConfigError("a router is taught and judged by the gate; leave out --no-gate, or --routed.")
    if clear_photographs(clean) < LEAST_CLEAN:
        raise ConfigError(
            f"--clean {clean}: --routed learns from at least {LEAST_CLEAN} clear photographs what does not look like "
            "your photos; give a folder of them."
        )


def check_photos(folder: Path) -> tuple[list[Path], Failures]:
    """Return the photos of a folder that can be read, and the others with the reason.

    Only the first ``DECODED`` are decoded; of a larger folder the rest are taken on trust, and training leaves out what
    it cannot read.

    Raises:
        ConfigError: the folder is missing or holds no image.
        InputError: none of the photos can be read.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder; give a folder of rainy photos.")
    photos, failures = list_images(folder), {}
    if not photos:
        raise ConfigError(f"{folder} holds no image; give a folder of rainy photos.")
    for photo in tqdm(photos[:DECODED], desc="check photos", unit="photo", leave=False):
        try:
            read_rgb8(photo)
        except InputError as error:
            failures[photo] = str(error)
    usable = [photo for photo in photos if photo not in failures]
    if not usable:
        raise InputError(f"{folder}: none of its {len(photos)} photos can be read; the first: {failures[photos[0]]}")
    return usable, failures


def rain_cover(photos: ImageSource, seed: int) -> float:
    """Return the share of the pixels that hold rain, over crops of photos, in [0, 1].

    As the shipped weights see it, whatever is adapted: a start that is blind to the photos' rain must learn it.
    """
    crops = draw_crops(photos, LOOKED_AT, SIDE, seed)
    found = rain_seen(load_weights(DEFAULT).network, crops)
    return float((found > 0).float().mean())


def rain_of(config: TrainConfig) -> Path:
    """Return where a run keeps the streaks that were matched to its photos."""
    return config.output.resolve() / RAIN


def matched_rain(config: TrainConfig, resume: bool = False) -> str:
    """Match rain to the photos of a run, its streaks alone, write it as ``rain.yaml`` into the run's folder.

    A resumed run keeps what it has. Returns the path.
    """
    path = rain_of(config)
    if not (resume and path.exists()):
        photos = open_images(config.data.unpaired[0], "rainy")
        found = match_photos(photos, open_images(config.data.paired[0], "clean"), seed=config.seed, progress=True)
        about = f"Streaks that were matched to the photos in {Path(config.data.unpaired[0].path).name}."
        write_atomic(path, recipe_yaml(streaks_alone(found.recipe), about))
    return str(path)


def light_of(rain: str | Path, clean: ImageSource, seed: int) -> float:
    """Return the mean streak of a recipe of matched rain, in [0, 1]: as much as there is in the photos.

    Args:
        rain: the recipe.
        clean: images to render it on.
        seed: of the crops that are rendered on.
    """
    return round(mean_streak(load_recipe(rain), draw_crops(clean, LOOKED_AT, SIDE, seed), seed), 4)


def boldly_matched(weights: str | Path, photos: ImageSource, light: float, seed: int) -> float:
    """Return the share of clean images that is to wear matched rain where a router keeps the start, in [0, 1].

    It is what the start does not see of the photos' rain. What it sees is transferred, and the photos' own streaks are
    better than rendered ones; the rest of the clean images wears rain that is rehearsed, lest texture pass for rain.

    Args:
        weights: the start.
        photos: the rainy photos.
        light: see ``light_of``.
        seed: of the crops that are looked at.
    """
    crops = draw_crops(photos, LOOKED_AT, SIDE, seed)
    return round(unseen(load_weights(weights).network, crops, light), 2)


def _with_matched_rain(config: TrainConfig, share: float | None, resume: bool) -> tuple[TrainConfig, float | None]:
    """Lay matched rain on a share of the clean photographs, by default that of ``boldly_matched``.

    Returns the run and how much of that rain there is, see ``light_of``; None if nothing is matched.
    """
    if share == 0:
        return config, None
    rain, (clean,) = matched_rain(config, resume), config.data.paired
    light = light_of(rain, open_images(clean, "clean"), config.seed)
    if share is None:
        photos = open_images(config.data.unpaired[0], "rainy")
        share = boldly_matched(str(config.network.weights), photos, light, config.seed)
    parts = (replace(clean, weight=1 - share), replace(clean, recipe=rain, weight=share)) if share else (clean,)
    return replace(config, data=replace(config.data, paired=parts)), light


def _judged_on(held_out: str | Path, recipes: Sequence[str], clean: str | Path) -> GateConfig:
    """Return a gate that judges on photographs that are not trained on: of three, a network may learn the photographs.

    The rain is found by the shipped weights, because a start may be blind to the rain that it must learn.

    Args:
        held_out: those photographs.
        recipes: the rain that is rehearsed, then more that must not be lost.
        clean: clear photographs, from which a router learns what others than the photos look like.
    """
    judged, *known = (_rained_on(held_out, "dev", recipe) for recipe in recipes)
    others = [_rained_on(clean, "train", recipe) for recipe in recipes]
    others.append(_rained_on(clean, "train", MIST, len(recipes) / 2))
    return GateConfig(paired=(judged,), known=tuple(known), finder=DEFAULT, others=tuple(others))


def _nothing_to_do(config: TrainConfig) -> Path:
    """Write the run of an adaptation to dry photos: its configuration, and the start's weights as they are."""
    start = load_weights(str(config.network.weights))
    clear_run(config.output)
    weights = config.output / "weights.safetensors"
    (config.output / "log.jsonl").unlink(missing_ok=True)
    write_atomic(config.output / "config.yaml", yaml.safe_dump(to_tree(replace(config, steps=1)), sort_keys=False))
    # Of a start that was itself adapted, what its own gate said would be told of these photos.
    return save_weights(weights, start.network, {key: said for key, said in start.info.items() if key != "trust"})


def steps_for(minutes: float, config: TrainConfig, timed: int = 8) -> int:
    """Return how many steps fit into ``minutes``, by timing a few in a temporary folder."""
    if not 0 < minutes < math.inf:
        raise ConfigError(f"--minutes is {minutes}; it must be positive.")
    with TemporaryDirectory() as folder:
        trial = replace(config, output=Path(folder), steps=timed, log_every=1, validation=None)
        try:
            train(trial)
        except Interrupted as stop:
            raise Interrupted("stopped; nothing was done yet.", stop.exit_code - 128, resumable=False) from None
        seconds = [line["seconds"] for line in read_log(Path(folder) / "log.jsonl") if "seconds" in line]
    # The first steps warm caches up and are not counted; the log's clock leaves out what is done between the steps.
    pace = max((seconds[-1] - seconds[2]) / (len(seconds) - 3), 1e-3)
    return max(10, int(60 * minutes / pace))


def _rained_on(clean: str | Path, split: str, recipe: str, weight: float = 1.0) -> PairedPart:
    """A recipe's rain on the photographs of a folder, or on those of a split of the bundled ones."""
    if str(clean) == "bundled":
        return PairedPart("bundled", split=split, recipe=recipe, weight=weight)
    return PairedPart(str(Path(clean).resolve()), recipe=recipe, weight=weight)
