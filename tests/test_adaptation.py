"""Adaptation from a folder of photos to weights and a page, and the quickstart that rehearses it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

import sstl
from sstl.config import load_config
from sstl.data import SourceConfig, open_images, open_pairs
from sstl.engine import GateConfig, Interrupted, TrainConfig, gate, read_log
from sstl.errors import ConfigError, InputError, SstlError
from sstl.methods import create_method
from sstl.methods.trust import Harm, Judgement, Trust
from sstl.networks import save_weights
from sstl.networks.routed import Routed
from sstl.networks.weights import read_info
from sstl.rain import Match, load_recipe, render
from sstl.report import adaptation, findings
from sstl.report.adaptation import KNOWN, adapt, check_photos, rain_cover, report_run
from sstl.report.findings import Outcome, spread, verdict
from sstl.report.quickstart import SLANTED, SOURCE, Scenes, make_domain, quickstart

# Training meets the damaged photo too, warns of it and draws another; the figures of merit here are elsewhere.
pytestmark = pytest.mark.filterwarnings("ignore:left out")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three rainy photos, one of them cut short."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a", "b <i>"):
        Image.fromarray(data.coffee()[:160, :200]).save(folder / f"{name}.png")
    (folder / "short.png").write_bytes((folder / "a.png").read_bytes()[:900])
    return folder


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the training crops small: these tests look at what is written, not at how good it is."""

    def small(**settings: object) -> TrainConfig:
        data = settings["data"]
        return TrainConfig(**{**settings, "batch_size": 2, "data": adaptation.replace(data, crop=48)})  # type: ignore[arg-type]

    monkeypatch.setattr(adaptation, "TrainConfig", small)
    monkeypatch.setattr(adaptation, "GateConfig", lambda **settings: GateConfig(crops=2, side=64, every=2, **settings))
    monkeypatch.setattr(adaptation, "rain_cover", lambda *_: 0.1)
    found = Match(load_recipe("any"), dry=0.0, explained={}, estimates={})
    monkeypatch.setattr(adaptation, "match_photos", lambda *_, **__: found)
    monkeypatch.setattr(adaptation, "load_config", lambda _, path: sstl.config.load_config(TrainConfig, path))


def test_adapt_writes_everything_and_goes_on_without_the_damaged_photo(photos, tmp_path):
    run = tmp_path / "run"
    result = adapt(photos, run, SOURCE, steps=3, gate=False)
    assert {p.name for p in run.iterdir()} >= {"weights.safetensors", "log.jsonl", "config.yaml", "report.html"}
    assert result.weights == run / "weights.safetensors"
    assert [p.name for p in result.failures] == ["short.png"]
    assert result.figures.keys() == {"removed", "second_pass", "mirror", "clean_psnr", "rain_psnr"}
    page = (run / "report.html").read_text()
    assert "short.png" in page
    assert "<i>" not in page
    assert "look at them" in page
    before, after = (sstl.load(weights).network.state_dict() for weights in (SOURCE, result.weights))
    assert any(not before[key].equal(after[key]) for key in before)
    (run / "report.html").unlink()
    assert report_run(run).is_file()


def test_an_existing_run_is_kept(photos, tmp_path):
    with pytest.raises(ConfigError, match="no checkpoint to resume from"):
        adapt(photos, tmp_path / "run", SOURCE, steps=1, resume=True)
    assert not (tmp_path / "run").exists()
    adapt(photos, tmp_path / "run", SOURCE, steps=1)
    rain = tmp_path / "run" / "rain.yaml"
    rain.write_text(rain.read_text() + "# kept\n")
    with pytest.raises(ConfigError, match="--resume"):
        adapt(photos, tmp_path / "run", SOURCE, steps=1)
    adapt(photos, tmp_path / "run", SOURCE, steps=2, resume=True)
    assert rain.read_text().endswith("# kept\n")
    adapt(photos, tmp_path / "run", SOURCE, steps=1, overwrite=True)
    assert not rain.read_text().endswith("# kept\n")


