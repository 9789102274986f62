"""A run's folder: whether it may be written into, what an earlier run left in it, how it began."""

from __future__ import annotations

import sys
from pathlib import Path

from tqdm import tqdm

from sstl.config import flatten, load_config, to_tree
from sstl.engine.checkpoint import list_checkpoints
from sstl.engine.config import TrainConfig
from sstl.engine.gate import KEPT
from sstl.errors import ConfigError

WEIGHTS = "weights.safetensors"
# What a run leaves beside its configuration and its log, which are written anew.
_LEFT = (
    WEIGHTS, "best.safetensors", KEPT, "checkpoints/step-*.safetensors", "snapshots/step-*.safetensors",
    "pictures/step-*.png", "tensorboard/events.*",
)  # fmt: skip
# What may be another when a run goes on, without a word: how long, how it is watched, and where its data lie.
_OF_NO_MATTER = ("output", "steps", "validation", "checkpoint_every", "log_every", "picture_every", "snapshot_every",
                 "tensorboard", "data.root", "data.cache_gb", "data.workers")  # fmt: skip


def check_output(folder: Path, resume: bool, overwrite: bool, start: str | None = None) -> list[Path]:
    """Return the checkpoints of the run that a folder holds.

    Raises:
        ConfigError: there are some, and they are neither gone on from nor replaced; or none to go on from; or the
            weights that a new run is to ``start`` from would be replaced with the run that they are of.
    """
    if overwrite and not resume and start and Path(start).resolve().is_relative_to(folder.resolve()):
        raise ConfigError(f"{start} lies in {folder}, which is emptied first; give another folder by output.")
    existing = list_checkpoints(folder / "checkpoints")
    if (existing or (folder / WEIGHTS).exists()) and not (resume or overwrite):
        raise ConfigError(
            f"{folder} already holds a run; give --resume to go on, --overwrite to begin anew, or another folder."
        )
    if resume and not existing:
        raise ConfigError(f"{folder} holds no checkpoint to resume from; run without --resume.")
    return existing


def clear_run(output: Path) -> None:
    """Remove what an earlier run left in its folder, lest it be taken for the next one's; make the folder."""
    output.mkdir(parents=True, exist_ok=True)
    for pattern in _LEFT:
        for path in output.glob(pattern):
            path.unlink()


def tell_changes(config: TrainConfig) -> None:
    """Warn of settings that are not those with which the run began: the rest of it will be another run's."""
    try:
        began = load_config(TrainConfig, config.output / "config.yaml")
    except ConfigError:  # it is gone, or of another version
        return
    before, now = flatten(to_tree(began)), flatten(to_tree(config))
    changed = [key for key in sorted({*before, *now}) if before.get(key) != now.get(key)]
    if changed := [key for key in changed if not key.startswith(_OF_NO_MATTER)]:
        told = f"not the {', '.join(changed)} with which it began (config.yaml); the result is no single training's"
        tqdm.write(f"sstl: warning: {config.output} goes on, but {told}", file=sys.stderr)
