"""Trust: exams that are the same for all, measures that say what they mean, a gate that keeps what is better."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from itertools import chain, repeat

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from skimage import data
from toy import SOURCE, TARGET, Toy, pairs, start_network
from toy import train as train_toy

from sstl.data import SourceConfig
from sstl.data.stream import PairedPart
from sstl.engine import DataConfig, GateConfig, MethodConfig, NetworkConfig, TrainConfig, gate, read_log, train
from sstl.errors import SstlError
from sstl.methods import create_method
from sstl.methods.exchange import crowded
from sstl.methods.trust import (
    CAP,
    Harm,
    Judgement,
    Trust,
    look,
    luma_psnr,
    make_exam,
    measure,
    predict,
    quality,
    rain_seen,
    restore,
    unseen,
)
from sstl.networks import load_weights, save_weights
from sstl.networks.weights import read_info
from sstl.rain import load_recipe, render
from sstl.types import PairedBatch, Restoration

COUNT = 12


class Removes(Toy):
    """Takes away a share of what it is given, or blurs it."""

    def __init__(self, change) -> None:
        super().__init__()
        self.change = change

    def forward(self, rainy):
        background = self.change(rainy)
        return Restoration(background, rainy - background)


def keep(rainy):
    return rainy


def blur(rainy):
    return torch.nn.functional.avg_pool2d(rainy, 5, 1, 2, count_include_pad=False)


@pytest.fixture(scope="module")
def source() -> PairedBatch:
    return pairs(96, SOURCE, 1)


@pytest.fixture(scope="module")
def start(source) -> Toy:
    return start_network(source)


@pytest.fixture(scope="module")
def exam(start, source):
    photos = pairs(COUNT, TARGET, 5).rainy
    return make_exam(photos, rain_seen(start, photos), source.map(lambda t: t[:COUNT]), seed=0)


def test_an_exam_is_the_same_each_time_and_leaves_the_random_state(start, exam):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    again = make_exam(exam.photos, rain_seen(start, exam.photos), exam.rehearsed, seed=0)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(again.found.rainy, exam.found.rainy)
    assert torch.equal(exam.found.clean, exam.rehearsed.clean)
    assert exam.found.mask.mean() > 0.02


def test_what_is_not_seen_of_the_rain_is_what_is_not_removed():
    photos = pairs(4, TARGET, 5).rainy
    seen = float(rain_seen(Removes(blur), photos).mean())
    assert seen > 0
    assert unseen(Removes(blur), photos, 4 * seen) == pytest.approx(0.75)
    assert unseen(Removes(blur), photos, seen / 2) == 0
    assert unseen(Removes(keep), photos, 0.1) == 1
    assert unseen(Removes(keep), photos, 0.0) == 0


def test_what_is_forgotten_of_a_known_rain_is_not_made_up_for_by_another(start, exam):
    known = [pairs(4, rain, seed) for rain, seed in ((SOURCE, 2), (TARGET, 3))]
    both = make_exam(exam.photos, rain_seen(start, exam.photos), exam.rehearsed, seed=0, known=known)
    assert torch.equal(both.found.rainy, exam.found.rainy)
    network = Removes(keep)
    lost = [
        float((luma_psnr(restore(start, one.rainy).background, one.clean) - luma_psnr(one.rainy, one.clean)).mean())
        for one in (exam.rehearsed, *known)
    ]
    assert lost[0] != pytest.approx(max(lost))
    assert Trust(start, both).harm(network).forgotten == pytest.approx(max(lost), abs=1e-4)
    assert Trust(start, exam).harm(network).forgotten == pytest.approx(lost[0], abs=1e-4)


def test_crowded_images_wear_the_streaks_of_two_photos():
    streak = torch.zeros(3, 1, 2, 2)
    streak[0], streak[1], streak[2] = 1, 2, 4
    both, single = (crowded(streak, streak.roll(1, 0), share)[:, 0, 0, 0] for share in (1.0, 0.0))
    assert both.tolist() == [5, 3, 6]
    assert single.tolist() == [1, 2, 4]


def test_an_exam_needs_as_many_pairs_as_photos(exam):
    with pytest.raises(SstlError, match="as many crops of photos as of pairs"):
        make_exam(exam.photos[:3], exam.streak[:3], exam.rehearsed, seed=0)


def test_a_network_that_changes_nothing_measures_as_such(exam):
    found = measure(Removes(keep), exam)
    for name in ("clean", "mirror", "cycle"):
        assert (found[name] == CAP).all() == (name != "cycle")
    assert found["leftover"].abs().max() < 1e-6
    torch.testing.assert_close(found["found"], luma_psnr(exam.found.rainy, exam.found.clean))
    assert found["rehearsed"].shape == (COUNT,)


def test_luma_psnr_of_an_offset():
    truth = torch.full((2, 3, 8, 8), 0.4)
    offset = 0.1 * (65.481 + 128.553 + 24.966) / 255
    expected = -20 * math.log10(offset)
    assert luma_psnr(truth + 0.1, truth).tolist() == pytest.approx([expected] * 2, abs=1e-3)
    assert luma_psnr(truth, truth).tolist() == [CAP] * 2


def test_the_start_gains_and_forgets_nothing(start, exam):
    judged = Trust(start, exam).judge(copy.deepcopy(start))
    assert (judged.gain, judged.forgotten) == (0, 0)
    assert judged.harmless


def test_what_learned_the_target_gains_and_what_collapsed_loses(start, source, exam):
    learned = copy.deepcopy(start)
    train_toy(create_method("supervised", learned), pairs(96, TARGET, 7), source)
    trust = Trust(start, exam)
    gains = {name: trust.judge(network).gain for name, network in
             {"learned": learned, "nothing": Removes(keep), "smooth": Removes(blur)}.items()}  # fmt: skip
    assert gains["learned"] > 0.3
    assert gains["nothing"] < 0
    assert gains["smooth"] < 0
    assert not trust.judge(Removes(blur)).harmless


def test_matched_streaks_tell_what_a_finder_that_is_blind_to_the_rain_does_not(start, source):
    """A finder that sees nothing sets an exam without rain, in which who removes nothing is as good as any."""
    photos, rehearsed = pairs(COUNT, TARGET, 5).rainy, source.map(lambda t: t[:COUNT])
    learned, wet = copy.deepcopy(start), replace(load_recipe("light"), brightness=(0.4, 0.6), density=(6.0, 9.0))
    train_toy(create_method("supervised", learned), pairs(96, TARGET, 7), source)

    def gains(matched):
        trust = Trust(start, make_exam(photos, torch.zeros_like(photos[:, :1]), rehearsed, seed=0, matched=matched))
        return [trust.judge(network).gain for network in (learned, Removes(keep), Removes(blur))]

    taught, nothing, smooth = gains(None)
    assert max(taught, smooth) < nothing < 0.1  # however clean it leaves what has no rain: see ``CLEAR``
    taught, nothing, smooth = gains(wet)
    assert taught > max(nothing, smooth) + 1


def test_the_exam_under_matched_streaks_is_theirs_behind_the_photos_veil(exam):
    clean, recipe = exam.rehearsed.clean, load_recipe("light")
    again = make_exam(exam.photos, torch.zeros_like(exam.streak), exam.rehearsed, seed=4, matched=recipe)
    assert again.matched is not None
    assert torch.equal(again.matched.clean, clean)
    rained = render(clean, recipe, 4, range(len(clean))).rainy
    foggy = make_exam(0.3 * clean + 0.6, torch.zeros_like(exam.streak), exam.rehearsed, seed=4, matched=recipe)
    assert foggy.matched.rainy.mean() > rained.mean() + 0.05
    unveiled = make_exam(clean, torch.zeros_like(exam.streak), exam.rehearsed, seed=4, matched=recipe)  # no veil to lay
    torch.testing.assert_close(unveiled.matched.rainy, rained, atol=0.02, rtol=0)
    assert make_exam(exam.photos, exam.streak, exam.rehearsed, seed=4).matched is None


def test_the_prediction_is_linear_and_its_error_grows_with_the_spread_of_the_crops():
    scores = [
        {"measures": ["found", "matched"], "scale": 0.5, "error": 0.3},
        {"measures": ["found"], "scale": 2, "error": 0.1},
    ]
    change = {"found": torch.full((8,), 2.0), "matched": torch.full((8,), 1.0), "other": torch.rand(8)}
    assert predict(change, scores) == pytest.approx((0.75, 0.3 * 0.75))
    assert predict({"found": change["found"]}, scores) == pytest.approx((4, 0.1 * 4))  # nothing was matched
    spread = {**change, "found": torch.arange(8.0)}
    gain, error = predict(spread, scores)
    crops = 0.25 * spread["found"].std(correction=0) / 8**0.5  # the standard error of their mean
    assert error == pytest.approx(math.hypot(crops, 0.3 * gain), rel=0.1)


def test_of_two_restorations_of_a_photo_the_one_with_less_rain_is_preferred():
    target = pairs(16, TARGET, 4)
    half = (target.rainy + target.clean) / 2
    better = quality(look(target.rainy, half)) > quality(look(target.rainy, target.rainy))
    assert better.float().mean() > 0.9


# The gate


@pytest.fixture
def config(tmp_path, tiny_network):
    """A run of a few steps on two photos, with a gate that judges every second."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(2):
        Image.fromarray(data.coffee()[:96, 100 * i : 100 * i + 96]).save(photos / f"{i}.png")
    start = save_weights(tmp_path / "start.safetensors", tiny_network)

    def make(name="run", gate=None, **changes) -> TrainConfig:
        settings = {"steps": 6, "batch_size": 2, "precision": "fp32", "checkpoint_every": 2, "picture_every": 0}
        return TrainConfig(
            output=tmp_path / name,
            network=NetworkConfig("joint", tiny_network.config, str(start)),
            data=DataConfig(
                (PairedPart("bundled", split="train", recipe="light"),),
                (SourceConfig(str(photos)),),
                crop=32,
                workers=0,
            ),
            gate=GateConfig(every=2, crops=2, side=64, **(gate or {})),
            **{**settings, **changes},
        )

    return make


