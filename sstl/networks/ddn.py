"""DDN, the deep detail network, and the two-branch network of SIRR's released code that is built of it."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sstl.errors import SstlError
from sstl.networks.base import NETWORKS, Network, check_counts, undetected
from sstl.ops.guided import guided_filter
from sstl.types import Restoration

Statistics = Literal["running", "batch"]
Branch = Literal["supervised", "real"]
BRANCHES: tuple[Branch, ...] = ("supervised", "real")

RADIUS, SMOOTHING = 15, 1.0  # of the guided filter that splits base and detail


class NormalisedConv(nn.Module):
    """A 3x3 convolution and batch normalisation; one kernel, but biases and normalisation for each branch."""

    def __init__(self, inputs: int, outputs: int, statistics: Statistics, branches: int) -> None:
        super().__init__()
        self.statistics = statistics
        self.kernel = nn.Parameter(nn.init.xavier_uniform_(torch.empty(outputs, inputs, 3, 3)))
        self.biases = nn.ParameterList(torch.zeros(outputs) for _ in range(branches))
        self.norms = nn.ModuleList(
            nn.BatchNorm2d(outputs, track_running_stats=statistics == "running") for _ in range(branches)
        )

    def forward(self, x: Tensor, branch: int) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H, W)."""
        x, norm = F.conv2d(x, self.kernel, self.biases[branch], padding=1), self.norms[branch]
        assert isinstance(norm, nn.BatchNorm2d)
        if self.statistics == "running":
            return norm(x)  # type: ignore[no-any-return]
        # By hand, because torch refuses the statistics of a single pixel.
        variance, mean = torch.var_mean(x, dim=(0, 2, 3), correction=0, keepdim=True)
        x = (x - mean) * (variance + norm.eps).rsqrt()
        return x * norm.weight.view(1, -1, 1, 1) + norm.bias.view(1, -1, 1, 1)


class DetailNetwork(Network):
    """Deep detail network (Fu et al., CVPR 2017): the detail layer O - GF(O) is mapped to the negative residual.

    26 normalised convolutions with twelve residual blocks between the first and the last; B^ = O + residual. The base
    layer GF(O) is a self-guided filter of each channel, whose borders use the part of the window inside the image.

    Args:
        width: channels.
        blocks: residual blocks of two layers.
        statistics: normalise by ``running`` means, or by those of the ``batch`` at hand even at test time, as SIRR's
            released code does; then nearly the same energy is taken from every image, rainy or not.
        branches: sets of biases and normalisations; ``branch`` is the one that ``forward`` uses.
    """

    def __init__(self, width: int, blocks: int, statistics: Statistics, branches: int = 1, branch: int = 0) -> None:
        super().__init__()
        check_counts("ddn", width=width, blocks=blocks)
        if statistics not in ("running", "batch"):
            raise SstlError(f"ddn: statistics is '{statistics}'; it must be running or batch.")
        widths = [3] + [width] * (1 + 2 * blocks) + [3]
        self.branches, self.branch = branches, branch
        self.layers = nn.ModuleList(
            NormalisedConv(inputs, outputs, statistics, branches) for inputs, outputs in pairwise(widths)
        )
        self.latent = f"layers.{len(self.layers) - 2}"  # before the last one; none of them is an nn.Conv2d
        self.receptive_radius = None if statistics == "batch" else len(self.layers) + 2 * RADIUS

    def forward(self, rainy: Tensor) -> Restoration:
        """(B, 3, H, W) in [0, 1] -> Restoration."""
        return self.restore(rainy, self.branch)

    def restore(self, rainy: Tensor, branch: int) -> Restoration:
        """Restore with the biases and normalisations of one branch."""
        first, *blocks, last = self.layers
        x = F.relu(first(rainy - guided_filter(rainy, rainy, RADIUS, SMOOTHING), branch))
        for one, two in zip(blocks[::2], blocks[1::2], strict=True):
            x = x + F.relu(two(F.relu(one(x, branch)), branch))
        return undetected(rainy, rainy + last(x, branch).to(rainy.dtype))


@NETWORKS.register("ddn")
def ddn(width: int = 16, blocks: int = 12, statistics: Statistics = "running") -> DetailNetwork:
    """DDN: deep detail network over a guided filter's detail layer (Fu et al., CVPR 2017)."""
    return DetailNetwork(width, blocks, statistics)


@NETWORKS.register("sirr_released")
def sirr_released(branch: Branch = "supervised") -> DetailNetwork:
    """SIRR's released network: DDN with batch statistics, kernels shared by two branches, biases not."""
    if branch not in BRANCHES:
        raise SstlError(f"sirr_released: branch is '{branch}'; it must be one of {', '.join(BRANCHES)}.")
    return DetailNetwork(16, 12, "batch", len(BRANCHES), BRANCHES.index(branch))
