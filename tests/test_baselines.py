"""Syn2Real, AdaBN, entropy and test-time adaptation: their parts, on every network, and the command that uses one."""

from __future__ import annotations

import copy
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from test_systems import DETECTING, build
from torch import Tensor, nn
from toy import SOURCE, TARGET, Toy, pairs

import sstl
from sstl.errors import SstlError
from sstl.losses import map_entropy, pseudo_latent_loss
from sstl.losses.gaussian_process import posterior
from sstl.methods import Method, create_method
from sstl.methods.exchange import found_streaks, lay_over, moved
from sstl.networks import Network, create_network, list_networks, load_weights, save_weights
from sstl.networks.deveil import Deveil
from sstl.networks.latent import watch_latent
from sstl.rain import render
from sstl.restore import Restorer, adapted
from sstl.restore.adapted import Adapted, Crops, adapt_to_photo
from sstl.types import PairedBatch, Restoration, UnpairedBatch

BASELINES = ["adabn", "entropy", "syn2real", "test_time"]


@pytest.fixture
def batch() -> tuple[PairedBatch, UnpairedBatch]:
    target = pairs(3, TARGET, 2)
    return pairs(3, SOURCE, 1), UnpairedBatch(target.rainy, target.key)


def step(method: Method, batch: tuple[PairedBatch, UnpairedBatch], lr: float = 1e-3) -> dict[str, Tensor]:
    optimizer = torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], lr, weight_decay=0.0)
    parts = method.train()(*batch)
    parts["loss"].backward()
    optimizer.step()
    method.after_step(1)
    return parts


def changed(network: Network, before: dict[str, Tensor]) -> set[str]:
    return {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}


# Every network


@pytest.mark.parametrize("network_name", list_networks())
@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_takes_a_step_on_every_network(name, network_name, batch):
    network = build(network_name)
    refused = {"adabn": network_name == "sirr_released", "entropy": network_name not in DETECTING}.get(name, False)
    if refused:
        with pytest.raises(SstlError, match=f"'{name}'.*network '{network_name}'.*; use "):
            create_method(name, network)
        return
    method = create_method(name, network)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    parts = step(method, batch)
    assert all(value.isfinite() for value in parts.values())
    assert changed(network, before)
    assert all(value.isfinite().all() for value in network.state_dict().values())


@pytest.mark.parametrize("name", list_networks())
def test_the_latent_of_every_network_is_a_vector_that_carries_a_gradient(name, batch):
    network = build(name).eval()
    lengths = set()
    with watch_latent(network) as latent:
        for rainy in (batch[0].rainy[:2], batch[0].rainy[:2, :, :24, :17]):
            network(rainy)
            assert latent().shape[0] == 2
            assert latent().isfinite().all()
            lengths.add(latent().size(1))
        assert len(lengths) == 1
        gradients = torch.autograd.grad(latent().sum(), [*network.parameters()], allow_unused=True)
    assert any(g is not None and g.abs().sum() > 0 for g in gradients)
    assert not any(module._forward_hooks for module in network.modules())
    assert not any(module._forward_pre_hooks for module in network.modules() if isinstance(module, nn.Conv2d))


# The latent


def test_the_latent_is_that_of_the_named_module_or_what_the_last_convolution_is_given(batch):
    network, seen = Toy(), {}
    network.body[3].register_forward_hook(lambda _, __, output: seen.update(rectified=output))
    network.body[1].register_forward_hook(lambda _, __, output: seen.update(first=output))
    for name, place in ((None, "rectified"), ("body.1", "first")):
        network.latent = name
        with watch_latent(network) as latent:
            network(batch[0].rainy)
            found = latent()
        features = seen[place]
        expected = torch.cat([features.mean(dim=(2, 3)), features.std(dim=(2, 3), correction=0)], dim=1)
        torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-3)


def test_a_network_around_another_has_the_inner_ones_latent(batch):
    inner = build("joint")
    with watch_latent(Deveil(inner)) as latent:
        Deveil(inner)(batch[0].rainy)
    assert build("joint").latent == "context"
    assert latent().size(1) == 2 * 56  # channels of its bottleneck


def test_a_network_without_a_latent_is_told_what_to_do():
    with watch_latent(Toy()) as latent, pytest.raises(SstlError, match="name the module that gives it"):
        latent()


# The Gaussian process


def test_the_posterior_is_that_of_the_nearest_by_explicit_inversion():
    rng = np.random.default_rng(0)
    points, known = rng.standard_normal((3, 5)), rng.standard_normal((9, 5))
    mean, variance = posterior(torch.tensor(points), torch.tensor(known), neighbours=4, noise=0.3)

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    for i, point in enumerate(points):
        near = sorted(known, key=lambda row, point=point: -kernel(point, row))[:4]
        gram = np.array([[kernel(a, b) for b in near] for a in near]) + 0.09 * np.eye(4)
        cross = np.array([kernel(point, a) for a in near])
        inverse = np.linalg.inv(gram)
        np.testing.assert_allclose(mean[i], cross @ inverse @ np.array(near))
        np.testing.assert_allclose(variance[i], 1 - cross @ inverse @ cross + 0.09)


