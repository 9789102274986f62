"""Two networks, one for what looks like the photos: the discriminant, the choice, tiles, files, and the gate's use."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from skimage import data
from test_trust import config, fake, same, tensors  # noqa: F401 (config is a fixture)
from torch.distributions import MultivariateNormal

from sstl.data.images import Photo
from sstl.data.stream import PairedPart
from sstl.engine import NetworkConfig, gate, train
from sstl.errors import SstlError, WeightsError
from sstl.methods.trust import Harm, Trust
from sstl.networks import create_network, load_weights, save_weights
from sstl.networks.routed import VIEW, Routed, discriminant, latest, looks, reliability, views
from sstl.rain import load_recipe, render
from sstl.rain.appearance import FEATURES
from sstl.restore import Restorer, adapted
from sstl.restore.export import export_network
from sstl.types import Restoration

JORDER = {"network": "jorder", "options": {"width": 4, "recurrences": 2}}
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee")


def crops(name: str, count: int = 6, side: int = 96) -> torch.Tensor:
    image = torch.from_numpy(getattr(data, name)()[:280, :440].copy()).permute(2, 0, 1).float() / 255
    places = np.random.default_rng(0).integers((280 - side, 440 - side), size=(count, 2))
    return torch.stack([image[:, top : top + side, left : left + side] for top, left in places])


def rained(clean: torch.Tensor, seed: int) -> torch.Tensor:
    return render(clean, load_recipe("heavy"), seed, list(range(len(clean)))).rainy


@pytest.fixture(scope="module")
def router() -> Routed:
    """Knows dense rain from none, by two photographs; its networks are jorder, fresh and unlike."""
    network = create_network("routed", **JORDER).eval()
    clean = torch.cat([crops(name, 12) for name in PHOTOGRAPHS[:2]])
    network.learn(looks(rained(clean, 1)), looks(clean))
    for parameter in network.adapted.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return network


def alike(one: Restoration, other: Restoration) -> bool:
    pairs = [(one.background, other.background), (one.streak, other.streak), (one.mask_logits, other.mask_logits)]
    return all(torch.allclose(a, b, atol=1e-6) for a, b in pairs) and len(one.stages) == len(other.stages)


# The discriminant


def test_the_border_is_fishers_plane_where_the_covariance_is_the_same():
    rng = np.random.default_rng(0)
    mean = np.array([1.0, -2.0, 0.5])
    photos, others = rng.normal(mean, 1, (50_000, 3)), rng.normal(0, 1, (50_000, 3))
    learned = discriminant(photos, others)
    # Uncorrelated features of variance 1: the direction is the difference of the means, the border halfway.
    np.testing.assert_allclose(learned.direction, mean, atol=0.05)
    np.testing.assert_allclose(learned.centre, mean / 2, atol=0.05)
    np.testing.assert_allclose(learned.curvature, np.zeros((3, 3)), atol=0.05)
    assert learned.offset == pytest.approx(0, abs=0.1)
    wrong = float((learned(photos) <= 0).mean())
    assert wrong == pytest.approx(0.126, abs=0.01)  # of the normal distribution, beyond |mean| / 2 = 1.146


def test_what_is_decided_depends_on_no_unit():
    rng = np.random.default_rng(1)
    photos, others, new = (rng.normal(shift, 1, (40, 5)) for shift in (0.7, 0.0, 0.3))
    unit, origin = np.array([1, 10, 0.01, 300, 5.0]), np.array([0, 5, -3, 1e3, 0.1])
    again = discriminant(photos * unit + origin, others * unit + origin)
    np.testing.assert_allclose(again(new * unit + origin), discriminant(photos, others)(new), rtol=1e-3, atol=1e-3)


def test_what_is_learned_is_the_ratio_of_the_likelihoods():
    rng = np.random.default_rng(2)
    photos, others, new = (rng.normal(0.3 * i, spread, (50, 4)) for i, spread in enumerate((2, 1, 1)))
    learned = discriminant(photos, others, shared=0.0, shrinkage=0.0)
    classes = [[torch.from_numpy(x) for x in (own.mean(axis=0), np.cov(own.T, bias=True))] for own in (photos, others)]
    one, other = (MultivariateNormal(*parts).log_prob(torch.from_numpy(new)).numpy() for parts in classes)
    np.testing.assert_allclose(learned(new), one - other, rtol=1e-4)
    # Classes that share all of their covariance are told apart by a plane: Fisher's linear discriminant.
    plane = discriminant(photos, others, shared=1.0, shrinkage=0.0)
    np.testing.assert_allclose(plane.curvature, np.zeros((4, 4)), atol=1e-9)


def test_photos_of_two_kinds_of_rain_on_either_side_of_the_others_are_recognised():
    rng = np.random.default_rng(3)
    others = rng.normal(0, 1, (500, 2))
    photos = np.concatenate([rng.normal((side, 0), 1, (250, 2)) for side in (-4, 4)])
    assert (discriminant(photos, others)(photos) > 0).mean() > 0.85
    assert (discriminant(photos, others)(others) > 0).mean() < 0.15
    assert (discriminant(photos, others, shared=1.0)(photos) > 0).mean() < 0.7  # a plane cannot


def test_one_image_teaches_nothing():
    with pytest.raises(SstlError, match="2 images of each kind, not 1 and 4"):
        discriminant(np.zeros((1, 3)), np.zeros((4, 3)))


def test_features_are_as_many_as_a_file_says():
    assert looks(torch.rand(2, 3, 64, 64)).shape == (2, FEATURES)


def test_layout_and_arithmetic_change_nothing():
    images = crops("coffee", 2)
    expected = looks(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = looks(images.contiguous(memory_format=torch.channels_last))
    np.testing.assert_array_equal(found, expected)


def test_reliability_is_measured_on_images_that_were_not_learned_from():
    clean = torch.cat([crops(name) for name in PHOTOGRAPHS])
    names = [name for name in PHOTOGRAPHS for _ in range(6)]
    rainy, dry = looks(rained(clean, 1)), looks(clean)
    photos, others = reliability((rainy, names), (dry, names))
    assert photos >= 0.75
    assert others <= 0.25
    by_chance = reliability((rainy, names), (looks(rained(clean, 2)), names))
    assert abs(by_chance[0] - by_chance[1]) <= 0.4
    assert reliability((rainy[:6], ["one"] * 6), (dry[:6], ["one"] * 6))[0] > 0.5


# The choice


def test_none_of_what_is_spared_is_taken_for_a_photo():
    rng = np.random.default_rng(0)
    photos, others = rng.normal(1, 1, (60, 3)), rng.normal(-1, 1, (60, 3))
    plain, spared = discriminant(photos, others), rng.normal(0.5, 1, (20, 3))
    assert (plain(spared) > 0).any()
    moved = plain.sparing(spared)
    assert not (moved(spared) > 0).any()
    np.testing.assert_allclose(np.diff(moved(photos)), np.diff(plain(photos)))  # the border alone has moved
    assert 0 < (moved(photos) > 0).mean() < (plain(photos) > 0).mean()
    assert plain.sparing(spared[plain(spared) <= -0.1]) is plain
    assert plain.sparing(spared[:0]) is plain
    names = [str(i) for i in range(60)]
    before, after = (reliability((photos, names), (others, names), images) for images in (None, spared))
    assert after[0] < before[0]
    assert after[1] <= before[1]


def test_rain_is_recognised_on_a_photograph_that_was_not_learned_from(router):
    clean = crops(PHOTOGRAPHS[2])
    assert router.recognised(rained(clean, 3)).float().mean() >= 0.6
    assert router.recognised(clean).float().mean() <= 0.2


def test_each_image_of_a_batch_goes_to_its_own_network(router):
    clean = crops(PHOTOGRAPHS[2])
    images = torch.stack([clean, rained(clean, 3)], dim=1).flatten(0, 1)
    new = router.recognised(images)
    assert 0 < int(new.sum()) < len(new)
    with torch.inference_mode():
        both, ours, theirs = router(images), router.adapted(images[new]), router.known(images[~new])
    for rows, expected in ((new, ours), (~new, theirs)):
        torch.testing.assert_close(both.background[rows], expected.background)
        torch.testing.assert_close(both.streak[rows], expected.streak)
        torch.testing.assert_close(both.mask_logits[rows], expected.mask_logits)
        for stage, own in zip(both.stages, expected.stages, strict=True):
            torch.testing.assert_close(stage.background[rows], own.background)


def test_small_images_and_those_of_a_fresh_router_are_known(router):
    rainy = rained(crops(PHOTOGRAPHS[0]), 1)
    assert router.recognised(rainy).all()
    assert not router.recognised(rainy[..., :63]).any()
    assert not create_network("routed", **JORDER).recognised(rainy).any()


def test_operations_can_be_counted_without_values():
    network = create_network("routed", **JORDER).to("meta")
    assert network(torch.empty(2, 3, 70, 70, device="meta")).background.shape == (2, 3, 70, 70)


def test_what_is_fixed_is_done(router):
    images = crops(PHOTOGRAPHS[0], 2)
    with torch.inference_mode():
        for fixed, network in ((True, router.adapted), (False, router.known)):
            router.fixed = fixed
            assert alike(router(images), network(images))
        router.fixed = None


@pytest.mark.parametrize(("height", "width", "count"), [(480, 321, 4), (192, 500, 2), (100, 100, 1), (70, 900, 2)])
def test_views_are_squares_at_multiples_of_eight_that_reach_the_far_corner(height, width, count):
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    found = views(torch.stack([rows, columns])[None])
    side = min(VIEW, height, width)
    assert [tuple(view.shape) for view in found] == [(1, 2, side, side)] * count
    corners = [tuple(view[0, :, 0, 0].tolist()) for view in found]
    assert all(value % 8 == 0 for corner in corners for value in corner)
    assert height - side - corners[-1][0] < 8
    assert width - side - corners[-1][1] < 8


def test_all_tiles_of_a_picture_go_to_one_network(router):
    clean = torch.from_numpy(data.astronaut()[:200, :400].copy()).permute(2, 0, 1)[None].float() / 255
    picture = torch.cat([clean[..., :200], rained(clean[..., 200:], 1)], dim=-1)[0]  # half of it is dry
    tiled, whole = (Restorer(router, tile=tile).restore(picture) for tile in (64, 0))
    assert router.fixed is None
    torch.testing.assert_close(tiled, whole, atol=1e-5, rtol=0)
    alone = [Restorer(network, tile=0).restore(picture) for network in (router.adapted, router.known)]
    assert sum(torch.allclose(whole, one, atol=1e-5) for one in alone) == 1


def test_a_clip_is_restored_by_the_network_of_most_of_its_frames(router, monkeypatch):
    votes = iter([True, False, True])
    monkeypatch.setattr(Routed, "recognised_in", lambda *_: torch.tensor([next(votes)]))
    restorer, frame = Restorer(router), crops(PHOTOGRAPHS[2], 1)[0]
    expected = Restorer(router.adapted).restore(frame)
    with restorer.settled([frame] * 3):
        for _ in range(2):  # nobody votes any more
            torch.testing.assert_close(restorer.restore(frame), expected, atol=1e-5, rtol=0)
    assert router.fixed is None


def test_mirror_images_go_to_the_network_of_the_photo(router, monkeypatch):
    votes = iter([True])
    monkeypatch.setattr(Routed, "recognised_in", lambda *_: torch.tensor([next(votes)]))
    photo = Photo((crops(PHOTOGRAPHS[2], 1)[0] * 255).byte().permute(1, 2, 0).numpy())
    expected = Restorer(router.adapted).restore_photo(photo, ("background", "doubt"))
    found = Restorer(router).restore_photo(photo, ("background", "doubt"))
    for layer in ("background", "doubt"):
        assert np.abs(found[layer].pixels.astype(int) - expected[layer].pixels).max() <= 1


def test_what_a_photo_gets_is_adapted_to_it(router, monkeypatch):
    monkeypatch.setattr(Routed, "recognised_in", lambda *_: torch.tensor([True]))
    trained = []

    def train(method, *_):
        trained.append(method.network.fixed)

    monkeypatch.setattr(adapted, "_train", train)
    monkeypatch.setattr(adapted, "_error", lambda *_: next(errors))
    errors = iter([0.2, 0.1])
    rainy = rained(crops(PHOTOGRAPHS[2], 1, 128), 3)[0]
    found = adapted.adapt_to_photo(Restorer(router), rainy, steps=1)
    assert (found.before, found.after) == (0.2, 0.1)
    assert trained == [True]
    assert router.fixed is None


def test_what_chooses_cannot_be_exported(router, tmp_path):
    with pytest.raises(SstlError, match=r"export one of its two: kept\.safetensors"):
        export_network(router, tmp_path / "w.pt2")


# Files and further training


def test_a_file_brings_both_networks_and_the_choice(router, tmp_path):
    loaded = load_weights(save_weights(tmp_path / "w.safetensors", router)).network
    images = rained(crops(PHOTOGRAPHS[2]), 3)
    assert (loaded.name, loaded.config) == ("routed", JORDER)
    assert torch.equal(loaded.recognised(images), router.recognised(images))
    with torch.inference_mode():
        assert alike(loaded(images), router(images))


def test_a_file_makes_nobody_fetch_weights(tmp_path):
    network = create_network("routed", **JORDER)
    network.config = {"network": "joint", "options": {"pretrained": "hub:someone/something"}}
    with pytest.raises(WeightsError, match="'pretrained' is no option"):
        load_weights(save_weights(tmp_path / "w.safetensors", network))


def test_of_a_routed_network_the_last_adapted_is_trained(router):
    again = Routed(router)
    assert again.config == {"network": "routed", "options": JORDER}
    assert latest(again) is again.adapted
    assert type(again.adapted) is type(router.adapted)
    rebuilt = create_network("routed", **again.config)
    assert {*rebuilt.state_dict()} == {*again.state_dict()}


# The gate


OTHERS = {"others": (PairedPart("bundled", split="train", recipe="light"),)}


def forgets_alone(monkeypatch) -> None:
    """Whatever is adapted forgets all, except where a router holds the start."""
    harm = {True: Harm(0.0, 50.0, 50.0), False: Harm(9.0, 50.0, 50.0)}
    monkeypatch.setattr(Trust, "harm", lambda _, network: harm[isinstance(network, Routed)])
    monkeypatch.setattr(gate, "reliability", lambda *_: (0.8, 0.1))  # two photos without rain would not be recognised


def test_what_forgets_by_itself_is_kept_beside_the_start(config, monkeypatch):  # noqa: F811
    settings = config(gate=OTHERS, steps=2, snapshot_every=2)
    fake(monkeypatch, [0.9])
    forgets_alone(monkeypatch)
    weights = load_weights(train(settings))
    assert isinstance(weights.network, Routed)
    trust = weights.info["trust"]
    assert trust["accepted"]
    assert trust["best"]["share"] == 1.0
    assert trust["best"]["gain"] == pytest.approx(0.9 * 0.8)
    assert same(weights.network.known.state_dict(), tensors(settings.network.weights))
    adapted = weights.network.adapted.state_dict()
    assert same(adapted, tensors(settings.output / "snapshots" / "step-00000002.safetensors"))
    assert weights.network.direction.any()


@pytest.mark.parametrize(("left", "spared"), [(0.7, True), (0.5, False)])
def test_the_router_spares_what_is_judged_on_the_rain_if_that_costs_few_photos(config, monkeypatch, left, spared):  # noqa: F811
    given, shares = [], iter([(0.8, 0.1), (left, 0.05)])
    monkeypatch.setattr(gate, "reliability", lambda *found: given.append(found[2]) or next(shares))
    learned = []
    monkeypatch.setattr(Routed, "learn", lambda _, *found: learned.append(found[2]))
    settings = config(gate=OTHERS)
    judge = gate.Gate(settings, load_weights(settings.network.weights).network, torch.device("cpu"))
    clear = looks(judge.rehearsed.clean)
    np.testing.assert_array_equal(given[0], clear)
    np.testing.assert_array_equal(given[1], np.concatenate([clear, looks(judge.rehearsed.rainy)]))
    assert learned[-1] is given[spared]
    assert judge.routing == ({"photos": left, "others": 0.05} if spared else {"photos": 0.8, "others": 0.1})


def test_the_router_takes_no_clear_photograph_that_is_judged_on(config, monkeypatch):  # noqa: F811
    monkeypatch.setattr(gate, "reliability", lambda *_: (0.8, 0.1))
    settings = config(gate=OTHERS)
    judge = gate.Gate(settings, load_weights(settings.network.weights).network, torch.device("cpu"))
    assert isinstance(judge.shipped, Routed)
    assert not judge.shipped.recognised(judge.rehearsed.clean).any()


def test_without_others_it_is_taken_back(config, monkeypatch):  # noqa: F811
    settings = config(steps=2)
    fake(monkeypatch, [0.9])
    forgets_alone(monkeypatch)
    assert not isinstance(load_weights(train(settings)).network, Routed)
    assert '"share": 0.25' in (settings.output / "log.jsonl").read_text()


def test_a_routed_start_is_adapted_further_and_stays_routed(config, monkeypatch):  # noqa: F811
    settings = config(gate=OTHERS, steps=2)
    fake(monkeypatch, [0.9, 0.9])
    forgets_alone(monkeypatch)
    first = train(settings)
    start = load_weights(first).network
    onward = replace(config("onward", steps=2), network=NetworkConfig("routed", start.config, str(first)))
    found = load_weights(train(onward)).network
    assert isinstance(found, Routed)
    assert same(found.known.state_dict(), start.known.state_dict())
    assert not same(found.adapted.state_dict(), start.adapted.state_dict())
    assert torch.equal(found.direction, start.direction)
    assert {*load_file(onward.output / "kept.safetensors")} == {*start.adapted.state_dict()}
