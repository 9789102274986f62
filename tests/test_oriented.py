"""The oriented likelihood: that it is a density, that it tells streaks from what is none, and how it is fitted."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import gradcheck

from sstl.errors import SstlError
from sstl.losses import OrientedMixture, exponential_kl
from sstl.losses.oriented import FLOOR, laplace_nll, slopes, streak_direction
from sstl.rain import Recipe, render


def streaks(angle: float, count: int = 4, side: int = 48) -> Tensor:
    recipe = Recipe(angle=(angle, angle), length=(10, 20), density=(6, 10), brightness=(0.2, 0.4))
    sample = render(torch.full((count, 3, side, side), 0.3), recipe, 0, range(count))
    return sample.rainy - sample.clean


def scattered(streak: Tensor) -> Tensor:
    """The same values in random places: as strong, but of no direction."""
    flat = streak.flatten(2)
    return flat[..., torch.randperm(flat.shape[-1])].view_as(streak)


def grain_like(streak: Tensor) -> Tensor:
    """Smooth noise of either sign and of the same energy, as texture is that was taken for rain."""
    grain = F.avg_pool2d(torch.randn_like(streak), 3, stride=1, padding=1)
    return grain * (streak.square().mean() / grain.square().mean()).sqrt()


@pytest.fixture(scope="module")
def fitted() -> OrientedMixture:
    torch.manual_seed(0)
    mixture = OrientedMixture(3, momentum=0.5)
    for angle in (-20, 5, 30) * 6:
        layer = streaks(angle)
        mixture.update(mixture.statistics(layer + 0.005 * torch.randn_like(layer)))
    return mixture


def test_it_is_a_density():
    mixture = OrientedMixture(3).double()
    weights = torch.tensor([0.6, 0.3, 0.1, 0.5, 0.5]).double()
    moments = torch.tensor([0.01, 0.05, 0.2, 0.01, 0.04]).double()
    step = 1e-4
    grid = torch.arange(-1, 4, step).double() + step / 2
    density = mixture.joint(grid, weights, moments).logsumexp(dim=-1).exp()
    assert float(density.sum() * step) == pytest.approx(1, abs=1e-5)
    slope = (-laplace_nll(torch.arange(-2, 2, step).double().abs(), torch.tensor(0.04).double())).exp()
    assert float(slope.sum() * step) == pytest.approx(1, abs=1e-4)
    assert float(density[grid < 0].sum() * step) == pytest.approx(0.3, abs=1e-5)  # half of the noise, none of the rain


def test_a_value_costs_what_the_equation_says():
    mixture = OrientedMixture(2).double()
    weights, moments = torch.tensor([0.7, 0.3, 0, 0]).double(), torch.tensor([0.02, 0.1, 1, 1]).double()
    found = mixture.joint(torch.tensor([-0.05, 0.05]).double(), weights, moments).logsumexp(dim=-1)
    assert float(found[0]) == pytest.approx(math.log(0.7 * math.exp(-2.5) / 0.04))
    assert float(found[1]) == pytest.approx(math.log(0.7 * math.exp(-2.5) / 0.04 + 0.3 * math.exp(-0.5) / 0.1))


@pytest.mark.parametrize("angle", [-60, -20, 0, 10, 45, 80])
def test_the_direction_of_streaks_is_found(angle):
    direction, coherence = streak_direction(streaks(angle))
    truth = torch.tensor([math.cos(math.radians(angle)), math.sin(math.radians(angle))])
    assert ((direction @ truth).abs() > math.cos(math.radians(6))).all()
    assert (coherence > 0.5).all()
    assert (streak_direction(torch.randn(4, 3, 48, 48))[1] < 0.15).all()
    assert (streak_direction(torch.zeros(1, 3, 8, 8))[1] == 0).all()


def test_slopes_along_a_streak_are_small_and_across_it_large():
    for angle in (-30, 0, 45):
        layer = streaks(angle)
        along, across = (s.abs().mean() for s in slopes(layer, streak_direction(layer)[0]))
        assert across > 2 * along


@pytest.mark.parametrize("angle", [-20, 5, 30])
def test_streaks_are_likelier_than_what_is_as_strong_but_no_rain(fitted, angle):
    layer = streaks(angle)
    for other in (scattered(layer), grain_like(layer), -layer):
        assert fitted.nll(layer) < fitted.nll(other) - 0.1
        assert fitted.nll(layer, per_photo=True) < fitted.nll(other, per_photo=True) - 0.1


def test_a_layer_across_the_direction_is_less_likely(fitted):
    layer = streaks(20)
    direction, _ = streak_direction(layer)
    turned = layer.transpose(-1, -2).flip(-1)

    def cost(residual: Tensor) -> float:
        sizes = torch.stack([s.abs().mean() for s in slopes(residual, direction)])
        return float(laplace_nll(sizes, fitted.moments[-2:]).sum())

    assert cost(layer) < cost(turned) - 0.5
    # Turned with its direction it is as likely as before: rain may fall as it likes.
    assert float(fitted.nll(turned)) == pytest.approx(float(fitted.nll(layer)), abs=0.02)


def test_the_parameters_are_the_closed_forms():
    mixture = OrientedMixture(2, momentum=0.0)
    residual = streaks(10, side=24) + 0.01 * torch.randn(4, 3, 24, 24)
    share = mixture.joint(residual.flatten(), mixture.weights, mixture.moments).softmax(dim=-1)
    direction, coherence = streak_direction(residual)
    sizes = [s.abs().mean(dim=(1, 2, 3)) for s in slopes(residual, direction)]
    mixture.update(mixture.statistics(residual))
    scales = [(share[:, k] * residual.flatten().abs()).sum() / share[:, k].sum() for k in range(2)]
    scales += [(coherence * size).sum() / coherence.sum() for size in sizes]
    torch.testing.assert_close(mixture.moments, torch.stack(scales), rtol=1e-4, atol=0)
    expected = [share[:, 0].mean(), share[:, 1].mean(), coherence.mean(), coherence.mean()]
    torch.testing.assert_close(mixture.weights, torch.stack(expected), rtol=1e-4, atol=0)


def test_em_never_lowers_the_likelihood_and_recovers_the_scales():
    torch.manual_seed(1)
    rain = torch.rand(2, 3, 60, 60) < 0.3
    noise = torch.distributions.Laplace(0, 0.01).sample(rain.shape)
    residual = torch.where(rain, torch.distributions.Exponential(1 / 0.15).sample(rain.shape), noise)
    mixture = OrientedMixture(2, momentum=0.0)
    before = mixture.nll(residual)
    for _ in range(40):
        mixture.update(mixture.statistics(residual))
        after = mixture.nll(residual)
        assert after <= before + 1e-4
        before = after
    torch.testing.assert_close(mixture.moments[:2], torch.tensor([0.01, 0.15]), rtol=0.1, atol=0)
    torch.testing.assert_close(mixture.weights[:2], torch.tensor([0.7, 0.3]), rtol=0, atol=0.03)


def test_scales_have_a_floor_and_nothing_breaks_below_it():
    mixture = OrientedMixture()
    for _ in range(3):
        mixture.update(mixture.statistics(torch.zeros(2, 3, 8, 8)))
    assert (mixture.moments == FLOOR).all()
    assert (mixture.weights[:-2] > 0).all()
    for residual in (torch.zeros(1, 3, 1, 1), -torch.ones(1, 3, 1, 5), torch.ones(2, 3, 7, 7)):
        for per_photo in (False, True):
            value = residual.requires_grad_()
            loss = mixture.nll(value, per_photo) + mixture.kl(value, torch.tensor(0.05))
            assert loss.isfinite()
            assert torch.autograd.grad(loss, value)[0].isfinite().all()


def test_gradients_of_the_oriented_likelihood_and_its_anchor():
    mixture = OrientedMixture(3, momentum=0.5).double()
    mixture.updates += 1
    residual = (0.2 * torch.rand(1, 2, 5, 5).double() + 0.02).requires_grad_()
    direction, coherence = streak_direction(residual.detach())

    def held(r: Tensor) -> Tensor:  # the direction is held: finite differences must hold it, too
        sizes = torch.stack([s.abs().mean(dim=(1, 2, 3)) for s in slopes(r, direction)], dim=1)
        values = -mixture.joint(r.reshape(1, -1), mixture.weights, mixture.moments).logsumexp(dim=-1).mean()
        return values + (coherence * laplace_nll(sizes, mixture.moments[-2:]).sum(dim=1)).mean()

    assert gradcheck(held, (residual,))
    torch.testing.assert_close(held(residual), mixture.nll(residual))
    assert torch.autograd.grad(mixture.nll(residual), residual)[0].abs().sum() > 0
    (pull,) = torch.autograd.grad(mixture.kl(0.01 * residual, torch.tensor(0.1)), residual)
    assert (pull <= 0).all()  # faint residuals are told to grow
    assert pull.min() < 0


@pytest.mark.parametrize(("mean", "reference"), [(0.04, 0.01), (0.01, 0.04), (0.02, 0.02)])
def test_the_kl_of_exponentials_is_its_integral(mean, reference):
    step = 1e-5
    x = torch.arange(0, 2, step).double() + step / 2
    p, log_ratio = (-x / reference).exp() / reference, math.log(mean / reference) + x / mean - x / reference
    found = float(exponential_kl(torch.tensor(mean).double(), torch.tensor(reference).double()))
    assert found == pytest.approx(float((p * log_ratio).sum() * step), abs=1e-5)


def test_an_empty_component_does_not_satisfy_the_anchor(fitted):
    reference = fitted.moment(streaks(5)).mean()
    empty, full = (float(fitted.kl(layer, reference)) for layer in (torch.zeros(4, 3, 48, 48), streaks(5)))
    assert full < empty
    moved = OrientedMixture(3, momentum=0.5)
    for _ in range(12):
        moved.update(moved.statistics(torch.zeros(4, 3, 24, 24)))
    assert moved.kl(torch.zeros(4, 3, 24, 24), reference) > 5


def test_photos_have_directions_and_scales_of_their_own(fitted):
    layer = torch.cat([streaks(-40, 1), 0.1 * streaks(40, 1)])
    weights, moments = fitted.of_photos(layer)
    assert weights.shape == moments.shape == (2, 5)
    assert (moments[0, -2:] > moments[1, -2:]).all()
    torch.testing.assert_close(weights[:, :-2].sum(dim=1), torch.ones(2))
    assert fitted.nll(layer, per_photo=True) < fitted.nll(layer)


def test_an_oriented_mixture_without_rain_is_refused():
    with pytest.raises(SstlError, match=r"components are 1.*at least 2"):
        OrientedMixture(1)
