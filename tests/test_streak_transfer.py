"""Streak transfer: the pairs that it makes, the veil that it lends, and what forbids its collapse."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from toy import SOURCE, TARGET, Blind, Toy, backgrounds, contrast_kept, pairs, removed, start_network, train

from sstl.losses import forgetting_loss
from sstl.methods import create_method
from sstl.methods.exchange import as_pairs
from sstl.ops.veil import dark_channel
from sstl.rain import rain_map
from sstl.report.adaptation import BOLD
from sstl.types import PairedBatch, Restoration, UnpairedBatch


@pytest.fixture(scope="module")
def source() -> PairedBatch:
    return pairs(96, SOURCE, 1)


@pytest.fixture(scope="module")
def start(source) -> Toy:
    return start_network(source)


@pytest.fixture
def batch(source) -> tuple[PairedBatch, UnpairedBatch]:
    return source.map(lambda t: t[:4]), UnpairedBatch(pairs(4, TARGET, 2).rainy, ("",) * 4)


def settled(network, paired: PairedBatch, photos: UnpairedBatch, **options):
    """A method that has seen the photos for some steps, so that it knows their dark channel."""
    method = create_method("streak_transfer", network, **options)
    for step in range(1, 30):
        method(paired, photos)
        method.after_step(step)
    return method


def test_made_pairs_are_clean_images_in_brighter_light(start, batch):
    method = create_method("streak_transfer", copy.deepcopy(start), veil=0.0)
    made = method.made(batch[0], batch[1].rainy)
    assert torch.equal(made.clean, batch[0].clean)
    assert (made.rainy >= made.clean).all()
    assert 0 < made.mask.mean() < 1
    assert torch.equal(made.mask, rain_map(made.streak))


def test_labelled_pairs_are_left_dry_and_made_ones_are_not(start, batch):
    paired, photos = batch
    method = create_method("streak_transfer", copy.deepcopy(start), veil=0.0, dry=1.0)
    dry = as_pairs(paired.clean, paired.clean, paired.key)
    assert torch.equal(method(paired, photos)["background"], method.supervised(dry)["background"])
    assert (method.made(paired, photos.rainy).rainy > paired.clean).any()


def test_a_teacher_that_finds_no_rain_makes_dry_pairs(batch):
    method = create_method("streak_transfer", Toy(), veil=0.0)
    everywhere = torch.full_like(batch[1].rainy[:, :1], 9.0)
    method.teacher.forward = lambda rainy: Restoration(rainy, torch.zeros_like(rainy), everywhere)
    assert torch.equal(method.made(batch[0], batch[1].rainy).rainy, batch[0].clean)


def test_only_what_the_map_calls_rain_is_taken(start, batch):
    """A map that is 0 everywhere leaves nothing, whatever was removed."""
    method = create_method("streak_transfer", copy.deepcopy(start), veil=0.0)
    forward = method.teacher.forward
    nowhere = torch.full_like(batch[1].rainy[:, :1], -9.0)
    method.teacher.forward = lambda rainy: replace(forward(rainy), mask_logits=nowhere)
    assert torch.equal(method.made(batch[0], batch[1].rainy).rainy, batch[0].clean)


def test_a_network_without_a_map_transfers_all_that_it_removed(batch):
    torch.manual_seed(0)
    parts = create_method("streak_transfer", Blind())(*batch)
    assert parts["loss"].isfinite()


def test_veiled_photos_lend_their_veil_and_clear_ones_none(start, batch):
    paired, _ = batch
    lent = []
    for photos in (paired.clean, 0.5 * paired.clean + 0.4):
        method = settled(copy.deepcopy(start), paired, UnpairedBatch(photos, ("",) * 4))
        lent.append(float((method.made(paired, photos).rainy - paired.clean).mean()))
    assert method.photos_dark > method.clean_dark + 0.2
    assert lent[1] > lent[0] + 0.05


def test_the_veil_brings_the_dark_channel_towards_that_of_the_photos(start, batch):
    paired, _ = batch
    photos = 0.5 * paired.clean + 0.4
    method = settled(copy.deepcopy(start), paired, UnpairedBatch(photos, ("",) * 4))
    before, after = (dark_channel(images).mean() for images in (paired.clean, method.made(paired, photos).rainy))
    wanted = dark_channel(photos).mean()
    assert before + 0.25 * (wanted - before) < after < wanted  # its strength is drawn from none to all of it


def test_labelled_pairs_stand_behind_the_same_veil_if_asked_to(start, batch):
    paired, _ = batch
    photos = UnpairedBatch(0.5 * paired.clean + 0.4, ("",) * 4)
    dry = as_pairs(paired.clean, paired.clean, paired.key)
    for veiled in (False, True):
        method = settled(copy.deepcopy(start), paired, photos, veiled=veiled, dry=1.0)
        plain = method.supervised(dry)["background"]
        assert bool(method(paired, photos)["background"] > 2 * plain) == veiled  # a start that lifts no veil errs by it
    assert (method.behind_veil(dry).rainy.mean(dim=(1, 2, 3)) > paired.clean.mean(dim=(1, 2, 3))).all()
    method = create_method("streak_transfer", copy.deepcopy(start), veil=0.0, veiled=True, dry=1.0)
    assert torch.equal(method(paired, photos)["background"], method.supervised(dry)["background"])


def test_forward_changes_no_state(start, batch):
    method = create_method("streak_transfer", copy.deepcopy(start))
    before = {name: value.clone() for name, value in method.state_dict().items()}
    method(*batch)
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())
    method.after_step(1)
    assert method.photos_dark > 0
    assert method.clean_dark > 0


@pytest.fixture(scope="module")
def adapted(start, source):
    def adapt(steps: int = 150, **options):
        network = copy.deepcopy(start)
        train(create_method("streak_transfer", network, **options), source, pairs(96, TARGET, 2), steps=steps, seed=1)
        return network

    return adapt


@pytest.mark.parametrize("options", [{}, BOLD], ids=["alone", "bold"])
def test_it_learns_the_target_and_keeps_the_texture(options, adapted, start):
    network, test = adapted(**options), pairs(64, TARGET, 3)
    assert removed(network, test) > removed(start, test) + 0.02
    assert contrast_kept(network, backgrounds(64, 4)) > 0.9


def test_without_its_term_it_is_the_control(adapted, start, source):
    control = copy.deepcopy(start)
    train(create_method("supervised", control), source, pairs(96, TARGET, 2), steps=150, seed=1)
    test = pairs(64, TARGET, 3)
    assert removed(adapted(transfer=0.0), test) == pytest.approx(removed(control, test), abs=0.02)


def test_the_start_forgets_nothing_and_stays_as_it_is(start, batch):
    method = create_method("streak_transfer", copy.deepcopy(start), forgetting=1.0)
    method.train()
    assert not method.start.training
    parts = method(*batch)
    assert parts["forgetting"] == 0
    parts["loss"].backward()
    assert all(parameter.grad is None for parameter in method.start.parameters())


def test_what_the_labelled_pairs_lost_is_held_by_its_term(adapted, start, source):
    """Heavy made pairs make a network forget; the term on what became worse takes some of that back."""

    def lost(network: Toy) -> float:
        return float(forgetting_loss(network(source.rainy), start(source.rainy), source))

    free, held = (adapted(supervised=0.05, transfer=4.0, forgetting=weight) for weight in (0.0, 20.0))
    assert lost(held) < 0.7 * lost(free)
    assert removed(held, pairs(64, TARGET, 3)) > removed(start, pairs(64, TARGET, 3)) + 0.02


def test_without_the_supervised_branch_it_still_keeps_the_texture(adapted):
    """Its own truth, the clean image, is the guard that is left."""
    assert contrast_kept(adapted(supervised=0.0), backgrounds(64, 4)) > 0.85
