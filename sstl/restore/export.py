"""Networks as files that run without sstl: ONNX, torch's exported programs, OpenVINO; checked before they are kept."""

from __future__ import annotations

import copy
import importlib
import io
import json
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

import sstl
from sstl.errors import SstlError, WeightsError
from sstl.networks import Network
from sstl.networks.routed import Routed
from sstl.ops.files import write_atomic

Format = Literal["onnx", "torch", "openvino"]
Arrays = list[np.ndarray]
Run = Callable[[np.ndarray], Sequence[np.ndarray]]

SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "torch": ".pt2", "openvino": ".xml"}
OPSET = 18
INPUT, AXES = "rainy", ("batch", "channel", "height", "width")
TOLERANCE = 1e-4
# Multiples of every stride and none, smaller and larger than what is traced, upright, wide and square.
SIZES = ((12, 9), (9, 13), (16, 24), (31, 33), (40, 48), (57, 64), (64, 91), (96, 72), (101, 67), (128, 128))
_TRACED = (67, 101)  # no multiple of a stride: else the tracer takes cropping after padding for nothing


@dataclass(frozen=True)
class Exported:
    """A written file.

    Attributes:
        path: the file; of OpenVINO the .xml, whose .bin lies beside it.
        format: onnx, torch or openvino.
        opset: of ONNX, which is also what OpenVINO's file is made of; None for torch.
        outputs: their names, in order, from background, streak and mask.
        differences: "height x width" -> largest absolute difference from PyTorch, over all outputs.
    """

    path: Path
    format: Format
    opset: int | None
    outputs: tuple[str, ...]
    differences: dict[str, float]

    @property
    def worst(self) -> float:
        """The largest difference over all sizes."""
        return max(self.differences.values())


