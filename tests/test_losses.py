"""Losses: gradients by finite differences, closed forms, slow references, and that EM climbs and recovers."""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd import gradcheck

from sstl.errors import SstlError
from sstl.losses import (
    Mixture,
    agreement,
    background_loss,
    consistency_loss,
    draw_transformation,
    equivariance_loss,
    forgetting_loss,
    gaussian_kl,
    mask_loss,
    recomposition_loss,
    rerain_loss,
    stage_agreement_loss,
    streak_loss,
    total_variation,
)
from sstl.losses.consistency import rerendered
from sstl.losses.likelihood import Statistics
from sstl.methods.residuals import DENSITIES
from sstl.rain import render
from sstl.types import PairedBatch, Restoration


def doubles(*shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
    return torch.rand(*shape, dtype=torch.float64) * (high - low) + low


def with_gradient(tensor: Tensor) -> Tensor:
    return tensor.clone().requires_grad_()


def mixture_nll(residual: Tensor, weights: Tensor, variances: Tensor) -> Tensor:
    return Mixture(len(weights)).photo_nll(residual, weights, variances).mean()


# --- the mixture likelihood ------------------------------------------------------------------------------------------


def test_nll_is_the_density_of_the_textbook():
    residual, weights, deviations = [-0.4, -0.01, 0.0, 0.02, 0.3], [0.5, 0.3, 0.2], [0.01, 0.05, 0.3]
    densities = [sum(w * NormalDist(0, s).pdf(r) for w, s in zip(weights, deviations, strict=True)) for r in residual]
    expected = -sum(math.log(density) for density in densities) / len(densities)
    r, w, s = (torch.tensor(values, dtype=torch.float64) for values in (residual, weights, deviations))
    assert float(mixture_nll(r, w, s.square())) == pytest.approx(expected, rel=1e-12)
    assert float(mixture_nll(r.view(1, 5, 1, 1), w, s.square())) == pytest.approx(expected, rel=1e-12)


def test_nll_is_finite_for_residuals_that_no_component_explains():
    assert mixture_nll(torch.tensor([1.0]), torch.tensor([0.5, 0.5]), torch.tensor([1e-5, 1e-4])).isfinite()


def test_gradients_of_the_likelihood_and_its_anchor():
    weights, variances = torch.tensor([0.2, 0.8]).double(), torch.tensor([0.01, 0.2]).double()
    assert gradcheck(lambda r: mixture_nll(r, weights, variances), with_gradient(doubles(3, 4, low=-0.5, high=0.5)))
    assert gradcheck(gaussian_kl, (with_gradient(doubles(5, low=0.1)), with_gradient(doubles(5, low=0.1))))
    # The anchor's responsibilities are held: finite differences must hold them, too.
    mixture = Mixture(2, momentum=0.5, floor=1e-12, spread=(0.1, 0.1)).double()
    mixture.weights.copy_(weights)
    mixture.updates += 1
    assert gradcheck(lambda r: mixture.kl(r, torch.tensor(0.04).double()), with_gradient(doubles(4, 5, low=-0.5)))


@pytest.mark.parametrize(("variance", "reference"), [(0.04, 0.01), (0.01, 0.04), (0.02, 0.02)])
def test_kl_is_its_integral(variance, reference):
    p, q = NormalDist(0, math.sqrt(reference)), NormalDist(0, math.sqrt(variance))
    step = 1e-4
    grid = np.arange(-2.5, 2.5, step)
    densities = [(p.pdf(x), q.pdf(x)) for x in grid]
    integral = sum(a * math.log(a / b) for a, b in densities if a > 1e-200) * step
    found = float(gaussian_kl(torch.tensor(variance).double(), torch.tensor(reference).double()))
    assert found == pytest.approx(integral, abs=1e-6)


@given(*[st.floats(1e-6, 1.0)] * 2)
def test_kl_is_zero_only_at_equality(variance, reference):
    found = float(gaussian_kl(torch.tensor(variance).double(), torch.tensor(reference).double()))
    assert found >= -1e-12
    if abs(math.log(variance / reference)) > 1e-3:
        assert found > 0
    assert float(gaussian_kl(torch.tensor(variance), torch.tensor(variance))) == 0


def test_the_anchor_leads_away_from_removing_nothing_also_when_nothing_has_been_removed_for_long():
    torch.manual_seed(0)
    mixture, residual = Mixture(), with_gradient(torch.rand(4, 500) / (2 * 255))
    for _ in range(40):
        mixture.update(mixture.statistics(residual.detach()))
    (pull,) = torch.autograd.grad(mixture.kl(residual, torch.tensor(0.05**2)), residual)
    assert (pull * residual.sign()).sum() < 0  # residuals that grow lower it


def test_kl_grows_without_bound_as_the_residuals_vanish():
    values = [float(gaussian_kl(torch.tensor(10.0**-k), torch.tensor(0.01))) for k in range(2, 12)]
    assert values == sorted(values)
    assert values[-1] > 1e6


# --- the mixture -----------------------------------------------------------------------------------------------------


def em_step(mixture: Mixture, residual: Tensor) -> Statistics:
    statistics = mixture.statistics(residual)
    mixture.update(statistics)
    return statistics


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.integers(20, 400),
    deviations=st.lists(st.floats(0.01, 0.4), min_size=1, max_size=4),
    components=st.integers(1, 4),
)
def test_a_full_batch_em_step_never_lowers_the_likelihood(seed, size, deviations, components):
    random = np.random.default_rng(seed)
    residual = torch.from_numpy(random.normal(0, random.choice(deviations, size)))
    mixture = Mixture(components, momentum=0.0, floor=1e-15, spread=(0.02, 0.2)).double()
    before = mixture.nll(residual)
    for _ in range(8):
        statistics = em_step(mixture, residual)
        assume(statistics.weight.min() > 1e-6)  # below, a floor keeps the component alive
        after = mixture.nll(residual)
        assert after <= before + 1e-9
        before = after


