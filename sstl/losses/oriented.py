"""The oriented residual likelihood: rain adds light, to few pixels, in streaks of one direction."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from sstl.errors import SstlError
from sstl.losses.likelihood import Mixture, Statistics

FLOOR = 0.5 / 255  # of the scales: rounding to 8 bits moves a value by as much
LOG_2 = math.log(2)


def streak_direction(residual: Tensor) -> tuple[Tensor, Tensor]:
    """Return each photo's direction of least change, a unit vector (y, x) of shape (B, 2), and its coherence (B,).

    From the structure tensor J, the sum of grad r grad r' over the photo's pixels and channels, with eigenvalues l1 >=
    l2: the eigenvector of l2, and (l1 - l2) / (l1 + l2) in [0, 1], which is 0 for noise and 1 for stripes.
    """
    down, right = _gradient(residual)
    yy, xx, xy = (product.sum(dim=(1, 2, 3)) for product in (down * down, right * right, down * right))
    steepest = 0.5 * torch.atan2(2 * xy, xx - yy)  # from the x axis; streaks run across it
    coherence = torch.hypot(xx - yy, 2 * xy) / (xx + yy).clamp(min=1e-12)
    return torch.stack([steepest.cos(), -steepest.sin()], dim=1), coherence


def slopes(residual: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """Return the derivatives of (B, C, H, W) along and across ``direction`` (B, 2), of the smoothed residual."""
    down, right = _gradient(residual)
    y, x = direction[:, 0].view(-1, 1, 1, 1), direction[:, 1].view(-1, 1, 1, 1)
    return y * down + x * right, y * right - x * down


def laplace_nll(size: Tensor, scale: Tensor) -> Tensor:
    """Negative log of the Laplace density exp(-|d| / s) / 2s, at mean |d| = ``size``, elementwise."""
    return (2 * scale).log() + size / scale


def exponential_kl(mean: Tensor, reference: Tensor) -> Tensor:
    """KL(Exp(reference) || Exp(mean)) of exponential densities of given means: log(m / r) + r / m - 1.

    Grows without bound as ``mean`` goes to 0, so it forbids "remove nothing"; minimal at equal means.
    """
    ratio = reference / mean
    return ratio - 1 - ratio.log()


class OrientedMixture(Mixture):
    """Noise or rain at each pixel, and streaks of each photo's direction u, of coherence c.

    A value r of the residual, one per pixel and channel, is noise of either sign or light that rain added::

        p(r) = pi_0 exp(-|r| / b_0) / 2 b_0  +  sum_{k=1}^{K-1} pi_k [r >= 0] exp(-r / b_k) / b_k

    so that a negative residual costs |r| / b_0 whatever the rain, and the few bright values have wide components. The
    slopes d_a and d_c of the residual along and across u have Laplace densities::

        q(d) = exp(-|d| / s) / 2 s,   s = s_a along (narrow), s_c across (wide)

    All three integrate to one. A photo's term is the composite -mean log p(r) + c (-mean log q(d_a) - mean log q(d_c)),
    in which values and slopes are taken as independent; u and c come from the detached residual's structure tensor, and
    a photo without a direction thus says nothing of slopes. The M-step has closed forms, as running statistics::

        b_k = mean(gamma_k |r|) / mean(gamma_k),   s = mean(c |d|) / mean(c)

    Cheapest solution alone: residual 0 everywhere; ``kl`` and the supervised term forbid it. The next: stripes of the
    background's own that happen to run along u, and a constant residual; the supervised term forbids both.

    ``weights`` are pi_0 ... pi_{K-1}, mean c, mean c; ``moments`` are b_0 ... b_{K-1}, s_a, s_c.

    Args:
        components: K >= 2: the noise, then the rain.
        momentum, prior: see ``Mixture``.
    """

    order = 1

    def __init__(self, components: int = 3, momentum: float = 0.95, prior: float = 0.5) -> None:
        if components < 2:
            raise SstlError(f"an oriented mixture's components are {components}; it needs at least 2, noise and rain.")
        super().__init__(components, momentum, floor=FLOOR, prior=prior)
        self.weights = torch.cat([self.weights, torch.ones(2)])
        self.moments = torch.cat([self.moments, self.moments[:2]])

    def joint(self, residual: Tensor, weights: Tensor, moments: Tensor) -> Tensor:
        """Log pi_k + log p_k(r): (..., N) and parameters (..., K + 2) -> (..., N, K)."""
        values, scales = residual.unsqueeze(-1), moments[..., None, :-2]
        outside = values < 0
        sizes = values.abs() / scales + scales.log()
        noise = sizes[..., :1] + LOG_2
        rain = sizes[..., 1:].masked_fill(outside, torch.inf)
        return weights[..., None, :-2].log() - torch.cat([noise, rain], dim=-1)

    def photo_nll(self, residual: Tensor, weights: Tensor, moments: Tensor) -> Tensor:
        """Values and slopes of each photo (B, C, H, W) under parameters (K + 2,) or (B, K + 2); (B,)."""
        sizes, coherence = self._slopes(residual)
        oriented = laplace_nll(sizes, moments[..., -2:]).sum(dim=-1)
        return super().photo_nll(residual, weights, moments) + coherence * oriented

    def photo_statistics(self, residual: Tensor, weights: Tensor, moments: Tensor) -> Statistics:
        """The E-step of each photo (B, C, H, W), then c and c * mean |d| for both slopes; (B, K + 2)."""
        values = super().photo_statistics(residual, weights, moments)
        sizes, coherence = self._slopes(residual)
        weight = coherence[:, None].expand_as(sizes)
        return Statistics(torch.cat([values.weight, weight], dim=1), torch.cat([values.moment, weight * sizes], dim=1))

    def solved(self, statistics: Statistics) -> tuple[Tensor, Tensor]:
        """The M-step: weights of the components that sum to one, the mean coherence, and all moments."""
        weights, _ = super().solved(Statistics(*(part[..., :-2] for part in statistics)))
        return torch.cat([weights, statistics.weight[..., -2:]], dim=-1), self.moments_of(statistics)

    def kl(self, residual: Tensor, reference: Tensor) -> Tensor:
        """KL of exponentials: of the light that synthetic rain adds per value, ``reference``, from what is found here.

        What is found is the rain components' share of the residual, sum_k pi_k b_k, that the next M-step would give
        with this batch in the graph. All of it, not the nearest component: an empty one would satisfy the KL for ever.
        """
        rain = self.blended(self.statistics(residual)).moment[1:-2].sum()
        return exponential_kl(rain.clamp(min=1e-6), reference)

    def _slopes(self, residual: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean |d| along and across, (B, 2), and the detached coherence (B,)."""
        direction, coherence = streak_direction(residual.detach())
        sizes = [slope.abs().mean(dim=(1, 2, 3)) for slope in slopes(residual, direction)]
        return torch.stack(sizes, dim=1), coherence


def _gradient(image: Tensor) -> tuple[Tensor, Tensor]:
    """Central differences down and to the right, (B, C, H, W), of the image smoothed by a binomial window.

    Plain differences of thin lines are biased towards the axes; smoothed ones can be steered to any direction.
    """
    for _ in range(2):
        padded = F.pad(image, (1, 1, 1, 1), mode="replicate")
        rows = padded[..., :-2, :] + 2 * padded[..., 1:-1, :] + padded[..., 2:, :]
        image = (rows[..., :-2] + 2 * rows[..., 1:-1] + rows[..., 2:]) / 16
    padded = F.pad(image, (1, 1, 1, 1), mode="replicate")
    down = padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]
    right = padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]
    return down / 2, right / 2