class Layers(nn.Module):
    """What is exported: (B, 3, H, W) in [0, 1] -> the layers that ``Restorer.layers`` gives, clipped to [0, 1]."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, rainy: Tensor) -> tuple[Tensor, ...]:
        """Return background and streak (B, 3, H, W) and, if the network detects, the mask (B, 1, H, W)."""
        found = self.network(rainy)
        layers = (found.background.clamp(0, 1), found.streak.clamp(0, 1))
        return layers if found.mask is None else (*layers, found.mask)


def export_network(network: Network, path: str | Path, form: Format | None = None) -> Exported:
    """Write a network as a file that runs without sstl, for a batch of any number and size of images.

    The file takes float32 (B, 3, H, W) in [0, 1] and gives the layers of ``Restorer.layers``. It is compared with
    PyTorch on images of ten sizes (``SIZES``) and written only if no pixel differs by more than 1e-4.

    Args:
        network: any; it is not changed.
        path: ends in .onnx, .pt2 (``torch.export.load`` reads it) or .xml (OpenVINO).
        form: the format; by default what the suffix says.

    Raises:
        SstlError: the suffix is another one, a package of the extra is missing, or the network cannot be exported.
        WeightsError: the result differs from PyTorch's.
    """
    path = Path(path)
    form = form or next((f for f, suffix in SUFFIXES.items() if suffix == path.suffix), None)
    if form is None or path.suffix != SUFFIXES[form]:
        known = ", ".join(f"{suffix} ({name})" for name, suffix in SUFFIXES.items())
        raise SstlError(f"{path}: give a name that ends in what the format is: {known}.")
    needs(form)
    if isinstance(network, Routed):
        raise SstlError(
            "a routed network chooses by the look of each image, which such a file cannot; export one of its two: "
            "kept.safetensors in the folder of the adaptation, or the weights that it started from."
        )
    layers = Layers(copy.deepcopy(network)).eval().to("cpu", torch.float32)
    with torch.inference_mode():
        outputs = ("background", "streak", "mask")[: len(layers(torch.zeros(1, 3, 8, 8)))]
    program = _trace(layers, network.name)
    if form == "torch":
        data, opset = _saved(program), None
        differences = _compare(path, _run_torch(data), layers)
        write_atomic(path, data)
    else:
        data, opset = _onnx(program, network, outputs), OPSET
        if form == "onnx":
            differences = _compare(path, _run_onnx(data), layers)
            write_atomic(path, data)
        else:
            differences = _write_openvino(path, data, layers)
    return Exported(path, form, opset, outputs, differences)


def needs(form: Format) -> None:
    """Raise SstlError, naming what to install, unless the packages that the format needs are installed."""
    packages = {
        "torch": (),
        "onnx": ("onnx", "onnxscript", "onnxruntime"),
        "openvino": ("onnx", "onnxscript", "openvino"),
    }
    for package in packages[form]:
        try:
            importlib.import_module(package)
        except ImportError:
            remedy = f"pip install {' '.join(packages[form])}"
            raise SstlError(f"exporting to {form} needs {package}; {remedy}") from None


def _trace(layers: Layers, name: str) -> torch.export.ExportedProgram:
    """Return the network as a program whose batch, height and width are open."""
    free = torch.export.Dim.DYNAMIC
    try:
        with _quiet():
            program = torch.export.export(
                layers,
                (torch.rand(2, 3, *_TRACED),),
                dynamic_shapes=({0: free, 2: free, 3: free},),
                strict=False,
                prefer_deferred_runtime_asserts_over_guards=True,
            )
    except Exception as error:  # the tracer raises anything
        reason = " ".join(str(error).split())[:200]
        raise SstlError(f"network '{name}' cannot be exported with open sizes ({reason}).") from None
    # What the tracer could not prove about symbols it asserts at run time, and refuses sizes that work, such as 1 x 1;
    # the comparison on ten sizes takes the assertions' place.
    for node in list(program.graph.nodes):
        if node.target is torch.ops.aten._assert_scalar.default:
            program.graph.erase_node(node)
    program.graph.eliminate_dead_code()
    return program


def _saved(program: torch.export.ExportedProgram) -> bytes:
    buffer = io.BytesIO()
    with _quiet():
        torch.export.save(program, buffer)
    return buffer.getvalue()


def _onnx(program: torch.export.ExportedProgram, network: Network, outputs: Sequence[str]) -> bytes:
    names: dict[str, Any] = {"input_names": [INPUT], "output_names": list(outputs)}
    try:
        with _quiet():
            made = torch.onnx.export(program, dynamo=True, opset_version=OPSET, verbose=False, **names)
    except Exception as error:  # the converter raises anything
        reason = " ".join(str(error.__cause__ or error).split())[:200]
        raise SstlError(f"network '{network.name}' cannot be exported to ONNX ({reason}); take .pt2.") from None
    assert made is not None
    model = made.model_proto
    del model.graph.value_info[:]  # they name the sizes by the tracer's symbols
    for value in (*model.graph.input, *model.graph.output):
        for axis, dimension in zip(AXES, value.type.tensor_type.shape.dim, strict=True):
            if axis != "channel":
                dimension.dim_param = axis
    model.producer_name, model.producer_version = "sstl", sstl.__version__
    for key, text in {"network": network.name, "config": json.dumps(network.config)}.items():
        model.metadata_props.add(key=key, value=text)
    return bytes(model.SerializeToString())


def _run_torch(data: bytes) -> Run:
    module = torch.export.load(io.BytesIO(data)).module()

    def run(rainy: np.ndarray) -> Arrays:
        with torch.inference_mode():
            return [layer.numpy() for layer in module(torch.from_numpy(rainy))]

    return run


def _run_onnx(data: bytes) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return lambda rainy: session.run(None, {INPUT: rainy})


def _run_openvino(path: Path) -> Run:
    import openvino

    # The processor may compute in bfloat16 otherwise.
    model = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda rainy: [np.array(layer) for layer in model(rainy).values()]


def _write_openvino(path: Path, onnx: bytes, layers: Layers) -> dict[str, float]:
    """Write the .xml and its .bin by way of a folder beside them, where they are checked."""
    import openvino

    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name[:40]}.") as folder:
        made = Path(folder, path.name)
        # Not openvino.convert_model, which reports each use to its makers.
        openvino.save_model(openvino.Core().read_model(io.BytesIO(onnx)), made, compress_to_fp16=False)
        differences = _compare(path, _run_openvino(made), layers)
        weights = made.with_suffix(".bin")
        write_atomic(path.with_suffix(".bin"), weights.read_bytes())
        write_atomic(path, made.read_bytes())
    return differences


def _compare(path: Path, run: Run, layers: Layers) -> dict[str, float]:
    """Return the largest difference from PyTorch for each size; WeightsError if it is above the tolerance."""
    draw, found = torch.Generator().manual_seed(0), {}
    for number, (height, width) in enumerate(SIZES):
        rainy = torch.rand(1 + number % 2, 3, height, width, generator=draw)
        with torch.inference_mode():
            expected = layers(rainy)
        given = run(rainy.numpy())
        pairs = zip(given, expected, strict=True)
        found[f"{height} x {width}"] = max(float(np.abs(mine - theirs.numpy()).max()) for mine, theirs in pairs)
    size, worst = max(found.items(), key=lambda item: item[1])
    if not worst <= TOLERANCE:  # also if it is NaN
        raise WeightsError(
            f"{path}: not written: it differs from PyTorch by {worst:.1e} at {size} (at most {TOLERANCE})."
        )
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch's exporter from printing what it deprecates in itself."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
