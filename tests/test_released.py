"""State dicts from elsewhere: renamed without loss, refused in one line, written again; and ``derain --deveil``."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from skimage import data
from torch import Tensor

import sstl
from sstl.errors import SstlError, WeightsError
from sstl.networks import Network, create_network, load_weights, save_weights
from sstl.networks.deveil import Deveil
from sstl.networks.released import SUFFIXES, export_weights, import_weights
from sstl.rain import imaging
from sstl.restore import Restorer, load, restorer
from sstl.types import Restoration

Tensors = dict[str, Tensor]
SMALL = {
    "prenet": {"stages": 3, "width": 6, "blocks": 2},
    "prenet_r": {"stages": 2, "width": 4, "blocks": 3},
    "prn": {"stages": 2, "width": 4, "blocks": 5},
    "prn_r": {"stages": 2, "width": 4, "blocks": 2},
    "jorder_e": {"width": 4, "blocks": 9},
    "jorder_e_practical": {"width": 4, "blocks": 3},
    "sirr_released": {},
    "joint": {"size": "tiny"},
    "ddn": {"width": 4, "blocks": 2},
}


def random_network(name: str, **config: object) -> Network:
    """A small network, no parameter or buffer of which is what it started as."""
    network = create_network(name, **SMALL[name] | config).eval()
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(0.03 * torch.randn_like(tensor))
    return network


def write(path: Path, tensors: Mapping[str, object]) -> Path:
    if path.suffix == ".npz":
        np.savez(path, **{key: tensor.numpy() for key, tensor in tensors.items()})
    elif path.suffix == ".safetensors":
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path)
    else:
        torch.save(dict(tensors), path)
    return path


def same(one: Network, other: Network) -> bool:
    """Whether two networks have equal weights and restore an image to the same bits, in all that they return."""
    ours, theirs = one.state_dict(), other.state_dict()
    rainy = torch.rand(1, 3, 17, 20)
    with torch.inference_mode():
        results = one(rainy), other(rainy)
    layers = [[r.background, r.streak, *([] if r.mask_logits is None else [r.mask_logits])] for r in results]
    return (
        ours.keys() == theirs.keys()
        and all(torch.equal(ours[key], theirs[key]) for key in ours)
        and all(torch.equal(a, b) and bool(a.isfinite().all()) for a, b in zip(*layers, strict=True))
    )


# The authors' names, from ours


def named_as(tensors: Tensors, names: Mapping[str, str]) -> Tensors:
    """Rename layers, ours -> theirs; every one must be named."""
    return {f"{names[key.rpartition('.')[0]]}.{key.rpartition('.')[2]}": value for key, value in tensors.items()}


def as_prenet(network: Network) -> Tensors:
    ours = network.state_dict()
    gates = {kind: ours.pop(f"memory.gates.{kind}", None) for kind in ("weight", "bias")}
    names = {"stem": "conv0.0", "head": "conv.0"}
    for i in range(len(network.blocks)):
        names |= {f"blocks.{i}.first": f"res_conv{i + 1}.0", f"blocks.{i}.second": f"res_conv{i + 1}.2"}
    theirs = named_as(ours, names)
    for kind, tensor in gates.items():
        if tensor is not None:
            width = len(tensor) // 4
            theirs |= {f"conv_{gate}.0.{kind}": tensor[i * width : (i + 1) * width] for i, gate in enumerate("ifgo")}
    return theirs


def as_jorder_e(network: Network) -> Tensors:
    names = {}
    for r in (0, 1):
        ours, theirs = f"recurrences.{r}", f"jorder{r + 1}"
        names |= {f"{ours}.{layer}": f"{theirs}.{layer}" for layer in ("encoder", "decoder.0", "decoder.1")}
        for i in range(len(network.recurrences[r].blocks)):
            layers = [f"{ours}.blocks.{i}.paths.{path}.{layer}" for path in (0, 1, 2) for layer in (0, 2)]
            names |= {layer: f"{theirs}.updater.res{i + 1}.conv{k}" for k, layer in enumerate(layers, 1)}
        for head in ("mask", "level"):
            for k in (0, 1):
                names[f"{ours}.{head}.{k}"] = f"{theirs}.{head}_estimator{k + 1}"
                names[f"{ours}.by_{head}.factor.{2 * k}"] = f"{theirs}.{head}_F_w_encoder{k + 1}"
                names[f"{ours}.by_{head}.offset.{2 * k}"] = f"{theirs}.{head}_F_b_encoder{k + 1}"
    return named_as(network.state_dict(), names)


def as_sirr(network: Network, separator: str = "|") -> Tensors:
    theirs = {}
    for number, layer in enumerate(network.layers, 1):
        theirs[f"conv_{number}{separator}weights_{number}"] = layer.kernel.detach().permute(2, 3, 1, 0).contiguous()
        for branch, suffix in ((0, ""), (1, "_1")):
            scope, norm = f"conv_{number}{suffix}{separator}", layer.norms[branch]
            theirs[f"{scope}biases_{number}"] = layer.biases[branch].detach()
            theirs[f"{scope}scale_{number}"] = norm.weight.detach()
            theirs[f"{scope}beta_{number}"] = norm.bias.detach()
    return theirs


AUTHORS: dict[str, Callable[[Network], Tensors]] = {
    "prenet": as_prenet,
    "prenet_r": as_prenet,
    "prn": as_prenet,
    "prn_r": as_prenet,
    "jorder_e": as_jorder_e,
    "jorder_e_practical": as_jorder_e,
    "sirr_released": as_sirr,
}


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("name", AUTHORS)
def test_weights_in_their_authors_names(tmp_path, name, suffix):
    network = random_network(name, **{"peak": 255.0} if name.startswith("jorder_e") else {})
    theirs = AUTHORS[name](network)
    assert not theirs.keys() & network.state_dict().keys()
    imported = import_weights(write(tmp_path / f"theirs{suffix}", theirs), name, SMALL[name])
    assert imported.name == name
    assert not imported.training
    assert same(imported, network)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("name", ["joint", "ddn", "prenet", "jorder_e", "sirr_released"])
def test_weights_in_our_names(tmp_path, name, suffix):
    network = random_network(name)
    imported = import_weights(write(tmp_path / f"ours{suffix}", network.state_dict()), name, SMALL[name])
    assert same(imported, network)
    assert imported.config == SMALL[name]  # no option is brought


def test_names_of_the_released_files():
    """Spot checks against the published files, apart from the inverse above."""
    prenet = as_prenet(create_network("prenet"))
    assert prenet.keys() > {
        "conv0.0.weight",
        "res_conv1.0.weight",
        "res_conv5.2.bias",
        "conv_g.0.weight",
        "conv.0.bias",
    }
    assert tuple(prenet["conv_o.0.weight"].shape) == (32, 64, 3, 3)
    assert len(prenet) == 2 * (1 + 10 + 4 + 1)
    jorder = as_jorder_e(create_network("jorder_e"))
    assert jorder.keys() > {"jorder1.encoder.weight", "jorder2.updater.res9.conv6.bias", "jorder1.decoder.1.bias"}
    assert tuple(jorder["jorder2.level_F_w_encoder2.weight"].shape) == (64, 16, 3, 3)
    assert tuple(jorder["jorder1.mask_estimator2.weight"].shape) == (2, 8, 3, 3)
    sirr = as_sirr(create_network("sirr_released"))
    assert tuple(sirr["conv_1|weights_1"].shape) == (3, 3, 3, 16)
    assert sirr.keys() > {"conv_26|weights_26", "conv_3_1|scale_3", "conv_11|beta_11", "conv_1_1|beta_1"}
    assert len(sirr) == 26 * (1 + 2 * 3)


def test_imported_prenet_computes_what_its_authors_layers_say(tmp_path):
    """Stage by stage from the file's own tensors: four gates, branches rectified before and after the sum."""
    theirs = as_prenet(random_network("prenet"))
    imported = import_weights(write(tmp_path / "w.pth", theirs), "prenet", SMALL["prenet"])

    def layer(name: str, x: Tensor) -> Tensor:
        return F.conv2d(x, theirs[f"{name}.weight"], theirs[f"{name}.bias"], padding=1)

    rainy = torch.rand(2, 3, 9, 14)
    background, hidden, cell = rainy, torch.zeros(2, 6, 9, 14), torch.zeros(2, 6, 9, 14)
    with torch.inference_mode():
        restored = imported(rainy)
        for result in (*restored.stages, restored):
            x = torch.cat([layer("conv0.0", torch.cat([rainy, background], dim=1)).relu(), hidden], dim=1)
            keep, take, show = (layer(f"conv_{gate}.0", x).sigmoid() for gate in "fio")
            cell = keep * cell + take * layer("conv_g.0", x).tanh()
            hidden = x = show * cell.tanh()
            for i in (1, 2):
                x = (x + layer(f"res_conv{i}.2", layer(f"res_conv{i}.0", x).relu()).relu()).relu()
            background = rainy + layer("conv.0", x)
            torch.testing.assert_close(result.background, background)