def test_a_share_of_the_clean_photographs_wears_the_streaks_of_the_photos_alone(photos, tmp_path):
    run = adapt(photos, tmp_path / "run", SOURCE, steps=1).weights.parent
    config = load_config(TrainConfig, run / "config.yaml")
    assert [part.weight for part in config.data.paired] == [0.9, 0.1]
    assert config.gate is not None
    assert config.data.paired[1].recipe == config.gate.matched == str(run / "rain.yaml")
    recipe = load_recipe(str(run / "rain.yaml"))
    assert (recipe.camera, recipe.transmission) == (None, (1.0, 1.0))
    assert "from the vertical" in (run / "report.html").read_text()
    without = adapt(photos, tmp_path / "without", SOURCE, steps=1, matched=0).weights.parent
    assert not (without / "rain.yaml").exists()
    config = load_config(TrainConfig, without / "config.yaml")
    assert config.gate is not None
    assert (len(config.data.paired), config.gate.matched) == (1, None)
    with pytest.raises(ConfigError, match=r"'matched' is 1\.5"):
        adapt(photos, tmp_path / "never", SOURCE, matched=1.5)


def test_minutes_become_steps(photos, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(adaptation, "steps_for", lambda minutes, config: seen.append((minutes, config.steps)) or 2)
    result = adapt(photos, tmp_path / "run", SOURCE, minutes=0.5)
    assert seen == [(0.5, 300)]
    assert "steps: 2\n" in (result.weights.parent / "config.yaml").read_text()
    adapt(photos, tmp_path / "run", SOURCE, minutes=0.5, resume=True)  # as many steps as it was to have
    assert len(seen) == 1


def test_the_pace_gives_the_steps(tmp_path, monkeypatch):
    monkeypatch.setattr(adaptation, "train", lambda _: None)
    log = [{"step": i, "seconds": 10 + 0.5 * i} for i in range(1, 9)]  # half a second a step after a slow start
    log.append({"step": 8, "validation": {"psnr": 30.0}})
    monkeypatch.setattr(adaptation, "read_log", lambda _: log)
    config = TrainConfig(
        output=tmp_path, data=adaptation.DataConfig(paired=(adaptation._rained_on("bundled", "train", "mixed"),))
    )
    assert adaptation.steps_for(2, config) == 240
    for minutes in (0, float("nan")):
        with pytest.raises(ConfigError, match="positive"):
            adaptation.steps_for(minutes, config)

    def interrupted(_):
        raise Interrupted("stopped at step 1; saved.", 15, resumable=True)

    monkeypatch.setattr(adaptation, "train", interrupted)
    with pytest.raises(Interrupted, match="nothing was done yet") as caught:
        adaptation.steps_for(2, config)
    assert (caught.value.exit_code, caught.value.resumable) == (143, False)


def test_what_cannot_be_adapted_to(tmp_path):
    with pytest.raises(ConfigError, match="no such folder"):
        check_photos(tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="holds no image"):
        check_photos(tmp_path / "empty")
    (tmp_path / "empty" / "zero.jpg").touch()
    with pytest.raises(InputError, match="none of its 1 photos"):
        check_photos(tmp_path / "empty")


def test_mistakes_are_told_before_training(photos, tmp_path):
    with pytest.raises(SstlError, match="mean_teacher"):
        adapt(photos, tmp_path / "run", SOURCE, "mean_teecher")
    with pytest.raises(SstlError, match="no such weights"):
        adapt(photos, tmp_path / "run", "nothing")
    with pytest.raises(SstlError, match="unknown recipe"):
        adapt(photos, tmp_path / "run", SOURCE, recipe="hevy")
    with pytest.raises(ConfigError, match="'steps' is 0"):
        adapt(photos, tmp_path / "run", SOURCE, steps=0)
    for folder in (photos, tmp_path):
        with pytest.raises(ConfigError, match="holds the photos; give a folder of its own"):
            adapt(photos, folder, SOURCE)
    with pytest.raises(ConfigError, match=r"a\.png is in --clean and in --held-out"):
        adapt(photos, tmp_path / "run", SOURCE, clean=tmp_path, held_out=photos)
    assert not (tmp_path / "run").exists()


def test_figures_that_are_none_are_named(photos, tmp_path):
    run = adapt(photos, tmp_path / "run", SOURCE, steps=1).weights.parent
    (run / "figures.json").write_text('{"figures": {}}')
    with pytest.raises(ConfigError, match=r"figures\.json is damaged"):
        report_run(run)


def test_the_command(photos, tmp_path, run_cli):
    run = tmp_path / "run"
    figures = tmp_path / "f.json"
    rain = ("--recipe", "light", "--learning-rate", "2.0e-4")
    outcome = run_cli("adapt", photos, "-o", run, "--weights", SOURCE, "--steps", "2", "--json", figures, *rain)
    assert outcome.code == 1
    config = load_config(TrainConfig, run / "config.yaml")
    assert (config.data.paired[0].recipe, config.optimizer.lr) == ("light", 2e-4)
    assert "report.html" in outcome.out
    assert f"sstl derain {photos} -o OUT --weights" in outcome.out
    assert "short.png" in outcome.err.splitlines()[-1]
    assert json.loads(figures.read_text())["figures"]["removed"].keys() == {"before", "after"}
    assert run_cli("report", run).code == 0
    wrong = run_cli("adapt", photos, "-o", tmp_path / "other", "--weights", SOURCE, "--options", "decoy=0.9")
    assert (wrong.code, wrong.err.count("\n")) == (2, 1)
    assert "'decoy'" in wrong.err
    missing = run_cli("adapt", tmp_path / "none", "-o", run)
    assert (missing.code, missing.err.count("\n")) == (2, 1)


@pytest.mark.parametrize(
    ("weights", "known", "judged"),
    [("joint-tiny", None, KNOWN), (SOURCE, None, ()), (SOURCE, ("heavy", "veil"), ("heavy", "veil"))],
)
def test_shipped_weights_may_lose_none_of_the_rains_that_they_know(photos, tmp_path, weights, known, judged):
    adapt(photos, tmp_path / "run", weights, steps=1, known=known)
    judge = load_config(TrainConfig, tmp_path / "run" / "config.yaml").gate
    assert judge is not None
    assert [part.recipe for part in judge.known] == list(judged)
    assert {(part.path, part.split) for part in judge.known} <= {("bundled", "dev")}


@pytest.fixture
def dry(tmp_path):
    """A folder of as many clear photographs as a router wants."""
    folder = tmp_path / "dry"
    folder.mkdir()
    for i in range(adaptation.LEAST_CLEAN):
        Image.fromarray(data.astronaut()[10 * i : 10 * i + 128, 5 * i : 5 * i + 160]).save(folder / f"{i:02}.png")
    return folder


def test_a_router_keeps_the_start_for_what_is_not_like_the_photos(photos, dry, tmp_path, monkeypatch):
    told(monkeypatch, 1.0)
    monkeypatch.setattr(gate, "ROUTED_PHOTOS", 12)
    monkeypatch.setattr(gate, "ROUTED_PAIRS", 12)
    monkeypatch.setattr(gate, "reliability", lambda *_: (0.9, 0.05))
    result = adapt(photos, tmp_path / "run", SOURCE, steps=2, clean=dry, routed=True, known=("light",))
    network = sstl.load(result.weights).network
    assert isinstance(network, Routed)
    start, known = sstl.load(SOURCE).network.state_dict(), network.known.state_dict()
    assert all(start[key].equal(known[key]) for key in start)
    config = load_config(TrainConfig, tmp_path / "run" / "config.yaml")
    assert config.gate is not None
    assert config.gate.matched == str(tmp_path / "run" / "rain.yaml")
    assert [(part.path, part.recipe) for part in config.gate.others] == [
        (str(dry), recipe) for recipe in ("streaks", "light", "mist")
    ]
    # As in the suite: what the start does not see of the rain.
    rainy, clear = (open_images(SourceConfig(str(folder)), "rainy") for folder in (photos, dry))
    light = adaptation.light_of(tmp_path / "run" / "rain.yaml", clear, 0)
    share = adaptation.boldly_matched(SOURCE, rainy, light, 0)
    assert config.gate.light == light
    assert 0 < share <= 1
    assert [part.weight for part in config.data.paired] == [1 - share, share]
    assert config.method.options == adaptation.BOLD
    assert (result.outcome.recognised, result.outcome.mistaken) == (0.9, 0.05)
    assert "of those held back, 90% were recognised" in verdict(result.figures, result.outcome)
    page = result.report.read_text()
    assert "90% of your photos, 5% of other images" in page
    assert f"on {share:.0%} of the clean photographs" in page


@pytest.mark.parametrize(
    ("routed", "options"),
    [
        (True, {}),
        (True, {"matched": 0}),
        (False, {"routed": False}),
        (False, {"gate": False}),
        (False, {"method": "mean_teacher"}),
        (False, {"weights": "joint-tiny"}),
    ],
    ids=[
        "by itself",
        "rehearsing alone",
        "unless told not to",
        "nor unjudged",
        "nor by another method",
        "nor from the shipped weights",
    ],
)
def test_enough_clear_photographs_make_a_router(photos, dry, tmp_path, monkeypatch, routed, options):
    seen: list[TrainConfig] = []

    def noted(config: TrainConfig, **_: object) -> None:
        seen.append(config)
        raise Interrupted("seen", 2, resumable=False)

    monkeypatch.setattr(adaptation, "train", noted)
    monkeypatch.setattr(adaptation, "learn_routes", lambda _: {"photos": adaptation.LEAST_ALIKE})
    with pytest.raises(Interrupted):
        adapt(photos, tmp_path / "run", clean=dry, **{"weights": SOURCE, **options})
    assert bool(seen[0].gate and seen[0].gate.others) == routed
    assert (seen[0].method.options == adaptation.BOLD) == routed
    assert bool(seen[0].data.paired[1:]) == bool(options.get("matched", 1))
    next(dry.iterdir()).unlink()
    with pytest.raises(Interrupted):
        adapt(photos, tmp_path / "run", clean=dry, **{"weights": SOURCE, **options})
    assert not (seen[1].gate and seen[1].gate.others)


def test_photos_that_a_router_would_not_tell_from_others_are_adapted_to_with_care(photos, dry, tmp_path, monkeypatch):
    told(monkeypatch, 1.0)
    asked: list[TrainConfig] = []
    monkeypatch.setattr(adaptation, "learn_routes", lambda config: asked.append(config) or {"photos": 0.04})
    result = adapt(photos, tmp_path / "run", SOURCE, steps=2, clean=dry)
    assert asked[0].gate is not None
    assert {part.path for part in asked[0].gate.others} == {str(dry)}
    config = load_config(TrainConfig, tmp_path / "run" / "config.yaml")
    assert config.gate is not None
    assert not config.gate.others
    assert config.method.options == {}
    assert [part.weight for part in config.data.paired] == [1 - adaptation.MATCHED, adaptation.MATCHED]
    assert result.outcome.alike
    said = verdict(result.figures, result.outcome)
    assert "4% would have been told from them" in said
    assert "were recognised" not in said
    assert "4% would have been told from them" in result.report.read_text()


def test_a_router_without_photographs_or_a_judge_is_refused(photos, dry, tmp_path):
    for options in ({}, {"clean": photos}):
        with pytest.raises(ConfigError, match="at least 20 clear photographs"):
            adapt(photos, tmp_path / "run", SOURCE, routed=True, **options)
    with pytest.raises(ConfigError, match="leave out --no-gate"):
        adapt(photos, tmp_path / "run", SOURCE, routed=True, clean=dry, gate=False)
    assert not (tmp_path / "run").exists()


@pytest.fixture
def earlier(tmp_path, monkeypatch):
    """The folder of a run, and adaptations to photos that pass for dry."""
    folder = tmp_path / "run"
    folder.mkdir()
    for name in (adaptation.FIGURES, adaptation.RAIN, adaptation.PAGE):
        (folder / name).touch()
    save_weights(folder / "weights.safetensors", sstl.load("joint-tiny").network)
    monkeypatch.setattr(adaptation, "rain_cover", lambda *_: 0.0)
    return folder


def kept(folder):
    return {path.name for path in folder.iterdir()} == {
        "weights.safetensors",
        "figures.json",
        "rain.yaml",
        "report.html",
    }


def test_the_start_of_an_adaptation_is_not_removed_with_the_run_that_it_is_of(photos, earlier):
    for weights in (earlier, earlier / "weights.safetensors"):
        with pytest.raises(ConfigError, match="which is emptied first"):
            adapt(photos, earlier, weights, overwrite=True)
    assert kept(earlier)


@pytest.mark.parametrize("option", ["clean", "held_out"])
def test_a_run_is_not_removed_for_one_that_cannot_begin(photos, earlier, option):
    with pytest.raises(SstlError, match="nowhere"):
        adapt(photos, earlier, overwrite=True, **{option: "nowhere"})
    assert kept(earlier)


def test_a_run_that_is_under_way_elsewhere_is_left_alone(photos, earlier):
    held = "import sys; from pathlib import Path; from sstl.engine import only_run\nwith only_run(Path(sys.argv[1])):"
    command = [sys.executable, "-c", f"{held} print(flush=True), sys.stdin.read()", str(earlier)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(ConfigError, match="in use by another run"):
            adapt(photos, earlier, overwrite=True)
        (earlier / ".lock").rename(earlier.with_name("lock"))
        assert kept(earlier)
        other.communicate()


@pytest.mark.parametrize(("general", "weights"), [(True, "joint-tiny"), (True, "copy.safetensors"), (False, SOURCE)])
def test_the_shipped_weights_are_known_under_whatever_name(tmp_path, general, weights):
    copy = tmp_path / "copy.safetensors"
    shutil.copy(read_info("joint-tiny")["path"], copy)
    assert adaptation.for_general_use(copy if weights == copy.name else read_info(weights)["path"]) == general


def test_bold_is_streak_transfer_with_dry_pairs_behind_the_veil():
    network = sstl.create_network("joint", size="tiny")
    ours = create_method("default", network, **adaptation.BOLD)
    theirs = create_method("streak_transfer", network, supervised=0.5, dry=0.2, veiled=True)
    plain = {key: value for key, value in vars(ours).items() if isinstance(value, int | float | str | tuple)}
    assert plain == {key: vars(theirs)[key] for key in plain}


def test_verdict_tells_gain_harm_and_collapse():
    figures = {
        "removed": {"before": 2.0, "after": 2.5},
        "clean_psnr": {"before": 45.0, "after": 44.0},
        "truth_psnr": {"before": 24.0, "after": 26.5},
    }
    outcome = Outcome(40, 0.1, True, 1.25, 0.3, 0.1, 150, 1.0)
    assert verdict(figures, outcome) == (
        "Against the truth, adaptation gained 2.50 dB on test images. Adapted: your photos gain +1.2 ± 0.3 dB "
        "(predicted without truth; the network of step 150 is kept). 25% more light is removed from your photos than "
        "before. Rain-free photographs are left as they are (44.0 dB against their input)."
    )
    assert "LOST 1.00 dB" in verdict({**figures, "truth_psnr": {"before": 24.0, "after": 23.0}}, outcome)
    assert "collapsed" in verdict({**figures, "removed": {"before": 2.0, "after": 0.5}}, outcome)
    more = {**figures, "removed": {"before": 2.0, "after": 8.0}}
    assert "300% more light" in verdict(more, outcome)
    assert "darkened" in verdict({name: more[name] for name in ("removed", "clean_psnr")}, outcome)
    assert "darkened" in verdict({**more, "truth_psnr": {"before": 24.0, "after": 23.0}}, outcome)
    assert "About as much" in verdict({**figures, "removed": {"before": 2.0, "after": 2.01}}, outcome)
    assert "texture" in verdict({**figures, "clean_psnr": {"before": 45.0, "after": 30.0}}, outcome)


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (
            Outcome(40, 0.001),
            "Nothing to adapt to: rain is found in 0.1% of your photos' pixels. The start is returned.",
        ),
        (Outcome(40, 0.1, False, 0.1, 0.2, 0.0, 50, 1.0), "No gain beyond its own uncertainty (+0.10 ± 0.20 dB"),
        (Outcome(40, 0.1, False, 0.04, 0.02, 0.0, 50, 1.0), "No gain that counts (+0.04 ± 0.02 dB"),
        (Outcome(40, 0.1, False), "nor takes other things for rain. The start is returned."),
        (Outcome(5, 0.1, True, 1.0, 0.2, 0.0, 50, 1.0), "With 5 photos the result depends on which they are"),
        (Outcome(40), "Nobody judged"),
    ],
)
def test_verdict_says_what_the_gate_said(outcome, said):
    figures = {"removed": {"before": 2.0, "after": 2.5}, "clean_psnr": {"before": 45.0, "after": 44.0}}
    assert said in verdict(figures, outcome)


