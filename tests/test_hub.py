"""Weights in the manner of the hub: folders, cards, repositories, and what is said when there is no network."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import huggingface_hub
import pytest
import torch
import yaml
from huggingface_hub import errors
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import sstl
from sstl.errors import WeightsError
from sstl.networks import Network, create_network, load_weights, save_weights
from sstl.networks.joint import Joint
from sstl.networks.prenet import Progressive
from sstl.report.about import about_weights

INFO = {"data": ["rain100l"], "method": "supervised", "protocol": "y-matlab", "limits": ["snow stays"]}


@pytest.fixture
def folder(tmp_path, tiny_network):
    info = {**INFO, "figures": [{"set": "rain100l", "PSNR": 34.281}, {"set": "other"}]}
    return tiny_network.save_pretrained(tmp_path / "mine", info=info, licence="apache-2.0")


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """A hub that cannot be asked, and an empty cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))


def same(first: Network, second: Network) -> bool:
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def front_matter(card: Path) -> dict:
    return yaml.safe_load(card.read_text().split("---")[1])


@pytest.mark.usefixtures("no_network")
def test_a_folder_comes_back_without_a_network(folder, tiny_network):
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    loaded = Joint.from_pretrained(folder)
    assert isinstance(loaded, Joint)
    assert same(loaded, tiny_network)
    assert not loaded.training
    assert (loaded.name, loaded.config) == ("joint", {"size": "tiny"})
    assert same(Network.from_pretrained(str(folder)), tiny_network)
    assert sstl.load(folder).network.config == {"size": "tiny"}


def test_the_card_tells_data_protocol_figures_and_limits(folder):
    card = (folder / "README.md").read_text()
    assert front_matter(folder / "README.md")["license"] == "apache-2.0"
    assert front_matter(folder / "README.md")["library_name"] == "sstl"
    assert "`joint(size='tiny')`" in card
    for section, text in {"Data": "- rain100l", "Training": "- method: supervised", "Limits": "- snow stays"}.items():
        assert text in card.partition(f"## {section}\n")[2].partition("\n## ")[0]
    assert "Protocol: y-matlab." in card
    assert "| set | PSNR |\n| --- | --- |\n| rain100l | 34.28 |\n| other |  |" in card


def test_a_card_of_unknown_weights_says_so(tmp_path, tiny_network):
    card = (tiny_network.save_pretrained(tmp_path / "x") / "README.md").read_text()
    assert card.count("Not stated.") == 3
    assert "Not measured." in card
    assert "license" not in front_matter(tmp_path / "x" / "README.md")


def test_what_was_known_is_passed_on_until_the_weights_change(folder, tmp_path):
    network = Joint.from_pretrained(folder)
    network.save_pretrained(tmp_path / "again")
    assert load_weights(tmp_path / "again").info == load_weights(folder).info
    with torch.no_grad():
        next(network.parameters()).add_(1)
    network.save_pretrained(tmp_path / "changed")
    assert load_weights(tmp_path / "changed").info.keys() == {"started from"}
    assert "34.28 " not in (tmp_path / "changed" / "README.md").read_text().partition("## Figures")[2]


def test_another_class_is_refused(folder):
    with pytest.raises(WeightsError, match="holds network 'joint', which is no Progressive"):
        Progressive.from_pretrained(folder)


def test_the_tensors_must_be_those_of_the_network(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors.pop(next(iter(tensors)))
    with safe_open(folder / "model.safetensors", "pt") as file:
        metadata = file.metadata()
    save_file(tensors, folder / "model.safetensors", metadata)
    with pytest.raises(WeightsError, match="its tensors are not those of network 'joint'"):
        Joint.from_pretrained(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "damaged"), ("[]", "damaged"), ('{"network": "joint", "config": {}}', "tells of another network")],
)
def test_config_and_weights_must_agree(folder, text, message):
    (folder / "config.json").write_text(text)
    with pytest.raises(WeightsError, match=message):
        Joint.from_pretrained(folder)


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("load", [Joint.from_pretrained, sstl.load, lambda name: create_network("joint", name)])
def test_offline_and_not_cached_is_said_in_a_line(load):
    with pytest.raises(
        WeightsError, match=r"^hub:some/thing: the cache holds no copy, and .*; go online once, or [^\n]*$"
    ):
        load("hub:some/thing")


def test_a_repository_is_taken_from_the_cache(folder, tmp_path, tiny_network, monkeypatch, run_cli):
    asked = {}

    def snapshot(repo: str, **options: object) -> str:
        asked.update(options, repo=repo)
        return str(shutil.copytree(folder, tmp_path / "snapshot", dirs_exist_ok=True))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert same(Joint.from_pretrained("some/thing", revision="v1", local_files_only=True), tiny_network)
    assert (asked["repo"], asked["revision"], asked["local_files_only"]) == ("some/thing", "v1", True)
    assert same(create_network("joint", pretrained="hub:some/thing"), tiny_network)
    assert "network joint size=tiny" in run_cli("weights", "show", "hub:some/thing").out
    (folder / "config.json").unlink()
    shutil.rmtree(tmp_path / "snapshot")
    with pytest.raises(WeightsError, match=r"hub:some/thing: holds no config\.json"):
        Joint.from_pretrained("some/thing")


@pytest.mark.parametrize(
    ("error", "message"),
    [(errors.HFValidationError("bad\nname"), "the name must be ORG/NAME"), (ConnectionError("no\nroute"), "no route")],
)
def test_what_the_hub_answers_is_said_in_a_line(monkeypatch, error, message):
    def refuse(*_: object, **__: object) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(WeightsError, match=rf"^hub:some/thing: not downloaded: {message}[^\n]*$"):
        Joint.from_pretrained("some/thing")


