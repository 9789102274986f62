"""The residual streak likelihood of SIRR: a zero-mean Gaussian mixture over residuals, online EM, and its KL anchor."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sstl.errors import SstlError

LOG_2PI = math.log(2 * math.pi)


class Statistics(NamedTuple):
    """Mean sufficient statistics of residuals under a mixture: responsibilities and squared residuals, both (K,)."""

    weight: Tensor
    square: Tensor


def mixture_nll(residual: Tensor, weights: Tensor, variances: Tensor) -> Tensor:
    """Mean negative log-likelihood of residuals under a zero-mean Gaussian mixture, the full density.

    Args:
        residual: any shape; O - B^ of real images, one value per pixel and channel.
        weights: (K,), of the components; treated as given (detach them).
        variances: likewise.

    Cheapest solution alone: residual 0 everywhere ("remove nothing"), as for *every* zero-mean density; the supervised
    term and ``gaussian_kl`` forbid it.
    """
    return -log_joint(residual.reshape(-1, 1).square(), weights, variances).logsumexp(dim=-1).mean()


def gaussian_kl(variance: Tensor, reference: Tensor) -> Tensor:
    """KL(N(0, reference) || N(0, variance)) in nats, elementwise: (log(v/r) + r/v - 1) / 2.

    Grows without bound as ``variance`` goes to 0, so it forbids "remove nothing"; minimal at equal variances.
    """
    ratio = reference / variance
    return 0.5 * (ratio - 1 - ratio.log())


def log_joint(squares: Tensor, weights: Tensor, variances: Tensor) -> Tensor:
    """Log pi_k + log N(r; 0, v_k) of squared residuals r^2, (N, 1) -> (N, K)."""
    return weights.log() - 0.5 * (LOG_2PI + variances.log() + squares / variances)


class Mixture(nn.Module):
    """A zero-mean Gaussian mixture whose parameters are buffers, fitted by EM with running sufficient statistics.

    Args:
        components: K >= 1.
        momentum: how much of the running statistics survives an update; 0 is EM on the batch alone.
        floor: smallest variance, about one grey level squared: a smaller one is quantisation, not rain.
        spread: the initial standard deviations, from the first to the last component, in geometric progression.
    """

    weights: Tensor
    variances: Tensor
    updates: Tensor

    def __init__(
        self,
        components: int = 3,
        momentum: float = 0.95,
        floor: float = (1 / 255) ** 2,
        spread: tuple[float, float] = (2 / 255, 60 / 255),
    ) -> None:
        super().__init__()
        if components < 1:
            raise SstlError(f"a mixture's components are {components}; there must be at least 1.")
        deviations = torch.logspace(math.log10(spread[0]), math.log10(spread[1]), components)
        self.momentum, self.floor = momentum, floor
        self.register_buffer("weights", torch.full((components,), 1 / components))
        self.register_buffer("variances", deviations.square())
        self.register_buffer("updates", torch.zeros((), dtype=torch.long))

    def nll(self, residual: Tensor) -> Tensor:
        """Mean negative log-likelihood of ``residual`` under the current mixture."""
        return mixture_nll(residual, self.weights, self.variances)

    def statistics(self, residual: Tensor) -> Statistics:
        """The E-step: mean responsibility of each component and mean responsibility-weighted square; keeps the graph.

        Responsibilities are detached: only the squares carry a gradient, which is what makes ``kl`` a moment anchor.
        """
        squares = residual.reshape(-1, 1).square()
        share = log_joint(squares.detach(), self.weights, self.variances).softmax(dim=-1)
        return Statistics(share.mean(dim=0), (share * squares).mean(dim=0))

    def blended(self, batch: Statistics) -> Statistics:
        """Running statistics (detached) blended with a batch's; the first update takes the batch alone."""
        keep = self.momentum if int(self.updates) else 0.0
        return Statistics(
            keep * self.weights + (1 - keep) * batch.weight,
            keep * self.weights * self.variances + (1 - keep) * batch.square,
        )

    def variances_of(self, statistics: Statistics) -> Tensor:
        """The M-step's variances, floored; (K,)."""
        return (statistics.square / statistics.weight.clamp(min=1e-8)).clamp(min=self.floor)

    def kl(self, residual: Tensor, reference: Tensor) -> Tensor:
        """Smallest KL of the synthetic residuals' Gaussian, of variance ``reference``, from a component of the mixture.

        The components' variances are those that the M-step would give with this batch's residuals in the graph.
        """
        return gaussian_kl(self.variances_of(self.blended(self.statistics(residual))), reference).amin()

    @torch.no_grad()
    def update(self, batch: Statistics) -> None:
        """The M-step: replace weights and variances by those of the blended statistics."""
        blended = self.blended(batch)
        if not bool(torch.isfinite(torch.stack(blended)).all()):
            return
        self.variances.copy_(self.variances_of(blended))
        self.weights.copy_(blended.weight.clamp(min=1e-6) / blended.weight.clamp(min=1e-6).sum())
        self.updates += 1