@pytest.mark.parametrize(
    ("deviations", "weights"),
    [([0.01, 0.12], [0.7, 0.3]), ([0.4, 0.05], [0.2, 0.8]), ([0.006, 0.06, 0.6], [0.5, 0.3, 0.2])],
)
def test_online_em_recovers_the_mixture(deviations, weights):
    random = np.random.default_rng(0)
    mixture = Mixture(len(deviations), momentum=0.95)
    for _ in range(400):
        residual = random.normal(0, random.choice(deviations, 4000, p=weights))
        em_step(mixture, torch.from_numpy(residual).float().view(10, 1, 20, 20))
    order = np.argsort(deviations)
    found = mixture.moments.argsort()
    np.testing.assert_allclose(mixture.moments[found].sqrt(), np.array(deviations)[order], rtol=0.05)
    np.testing.assert_allclose(mixture.weights[found], np.array(weights)[order], atol=0.03)
    assert float(mixture.weights.sum()) == pytest.approx(1, abs=1e-5)
    assert mixture.updates == 400


def test_statistics_are_mean_responsibilities_and_squares():
    mixture = Mixture(2, spread=(0.05, 0.2))
    residual = [-0.3, 0.0, 0.1]
    weight, square = np.zeros(2), np.zeros(2)
    for r in residual:
        densities = np.array([NormalDist(0, s).pdf(r) / 2 for s in (0.05, 0.2)])
        weight += densities / densities.sum() / 3
        square += densities / densities.sum() * r**2 / 3
    found = mixture.statistics(torch.tensor(residual))
    np.testing.assert_allclose(found.weight, weight, rtol=1e-5)
    np.testing.assert_allclose(found.moment, square, rtol=1e-5)