def test_the_pseudo_latent_of_a_known_latent_is_itself_and_of_a_strange_one_unsure():
    known = torch.eye(6)[:4]
    mean, variance = posterior(torch.eye(6), known, neighbours=16, noise=0.01)
    torch.testing.assert_close(mean[:4], known, atol=1e-3, rtol=0)
    assert (variance[:4] < 1e-3).all()
    torch.testing.assert_close(variance[4:], torch.full((2,), 1 + 1e-4))


def test_the_latent_loss_is_least_at_the_known_latents():
    known = torch.randn(40, 8)
    points = torch.randn(6, 8, requires_grad=True)
    loss = pseudo_latent_loss(points, known)
    assert loss > pseudo_latent_loss(known[:6], known) >= 0
    (gradient,) = torch.autograd.grad(loss, points)
    assert (gradient.abs().sum(dim=1) > 0).all()
    assert pseudo_latent_loss(points - 0.05 * gradient, known) < loss
    # The cheapest solution: all points on one known latent.
    assert pseudo_latent_loss(known[:1].expand(6, -1), known) < 0.5 * loss


def test_the_memory_is_the_latest_labelled_latents(batch):
    method = create_method("syn2real", Toy(), memory=5).train()
    seen = []
    for number in range(4):
        with torch.no_grad(), watch_latent(method.network) as latent:
            method.network(batch[0].rainy * (number + 1) / 4)
            seen += [*latent()]
        scaled = PairedBatch(batch[0].rainy * (number + 1) / 4, *(getattr(batch[0], f) for f in ("clean", "streak")),
                             batch[0].mask, batch[0].key)  # fmt: skip
        before = method.latents.clone()
        method(scaled, batch[1])
        assert torch.equal(method.latents, before)
        method.after_step(number + 1)
    assert method.count == 12
    kept = sorted(method.latents.tolist())
    np.testing.assert_allclose(kept, sorted(torch.stack(seen[-5:]).tolist()), rtol=1e-4, atol=1e-6)


# AdaBN


@pytest.mark.parametrize("name", ["ddn", "idcgan"])
def test_with_batch_normalisation_only_its_statistics_change(name, batch):
    network = build(name)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    method = create_method("adabn", network)
    for _ in range(2):
        step(method, batch)
    assert all(is_statistic(key) for key in changed(network, before))
    running = {key for key in before if is_statistic(key) and "tracked" not in key}
    assert running <= changed(network, before)


def is_statistic(key: str) -> bool:
    return key.split(".")[-1] in ("running_mean", "running_var", "num_batches_tracked")


def test_the_statistics_become_the_mean_of_those_of_the_photos(batch):
    network = build("ddn")
    network.layers[0].norms[0].running_mean += 5  # what the source had is forgotten
    method = create_method("adabn", network, supervised=1.0)
    means = []
    first = network.layers[0]
    first.norms[0].register_forward_pre_hook(lambda _, inputs: means.append(inputs[0].mean(dim=(0, 2, 3))))
    shown = []
    for brightness in (0.5, 1.0):
        means.clear()
        method.train()(batch[0], UnpairedBatch(brightness * batch[1].rainy, batch[1].key))
        shown.append(means[-1])  # the labelled batch comes first and is not kept
    torch.testing.assert_close(first.norms[0].running_mean, torch.stack(shown).mean(dim=0))


def test_without_batch_normalisation_only_numbers_per_channel_are_learned(batch):
    network = Toy()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    for name in ("adabn", "entropy"):
        step(create_method(name, network), batch)
    assert changed(network, before) == {"body.0.bias", "body.2.bias", "body.4.bias"}


def test_the_moments_of_the_photos_are_drawn_to_those_of_the_pairs(batch):
    method = create_method("adabn", Toy(), supervised=0.0, moments=1.0)
    first = float(method(*batch)["moments"].detach())
    for _ in range(30):
        last = step(method, batch, lr=1e-2)["moments"]
    assert float(last.detach()) < 0.7 * first
    same = method(batch[0], UnpairedBatch(batch[0].rainy, batch[0].key))
    assert float(same["moments"].detach()) < 1e-9


# Entropy


def test_the_entropy_is_that_of_the_maps_probabilities():
    logits = torch.linspace(-6, 6, 13, requires_grad=True)
    loss = map_entropy(logits)
    torch.testing.assert_close(loss, torch.distributions.Bernoulli(logits=logits).entropy().mean())
    (gradient,) = torch.autograd.grad(loss, logits)
    assert (gradient * logits <= 0).all()  # away from 1/2, on either side
    assert map_entropy(torch.zeros(1)) == pytest.approx(math.log(2))


