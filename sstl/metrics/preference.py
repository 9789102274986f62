"""Votes between two restorations: the share of the first among decided votes, its interval, and a sign test."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

_Z = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True)
class Preference:
    """How often the first of two was better.

    Attributes:
        first: votes for the first.
        same: votes for neither.
        second: votes for the second.
        share: of the first among the decided votes (first + second), 0 to 1; None if there are none.
        interval: the 95 % Wilson interval of the share; None if there are no decided votes.
        p: of the two-sided sign test; 1 if there are no decided votes.
    """

    first: int
    same: int
    second: int
    share: float | None
    interval: tuple[float, float] | None
    p: float


def preference(first: int, same: int, second: int) -> Preference:
    """Return counts of votes with what they tell; votes for neither count in neither the share nor the test."""
    decided = first + second
    share, interval = (first / decided, wilson(first, decided)) if decided else (None, None)
    return Preference(first, same, second, share, interval, sign_test(first, second))


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Return the 95 % score interval of a share (Wilson, JASA 22, 1927), which stays within 0 and 1.

    Raises:
        ValueError: there are no trials.
    """
    if trials < 1:
        raise ValueError("the share of no trials.")
    share, spread = successes / trials, _Z * _Z / trials
    centre = share + spread / 2
    half = _Z * math.sqrt((share * (1 - share) + spread / 4) / trials)
    # Rounding must not leave 0 or all successes outside their interval.
    return max(0.0, min(share, (centre - half) / (1 + spread))), min(1.0, max(share, (centre + half) / (1 + spread)))


def sign_test(first: int, second: int) -> float:
    """Return the exact two-sided p value of so uneven a split if either is as likely in each trial (binomial)."""
    trials, fewer = first + second, min(first, second)
    # As whole numbers, which do not overflow.
    ways = sum(math.comb(trials, k) for k in range(fewer + 1))
    return min(1.0, 2 * ways / (1 << trials))