def test_the_first_batch_is_taken_alone_and_later_ones_are_blended():
    mixture = Mixture(1, momentum=0.9)
    for deviation, expected in ((0.1, 0.01), (0.3, 0.9 * 0.01 + 0.1 * 0.09)):
        em_step(mixture, torch.tensor([-deviation, deviation]))
        assert float(mixture.moments) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_residual_that_is_no_number_leaves_the_mixture_as_it_is(bad):
    mixture = Mixture()
    em_step(mixture, 0.1 * torch.randn(100))
    before = {name: t.clone() for name, t in mixture.state_dict().items()}
    em_step(mixture, torch.tensor([0.1, bad, -0.2]))
    assert all(torch.equal(t, before[name]) for name, t in mixture.state_dict().items())


def test_variances_and_weights_have_a_floor():
    mixture = Mixture(3, floor=1e-4)
    for _ in range(5):
        em_step(mixture, torch.zeros(50))
    assert (mixture.moments == 1e-4).all()
    assert (mixture.weights > 0).all()
    assert mixture.nll(torch.ones(4)).isfinite()


def test_the_state_of_a_mixture_is_its_state_dict():
    mixture, other = Mixture(), Mixture()
    residual = 0.1 * torch.randn(1000)
    em_step(mixture, residual)
    assert set(mixture.state_dict()) == {"weights", "moments", "updates"}
    other.load_state_dict(mixture.state_dict())
    for each in (mixture, other):
        em_step(each, 0.5 * residual)
    assert all(torch.equal(t, other.state_dict()[name]) for name, t in mixture.state_dict().items())
    assert not list(mixture.parameters())


def test_a_mixture_of_nothing_is_refused():
    with pytest.raises(SstlError, match="components are 0"):
        Mixture(0)


def test_a_photo_has_its_own_mixture_between_the_shared_one_and_its_own_maximum():
    mixture = Mixture(2)
    for _ in range(60):
        em_step(mixture, torch.cat([0.01 * torch.randn(2, 500), 0.2 * torch.randn(2, 500)]))
    before = {name: t.clone() for name, t in mixture.state_dict().items()}
    photos = torch.stack([0.005 * torch.randn(2000), 0.4 * torch.randn(2000)])
    weights, moments = mixture.of_photos(photos)
    assert weights.shape == moments.shape == (2, 2)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(2))
    assert (weights > 0.2).all()  # the prior keeps half of what was shared
    assert weights[0, 0] > mixture.weights[0] > weights[1, 0]
    assert moments[0, 0] < mixture.moments[0]
    assert 0.04 < moments[1, 1] < 0.16
    own, shared = mixture.nll(photos, per_photo=True), mixture.nll(photos)
    assert own < shared
    assert all(torch.equal(t, before[name]) for name, t in mixture.state_dict().items())


def test_a_photos_own_moment_cannot_follow_its_residuals_to_zero():
    mixture = Mixture(3)
    em_step(mixture, 0.1 * torch.randn(10, 300))
    weights, moments = mixture.of_photos(torch.zeros(1, 300))
    assert (weights * moments >= 0.49 * mixture.weights * mixture.moments).all()
    assert moments.max() > 0.4 * mixture.moments.max()


def test_the_anchor_pulls_faint_residuals_apart_and_strong_ones_together():
    mixture, reference = Mixture(1), torch.tensor(0.01)
    for scale, outward in ((0.02, True), (0.5, False)):
        residual = with_gradient(scale * torch.randn(200))
        mixture.kl(residual, reference).backward()
        assert ((-residual.grad * residual > 0) == outward).all()


def test_the_anchor_takes_the_nearest_component():
    mixture = Mixture(2, momentum=1 - 1e-9, spread=(0.01, 0.1))
    mixture.updates += 1
    assert float(mixture.kl(torch.zeros(5), torch.tensor(0.1**2))) == pytest.approx(0, abs=1e-5)
    assert float(mixture.kl(torch.zeros(5), torch.tensor(0.01**2))) == pytest.approx(0, abs=1e-5)