@pytest.mark.parametrize("name", ["jorder_e", "jorder_e_practical"])
def test_released_jorder_e_brings_its_range(tmp_path, name):
    network = random_network(name, peak=255.0)
    path = write(tmp_path / "w.pth", as_jorder_e(network))
    imported = import_weights(path, name, SMALL[name])
    assert imported.config == {**SMALL[name], "peak": 255.0}
    assert imported.peak == 255
    assert import_weights(path, name, {**SMALL[name], "peak": 1.0}).peak == 1  # what is asked for wins


@pytest.mark.parametrize("separator", ["|", "/"])
def test_released_sirr_gives_both_branches_or_ddn(tmp_path, separator):
    network = random_network("sirr_released")
    path = write(tmp_path / "w.npz", as_sirr(network, separator))
    assert same(import_weights(path, "sirr_released"), network)
    real = import_weights(path, "sirr_released", {"branch": "real"})
    ddn = import_weights(path, "ddn")
    assert ddn.config == {"statistics": "batch"}
    rainy = torch.rand(1, 3, 20, 25)
    with torch.inference_mode():
        assert torch.equal(ddn(rainy).background, network.restore(rainy, 0).background)
        assert torch.equal(real(rainy).background, network.restore(rainy, 1).background)
        assert not torch.equal(ddn(rainy).background, real(rainy).background)
    assert "('layers.0.norms.0.num_batches_tracked' is missing)" in refusal(path, "ddn", {"statistics": "running"})


