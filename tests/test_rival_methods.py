"""The methods of earlier systems: two players with their own optimisers, a sign put right, and faults reproduced."""

from __future__ import annotations

import dataclasses
import math
import re

import numpy as np
import pytest
import torch
from toy import SOURCE, TARGET, Toy, pairs, removed, train

from sstl.errors import SstlError
from sstl.losses import mask_loss
from sstl.methods import create_method
from sstl.methods.adversarial import PERCEPTUAL
from sstl.networks import create_network
from sstl.types import PairedBatch, UnpairedBatch


@pytest.fixture
def batch() -> tuple[PairedBatch, UnpairedBatch]:
    target = pairs(4, TARGET, 2)
    return pairs(4, SOURCE, 1), UnpairedBatch(target.rainy, target.key)


# ID-CGAN


def gradients(loss: torch.Tensor, module: torch.nn.Module) -> list[torch.Tensor | None]:
    return list(torch.autograd.grad(loss, [*module.parameters()], retain_graph=True, allow_unused=True))


def test_the_players_do_not_train_each_other(batch):
    method = create_method("adversarial", Toy(), width=4)
    parts = method(batch[0])
    assert all(g is None for g in gradients(parts["adversarial"], method.discriminator))
    assert all(g is None for g in gradients(parts["pixel"], method.discriminator))
    assert all(g is None for g in gradients(parts["discriminator"], method.network))
    for whole, alone in zip(
        gradients(parts["loss"], method.discriminator),
        gradients(parts["discriminator"], method.discriminator),
        strict=True,
    ):
        torch.testing.assert_close(whole, alone)


def test_the_adversarial_terms_are_cross_entropies(batch):
    method = create_method("adversarial", Toy(), width=4)
    parts = method(batch[0])
    background = method.network(batch[0].rainy).background
    entropy = torch.nn.functional.binary_cross_entropy_with_logits
    real = method.discriminator(torch.cat([batch[0].rainy, batch[0].clean], dim=1))
    made = method.discriminator(torch.cat([batch[0].rainy, background], dim=1))
    torch.testing.assert_close(parts["adversarial"], entropy(made, torch.ones_like(made)))
    expected = 0.5 * entropy(real, torch.ones_like(real)) + 0.5 * entropy(made, torch.zeros_like(made))
    torch.testing.assert_close(parts["discriminator"], expected)


def test_the_weights_of_the_players_terms_act(batch):
    parts = create_method("adversarial", Toy(), width=4, pixel=2.0, adversarial=0.5)(batch[0])
    expected = 2 * parts["pixel"] + 0.5 * parts["adversarial"] + parts["discriminator"]
    torch.testing.assert_close(parts["loss"], expected)


def test_the_discriminator_learns_what_is_clean(batch):
    """Against an untrained network that leaves the rain in, it soon tells the two apart."""
    method = create_method("adversarial", Toy(), width=8)
    optimizer = torch.optim.Adam(method.groups()["discriminator"], 2e-3)
    before = float(method(batch[0])["discriminator"].detach())
    for _ in range(30):
        optimizer.zero_grad()
        method(batch[0])["discriminator"].backward()
        optimizer.step()
    assert before == pytest.approx(math.log(2), abs=0.15)
    assert float(method(batch[0])["discriminator"].detach()) < 0.5 * before


@pytest.mark.parametrize(("preset", "weight"), [("paper", 1.0), ("released", 150.0)])
def test_the_perceptual_presets_need_a_backbone(preset, weight):
    assert PERCEPTUAL[preset] == weight
    with pytest.raises(SstlError, match="needs weights of 'vgg16'"):
        create_method("adversarial", Toy(), width=4, perceptual=preset)


# JORDER-E


def test_the_loss_of_jorder_e(batch):
    network = create_network("jorder_e", width=4, blocks=1)
    restored = network(batch[0].rainy)
    parts = create_method("jorder_e", network, streak=0.5, mask=0.25)(batch[0])
    errors = [(stage.background - batch[0].clean).abs().mean() for stage in (*restored.stages, restored)]
    torch.testing.assert_close(parts["background"], sum(errors))
    torch.testing.assert_close(parts["streak"], (restored.streak - batch[0].streak).abs().mean())
    torch.testing.assert_close(parts["mask"], mask_loss(restored, batch[0]))
    torch.testing.assert_close(parts["loss"], sum(errors) + 0.5 * parts["streak"] + 0.25 * parts["mask"])


