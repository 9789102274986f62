"""Dilated stacks: the HDC rule as published, and the enumerated receptive field against real convolutions."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from sstl.errors import SstlError
from sstl.ops.dilation import check_rates, hdc_gap, support

YU_KOLTUN = [1, 1, 2, 4, 8, 16, 1]
rates_lists = st.lists(st.integers(1, 9), min_size=1, max_size=4)


def seen_pixels(rates: list[int], kernel: int) -> list[int]:
    """The offsets whose gradient is not zero, through convolutions with kernels of ones."""
    radius = sum(rates) * (kernel // 2)
    line = torch.zeros(1, 1, 2 * radius + 1, dtype=torch.float64, requires_grad=True)
    out = line
    for rate in rates:
        ones = torch.ones(1, 1, kernel, dtype=torch.float64)
        out = F.conv1d(out, ones, padding=rate * (kernel // 2), dilation=rate)
    (gradient,) = torch.autograd.grad(out[0, 0, radius], line)
    return (gradient[0, 0].nonzero().flatten() - radius).tolist()


@pytest.mark.parametrize(
    ("rates", "gap"),
    [
        # Wang et al., WACV 2018: "r = [1, 2, 5] works, as M_2 = 2; r = [1, 2, 9] does not, as M_2 = 5"
        ([1, 2, 5], 2),
        ([1, 2, 3], 2),
        ([1, 2, 9], 5),
        ([2, 4, 8], 4),
        ([2, 2, 2], 2),
        # By definition: M_n = r_n for the last layer, so M_2 of two layers is the second rate, whatever the first.
        ([3, 3], 3),
        ([1, 7], 7),
        ([7, 1], 1),
        ([4], 4),
    ],
)
def test_hdc_gap(rates, gap):
    assert hdc_gap(rates) == gap


@given(rates_lists)
def test_hdc_gap_follows_the_published_recursion(rates):
    gaps = {len(rates): rates[-1]}  # M_n = r_n, with the paper's indices from 1
    for i in range(len(rates) - 1, 1, -1):
        r = rates[i - 1]
        gaps[i] = max(gaps[i + 1] - 2 * r, gaps[i + 1] - 2 * (gaps[i + 1] - r), r)
    assert hdc_gap(rates) == gaps[min(2, len(rates))]


@given(rates_lists, st.sampled_from([1, 3, 5]))
def test_support_is_what_a_stack_of_convolutions_sees(rates, kernel):
    assert support(rates, kernel) == seen_pixels(rates, kernel)


@given(rates_lists)
def test_rates_with_a_common_divisor_see_only_its_multiples(rates):
    divisor = math.gcd(*rates)
    assert all(offset % divisor == 0 for offset in support(rates))


@pytest.mark.parametrize("rates", [[1], [1, 2, 5], [1, 2, 3], [1, 1, 1], [5, 2, 1], (1, 2, 5)])
def test_good_rates_pass(rates):
    check_rates(rates)
    assert len(support(rates)) == 2 * sum(rates) + 1


@pytest.mark.parametrize("rates", [[2, 2, 2], [3, 3], [2, 3]])  # the last has no common divisor either
def test_the_rule_alone_is_not_enough(rates):
    assert hdc_gap(rates) <= 3
    with pytest.raises(SstlError, match=r"leave holes in the receptive field at offsets \[-"):
        check_rates(rates)


@pytest.mark.parametrize("rates", [[2, 4, 8], [1, 2, 9], [2]])
def test_rates_with_holes_are_refused(rates):
    with pytest.raises(SstlError, match=r"leave holes .* for example \[1, 2, 5\]"):
        check_rates(rates)


def test_enumeration_alone_is_not_the_rule():
    # What is seen does not depend on the order, the rule does.
    assert support([1, 5, 2]) == support([1, 2, 5])
    with pytest.raises(SstlError, match=r"break the HDC rule \(M_2 = 8 > 3\)"):
        check_rates([1, 5, 2])


def test_the_context_module_of_yu_and_koltun_passes():
    check_rates(YU_KOLTUN)
    seen = [len(support(YU_KOLTUN[:depth])) for depth in range(1, 8)]
    assert seen == [3, 5, 9, 17, 33, 65, 67]  # the receptive fields of their table 1


@pytest.mark.parametrize(("rates", "kernel"), [([], 3), ([0, 1], 3), ([1, -2], 3), ([1, 2], 2), ([1, 2], 0)])
def test_what_is_no_dilation_is_refused(rates, kernel):
    with pytest.raises(SstlError, match="rates must be >= 1 and the kernel odd"):
        check_rates(rates, kernel)