@pytest.mark.parametrize("wrapper", ["state_dict", "model_state_dict", "params", "model"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_wrapped_state_dicts(tmp_path, wrapper, prefix):
    network = random_network("prenet")
    for tensors in (network.state_dict(), as_prenet(network)):
        kept = {f"{prefix}{key}": value for key, value in tensors.items()}
        path = write(tmp_path / "w.pth", {"epoch": 3, wrapper: kept, "best": 29.5, "optimizer": {"lr": [1e-3]}})
        assert same(import_weights(path, "prenet", SMALL["prenet"]), network)
        path = write(tmp_path / "w.pt", kept)
        assert same(import_weights(path, "prenet", SMALL["prenet"]), network)


def test_other_precisions_become_float32(tmp_path):
    network = random_network("prenet").half().float()
    for dtype in (torch.float16, torch.float64):
        tensors = {key: value.to(dtype) for key, value in as_prenet(network).items()}
        imported = import_weights(write(tmp_path / "w.npz", tensors), "prenet", SMALL["prenet"])
        assert same(imported, network)
        assert {parameter.dtype for parameter in imported.parameters()} == {torch.float32}


# Refusals


def refusal(path: Path, name: str = "joint", options: Mapping[str, object] | None = None) -> str:
    with pytest.raises(WeightsError, match=r"^[^\n]*$") as caught:
        import_weights(path, name, SMALL[name] if options is None else options)
    assert str(caught.value).startswith(f"{path}: ")
    assert caught.value.exit_code == 2
    return str(caught.value)


class Exploit:
    def __reduce__(self):
        return os.mkdir, ("exploited",)


@pytest.mark.parametrize("name", ["w.ckpt", "w.pkl", "w.npy", "w", "w.pth.tar"])
def test_other_kinds_of_files(tmp_path, name):
    path = write(tmp_path / name, random_network("joint").state_dict())
    assert "cannot be imported; give a file that ends in .pth, .pt, .npz, .safetensors." in refusal(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_files_that_are_not_there(tmp_path, suffix):
    assert "no such file" in refusal(tmp_path / f"gone{suffix}")
    (tmp_path / f"folder{suffix}").mkdir()
    assert "no such file" in refusal(tmp_path / f"folder{suffix}")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello, I am a text file\n" * 9,
        b"<!DOCTYPE html>\n<html>404</html>",
        b"\xff" * 64,
        b"\x08" + 7 * b"\0",
        b"PK\x03\x04" + 60 * b"\0",
        b"\x93NUMPY\x01\x00" + 20 * b"\0",
    ],
)
def test_files_of_something_else(tmp_path, suffix, content):
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    assert "damaged, or more than tensors, which sstl does not open" in refusal(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("share", [0.01, 0.5, 0.999])
def test_a_truncated_file(tmp_path, suffix, share):
    path = write(tmp_path / f"w{suffix}", random_network("prenet").state_dict())
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert "damaged" in refusal(path, "prenet")


def test_a_flipped_bit_in_an_archive_of_numpy(tmp_path):
    path = write(tmp_path / "w.npz", random_network("prenet").state_dict())
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    assert "damaged" in refusal(path, "prenet")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_pickle_that_runs_code_is_not_opened(tmp_path, monkeypatch, suffix):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"w{suffix}"
    for protocol in (0, 2, 5):
        path.write_bytes(pickle.dumps({"a": Exploit()}, protocol))
        assert "more than tensors" in refusal(path)
    torch.save({"state_dict": {"a": torch.zeros(1)}, "args": Exploit()}, path)
    assert "more than tensors" in refusal(path)
    np.savez(tmp_path / "made.npz", a=np.zeros(2), b=np.array([Exploit()], dtype=object))
    path.write_bytes((tmp_path / "made.npz").read_bytes())
    assert "more than tensors" in refusal(path)
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted({"made.npz", path.name})


def test_arrays_that_are_no_tensors(tmp_path):
    for array in (np.array(["text"]), np.array([None, 1], dtype=object), np.array(["2020-01-01"], "M8[D]")):
        np.savez(tmp_path / "w.npz", a=array)
        assert "more than tensors" in refusal(tmp_path / "w.npz")


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"a": 3},
        {"a": torch.zeros(1), "b": "text"},
        {"a": [torch.zeros(1)]},
        {"state_dict": {}},
        {"state_dict": {"a": None}},
        {"network": {"a": torch.zeros(1)}},
    ],
)
def test_dicts_of_something_else(tmp_path, content):
    assert "holds something other than named tensors; give a state dict." in refusal(write(tmp_path / "w.pth", content))