def told(monkeypatch, gain: float) -> None:
    harm = {"forgotten": 0.0, "clean": 50.0, "clean_before": 50.0}
    monkeypatch.setattr(Trust, "harm", lambda *_: Harm(**harm))
    monkeypatch.setattr(Trust, "judge", lambda *_: Judgement(**harm, gain=gain, error=0.1, measures={}))


def same(one: Path | str, other: Path | str) -> bool:
    states = [sstl.load(weights).network.state_dict() for weights in (one, other)]
    return all(states[0][key].equal(states[1][key]) for key in states[0])


def test_a_gain_that_is_judged_is_kept_and_shown(photos, tmp_path, monkeypatch):
    told(monkeypatch, 1.0)
    result = adapt(photos, tmp_path / "run", SOURCE, steps=4)
    assert (result.outcome.accepted, result.outcome.gain) == (True, 1.0)
    assert not same(SOURCE, result.weights)
    assert [line["trust"]["step"] for line in read_log(tmp_path / "run" / "log.jsonl") if "trust" in line] == [2, 4]
    page = (tmp_path / "run" / "report.html").read_text()
    for part in (
        "+1.0 ± 0.1 dB",
        "Worst cases",
        "How to undo it",
        "Rain map",
        "Doubt",
        "Predicted without truth",
    ):
        assert part in page


