"""The methods: what each term does and reaches, what forbids its collapse, and what a step leaves behind."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Categorical, MixtureSameFamily, Normal, kl_divergence
from toy import SOURCE, TARGET, Blind, Toy, backgrounds, contrast_kept, harm, pairs, removed, train

from sstl.errors import SstlError
from sstl.losses import (
    Mixture,
    agreement,
    background_loss,
    consistency_loss,
    gaussian_kl,
    mask_loss,
    mixture_nll,
    recomposition_loss,
    streak_loss,
    total_variation,
)
from sstl.methods import METHODS, Method, create_method, list_methods
from sstl.methods.mean_teacher import FAINT, STRONGEST
from sstl.networks import NETWORKS, Network, create_network
from sstl.rain import rain_map
from sstl.types import PairedBatch, Restoration, UnpairedBatch

SEMI = [name for name in list_methods() if METHODS[name].needs_unpaired]
EVERY_TERM = {"mean_teacher": {"likelihood": 1e-3, "kl": 0.02, "tv": 1e-3}}  # off by default


class Domain(NamedTuple):
    """Labelled source pairs, target photos (their truth is never shown), target test pairs, rain-free images."""

    source: PairedBatch
    target: PairedBatch
    test: PairedBatch
    clean: Tensor


@pytest.fixture(scope="session")
def domain() -> Domain:
    return Domain(pairs(96, SOURCE, 1), pairs(96, TARGET, 2), pairs(64, TARGET, 3), backgrounds(64, 4))


@pytest.fixture(scope="session")
def start(domain) -> Network:
    """A network trained on the source."""
    torch.manual_seed(0)
    network = Toy()
    train(create_method("supervised", network), domain.source, domain.target, steps=250, lr=8e-3)
    return network


@pytest.fixture(scope="session")
def adapted(start, domain) -> Callable[..., Network]:
    """Return ``start`` after 300 more steps of a method."""

    def adapt(name: str, seed: int = 1, **options: Any) -> Network:
        network = copy.deepcopy(start)
        train(create_method(name, network, **options), domain.source, domain.target, seed=seed)
        return network

    return adapt


@pytest.fixture
def blind(monkeypatch) -> Network:
    """A network that does not detect."""
    monkeypatch.setitem(NETWORKS._entries, "blind", Blind)
    return create_network("blind")


@pytest.fixture
def batch(domain) -> tuple[PairedBatch, UnpairedBatch]:
    """Four source pairs and four target photos."""
    return domain.source.map(lambda t: t[:4]), UnpairedBatch(domain.target.rainy[:4], ("",) * 4)


def state(method: Method) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in method.state_dict().items()}


def differing(one: dict[str, Tensor], other: dict[str, Tensor]) -> list[str]:
    assert one.keys() == other.keys()
    return [name for name in one if not torch.equal(one[name], other[name])]


# Losses


def restoration(background: Tensor, streak: Tensor | None = None, logits: Tensor | None = None) -> Restoration:
    return Restoration(background, torch.zeros_like(background) if streak is None else streak, logits)


def test_background_loss_is_l1_and_balance_weighs_down_a_downpour(batch):
    truth = batch[0]
    error = torch.tensor([0.01, 0.03, 0.1, 0.3]).view(-1, 1, 1, 1)
    background = (truth.clean + error).requires_grad_()
    torch.testing.assert_close(background_loss(restoration(background), truth), error.mean())
    (gradient,) = torch.autograd.grad(background_loss(restoration(background), truth, 0.03), background)
    torch.testing.assert_close(gradient.sum(dim=(1, 2, 3)), (0.03 / (0.03 + error) / 4).flatten())
    assert background_loss(restoration(truth.clean), truth, 0.03) == 0


def test_streak_and_mask_losses_vanish_at_the_truth_without_restoring_anything(batch):
    truth = batch[0]
    sure = 40 * (truth.mask - 0.5)
    found = restoration(truth.rainy, truth.streak, sure + 40 * truth.mask)
    assert streak_loss(found, truth) < 1e-6
    assert mask_loss(found, truth) < 1e-6
    missed = restoration(truth.rainy, logits=torch.zeros_like(truth.mask))
    torch.testing.assert_close(streak_loss(missed, truth), truth.streak.mean())
    torch.testing.assert_close(mask_loss(missed, truth), torch.tensor(2.0).log())
    assert mask_loss(restoration(truth.rainy), truth) == 0


def test_agreement_falls_to_1_over_e_at_the_tolerance():
    views = torch.zeros(2, 1, 3, 1, 3)
    views[0, 0, 1, 0] = torch.tensor([0.0, 0.1, 0.2])  # standard deviations 0, 0.05 and 0.1
    torch.testing.assert_close(agreement(views, 0.05).flatten(), torch.exp(-torch.tensor([0.0, 1.0, 4.0])))


def test_consistency_is_weighted_and_moves_the_student_only():
    student, target = torch.rand(2, 3, 4, 4, requires_grad=True), torch.rand(2, 3, 4, 4, requires_grad=True)
    weight = torch.zeros(2, 1, 4, 4)
    weight[0, 0, 0, 0] = 0.5
    loss = consistency_loss(student, target, weight)
    torch.testing.assert_close(loss, 0.5 * (student - target)[0, :, 0, 0].abs().sum() / student.numel())
    gradient, none = torch.autograd.grad(loss, (student, target), allow_unused=True)
    assert none is None
    assert gradient.count_nonzero() == 3


def test_recomposition_asks_that_what_is_missing_be_called_rain(batch):
    truth = batch[0]
    assert recomposition_loss(restoration(truth.clean, truth.rainy - truth.clean), truth.rainy) < 1e-7
    assert recomposition_loss(restoration(truth.rainy), truth.rainy) == 0  # "remove nothing"
    torch.testing.assert_close(
        recomposition_loss(restoration(truth.clean), truth.rainy), (truth.rainy - truth.clean).mean()
    )


def test_total_variation_of_a_plane_is_its_slope_and_of_a_constant_zero():
    y, x = torch.meshgrid(torch.arange(5.0), torch.arange(7.0), indexing="ij")
    torch.testing.assert_close(total_variation((2 * x - 3 * y)[None, None]), torch.tensor(5.0))
    assert total_variation(torch.full((1, 3, 4, 4), 0.3)) == 0
    assert total_variation(torch.rand(1, 3, 1, 1)) == 0


def test_nll_is_the_full_density_and_pulls_towards_removing_nothing():
    residual = torch.randn(50, dtype=torch.double, requires_grad=True)
    weights, variances = torch.tensor([0.2, 0.5, 0.3]).double(), torch.tensor([0.01, 0.3, 2.0]).double()
    reference = MixtureSameFamily(Categorical(weights), Normal(torch.zeros(3).double(), variances.sqrt()))
    loss = mixture_nll(residual, weights, variances)
    torch.testing.assert_close(loss, -reference.log_prob(residual).mean())
    (gradient,) = torch.autograd.grad(loss, residual)
    assert (gradient.sign() == residual.sign()).all()


def test_kl_is_that_of_two_gaussians_and_grows_as_the_residuals_vanish():
    variance, reference = torch.tensor([1e-8, 1e-4, 0.04, 0.09]), torch.tensor(0.04)
    expected = kl_divergence(Normal(0, reference.sqrt()), Normal(torch.zeros(4), variance.sqrt()))
    torch.testing.assert_close(gaussian_kl(variance, reference), expected)
    assert expected[2] == 0
    assert expected[0] > 1e3 * expected[1]


def residuals(count: int, weights: tuple[float, ...], deviations: tuple[float, ...], seed: int) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    chosen = torch.multinomial(torch.tensor(weights), count, replacement=True, generator=draw)
    return torch.randn(count, generator=draw).double() * torch.tensor(deviations).double()[chosen]


@pytest.mark.parametrize("components", [1, 2, 3, 5])
def test_a_full_batch_em_step_never_lowers_the_likelihood(components):
    data = residuals(3000, (0.7, 0.3), (0.02, 0.2), seed=components)
    mixture = Mixture(components, momentum=0, floor=0).double()
    losses = []
    for _ in range(40):
        losses.append(float(mixture.nll(data)))
        mixture.update(mixture.statistics(data))
    assert all(after <= before + 1e-9 for before, after in pairwise(losses))
    assert losses[-1] < losses[0] - 0.01


def test_online_em_recovers_a_known_mixture():
    weights, deviations = (0.6, 0.3, 0.1), (0.01, 0.06, 0.3)
    mixture = Mixture(3).double()
    for step in range(400):
        mixture.update(mixture.statistics(residuals(4000, weights, deviations, seed=step)))
    order = mixture.variances.argsort()
    torch.testing.assert_close(mixture.variances[order].sqrt(), torch.tensor(deviations).double(), rtol=0.05, atol=0)
    torch.testing.assert_close(mixture.weights[order], torch.tensor(weights).double(), rtol=0, atol=0.03)


def test_a_mixture_keeps_its_floor_and_passes_over_what_is_not_finite():
    mixture = Mixture(2)
    mixture.update(mixture.statistics(torch.zeros(100)))
    assert (mixture.variances == mixture.floor).all()
    before = copy.deepcopy(mixture.state_dict())
    mixture.update(mixture.statistics(torch.full((10,), float("nan"))))
    assert differing(before, mixture.state_dict()) == []
    with pytest.raises(SstlError, match="components"):
        Mixture(0)


# Every method


@pytest.mark.parametrize("name", list_methods())
@pytest.mark.parametrize("learned", [False, True], ids=["fresh", "trained"])
def test_the_gradient_of_each_term_reaches_the_network(name, learned, start, batch):
    network = copy.deepcopy(start) if learned else Toy()
    method = create_method(name, network, **EVERY_TERM.get(name, {}))
    parts = method(*batch)
    silent = []
    for term, value in parts.items():
        if value.requires_grad:
            gradients = torch.autograd.grad(value, [*network.parameters()], retain_graph=True, allow_unused=True)
            if any(g is not None and g.abs().sum() > 0 for g in gradients):
                continue
        silent.append(term)
    assert silent == [term for term in parts if term == "trust"]  # a measurement, not a term


@pytest.mark.parametrize("name", list_methods())
@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("detects", [True, False], ids=["detects", "blind"])
def test_every_method_trains_any_network_in_any_precision(name, bf16, detects, blind, batch):
    network = Toy() if detects else blind
    method = create_method(name, network, **EVERY_TERM.get(name, {})).train()
    before = state(method)
    optimizer = torch.optim.SGD(network.parameters(), 1e-3)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        parts = method(*batch)
    assert all(value.isfinite() and value.ndim == 0 for value in parts.values())
    assert differing(before, state(method)) == []  # forward changes no state
    parts["loss"].backward()
    optimizer.step()
    method.after_step(1)
    changed = differing(before, state(method))
    assert all(value.isfinite().all() for value in method.state_dict().values())
    assert {key.split(".")[0] for key in changed} == {key.split(".")[0] for key in before}


@pytest.mark.parametrize("name", list_methods())
def test_options_are_as_strict_as_a_configuration(name):
    with pytest.raises(SstlError, match=f"method '{name}'.*'steak'.*'streak'"):
        create_method(name, Toy(), steak=1.0)
    with pytest.raises(SstlError, match=f"method '{name}'.*'mask' is '1e-3'.*0.001"):
        create_method(name, Toy(), mask="1e-3")
    assert create_method(name, Toy(), mask=1, balance=None).balance is None


def test_an_unknown_method_is_told_the_nearest():
    with pytest.raises(SstlError, match="sirr"):
        create_method("sir", Toy())


@pytest.mark.parametrize("name", SEMI)
def test_unlabelled_photos_are_asked_for(name, batch):
    with pytest.raises(SstlError, match=f"'{name}' needs unlabelled photos"):
        create_method(name, Toy())(batch[0])


@pytest.mark.parametrize("name", list_methods())
def test_a_dropped_step_leaves_no_trace(name, start, batch, domain):
    options = EVERY_TERM.get(name, {})
    method, other = (create_method(name, copy.deepcopy(start), **options) for _ in range(2))
    method(domain.source.map(lambda t: t[4:8]), UnpairedBatch(0.5 * domain.target.rainy[4:8], batch[1].key))
    for each in (method, other):
        torch.manual_seed(0)
        each(*batch)
        each.after_step(1)
    assert differing(state(method), state(other)) == []


@pytest.mark.parametrize("name", list_methods())
def test_the_state_dict_is_the_whole_state(name, start, batch):
    options = EVERY_TERM.get(name, {})
    method = create_method(name, copy.deepcopy(start), **options)
    train(method, batch[0], batch[0], steps=2)
    other = create_method(name, Toy(), **options)
    other.load_state_dict(method.state_dict())
    torch.manual_seed(0)
    expected = method(*batch)
    torch.manual_seed(0)
    assert differing(expected, other(*batch)) == []


# Supervised


def test_the_weights_of_the_supervised_terms_act(batch):
    network = Toy()
    parts = create_method("supervised", network, streak=2.0, mask=3.0)(batch[0])
    assert [*parts] == ["loss", "background", "streak", "mask"]
    torch.testing.assert_close(parts["loss"], parts["background"] + 2 * parts["streak"] + 3 * parts["mask"])
    alone = create_method("supervised", network, streak=0.0, mask=0.0, balance=None)(batch[0])
    restored = network(batch[0].rainy)
    torch.testing.assert_close(alone["loss"], (restored.background - batch[0].clean).abs().mean())
    torch.testing.assert_close(parts["streak"], streak_loss(restored, batch[0]))
    torch.testing.assert_close(parts["mask"], mask_loss(restored, batch[0]))


def test_the_earlier_stage_is_supervised_by_its_weight(batch):
    network = create_network("joint", size="tiny", stages=2)
    restored = network(batch[0].rainy)
    (first,) = restored.stages
    for weight in (0.0, 0.5, 2.0):
        parts = create_method("supervised", network, early_stages=weight)(batch[0])
        for term, loss in (("streak", streak_loss), ("mask", mask_loss)):
            torch.testing.assert_close(parts[term], loss(restored, batch[0]) + weight * loss(first, batch[0]))
        expected = background_loss(restored, batch[0], 0.01) + weight * background_loss(first, batch[0], 0.01)
        torch.testing.assert_close(parts["background"], expected)


# What forbids a collapse: 300 steps with every guard, and with each guard taken away


def test_supervised_training_is_the_baseline(start, domain):
    assert removed(start, domain.test) > 0.3
    assert contrast_kept(start, domain.clean) > 0.9
    assert harm(start, domain.clean) > 30


# SIRR


def test_sirr_neither_stops_removing_nor_flattens(adapted, start, domain):
    network = adapted("sirr")
    assert removed(network, domain.test) > removed(start, domain.test) - 0.05
    assert contrast_kept(network, domain.clean) > 0.9


def test_likelihood_alone_removes_nothing(adapted, domain):
    network = adapted("sirr", supervised=0.0, kl=0.0, tv=0.0, likelihood=1.0)
    assert abs(removed(network, domain.test)) < 0.1


def test_total_variation_alone_flattens(adapted, domain):
    network = adapted("sirr", supervised=0.0, kl=0.0, likelihood=0.0, tv=1.0)
    assert contrast_kept(network, domain.clean) < 0.5


def test_the_kl_holds_against_a_strong_likelihood(adapted, domain):
    held, free = (removed(adapted("sirr", likelihood=0.1, kl=kl), domain.test) for kl in (1.0, 0.0))
    assert held > free + 0.1


def test_the_mixture_moves_after_a_step_only(start, batch):
    method = create_method("sirr", copy.deepcopy(start))
    before = state(method)
    assert {"residuals.mixture.weights", "residuals.mixture.variances", "residuals.mixture.updates"} < before.keys()
    method(*batch)
    assert differing(before, state(method)) == []
    method.after_step(1)
    assert {name.split(".")[0] for name in differing(before, state(method))} == {"residuals"}
    moved = state(method)
    method.after_step(2)  # without a forward there is nothing to learn
    assert differing(moved, state(method)) == []


def test_the_mixture_fits_the_residuals(start, domain):
    method = create_method("sirr", copy.deepcopy(start))
    residual = (domain.target.rainy - start(domain.target.rainy).background).detach()
    before = method.residuals.mixture.nll(residual)
    for step in range(30):
        method(domain.source, UnpairedBatch(domain.target.rainy, domain.target.key))
        method.after_step(step + 1)
    mixture = method.residuals.mixture
    assert mixture.nll(residual) < before
    torch.testing.assert_close((mixture.weights * mixture.variances).sum(), residual.square().mean(), rtol=0.02, atol=0)


# Mean teacher


def test_the_mean_teacher_learns_the_target_and_keeps_the_texture(adapted, start, domain):
    network, control = adapted("mean_teacher"), adapted("supervised")
    baseline = max(removed(start, domain.test), removed(control, domain.test))
    assert removed(network, domain.test) > baseline + 0.05
    assert contrast_kept(network, domain.clean) > 0.9


def test_the_exchanged_rain_is_what_teaches(adapted, domain):
    gain, without = (removed(adapted("mean_teacher", exchange=e), domain.test) for e in (1.0, 0.0))
    assert gain > without + 0.05


def test_consistency_and_recomposition_alone_collapse(adapted, start, domain):
    network = adapted("mean_teacher", supervised=0.0, exchange=0.0, consistency=1.0, recomposition=1.0)
    assert removed(network, domain.test) < removed(start, domain.test) - 0.1


def test_the_mean_teacher_takes_a_likelihood(start, domain):
    method = create_method("mean_teacher", copy.deepcopy(start), likelihood=1e-3, kl=0.02)
    before = method.residuals.mixture.variances.clone()
    train(method, domain.source, domain.target, steps=5)
    assert method.residuals.mixture.updates == 5
    assert not torch.equal(method.residuals.mixture.variances, before)


def test_the_teacher_is_an_average_that_no_gradient_moves(batch):
    method = create_method("mean_teacher", Toy(), decay=0.6).train()
    assert method.network.training
    assert not any(module.training for module in method.teacher.modules())
    assert {id(p) for p in method.parameters() if p.requires_grad} == {id(p) for p in method.network.parameters()}
    method(*batch)["loss"].backward()
    assert all(p.grad is None for p in method.teacher.parameters())
    expected = [p.clone() for p in method.teacher.parameters()]
    for step in range(1, 21):
        with torch.no_grad():
            for p in method.network.parameters():
                p.add_(torch.randn_like(p))
        decay = min(0.6, step / (step + 10))
        expected = [
            decay * old + (1 - decay) * new for old, new in zip(expected, method.network.parameters(), strict=True)
        ]
        method.after_step(step)
    for value, wanted in zip(method.teacher.parameters(), expected, strict=True):
        torch.testing.assert_close(value, wanted)


def test_the_teacher_has_the_students_buffers():
    network = Toy()
    network.register_buffer("seen", torch.zeros(2))
    method = create_method("mean_teacher", network)
    network.seen += 3
    method.after_step(1)
    assert torch.equal(method.teacher.seen, network.seen)
    assert method.teacher.seen is not network.seen


def test_the_pseudo_label_of_the_mirror_image_is_mirrored(start, batch):
    method = create_method("mean_teacher", copy.deepcopy(start))
    label, trust = method.pseudo_label(batch[1].rainy)
    mirrored, mirrored_trust = method.pseudo_label(batch[1].rainy.flip(-1))
    torch.testing.assert_close(mirrored.flip(-1), label)
    torch.testing.assert_close(mirrored_trust.flip(-1), trust)
    assert label.min() >= 0
    assert label.max() <= 1
    assert 0 < trust.min() < 0.99
    assert trust.max() <= 1


def test_a_teacher_that_treats_mirror_images_alike_is_trusted(start, batch):
    network = copy.deepcopy(start)
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d):
                layer.weight.copy_((layer.weight + layer.weight.flip(-1)) / 2)
    trust = create_method("mean_teacher", network).pseudo_label(batch[1].rainy)[1]
    torch.testing.assert_close(trust, torch.ones(4, 1, *trust.shape[2:]))


def test_exchanged_rain_is_a_consistent_pair_of_grey_rain_as_bright_as_asked(batch):
    method = create_method("mean_teacher", Toy(), brightness=(0.2, 0.3))
    paired = PairedBatch(
        *(0.5 * t for t in (batch[0].rainy, batch[0].clean, batch[0].streak)), batch[0].mask, batch[0].key
    )
    made = method.exchanged(paired, 0.15 * torch.rand_like(paired.clean) + 0.05 * torch.rand(4, 1, 32, 32))
    assert torch.equal(made.clean, paired.clean)
    assert (made.rainy >= made.clean).all()
    assert made.rainy.max() < 1
    torch.testing.assert_close(made.streak, made.rainy - made.clean)
    assert torch.equal(made.mask, rain_map(made.streak))
    assert 0.1 < made.mask.mean() < 1
    torch.testing.assert_close(made.streak, made.streak[:, :1].expand_as(made.streak))
    bright = made.streak[:, 0].flatten(1).quantile(0.98, dim=1)
    assert (bright > 0.2 - 1e-4).all()
    assert (bright < 0.3 + 1e-4).all()
    assert bright.std() > 0.005


@pytest.mark.parametrize("residual", ["none", "faint", "of one colour", "negative"])
def test_what_is_no_rain_is_not_blown_up_into_rain(residual, batch):
    paired = batch[0]
    layers = {
        "none": torch.zeros_like(paired.clean),
        "faint": 0.99 * FAINT * torch.rand_like(paired.clean),
        "of one colour": torch.rand(4, 1, 32, 32) * torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1),
        "negative": -torch.rand_like(paired.clean),
    }
    made = create_method("mean_teacher", Toy()).exchanged(paired, layers[residual])
    assert torch.equal(made.rainy, paired.clean)
    assert made.mask.sum() == 0


def test_rain_is_brightened_by_a_bounded_factor(batch):
    method = create_method("mean_teacher", Toy(), brightness=(1.0, 1.0))
    made = method.exchanged(batch[0], torch.full_like(batch[0].clean, 1.5 * FAINT))
    torch.testing.assert_close(made.rainy, (batch[0].clean + STRONGEST * 1.5 * FAINT).clamp(max=1))


def test_the_strong_view_changes_exposure_and_adds_noise_within_bounds(start, batch):
    method = create_method("mean_teacher", copy.deepcopy(start))
    rainy, background = batch[1].rainy, 0.1 + 0.5 * torch.rand_like(batch[1].rainy)
    strong, expected = method.strong_view(rainy, background)
    for image in (strong, expected):
        assert 0 <= image.min() <= image.max() <= 1
    exposure = (expected / background)[:, :1, :1, :1]
    assert (exposure >= 0.8).all()
    assert (exposure <= 1.2).all()
    torch.testing.assert_close(expected, exposure * background)
    noise = (strong - (exposure * rainy).clamp(0, 1)).flatten(1)
    assert (noise.std(dim=1) <= 0.021).all()
    assert noise.abs().max() > 0
    assert (noise.mean(dim=1).abs() < 0.002).all()
