"""Weights files: what is saved comes back, what is not ours is refused in one line, nothing is half written."""

from __future__ import annotations

import json
import os
import pickle

import pytest
import torch
from safetensors.torch import save_file

from sstl.errors import WeightsError
from sstl.networks import create_network, list_weights, load_weights, save_weights, weights
from sstl.networks.weights import FORMAT, read_info


@pytest.fixture
def saved(tmp_path, tiny_network):
    return save_weights(tmp_path / "tiny.safetensors", tiny_network, {"steps": 3, "data": ["rain"]})


def metadata(**changes: str) -> dict[str, str]:
    return {"format": FORMAT, "network": "joint", "config": '{"size": "tiny"}', "info": "{}", **changes}


def refusal(path) -> str:
    with pytest.raises(WeightsError, match=r"^[^\n]*$") as caught:
        load_weights(path)
    assert str(path) in str(caught.value)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_float32_comes_back_exactly(saved, tiny_network):
    loaded = load_weights(saved)
    assert (loaded.name, loaded.path, loaded.info) == ("tiny", saved, {"steps": 3, "data": ["rain"]})
    assert not loaded.network.training
    assert (loaded.network.name, loaded.network.config) == ("joint", {"size": "tiny"})
    ours, theirs = tiny_network.state_dict(), loaded.network.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_float16_is_half_the_file_and_close(saved, tmp_path, tiny_network):
    half = save_weights(tmp_path / "half.safetensors", tiny_network, dtype=torch.float16)
    assert half.stat().st_size < 0.55 * saved.stat().st_size
    theirs = load_weights(half).network.state_dict()
    for name, ours in tiny_network.state_dict().items():
        assert theirs[name].dtype == torch.float32
        torch.testing.assert_close(theirs[name], ours, atol=1e-3, rtol=1e-3)


def test_the_restoration_is_the_same(saved, tiny_network, photo):
    with torch.inference_mode():
        assert torch.equal(load_weights(saved).network(photo).background, tiny_network(photo).background)


def test_loading_draws_nothing(saved):
    torch.manual_seed(1)
    load_weights(saved)
    found = torch.rand(3)
    torch.manual_seed(1)
    assert torch.equal(found, torch.rand(3))


def test_a_folder_stands_for_the_weights_in_it(tmp_path, tiny_network):
    save_weights(tmp_path / "run" / "weights.safetensors", tiny_network)
    assert load_weights(tmp_path / "run").network.name == "joint"


def test_read_info_needs_no_network(saved):
    assert read_info(saved) == {
        "name": "tiny",
        "path": str(saved),
        "network": "joint",
        "config": {"size": "tiny"},
        "info": {"steps": 3, "data": ["rain"]},
    }


def test_shipped_weights_are_found_by_name(saved, monkeypatch):
    monkeypatch.setattr(weights, "SHIPPED", saved.parent)
    assert list_weights() == ["tiny"]
    assert load_weights("tiny").path == saved
    with pytest.raises(WeightsError, match=r"^tinny: no such weights file or name\. Did you mean 'tiny'\?$"):
        load_weights("tinny")


MEGABYTES = {"joint-small": 4, "joint-base": 12}  # of a shipped file at most; of the others 1


def test_every_shipped_file_loads_and_has_a_card():
    assert weights.DEFAULT in list_weights()
    for name in list_weights():
        loaded = load_weights(name)
        assert loaded.path.stat().st_size <= MEGABYTES.get(name, 1) * 1e6
        assert loaded.path.with_suffix(".md").read_text(encoding="utf-8").startswith("# ")
        assert all(tensor.isfinite().all() for tensor in loaded.network.state_dict().values())


def test_a_missing_file(tmp_path):
    assert "no such weights file or name" in refusal(tmp_path / "nowhere.safetensors")
    assert "no such weights file or name" in refusal(tmp_path)  # a folder without weights in it


class Exploit:
    def __reduce__(self):
        return os.mkdir, ("exploited",)


@pytest.mark.parametrize(
    "content",
    [b"", b"hello, I am a text file\n" * 9, pickle.dumps({"a": Exploit()}), b"\xff" * 64, b"\x08" + 7 * b"\0"],
)
def test_what_is_not_safetensors(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    assert "not a safetensors file, or a damaged one" in refusal(path)
    assert [*tmp_path.iterdir()] == [path]


def test_a_pickle_of_torch_is_not_opened(tmp_path, tiny_network):
    path = tmp_path / "weights.safetensors"
    torch.save(tiny_network.state_dict(), path)
    assert "sstl opens no pickles" in refusal(path)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.999])
def test_a_truncated_file(saved, share):
    saved.write_bytes(saved.read_bytes()[: int(share * saved.stat().st_size)])
    assert "damaged" in refusal(saved)


def test_safetensors_of_something_else(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(2)}, path)
    assert "but not sstl weights" in refusal(path)
    save_file({"a": torch.zeros(2)}, path, {"format": "pt"})
    assert "but not sstl weights" in refusal(path)
    save_file({"a": torch.zeros(2)}, path, {"format": FORMAT})
    assert "but not sstl weights" in refusal(path)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"config": '{"size": "small"}'}, "its tensors are not those of network 'joint'"),
        ({"config": '{"size": "tiny", "stages": 2}'}, "its tensors are not those of network 'joint'"),
        ({"network": "jont"}, "unknown network 'jont'. Did you mean 'joint'?"),
        ({"config": '{"depth": 3}'}, "its network cannot be built"),
        ({"config": "[1]"}, "damaged"),
        ({"config": "{"}, "damaged"),
    ],
)
def test_weights_of_another_network(tmp_path, tiny_network, changes, expected):
    path = tmp_path / "weights.safetensors"
    save_file(tiny_network.state_dict(), path, metadata(**changes))
    assert expected in refusal(path)


@pytest.mark.parametrize("key", ["config", "info"])
@pytest.mark.parametrize("text", ["{", "[1]", "null"])
def test_damaged_notes(tmp_path, tiny_network, key, text):
    path = tmp_path / "weights.safetensors"
    save_file(tiny_network.state_dict(), path, metadata(**{key: text}))
    assert "damaged" in refusal(path)
    with pytest.raises(WeightsError, match=r"weights\.safetensors.* damaged"):
        read_info(path)


def test_a_file_makes_nobody_fetch_another(tmp_path, tiny_network):
    path = tmp_path / "weights.safetensors"
    save_file(tiny_network.state_dict(), path, metadata(config=json.dumps({"pretrained": "hub:some/thing"})))
    assert "damaged" in refusal(path)


def test_a_missing_and_a_surplus_tensor(tmp_path, tiny_network):
    path = tmp_path / "weights.safetensors"
    tensors = tiny_network.state_dict()
    save_file({**tensors, "extra": torch.zeros(1)}, path, metadata())
    assert "its tensors are not those" in refusal(path)
    save_file(dict([*tensors.items()][1:]), path, metadata())
    assert "its tensors are not those" in refusal(path)


def test_a_failing_write_leaves_what_was_there(saved, monkeypatch):
    before = saved.read_bytes()

    def no_space(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    other = create_network("joint", size="tiny")
    with pytest.raises(OSError, match="No space left"):
        save_weights(saved, other)
    with pytest.raises(OSError, match="No space left"):
        save_weights(saved.with_name("new.safetensors"), other)
    assert saved.read_bytes() == before
    assert [*saved.parent.iterdir()] == [saved]
