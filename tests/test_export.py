"""Exported networks: the same pixels as PyTorch's at any size, and nothing written that is not."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT

from sstl.errors import SstlError, WeightsError
from sstl.networks import create_network, list_weights, load_weights, save_weights
from sstl.restore import Restorer, export
from sstl.restore.export import SIZES, SUFFIXES, TOLERANCE, export_network

EXTRAS = {"onnx": "onnxruntime", "openvino": "openvino", "torch": "torch"}


def need(form: str) -> None:
    for package in ("onnx", "onnxscript", EXTRAS[form]) if form != "torch" else ():
        pytest.importorskip(package, reason=f"not run: {package} is not installed")


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return create_network("joint", size="tiny").eval()


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory, network):
    need("onnx")
    return export_network(network, tmp_path_factory.mktemp("onnx") / "tiny.onnx")


def assert_agrees(made, network) -> None:
    assert made.outputs == ("background", "streak", "mask")
    assert list(made.differences) == [f"{height} x {width}" for height, width in SIZES]
    assert len(SIZES) == 10
    assert made.worst == max(made.differences.values()) <= TOLERANCE == 1e-4
    assert not network.training


def test_onnx_of_a_stated_opset_with_open_sizes(onnx_file, network):
    import onnx

    assert_agrees(onnx_file, network)
    model = onnx.load(onnx_file.path)
    assert onnx_file.opset == 18 == next(o.version for o in model.opset_import if not o.domain)
    onnx.checker.check_model(model)
    names = {
        value.name: [dimension.dim_param or dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    sizes = ["height", "width"]
    images = {key: ["batch", 3, *sizes] for key in ("rainy", "background", "streak")}
    assert names == {**images, "mask": ["batch", 1, *sizes]}
    notes = {entry.key: entry.value for entry in model.metadata_props}
    assert notes == {"network": "joint", "config": json.dumps({"size": "tiny"})}


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 200), (77, 50)])
def test_onnx_gives_the_layers_of_a_restorer_at_sizes_that_were_not_checked(onnx_file, network, height, width):
    import onnxruntime

    rainy = torch.rand(2, 3, height, width)
    session = onnxruntime.InferenceSession(onnx_file.path, providers=["CPUExecutionProvider"])
    given = dict(zip(onnx_file.outputs, session.run(None, {"rainy": rainy.numpy()}), strict=True))
    for name, layer in Restorer(network).layers(rainy).items():
        np.testing.assert_allclose(given[name], layer.numpy(), atol=TOLERANCE)


def test_a_program_of_torch_runs_without_sstl(tmp_path, network, run_process):
    made = export_network(network, tmp_path / "tiny.pt2")
    assert_agrees(made, network)
    assert made.opset is None
    rainy = torch.rand(1, 3, 20, 37)
    torch.save(rainy, tmp_path / "rainy.pt")
    code = (
        "import sys, torch; program = torch.export.load('tiny.pt2').module(); x = torch.load('rainy.pt');"
        "torch.save(program(x)[0].detach(), 'dry.pt'); assert not any(m.split('.')[0] == 'sstl' for m in sys.modules)"
    )
    assert run_process("-c", code).code == 0
    torch.testing.assert_close(torch.load(tmp_path / "dry.pt"), Restorer(network).restore(rainy), atol=1e-4, rtol=0)


def test_openvino(tmp_path, network):
    need("openvino")
    made = export_network(network, tmp_path / "tiny.xml")
    assert_agrees(made, network)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.bin", "tiny.xml"]


@pytest.mark.parametrize("name", list_weights())
@pytest.mark.parametrize("form", SUFFIXES)
def test_shipped_weights_agree(tmp_path, name, form):
    need(form)
    network = load_weights(name).network
    assert_agrees(export_network(network, tmp_path / f"{name}{SUFFIXES[form]}"), network)


def test_a_network_that_does_not_detect_has_two_outputs(tmp_path):
    need("onnx")
    made = export_network(create_network("hdc", width=4, repeats=1), tmp_path / "hdc.onnx")
    assert made.outputs == ("background", "streak")
    assert made.worst <= TOLERANCE


def test_nothing_is_written_if_it_differs(tmp_path, network, monkeypatch):
    monkeypatch.setattr(export, "_run_torch", lambda _: lambda rainy: [np.full_like(rainy, np.nan)] * 3)
    with pytest.raises(WeightsError, match=r"tiny\.pt2: not written: it differs from PyTorch"):
        export_network(network, tmp_path / "tiny.pt2")
    assert not any(tmp_path.iterdir())


def test_a_network_is_as_it_was(tmp_path):
    network = create_network("hdc", width=4, repeats=1).train()
    export_network(network, tmp_path / "hdc.pt2")
    assert network.training


@pytest.mark.parametrize(("name", "form"), [("a.tflite", None), ("a.onnx", "torch"), ("a", "onnx")])
def test_the_suffix_says_what_it_is(tmp_path, network, name, form):
    with pytest.raises(SstlError, match=r"\.onnx \(onnx\), \.pt2 \(torch\), \.xml \(openvino\)"):
        export_network(network, tmp_path / name, form)


def test_a_missing_extra_is_named(tmp_path, network, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(SstlError, match=r"exporting to onnx needs onnxscript; pip install onnx onnxscript onnxruntime"):
        export_network(network, tmp_path / "a.onnx")
    with pytest.raises(SstlError, match=r"needs onnxscript; pip install onnx onnxscript openvino"):
        export_network(network, tmp_path / "a.xml")


def test_the_command_states_opset_and_difference(run_cli, tmp_path, network, monkeypatch):
    need("onnx")
    monkeypatch.chdir(tmp_path)
    save_weights(tmp_path / "mine.safetensors", network)
    done = run_cli("weights", "export", "mine.safetensors", "--format", "onnx", "--json", "made.json", "-v")
    assert done.code == 0, done.err
    assert "wrote mine.onnx: onnx of opset 18, network=joint size=tiny" in done.out
    assert "by at most" in done.out
    assert done.err.count("differs from PyTorch by") == len(SIZES)
    assert json.loads((tmp_path / "made.json").read_text())["opset"] == 18
    again = run_cli("weights", "export", "mine.safetensors", "--format", "onnx")
    assert (again.code, "mine.onnx is there already" in again.err) == (2, True)


def test_the_minimal_script_needs_numpy_and_onnxruntime_alone(tmp_path, onnx_file, network):
    image = np.random.default_rng(0).integers(0, 256, (37, 52, 3), dtype=np.uint8)
    np.save(tmp_path / "rainy.npy", image)
    script = ROOT / "docs" / "run_onnx.py"
    code = (
        "import runpy, sys\n"
        "for name in ('torch', 'sstl', 'PIL', 'onnx'): sys.modules[name] = None\n"
        f"sys.argv = ['run_onnx.py', {str(onnx_file.path)!r}, 'rainy.npy', 'dry.npy']\n"
        f"runpy.run_path({str(script)!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    difference = np.load(tmp_path / "dry.npy").astype(int) - Restorer(network).restore(image)
    assert np.abs(difference).max() <= 1
    assert (difference == 0).mean() > 0.99
