"""The joint network: any size, what each head sees, its receptive field, and errors that say what to do."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from sstl.errors import SstlError
from sstl.networks import Network, create_network, joint, list_networks

HEADS = ("head_mask", "head_streak", "head_background")


@pytest.fixture
def pocket(monkeypatch):
    """Make a ``joint`` of a few channels, in float64: small enough for finite differences and exact supports."""
    monkeypatch.setitem(joint.SHAPES, "tiny", joint._Shape((4, 4, 4), (1, 1), 1))

    def make(**config: object) -> Network:
        return create_network("joint", size="tiny", **config).double().eval()

    return make


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def make_positive(network: nn.Module) -> None:
    """Make every convolution a positive average: no rectifier is closed, so the gradients show all that is seen."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.abs_().add_(0.01)
            if parameter.ndim == 4:
                parameter.div_(4 * parameter.sum(dim=(1, 2, 3), keepdim=True))


@pytest.mark.parametrize("stages", [1, 2])
@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (37, 53), (8, 8)])
def test_any_size_works(shape, stages):
    network = create_network("joint", size="tiny", stages=stages).eval()
    rainy = torch.rand(2, 3, *shape)
    with torch.inference_mode():
        restored = network(rainy)
    assert len(restored.stages) == stages - 1
    for result in (restored, *restored.stages):
        assert result.background.shape == result.streak.shape == rainy.shape
        assert result.mask_logits.shape == result.mask.shape == (2, 1, *shape)
        assert all(layer.isfinite().all() for layer in (result.background, result.streak, result.mask_logits))
        assert (result.streak >= 0).all()


@pytest.mark.parametrize(("size", "low", "high"), [("tiny", 0.25, 0.35), ("small", 1.3, 1.7), ("base", 4.5, 5.5)])
def test_sizes(size, low, high):
    assert low <= count(create_network("joint", size=size)) / 1e6 <= high


def test_stages_share_their_weights():
    one, two, three = (create_network("joint", size="tiny", stages=n) for n in (1, 2, 3))
    assert count(two) == count(three)
    assert count(two) - count(two.stem) == count(one) - count(one.stem)
    assert two.stem.in_channels == 2 * one.stem.in_channels
    assert two.receptive_radius == 2 * one.receptive_radius


def test_each_stage_sees_the_background_of_the_one_before():
    network = create_network("joint", size="tiny", stages=3).eval()
    rainy = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        first, second, last = (*(restored := network(rainy)).stages, restored)
        assert not torch.equal(first.background, second.background)
        assert not torch.equal(second.background, last.background)
        network.stem.weight[:, 4 * 3 :] = 0  # blind to it: every stage then does the same
        first, second, last = (*(restored := network(rainy)).stages, restored)
    assert torch.equal(first.background, second.background)
    assert torch.equal(second.background, last.background)


def test_heads_are_in_the_order_of_jorder(tiny_network):
    restored = tiny_network(torch.rand(1, 3, 16, 16))
    reached = {
        layer: [
            head
            for head in HEADS
            if any(
                gradient is not None and gradient.abs().sum() > 0
                for gradient in torch.autograd.grad(
                    getattr(restored, layer).sum(),
                    [*getattr(tiny_network, head).parameters()],
                    retain_graph=True,
                    allow_unused=True,
                )
            )
        ]
        for layer in ("mask_logits", "streak", "background")
    }
    assert reached == {"mask_logits": [*HEADS[:1]], "streak": [*HEADS[:2]], "background": [*HEADS]}


def test_background_is_the_input_less_the_streak_in_the_map_when_nothing_is_corrected(tiny_network):
    with torch.no_grad():
        for parameter in tiny_network.head_background[-1].parameters():
            parameter.zero_()
        rainy = torch.rand(1, 3, 13, 21)
        restored = tiny_network(rainy)
    torch.testing.assert_close(restored.background, rainy - restored.streak * restored.mask)
    torch.testing.assert_close(restored.background, rainy - restored.removed)


