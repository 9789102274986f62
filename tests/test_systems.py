"""The published systems: sizes, receptive fields, closed forms of their parts, and each of them trained and kept."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_networks import count, make_positive
from torch import Tensor, nn
from toy import SOURCE, TARGET, pairs

from sstl.errors import SstlError
from sstl.methods import create_method
from sstl.networks import Network, create_network, joint, list_networks, load_weights, save_weights
from sstl.networks.base import pad_to_multiple
from sstl.networks.blocks import DilatedConv
from sstl.networks.context import ContextModule
from sstl.networks.deveil import Deveil
from sstl.networks.jorder import RATES, ContextualizedBlock
from sstl.ops.dilation import support
from sstl.ops.guided import box_mean, guided_filter
from sstl.ops.veil import KEPT, dark_channel, estimate_airlight, estimate_transmission, remove_veil
from sstl.rain import imaging
from sstl.types import PairedBatch, Restoration, UnpairedBatch

SMALL = {
    "context_basic": {"channels": 8},
    "context_large": {"channels": 2},
    "ddn": {"blocks": 3},
    "duc": {"width": 16},
    "hdc": {"width": 8},
    "idcgan": {"width": 8},
    "joint": {"size": "tiny"},
    "jorder": {"width": 8, "recurrences": 2},
    "jorder_e": {"width": 8, "blocks": 2},
    "jorder_e_practical": {"width": 8, "blocks": 1},
    "jorder_r": {"width": 8, "recurrences": 1, "stages": 2},
    "jorder_r_deveil": {"width": 8, "recurrences": 1, "stages": 2},
    "mspfn": {"width": 8, "units": 2},
    "prenet": {"stages": 3, "width": 8},
    "prenet_r": {"stages": 3, "width": 8},
    "prn": {"stages": 3, "width": 8},
    "prn_r": {"stages": 3, "width": 8},
    "routed": {"network": "joint", "options": {"size": "tiny"}},
}
DETECTING = ["joint", "jorder", "jorder_e", "jorder_e_practical", "jorder_r", "jorder_r_deveil", "routed"]
UNTRAINED = {  # patterns of the parameters that need not move
    "sirr_released": r"(biases|norms)\.1\b",  # the branch for real images
    "routed": r"^adapted\.",  # gets only what the fresh router recognises, which is nothing
    "mspfn": r"attention\.[123]\.",  # of two rectified units at this width, one or both of which may be off
}


def build(name: str, **config: object) -> Network:
    return create_network(name, **SMALL.get(name, {}) | config)


@pytest.fixture(scope="session")
def labelled() -> PairedBatch:
    return pairs(4, SOURCE, 1)


@pytest.fixture(scope="session")
def unlabelled() -> UnpairedBatch:
    return UnpairedBatch(pairs(4, TARGET, 2).rainy, ("",) * 4)


def every(restored: Restoration) -> tuple[Restoration, ...]:
    return (*restored.stages, restored)


# Every network


@pytest.mark.parametrize("shape", [(37, 53), (1, 1)])
@pytest.mark.parametrize("name", list_networks())
def test_every_network_restores_any_size(name, shape):
    rainy = torch.rand(2, 3, *shape)
    with torch.inference_mode():
        restored = build(name).eval()(rainy)
    for result in every(restored):
        assert result.background.shape == result.streak.shape == rainy.shape
        assert result.background.isfinite().all()
        assert result.streak.isfinite().all()
        if name in DETECTING:
            assert result.mask_logits.shape == (2, 1, *shape)
            assert result.mask_logits.isfinite().all()
        else:
            assert result.mask_logits is None
            torch.testing.assert_close(result.streak, rainy - result.background)


@pytest.mark.parametrize("name", list_networks())
def test_every_network_trains_and_comes_back_from_its_file(name, labelled, tmp_path):
    network = build(name)
    before = {key: parameter.detach().clone() for key, parameter in network.named_parameters()}
    method = create_method("supervised", network).train()
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    for _ in range(2):
        optimizer.zero_grad()
        loss = method(labelled)["loss"]
        loss.backward()
        optimizer.step()
        assert loss.isfinite()
    unmoved = []
    for key, parameter in network.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all()
        trained = parameter.grad is not None and parameter.grad.abs().sum() > 0
        if not (trained and not torch.equal(parameter, before[key])):
            unmoved.append(key)
    assert [key for key in unmoved if not re.search(UNTRAINED.get(name, "(?!)"), key)] == []

    network.eval()
    loaded = load_weights(save_weights(tmp_path / "w.safetensors", network)).network
    assert (loaded.name, loaded.config) == (name, SMALL.get(name, {}))
    rainy = torch.rand(1, 3, 37, 53)
    with torch.inference_mode():
        ours, theirs = network(rainy), loaded(rainy)
    assert ours.background.shape == rainy.shape
    assert ours.background.isfinite().all()
    assert torch.equal(ours.background, theirs.background)
    assert torch.equal(ours.streak, theirs.streak)


@pytest.mark.parametrize("name", list_networks())
def test_sirr_takes_a_step_on_every_network(name, labelled, unlabelled):
    network = build(name)
    method = create_method("sirr", network).train()
    fitted = {key: buffer.clone() for key, buffer in method.residuals.state_dict().items()}
    parts = method(labelled, unlabelled)
    assert all(value.isfinite().all() for value in parts.values())
    gradients = torch.autograd.grad(parts["likelihood"], [*network.parameters()], retain_graph=True, allow_unused=True)
    assert sum(float(g.abs().sum()) for g in gradients if g is not None) > 0
    parts["loss"].backward()
    torch.optim.SGD(network.parameters(), 1e-3).step()
    method.after_step(1)
    assert all(parameter.isfinite().all() for parameter in network.parameters())
    assert any(not torch.equal(buffer, fitted[key]) for key, buffer in method.residuals.state_dict().items())


@pytest.mark.parametrize("name", list_networks())
def test_images_of_a_batch_do_not_meet(name, labelled):
    network = build(name).eval()
    rainy = labelled.rainy[:3] * torch.tensor([0.4, 0.7, 1.0]).view(3, 1, 1, 1)
    with torch.inference_mode():
        together, alone = network(rainy), network(rainy[1:2])
    if name == "sirr_released":  # whose statistics are of the batch
        assert not torch.allclose(together.background[1:2], alone.background, atol=1e-3)
        return
    torch.testing.assert_close(together.background[1:2], alone.background, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(together.streak[1:2], alone.streak, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", list_networks())
def test_autocast_returns_float32(name, labelled):
    network = build(name).eval()
    rainy = labelled.rainy[:1, :, :24, :24]
    with torch.inference_mode():
        exact = network(rainy)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = network(rainy)
    for ours, theirs in zip(every(rough), every(exact), strict=True):
        layers = [ours.background, ours.streak, *([] if ours.mask_logits is None else [ours.mask_logits])]
        assert {layer.dtype for layer in layers} == {torch.float32}
        if name != "sirr_released":  # whose statistics magnify rounding errors
            torch.testing.assert_close(ours.background, theirs.background, atol=0.05, rtol=0)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("prenet", 168_963), ("jorder_e", 4_169_024), ("jorder_e_practical", 406_784), ("ddn", 57_369)],
)
def test_published_sizes(name, parameters):
    assert count(create_network(name)) == parameters


def test_what_the_parameters_of_ddn_are():
    network = create_network("ddn")
    kinds = {"kernel": 56_160, "biases": 403, "norms": 806}
    for kind, expected in kinds.items():
        assert sum(p.numel() for name, p in network.named_parameters() if name.split(".")[2] == kind) == expected


# Receptive fields


def seen_by(module: nn.Module, given: Tensor, row: int, column: int) -> Tensor:
    """Return where one output pixel's gradient is not zero, (H, W); of a network, through all that it returns."""
    given = given.clone().requires_grad_()
    result = module(given)
    if isinstance(result, Restoration):
        # Unequal weights, because O - B and B of a network that does not detect would cancel.
        layers = [result.background, 0.3 * result.streak, *([] if result.mask_logits is None else [result.mask_logits])]
        result = torch.cat(layers, dim=1)
    (gradient,) = torch.autograd.grad(result[..., row, column].sum(), given)
    return gradient.abs().sum(dim=(0, 1)) > 0


