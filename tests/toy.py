"""A toy domain on which a method trains in seconds: textured fields, rain of two kinds, a tiny network."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sstl.methods import Method, create_method
from sstl.networks import Network
from sstl.rain import Recipe, render
from sstl.types import PairedBatch, Restoration, UnpairedBatch

SIDE = 32
BATCH = 4
# The source's rain is thin and falls straight down; the target's is denser, brighter and slanted.
SOURCE = Recipe(angle=(-8, 8), length=(6, 14), density=(10, 25), brightness=(0.15, 0.35))
TARGET = Recipe(angle=(35, 55), length=(8, 20), density=(10, 18), width=(1, 2), brightness=(0.2, 0.4))


class Toy(Network):
    """Three convolutions that predict the map, the streaks and a correction of the background, as ``joint`` does."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=2, dilation=2),
            nn.ReLU(),
            nn.Conv2d(width, 7, 3, padding=1),
        )

    def forward(self, rainy: Tensor) -> Restoration:
        logits, streak, correction = self.body(rainy).split([1, 3, 3], dim=1)
        streak = F.softplus(streak - 2)
        return Restoration(rainy - streak * logits.sigmoid() + 0.1 * correction, streak, logits)


class Blind(Toy):
    """The same without detection."""

    def forward(self, rainy: Tensor) -> Restoration:
        background = super().forward(rainy).background
        return Restoration(background, rainy - background)


def backgrounds(count: int, seed: int) -> Tensor:
    """Smooth coloured fields with a fine texture of stripes or a checkerboard; (count, 3, SIDE, SIDE)."""
    draw = torch.Generator().manual_seed(seed)
    smooth = F.interpolate(torch.rand(count, 3, 4, 4, generator=draw), SIDE, mode="bicubic", align_corners=True)
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    patterns = torch.stack([(x + y) % 2, y % 2, (x // 2 + y // 2) % 2]) - 0.5
    chosen = patterns[torch.randint(len(patterns), (count,), generator=draw)][:, None]
    contrast = 0.05 + 0.1 * torch.rand(count, 1, 1, 1, generator=draw)
    return (0.15 + 0.4 * smooth + contrast * chosen).clamp(0, 1)


def pairs(count: int, recipe: Recipe, seed: int) -> PairedBatch:
    """Backgrounds under a recipe's rain, with the truth."""
    sample = render(backgrounds(count, seed), recipe, seed, range(count))
    streak = (sample.rainy - sample.clean).clamp(min=0)
    return PairedBatch(sample.rainy, sample.clean, streak, sample.mask, tuple(str(i) for i in range(count)))


def start_network(source: PairedBatch) -> Toy:
    """A network trained on the source, as adaptations begin with."""
    torch.manual_seed(0)
    network = Toy()
    train(create_method("supervised", network), source, source, lr=1e-2)
    return network


def train(
    method: Method, paired: PairedBatch, unpaired: PairedBatch, steps: int = 300, lr: float = 3e-3, seed: int = 0
) -> None:
    """Train on random batches by Adam with a falling learning rate."""
    torch.manual_seed(seed)
    optimizer = torch.optim.Adam([p for p in method.parameters() if p.requires_grad], lr)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, steps)
    method.train()
    for step in range(1, steps + 1):
        some, others = torch.randint(len(paired.rainy), (BATCH,)), torch.randint(len(unpaired.rainy), (BATCH,))
        batch = paired.map(lambda t, some=some: t[some])
        loss = method(batch, UnpairedBatch(unpaired.rainy[others], unpaired.key))["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        method.after_step(step)
    method.eval()


@torch.no_grad()
def removed(network: Network, pairs: PairedBatch) -> float:
    """Share of the rain's energy that is gone: 1 is the truth, 0 is the input."""
    error = (network(pairs.rainy).background - pairs.clean).square().mean()
    return float(1 - error / (pairs.rainy - pairs.clean).square().mean())


def _fine(image: Tensor) -> Tensor:
    return image[..., 1:-1, 1:-1] - F.avg_pool2d(image, 3, stride=1)


@torch.no_grad()
def contrast_kept(network: Network, clean: Tensor) -> float:
    """Contrast of the fine texture of a rain-free image after restoration, as a share of what it was."""
    return float(_fine(network(clean).background).std() / _fine(clean).std())


@torch.no_grad()
def harm(network: Network, clean: Tensor) -> float:
    """PSNR of restored rain-free images against themselves, in dB."""
    return float(-10 * (network(clean).background.clamp(0, 1) - clean).square().mean().log10())
