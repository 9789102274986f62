"""The adaptation suite: what is reserved is in no training of shipped weights, and its sources are the frozen ones."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import ROOT

from sstl.cli.output import defaults
from sstl.config import from_tree, load_config
from sstl.data.sources import SourceConfig
from sstl.data.stream import PairedPart
from sstl.engine import DataConfig, MethodConfig, NetworkConfig, TrainConfig
from sstl.networks import load_weights
from sstl.rain import Recipe, list_recipes, load_recipe

SHIFT = ROOT / "experiments" / "shift"
sys.path.insert(0, str(SHIFT))
import domains  # noqa: E402
import run as suite  # noqa: E402
from doubt import BLOCK, agreement, in_blocks  # noqa: E402
from sources import anchor  # noqa: E402
from table import gains_of, shares  # noqa: E402

RESERVED = yaml.safe_load((SHIFT / "reserved.yaml").read_text())
RECIPES = {name: from_tree(Recipe, tree, where=name) for name, tree in RESERVED["recipes"].items()}
TRAININGS = sorted(
    path for name in ("first-run", "quickstart", "campaign") for path in (ROOT / "experiments" / name).glob("*.yaml")
)


def offences(parts: tuple[PairedPart, ...]) -> list[str]:
    """What of the reserved rain a training would see."""
    found = []
    for part in parts:
        if part.recipe and load_recipe(part.recipe) in RECIPES.values():
            found.append(f"recipe {part.recipe}")
        if part.recipe and SHIFT in Path(part.recipe).resolve().parents:
            found.append(f"recipe file {part.recipe}")
        if part.streaks and part.streaks.split in (None, RESERVED["streaks"]):
            found.append(f"streaks of split {part.streaks.split}")
        if part.split != "train":
            found.append(f"split {part.split}")
    return found


@pytest.mark.parametrize("path", TRAININGS, ids=lambda path: path.stem)
def test_no_training_of_shipped_weights_sees_what_is_reserved(path):
    assert offences(load_config(TrainConfig, path).data.paired) == []


def test_what_is_reserved_would_be_noticed(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(RESERVED["recipes"]["heavy"]))
    part = PairedPart("manifest.csv", split="train", recipe=str(path))
    assert offences((part,))
    assert offences((PairedPart("m.csv", split="train", streaks=SourceConfig("m.csv", split="dev")),))
    assert not offences((replace(part, recipe="light"),))


def test_no_recipe_of_the_package_is_reserved():
    assert [name for name in list_recipes() if load_recipe(name) in RECIPES.values()] == []


def test_half_of_the_domains_are_untouched_by_choices():
    domains = {*RECIPES, "mixture"}
    assert len(domains) >= 6
    assert set(RESERVED["developed_on"]) < domains
    assert len(domains - set(RESERVED["developed_on"])) >= 3


NOTES = json.loads((SHIFT / "sources" / "sources.json").read_text())


@pytest.mark.parametrize("name", ["joint", "prenet", "jorder"])
def test_the_sources_are_the_frozen_ones(name):
    path = SHIFT / "sources" / f"{name}.safetensors"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == NOTES[name]["sha256"]
    assert load_weights(path).network.name == name


@pytest.mark.parametrize("path", sorted((SHIFT / "cells").glob("*.json")), ids=lambda path: path.stem)
def test_every_cell_says_what_it_is(path):
    cell = json.loads(path.read_text())
    assert path.stem == f"{cell['domain']}-{cell['source']}-{cell['trial']}"
    assert len(cell["test"]) >= 16
    assert cell["environment"]["commit"]


def test_the_gates_judge_on_other_places_than_the_photos(tmp_path, monkeypatch):
    monkeypatch.setattr(domains, "_backgrounds", lambda: (list(range(200)), []))
    monkeypatch.setattr(domains, "open_images", lambda *_: None)
    laid: dict[Path, list[int]] = {}
    monkeypatch.setattr(domains, "_write", lambda backgrounds, *places: laid.update({places[-1]: backgrounds}))
    monkeypatch.setattr(domains, "_save", lambda images, folder: laid.update({folder: images}))
    for name in RESERVED["domains"]:
        (tmp_path / name / "truth").mkdir(parents=True)
    for domain in domains.build(tmp_path):
        photos, *dry = (laid[domain.root / part] for part in ("truth", "held-out", "beside"))
        assert [len(photos), *map(len, dry)] == [domains.PHOTOS, domains.DRY // 2, domains.DRY // 2]
        assert len({*photos, *dry[0], *dry[1]}) == domains.PHOTOS + domains.DRY


@pytest.mark.parametrize("told", [0.0, 1.0])
def test_what_no_router_would_recognise_is_adapted_to_with_care(tmp_path, monkeypatch, told):
    monkeypatch.setattr(suite, "recognised", lambda _: told)
    monkeypatch.setattr(suite, "matched", lambda _: tmp_path / "streaks.yaml")
    monkeypatch.setattr(suite, "light_of", lambda *_: 0.1)
    monkeypatch.setattr(suite, "boldly_matched", lambda *_: 0.5)
    monkeypatch.setattr(suite, "open_images", lambda *_: None)
    domain, source = domains.Domain("any", tmp_path), suite.SOURCES[0]
    default, cautious = (
        suite.configuration(domain, source, suite.TRIALS[name], tmp_path) for name in ("default", "cautious")
    )
    assert (default == cautious) == (told == 0)
    assert default.gate is not None
    assert bool(default.gate.others) == (told == 1)


def test_a_cell_is_measured_anew_whatever_it_follows_from_changes(tmp_path, monkeypatch):
    domain, source = domains.Domain("heavy", tmp_path / "heavy"), suite.SOURCES[0]
    gate = suite.gate(domain, source, suite.TRIALS["cautious"])
    network = NetworkConfig(source.network, source.options, str(source.path))
    data = DataConfig(anchor(), (SourceConfig("photos"),))
    config = TrainConfig(output=Path("x"), network=network, method=MethodConfig("default"), data=data, gate=gate)

    def found(config: TrainConfig = config, domain: domains.Domain = domain) -> str:
        return suite.fingerprint(config, source, domain, tmp_path)

    changed = [
        found(replace(config, steps=1)),
        found(replace(config, method=MethodConfig("default", {"dry": 0.5}))),
        found(replace(config, gate=replace(gate, paired=(PairedPart("bundled", recipe="heavy"),)))),
        found(replace(config, gate=replace(gate, matched="heavy"))),
        found(domain=domains.Domain("blend", domain.root)),
    ]
    with monkeypatch.context() as patch:
        patch.setattr(suite, "defaults", lambda method: {**defaults(method), "dry": 0.4})
        changed.append(found())
    with monkeypatch.context() as patch:
        patch.setattr(suite, "load_recipe", lambda name: replace(load_recipe(name), layers=(7, 7)))
        changed.append(found())
    with monkeypatch.context() as patch:
        patch.setattr(suite, "CALIBRATION", tmp_path / "trust.json")
        suite.CALIBRATION.write_text('{"error": 2}')
        changed.append(found())
        ungated = found(replace(config, gate=None))
    assert found(replace(config, gate=None)) == ungated  # nobody asked the score
    assert len({found(), *changed}) == 1 + len(changed)
    # An option at its default, and where the work lies, say nothing.
    assert found(replace(config, method=MethodConfig("default", {"dry": 0.3}))) == found()
    places = (tmp_path / "here", tmp_path / "there")
    lying = [replace(config, data=DataConfig(anchor(), (SourceConfig(str(place / "photos")),))) for place in places]
    assert len({suite.fingerprint(one, source, domain, place) for one, place in zip(lying, places, strict=True)}) == 1


def test_a_domain_is_built_anew_when_its_definition_changes_and_no_other(tmp_path, monkeypatch):
    monkeypatch.setattr(domains, "_backgrounds", lambda: (list(range(200)), []))
    monkeypatch.setattr(domains, "open_images", lambda *_: None)
    monkeypatch.setattr(domains, "_save", lambda *_: None)
    built: list[str] = []
    monkeypatch.setattr(domains, "_write", lambda *places: built.append(places[-1].parts[len(tmp_path.parts)]))
    for name in RESERVED["domains"]:
        (tmp_path / name / "truth").mkdir(parents=True)
    domains.build(tmp_path)
    assert set(built) == set(RESERVED["domains"])
    matched = [tmp_path / name / "streaks.yaml" for name in ("heavy", "veil")]
    for path in matched:
        path.touch()
    built.clear()
    domains.build(tmp_path)
    assert built == []
    (tmp_path / "veil" / "done").write_text("of other rain")
    domains.build(tmp_path)
    assert set(built) == {"veil"}
    assert [path.exists() for path in matched] == [True, False]


def test_the_gap_is_pooled_over_cells_whose_oracle_gains_enough():
    def cell(*scores):
        return {"test": list(scores)}

    cells = {
        ("near", "n", "start"): cell(20, 22), ("near", "n", "oracle"): cell(20.1, 22.2), ("near", "n", "t"): cell(0, 0),
        ("far", "n", "start"): cell(20, 22), ("far", "n", "oracle"): cell(24, 24), ("far", "n", "t"): cell(21, 24),
        ("gone", "n", "start"): cell(20, 22),
    }  # fmt: skip
    pairs = gains_of(cells, ("near", "far", "gone"), ("n", "m"), "t")
    assert len(pairs) == 1
    share, low, high = shares(pairs)
    assert (share, low, high) == pytest.approx((3 / 6, 1 / 4, 1))
    assert shares(gains_of(cells, ("far",), ("n",), "oracle")) == (1, 1, 1)


def test_a_doubt_map_that_is_the_error_finds_it_and_one_that_is_constant_over_blocks_does_not():
    error = np.random.default_rng(0).random((10 * BLOCK, 10 * BLOCK)) ** 4
    blocks = in_blocks(error)
    assert blocks.shape == (100,)
    assert blocks[11] == pytest.approx(error[BLOCK : 2 * BLOCK, BLOCK : 2 * BLOCK].mean())
    correlation, share = agreement(blocks, blocks)
    assert correlation == pytest.approx(1)
    assert share > 0.1
    assert agreement(-blocks, blocks)[0] == pytest.approx(-1)
