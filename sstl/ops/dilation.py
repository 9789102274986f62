"""Receptive fields of stacked dilated convolutions, and the check that they leave no holes (gridding)."""

from __future__ import annotations

from collections.abc import Sequence

from sstl.errors import SstlError


def hdc_gap(rates: Sequence[int]) -> int:
    """Return M_2 of the HDC rule (Wang et al., WACV 2018): the largest distance between two sampled pixels.

    ``M_n = r_n`` and ``M_i = max(M_{i+1} - 2 r_i, M_{i+1} - 2 (M_{i+1} - r_i), r_i)``; the rule asks for
    ``M_2 <= kernel size``. A single rate has M_2 = its rate.

    >>> hdc_gap([1, 2, 5]), hdc_gap([1, 2, 9])
    (2, 5)
    """
    _check_positive(rates)
    gap = rates[-1]
    for rate in reversed(rates[1:-1]):
        gap = max(gap - 2 * rate, gap - 2 * (gap - rate), rate)
    return gap


def support(rates: Sequence[int], kernel: int = 3) -> list[int]:
    """Return the sorted input offsets (one dimension) that reach one output of the stacked convolutions.

    >>> support([2, 2])
    [-4, -2, 0, 2, 4]
    >>> support([1, 2])
    [-3, -2, -1, 0, 1, 2, 3]
    """
    _check_positive(rates, kernel)
    half = kernel // 2
    offsets = {0}
    for rate in rates:
        offsets = {o + rate * tap for o in offsets for tap in range(-half, half + 1)}
    return sorted(offsets)


def check_rates(rates: Sequence[int], kernel: int = 3) -> None:
    """Raise SstlError unless the rates pass the HDC rule and their enumerated receptive field has no hole.

    Both are needed: [2, 2, 2] and [3, 3] pass the rule and still never see some pixels.
    """
    offsets = support(rates, kernel)
    holes = sorted(set(range(offsets[0], offsets[-1] + 1)) - set(offsets))
    if holes:
        raise SstlError(
            f"dilation rates {list(rates)} leave holes in the receptive field at offsets {holes[:8]}; "
            "start with rate 1 and let the rates share no divisor, for example [1, 2, 5]."
        )
    if hdc_gap(rates) > kernel:
        raise SstlError(
            f"dilation rates {list(rates)} break the HDC rule (M_2 = {hdc_gap(rates)} > {kernel}); "
            "use smaller steps between the rates, for example [1, 2, 5]."
        )


def _check_positive(rates: Sequence[int], kernel: int = 3) -> None:
    if not rates or min(rates) < 1 or kernel < 1 or kernel % 2 == 0:
        raise SstlError(f"dilation rates {list(rates)} with kernel {kernel}: rates must be >= 1 and the kernel odd.")
