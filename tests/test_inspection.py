"""Inspection: costs, receptive fields and holes against closed forms, on stacks of convolutions of given rates."""

from __future__ import annotations

import copy
import io
import json
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from sstl.errors import SstlError
from sstl.networks import NETWORKS, Network, create_network, save_weights
from sstl.networks.base import undetected
from sstl.ops import memory
from sstl.ops.dilation import support
from sstl.ops.memory import peak_memory
from sstl.report import inspection
from sstl.report.inspection import bounding_box, effective_size, holes_of, inspect, receptive_field, structural_support
from sstl.report.plots import receptive_field_plot
from sstl.types import Restoration

MATTERS = 0.0455


class Stack(Network):
    """Convolutions of 3x3 with the given rates and a rectifier between each two; ``skip`` adds the input."""

    def __init__(self, rates: Sequence[int], width: int, skip: bool) -> None:
        super().__init__()
        widths = [3, *[width] * (len(rates) - 1), 3]
        layers: list[nn.Module] = []
        for inputs, outputs, rate in zip(widths, widths[1:], rates, strict=False):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=rate, dilation=rate), nn.ReLU(inplace=True)]
        self.layers, self.skip = nn.Sequential(*layers[:-1]), skip
        self.receptive_radius = sum(rates)

    def forward(self, rainy: Tensor) -> Restoration:
        found = self.layers(rainy)
        return undetected(rainy, rainy + found if self.skip else found)


class Pooled(Network):
    """Everything at once that may close a path or see everything."""

    def __init__(self, sees_all: bool = True) -> None:
        super().__init__()
        self.sees_all = sees_all
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.PReLU())
        self.pool = nn.MaxPool2d(3, stride=1, padding=1)
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 4, 1), nn.Sigmoid())
        self.last = nn.Sequential(nn.Conv2d(4, 3, 3, padding=1), nn.Tanh())
        self.receptive_radius = None if sees_all else 3

    def forward(self, rainy: Tensor) -> Restoration:
        x = self.pool(self.first(rainy))
        if self.sees_all:
            x = x * self.gate(x)
        mean = x / (x.abs().mean(dim=1, keepdim=True) + 0.1)
        return undetected(rainy, (rainy - self.last(mean)).clamp(0, 1))


def stack(rates: Sequence[int] = (1, 2, 5), width: int = 4, skip: bool = False) -> Stack:
    """Convolutions with given rates."""
    return Stack(rates, width, skip)


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    monkeypatch.setitem(NETWORKS._entries, "stack", stack)
    monkeypatch.setitem(NETWORKS._entries, "pooled", Pooled)


def closed(network: Network) -> Network:
    """Let every rectifier be shut: no gradient flows, although there are paths."""
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d):
                layer.weight.abs_()
                layer.bias.fill_(-100)
    return network


# Holes


@pytest.mark.parametrize("rates", [[1], [1, 1, 1, 1], [1, 2, 5], [2, 2, 2], [2], [3, 3], [2, 3], [2, 4, 8], [1, 2, 9]])
@pytest.mark.parametrize("skip", [False, True])
def test_the_support_is_the_enumerated_one(rates, skip):
    network = closed(create_network("stack", rates=rates, skip=skip))
    offsets = np.array(sorted({*support(rates), *([0] if skip else [])}))
    line = np.zeros(2 * sum(rates) + 1, bool)
    line[offsets + sum(rates)] = True
    seen = structural_support(network)
    assert np.array_equal(seen, np.outer(line, line))
    assert holes_of(seen).sum() == line.size**2 - line.sum() ** 2


def test_equal_rates_leave_holes_and_hybrid_rates_none():
    gridding, hybrid, plain = (inspect(create_network("stack", rates=r), 8, 8) for r in ([2, 2, 2], [1, 2, 5], [1] * 4))
    assert (gridding.holes, gridding.hole_share) == (13**2 - 7**2, (13**2 - 7**2) / 13**2)
    assert (hybrid.holes, hybrid.hole_share) == (plain.holes, plain.hole_share) == (0, 0)
    assert (hybrid.receptive_field, plain.receptive_field) == (17, 9)
    assert plain.support.sum() == (2 * 4 + 1) ** 2


def test_a_deep_stack_has_no_holes_where_its_gradients_fade():
    seen = structural_support(create_network("stack", rates=[1] * 60, width=2))
    assert seen.shape == (121, 121)
    assert seen.all()


def test_paths_through_pools_and_gates_are_seen():
    seen = structural_support(create_network("pooled", sees_all=False).train())
    assert seen.shape == (7, 7)
    assert seen.all()


def test_a_network_that_sees_everything_is_unbounded_and_has_no_holes():
    found = inspect(create_network("pooled"), 8, 8)
    assert found.receptive_radius is found.receptive_field is None
    assert found.effective_is_bound
    assert (found.probe, found.holes, found.hole_share) == (129, 0, 0)
    assert found.support.all()


def test_gradients_that_are_not_finite_are_no_holes(monkeypatch):
    monkeypatch.setattr(inspection, "_gradient", lambda _, image: torch.full_like(image[0], math.nan))
    assert not holes_of(structural_support(create_network("stack"))).any()