@pytest.mark.parametrize("content", [torch.zeros(3), [torch.zeros(1)], 7, None, "text"])
def test_what_is_no_dict(tmp_path, content):
    torch.save(content, tmp_path / "w.pth")
    assert type(content).__name__ in refusal(tmp_path / "w.pth")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_tensors_of_another_network(tmp_path, suffix):
    path, tensors = tmp_path / f"w{suffix}", random_network("prenet").state_dict()
    write(path, {**tensors, "extra": torch.zeros(1)})
    assert "not the weights of network 'prenet' with these options ('extra' is unknown)." in refusal(path, "prenet")
    write(path, {key: value for key, value in tensors.items() if key != "head.bias"})
    assert "('head.bias' is missing)" in refusal(path, "prenet")
    write(path, {**tensors, "head.bias": torch.zeros(4)})
    assert "('head.bias' is (4,), not (3,))" in refusal(path, "prenet")
    write(path, tensors)
    assert "is missing" in refusal(path, "joint")
    assert "'blocks.2.first.bias' is missing" in refusal(path, "prenet", {**SMALL["prenet"], "blocks": 3})
    assert "('stem.weight' is (6, 6, 3, 3), not (8, 6, 3, 3))" in refusal(
        path, "prenet", {**SMALL["prenet"], "width": 8}
    )
    assert "is unknown" in refusal(path, "prn", {**SMALL["prenet"]})