def judgements(config: TrainConfig) -> list[dict]:
    return [line["trust"] for line in read_log(config.output / "log.jsonl") if "trust" in line]


def tensors(path) -> dict[str, torch.Tensor]:
    return load_weights(path).network.state_dict()


def fake(monkeypatch, gains, **changes) -> None:
    """Let the gate hear these gains, one after the other."""
    told = iter(gains)
    harm = {"forgotten": 0.0, "clean": 50.0, "clean_before": 50.0, **changes}

    def judge(*_):
        return Judgement(**harm, gain=next(told), error=0.1, measures={})

    monkeypatch.setattr(Trust, "judge", judge)
    monkeypatch.setattr(Trust, "harm", lambda *_: Harm(**harm))


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def test_the_best_judged_weights_are_kept(config, monkeypatch):
    settings = config(snapshot_every=2)
    fake(monkeypatch, [0.5, 0.9, 0.7])
    final = tensors(train(settings))
    assert [entry["gain"] for entry in judgements(settings)] == [0.5, 0.9, 0.7]
    assert same(final, tensors(settings.output / "snapshots" / "step-00000004.safetensors"))
    assert read_info(settings.output / "weights.safetensors")["info"]["trust"]["accepted"]


@pytest.mark.parametrize(
    ("gains", "changes"),
    [([0.09, -1, -1], {}), ([-0.5, -1, -1], {}), ([1] * 3, {"forgotten": 0.31}), ([1] * 3, {"clean": 44.0})],
    ids=["no more than its error", "worse", "forgets", "harms"],
)
def test_the_start_is_returned_if_nothing_is_better_or_harmless(config, monkeypatch, gains, changes):
    settings = config()
    fake(monkeypatch, gains, **changes)
    assert same(tensors(train(settings)), tensors(settings.network.weights))
    assert not read_info(settings.output / "weights.safetensors")["info"]["trust"]["accepted"]