def test_statistics_of_a_detached_residual_have_no_gradient():
    residual = with_gradient(0.1 * torch.randn(50))
    mixture = Mixture()
    assert not any(part.requires_grad for part in mixture.statistics(residual.detach()))
    attached = mixture.statistics(residual)
    assert attached.moment.requires_grad
    assert not attached.weight.requires_grad


# --- consistency, recomposition, smoothness --------------------------------------------------------------------------


def test_gradients_of_the_unpaired_terms():
    assert gradcheck(total_variation, with_gradient(doubles(2, 3, 4, 5)))
    target, weight = doubles(2, 3, 4, 4), doubles(2, 1, 4, 4)
    assert gradcheck(lambda s: consistency_loss(s, target, weight), with_gradient(doubles(2, 3, 4, 4)))
    rainy = doubles(2, 3, 4, 4, low=0.95)  # above anything recomposed here: no kink is near
    layers = doubles(2, 3, 4, 4, low=0.2, high=0.5), doubles(2, 3, 4, 4, high=0.4), doubles(2, 1, 4, 4, low=-2, high=2)
    assert gradcheck(
        lambda b, s, m: recomposition_loss(Restoration(b, s, m), rainy), tuple(with_gradient(t) for t in layers)
    )


def test_agreement_is_one_for_equal_views_and_falls_with_their_spread():
    view = torch.rand(2, 3, 5, 6)
    assert (agreement(torch.stack([view, view, view]), 0.05) == 1).all()
    apart = agreement(torch.stack([torch.zeros(1, 3, 4, 4), torch.ones(1, 3, 4, 4)]), 0.1)
    assert apart.shape == (1, 1, 4, 4)
    assert 0 < apart.min() <= apart.max() < 1e-3
    # Two views that differ by 2 d have the standard deviation d; the largest over the channels counts.
    views = torch.zeros(2, 1, 3, 1, 2)
    views[1, 0, 1, 0, 0] = 2 * 0.05
    torch.testing.assert_close(agreement(views, 0.05), torch.tensor([[[[math.exp(-1), 1.0]]]]))


@given(st.lists(st.floats(0, 1, width=32), min_size=2, max_size=5))
def test_agreement_is_a_weight(values):
    trust = float(agreement(torch.tensor(values).view(-1, 1, 1, 1, 1), 0.1))
    assert 0 < trust <= 1


def test_consistency():
    student, target = with_gradient(doubles(2, 3, 4, 4)), with_gradient(doubles(2, 3, 4, 4))
    assert consistency_loss(student, student, torch.ones(2, 1, 4, 4)) == 0
    assert consistency_loss(student, target, torch.zeros(2, 1, 4, 4)) == 0
    half = torch.zeros(2, 1, 4, 4)
    half[0] = 1
    loss = consistency_loss(student, target, half)
    assert loss.item() == pytest.approx((student[0] - target[0]).abs().mean().item() / 2)
    loss.backward()
    assert target.grad is None
    assert student.grad[0].all()
    assert not student.grad[1].any()


def test_recomposition_asks_that_nothing_goes_missing():
    rainy = torch.rand(1, 3, 6, 6)
    streak = 0.3 * rainy
    assert recomposition_loss(Restoration(rainy - streak, streak), rainy) == pytest.approx(0, abs=1e-7)
    assert recomposition_loss(Restoration(rainy, torch.zeros_like(rainy)), rainy) == 0
    assert recomposition_loss(Restoration(rainy - streak, 0 * streak), rainy) == pytest.approx(float(streak.mean()))
    # The map decides what of the streak is removed; more light than white is white.
    hidden = Restoration(rainy, streak, torch.full((1, 1, 6, 6), -40.0))
    assert recomposition_loss(hidden, rainy) == pytest.approx(0, abs=1e-7)
    white = torch.ones(1, 3, 6, 6)
    assert recomposition_loss(Restoration(white, white), white) == 0


