"""The configuration of a training run: what its YAML file may say."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sstl.data import SourceConfig
from sstl.data.stream import PairedPart
from sstl.ops.precision import Precision


@dataclass(frozen=True)
class NetworkConfig:
    """A network by name and options, with fresh weights or those of ``weights`` (a shipped name or a file)."""

    name: str = "joint"
    options: dict[str, Any] = field(default_factory=dict)
    weights: str | None = None


@dataclass(frozen=True)
class MethodConfig:
    """A training method by name and options."""

    name: str = "supervised"
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DataConfig:
    """Training data.

    Attributes:
        paired: the labelled parts; required.
        unpaired: unlabelled rainy photos, for methods that use them.
        crop: side of the training crops in pixels.
        root: what relative paths are relative to; by default the variable SSTL_DATA, else the working directory.
        cache_gb: decoded images to keep in the temporary folder, mapped into memory and shared by the workers, in
            gigabytes, for the paired and again for the unpaired branch (of each process of a launch on several).
        workers: processes that load ahead; 0 loads in the training process.
    """

    paired: tuple[PairedPart, ...]
    unpaired: tuple[SourceConfig, ...] = ()
    crop: int = 96
    root: Path | None = None
    cache_gb: float = 2.0
    workers: int = 1

    def __post_init__(self) -> None:
        """Refuse what cannot be (ValueError)."""
        if self.workers < 0 or not 0 <= self.cache_gb < 1e6:
            raise ValueError(f"'workers' is {self.workers} and 'cache_gb' {self.cache_gb}; neither may be negative.")


@dataclass(frozen=True)
class OptimizerConfig:
    """An optimiser of timm by name, its learning rate, and its schedule with linear warm-up.

    Attributes:
        momentum: of SGD; timm calls SGD with plain momentum ``momentum``, with Nesterov's ``sgd``.
        betas: of Adam and its kin; None are the optimiser's own.
        clip_norm: gradients are scaled down to this global norm; None leaves them.
        schedule: ``cosine`` falls to ``final`` at the last step; ``steps`` multiplies by ``decay`` at each of the
            ``milestones``, or ``every`` so many steps; with neither the rate is constant.
        final: the last learning rate of ``cosine`` as a share of ``lr``.
    """

    name: str = "adamw"
    lr: float = 1.0e-3
    weight_decay: float = 0.0
    warmup_steps: int = 0
    final: float = 0.01
    clip_norm: float | None = 1.0
    momentum: float = 0.9
    betas: tuple[float, float] | None = None
    schedule: Literal["cosine", "steps"] = "cosine"
    milestones: tuple[int, ...] = ()
    every: int = 0
    decay: float = 0.1

    def __post_init__(self) -> None:
        """Refuse what contradicts itself (ValueError)."""
        if self.schedule == "cosine" and (self.milestones or self.every):
            raise ValueError("'milestones' and 'every' belong to schedule: steps.")
        if self.milestones and self.every:
            raise ValueError("'milestones' and 'every' exclude each other; give one of them.")
        if not 0 <= self.lr < math.inf:
            raise ValueError(f"'lr' is {self.lr}; it must be a number that is not negative.")
        if self.every < 0 or list(self.milestones) != sorted(self.milestones):
            raise ValueError("'every' must not be negative, and 'milestones' must rise.")


@dataclass(frozen=True)
class ValidationConfig:
    """Development pairs that decide which weights are the best: mean luma PSNR of the averaged weights.

    Attributes:
        sources: the pairs, each scored alike.
        every: steps between two validations.
        limit: images per source.
    """

    sources: tuple[SourceConfig, ...]
    every: int = 1000
    limit: int = 20

    def __post_init__(self) -> None:
        """Refuse a validation of nothing (ValueError)."""
        if not self.sources or self.every < 1 or self.limit < 1:
            raise ValueError("'sources' must not be empty, and 'every' and 'limit' must be at least 1.")
        if len(set(self.sources)) < len(self.sources):
            raise ValueError("'sources' names one twice.")


@dataclass(frozen=True)
class GateConfig:
    """How an adaptation is judged without truth, and which network is kept; see ``sstl.engine.gate``.

    Attributes:
        every: steps between two judgements.
        patience: judgements in a row without a better network after which training stops.
        crops, side: how many crops of the photos (and of the pairs) to judge on, and their side in pixels.
        paired: the labelled parts to judge on, by default the training's own; best some that are not trained on, where
            what is forgotten shows first.
        known: more labelled parts, each judged by itself: rains that the start may know, rendered on photographs that
            are not trained on. The loss of one is not made up for by what another gained.
        finder: weights (a shipped name or a file) that find the photos' rain for the exam; by default the start. One
            that is blind to the photos' rain makes an exam without rain, which tells nothing.
        matched: the recipe of streaks that were matched to the photos without a network (``sstl.rain.match``), to judge
            on beside those that the finder sees: it may overlook most of them, as matched ones may be unlike them.
        others: labelled parts, the more photographs the better, whose rainy and clean images the start goes on to
            restore: what is kept is a ``routed`` network, which tells the photos from them by their look. Rain that was
            made like the photos' must not be among them, mist without rain should. With none, the adapted network
            restores every image.
        light: mean of the streaks in the photos, in [0, 1], as ``sstl.rain.match`` estimates it without a network. None
            that finds much more than that, and than the finder, is kept: it takes other things for rain.
        forgetting: loss of luma PSNR that is accepted, in dB: on the rehearsed pairs, and on each part of ``known``.
        least: predicted gain below which the start is kept, in dB, however sure.
    """

    every: int = 50
    patience: int = 6
    crops: int = 24
    side: int = 192
    paired: tuple[PairedPart, ...] = ()
    known: tuple[PairedPart, ...] = ()
    finder: str | None = None
    matched: str | None = None
    others: tuple[PairedPart, ...] = ()
    light: float | None = None
    forgetting: float = 0.3
    least: float = 0.05

    def __post_init__(self) -> None:
        """Refuse what judges nothing (ValueError)."""
        if min(self.every, self.patience) < 1 or self.crops < 2 or self.side < 64:
            raise ValueError("'every' and 'patience' must be at least 1, 'crops' 2, 'side' 64.")
        if self.light is not None and not 0 < self.light <= 1:
            raise ValueError(f"'light' is {self.light}; give a mean above 0 and at most 1, or null.")


@dataclass(frozen=True)
class TrainConfig:
    """Everything about a run.

    Attributes:
        output: the run's folder.
        optimizer: of the network; ``optimizers`` are those of a method's other parameters, by the name that the method
            gives them (a discriminator's, say); one that is not named there is optimised as the network is.
        gate: judge the averaged weights without truth, keep the best, stop early; the final weights are the kept ones,
            or the start's if none is better. Needs ``network.weights`` and ``data.unpaired``.
        steps: optimiser steps.
        batch_size: labelled (and again unlabelled) crops per optimiser step, over all processes and accumulations.
        accumulation: parts in which a batch is computed, to save memory.
        ema_decay: of the averaged weights, which are what is validated and kept; 0 switches averaging off.
        precision: arithmetic of the convolutions; ``auto`` is bf16 where the processor has it.
        checkpoint_every, log_every, picture_every: in steps; 0 for pictures means none.
        snapshot_every: steps between two averaged weights that are all kept, in ``snapshots/``; 0 keeps none.
        tensorboard: also write TensorBoard events (needs the extra ``track``).
    """

    output: Path
    data: DataConfig
    network: NetworkConfig = NetworkConfig()
    method: MethodConfig = MethodConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    optimizers: dict[str, OptimizerConfig] = field(default_factory=dict)
    validation: ValidationConfig | None = None
    gate: GateConfig | None = None
    steps: int = 1000
    batch_size: int = 16
    accumulation: int = 1
    ema_decay: float = 0.999
    precision: Precision = "auto"
    seed: int = 0
    checkpoint_every: int = 500
    log_every: int = 20
    picture_every: int = 1000
    snapshot_every: int = 0
    tensorboard: bool = False

    def __post_init__(self) -> None:
        """Refuse numbers that make no run (ValueError)."""
        counts = ("steps", "batch_size", "accumulation", "checkpoint_every", "log_every")
        for name in ("picture_every", "snapshot_every"):
            if getattr(self, name) < 0:
                raise ValueError(f"'{name}' is {getattr(self, name)}; it must not be negative.")
        least_one = {**{name: getattr(self, name) for name in counts}, "data.crop": self.data.crop}
        for name, value in least_one.items():
            if value < 1:
                raise ValueError(f"'{name}' is {value}; it must be at least 1.")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"'seed' is {self.seed}; it must be from 0 to 2**32 - 1.")
        if self.batch_size % self.accumulation:
            raise ValueError(f"'batch_size' {self.batch_size} is not a multiple of 'accumulation' {self.accumulation}.")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"'ema_decay' is {self.ema_decay}; it must be in [0, 1).")
        if self.gate is not None and not (self.network.weights and self.data.unpaired):
            raise ValueError("'gate' compares with a start on photos; give 'network.weights' and 'data.unpaired'.")
        if not any(part.weight for part in self.data.paired):
            raise ValueError("'data.paired' is empty or weighs nothing; give at least one labelled part.")