def test_authors_tensors_of_another_network(tmp_path):
    prenet, jorder, sirr = (random_network(name) for name in ("prenet", "jorder_e", "sirr_released"))
    path = write(tmp_path / "a.pth", {k: v for k, v in as_prenet(prenet).items() if k != "conv_g.0.bias"})
    assert "'memory.gates.bias' is missing" in refusal(path, "prenet")
    path = write(tmp_path / "b.pth", as_prenet(prenet))
    assert "'conv_f.0.bias' is unknown" in refusal(path, "prn", SMALL["prenet"])
    assert "is missing" in refusal(path, "joint")
    path = write(tmp_path / "c.pth", {**as_prenet(prenet), "conv_z.0.bias": torch.zeros(6)})
    assert "'conv_z.0.bias' is unknown" in refusal(path, "prenet")
    path = write(tmp_path / "d.pth", {k: v for k, v in as_jorder_e(jorder).items() if "res4.conv3" not in k})
    assert "'recurrences.0.blocks.3.paths.1.0.bias' is missing" in refusal(path, "jorder_e")
    assert "is missing" in refusal(path, "prenet")
    path = write(tmp_path / "e.npz", {**as_sirr(sirr), "conv_1|weights_1|Adam": torch.zeros(3, 3, 3, 16)})
    assert "'conv_1|weights_1|Adam' is unknown" in refusal(path, "sirr_released")
    path = write(tmp_path / "f.npz", {k: v for k, v in as_sirr(sirr).items() if k != "conv_7_1|beta_7"})
    assert "'layers.6.norms.1.bias' is missing" in refusal(path, "sirr_released")
    assert import_weights(path, "ddn").config == {"statistics": "batch"}  # which does not need it
    path = write(tmp_path / "g.npz", {**as_sirr(sirr), "conv_7|weights_7": torch.zeros(16, 16, 3, 3)})
    assert "('layers.6.kernel' is (3, 3, 16, 16), not (16, 16, 3, 3))" in refusal(path, "sirr_released")


def test_authors_tensors_of_another_shape(tmp_path):
    prenet, sirr = as_prenet(random_network("prenet")), as_sirr(random_network("sirr_released"))
    for shape in ((6, 11, 3, 3), (6, 12), ()):
        path = write(tmp_path / "a.pth", {**prenet, "conv_g.0.weight": torch.zeros(shape)})
        assert "not the weights of network 'prenet'" in refusal(path, "prenet")
    path = write(tmp_path / "a.pth", {**prenet, "conv_g.0.weight": torch.zeros(7, 12, 3, 3)})
    assert "not the weights of network 'prenet'" in refusal(path, "prenet")
    for shape in ((3,), (3, 3, 3, 16, 1), ()):
        path = write(tmp_path / "b.npz", {**sirr, "conv_1|weights_1": torch.zeros(shape)})
        assert "not the weights of network 'sirr_released'" in refusal(path, "sirr_released")


@pytest.mark.parametrize(
    "value",
    [torch.zeros(3).to_sparse(), torch.zeros(3, dtype=torch.complex64), torch.zeros(3, device="meta")],
    ids=["sparse", "complex", "meta"],
)
def test_tensors_that_no_network_has(tmp_path, value):
    path = write(tmp_path / "w.pth", {**random_network("prenet").state_dict(), "head.bias": value})
    refusal(path, "prenet")


def test_networks_and_options_that_do_not_exist(tmp_path):
    path = write(tmp_path / "w.pth", as_prenet(random_network("prenet")))
    for name, options, expected in (
        ("prennet", {}, "unknown network 'prennet'. Did you mean 'prenet'?"),
        ("prenet", {"depth": 3}, "unexpected keyword argument 'depth'"),
        ("prenet", {"stages": 0}, "prenet: stages is 0; it must be at least 1."),
    ):
        with pytest.raises(SstlError, match=r"^[^\n]*$") as caught:
            import_weights(path, name, options)
        assert expected in str(caught.value)


# Export


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("name", ["joint", "ddn", "jorder_e", "sirr_released"])
def test_what_is_exported_comes_back(tmp_path, name, suffix):
    network = random_network(name)
    path = export_weights(tmp_path / "new" / f"w{suffix}", network)
    assert path == tmp_path / "new" / f"w{suffix}"
    assert same(import_weights(path, name, SMALL[name]), network)
    assert [*path.parent.iterdir()] == [path]