def test_a_transformation_is_a_flip_a_turn_or_a_shrinking_and_never_nothing():
    image = torch.rand(1, 3, 8, 12)
    seen = {}
    for seed in range(120):
        torch.manual_seed(seed)
        changed = draw_transformation()(image)
        assert changed.shape != image.shape or not torch.equal(changed, image)
        seen[tuple(changed.shape[-2:]), round(float(changed[0, 0, 0, 0]), 4)] = changed
        if changed.numel() == image.numel():
            assert torch.equal(changed.flatten().sort().values, image.flatten().sort().values)
        else:
            assert 4 <= changed.shape[-2] < 8
            torch.testing.assert_close(changed.mean(), image.mean(), atol=0.03, rtol=0)
    whole = [size for size, _ in seen if size in ((8, 12), (12, 8))]
    assert (whole.count((8, 12)), whole.count((12, 8))) == (3, 4)
    assert len(seen) > 8


@pytest.mark.parametrize("seed", range(8))
def test_equivariance_is_broken_by_a_function_that_knows_directions(seed):
    rainy, trust = doubles(2, 3, 9, 8), torch.ones(2, 1, 9, 8).double()

    def loss(f) -> float:
        torch.manual_seed(seed)
        return float(equivariance_loss(f, rainy, f(rainy), trust))

    assert loss(lambda x: 0.5 * x) == pytest.approx(0)
    assert loss(lambda x: x) == 0  # the cheapest solution
    ramp = torch.linspace(0, 1, 9).double()
    assert loss(lambda x: x + ramp[: x.shape[-1]] + 3 * ramp[: x.shape[-2], None] ** 2) > 0.01


def test_stages_are_asked_to_agree_with_the_last_one_which_stands():
    first, second, last = (with_gradient(doubles(2, 3, 4, 4)) for _ in range(3))
    restored = Restoration(last, last, stages=(Restoration(first, first), Restoration(second, second)))
    loss = stage_agreement_loss(restored)
    apart = [(stage - last).abs().mean().item() for stage in (first, second)]
    assert loss.item() == pytest.approx(sum(apart) / 2)
    loss.backward()
    assert last.grad is None
    assert first.grad.all()
    assert second.grad.all()
    assert stage_agreement_loss(Restoration(last, last)) == 0


def test_rain_is_rendered_again_elsewhere_and_as_much_of_it():
    background, streak = torch.full((4, 3, 16, 16), 0.4), torch.zeros(4, 1, 16, 16)
    streak[:, :, 2:9, 5] = torch.linspace(0.1, 0.5, 7)
    torch.manual_seed(0)
    again = rerendered(background, streak) - background
    torch.testing.assert_close(again.sum(dim=(1, 2, 3)), 3 * streak.sum(dim=(1, 2, 3)))
    assert ((again > 0.05).any(dim=-2).sum(dim=-1) == 1).all()  # a falling streak still falls
    assert not torch.allclose(again[0], again[1])
    assert rerendered(background, 9 * streak).max() == 1


def test_what_restores_its_own_rain_is_at_peace():
    background, streak = torch.full((2, 3, 8, 8), 0.4), torch.zeros(2, 1, 8, 8)
    streak[..., 3] = 0.3
    trust = torch.ones(2, 1, 8, 8)
    assert rerain_loss(lambda x: x.clamp(max=0.4), background, streak, trust) == 0
    assert rerain_loss(lambda x: x, background, 0 * streak, trust) == 0  # the cheapest solution
    assert float(rerain_loss(lambda x: x, background, streak, trust)) == pytest.approx(0.3 / 8)
    assert float(rerain_loss(lambda x: x - 0.1, background, 0 * streak, trust)) == pytest.approx(0.1)
    assert rerain_loss(lambda x: x, background, streak, 0 * trust) == 0


