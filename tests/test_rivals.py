"""ID-CGAN and MSPFN: any size, the published layouts, what every part sees, and errors that say what to do."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sstl.errors import SstlError
from sstl.networks import create_network, list_networks
from sstl.networks.idcgan import DenseBlock, MultiScaleDiscriminator
from sstl.networks.mspfn import AttentionBlock, AttentionUnit, Cascade
from sstl.networks.recurrent import ConvLSTM

SMALL = {"idcgan": {"width": 4}, "mspfn": {"width": 8, "units": 2}}


def count(network: nn.Module) -> float:
    """Return the number of parameters, in millions."""
    return sum(p.numel() for p in network.parameters()) / 1e6


def unreached(network: nn.Module) -> list[str]:
    return [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]


def zero(layer: nn.Module) -> None:
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()


def make_positive(network: nn.Module) -> None:
    """Make every convolution a positive average, so that no path cancels and the gradients show all that is seen."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.abs_().add_(0.01)
            if parameter.ndim == 4:
                parameter.div_(4 * parameter.sum(dim=(1, 2, 3), keepdim=True))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (37, 53), (64, 64)])
@pytest.mark.parametrize("name", SMALL)
def test_any_size_works(name, shape, training):
    network = create_network(name, **SMALL[name]).train(training)
    rainy = torch.rand(1, 3, *shape)
    with torch.no_grad():
        restored = network(rainy)
    assert restored.background.shape == rainy.shape
    assert restored.background.isfinite().all()
    assert restored.mask_logits is None
    assert restored.stages == ()
    torch.testing.assert_close(restored.streak, rainy - restored.background)


@pytest.mark.parametrize(
    ("name", "config", "low", "high"),
    [
        ("idcgan", {}, 1.7, 1.9),
        ("idcgan", {"width": 64}, 7.0, 7.5),
        ("mspfn", {}, 20.5, 21.5),
        ("mspfn", {"width": 32, "units": 4}, 2.0, 2.2),
    ],
)
def test_sizes(name, config, low, high):
    with torch.device("meta"):
        assert low <= count(create_network(name, **config)) <= high


@pytest.mark.parametrize(("name", "width"), [("idcgan", 4), ("mspfn", 32)])
def test_gradient_reaches_every_parameter(name, width):
    network = create_network(name, **{**SMALL[name], "width": width})
    for module in network.modules():
        if isinstance(module, nn.PReLU):
            nn.init.constant_(module.weight, 0.25)  # a closed rectifier passes no gradient
    network(torch.rand(2, 3, 32, 32)).background.square().sum().backward()
    assert unreached(network) == []


