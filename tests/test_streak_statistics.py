"""The five numbers of a streak layer against layers that were drawn with them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sstl.rain import StreakLayer, render_layers
from sstl.rain.statistics import StreakStatistics, distances, streak_statistics

LAYER = {"angle": 0.0, "angle_spread": 0.5, "length": 30.0, "length_spread": 0.05, "width": 2.0, "density": 2.0,
         "brightness": 0.3, "brightness_spread": 0.1, "blur": 0.0}  # fmt: skip


def drawn(**changes: float) -> StreakStatistics:
    layer = StreakLayer(**{**LAYER, **changes})
    streak = render_layers([[layer]], 200, 200, [np.random.default_rng(0)]).clamp(max=1)[0]
    return streak_statistics(streak.expand(3, -1, -1))


@pytest.mark.parametrize("angle", [-60, -20, 0, 35])
def test_the_direction_is_found(angle):
    found = drawn(angle=angle)
    assert found.angle == pytest.approx(angle, abs=3)
    assert found.coherence > 0.7


@pytest.mark.parametrize(("name", "low", "high"), [("length", 12.0, 50.0), ("width", 2.0, 4.0)])
def test_longer_and_wider_streaks_measure_so(name, low, high):
    small, large = (getattr(drawn(**{name: value}), name) for value in (low, high))
    assert large / small == pytest.approx(high / low, rel=0.2)


def test_density_and_brightness_follow():
    assert drawn(density=4.0).density > 1.5 * drawn(density=2.0).density
    assert drawn(brightness=0.6).brightness == pytest.approx(2 * drawn(brightness=0.3).brightness, rel=0.15)


def test_no_rain_is_no_rain():
    found = streak_statistics(torch.zeros(3, 32, 32))
    assert (found.density, found.brightness) == (0, 0)


def test_distances_are_in_standard_deviations():
    def group(shift: float) -> list[StreakStatistics]:
        values = np.random.default_rng(0).normal(shift, 1, 500)
        return [StreakStatistics(0.1, 0.2, value, 0.5, 2.0, 20.0) for value in values]

    assert distances(group(0), group(0))["angle"] == 0
    assert distances(group(2), group(0))["angle"] == pytest.approx(2, rel=0.05)