def test_training_stops_when_it_gets_no_better(config, monkeypatch):
    settings = config(gate={"patience": 2}, steps=20)
    fake(monkeypatch, [0.5, 0.4, 0.4, 0.4])
    train(settings)
    assert [entry["step"] for entry in judgements(settings)] == [2, 4, 6]
    train(settings, resume=True)  # after an interruption of what comes behind the training
    assert [entry["step"] for entry in judgements(settings)] == [2, 4, 6]


@pytest.mark.parametrize(("there", "share"), [(0.02, 1.0), (0.001, 0.8), (None, 1.0)])
def test_what_finds_more_rain_than_there_is_is_taken_back(config, monkeypatch, there, share):
    settings = config(gate={"light": there}, steps=2)
    fake(monkeypatch, [1.0])
    found = iter([0.01, 0.024, 0.013, 0.012])  # by the finder, which may see more than was estimated; then by shares
    monkeypatch.setattr(gate, "rain_seen", lambda _, photos: torch.full_like(photos[:, :1], next(found)))
    train(settings)
    (entry,) = judgements(settings)
    light = 0.024 if share == 1 else 0.012
    assert (entry["share"], entry["admissible"], entry["light"]) == (share, True, pytest.approx(light))


def test_what_finds_more_rain_than_there_is_whatever_its_share_is_not_kept(config, monkeypatch):
    settings = config(gate={"light": 0.001}, steps=2)
    fake(monkeypatch, [1.0])
    found = chain([0.0005], repeat(1.0))  # by the finder; then by every share
    monkeypatch.setattr(gate, "rain_seen", lambda _, photos: torch.full_like(photos[:, :1], next(found)))
    assert same(tensors(train(settings)), tensors(settings.network.weights))