def test_the_consistency_terms_train_what_they_restore():
    factor, trust = with_gradient(torch.tensor(0.9)), torch.ones(2, 1, 8, 8)
    rainy, streak = torch.rand(2, 3, 8, 8), 0.2 * torch.rand(2, 1, 8, 8)
    target = with_gradient(0.8 * rainy)
    for loss in (
        equivariance_loss(lambda x: factor * x, rainy, target, trust),
        rerain_loss(lambda x: factor * x, target, streak, trust),
    ):
        factor.grad = None
        loss.backward()
        assert factor.grad != 0
        assert target.grad is None


def test_total_variation_of_simple_images():
    y, x = torch.meshgrid(torch.arange(8.0), torch.arange(9.0), indexing="ij")
    assert total_variation(torch.full((2, 3, 8, 9), 0.4)) == 0
    assert float(total_variation((0.01 * x).expand(1, 3, 8, 9))) == pytest.approx(0.01)
    assert float(total_variation((0.01 * x + 0.02 * y).expand(1, 3, 8, 9))) == pytest.approx(0.03)
    assert float(total_variation(((x + y) % 2).expand(1, 3, 8, 9))) == 2
    image = torch.rand(1, 3, 8, 9)
    assert float(total_variation(image.transpose(-1, -2))) == pytest.approx(float(total_variation(image)))
    assert total_variation(torch.rand(1, 3, 1, 1)) == 0
    assert total_variation(torch.rand(1, 3, 1, 5)) > 0


# --- the supervised terms --------------------------------------------------------------------------------------------


@pytest.fixture
def truth(photo: Tensor) -> PairedBatch:
    sample = render(photo[..., :32, :40].expand(2, -1, -1, -1), "light", 0, [0, 1])
    streak = sample.rainy - sample.clean
    return PairedBatch(sample.rainy, sample.clean, streak.clamp(min=0), sample.mask, ("a", "b"))


def test_paired_losses_vanish_at_the_truth(truth):
    perfect = Restoration(truth.clean, truth.streak, (2 * truth.mask - 1) * 100)
    assert background_loss(perfect, truth) == 0
    assert background_loss(perfect, truth, balance=0.01) == 0
    assert streak_loss(perfect, truth) < 1e-6
    losses = [
        float(mask_loss(replace(perfect, mask_logits=(2 * truth.mask - 1) * confidence), truth))
        for confidence in (0.0, 1.0, 4.0, 16.0)
    ]
    assert losses[0] == pytest.approx(math.log(2), rel=1e-5)
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 1e-6


def test_paired_losses_are_mean_absolute_errors(truth):
    found = Restoration(truth.clean + 0.1, truth.streak + 0.2)
    assert float(background_loss(found, truth)) == pytest.approx(0.1, rel=1e-5)
    assert float(streak_loss(found, truth)) == pytest.approx(0.2, rel=1e-5)
    assert mask_loss(found, truth) == 0  # it does not detect


def test_balance_weighs_each_image_by_its_own_error(truth):
    error = torch.tensor([0.002, 0.2]).view(2, 1, 1, 1)
    background = with_gradient(truth.clean + error)
    loss = background_loss(Restoration(background, truth.streak), truth, balance=0.01)
    assert loss.item() == pytest.approx((0.01 * math.log(1.2) + 0.01 * math.log(21)) / 2, rel=1e-3)
    loss.backward()
    pull = background.grad.sum(dim=(1, 2, 3)) * 2
    torch.testing.assert_close(pull, torch.tensor([0.01 / 0.012, 0.01 / 0.21]), rtol=1e-3, atol=0)


def test_only_what_became_worse_is_forgotten(truth):
    error = torch.tensor([0.03, 0.05]).view(2, 1, 1, 1)
    background = with_gradient(truth.clean + error)
    before = Restoration(truth.clean + error.flip(0), truth.streak)  # the first was worse, the second was better
    loss = forgetting_loss(Restoration(background, truth.streak), before, truth)
    assert loss.item() == pytest.approx(0.02 / 2, rel=1e-4)
    loss.backward()
    torch.testing.assert_close(background.grad.sum(dim=(1, 2, 3)), torch.tensor([0.0, 0.5]))