# Test time


def test_rain_that_was_found_is_laid_on_the_restoration(batch):
    method = create_method("test_time", Toy())
    made = method.rained_again(batch[1])
    with torch.no_grad():
        restored = method.network(batch[1].rainy).background.clamp(0, 1)
    assert torch.equal(made.clean, restored)
    assert (made.rainy >= made.clean).all()
    torch.testing.assert_close(made.streak, made.rainy - made.clean)
    assert not made.rainy.requires_grad
    assert made.key == batch[1].key


def test_moved_streaks_lie_elsewhere_in_another_direction():
    streak = torch.zeros(64, 1, 32, 32)
    streak[..., 6:26, 16] = 1
    elsewhere = moved(streak, turn=30.0, zoom=1.3)
    assert elsewhere.min() >= 0
    assert elsewhere.max() <= 1 + 1e-6
    amount = elsewhere.sum(dim=(1, 2, 3)) / streak[0].sum()
    assert 0.4 < amount.mean() < 2
    assert (elsewhere - streak).abs().amax(dim=(1, 2, 3)).min() > 0.1
    # Without a turn the streaks of a column stay in a column.
    upright = moved(streak, turn=0.0, zoom=1.0)
    assert ((upright > 0.05).any(dim=2).sum(dim=-1) <= 4).all()


def test_streaks_are_moved_to_the_same_places_in_mixed_precision():
    streak, found = torch.rand(4, 1, 96, 96), []
    for enabled in (False, True):
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            found.append(moved(streak, turn=30.0, zoom=1.3))
    assert torch.equal(*found)


def test_found_streaks_are_grey_and_not_faint():
    residual = torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1).repeat(1, 1, 2, 2)
    residual[..., 0, 0] = 0.01
    residual[0, 2, 1, 1] = -1
    assert found_streaks(residual).flatten().tolist() == pytest.approx([0, 0.1, 0.1, 0])
    made = lay_over(torch.full((1, 3, 2, 2), 0.2), found_streaks(residual), (0.3, 0.3), ("a",))
    assert made.rainy.amax() == pytest.approx(0.5, abs=0.02)


# One photo


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    """Rain on a made-up scene, uint8 (96, 160, 3)."""
    tiles = pairs(15, TARGET, 7).rainy
    rows = [torch.cat([*tiles[5 * row : 5 * row + 5]], dim=2) for row in range(3)]
    return (torch.cat(rows, dim=1).permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()


class Halver(Network):
    """Takes a learned share of what is brighter than its surroundings away; one parameter and a bias."""

    name = "halver"

    def __init__(self) -> None:
        super().__init__()
        self.share = nn.Parameter(torch.tensor(0.5))
        self.local = nn.Conv2d(3, 3, 5, padding=2, groups=3, bias=False)
        nn.init.constant_(self.local.weight, 1 / 25)

    def forward(self, rainy: Tensor) -> Restoration:
        streak = self.share * (rainy - self.local(rainy)).clamp(min=0)
        return Restoration(rainy - streak, streak)


@pytest.fixture
def restorer() -> Restorer:
    return Restorer(Halver())


def parameters(restorer: Restorer) -> list[Tensor]:
    return [p.detach().clone() for p in restorer.network.parameters()]


def equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_adapting_to_a_photo_leaves_the_weights_and_follows_the_seed(restorer, photo):
    before, generator = parameters(restorer), torch.get_rng_state()
    one, same, other = (adapt_to_photo(restorer, photo, 4, seed, 3e-3) for seed in (0, 0, 1))
    assert equal(parameters(restorer), before)
    assert not restorer.network.training
    assert torch.equal(torch.get_rng_state(), generator)
    assert one.reason is None
    assert one.after < one.before
    assert not equal(parameters(one.restorer), before)
    assert not one.restorer.network.training
    assert equal(parameters(one.restorer), parameters(same.restorer))
    assert (one.before, one.after) == (same.before, same.after)
    assert not equal(parameters(one.restorer), parameters(other.restorer))
    assert not np.array_equal(one.restorer.restore(photo), restorer.restore(photo))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_a_photo_teaches_is_judged_in_either_arithmetic(dtype, photo):
    rainy = render(torch.from_numpy(photo).movedim(-1, 0)[None] / 255, "heavy", 1, [0]).rainy[0]
    found = adapt_to_photo(Restorer(load_weights("joint-tiny").network, dtype=dtype), rainy, 2, learning_rate=1e-3)
    assert found.after != found.before


@pytest.mark.parametrize("rate", [-3e-3, math.nan], ids=["worse", "broken"])
def test_an_adaptation_that_does_not_pay_is_not_kept(rate, restorer, photo, monkeypatch):
    class Wrong(torch.optim.SGD):
        def __init__(self, parameters: object, *_: object, **__: object) -> None:
            super().__init__(parameters, 1.0)

        def step(self) -> None:
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter.data -= rate * parameter.grad.sign()

    monkeypatch.setattr(torch.optim, "AdamW", Wrong)
    result = adapt_to_photo(restorer, photo, 3)
    assert result.restorer is restorer
    assert "did not lower the error" in result.reason
    assert result.after is None if math.isnan(rate) else result.after >= result.before


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (np.zeros((12, 200, 3), np.uint8), "smaller than 64 x 16 pixels"),
        (np.zeros((40, 63), np.uint8), "smaller than 64 x 16 pixels"),
        (np.full((64, 64, 3), 90, np.uint8), "no rain was found"),
    ],
    ids=["narrow", "small", "dry"],
)
def test_a_photo_that_teaches_nothing_keeps_the_start(image, reason, restorer):
    flat = copy.deepcopy(restorer)
    nn.init.zeros_(flat.network.local.weight)
    flat.network.share.data.zero_()
    result = adapt_to_photo(flat, image, 2)
    assert result == Adapted(flat, None, None, result.reason)
    assert reason in result.reason