def test_an_exported_file_is_a_plain_state_dict(tmp_path):
    network = random_network("ddn").to(memory_format=torch.channels_last)
    tensors = torch.load(export_weights(tmp_path / "w.pth", network), weights_only=True)
    assert type(tensors) is dict
    assert tensors.keys() == network.state_dict().keys()
    assert all(tensor.is_contiguous() and not tensor.requires_grad for tensor in tensors.values())
    with np.load(export_weights(tmp_path / "w.npz", network), allow_pickle=False) as arrays:
        assert set(arrays.files) == tensors.keys()
        assert arrays["layers.0.norms.0.num_batches_tracked"].dtype == np.int64
        np.testing.assert_array_equal(arrays["layers.0.kernel"], network.layers[0].kernel.detach().numpy())


def test_an_unknown_kind_of_file_is_not_written(tmp_path):
    for name in ("w.onnx", "w", "w.npy"):
        with pytest.raises(WeightsError, match=r"^[^\n]*: unknown kind of file; give a name that ends in \.pth, "):
            export_weights(tmp_path / name, random_network("prn_r"))
    assert [*tmp_path.iterdir()] == []


# The command line


@pytest.fixture
def given(tmp_path) -> Path:
    """A file in its authors' names."""
    return write(tmp_path / "theirs.pth", as_prenet(random_network("prenet")))


@pytest.fixture
def options() -> list[str]:
    return [f"{key}={value}" for key, value in SMALL["prenet"].items()]


def test_import_and_export_by_command(run_cli, given, options, tmp_path):
    out = tmp_path / "w.safetensors"
    command = ("weights", "import", given, "--network", "prenet", *options, "-o", out)
    done = run_cli(*command, "--json", tmp_path / "w.json")
    assert done.code == 0, done.err
    assert done.err == ""
    assert f"wrote {out}: network=prenet stages=3 width=6 blocks=2" in done.out
    assert f"next: sstl derain PHOTOS -o OUT --weights {out}" in done.out
    assert json.loads((tmp_path / "w.json").read_text())["config"] == SMALL["prenet"]
    loaded = load_weights(out)
    assert loaded.info == {"imported from": "theirs.pth"}
    assert loaded.network.config == SMALL["prenet"]
    assert same(loaded.network, import_weights(given, "prenet", SMALL["prenet"]))
    assert "imported from: theirs.pth" in run_cli("weights", "show", out).out

    for suffix in SUFFIXES:
        plain = tmp_path / f"plain{suffix}"
        done = run_cli("weights", "export", out, "-o", plain)
        assert done.code == 0, done.err
        assert f"wrote {plain}: the plain state dict of network=prenet stages=3" in done.out
        assert same(import_weights(plain, "prenet", SMALL["prenet"]), loaded.network)


def test_options_may_stand_anywhere(run_cli, given, options, tmp_path):
    orders = (
        ("weights", "import", given, *options, "--network", "prenet", "-o", tmp_path / "a.safetensors"),
        ("weights", "import", given, "-o", tmp_path / "b.safetensors", *options, "--network", "prenet"),
        ("weights", "import", given, "-o", tmp_path / "c.safetensors", "--network", "prenet", *options),
    )
    for order in orders:
        done = run_cli(*order)
        assert done.code == 0, done.err
    a, b, c = (load_weights(tmp_path / f"{name}.safetensors").network for name in "abc")
    assert same(a, b)
    assert same(a, c)


def test_jorder_e_keeps_its_range_in_the_file(run_cli, tmp_path):
    network = random_network("jorder_e_practical", peak=255.0)
    path = write(tmp_path / "theirs.pt", as_jorder_e(network))
    out = tmp_path / "w.safetensors"
    done = run_cli("weights", "import", path, "--network", "jorder_e_practical", "width=4", "blocks=3", "-o", out)
    assert done.code == 0, done.err
    assert load_weights(out).network.config == {"width": 4, "blocks": 3, "peak": 255.0}
    assert same(load_weights(out).network, network)