def offsets(seen: Tensor, centre: int) -> list[int]:
    return (seen.nonzero().flatten() - centre).tolist()


BOUNDED = [
    ("context_basic", {"channels": 2}),
    ("context_large", {"channels": 2}),
    ("ddn", {"width": 2, "blocks": 2}),
    ("duc", {"width": 4, "repeats": 1}),
    ("duc", {"width": 4, "repeats": 2, "factor": 3, "rates": (1, 2)}),
    ("hdc", {"width": 4}),
    ("hdc", {"width": 4, "repeats": 1, "rates": (2, 2), "allow_holes": True}),
    ("idcgan", {"width": 1}),
    ("joint", {"bottleneck": "context_basic"}),
    ("joint", {"head": "bilinear"}),
    ("joint", {"detect": False}),
    ("joint", {"bottleneck": "context_basic", "head": "bilinear", "detect": False, "stages": 2}),
    ("jorder", {"width": 4, "recurrences": 2}),
    ("jorder_e", {"width": 4, "blocks": 2}),
    ("jorder_e_practical", {"width": 4, "blocks": 1}),
    ("jorder_r", {"width": 4, "recurrences": 1, "stages": 3}),
    ("prenet", {"stages": 3, "width": 4, "blocks": 2}),
    ("prenet_r", {"stages": 2, "width": 4, "blocks": 3}),
    ("prn", {"stages": 2, "width": 4, "blocks": 2}),
    ("prn_r", {"stages": 2, "width": 4, "blocks": 3}),
    ("routed", {"network": "jorder", "options": {"width": 4, "recurrences": 2}}),
]


