"""What the harnesses of training share: two tiny pairs and photos, a run of a few steps, and telling two runs apart."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file
from skimage import data
from torch import Tensor

from sstl.compat import import_torchvision_user
from sstl.data import SourceConfig
from sstl.data.stream import PairedPart
from sstl.engine import DataConfig, MethodConfig, NetworkConfig, TrainConfig, ValidationConfig, read_log
from sstl.ops.files import write_atomic
from sstl.rain import render
from sstl.report.environment import environment

for used in ("timm.optim", "timm.scheduler", "timm.utils"):  # before processes are forked, not in each of them
    import_torchvision_user(used)

CLOCK = ("seconds", "samples_per_second")


def make_data(folder: Path) -> None:
    """Write two pairs of 40x40 and two rainy photos, cut from scikit-image's astronaut."""
    photo = torch.from_numpy(data.astronaut()[40:136, 160:288]).movedim(-1, 0)[None].float() / 255

    def put(name: str, image: Tensor) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image.permute(1, 2, 0) * 255).round().byte().numpy()).save(folder / name)

    for i, (top, left) in enumerate([(0, 0), (50, 80)]):
        sample = render(photo[..., top : top + 40, left : left + 40], "heavy", seed=1, indices=[i])
        put(f"pairs/rainy/{i}.png", sample.rainy[0])
        put(f"pairs/clean/{i}.png", sample.clean[0])
        put(f"real/{i}.png", sample.rainy[0].flip(-1))


def settings(root: Path, output: Path, method: MethodConfig, workers: int = 0, **changes: Any) -> TrainConfig:
    """Return a run of 12 steps on the data of ``make_data``, with a checkpoint at each second one."""
    found = DataConfig(
        (PairedPart("pairs"),), (SourceConfig("real"),), crop=24, root=root, cache_gb=0.0, workers=workers
    )
    defaults: dict[str, Any] = {
        "network": NetworkConfig("joint", {"size": "tiny"}),
        "validation": ValidationConfig((SourceConfig("pairs"),), every=6, limit=1),
        "steps": 12, "batch_size": 2, "precision": "fp32", "checkpoint_every": 2, "log_every": 1, "picture_every": 6,
    }  # fmt: skip
    return TrainConfig(output, found, method=method, **{**defaults, **changes})


def state(run: Path) -> dict[str, Tensor]:
    """Return all that a run's last checkpoint and its weights hold."""
    last = sorted((run / "checkpoints").glob("step-*.safetensors"))[-1]
    weights = {f"weights/{key}": t for key, t in load_file(run / "weights.safetensors").items()}
    return load_file(last) | weights


def history(run: Path) -> list[dict[str, Any]]:
    """Return a run's log without the figures of the clock."""
    return [{k: v for k, v in line.items() if k not in CLOCK} for line in read_log(run / "log.jsonl")]


def differing(run: Path, other: Path) -> list[str]:
    """Return the names of what is not the same in two finished runs, byte for byte; ``log`` is their logs."""
    a, b = state(run), state(other)
    names = sorted(a.keys() ^ b.keys())
    names += [key for key in a.keys() & b.keys() if a[key].numpy().tobytes() != b[key].numpy().tobytes()]
    return names + (["log"] if history(run) != history(other) else [])


def write_results(path: Path, seed: int, found: dict[str, Any]) -> None:
    """Write what a harness found, with its command, seed and machine."""
    command = " ".join(["python", f"experiments/reliability/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    tree = {"command": command, **found, "environment": environment(seed=seed, device="cpu", precision="fp32")}
    write_atomic(path, json.dumps(tree, indent=1) + "\n")
    print(f"wrote {path}")