def test_what_is_held_back_is_not_trained_on():
    frames = [torch.zeros(3, 70, 200), torch.zeros(1, 180, 90, dtype=torch.uint8)]
    crops = Crops(frames, np.random.default_rng(0))
    assert crops.side == 40
    for frame in frames:
        frame[:] = 0
        lines = frame if frame.size(1) > frame.size(2) else frame.mT
        for start in crops._strips(lines.size(1)):
            lines[:, start : start + crops.side] = 1
    held = crops.held_back()
    assert held.shape[1:] == (3, 40, 40)
    assert (held.amin(dim=(1, 2, 3)) > 0).all()
    drawn = crops.draw(200)
    assert drawn.max() == 0
    assert drawn.shape == (200, 3, 40, 40)


def test_frames_of_any_kind_are_adapted_to_together(restorer, photo, tmp_path):
    Image.fromarray(photo).save(tmp_path / "a.png")
    frames = [tmp_path / "a.png", Image.fromarray(photo), photo[..., 0], torch.from_numpy(photo).movedim(-1, 0)]
    result = adapt_to_photo(restorer, frames, 1)
    assert result.before is not None


@pytest.mark.parametrize(
    ("photos", "steps", "message"),
    [
        ([], 3, "there is no photo"),
        ("photo", 0, "steps are 0"),
        (np.zeros((2, 3, 9, 9)), 1, "cannot restore a ndarray"),
    ],
)
def test_wrong_arguments_are_told(photos, steps, message, restorer, photo):
    with pytest.raises(SstlError, match=message):
        adapt_to_photo(restorer, photo if isinstance(photos, str) else photos, steps)


def test_of_a_deveiling_network_the_one_inside_is_adapted(photo, monkeypatch):
    seen = []
    monkeypatch.setattr(adapted, "_train", lambda method, *_: seen.append(method.network))
    adapt_to_photo(Restorer(Deveil(Halver())), photo, 1)
    assert isinstance(seen[0], Halver)


def test_the_public_name_is_this_function():
    assert sstl.adapt_to_photo is adapt_to_photo


def test_derain_adapts_to_each_photo(run_cli, photo, tmp_path):
    torch.manual_seed(0)
    weights = save_weights(tmp_path / "w.safetensors", create_network("prn", width=4, stages=1, blocks=1))
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.fromarray(photo).save(folder / "a.png")
    Image.fromarray(photo[:20, :20]).save(folder / "small.png")
    command = ("derain", folder, "--weights", weights, "--precision", "fp32")
    done = run_cli(*command, "-o", tmp_path / "out", "--adapt-steps", 2, "--json", tmp_path / "f.json")
    assert done.code == 0, done.err
    rows = {row["input"][-7:]: row["adapted"] for row in json.loads((tmp_path / "f.json").read_text())["photos"]}
    assert rows["all.png"] == {"kept": False, "before": None, "after": None,
                               "reason": "smaller than 64 x 16 pixels"}  # fmt: skip
    kept = rows["s/a.png"]["kept"]
    assert f"{int(kept)} of them with weights adapted to it" in done.out
    assert "small.png: restored by the starting weights: smaller than 64 x 16 pixels" in done.out
    run_cli(*command, "-o", tmp_path / "plain")
    images = {place: np.array(Image.open(tmp_path / place / "a.png")) for place in ("out", "plain")}
    assert np.array_equal(images["out"], images["plain"]) != kept
    small = [(tmp_path / place / "small.png").read_bytes() for place in ("out", "plain")]
    assert small[0] == small[1]
