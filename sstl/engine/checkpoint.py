"""Checkpoints: the full state of a run in one safetensors file, written atomically, read without pickle."""

from __future__ import annotations

import json
import random
import re
import zlib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor, nn

from sstl.errors import WeightsError
from sstl.ops.files import sync_folder, write_atomic

KEEP = 2  # the last one and, in case it is damaged, the one before


@dataclass
class Progress:
    """The scalars of a run: steps done, steps dropped for a bad loss, and the best validation so far."""

    step: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    best: float = float("-inf")
    best_step: int = 0
    seconds: float = 0.0


def save_checkpoint(
    folder: Path, progress: Progress, modules: dict[str, nn.Module], optimizers: dict[str, torch.optim.Optimizer]
) -> Path:
    """Write ``folder/step-XXXXXXXX.safetensors`` with modules, optimisers and random states; drop the oldest."""
    tensors = {f"{name}/{key}": t for name, module in modules.items() for key, t in module.state_dict().items()}
    groups: dict[str, list[dict[str, Any]]] = {}
    for name, optimizer in optimizers.items():
        state = optimizer.state_dict()
        for index, entries in state["state"].items():
            for key, value in entries.items():
                tensors[f"optimizer/{name}/{index}/{key}"] = torch.as_tensor(value)
        groups[name] = [
            {k: v for k, v in group.items() if isinstance(v, int | float | bool | str | list | tuple)}
            for group in state["param_groups"]
        ]
    tensors["random/torch"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["random/cuda"] = torch.cuda.get_rng_state()
    generator, keys, *rest = np.random.get_state(legacy=True)
    tensors["random/numpy"] = torch.from_numpy(np.asarray(keys).astype(np.int64))
    metadata = {
        "progress": json.dumps(vars(progress)),
        "groups": json.dumps(groups),
        "random": json.dumps({"numpy": [generator, *rest], "python": random.getstate()}),
    }
    tensors = {key: t.detach().cpu().contiguous().clone() for key, t in tensors.items()}
    data = serialize(tensors, {**metadata, "checksum": _checksum(tensors, metadata)})
    path = write_atomic(folder / f"step-{progress.step:08d}.safetensors", data)
    sync_folder(folder)
    for old in list_checkpoints(folder)[:-KEEP]:
        old.unlink(missing_ok=True)
    return path


def list_checkpoints(folder: Path) -> list[Path]:
    """Return a run's checkpoints, oldest first."""
    return sorted(p for p in folder.glob("step-*.safetensors") if re.fullmatch(r"step-\d+", p.stem))


def load_checkpoint(
    path: Path, modules: dict[str, nn.Module], optimizers: dict[str, torch.optim.Optimizer]
) -> Progress:
    """Restore everything that ``save_checkpoint`` wrote; WeightsError if the file is damaged or of another run."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
        found = _checksum(tensors, metadata)
        if metadata.get("checksum", found) != found:
            raise ValueError("its checksum is wrong")
        saved = json.loads(metadata["progress"])
        progress = Progress(**{field.name: saved[field.name] for field in fields(Progress)})
        for name, module in modules.items():
            module.load_state_dict(_part(tensors, name))
        groups = json.loads(metadata["groups"])
        for name, optimizer in optimizers.items():
            _restore_optimizer(optimizer, _part(tensors, f"optimizer/{name}"), groups[name])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(f"{path}: not a checkpoint of this run, or a damaged one ({reason}).") from None
    _restore_random(tensors, json.loads(metadata["random"]))
    return progress


def _restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], groups: list[dict[str, Any]]
) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, entry = key.split("/", 1)
        state.setdefault(int(index), {})[entry] = value
    current = optimizer.state_dict()["param_groups"]
    # What the run's configuration says holds; what else there is (some optimisers count in their groups) goes on.
    given = ("weight_decay", "betas", "momentum")
    merged = [
        {**now, **saved, **{key: now[key] for key in given if key in now}}
        for now, saved in zip(current, groups, strict=True)
    ]
    optimizer.load_state_dict({"state": state, "param_groups": merged})


def _checksum(tensors: dict[str, Tensor], metadata: dict[str, str]) -> str:
    """CRC-32 of everything, because safetensors reads a file with flipped bits without a word."""
    crc = 0
    for key, t in sorted(tensors.items()):
        crc = zlib.crc32(f"{key} {t.dtype} {list(t.shape)}".encode(), crc)
        crc = zlib.crc32(t.reshape(-1).view(torch.uint8).numpy().tobytes(), crc)
    scalars = json.dumps({k: v for k, v in metadata.items() if k != "checksum"}, sort_keys=True)
    return f"{zlib.crc32(scalars.encode(), crc):08x}"


def _part(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key[len(name) + 1 :]: t for key, t in tensors.items() if key.startswith(f"{name}/")}


def _restore_random(tensors: dict[str, Tensor], scalars: dict[str, Any]) -> None:
    torch.set_rng_state(tensors["random/torch"])
    if "random/cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["random/cuda"])
    name, *rest = scalars["numpy"]
    np.random.set_state((name, tensors["random/numpy"].numpy().astype(np.uint32), *rest))
    version, internal, gauss = scalars["python"]
    random.setstate((version, tuple(internal), gauss))