@pytest.mark.parametrize("name", SMALL)
def test_images_of_a_batch_do_not_meet_when_restoring(name):
    network = create_network(name, **SMALL[name]).eval()
    rainy = torch.rand(2, 3, 24, 40)
    with torch.inference_mode():
        together, alone = network(rainy).background, network(rainy[1:]).background
    torch.testing.assert_close(together[1:], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", SMALL)
def test_autocast_returns_float32(name):
    network = create_network(name, **SMALL[name]).eval()
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        restored = network(torch.rand(1, 3, 16, 16))
    assert restored.background.dtype == restored.streak.dtype == torch.float32


@pytest.mark.parametrize("name", SMALL)
def test_create_network_remembers_how(name):
    network = create_network(name, **SMALL[name])
    assert (network.name, network.config) == (name, SMALL[name])
    assert name in list_networks()


@pytest.mark.parametrize(
    ("name", "config", "expected"),
    [
        ("idcgan", {"width": 0}, "idcgan: width is 0; it must be at least 1."),
        ("mspfn", {"width": 0}, "mspfn: width is 0; it must be at least 1."),
        ("mspfn", {"units": 0}, "mspfn: units is 0; it must be at least 1."),
    ],
)
def test_what_does_not_fit_is_a_usage_error(name, config, expected):
    with pytest.raises(SstlError) as caught:
        create_network(name, **config)
    assert str(caught.value) == expected


@pytest.mark.parametrize("name", SMALL)
def test_width_one_is_the_least(name):
    with torch.no_grad():
        assert create_network(name, width=1)(torch.rand(1, 3, 9, 9)).background.isfinite().all()


# ID-CGAN


def test_dense_blocks_end_with_the_published_widths():
    network = create_network("idcgan", width=8).eval()
    ends: list[int] = []
    for block in network.modules():
        if isinstance(block, DenseBlock):
            block.register_forward_hook(lambda _module, _inputs, output: ends.append(output.shape[1]))
    with torch.no_grad():
        network(torch.rand(1, 3, 16, 16))
    assert [end * 64 // 8 for end in ends] == [256, 512, 1024, 768, 640, 384, 192, 64 + 32]


def test_a_dense_layer_sees_all_before_it_and_leaves_them_unchanged():
    block, x = DenseBlock(3, 2, 4).eval(), torch.rand(1, 3, 5, 5)
    with torch.no_grad():
        grown = block(x)
        assert torch.equal(grown[:, :3], x)
        for i, layer in enumerate(block.layers):
            assert torch.equal(grown[:, 3 + 2 * i : 5 + 2 * i], layer(grown[:, : 3 + 2 * i]))


def test_images_are_symmetric_around_zero_inside():
    network = create_network("idcgan", width=1).eval()
    given: list[Tensor] = []
    network.stem.register_forward_pre_hook(lambda _module, inputs: given.append(inputs[0]))
    zero(network.head[-1])
    nn.init.constant_(network.head[-1].bias, 0.3)
    rainy = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        background = network(rainy).background
    torch.testing.assert_close(given[0], 2 * rainy - 1)
    torch.testing.assert_close(background, torch.full_like(rainy, (math.tanh(0.3) + 1) / 2))


def test_the_declared_receptive_radius_is_the_measured_one():
    network = create_network("idcgan", width=1).double().eval()
    make_positive(network)
    reach = network.stride * (network.receptive_radius // network.stride + 2)
    image = torch.rand(1, 3, 16, 2 * reach + network.stride, dtype=torch.float64, requires_grad=True)
    background = network(image).background[0, :, 5].sum(dim=0)
    measured = 0
    for column in range(reach, reach + network.stride):  # a pixel's place in the coarsest cell shifts what it sees
        (gradient,) = torch.autograd.grad(background[column], image, retain_graph=True)
        seen = gradient.abs().sum(dim=(0, 1, 2)).nonzero().flatten()
        measured = max(measured, column - int(seen[0]), int(seen[-1]) - column)
    assert measured == network.receptive_radius


def test_two_steps_lower_the_error(photo):
    network = create_network("idcgan", width=8)
    optimiser = torch.optim.Adam(network.parameters(), 1e-3)
    clean = torch.cat([photo[..., :32, :32], photo[..., 40:72, 40:72]])
    rainy = (clean + 0.3 * (torch.rand(2, 1, 32, 32) > 0.9)).clamp(0, 1)
    losses = []
    for _ in range(3):
        loss = F.l1_loss(network(rainy).background, clean)
        losses.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert losses[2] < losses[1] < losses[0]


@pytest.mark.parametrize(("height", "width"), [(32, 32), (48, 80), (64, 70)])
def test_the_discriminator_works_from_32_pixels_on(height, width):
    discriminator = MultiScaleDiscriminator(4)
    logits = discriminator(torch.rand(1, 6, height, width))
    assert logits.shape == (1, 1, height // 8 - 1, width // 8 - 1)
    logits.square().sum().backward()
    assert unreached(discriminator) == []


def test_the_released_discriminator_is_48_wide():
    with torch.device("meta"):
        assert 0.4 <= count(MultiScaleDiscriminator()) <= 0.45


def test_the_discriminator_is_conditional():
    discriminator, candidate = MultiScaleDiscriminator(4).eval(), torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        first, second = (discriminator(torch.cat([torch.rand(1, 3, 32, 32), candidate], dim=1)) for _ in range(2))
    assert (first - second).abs().min() > 0


def test_the_pyramid_shows_every_logit_the_whole_image():
    discriminator = MultiScaleDiscriminator(4).double()
    for name, module in discriminator.features.named_children():
        if isinstance(module, nn.BatchNorm2d):  # the statistics of a batch see the whole image by themselves
            discriminator.features[int(name)] = nn.Identity()
    make_positive(discriminator)

    def seen() -> Tensor:
        pair = torch.rand(1, 6, 128, 128, dtype=torch.float64, requires_grad=True)
        (gradient,) = torch.autograd.grad(discriminator(pair)[0, 0, 7, 7], pair)
        return gradient[0].abs().sum(dim=0) > 0

    assert seen().all()
    for scale in discriminator.pyramid:
        zero(scale)
    assert not seen()[[0, 0, -1, -1], [0, -1, 0, -1]].any()


def test_a_discriminator_without_width_is_a_usage_error():
    with pytest.raises(SstlError, match=r"^idcgan's discriminator: width is 0; it must be at least 1\.$"):
        MultiScaleDiscriminator(0)


# MSPFN


@pytest.mark.parametrize("units", [1, 3])
def test_every_fine_fusion_has_seven_attention_blocks(units):
    modules = [*create_network("mspfn", width=4, units=units).fine.modules()]
    assert sum(isinstance(module, AttentionUnit) for module in modules) == 3 * units
    assert sum(isinstance(module, AttentionBlock) for module in modules) == (1 + 3 + 3) * units


def test_attention_is_between_zero_and_one_per_channel():
    block, x = AttentionBlock(8), torch.randn(2, 8, 6, 7)
    attention = block.attention(block.branch(x))
    assert attention.shape == (2, 8, 1, 1)
    assert (attention > 0).all()
    assert (attention < 1).all()
    torch.testing.assert_close(block(x), x + block.branch(x) * attention)


def test_attention_is_a_half_without_its_last_convolution():
    block, x = AttentionBlock(8), torch.randn(2, 8, 6, 7)
    zero(block.attention[-2])
    torch.testing.assert_close(block(x), x + 0.5 * block.branch(x))


@pytest.mark.parametrize("fusion", ["coarse", "fine"])
def test_fusion_goes_from_coarse_to_fine(fusion):
    network = create_network("mspfn", width=4, units=1)
    cascade = network.coarse if fusion == "coarse" else network.fine[0]
    assert isinstance(cascade, Cascade)
    features = [torch.rand(1, 4, 16 // scale, 16 // scale, requires_grad=True) for scale in (1, 2, 4)]
    fused = cascade(*features)
    assert [f.shape for f in fused] == [f.shape for f in features]
    sees = [
        [g is not None for g in torch.autograd.grad(f.sum(), features, retain_graph=True, allow_unused=True)]
        for f in fused
    ]
    assert sees == [[True, True, True], [False, True, True], [False, False, True]]


def test_a_fresh_mspfn_removes_little_and_without_its_last_convolution_nothing():
    network = create_network("mspfn", width=16, units=17).eval()
    rainy = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert 0 < network(rainy).streak.abs().mean() < 0.02
        zero(network.head[-1])
        assert torch.equal(network(rainy).background, rainy)


def test_mspfn_sees_all_of_the_image():
    network = create_network("mspfn", width=4, units=1).double().eval()
    make_positive(network)
    rainy = torch.rand(1, 3, 8, 512, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(network(rainy).streak[0, :, 4, 0].sum(), rainy)
    assert network.receptive_radius is None
    assert (gradient.abs().sum(dim=(0, 1)) > 0).all()


# ConvLSTM


def slow_convolution(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A 3x3 convolution as a sum over the shifted input, channel by channel."""
    height, width = x.shape[-2:]
    padded = F.pad(x, (1, 1, 1, 1))
    result = bias.view(1, -1, 1, 1).repeat(len(x), 1, height, width)
    for out in range(len(weight)):
        for channel in range(x.shape[1]):
            for row in range(3):
                for column in range(3):
                    shifted = padded[:, channel, row : row + height, column : column + width]
                    result[:, out] += weight[out, channel, row, column] * shifted
    return result


def slow_step(cell: ConvLSTM, x: Tensor, hidden: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
    """The equations of the cell, gate by gate."""
    gates = []
    for number in range(4):
        own = slice(number * hidden.shape[1], (number + 1) * hidden.shape[1])
        seen = torch.cat([x, hidden], dim=1)
        gates.append(slow_convolution(seen, cell.gates.weight[own], cell.gates.bias[own]))
    given, kept, shown = (1 / (1 + torch.exp(-gates[number])) for number in (0, 1, 3))
    memory = kept * memory + given * torch.tanh(gates[2])
    return shown * torch.tanh(memory), memory


@torch.no_grad()
def test_conv_lstm_is_its_equations():
    cell, x = ConvLSTM(3, 2).double(), torch.randn(2, 3, 4, 5, dtype=torch.float64)
    hidden, memory = torch.randn(2, 2, 2, 4, 5, dtype=torch.float64)
    for ours, slow in zip(cell(x, (hidden, memory)), slow_step(cell, x, hidden, memory), strict=True):
        assert ours.shape == (2, 2, 4, 5)
        torch.testing.assert_close(ours, slow)


@torch.no_grad()
def test_conv_lstm_without_a_state_starts_from_zeros():
    cell, x = ConvLSTM(3, 2), torch.randn(2, 3, 4, 5)
    zeros = torch.zeros(2, 2, 4, 5)
    for ours, slow in zip(cell(x), slow_step(cell, x, zeros, zeros), strict=True):
        assert ours.shape == slow.shape
        torch.testing.assert_close(ours, slow)