@pytest.mark.parametrize(
    ("name", "config"), BOUNDED, ids=lambda value: value if isinstance(value, str) else "-".join(value)
)
def test_declared_receptive_radius_is_the_measured_one(monkeypatch, name, config):
    monkeypatch.setitem(joint.SHAPES, "tiny", joint._Shape((4, 4, 4), (1, 1), 1))
    network = build(name, **config).double().eval()
    make_positive(network)
    stride, radius = network.stride, network.receptive_radius
    middle = stride * (radius // stride + 2)
    image = 0.5 + 0.01 * torch.rand(1, 3, 2, 2 * middle + stride, dtype=torch.float64)
    measured = 0
    for phase in {0, stride // 2, stride - 1}:  # a pixel's place in the coarsest cell shifts what it sees
        reached = offsets(seen_by(network, image, 1, middle + phase).any(dim=0), middle + phase)
        measured = max(measured, -reached[0], reached[-1])
    assert measured <= radius
    assert measured >= (radius if stride == 1 else 0.9 * radius)


@pytest.mark.parametrize(
    ("name", "config"), BOUNDED, ids=lambda value: value if isinstance(value, str) else "-".join(value)
)
def test_shifting_by_the_stride_shifts_the_result(monkeypatch, name, config):
    monkeypatch.setitem(joint.SHAPES, "tiny", joint._Shape((4, 4, 4), (1, 1), 1))
    network = build(name, **config).double().eval()
    radius, shift = network.receptive_radius, 3 * network.stride
    rainy = torch.rand(1, 3, 4, 2 * radius + shift + 17, dtype=torch.float64)
    with torch.inference_mode():
        whole, shifted = network(rainy), network(rainy[..., shift:])
    ours, theirs = whole.background[..., shift + radius : -radius], shifted.background[..., radius:-radius]
    assert ours.shape[-1] == 17
    torch.testing.assert_close(ours, theirs)
    assert not torch.equal(whole.background, rainy)


def test_every_network_that_declares_a_receptive_radius_is_measured():
    assert {name for name in list_networks() if build(name).receptive_radius is not None} == {n for n, _ in BOUNDED}


def test_statistics_of_the_image_make_the_receptive_field_unbounded():
    image = torch.rand(1, 3, 2, 150, dtype=torch.float64)
    for statistics, radius, reached in (("running", 34, 33), ("batch", None, 150 - 2 - 1)):
        network = build("ddn", width=2, blocks=1, statistics=statistics).double().eval()
        make_positive(network)
        assert network.receptive_radius == radius
        assert offsets(seen_by(network, image, 1, 2).any(dim=0), 2)[-1] >= reached
    image[..., -12:] = 0.95  # the airlight
    network = build("jorder_r_deveil", width=2, stages=1).double().eval()
    assert network.receptive_radius is None
    assert offsets(seen_by(network, image, 1, 2).any(dim=0), 2)[-1] > 100


@pytest.mark.parametrize("large", [False, True])
def test_receptive_fields_of_the_context_module(large):
    module = ContextModule(2, large).double()
    make_positive(module)
    line = torch.rand(1, 2, 1, 2 * 40 + 1, dtype=torch.float64)
    layers = [layer for layer in module if not isinstance(layer, nn.ReLU)]
    fields = []
    for depth in range(1, len(layers) + 1):
        seen = offsets(seen_by(nn.Sequential(*layers[:depth]), line, 0, 40)[0], 40)
        assert seen == [*range(seen[0], seen[-1] + 1)]  # no hole
        fields.append(len(seen))
    assert fields == [3, 5, 9, 17, 33, 65, 67, 67]  # table 1 of Yu and Koltun


def test_paths_of_jorder_see_5_9_and_13_pixels_and_two_of_them_leave_holes():
    block = ContextualizedBlock(2).double()
    make_positive(block)
    image = torch.rand(1, 2, 17, 17, dtype=torch.float64)
    for rate, path in zip(RATES, block.paths, strict=True):
        seen = seen_by(path, image, 8, 8)
        row = offsets(seen.any(dim=0), 8)
        assert row[-1] - row[0] + 1 == 4 * rate + 1
        assert row == support([rate, rate]) == [*range(-2 * rate, 2 * rate + 1, rate)]
        assert int(seen.sum()) == 5 * 5


def test_holes_of_a_block_of_jorder_and_none_of_the_network():
    block = ContextualizedBlock(2).double()
    make_positive(block)
    seen = seen_by(block, torch.rand(1, 2, 17, 17, dtype=torch.float64), 8, 8)
    expected = torch.zeros(17, 17, dtype=torch.bool)
    for rate in RATES:
        for row, column in itertools.product(support([rate, rate]), repeat=2):
            expected[8 + row, 8 + column] = True
    assert torch.equal(seen, expected)
    assert seen[6:11, 6:11].all()  # what the path of rate 1 fills; beyond it, holes are left
    assert sorted(set(range(-6, 7)) - set(offsets(seen[8], 8))) == [-5, 5]

    for recurrences in (1, 2):
        network = build("jorder", width=2, recurrences=recurrences).double()
        make_positive(network)
        radius = network.receptive_radius
        image = 0.5 + 0.01 * torch.rand(1, 3, 2 * radius + 3, 2 * radius + 3, dtype=torch.float64)
        assert seen_by(network, image, radius + 1, radius + 1)[1:-1, 1:-1].all()


# Context modules, hybrid dilated convolutions, dense upsampling


def test_the_basic_context_module_starts_as_the_identity():
    features = torch.rand(2, 5, 9, 11)
    with torch.no_grad():
        assert torch.equal(ContextModule(5)(features), features)


@pytest.mark.parametrize("seed", range(3))
def test_the_large_context_module_starts_near_the_identity(seed):
    torch.manual_seed(seed)
    module = ContextModule(4, large=True)
    features = torch.rand(2, 4, 30, 30)
    with torch.no_grad():
        assert (module(features) - features).square().mean().sqrt() < 0.1
        for layer in module:  # without the noise, exactly
            if isinstance(layer, nn.Conv2d):
                layer.weight[layer.weight < 0.1 * layer.weight.max()] = 0
        torch.testing.assert_close(module(features), features)


def test_widths_of_the_context_modules():
    for large, expected in ((False, (1,) * 8), (True, (2, 2, 4, 8, 16, 32, 32, 1))):
        layers = [layer for layer in ContextModule(3, large) if isinstance(layer, nn.Conv2d)]
        assert tuple(layer.out_channels for layer in layers) == tuple(3 * units for units in expected)
        assert [layer.kernel_size for layer in layers] == [(3, 3)] * 7 + [(1, 1)]
        assert [layer.dilation[0] for layer in layers] == [1, 1, 2, 4, 8, 16, 1, 1]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("rate", "shape"), [(1, (5, 6)), (2, (7, 9)), (3, (8, 5)), (5, (4, 4)), (2, (1, 1))])
def test_dilated_convolution_is_a_sum_over_taps(rate, shape, training):
    layer = DilatedConv(2, 3, rate).double().train(training)
    image = torch.rand(2, 2, *shape, dtype=torch.float64)
    expected = torch.empty(2, 3, *shape, dtype=torch.float64)
    for b, o, y, x in itertools.product(range(2), range(3), *map(range, shape)):
        total = float(layer.bias[o])
        for i, dy, dx in itertools.product(range(2), (-1, 0, 1), (-1, 0, 1)):
            row, column = y + rate * dy, x + rate * dx
            if 0 <= row < shape[0] and 0 <= column < shape[1]:
                total += float(layer.weight[o, i, dy + 1, dx + 1] * image[b, i, row, column])
        expected[b, o, y, x] = total
    torch.testing.assert_close(layer(image), expected)


@pytest.mark.parametrize(
    ("name", "config", "expected"),
    [
        ("hdc", {"rates": (2, 2, 2)}, "leave holes in the receptive field at offsets [-5, -3, -1, 1, 3, 5]"),
        ("duc", {"rates": (3, 3)}, "leave holes in the receptive field at offsets [-5, -4, -2, -1, 1, 2, 4, 5]"),
        ("hdc", {"rates": (1, 5, 2)}, "break the HDC rule"),
        ("hdc", {"rates": (), "allow_holes": True}, "rates must be >= 1"),
        ("hdc", {"rates": (1, 0), "allow_holes": True}, "rates must be >= 1"),
        ("hdc", {"width": 0}, "hdc: width is 0; it must be at least 1."),
        ("duc", {"repeats": 0}, "duc: repeats is 0; it must be at least 1."),
        ("duc", {"factor": 0}, "duc: factor is 0; it must be at least 1."),
        ("context_basic", {"channels": 0}, "context_basic: channels is 0; it must be at least 1."),
        ("context_large", {"channels": 0}, "context_large: channels is 0; it must be at least 1."),
        ("jorder", {"width": 0}, "jorder: width is 0; it must be at least 1."),
        ("jorder", {"recurrences": 0}, "jorder: recurrences is 0; it must be at least 1."),
        ("jorder_r", {"stages": 0}, "jorder_r: stages is 0; it must be at least 1."),
        ("jorder_r_deveil", {"recurrences": 0}, "recurrences is 0; it must be at least 1."),
        ("jorder_e", {"blocks": 0}, "jorder_e: blocks is 0; it must be at least 1."),
        ("prenet", {"stages": 0}, "prenet: stages is 0; it must be at least 1."),
        ("prn_r", {"blocks": -1}, "blocks is -1; it must be at least 1."),
        ("ddn", {"blocks": 0}, "ddn: blocks is 0; it must be at least 1."),
        ("ddn", {"statistics": "none"}, "ddn: statistics is 'none'; it must be running or batch."),
        ("sirr_released", {"branch": "rainy"}, "branch is 'rainy'; it must be one of supervised, real."),
        ("joint", {"bottleneck": "dilated"}, "joint: bottleneck is 'dilated'; it must be one of contextual, "),
        ("joint", {"head": "sharp"}, "joint: head is 'sharp'; it must be one of duc, bilinear."),
    ],
)
def test_what_does_not_fit_is_a_usage_error(name, config, expected):
    with pytest.raises(SstlError, match=r"^[^\n]*$") as caught:
        create_network(name, **config)
    assert expected in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("name", "config", "argument"),
    [
        ("prenet", {"stages": 2.5}, "stages"),
        ("jorder", {"recurrences": 1.5}, "recurrences"),
        ("duc", {"factor": 1.5}, "factor"),
        ("idcgan", {"width": 1.5}, "width"),
        ("jorder_e", {"peak": 0}, "peak"),
        ("jorder_e", {"peak": "white"}, "peak"),
    ],
)
def test_numbers_that_make_no_network_are_usage_errors(name, config, argument):
    with pytest.raises(SstlError, match=rf"^[^\n]*{argument}[^\n]*$"):
        create_network(name, **config)