def test_holes_are_looked_for_between_what_is_seen():
    seen = np.zeros((7, 7), bool)
    seen[1:4, 2:7] = True
    seen[2, 3:5] = False
    assert bounding_box(seen) == (slice(1, 4), slice(2, 7))
    assert np.argwhere(holes_of(seen)).tolist() == [[2, 3], [2, 4]]


@pytest.mark.parametrize("name", ["context_basic", "context_large", "ddn", "duc", "hdc", "jorder"])
def test_no_dilated_network_leaves_holes_unless_asked_to(name):
    assert not holes_of(structural_support(create_network(name))).any()


def test_a_network_that_was_asked_to_leaves_holes():
    network = create_network("hdc", rates=[2, 2], width=4, repeats=1, allow_holes=True)
    assert holes_of(structural_support(network)).any()


# The effective field


def test_the_effective_field_of_a_uniform_kernel_is_the_kernel():
    network = create_network("stack", rates=[1])
    nn.init.constant_(network.layers[0].weight, 0.5)
    gradients = receptive_field(network)
    np.testing.assert_allclose(gradients, 1, rtol=1e-6)
    assert effective_size(gradients) == 3


def test_the_effective_field_is_that_of_the_repeated_kernel():
    network = create_network("stack", rates=[1] * 5, width=2)
    with torch.no_grad():
        for layer in network.layers[::2]:
            layer.weight.fill_(1)
            layer.bias.zero_()
    line = np.ones(1)
    for _ in range(5):
        line = np.convolve(line, np.ones(3))
    gradients = receptive_field(network)
    expected = np.outer(line, line) / line.max() ** 2
    np.testing.assert_allclose(gradients, expected, rtol=1e-5)
    expected[5, 5] = 0
    assert effective_size(gradients) == math.sqrt(1 + (expected > MATTERS * expected.max()).sum())


@pytest.mark.parametrize("skip", [False, True])
def test_the_effective_field_is_smaller_than_the_theoretical(skip):
    found = inspect(create_network("stack", rates=[1] * 10, width=16, skip=skip), 8, 8)
    assert 1 < found.effective_field < found.receptive_field == 21
    assert not found.effective_is_bound


def test_the_pixel_itself_does_not_hide_the_others():
    plain, skip = (create_network("stack", rates=[1] * 6, width=16, skip=skip) for skip in (False, True))
    skip.load_state_dict(plain.state_dict())
    assert receptive_field(skip)[6, 6] == 1
    assert effective_size(receptive_field(skip)) == pytest.approx(effective_size(receptive_field(plain)), abs=1)
    assert effective_size(np.zeros((5, 5))) == 1


def test_gradients_and_supports_are_repeatable_and_leave_the_random_numbers_alone():
    network, before = create_network("stack"), torch.get_rng_state()
    assert np.array_equal(receptive_field(network), receptive_field(network))
    assert np.array_equal(structural_support(network), structural_support(network))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("limit", ["GRADIENT_BUDGET", "MEMORY"])
def test_a_costly_network_is_looked_at_through_a_smaller_square(monkeypatch, limit):
    network = create_network("stack", rates=[9, 9], width=8)
    cost, kept = inspection._demand(network, 37)
    monkeypatch.setattr(inspection, limit, (4 * cost if limit == "GRADIENT_BUDGET" else kept) / 4)
    gradients = receptive_field(network, samples=4)
    assert gradients.shape == (17, 17)
    monkeypatch.setattr(inspection, "SUPPORT_BUDGET", 0)
    assert structural_support(network).shape == (1, 1)
    assert inspect(network, 8, 8).effective_is_bound == inspection._touches_border(gradients)


# Costs


@pytest.mark.parametrize(("height", "width"), [(1, 1), (20, 33)])
def test_costs_are_those_of_the_convolutions(height, width):
    found = inspect(create_network("stack", rates=[1, 1, 1], width=5), height, width)
    weights = 9 * (3 * 5 + 5 * 5 + 5 * 3)
    assert found.parameters == weights + 5 + 5 + 3
    assert found.multiply_adds == weights * height * width
    assert (found.height, found.width) == (height, width)
    assert found.seconds > 0
    assert found.peak_bytes is None or found.peak_bytes >= 0


@pytest.mark.parametrize("training", [False, True])
def test_the_network_stays_as_it_is(training):
    network = create_network("pooled", sees_all=False).double().train(training)
    before = copy.deepcopy(network.state_dict())
    inspect(network, 8, 8)
    after = network.state_dict()
    assert all(torch.equal(before[name], after[name]) and before[name].dtype == after[name].dtype for name in before)
    assert network.training == training
    assert all(p.requires_grad and p.grad is None and p.device.type == "cpu" for p in network.parameters())


@pytest.mark.parametrize("size", [(0, 5), (5, -1)])
def test_an_image_without_pixels_is_refused(size):
    with pytest.raises(SstlError, match=r"^an image of .* must be at least 1\.$"):
        inspect(create_network("stack"), *size)