def test_what_forgets_too_much_is_taken_back_towards_the_start(config, monkeypatch):
    settings = config(steps=2, snapshot_every=2)
    forgotten = iter([0.8, 0.4, 0.2])
    fake(monkeypatch, [1.0])
    monkeypatch.setattr(Trust, "harm", lambda *_: Harm(next(forgotten), 50.0, 50.0))
    final = tensors(train(settings))
    (entry,) = judgements(settings)
    assert entry["share"] == 0.8
    start, whole = (
        tensors(path)
        for path in (settings.network.weights, settings.output / "snapshots" / "step-00000002.safetensors")
    )
    for name, value in final.items():
        torch.testing.assert_close(value, torch.lerp(start[name], whole[name], 0.8))


@pytest.mark.parametrize("method", ["supervised", "mean_teacher"])
def test_a_gate_changes_nothing_of_the_training_and_is_resumed(config, method):
    with_gate, without = config("gate", method=MethodConfig(method)), replace(config("none"), gate=None)
    without = replace(without, method=MethodConfig(method))
    for settings in (with_gate, without):
        train(settings)
    last = [settings.output / "checkpoints" / "step-00000006.safetensors" for settings in (with_gate, without)]
    assert same(*(load_file(path) for path in last))
    half = config("half", method=MethodConfig(method))
    train(replace(half, steps=4, optimizer=half.optimizer))
    log = judgements(half)
    train(half, resume=True)
    assert judgements(half)[:2] == log[:2]
    assert len(judgements(half)) == 3


def test_a_judged_run_is_resumed_as_if_it_had_not_been_interrupted(config):
    settings = config(gate={"matched": "light"}, method=MethodConfig("mean_teacher"))
    train(settings)
    judged = judgements(settings)
    assert "matched" in judged[0]["measures"]
    path, log = settings.output / "checkpoints" / "step-00000006.safetensors", settings.output / "log.jsonl"
    whole = load_file(path)
    path.unlink()
    log.write_text("".join(line for line in log.read_text().splitlines(keepends=True) if '"step": 6' not in line))
    train(settings, resume=True)
    assert same(load_file(path), whole)
    assert judgements(settings) == judged


def test_a_gate_without_a_start_or_photos_is_refused(config):
    with pytest.raises(ValueError, match="'gate' compares with a start"):
        replace(config(), network=NetworkConfig("joint"))
    with pytest.raises(ValueError, match="'crops' 2"):
        GateConfig(crops=1)