@pytest.mark.parametrize(("rates", "allowed"), [((2, 2, 2), True), ((2, 3), True), ((1, 2), False), ((1, 2, 3), False)])
def test_holes_of_hdc_are_those_that_the_rates_enumerate(rates, allowed):
    network = build("hdc", rates=rates, width=4, repeats=1, allow_holes=allowed).double()
    make_positive(network)
    radius = sum(rates)
    seen = seen_by(network, torch.rand(1, 3, 2 * radius + 3, 2 * radius + 3, dtype=torch.float64), *(radius + 1,) * 2)
    expected = torch.zeros_like(seen)
    for row, column in itertools.product(support(rates), repeat=2):
        expected[radius + 1 + row, radius + 1 + column] = True
    assert torch.equal(seen, expected)
    assert bool(seen[1:-1, 1:-1].all()) is not allowed


@pytest.mark.parametrize("factor", [1, 2, 3, 4])
@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (8, 12)])
def test_duc_at_sizes_that_its_factor_does_not_divide(factor, shape):
    network = build("duc", factor=factor, width=4, repeats=1)
    assert network.head.out_channels == 3 * factor**2
    rainy = torch.rand(2, 3, *shape)
    padded = F.pad(rainy, (0, -shape[1] % factor, 0, -shape[0] % factor), mode="replicate")
    with torch.inference_mode():
        restored, larger = network(rainy).background, network(padded).background
    assert restored.shape == rainy.shape
    assert torch.equal(restored, larger[..., : shape[0], : shape[1]])
    assert padded.shape[-1] % factor == padded.shape[-2] % factor == 0
    assert torch.equal(pad_to_multiple(rainy, factor), padded)


def test_duc_places_the_pixels_of_a_cell():
    network = build("duc", factor=2, width=4, repeats=1)
    with torch.no_grad():
        network.head.weight.zero_()
        network.head.bias.copy_(torch.arange(12.0))  # colour by colour, in a cell row by row
        residual = network(torch.zeros(1, 3, 2, 4)).background[0]
    for colour in range(3):
        cell = 4 * colour + torch.tensor([[0.0, 1.0], [2.0, 3.0]])
        assert torch.equal(residual[colour], torch.cat([cell, cell], dim=1))


# The guided filter


def window(array: np.ndarray, row: int, column: int, radius: int) -> np.ndarray:
    return array[max(row - radius, 0) : row + radius + 1, max(column - radius, 0) : column + radius + 1]