def test_forgetting_is_measured_as_backgrounds_are(truth):
    """Against a perfect start all error is forgotten; against itself, and against worse, nothing is."""
    found, perfect = Restoration(truth.clean + 0.1, truth.streak), Restoration(truth.clean, truth.streak)
    for options in ({}, {"balance": 0.01}, {"kind": "charbonnier"}):
        floor = background_loss(perfect, truth, **options)
        expected = background_loss(found, truth, **options) - floor
        torch.testing.assert_close(forgetting_loss(found, perfect, truth, **options), expected)
        assert forgetting_loss(found, found, truth, **options) == 0
        assert forgetting_loss(perfect, found, truth, **options) == 0


def reached(network: nn.Module, loss: Tensor) -> set[str]:
    """The heads all of whose parameters get a gradient."""
    network.zero_grad()
    loss.backward()
    heads = ("head_mask", "head_streak", "head_background")
    return {h for h in heads if all(p.grad is not None and p.grad.any() for p in network.get_submodule(h).parameters())}


def test_each_term_reaches_its_heads(tiny_network, truth):
    def restored() -> Restoration:
        return tiny_network(truth.rainy)

    assert reached(tiny_network, mask_loss(restored(), truth)) == {"head_mask"}
    assert reached(tiny_network, streak_loss(restored(), truth)) == {"head_mask", "head_streak"}
    everything = {"head_mask", "head_streak", "head_background"}
    assert reached(tiny_network, background_loss(restored(), truth)) == everything
    perfect = Restoration(truth.clean, truth.streak)
    assert reached(tiny_network, forgetting_loss(restored(), perfect, truth)) == everything
    assert reached(tiny_network, recomposition_loss(restored(), truth.rainy)) == everything
    residual = truth.rainy - restored().background
    assert reached(tiny_network, Mixture().nll(residual)) == everything
    residual = truth.rainy - restored().background
    assert reached(tiny_network, Mixture().kl(residual, torch.tensor(0.01))) == everything
    assert reached(tiny_network, total_variation(restored().background)) == everything


def test_a_component_without_residuals_begins_again_and_others_are_left_alone():
    mixture = Mixture(3, momentum=0.0)
    start = mixture.moments.clone()
    mixture.update(Statistics(torch.tensor([0.7, 0.3, 0.0]), torch.tensor([0.7 * 0.01, 0.3 * 0.04, 0.0])))
    torch.testing.assert_close(mixture.moments, torch.tensor([0.01, 0.04, float(start[2])]))
    torch.testing.assert_close(mixture.weights, torch.tensor([0.7, 0.3, 1e-3]) / 1.001)
    occupied = Mixture(2, momentum=0.0)
    occupied.update(Statistics(torch.tensor([0.6, 0.4]), torch.tensor([0.006, 0.016])))
    assert torch.equal(occupied.weights, torch.tensor([0.6, 0.4]) / torch.tensor([0.6, 0.4]).sum())


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_residuals_that_are_no_numbers_leave_a_mixture_as_it_is(bad):
    for mixture in (Mixture(), DENSITIES["oriented"]()):
        before = {name: value.clone() for name, value in mixture.state_dict().items()}
        mixture.update(mixture.statistics(torch.full((1, 3, 8, 8), bad)))
        assert all(torch.equal(value, before[name]) for name, value in mixture.state_dict().items())


def test_variances_have_a_floor_of_one_grey_level():
    mixture = Mixture(momentum=0.0)
    for _ in range(3):
        mixture.update(mixture.statistics(torch.zeros(1, 3, 8, 8)))
    assert (mixture.moments >= mixture.floor).all()
    assert mixture.nll(torch.zeros(1, 3, 8, 8)).isfinite()
