"""The residual streak likelihood of SIRR: a zero-mean Gaussian mixture over residuals, online EM, and its KL anchor."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sstl.errors import SstlError
from sstl.ops.processes import averaged

LOG_2PI = math.log(2 * math.pi)
EMPTY, RESEEDED = 1e-5, 1e-3  # weights: below the first a component is lost, with the second it begins again
OCCUPIED = 0.02  # share of the residuals below which a component describes nothing
PHOTO_STEPS = 3  # of EM from the shared mixture to a photo's own; on rendered rain all but 2 % of what 30 steps gain


class Statistics(NamedTuple):
    """Mean sufficient statistics of residuals under a mixture, (K,), or (B, K) for each photo of a batch.

    Attributes:
        weight: mean responsibility of each component.
        moment: mean of responsibility times moment; the moment is r^2 for a Gaussian.
    """

    weight: Tensor
    moment: Tensor


def gaussian_kl(variance: Tensor, reference: Tensor) -> Tensor:
    """KL(N(0, reference) || N(0, variance)) in nats, elementwise: (log(v/r) + r/v - 1) / 2.

    Grows without bound as ``variance`` goes to 0, so it forbids "remove nothing"; minimal at equal variances.

    >>> gaussian_kl(torch.tensor([1.0, 1e-6]), torch.tensor(1.0)).round().tolist()
    [0.0, 499993.0]
    """
    ratio = reference / variance
    return 0.5 * (ratio - 1 - ratio.log())


def log_joint(squares: Tensor, weights: Tensor, variances: Tensor) -> Tensor:
    """Log pi_k + log N(r; 0, v_k) of squared residuals r^2, (..., N, 1) -> (..., N, K)."""
    return weights.log() - 0.5 * (LOG_2PI + variances.log() + squares / variances)


class Mixture(nn.Module):
    """A zero-mean Gaussian mixture whose parameters are buffers, fitted by EM with running sufficient statistics.

    p(r) = sum_k pi_k N(r; 0, v_k) for each value of the residual. Another density is a subclass with other ``joint``,
    ``order`` and ``kl``, whose M-step is still moment / weight.

    Args:
        components: K >= 1.
        momentum: how much of the running statistics survives an update; 0 is EM on the batch alone.
        floor: smallest moment; of a variance about one grey level squared: a smaller one is quantisation, not rain.
        spread: the initial standard deviations, from the first to the last component, in geometric progression.
        prior: share of the shared statistics in a photo's own mixture, in (0, 1); one half counts them as much as the
            photo's own pixels.
    """

    weights: Tensor
    moments: Tensor
    updates: Tensor
    start: Tensor
    order = 2  # of the moment |r|^order whose mean is a component's parameter

    def __init__(
        self,
        components: int = 3,
        momentum: float = 0.95,
        floor: float = (1 / 255) ** 2,
        spread: tuple[float, float] = (2 / 255, 60 / 255),
        prior: float = 0.5,
    ) -> None:
        super().__init__()
        if components < 1:
            raise SstlError(f"a mixture's components are {components}; there must be at least 1.")
        deviations = torch.logspace(math.log10(spread[0]), math.log10(spread[1]), components)
        self.momentum, self.floor, self.prior = momentum, floor, prior
        self.register_buffer("weights", torch.full((components,), 1 / components))
        self.register_buffer("moments", deviations**self.order)
        self.register_buffer("updates", torch.zeros((), dtype=torch.long))
        self.register_buffer("start", self.moments.clone(), persistent=False)

    def joint(self, residual: Tensor, weights: Tensor, moments: Tensor) -> Tensor:
        """Log pi_k + log p_k(r): (..., N) and parameters (..., K) -> (..., N, K)."""
        return log_joint(residual.unsqueeze(-1).square(), weights.unsqueeze(-2), moments.unsqueeze(-2))

    def moment(self, residual: Tensor) -> Tensor:
        """|r|^order, elementwise."""
        return residual.abs() ** self.order

    def nll(self, residual: Tensor, per_photo: bool = False) -> Tensor:
        """Mean negative log-likelihood of residuals (B, ...) under the current mixture, or each photo's own.

        Cheapest solution alone: residual 0 everywhere. A photo's own mixture makes it cheaper still, as it follows its
        residuals down; the shared statistics in it set a bound to that, and what forbids the solution is ``kl`` and the
        supervised term.
        """
        weights, moments = self.of_photos(residual.detach()) if per_photo else (self.weights, self.moments)
        return self.photo_nll(residual, weights, moments).mean()

    def photo_nll(self, residual: Tensor, weights: Tensor, moments: Tensor) -> Tensor:
        """Mean negative log-likelihood of each photo (B, ...) under parameters (K,) or (B, K); (B,)."""
        return -self.joint(_rows(residual), weights, moments).logsumexp(dim=-1).mean(dim=-1)

    def photo_statistics(self, residual: Tensor, weights: Tensor, moments: Tensor) -> Statistics:
        """The E-step of each photo (B, ...) under parameters (K,) or (B, K); (B, K).

        Responsibilities are detached: only the moments carry a gradient, which is what makes ``kl`` a moment anchor.
        """
        values = _rows(residual)
        share = self.joint(values.detach(), weights, moments).softmax(dim=-1)
        return Statistics(share.mean(dim=-2), (share * self.moment(values).unsqueeze(-1)).mean(dim=-2))

    def statistics(self, residual: Tensor) -> Statistics:
        """The E-step of all processes' batches (B, ...) under the current mixture, (K,); keeps the graph."""
        each = self.photo_statistics(residual, self.weights, self.moments)
        return Statistics(averaged(each.weight.mean(dim=0)), averaged(each.moment.mean(dim=0)))

    def of_photos(self, residual: Tensor) -> tuple[Tensor, Tensor]:
        """Return each photo's own weights and moments, (B, K): the shared mixture after three steps of MAP-EM.

        pi_b = (1 - tau) mean(gamma) + tau pi and pi_b m_b = (1 - tau) mean(gamma * moment) + tau pi m, with tau =
        ``prior``: the shared statistics are pseudo-counts. No component of a photo is thus lost, and its moment is at
        least tau pi m / pi_b. Changes no buffer.
        """
        weights, moments = self.weights, self.moments
        for _ in range(PHOTO_STEPS):
            weights, moments = self.solved(self._mixed(self.photo_statistics(residual, weights, moments), self.prior))
        return weights, moments

    def blended(self, batch: Statistics) -> Statistics:
        """Running statistics (detached) blended with a batch's; the first update takes the batch alone."""
        return self._mixed(batch, self.momentum if int(self.updates) else 0.0)

    def _mixed(self, found: Statistics, keep: float) -> Statistics:
        return Statistics(
            keep * self.weights + (1 - keep) * found.weight,
            keep * self.weights * self.moments + (1 - keep) * found.moment,
        )

    def solved(self, statistics: Statistics) -> tuple[Tensor, Tensor]:
        """The M-step: weights that sum to one, and floored moments."""
        weight = statistics.weight.clamp(min=1e-6)
        return weight / weight.sum(dim=-1, keepdim=True), self.moments_of(statistics)

    def moments_of(self, statistics: Statistics) -> Tensor:
        """The M-step's moments, floored; (..., K)."""
        return (statistics.moment / statistics.weight.clamp(min=1e-8)).clamp(min=self.floor)

    def kl(self, residual: Tensor, reference: Tensor) -> Tensor:
        """Smallest KL of the synthetic residuals' Gaussian, of moment ``reference``, from a component of the mixture.

        The components' variances are those that the M-step would give with this batch's residuals in the graph. A
        component of less than ``OCCUPIED`` of the residuals does not count: an empty one keeps its variance, and would
        satisfy the KL while all residuals vanish.
        """
        blended = self.blended(self.statistics(residual))
        # Not floored: where all residuals have vanished, the floor would have no slope that leads away from there.
        moments = (blended.moment / blended.weight.clamp(min=1e-8)).clamp(min=1e-12)
        divergence = gaussian_kl(moments, reference)
        return divergence.masked_fill(blended.weight < min(OCCUPIED, 1 / len(self.weights)), math.inf).amin()

    @torch.no_grad()
    def update(self, batch: Statistics) -> None:
        """The M-step: replace weights and moments by those of the blended statistics.

        Statistics that are not finite change nothing. A component that has lost its residuals begins again where it
        first stood, with a weight too small for ``kl`` to count it.
        """
        blended = self.blended(batch)
        if not bool(torch.isfinite(torch.stack(blended)).all()):
            return
        weights, moments = self.solved(blended)
        components = slice(len(self.start))
        empty = weights[components] < EMPTY
        moments[components] = torch.where(empty, self.start, moments[components])
        weights[components] = weights[components].masked_fill(empty, RESEEDED)
        weights[components] /= weights[components].sum()
        self.weights.copy_(weights)
        self.moments.copy_(moments)
        self.updates += 1


def _rows(residual: Tensor) -> Tensor:
    return residual.reshape(len(residual), -1)