def slow_guided_filter(guide: np.ndarray, image: np.ndarray, radius: int, smoothing: float) -> np.ndarray:
    """One channel by definition: in each window the line a * guide + b of least squares, then the mean of the lines."""
    slope, offset, filtered = (np.zeros_like(image) for _ in range(3))
    pixels = [*np.ndindex(*image.shape)]
    for pixel in pixels:
        x, y = window(guide, *pixel, radius).ravel(), window(image, *pixel, radius).ravel()
        slope[pixel] = ((x - x.mean()) * (y - y.mean())).mean() / (((x - x.mean()) ** 2).mean() + smoothing)
        offset[pixel] = y.mean() - slope[pixel] * x.mean()
    for pixel in pixels:
        filtered[pixel] = window(slope, *pixel, radius).mean() * guide[pixel] + window(offset, *pixel, radius).mean()
    return filtered


@pytest.mark.parametrize("shape", [(9, 7), (1, 6), (3, 3)])
@pytest.mark.parametrize(("radius", "smoothing"), [(1, 0.01), (2, 1.0), (5, 1e-3)])
def test_guided_filter_is_its_definition(shape, radius, smoothing):
    image = torch.rand(2, 3, *shape, dtype=torch.float64)
    for guide in (image, torch.rand(2, 3, *shape, dtype=torch.float64), image.mean(dim=1, keepdim=True)):
        filtered = guided_filter(guide, image, radius, smoothing)
        for b, c in itertools.product(range(2), range(3)):
            theirs = slow_guided_filter(guide[b, c % guide.shape[1]].numpy(), image[b, c].numpy(), radius, smoothing)
            np.testing.assert_allclose(filtered[b, c].numpy(), theirs, atol=1e-12)


@pytest.mark.parametrize(("shape", "radius"), [((2, 3), 5), ((1, 1), 15), ((9, 8), 2), ((7, 30), 10)])
def test_box_mean_uses_the_part_of_the_window_that_lies_in_the_image(shape, radius):
    image = torch.rand(2, 3, *shape, dtype=torch.float64)
    ours = box_mean(image, radius)
    for b, c, *pixel in np.ndindex(*image.shape):
        assert float(ours[b, c, pixel[0], pixel[1]]) == pytest.approx(
            window(image[b, c].numpy(), *pixel, radius).mean()
        )
    if radius >= max(shape):
        torch.testing.assert_close(ours, image.mean(dim=(2, 3), keepdim=True).expand_as(image))


def test_limits_of_the_guided_filter():
    image = torch.rand(1, 3, 20, 23, dtype=torch.float64)
    guide = torch.rand(1, 3, 20, 23, dtype=torch.float64)
    torch.testing.assert_close(guided_filter(image, image, 4, 0.0), image)
    torch.testing.assert_close(guided_filter(guide, image, 4, 1e9), box_mean(box_mean(image, 4), 4))
    flat = torch.full_like(image, 0.3)
    torch.testing.assert_close(guided_filter(flat, flat, 4, 0.1), flat)
    torch.testing.assert_close(guided_filter(guide, flat, 4, 0.1), flat)


# JORDER


PARTS = ("encoder", "block", "mask", "streak", "background")


def test_heads_of_jorder_are_in_its_order():
    network = build("jorder")
    restored = network(torch.rand(1, 3, 16, 16))
    reached = {}
    for layer in ("mask_logits", "streak", "background"):
        value = getattr(restored, layer).square().sum()
        gradients = torch.autograd.grad(value, [*network.parameters()], retain_graph=True, allow_unused=True)
        named = zip(dict(network.named_parameters()), gradients, strict=True)
        reached[layer] = {name.split(".")[0] for name, g in named if g is not None and g.abs().sum() > 0}
    assert reached == {"mask_logits": {*PARTS[:3]}, "streak": {*PARTS[:4]}, "background": {*PARTS}}


def test_each_head_of_jorder_sees_the_ones_before():
    network = build("jorder").eval()
    rainy = torch.rand(1, 3, 12, 12)
    with torch.no_grad():
        before = network(rainy)
        network.mask[2].bias += 1
        after = network(rainy)
        torch.testing.assert_close(after.mask_logits, before.mask_logits + 1)
        assert not torch.allclose(after.streak, before.streak)
        network.streak.weight[:, -1] = 0  # blind to the map
        before = network(rainy)
        network.mask[2].bias += 1
        after = network(rainy)
        assert torch.equal(after.streak, before.streak)
        assert not torch.allclose(after.background, before.background)


def test_a_fresh_jorder_subtracts_the_streak_in_the_map():
    network = build("jorder").eval()
    rainy = torch.rand(1, 3, 20, 24)
    with torch.no_grad():
        restored = network(rainy)
        rest = network.background.weight.clone()
        rest[:, -3:, 1, 1] -= torch.eye(3)
        assert rest.abs().max() <= 0.1 / (9 * (8 + 7)) ** 0.5  # a tenth of torch's uniform start
        assert (network.background.bias == 0).all()
        torch.testing.assert_close(restored.background, rainy - restored.removed, atol=0.3, rtol=0)
        network.background.weight -= rest
        restored = network(rainy)
    torch.testing.assert_close(restored.background, rainy - restored.streak * restored.mask)
    assert restored.removed.abs().max() > 0.01