def test_without_a_gain_the_start_is_returned(photos, tmp_path, monkeypatch):
    told(monkeypatch, -1.0)
    result = adapt(photos, tmp_path / "run", SOURCE, steps=2)
    assert result.outcome.accepted is False
    assert same(SOURCE, result.weights)
    assert "Not adapted to photos" in (tmp_path / "run" / "report.html").read_text()
    assert "The start is returned" in (tmp_path / "run" / "report.html").read_text()


def test_dry_photos_are_left_alone(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(adaptation, "rain_cover", lambda *_: 0.001)
    monkeypatch.setattr(adaptation, "train", None)  # is not called
    result = adapt(photos, tmp_path / "run", SOURCE)
    assert result.outcome.dry
    assert same(SOURCE, result.weights)
    assert "Nothing to adapt to" in (tmp_path / "run" / "report.html").read_text()
    with pytest.raises(ConfigError, match="--overwrite"):
        adapt(photos, tmp_path / "run", SOURCE)
    adapt(photos, tmp_path / "run", SOURCE, overwrite=True)
    adapted = sstl.load(SOURCE).network
    proud = {"trust": {"accepted": True, "best": {"gain": 2.1, "error": 0.3, "step": 250}}}
    start = save_weights(tmp_path / "adapted.safetensors", adapted, proud)
    outcome = adapt(photos, tmp_path / "again", start).outcome
    assert outcome.dry  # what an earlier gate said of other photos is not told of these


def test_rain_covers_rainy_photos_and_not_clear_ones(tmp_path):
    image = torch.from_numpy(data.chelsea()[:256, :256].copy()).permute(2, 0, 1)[None].float() / 255
    rainy = render(image, "heavy", 1, [0]).rainy
    folders = {"clear": [image], "rainy": [rainy], "mostly dry": [image, image, image, rainy]}
    for name, images in folders.items():
        (tmp_path / name).mkdir()
        for i, pixels in enumerate(images):
            Image.fromarray((pixels[0].permute(1, 2, 0) * 255).byte().numpy()).save(tmp_path / name / f"{i}.png")
    clear, wet, mostly_dry = (
        rain_cover(open_images(SourceConfig(str(tmp_path / name)), "rainy"), 0) for name in folders
    )
    assert clear < adaptation.DRY < mostly_dry < wet  # a few rainy photos among dry ones are worth adapting to


def test_shown_photos_are_spread_over_the_folder(monkeypatch):
    photos = [Path(str(i)) for i in range(100)]
    monkeypatch.setattr(findings, "_readable", lambda photo: photo != photos[0])
    assert spread(photos[:3]) == photos[1:3]
    chosen = spread(photos)
    assert len(chosen) == 12
    assert (chosen[0], chosen[-1]) == (photos[1], photos[-1])


def test_a_damaged_photo_that_was_not_looked_at_before_stops_nothing(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(adaptation, "DECODED", 1)
    result = adapt(photos, tmp_path / "run", SOURCE, steps=2)
    assert not result.failures  # short.png, the last of them
    assert result.report.is_file()


def test_the_roles_of_the_quickstart_share_no_scene(tmp_path):
    names = {role: {Scenes(role).key(i).split("-")[0] for i in range(len(Scenes(role)))} for role in Scenes.roles}
    assert all(names.values())
    assert sum(map(len, names.values())) == len(set().union(*names.values()))
    make_domain(tmp_path, seed=0)
    pairs = open_pairs(SourceConfig(str(tmp_path / "test")))
    assert len(pairs) == len(Scenes("test"))
    rainy, clean = pairs.load(0)
    assert np.mean(rainy.astype(float) - clean) > 5
    assert SLANTED.angle[0] > 20  # outside the source's -28..28 only in part, but dense and in several layers


def test_the_gate_of_the_quickstart_sees_neither_what_is_trained_on_nor_the_test(tmp_path):
    quickstart(tmp_path / "q", steps=2)
    domain, config = tmp_path / "q" / "domain", load_config(TrainConfig, tmp_path / "q" / "run" / "config.yaml")
    assert config.gate is not None
    judged, trained = ({Path(part.path) for part in parts} for parts in (config.gate.paired, config.data.paired))
    assert (judged, trained) == ({domain / "held-out"}, {domain / "clean"})
    tiles = [path.name for folder in (*judged, *trained) for path in folder.iterdir()]
    assert len(tiles) == len(set(tiles)) == len(Scenes("clean"))
    assert all(name.startswith("motorcycle") for name in tiles)


def test_quickstart_reports_the_true_gain(tmp_path):
    result = quickstart(tmp_path / "q", steps=2)
    assert result.report == tmp_path / "q" / "run" / "report.html"
    assert result.figures["truth_psnr"].keys() == {"input", "before", "after"}
    with pytest.raises(ConfigError, match="--overwrite"):
        quickstart(tmp_path / "q", steps=2)