def test_an_existing_file_is_kept(run_cli, given, options, tmp_path):
    out = tmp_path / "w.safetensors"
    out.write_text("mine")
    for command in (
        ("weights", "import", given, "--network", "prenet", *options, "-o", out),
        ("weights", "export", "joint-small", "-o", out),
    ):
        done = run_cli(*command)
        assert done.code == 2
        assert f"sstl: error: {out} is there already; give --overwrite, or another name.\n" == done.err
        assert out.read_text() == "mine"
        assert run_cli(*command, "--overwrite").code == 0
        assert out.stat().st_size > 1000
        out.write_text("mine")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("import",), "'weights import' needs a NAME or PATH"),
        (("export",), "'weights export' needs a NAME or PATH"),
        (("import", "FILE"), "'weights import' needs -o FILE"),
        (("export", "joint-small"), "'weights export' needs -o FILE"),
        (("import", "FILE", "-o", "OUT"), "'weights import' needs --network NAME"),
        (
            ("export", "joint-small", "-o", "OUT", "--network", "joint"),
            "--network and key=value belong to 'weights imp",
        ),
        (("export", "joint-small", "size=tiny", "-o", "OUT"), "--network and key=value belong to 'weights import'"),
        (("show", "joint-small", "-o", "OUT"), "-o FILE belongs to 'weights import' and 'export'"),
        (("list", "joint-small"), "'weights list' takes no name; did you mean 'weights show'?"),
        (
            ("import", "FILE", "--network", "prenet", "-o", "OUT"),
            "FILE: not the weights of network 'prenet' with these",
        ),
        (("import", "FILE", "--network", "prenet", "depth=3", "-o", "OUT"), "unexpected keyword argument 'depth'"),
        (("import", "FILE", "depth", "--network", "prenet", "-o", "OUT"), "'depth' is not of the form key=value"),
        (("import", "FILE", "--network", "renet", "-o", "OUT"), "unknown network 'renet'. Did you mean 'prenet'?"),
        (("import", "gone.pth", "--network", "prenet", "-o", "OUT"), "gone.pth: no such file; check the path."),
        (("export", "joint-smal", "-o", "OUT"), "Did you mean 'joint-small'?"),
        (
            ("import", "FILE", "--network", "prenet", "-o", "OUT.pth"),
            "OUT.pth: sstl's weights are safetensors; give a name that ends in .safetensors.",
        ),
        (("export", "joint-small", "-o", "OUT.bin"), "OUT.bin: unknown kind of file; give a name that ends in .pth"),
    ],
)
def test_wrong_usage(run_cli, given, monkeypatch, arguments, message):
    monkeypatch.chdir(given.parent)
    given.rename("FILE.pth")
    names = {"FILE": "FILE.pth", "OUT": "OUT.safetensors"}
    done = run_cli("weights", *(names.get(word, word) for word in arguments))
    assert done.code == 2
    assert message.replace("FILE: ", "FILE.pth: ") in done.err
    assert done.err.startswith("sstl: error: ")
    assert done.err.count("\n") == 1
    assert [file.name for file in Path().iterdir()] == ["FILE.pth"]


# derain --deveil


@pytest.fixture(scope="module")
def veiled() -> np.ndarray:
    """A photo of 200 x 150 pixels, the farther up the hazier."""
    clear = torch.from_numpy(data.astronaut()[:150, 150:350]).movedim(-1, 0)[None].float() / 255
    none = torch.zeros_like(clear)
    transmission = torch.linspace(0.35, 0.85, 150).view(1, 1, -1, 1)
    airlight = torch.tensor([0.75, 0.75, 0.8]).view(1, 3, 1, 1)
    hazy = imaging.heavy(clear, none, none[:, :1], transmission, airlight)
    return (hazy[0].movedim(0, -1) * 255).round().to(torch.uint8).numpy()


@pytest.fixture
def weights(tmp_path, tiny_network) -> Path:
    return save_weights(tmp_path / "w.safetensors", tiny_network)


def tensor(image: np.ndarray) -> Tensor:
    return torch.from_numpy(image).movedim(-1, 0)[None].float() / 255


def levels(image: Tensor) -> np.ndarray:
    return (image[0].clamp(0, 1) * 255).round().movedim(0, -1).numpy().astype(int)


def test_deveil_by_command(run_cli, weights, veiled, tmp_path, tiny_network):
    Image.fromarray(veiled).save(tmp_path / "photo.png")
    command = ("derain", tmp_path / "photo.png", "--weights", weights, "--precision", "fp32", "-o")
    results = {}
    for name, extra in (("plain", ()), ("deveiled", ("--deveil",)), ("tiled", ("--deveil", "--tile", 64))):
        done = run_cli(*command, tmp_path / f"{name}.png", *extra)
        assert done.code == 0, done.err
        with Image.open(tmp_path / f"{name}.png") as image:
            assert (image.size, image.mode) == ((200, 150), "RGB")
            results[name] = np.asarray(image).astype(int)
    assert np.abs(results["deveiled"] - results["plain"]).mean() > 20
    # The prior stretches the contrast.
    assert results["deveiled"].std() > 1.2 * results["plain"].std()

    # One airlight for all tiles, that of the whole photo.
    deveil = Deveil(tiny_network).eval()
    with torch.inference_mode():
        deveil.airlight = deveil.airlight_of(tensor(veiled))
        fixed = levels(deveil(tensor(veiled)).background)
    assert np.abs(results["deveiled"] - fixed).max() <= 1
    difference = np.abs(results["tiled"] - fixed)
    assert difference.mean() < 0.3
    assert difference.max() <= 4


