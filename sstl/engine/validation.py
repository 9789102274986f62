"""Validation during training: luma PSNR of the averaged weights on development pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sstl.data import SourceConfig, open_pairs
from sstl.engine.config import TrainConfig
from sstl.metrics import matlab_luma, psnr
from sstl.networks import Network
from sstl.ops.precision import resolve_precision


class Validation:
    """Scores a network on the development pairs of a configuration; the pairs stay decoded in memory."""

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        assert config.validation is not None
        self.every, self.device = config.validation.every, device
        self.dtype = resolve_precision(config.precision, device)
        self.sets: list[tuple[str, list[tuple[Any, Any]]]] = []
        for name, source in zip(_names(config.validation.sources), config.validation.sources, strict=True):
            pairs = open_pairs(source, config.data.root)
            count = min(len(pairs), config.validation.limit)
            self.sets.append((name, [pairs.load(i) for i in range(count)]))

    def sample(self, side: int = 256) -> Tensor:
        """Return the first pair of up to four sets, cropped to one size, (N, 3, side, side); for pictures."""
        images = [pairs[0][0][:side, :side] for _, pairs in self.sets[:4]]
        height, width = (min(image.shape[axis] for image in images) for axis in (0, 1))
        return torch.cat([_tensor(image[:height, :width]) for image in images])

    def __call__(self, network: Network) -> dict[str, float]:
        """Return the mean luma PSNR of input and output per set, and over the sets as ``input_psnr`` and ``psnr``."""
        result: dict[str, float] = {}
        training = network.training
        network.eval()
        for name, pairs in self.sets:
            scores = [self._score(network, rainy, clean) for rainy, clean in pairs]
            before, after = (float(np.mean(column)) for column in zip(*scores, strict=True))
            result |= {f"{name}/input_psnr": before, f"{name}/psnr": after}
        network.train(training)
        for key in ("input_psnr", "psnr"):
            result[key] = float(np.mean([result[f"{name}/{key}"] for name, _ in self.sets]))
        return result

    def _score(self, network: Network, rainy: Any, clean: Any) -> tuple[float, float]:
        enabled = self.dtype == torch.bfloat16
        with torch.inference_mode(), torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=enabled):
            image = _tensor(rainy).to(self.device).contiguous(memory_format=torch.channels_last)
            background = network(image).background
        restored = (background[0].clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
        truth = matlab_luma(clean)
        return psnr(matlab_luma(rainy), truth), psnr(matlab_luma(restored), truth)


def _names(sources: Sequence[SourceConfig]) -> list[str]:
    """Name each source by its set or path, and by all that tells them apart where two have one name."""
    short = [source.set or source.path for source in sources]
    return [
        name if short.count(name) == 1 else " ".join(value for value in vars(source).values() if value)
        for name, source in zip(short, sources, strict=True)
    ]


def _tensor(image: Any) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255