@pytest.mark.parametrize("stages", [1, 2])
def test_gradient_reaches_every_parameter(stages):
    network = create_network("joint", size="tiny", stages=stages)
    restored = network(torch.rand(1, 3, 32, 32))
    (restored.background.square().sum() + restored.streak.sum() + restored.mask_logits.sum()).backward()
    missed = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert missed == []


def input_gradient(network: Network, image: Tensor, row: int, column: int) -> Tensor:
    image = image.clone().requires_grad_()
    restored = network(image)
    pixel = (slice(None), slice(None), row, column)
    seen = restored.background[pixel].sum() + restored.streak[pixel].sum() + restored.mask_logits[pixel].sum()
    (gradient,) = torch.autograd.grad(seen, image)
    return gradient.abs().sum(dim=(0, 1))


@pytest.mark.parametrize("stages", [1, 2])
@pytest.mark.parametrize("rates", [(1,), (1, 2, 5)])
def test_declared_receptive_radius_bounds_the_measured_one(pocket, rates, stages):
    network = pocket(rates=rates, stages=stages)
    make_positive(network)
    reach = network.stride * (network.receptive_radius // network.stride + 2)
    image = torch.rand(1, 3, 16, 2 * reach + network.stride, dtype=torch.float64)
    measured = 0
    for phase in range(network.stride):  # a pixel's place in the coarsest cell shifts what it sees
        columns = input_gradient(network, image, 5, reach + phase).sum(dim=0).nonzero().flatten()
        measured = max(measured, reach + phase - int(columns[0]), int(columns[-1]) - reach - phase)
    assert 0.9 * network.receptive_radius <= measured <= network.receptive_radius


def test_no_pixel_within_reach_is_unseen(pocket):
    network = pocket()
    make_positive(network)
    seen = input_gradient(network, torch.rand(1, 3, 192, 192, dtype=torch.float64), 96, 97) > 0
    rows, columns = seen.any(dim=1).nonzero().flatten(), seen.any(dim=0).nonzero().flatten()
    assert seen[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()


@pytest.mark.parametrize("size", joint.SHAPES)
def test_the_bottleneck_has_no_hole(size):
    context = create_network("joint", size=size).context.double()
    make_positive(context)
    reach = 6 * len(context)
    cells = torch.rand(1, joint.SHAPES[size].widths[2], 1, 2 * reach + 3, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(context(cells)[..., 0, reach + 1].sum(), cells)
    seen = gradient.abs().sum(dim=(0, 1, 2)).nonzero().flatten() - (reach + 1)
    assert seen.tolist() == [*range(-reach, reach + 1)]


def test_images_of_a_batch_do_not_meet(tiny_network):
    rainy = torch.rand(3, 3, 24, 40)
    with torch.inference_mode():
        together = tiny_network(rainy)
        for i in range(3):
            alone = tiny_network(rainy[i : i + 1])
            torch.testing.assert_close(together.background[i : i + 1], alone.background, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(together.mask_logits[i : i + 1], alone.mask_logits, atol=1e-5, rtol=1e-5)


def test_shifting_by_the_stride_shifts_the_result(tiny_network):
    radius, shift = tiny_network.receptive_radius, tiny_network.stride * 3
    rainy = torch.rand(1, 3, 16, 2 * radius + 64)
    with torch.inference_mode():
        whole, shifted = tiny_network(rainy), tiny_network(rainy[..., shift:])
    for layer in ("background", "streak", "mask_logits"):
        ours = getattr(whole, layer)[..., shift + radius : -radius]
        theirs = getattr(shifted, layer)[..., radius:-radius]
        assert ours.shape[-1] >= 32
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_derivatives_match_finite_differences(pocket):
    network = pocket(stages=2)
    rainy = torch.rand(1, 3, 5, 6, dtype=torch.float64, requires_grad=True)

    def layers(image: Tensor) -> tuple[Tensor, ...]:
        restored = network(image)
        return restored.background, restored.streak, restored.mask_logits, restored.stages[0].background

    assert all(layer.dtype == torch.float64 for layer in layers(rainy))
    assert torch.autograd.gradcheck(layers, rainy)


def test_autocast_returns_float32(tiny_network):
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        restored = tiny_network(torch.rand(1, 3, 16, 16))
    assert restored.background.dtype == restored.streak.dtype == restored.mask_logits.dtype == torch.float32


def test_create_network_remembers_how():
    network = create_network("joint", size="tiny", stages=2)
    assert (network.name, network.config) == ("joint", {"size": "tiny", "stages": 2})
    again = create_network(network.name, **network.config)
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in network.state_dict().items()}
    assert "joint" in list_networks("j*")


@pytest.mark.parametrize(
    ("name", "config", "expected"),
    [
        ("jont", {}, "unknown network 'jont'. Did you mean 'joint'?"),
        ("joint", {"size": "huge"}, "joint: size is 'huge'; it must be one of tiny, small, base."),
        ("joint", {"stages": 0}, "joint: stages is 0; it must be at least 1."),
        ("joint", {"rates": (2, 2, 2)}, "leave holes in the receptive field"),
        ("joint", {"rates": (1, 5, 2)}, "break the HDC rule"),
        ("joint", {"rates": ()}, "rates must be >= 1"),
        ("joint", {"depth": 3}, "unexpected keyword argument 'depth'; see 'sstl networks show joint'."),
    ],
)
def test_what_does_not_fit_is_a_usage_error(name, config, expected):
    with pytest.raises(SstlError, match=r"^[^\n]*$") as caught:
        create_network(name, **config)
    assert expected in str(caught.value)


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 1, 8, 8), (1, 3, 0, 8), (0, 3, 8, 8)])
def test_images_of_another_shape_are_refused(tiny_network, shape):
    with pytest.raises(
        SstlError, match=r"^network 'joint': images of shape \(.*\); give \(batch, 3, height, width\)\.$"
    ):
        tiny_network(torch.rand(shape))