def test_deveil_writes_the_layers_of_the_first_pass(run_cli, weights, veiled, tmp_path):
    Image.fromarray(veiled).save(tmp_path / "photo.png")
    command = ("derain", tmp_path / "photo.png", "--weights", weights, "--precision", "fp32")
    for name, extra in (("plain", ()), ("deveiled", ("--deveil",))):
        assert run_cli(*command, "--layers", "streak,mask", "-o", tmp_path / name, *extra).code == 0
    for layer in ("streak", "mask"):
        plain, deveiled = (np.asarray(Image.open(tmp_path / n / f"photo.{layer}.png")) for n in ("plain", "deveiled"))
        np.testing.assert_array_equal(plain, deveiled)


def test_tiles_with_airlights_of_their_own_would_not_fit(monkeypatch, weights, veiled):
    large = np.concatenate([veiled, veiled // 2, veiled // 3], axis=1)  # wider than a tile with its halos
    whole = load(weights, precision="fp32", tile=0, deveil=True).restore(large).astype(int)
    tiled = load(weights, precision="fp32", tile=192, deveil=True).restore(large).astype(int)
    monkeypatch.setattr(Restorer, "_airlight", lambda *_: None)
    own = load(weights, precision="fp32", tile=192, deveil=True).restore(large).astype(int)
    assert np.abs(tiled - whole).mean() < 0.3
    assert np.abs(own - whole).mean() > 3


def test_the_airlight_of_one_photo_is_not_that_of_the_next(weights, veiled):
    one, other = (load(weights, precision="fp32", tile=64, deveil=True) for _ in range(2))
    small = veiled[90:150, 20:80]
    one.restore(veiled)
    np.testing.assert_array_equal(one.restore(small), other.restore(small))
    assert one.network.airlight is None


def test_the_airlight_of_a_large_photo_needs_no_more_memory_than_a_tile(monkeypatch, tiny_network, veiled):
    seen = []

    class Watching(Network):
        stride = 8

        def forward(self, rainy: Tensor) -> Restoration:
            seen.append(rainy.shape[-2] * rainy.shape[-1])
            return tiny_network(rainy)

    monkeypatch.setattr(restorer, "_TILE", 90)
    monkeypatch.setattr(restorer, "_HALO", 8)
    restored = Restorer(Deveil(Watching()), tile=64).restore(veiled)
    assert max(seen) <= (64 + 2 * 8 + 32) ** 2
    assert seen[0] == 75 * 100  # every second row and column
    monkeypatch.undo()
    exact = Restorer(Deveil(tiny_network), tile=64).restore(veiled)
    assert np.abs(restored.astype(int) - exact).mean() < 5


def test_load_with_deveil(weights, veiled, tmp_path, tiny_network):
    restoring = sstl.load(weights, precision="fp32", deveil=True)
    assert restoring.network.name == "joint --deveil"
    assert restoring.names == ("background", "streak", "mask")
    with torch.inference_mode():
        expected = Deveil(tiny_network)(tensor(veiled)).background
    assert np.abs(restoring.restore(veiled) - levels(expected)).max() <= 1
    grey = restoring.restore(veiled[..., 0])
    assert grey.shape == veiled.shape[:2]
    plain = sstl.load(weights, precision="fp32")
    assert not isinstance(plain.network, Deveil)

    already = create_network("jorder_r_deveil", width=4, recurrences=1, stages=1)
    path = save_weights(tmp_path / "d.safetensors", already)
    network = sstl.load(path, precision="fp32", deveil=True).network
    assert network.name == "jorder_r_deveil"
    assert not isinstance(network.network, Deveil)
