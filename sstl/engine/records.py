"""What a run writes while it goes: the JSONL log, TensorBoard events by extra, picture grids."""

from __future__ import annotations

import io
import json
import math
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sstl.compat import import_torchvision_user
from sstl.errors import ConfigError
from sstl.networks import Network
from sstl.ops.files import read_log, write_atomic


class RunLog:
    """``log.jsonl`` of a run folder: one JSON object a line, flushed; lines after ``step`` are dropped on resuming."""

    def __init__(self, output: Path, step: int, enabled: bool, tensorboard: bool) -> None:
        self.enabled = enabled
        self.writer = _summary_writer(output, step) if tensorboard and enabled else None
        if enabled:
            path = output / "log.jsonl"
            write_atomic(path, "".join(json.dumps(line) + "\n" for line in read_log(path) if line["step"] <= step))
            self.file = path.open("ab", buffering=0)  # what could not be written is not tried again on closing

    def write(self, line: dict[str, Any]) -> None:
        """Append one record; NaN and infinity become null."""
        if not self.enabled:
            return
        data = f"{json.dumps(_finite(line))}\n".encode()
        try:
            while data:
                data = data[self.file.write(data) :]
            os.fsync(self.file.fileno())
        except OSError as error:
            raise OSError(error.errno, error.strerror, self.file.name) from error
        if self.writer is not None:
            for name, value in line.get("validation", line.get("trust", line)).items():
                if isinstance(value, int | float) and name != "step":
                    self.writer.add_scalar(name, value, line["step"])

    def close(self) -> None:
        """Close the files."""
        if self.enabled:
            self.file.close()
        if self.writer is not None:
            self.writer.close()


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _summary_writer(output: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ConfigError("tensorboard: true needs TensorBoard; pip install tensorboard") from None
    return SummaryWriter(str(output / "tensorboard"), purge_step=step or None)


def picture_grid(network: Network, rainy: Tensor, device: torch.device) -> bytes:
    """Return a PNG: one row per image of ``rainy``, with input, output, streak and map."""
    utils = import_torchvision_user("torchvision.utils")
    training = network.training
    network.eval()  # it may be the one that is trained, and must not learn from these images
    with torch.inference_mode():
        restored = network(rainy.to(device))
    network.train(training)
    mask = restored.mask if restored.mask is not None else torch.ones_like(rainy[:, :1])
    layers = [rainy, restored.background, restored.removed, mask.expand(-1, 3, -1, -1)]
    tiles = torch.stack([t.float().cpu().clamp(0, 1) for t in layers], dim=1)
    buffer = io.BytesIO()
    utils.save_image(tiles.flatten(0, 1), buffer, format="png", nrow=len(layers))
    return buffer.getvalue()
