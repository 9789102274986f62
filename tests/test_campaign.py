"""The campaign: what a sitting trains, and when its weights ship."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "experiments" / "campaign"))

from sit import PHASES, SIZES, better, configuration, state


@pytest.mark.parametrize("size", SIZES)
def test_a_sitting_trains_the_size_that_it_names_and_continues_from_what_ships(size):
    for phase in PHASES:
        config = configuration(size, phase, Path("start.safetensors"), Path("work"), 2)
        assert config.network.options["size"] == size
        assert config.network.weights == "start.safetensors"
        assert (config.data.crop, config.batch_size) == (phase.crop, phase.batch)
    assert configuration(size, PHASES[0], None, Path("work"), 1).network.weights is None
    assert sum(phase.share for phase in PHASES) == pytest.approx(1)


def test_tiny_learns_from_small_once_it_has_weights():
    methods = [configuration("tiny", PHASES[0], None, Path("work"), sitting).method for sitting in (1, 2)]
    assert [method.name for method in methods] == ["supervised", "distillation"]
    assert methods[1].options["teacher"] == "joint-small"
    assert configuration("small", PHASES[0], None, Path("work"), 2).method.name == "supervised"


def test_weights_ship_if_pairs_became_better_and_clean_photographs_stay_clear():
    old = {"light": 30.0, "heavy": 20.0, "clean": 48.0}
    assert better({"light": 29.9, "heavy": 20.2, "clean": 41.0}, old)
    assert not better({"light": 29.9, "heavy": 20.1, "clean": 48.0}, old)
    assert not better({"light": 31.0, "heavy": 21.0, "clean": 39.9}, old)
    assert better({"light": 1.0, "heavy": 1.0, "clean": 41.0}, {})


def test_the_page_of_the_campaign_tells_each_sitting_and_the_next():
    log = [
        {
            "size": "small", "sitting": n, "minutes": 60, "before": {"light": 30.0}, "after": {"light": 30.0 + n},
            "shipped": n == 1, "command": f"sit.py small --minutes {n}",
        }
        for n in (1, 2)
    ]  # fmt: skip
    page = state(log)
    assert "| small | before |  | 30.0 |  |" in page
    assert "| small | 2 | 60 | 32.0 | no |" in page
    assert "sit.py small --minutes 2" in page