def test_push_uploads_what_save_writes(tiny_network, monkeypatch):
    seen = {}

    class Api:
        def __init__(self, **options: object) -> None:
            seen.update(options)

        def create_repo(self, repo: str, private: bool | None, exist_ok: bool) -> str:
            seen.update(repo=repo, private=private, exist_ok=exist_ok)
            return f"https://hub/{repo}"

        def upload_folder(self, folder_path: Path, **options: object) -> None:
            seen.update(options, files={path.name: path.read_bytes() for path in folder_path.iterdir()})

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    assert tiny_network.push_to_hub("some/thing", info=INFO, private=True, revision="main") == "https://hub/some/thing"
    assert seen["files"].keys() == {"README.md", "config.json", "model.safetensors"}
    assert seen["files"]["README.md"].decode().partition("---\n\n")[2].startswith("# thing\n")
    assert (seen["repo"], seen["private"], seen["repo_id"], seen["revision"]) == (
        "some/thing",
        True,
        "some/thing",
        "main",
    )


def test_a_failed_upload_is_said_in_a_line(tiny_network, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no\nroute")

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", refuse)
    with pytest.raises(WeightsError, match=r"^hub:some/thing: not uploaded: no route\.$"):
        tiny_network.push_to_hub("some/thing")


def test_pretrained_is_the_shipped_network():
    assert same(create_network("joint", pretrained=True), load_weights().network)
    assert same(create_network("joint", pretrained=True, size="small"), load_weights("joint-small").network)
    with pytest.raises(WeightsError, match=r"not joint {'size': 'tiny'}"):
        create_network("joint", pretrained=True, size="tiny")
    with pytest.raises(WeightsError, match=r"no weights of network 'prenet' are shipped \(only of joint\)"):
        create_network("prenet", pretrained=True)
    with pytest.raises(WeightsError, match="not prenet"):
        create_network("prenet", pretrained="joint-small")


@pytest.fixture
def run(tmp_path, tiny_network):
    """The folder of an adaptation, as sstl adapt leaves it."""
    folder = tmp_path / "run"
    save_weights(folder / "weights.safetensors", tiny_network, {"step": 20, "method": "mean_teacher"})
    config = {
        "output": str(folder),
        "data": {
            "paired": [{"path": "bundled", "split": "train", "recipe": "mixed"}],
            "unpaired": [{"path": str(tmp_path / "secret" / "my-photos")}],
        },
        "network": {"name": "joint", "options": {"size": "tiny"}, "weights": "joint-small"},
        "method": {"name": "mean_teacher"},
        "steps": 20,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    figures = {"removed": {"before": 1.5, "after": 4.25}}
    (folder / "figures.json").write_text(json.dumps({"outcome": {}, "figures": figures}))
    lines = [{"step": 10, "loss": 0.5}, {"step": 20, "loss": 0.25}, {"step": 20, "validation": {"psnr": 31.5}}]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_the_card_is_filled_from_the_run(run, tmp_path, run_cli):
    done = run_cli("weights", "save", run, "-o", tmp_path / "shared", "--licence", "cc-by-4.0")
    assert done.code == 0, done.err
    card = (tmp_path / "shared" / "README.md").read_text()
    for text in (
        "- labelled: bundled, split train, recipe mixed",
        "- unlabelled photos: my-photos",
        "- start: joint-small",
        "- method: mean_teacher",
        "Protocol: y-matlab",
        "| validation at step 20, dB | 31.5 |",
        "light removed from your photos",
        "| 4.25 | 1.5 |",
        "no figure proves",
    ):
        assert text in card
    assert str(tmp_path) not in card  # nothing of this machine
    assert about_weights(run)["figures"] == load_weights(tmp_path / "shared").info["figures"]
    again = run_cli("weights", "save", run, "-o", tmp_path / "shared")
    assert "is there already" in again.err


def test_figures_of_an_evaluation_stand_in_the_card(run, tmp_path, run_cli):
    scores = tmp_path / "scores"
    scores.mkdir()
    summary = {"mean": 34.25, "interval": [33.0, 35.0], "count": 21, "infinite": 0, "capped": 0}
    found = {"protocol": "rgb", "count": 21, "results": {"run": {"psnr": summary}}}
    (scores / "scores.json").write_text(json.dumps({"data": {}, "weights": {}, "sets": {"rain100l": found}}))
    done = run_cli("weights", "push", run, "--to", "some/thing", "--scores", scores, "--dry-run")
    assert done.code == 0, done.err
    assert "| rain100l: run, 21 images, protocol rgb | 34.25 |" in done.out
    assert "nothing was uploaded" in done.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("push", "joint-small"), "'weights push' needs --to ORG/NAME"),
        (("save", "joint-small"), "'weights save' needs -o DIR"),
        (("export", "joint-small", "-o", "a.pth", "--to", "a/b"), "--to, --private and --dry-run belong to"),
        (("show", "joint-small", "--licence", "mit"), "--scores and --licence belong to"),
        (("show", "joint-small", "--format", "onnx"), "--format belongs to 'weights export'"),
        (("show", "joint-small", "--overwrite"), "--overwrite belongs to 'weights import', 'export' and 'save'"),
        (("save", "no-such-run", "-o", "x"), "no such weights file or name"),
    ],
)
def test_wrong_usage(run_cli, arguments, message):
    done = run_cli("weights", *arguments)
    assert (done.code, message in done.err) == (2, True)
