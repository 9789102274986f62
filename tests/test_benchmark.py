"""Benchmarks: what is timed is what is said to be, and the command's figures agree with each other."""

from __future__ import annotations

import json
from itertools import repeat

import pytest
import torch

from sstl.networks import create_network
from sstl.report.benchmark import Contestant, batches, benchmark, matrix_rate, seconds_a_step
from sstl.report.inspection import count_parameters, multiply_adds


@pytest.fixture(scope="module")
def tiny():
    return create_network("joint", size="tiny")


def test_a_timing_is_of_the_network_and_the_image_that_it_names(tiny):
    rates = {torch.float32: 1e9}
    chosen = [Contestant("a", tiny, "fp32"), Contestant("b", create_network("joint", size="tiny"), as_released=True)]
    timings = benchmark(chosen, [(24, 40), (16, 16)], 2, rates)
    assert [(one.name, one.height, one.width) for one in timings] == [
        ("a", 24, 40), ("b", 24, 40), ("a", 16, 16), ("b", 16, 16)]  # fmt: skip
    for one in timings:
        assert one.parameters == count_parameters(tiny)
        assert one.gflop == pytest.approx(2e-9 * multiply_adds(tiny, one.height, one.width))
        assert one.share == pytest.approx(one.gflop / one.seconds)
        assert one.precision == "float32"


def test_as_released_is_float32_and_contiguous_and_whole():
    network = create_network("joint", size="tiny")
    seen = []
    network.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape))
    run = Contestant("x", network, as_released=True).prepared()
    found = run(torch.rand(3, 40, 56))
    assert seen == [(1, 3, 40, 56)]
    assert found.background.dtype == torch.float32
    assert all(p.is_contiguous() for p in network.parameters())


def test_a_matrix_product_has_a_rate():
    assert matrix_rate(torch.float32, side=64, repeats=2) > 1e6


def test_a_training_step_learns(tiny):
    before = [parameter.clone() for parameter in tiny.parameters()]
    ready = repeat(next(batches("light", 0, 1)))
    assert seconds_a_step(tiny, {"ready": ready}, torch.float32, rounds=1)["ready"] > 0
    assert any(not torch.equal(old, new) for old, new in zip(before, tiny.parameters(), strict=True))


def test_the_command_prints_and_writes_its_table(run_cli, tmp_path):
    out = run_cli("benchmark", "hdc", "--as-released", "ddn", "--size", "24", "32", "--repeats", "2", "--json",
                  str(tmp_path / "speed.json"))  # fmt: skip
    assert "ddn as released" in out.out
    tree = json.loads((tmp_path / "speed.json").read_text())
    assert [row["name"] for row in tree["restoring"]] == ["hdc", "ddn as released"]
    assert tree["gflops_of_matrix_products"]["float32"] > 0
    assert "environment" in tree


def test_an_unknown_network_is_told(run_cli):
    told = run_cli("benchmark", "jont")
    assert told.code == 2
    assert "Did you mean 'joint'" in told.err