def test_the_block_of_jorder_is_applied_again():
    once, twice = (build("jorder", recurrences=n) for n in (1, 2))
    assert count(once) == count(twice)
    twice.load_state_dict(once.state_dict())
    x = torch.rand(1, 8, 9, 9)
    rate_by_path = [
        sum(conv.weight.shape[2] // 2 * conv.dilation[0] for conv in path[::2]) for path in once.block.paths
    ]
    assert rate_by_path == [2, 4, 6]
    with torch.no_grad():
        total = x
        for rate, (first, _, second) in zip(RATES, once.block.paths, strict=True):
            hidden = F.conv2d(x, first.weight, first.bias, padding=rate, dilation=rate).clamp(min=0)
            total = total + F.conv2d(hidden, second.weight, second.bias, padding=rate, dilation=rate)
        torch.testing.assert_close(once.block(x), total)
        rainy = torch.rand(1, 3, 9, 9)
        features = once.encoder(rainy).relu()
        for network, applications in ((once, 1), (twice, 2)):
            given = features
            for _ in range(applications):
                given = network.block(given).relu()
            torch.testing.assert_close(network(rainy).mask_logits, network.mask(given))


@pytest.mark.parametrize("stages", [1, 2, 4])
def test_each_stage_of_jorder_r_removes_from_what_the_last_one_left(stages):
    network = build("jorder_r", stages=stages).eval()
    rainy = torch.rand(2, 3, 15, 18)
    left, removed, found = rainy, 0, torch.full((2, 1, 15, 18), -torch.inf)
    with torch.no_grad():
        results = every(network(rainy))
        assert len(results) == stages
        for result in results:
            step = network.remove(left)
            left, removed = step.background, removed + step.streak * step.mask_logits.sigmoid()
            found = torch.maximum(found, step.mask_logits)
            assert torch.equal(result.background, left)
            assert torch.equal(result.mask_logits, found)
            torch.testing.assert_close(result.removed, removed)


def test_stages_of_jorder_r_share_their_weights():
    assert len({count(build("jorder_r", stages=stages)) for stages in (1, 2, 5)}) == 1
    assert count(build("jorder_r")) == count(build("jorder"))
    assert count(build("jorder_r_deveil")) == count(build("jorder"))
    assert [build("jorder_r", stages=n).receptive_radius for n in (1, 3)] == [11, 33]


def test_streaks_of_jorder_r_stay_finite_where_the_map_is_sure_of_no_rain():
    network = build("jorder_r", stages=3)
    with torch.no_grad():
        network.remove.mask[2].bias -= 500
    restored = network(torch.rand(1, 3, 9, 9))
    assert restored.mask_logits.max() < -400
    for result in every(restored):
        assert result.streak.isfinite().all()
        assert (result.removed == 0).all()
    (restored.background.sum() + restored.streak.sum() + restored.mask_logits.sum()).backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


# JORDER-E


def test_factors_of_jorder_e_start_at_one():
    network = build("jorder_e").eval()
    rainy = torch.rand(1, 3, 11, 14)
    with torch.no_grad():
        for recurrence, result in zip(network.recurrences, every(network(rainy)), strict=True):
            seen = recurrence(rainy, None)
            mask, level = recurrence.by_mask, recurrence.by_level
            assert torch.equal(mask.factor(seen.mask), torch.ones(1, 8, 11, 14))
            assert torch.equal(level.factor(seen.level), torch.ones(1, 8, 11, 14))
            x = seen.features[-1]
            expected = rainy + recurrence.decoder(2 * x + mask.offset(seen.mask) + level.offset(seen.level))
            torch.testing.assert_close(seen.background, expected)
            if recurrence is network.recurrences[0]:
                assert torch.equal(result.background, seen.background)


def test_the_block_of_jorder_e_is_its_formula():
    block = build("jorder_e").recurrences[0].blocks[0]
    x = torch.rand(1, 8, 10, 13)
    expected = x
    with torch.no_grad():
        for share, rates, path in zip((1, 0.1, 0.1), ((1, 1), (2, 2), (2, 4)), block.paths, strict=True):
            branch = x
            for rate, layer in zip(rates, path[::2], strict=True):
                branch = F.conv2d(branch, layer.weight, layer.bias, padding=rate, dilation=rate).clamp(min=0)
            expected = expected + share * branch
        torch.testing.assert_close(block(x), expected)


def test_the_second_recurrence_of_jorder_e_adds_what_the_first_found():
    network = build("jorder_e").eval()
    first, second = network.recurrences
    rainy = torch.rand(1, 3, 9, 12)
    with torch.no_grad():
        for layer in (second.mask[1], second.level[1]):
            layer.weight.zero_()
            layer.bias.zero_()
        restored = network(rainy)
        assert torch.equal(restored.mask_logits, restored.stages[0].mask_logits)
        assert torch.equal(restored.streak, restored.stages[0].streak)
        for layer in (second.mask[1], second.level[1]):
            layer.bias.copy_(torch.arange(1.0, 1 + len(layer.bias)))
        restored = network(rainy)
        torch.testing.assert_close(restored.mask_logits, restored.stages[0].mask_logits + 1)  # 2 - 1
        torch.testing.assert_close(restored.streak, restored.stages[0].streak - torch.tensor([1, 2, 3.0]).view(3, 1, 1))

        for parameter in (*second.encoder.parameters(), *second.blocks.parameters()):
            parameter.zero_()
        seen = first(rainy, None)
        sums = itertools.accumulate(seen.features)
        for ours, theirs in zip(second(rainy, seen).features, sums, strict=True):
            torch.testing.assert_close(ours, theirs)


def test_the_second_recurrence_of_jorder_e_sees_the_first_background():
    network = build("jorder_e").eval()
    first, second = network.recurrences
    rainy, other = torch.rand(2, 1, 3, 9, 12)
    with torch.no_grad():
        seen = first(rainy, None)
        changed = seen._replace(background=other)
        assert not torch.allclose(second(rainy, seen).background, second(rainy, changed).background)
        second.encoder.weight[:, 3:] = 0
        assert torch.equal(second(rainy, seen).background, second(rainy, changed).background)
        twice = first(rainy, None).features[0]
        first.encoder.weight[:, :3] += first.encoder.weight[:, 3:]
        first.encoder.weight[:, 3:] = 0
        torch.testing.assert_close(first(rainy, None).features[0], twice)  # it is given O twice


def test_peak_of_jorder_e_is_the_range_inside():
    one, other = (build("jorder_e", peak=peak).eval() for peak in (1.0, 255.0))
    other.load_state_dict(one.state_dict())
    rainy = torch.rand(1, 3, 10, 10)
    with torch.no_grad():
        for inside, outside in zip(every(one(255 * rainy)), every(other(rainy)), strict=True):
            torch.testing.assert_close(outside.background, inside.background / 255)
            torch.testing.assert_close(outside.streak, inside.streak / 255)
            torch.testing.assert_close(outside.mask_logits, inside.mask_logits)
        assert not torch.allclose(one(rainy).mask_logits, other(rainy).mask_logits)


# DDN and SIRR's released network


def test_batch_statistics_fix_the_energy_that_is_taken(photo, labelled):
    network = build("ddn", statistics="batch").double().eval()
    last = network.layers[-1].norms[0]
    with torch.no_grad():
        last.weight.copy_(torch.tensor([0.03, -0.05, 0.2]))
        last.bias.copy_(torch.tensor([0.01, 0.02, -0.04]))
        for rainy in (photo, labelled.rainy, labelled.clean, torch.rand(1, 3, 24, 24)):
            rainy = rainy.double()
            deviation, mean = torch.std_mean(network(rainy).background - rainy, dim=(0, 2, 3), correction=0)
            torch.testing.assert_close(mean, last.bias)
            torch.testing.assert_close(deviation, last.weight.abs(), rtol=1e-3, atol=0)
        black = torch.zeros(1, 3, 6, 6, dtype=torch.float64)  # no detail at all, so no deviation to divide by
        torch.testing.assert_close(network(black).background, last.bias.view(1, 3, 1, 1).expand_as(black))


def test_running_statistics_restore_an_image_alone_as_in_a_batch():
    networks = {statistics: build("ddn", statistics=statistics) for statistics in ("running", "batch")}
    rainy = torch.rand(4, 3, 16, 20) * torch.linspace(0.2, 1, 4).view(4, 1, 1, 1)
    with torch.no_grad():
        for network in networks.values():
            network.train()(rainy)
            network.eval()
        for statistics, network in networks.items():
            alone, together = network(rainy[:1]).background, network(rainy).background[:1]
            assert torch.allclose(alone, together, atol=1e-5) is (statistics == "running")


def test_ddn_sees_only_the_detail_layer(photo):
    network = build("ddn").double().eval()
    rainy = photo.double()
    with torch.no_grad():
        residual = network(rainy).background - rainy
        torch.testing.assert_close(network(rainy + 0.3).background - rainy - 0.3, residual)  # no filter sees a constant
        x = network.layers[0](rainy - guided_filter(rainy, rainy, 15, 1.0), 0).relu()
        for one, two in zip(network.layers[1:-1:2], network.layers[2:-1:2], strict=True):
            x = x + two(one(x, 0).relu(), 0).relu()
        torch.testing.assert_close(residual, network.layers[-1](x, 0))


def test_branches_of_the_released_sirr_share_kernels_alone():
    network = create_network("sirr_released").eval()
    assert count(network) == 57_369 + 403 + 806
    assert sum(name.endswith("kernel") for name, _ in network.named_parameters()) == 26
    assert create_network("sirr_released", branch="real").branch == 1
    rainy = torch.rand(1, 3, 20, 20)
    with torch.no_grad():
        supervised, real = (network.restore(rainy, branch).background for branch in (0, 1))
        assert torch.equal(supervised, real)  # so they start
        assert torch.equal(network(rainy).background, supervised)
        for layer in network.layers:
            layer.biases[1].normal_()
            layer.norms[1].weight.normal_()
            layer.norms[1].bias.normal_()
        assert torch.equal(network.restore(rainy, 0).background, supervised)
        assert not torch.allclose(network.restore(rainy, 1).background, real, atol=0.1)
        network.branch = 1
        assert torch.equal(network(rainy).background, network.restore(rainy, 1).background)
        before = network.restore(rainy, 1).background
        network.layers[3].kernel.mul_(-1)
        assert not torch.allclose(network.restore(rainy, 0).background, supervised)
        assert not torch.allclose(network.restore(rainy, 1).background, before)


# PReNet and PRN


FAMILY = ("prenet", "prenet_r", "prn", "prn_r")


@pytest.mark.parametrize("name", FAMILY)
def test_each_stage_of_the_prenet_family_sees_the_one_before(name):
    network = build(name, stages=4).eval()
    rainy = torch.rand(1, 3, 12, 15)
    with torch.no_grad():
        results = every(network(rainy))
        assert len(results) == 4
        assert all(not torch.equal(a.background, b.background) for a, b in itertools.pairwise(results))
        for stages in (1, 2, 3):  # unfolded further, the stages stay what they were
            fewer = build(name, stages=stages).eval()
            fewer.load_state_dict(network.state_dict())
            assert torch.equal(fewer(rainy).background, results[stages - 1].background)
        network.stem.weight[:, 3:] = 0  # blind to it: only a memory tells the stages apart
        first, second, *_ = every(network(rainy))
    assert torch.equal(first.background, second.background) is name.startswith("prn")


@pytest.mark.parametrize("name", ["prenet_r", "prn_r"])
def test_blocks_of_the_r_variants_are_one_block(name):
    shared, plain = build(name, blocks=3).eval(), build(name.removesuffix("_r"), blocks=3).eval()
    single = build(name.removesuffix("_r"), blocks=1)
    assert count(shared) == count(single) == count(build(name, blocks=7))
    state = shared.state_dict()
    copies = {re.sub(r"^blocks\.0", f"blocks.{i}", key): value for key, value in state.items() for i in range(3)}
    plain.load_state_dict(copies)
    rainy = torch.rand(1, 3, 10, 10)
    with torch.inference_mode():
        assert torch.equal(shared(rainy).background, plain(rainy).background)


def test_only_prenet_has_a_memory():
    memory = 4 * (9 * 16 * 8 + 8)
    assert count(build("prenet")) - count(build("prn")) == memory
    assert count(build("prenet_r")) - count(build("prn_r")) == memory
    assert build("prn").memory is None
    assert build("prn_r").memory is None


def test_what_the_memory_of_prenet_keeps_matters(monkeypatch):
    network = build("prenet").eval()
    rainy = torch.rand(1, 3, 12, 12)
    with torch.inference_mode():
        kept = every(network(rainy))
        step = network.memory.forward
        monkeypatch.setattr(network.memory, "forward", lambda x, _: step(x, None))
        reset = every(network(rainy))
    assert torch.equal(kept[0].background, reset[0].background)
    assert all(not torch.allclose(a.background, b.background) for a, b in zip(kept[1:], reset[1:], strict=True))


def test_the_memory_of_prenet_is_a_convolutional_lstm():
    memory = build("prenet").memory
    xs = torch.rand(2, 1, 8, 6, 7)
    weights = memory.gates.weight.unflatten(0, (4, 8))
    biases = memory.gates.bias.unflatten(0, (4, 8))
    hidden = cell = torch.zeros(1, 8, 6, 7)
    state = None
    with torch.no_grad():
        for x in xs:
            seen = torch.cat([x, hidden], dim=1)
            i, f, g, o = (F.conv2d(seen, w, b, padding=1) for w, b in zip(weights, biases, strict=True))
            cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
            hidden = o.sigmoid() * cell.tanh()
            state = memory(x, state)
            torch.testing.assert_close(state, (hidden, cell))


# Removing the veil


def airlights() -> Tensor:
    return torch.tensor([[0.8, 0.7, 0.9], [0.6, 0.6, 0.6]], dtype=torch.float64)[..., None, None]


@pytest.mark.parametrize("transmission", [0.1, 0.5, 0.9, 1.0])
def test_removing_the_veil_inverts_heavy_rain_without_streaks(transmission):
    clear = torch.rand(2, 3, 40, 50, dtype=torch.float64)
    clear[:, :, ::3, ::3] = 0  # in every window, so that the prior holds
    assert (dark_channel(clear) == 0).all()
    none = torch.zeros_like(clear)
    veiled = imaging.heavy(clear, none, none[:, :1], transmission, airlights())
    # The dark channel of t J / A + 1 - t is 1 - t, of which 0.95 is taken for a veil.
    estimated = 1 - KEPT * (1 - transmission)
    torch.testing.assert_close(
        estimate_transmission(veiled, airlights()), torch.full((2, 1, 40, 50), estimated, dtype=torch.float64)
    )
    expected = (transmission * clear + (1 - KEPT) * (1 - transmission) * airlights()) / estimated
    torch.testing.assert_close(remove_veil(veiled, airlights()), expected)
    if transmission == 1:
        assert torch.equal(remove_veil(veiled, airlights()), clear)


def test_the_airlight_is_that_of_a_bright_hazy_patch():
    image = 0.6 * torch.rand(2, 3, 64, 80, dtype=torch.float64)
    image[:, 0, ::3, ::3] = 0
    image[0, :, 5:20, 40:60], image[1, :, 40:60, 10:30] = airlights()
    image[:, :, 30, 30] = 1  # a lamp is brighter, but not over a window
    torch.testing.assert_close(estimate_airlight(image), airlights())
    for one, airlight in zip(image, airlights(), strict=True):
        torch.testing.assert_close(estimate_airlight(one[None]), airlight[None])


@pytest.mark.parametrize("shape", [(1, 1), (3, 4), (37, 53)])
def test_dark_channel_and_bounds_of_the_transmission(shape):
    image = torch.rand(2, 3, *shape)
    dark = dark_channel(image)
    for b, row, column in np.ndindex(2, *shape):
        near = image[b, :, max(row - 2, 0) : row + 3, max(column - 2, 0) : column + 3]
        assert dark[b, 0, row, column] == near.min()
    for airlight in (estimate_airlight(image), torch.zeros(2, 3, 1, 1), torch.ones(1, 3, 1, 1)):
        transmission = estimate_transmission(image, airlight)
        assert transmission.shape == (2, 1, *shape)
        assert transmission.min() >= 0.05
        assert transmission.max() <= 1
        restored = remove_veil(image, airlight)
        assert restored.shape == image.shape
        assert restored.min() >= 0
        assert restored.max() <= 1


def test_deveil_derains_before_and_after(photo):
    none = torch.zeros_like(photo)
    rainy = imaging.heavy(photo, none, none[:, :1], 0.5, 0.8)
    network = build("jorder").eval()
    deveil = Deveil(network).eval()
    with torch.inference_mode():
        restored, first = deveil(rainy), network(rainy)
        assert len(restored.stages) == 1
        assert torch.equal(restored.stages[0].background, first.background)
        assert torch.equal(restored.streak, first.streak)
        assert torch.equal(restored.mask_logits, first.mask_logits)
        veiled = first.background.clamp(0, 1)
        airlight = estimate_airlight(veiled)
        assert torch.equal(restored.background, network(remove_veil(veiled, airlight)).background)
        assert torch.equal(deveil.airlight_of(rainy), airlight)
        deveil.airlight = torch.full((1, 3, 1, 1), 0.8)  # of the picture that this is a tile of
        assert torch.equal(deveil(rainy).background, network(remove_veil(veiled, deveil.airlight)).background)
        assert not torch.equal(deveil(rainy).background, restored.background)


def test_jorder_r_deveil_is_jorder_r_around_the_veil(photo):
    deveil, plain = build("jorder_r_deveil").eval(), build("jorder_r").eval()
    plain.load_state_dict({key.removeprefix("network."): value for key, value in deveil.state_dict().items()})
    with torch.inference_mode():
        restored, first = deveil(photo), plain(photo)
    (stage,) = restored.stages
    assert torch.equal(stage.background, first.background)
    assert [torch.equal(a.background, b.background) for a, b in zip(stage.stages, first.stages, strict=True)] == [True]
    assert torch.equal(restored.mask_logits, first.mask_logits)
