"""The averaged teacher that several methods have beside the student."""

from __future__ import annotations

import copy
from typing import Any, Self

import torch
from torch import Tensor

from sstl.methods.supervised import Supervised
from sstl.networks import Network


class Taught(Supervised):
    """A supervised branch and a teacher, the moving average of the student (mean teacher, NeurIPS 2017).

    Args:
        network: any network; the student.
        decay: of the teacher; 0.99 follows the student within a hundred steps.
        options: of ``Supervised``.
    """

    needs_unpaired = True

    def __init__(self, network: Network, decay: float = 0.99, **options: Any) -> None:
        super().__init__(network, **options)
        self.decay = decay
        self.teacher = copy.deepcopy(network).requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        """Keep the teacher in evaluation mode."""
        super().train(mode)
        self.teacher.eval()
        return self

    @torch.no_grad()
    def strong_view(self, rainy: Tensor, background: Tensor) -> tuple[Tensor, Tensor]:
        """Return the photo at another exposure and with noise, and ``background`` at that exposure."""
        exposure = torch.empty(len(rainy), 1, 1, 1).uniform_(0.8, 1.2).to(rainy)
        noise = 0.02 * torch.rand(len(rainy), 1, 1, 1).to(rainy) * torch.randn_like(rainy)
        return (exposure * rainy + noise).clamp(0, 1), (exposure * background).clamp(0, 1)

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Move the teacher towards the student."""
        decay = min(self.decay, step / (step + 10))  # an untrained teacher is forgotten quickly
        for average, new in zip(self.teacher.parameters(), self.network.parameters(), strict=True):
            average.lerp_(new, 1 - decay)
        for kept, latest in zip(self.teacher.buffers(), self.network.buffers(), strict=True):
            kept.copy_(latest)