def test_restoration_explains_what_is_removed(tiny_network):
    restored = tiny_network(torch.rand(1, 3, 8, 8))
    torch.testing.assert_close(restored.removed, restored.streak * restored.mask_logits.sigmoid())
    undetected = dataclasses.replace(restored, mask_logits=None)
    assert undetected.mask is None
    assert undetected.removed is undetected.streak


def test_bfloat16_gradients_of_the_dilated_paths_are_right():
    block = joint.ContextBlock(32, (1, 2, 5)).to(memory_format=torch.channels_last)
    x = torch.randn(2, 32, 40, 40).to(memory_format=torch.channels_last)
    weights = [path[2].weight for path in block.paths]

    def gradients(enabled: bool) -> list[torch.Tensor]:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            loss = (block(x) * x).mean()
        return list(torch.autograd.grad(loss, weights))

    exact = gradients(enabled=False)
    for _ in range(3):  # the fault that this guards against reads memory that it did not write: it comes and goes
        for rough, right in zip(gradients(enabled=True), exact, strict=True):
            assert (rough - right).norm() < 0.05 * right.norm()


def test_the_shape_of_joint_is_that_of_its_size_unless_it_is_given():
    given = create_network("joint", size="tiny", widths=(8, 16, 24), blocks=(1, 2), contexts=3)
    assert (given.stem.out_channels, given.down_quarter.out_channels, given.down_eighth.out_channels) == (8, 16, 24)
    assert (len(given.encode_half), len(given.decode_quarter), len(given.context)) == (1, 2, 3)
    shape = {"widths": (24, 40, 56), "blocks": (2, 2), "contexts": 1}
    same = create_network("joint", size="small", **shape).state_dict()
    assert {key: t.shape for key, t in same.items()} == {
        key: t.shape for key, t in create_network("joint", size="tiny").state_dict().items()
    }
    with pytest.raises(SstlError, match="joint: blocks is 0"):
        create_network("joint", blocks=(0, 1))


def test_joint_restores_alike_with_and_without_gradients():
    network, rainy = create_network("joint", size="tiny").eval(), torch.rand(1, 3, 24, 32)
    kept = network(rainy)
    with torch.inference_mode():
        assert torch.equal(network(rainy).background, kept.background)
    kept.background.sum().backward()
