"""The campaign: what a sitting trains, and when its weights ship."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "experiments" / "campaign"))

import sit
from card import card
from grow import grow
from sit import BRANCHES, SHARES, SIZES, averaged, better, configuration, state

from sstl.errors import SstlError
from sstl.networks import create_network, load_weights, save_weights


@pytest.mark.parametrize("size", SIZES)
def test_a_sitting_trains_the_size_that_it_names_and_continues_from_what_ships(size):
    for branch in BRANCHES:
        config = configuration(size, branch, Path("start.safetensors"), Path("work"), 2)
        assert config.network.options["size"] == size
        assert config.network.weights == "start.safetensors"
    assert configuration(size, "absolute", None, Path("work"), 1).network.weights is None


def test_the_branches_of_a_sitting_differ_in_their_loss_and_in_their_rain():
    one, other = (configuration("small", branch, None, Path("work"), 2) for branch in ("absolute", "squared"))
    assert one.method.options.get("distance", "l1") == "l1"
    assert other.method.options["distance"] == "mse"
    assert len({config.seed for config in (one, other, configuration("small", "absolute", None, Path("w"), 3))}) == 3
    assert replace(one, output=other.output, seed=other.seed, method=other.method) == other


def test_tiny_learns_from_small_once_it_has_weights():
    methods = [configuration("tiny", "squared", None, Path("work"), sitting).method for sitting in (1, 2)]
    assert [method.name for method in methods] == ["supervised", "distillation"]
    assert methods[1].options["teacher"] == "joint-small"
    assert configuration("small", "squared", None, Path("work"), 2).method.name == "supervised"


def test_weights_ship_if_pairs_became_better_and_clean_photographs_stay_clear():
    old = {"light": 30.0, "heavy": 20.0, "clean": 48.0}
    assert better({"light": 29.9, "heavy": 20.2, "clean": 41.0}, old)
    assert not better({"light": 29.9, "heavy": 20.1, "clean": 48.0}, old)
    assert not better({"light": 31.0, "heavy": 21.0, "clean": 39.9}, old)
    assert better({"light": 1.0, "heavy": 1.0, "clean": 41.0}, {})


def test_the_best_share_of_the_way_to_the_average_of_the_branches_is_kept(tmp_path, monkeypatch):
    def constant(value):
        network = create_network("joint", size="tiny")
        for parameter in network.parameters():
            torch.nn.init.constant_(parameter, value)
        return save_weights(tmp_path / f"{value}.safetensors", network)

    def fake(path):  # best at 2.5; clean photographs do not count
        value = float(next(load_weights(path).network.parameters()).flatten()[0])
        return {"light": -((value - 2.5) ** 2), "clean": value}

    monkeypatch.setattr(sit, "scores", fake)
    path, share = averaged(constant(2.0), [constant(3.5), constant(4.5)], tmp_path)
    assert share == 0.25
    assert share in SHARES
    assert fake(path)["light"] == pytest.approx(0)
    path, share = averaged(None, [constant(2.0), constant(3.0)], tmp_path)  # a first sitting has no start
    assert (share, fake(path)["light"]) == (1.0, pytest.approx(0))


def test_the_page_of_the_campaign_tells_each_sitting_and_the_next():
    log = [
        {
            "size": "small", "sitting": n, "minutes": 60, "before": {"light": 30.0}, "after": {"light": 30.0 + n},
            "shipped": n == 1, "command": f"sit.py small --minutes {n}",
        }
        for n in (1, 2)
    ]  # fmt: skip
    page = state(log)
    assert "| small | before |  | 30.0 |  |" in page
    assert "| small | 2 | 60 | 32.0 | no |" in page
    assert "sit.py small --minutes 2" in page


@pytest.mark.parametrize(("smaller", "larger"), [("tiny", "small"), ("small", "base")])
def test_a_grown_network_computes_what_the_smaller_one_does_and_all_of_it_learns(smaller, larger):
    torch.manual_seed(0)
    small, grown = create_network("joint", size=smaller), create_network("joint", size=larger)
    for parameter in small.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    grow(small, grown)
    rainy = torch.rand(1, 3, 40, 48)
    with torch.no_grad():
        expected, found = small(rainy), grown(rainy)
    torch.testing.assert_close(found.background, expected.background, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.mask_logits, expected.mask_logits, atol=1e-4, rtol=1e-4)
    optimizer = torch.optim.SGD(grown.parameters(), lr=1e-2)
    begun = {name: parameter.detach().clone() for name, parameter in grown.named_parameters()}
    for _ in range(2):  # what nothing reads has its first gradient in the second step
        optimizer.zero_grad()
        result = grown(rainy)
        (result.background.square().mean() + result.mask_logits.square().mean()).backward()
        optimizer.step()
    assert not [name for name, parameter in grown.named_parameters() if torch.equal(parameter, begun[name])]


def test_a_sitting_that_grows_anew_ships_its_own_training_alone(tmp_path, monkeypatch):
    shipped = tmp_path / "package"
    shipped.mkdir()
    for size, minutes in (("small", 300), ("base", 100)):
        network = create_network("joint", size="tiny")
        info = {"minutes": minutes, "configs": [size], "step": 1}
        save_weights(shipped / f"joint-{size}.safetensors", network, info)
    (tmp_path / "log.json").write_text("[]")
    end = save_weights(tmp_path / "end" / "weights.safetensors", create_network("joint", size="tiny"), {"step": 7})
    (end.parent / "log.jsonl").write_text('{"step": 7, "seconds": 600}\n')
    begun = []
    monkeypatch.setattr(sit, "SHIPPED", shipped)
    monkeypatch.setattr(sit, "HERE", tmp_path)
    monkeypatch.setattr(sit, "LOG", tmp_path / "log.json")
    monkeypatch.setattr(sit, "configuration", lambda *given: begun.append(given[2]))
    monkeypatch.setattr(sit, "grown", lambda *_: shipped / "joint-small.safetensors")
    monkeypatch.setattr(sit, "trained", lambda *_: end)
    monkeypatch.setattr(sit, "scores", lambda path: {"light": 30.0 + (tmp_path in path.parents), "clean": 50.0})
    monkeypatch.setattr(sit, "better", lambda *_: True)
    monkeypatch.setattr(sit, "write_cards", lambda: None)
    for anew, minutes, start in ((False, 120.0, "joint-base"), (True, 20.0, "joint-small")):
        entry = sit.sit("base", 20, tmp_path, anew=anew)
        assert {path.stem for path in begun[-len(BRANCHES) :]} == {start}
        assert (entry["anew"], entry["minutes"], entry["steps"]) == (anew, 20.0, [7, 7])
        info = load_weights(shipped / "joint-base.safetensors").info
        assert (info["minutes"], len(info["configs"])) == (minutes, 1 if anew else 2)
        assert entry["command"].endswith("--grow") == anew
    assert "--grow" not in (tmp_path / "state.md").read_text()  # the next one goes on from there
    lines = json.loads((tmp_path / "log.json").read_text())
    (tmp_path / "log.json").write_text(json.dumps(lines[:-1]))  # killed after shipping, before its line in the log
    with pytest.raises(SstlError, match=r"base-2\.json: a sitting was begun there with"):
        sit.sit("base", 30, tmp_path, anew=True)
    assert sit.sit("base", 20, tmp_path, anew=True) == lines[-1]
    assert json.loads((tmp_path / "log.json").read_text()) == lines
    assert load_weights(shipped / "joint-base.safetensors").info == info


def test_a_card_tells_only_of_the_sittings_that_are_in_the_weights():
    def entry(sitting, **more):
        commit = {"commit": f"{sitting}" * 10}
        return {
            "size": "base",
            "sitting": sitting,
            "shipped": True,
            "after": {"clean": 50.0},
            "environment": commit,
            **more,
        }

    old, grown_anew = entry(1, phases=[]), entry(2, branches={}, anew=True)
    text = card("base", [old, grown_anew, entry(3, branches={})])
    assert "1111111111" not in text
    assert "2 (2222222222), 3 (3333333333)" in text
    assert "at small and then at large crops" not in text
    assert "whose ends are averaged" in text
    assert "at small and then at large crops; then two cosine" in card("base", [old, entry(2, branches={})])
