"""The mean of per-image values, with what it hides: its uncertainty and the infinite ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000


@dataclass(frozen=True)
class Summary:
    """Per-image values in short.

    Attributes:
        mean: of the values, each capped.
        interval: the 95 % bootstrap interval of the mean; None for a single value.
        count: how many values.
        infinite: how many of them are infinite (PSNR of identical images).
        capped: how many were above the cap, the infinite ones included.
    """

    mean: float
    interval: tuple[float, float] | None
    count: int
    infinite: int = 0
    capped: int = 0


def summarize(values: Sequence[float], cap: float = math.inf, seed: int = 0) -> Summary:
    """Return the mean of ``values``, each capped at ``cap``, with its percentile bootstrap interval (Efron, 1979).

    The same values and seed give the same interval.

    Raises:
        ValueError: there is no value.
    """
    if not values:
        raise ValueError("the mean of no values.")
    capped = np.minimum(values, cap)
    interval = None
    if len(capped) > 1:
        rng = np.random.default_rng(seed)
        means = [rng.choice(capped, len(capped)).mean() for _ in range(RESAMPLES)]
        low, high = np.quantile(means, (0.025, 0.975))
        interval = (float(low), float(high))
    return Summary(
        mean=float(capped.mean()),
        interval=interval,
        count=len(values),
        infinite=sum(map(math.isinf, values)),
        capped=sum(value > cap for value in values),
    )