@pytest.mark.skipif(not (memory._PROCESS / "clear_refs").exists(), reason="needs Linux")
def test_peak_memory_is_that_of_an_array():
    size = 100 * 2**20
    for _ in range(2):  # what the first one freed does not hide the second
        with peak_memory() as peak:
            assert peak.bytes is None
            np.ones(size, np.uint8)
        assert 0.98 * size < peak.bytes < 1.1 * size
    with peak_memory() as peak:
        pass
    assert peak.bytes < 0.05 * size


def test_peak_memory_is_unknown_elsewhere(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_PROCESS", tmp_path)
    for file in (None, "clear_refs", "status"):
        if file:
            (tmp_path / file).write_text("VmPeak: 5 kB\n")
        with peak_memory() as peak:
            pass
        assert peak.bytes is None


# The picture and the command


def picture(png: bytes) -> np.ndarray:
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def test_the_plot_shows_holes_where_there_are_some():
    networks = {rates: create_network("stack", rates=json.loads(rates)) for rates in ("[2, 2, 2]", "[1, 2, 5]")}
    fields = {name: receptive_field(network) for name, network in networks.items()}
    supports = {name: structural_support(network) for name, network in networks.items()}
    captions = dict.fromkeys(networks, "$13 x 13$\neffective 9")
    both = picture(receptive_field_plot(fields, supports, captions))
    assert both.shape[1] > 1.5 * both.shape[0]
    of_holes = [
        (
            picture(receptive_field_plot(*({name: part[name]} for part in (fields, supports, captions))))
            == (0xD5, 0x5E, 0)
        )
        .all(axis=-1)
        .sum()
        for name in networks
    ]
    assert of_holes[0] > 10_000
    assert of_holes[1] == 0


def test_the_plot_takes_fields_of_any_kind():
    fields = {str(side): np.zeros((side, side)) for side in (1, 3, 5, 7, 9)}
    supports = {name: np.eye(11, dtype=bool) for name in fields}
    picture(receptive_field_plot(fields, supports, dict.fromkeys(fields, "雨\a")))


def test_show_takes_the_arguments_of_a_network(run_cli, tmp_path):
    files = ("--plot", tmp_path / "fields.png", "--json", tmp_path / "stack.json")
    outcome = run_cli("networks", "show", "stack", "rates=[2, 2, 2]", *files, "--size", 1, 1, "width=2")
    assert outcome.code == 0, outcome.err
    assert "rates=[2, 2, 2] width=2" in outcome.out
    assert "13 x 13" in outcome.out
    assert "120 (71%)" in outcome.out
    assert f"wrote {tmp_path / 'fields.png'}\nwrote {tmp_path / 'stack.json'}\n" in outcome.out
    picture((tmp_path / "fields.png").read_bytes())
    shown = json.loads((tmp_path / "stack.json").read_text())
    (row,) = shown["sizes"]
    assert (row["size"], row["config"]) == (None, {"rates": [2, 2, 2], "width": 2})
    assert (row["holes"], row["receptive_field"], row["height"], row["width"]) == (120, 13, 1, 1)
    assert {"seconds", "peak_bytes", "effective_field", "hole_share", "precision", "multiply_adds"} <= row.keys()
    assert shown["environment"]["torch"] == torch.__version__


def test_show_says_what_is_unbounded(run_cli):
    outcome = run_cli("networks", "show", "pooled", "--size", 8, 8)
    assert "unbounded" in outcome.out
    assert "at least" in outcome.out
    assert "pooled: holes were looked for in the 129 x 129 pixels in the middle" in outcome.out


def test_show_takes_weights(run_cli, tmp_path):
    network = create_network("stack", rates=[1, 1])
    path = save_weights(tmp_path / "mine.safetensors", network)
    outcome = run_cli("networks", "show", "stack", "--weights", path, "--size", 8, 8)
    assert outcome.code == 0
    assert "mine " in outcome.out
    assert f" {effective_size(receptive_field(network)):.1f} " in outcome.out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["show", "stack", "rate=[2]"], "unexpected keyword argument 'rate'; see 'sstl networks show stack'"),
        (["show", "stack", "rates"], "'rates' is not of the form key=value."),
        (["show", "stack", "rates=[2"], "not valid YAML"),
        (["show", "stack", "--size", "0", "5"], "argument --size: '0' is not a whole number from 1 up (see"),
        (["show", "stack", "--size", "5"], "see 'sstl networks --help'"),
        (["show", "stack", "--weights", "joint-small"], "weights of network 'joint', not of 'stack'"),
        (["show", "stack", "--weights", "joint-small", "width=3"], "leave out key=value"),
        (["list", "stack", "width=3"], "belong to 'sstl networks show NAME'"),
        (["list", "--plot", "fields.png"], "belong to 'sstl networks show NAME'"),
    ],
)
def test_wrong_usage_is_told_in_one_line(run_cli, arguments, expected):
    outcome = run_cli("networks", *arguments)
    assert outcome.code == 2
    assert outcome.out == ""
    assert outcome.err.startswith("sstl: error: ")
    assert outcome.err.count("\n") == 1
    assert expected in outcome.err