def test_the_released_map_is_learned_from_a_sign_error(batch):
    """Its target says "no rain" of every pixel here, so a map that finds the rain scores worse than an empty one."""

    def mask_term(rain: bool, released: bool) -> float:
        network = Toy()
        with torch.no_grad():
            network.body[-1].bias[0] = 5.0 if rain else -5.0
        return float(create_method("jorder_e", network, released=released)(batch[0])["mask"].detach())

    everywhere = dataclasses.replace(batch[0], mask=torch.ones_like(batch[0].mask))
    assert mask_term(rain=True, released=True) > 100 * mask_term(rain=False, released=True)
    assert mask_loss(Toy()(batch[0].rainy), everywhere) > 0
    share = float(batch[0].mask.mean())
    assert mask_term(rain=True, released=False) == pytest.approx(5 * (1 - share), rel=0.1)
    assert mask_term(rain=False, released=False) == pytest.approx(5 * share, rel=0.1)


# SIRR as released


def em(squares: np.ndarray, weights: np.ndarray, variances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """E-M-E in numpy: responsibilities and variances."""

    def expectation() -> np.ndarray:
        density = weights * np.exp(-squares[:, None] / (2 * variances)) / np.sqrt(2 * np.pi * variances)
        return density / density.sum(axis=1, keepdims=True)

    share = expectation()
    weights = share.mean(axis=0)
    variances = (share * squares[:, None]).sum(axis=0) / share.sum(axis=0) + 1e-6
    return expectation(), variances


def test_the_released_likelihood_is_that_of_one_em_on_the_batch(batch):
    network = Toy().double()
    method = create_method("sirr_released", network, first_epoch=0).double()
    paired, unpaired = (b.map(torch.Tensor.double) for b in batch)
    weights, variances = method.weights.numpy().copy(), method.variances.numpy().copy()
    nll = float(method(paired, unpaired)["nll"].detach())
    with torch.no_grad():
        squares = (unpaired.rainy - network(unpaired.rainy).background).square().numpy().ravel()
    share, fitted = em(squares, weights, variances)
    assert nll == pytest.approx(float((share * squares[:, None] / (2 * fitted)).sum(axis=1).mean()))
    method.after_step(1)
    assert method.variances.numpy() == pytest.approx(fitted)


def test_in_the_first_epoch_the_mixture_is_that_of_the_photos(batch):
    method = create_method("sirr_released", Toy(), first_epoch=1)
    method(*batch)
    method.after_step(1)
    energy = float((method.weights * method.variances).sum())
    assert energy == pytest.approx(float(batch[1].rainy.square().mean()), rel=1e-3)
    method(*batch)  # the second step is past the first epoch
    method.after_step(2)
    assert float((method.weights * method.variances).sum()) < 0.5 * energy


def test_the_released_kl_has_no_gradient_and_takes_a_variance_for_a_deviation(batch):
    method = create_method("sirr_released", Toy(), first_epoch=0)
    parts = method(*batch)
    assert not parts["kl"].requires_grad
    method.after_step(1)
    difference = batch[0].rainy - batch[0].clean
    synthetic = torch.distributions.Normal(difference.mean(), difference.std(correction=0))
    expected = min(
        float(torch.distributions.kl_divergence(synthetic, torch.distributions.Normal(0.0, variance)))
        for variance in method.variances
    )
    assert float(parts["kl"]) == pytest.approx(expected, rel=1e-4)


def test_the_released_variation_is_summed(batch):
    method = create_method("sirr_released", Toy())
    image = method.network(batch[1].rainy).background.detach()
    vertical = sum(abs(float(v)) for v in (image[:, :, 1:] - image[:, :, :-1]).ravel())
    horizontal = sum(abs(float(v)) for v in (image[..., 1:] - image[..., :-1]).ravel())
    assert float(method(*batch)["tv"].detach()) == pytest.approx((vertical + horizontal) / len(image), rel=1e-4)


def test_the_released_weights_stop_the_removal_in_photos():
    """Its likelihood outweighs its supervision: rain stays in the photos, where supervision alone removes some."""
    source, target = pairs(64, SOURCE, 1), pairs(64, TARGET, 2)
    left = {}
    for name, options in (("supervised", {}), ("sirr_released", {"first_epoch": 0})):
        torch.manual_seed(0)
        network = Toy()
        train(create_method(name, network, **options), source, target, steps=200, lr=1e-2)
        left[name] = removed(network, target)
    assert left["supervised"] > 0.2
    assert left["sirr_released"] < 0.5 * left["supervised"]


def test_photos_take_the_branch_of_their_own(batch):
    network = create_network("sirr_released")
    parts = create_method("sirr_released", network)(*batch)
    named = dict(network.named_parameters())
    for term, other in (("background", 1), ("nll", 0)):
        found = torch.autograd.grad(parts[term], [*named.values()], retain_graph=True, allow_unused=True)
        missed = {name for name, gradient in zip(named, found, strict=True) if gradient is None}
        assert missed == {name for name in named if re.search(rf"\.(biases|norms)\.{other}\b", name)}
