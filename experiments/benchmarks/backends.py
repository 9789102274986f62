"""Other ways to run the shipped `joint`: compiled, in ONNX Runtime and in OpenVINO, in 32, 16 and 8 bits.

SSTL_DATA=/path/to/data python experiments/benchmarks/backends.py [WEIGHTS]       (needs the extra `export`)

All take turns on one image of 481x321, batch 1; what they lose is measured on development pairs against PyTorch in
float32. The 8 bits are per channel, their ranges from training pairs, in the format that both runtimes read. Kept is
what is within 0.1 dB and 1.3 times as fast as what is there. Writes backends-bfloat16.json, or, where the
processor has no such arithmetic, backends-float32.json.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnxruntime
import openvino
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from sstl.data import PairSource, SourceConfig, open_pairs
from sstl.metrics import matlab_luma, psnr
from sstl.networks import load_weights
from sstl.networks.weights import DEFAULT
from sstl.ops.files import write_atomic
from sstl.ops.precision import resolve_precision
from sstl.report.environment import environment
from sstl.restore.export import export_network

HEIGHT, WIDTH, REPEATS, WARM = 321, 481, 30, 5
IMAGES, CALIBRATED_ON = 8, 16  # development pairs a set; training pairs for the ranges of 8 bits
LOSS, FASTER = 0.1, 1.3  # dB and times: what another way must keep and gain
SETS = ("rain100l", "rain100h")

Run = Callable[[np.ndarray], np.ndarray]
"""(1, 3, H, W) in [0, 1] -> the background."""


class Rainy(CalibrationDataReader):
    """Training images, one at a time."""

    def __init__(self, pairs: PairSource) -> None:
        chosen = range(0, len(pairs), max(1, len(pairs) // CALIBRATED_ON))
        self.images: Iterator[np.ndarray] = iter([as_input(pairs.load(i)[0]) for i in chosen][:CALIBRATED_ON])

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the next image by the name of the input."""
        image = next(self.images, None)
        return None if image is None else {"rainy": image}


def as_input(image: np.ndarray) -> np.ndarray:
    """Return an image (H, W, 3) in 8 bits as what the network takes."""
    return np.ascontiguousarray(image.transpose(2, 0, 1)[None].astype(np.float32) / 255)


def torch_run(network: torch.nn.Module, dtype: torch.dtype) -> Run:
    """Run PyTorch, as ``sstl.restore`` does."""

    def run(image: np.ndarray) -> np.ndarray:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            rainy = torch.from_numpy(image).contiguous(memory_format=torch.channels_last)
            background: np.ndarray = network(rainy).background.float().clamp(0, 1).numpy()
        return background

    return run


def onnxruntime_run(path: Path) -> Run:
    """Run ONNX Runtime with as many threads as there are processors."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda image: np.asarray(session.run(["background"], {"rainy": image})[0])


def openvino_run(path: Path, precision: str) -> Run:
    """Run OpenVINO, tuned to one image at a time."""
    hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
    compiled = openvino.Core().compile_model(str(path), "CPU", hints)
    return lambda image: np.asarray(compiled([image])[0])


def ways(weights: str, folder: Path) -> dict[str, Run]:
    """Return all ways of running, the first two being ours."""
    network = load_weights(weights).network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    plain, prepared, whole = (folder / name for name in ("plain.onnx", "prepared.onnx", "int8.onnx"))
    export_network(network, plain)
    quant_pre_process(str(plain), str(prepared), skip_symbolic_shape=True)
    training = open_pairs(SourceConfig("manifest.csv", split="train", set="rain100l"))
    quantize_static(
        str(prepared), str(whole), Rainy(training), QuantFormat.QDQ, op_types_to_quantize=["Conv"], per_channel=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
    )  # fmt: skip
    compiled = torch.compile(network)
    found = {"torch, float32": torch_run(network, torch.float32)}
    if resolve_precision("auto", torch.device("cpu")) == torch.bfloat16:
        found |= {
            "torch, bfloat16": torch_run(network, torch.bfloat16),
            "torch.compile, bfloat16": torch_run(compiled, torch.bfloat16),
            "openvino, bfloat16": openvino_run(plain, "bf16"),
        }
    return found | {
        "torch.compile, float32": torch_run(compiled, torch.float32),
        "onnxruntime, float32": onnxruntime_run(plain),
        "onnxruntime, int8": onnxruntime_run(whole),
        "openvino, float32": openvino_run(plain, "f32"),
        "openvino, int8": openvino_run(whole, "f32"),
    }


def timed(runs: dict[str, Run]) -> dict[str, float]:
    """Return the median seconds of each; they take turns."""
    image = np.random.default_rng(0).random((1, 3, HEIGHT, WIDTH), dtype=np.float32)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(WARM + REPEATS):
        for name, run in runs.items():
            started = time.perf_counter()
            run(image)
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(times[WARM:]) for name, times in seconds.items()}


def scored(runs: dict[str, Run]) -> dict[str, dict[str, float]]:
    """Return the mean luma PSNR of each on the first development pairs of each set, from 8-bit outputs."""
    found: dict[str, dict[str, float]] = {name: {} for name in runs}
    for group in SETS:
        pairs = open_pairs(SourceConfig("manifest.csv", split="dev", set=group))
        loaded = [pairs.load(i) for i in range(min(IMAGES, len(pairs)))]
        for name, run in runs.items():
            restored = [
                np.round(255 * run(as_input(rainy))[0].transpose(1, 2, 0)).astype(np.uint8) for rainy, _ in loaded
            ]
            scores = [
                psnr(matlab_luma(one), matlab_luma(clean)) for one, (_, clean) in zip(restored, loaded, strict=True)
            ]
            found[name][group] = float(np.mean(scores))
    return found


def main(weights: str = DEFAULT) -> None:
    """Measure and write."""
    with TemporaryDirectory() as folder:
        runs = ways(weights, Path(folder))
        seconds, scores = timed(runs), scored(runs)
    ours = min((name for name in runs if name.startswith("torch,")), key=seconds.__getitem__)
    rows: dict[str, dict[str, Any]] = {}
    for name in runs:
        lost = max(scores["torch, float32"][group] - scores[name][group] for group in SETS)
        faster = seconds[ours] / seconds[name]
        rows[name] = {
            "milliseconds": round(1000 * seconds[name], 1), "faster_than_ours": round(faster, 2),
            "lost_db": round(lost, 3), "worth_keeping": name != ours and lost <= LOSS and faster >= FASTER,
        }  # fmt: skip
    result = {
        "command": "python experiments/benchmarks/backends.py", "weights": weights, "ours": ours, "rows": rows,
        "versions": {"onnxruntime": onnxruntime.__version__, "openvino": openvino.__version__},
        "environment": environment(),
    }  # fmt: skip
    arithmetic = str(resolve_precision("auto", torch.device("cpu"))).removeprefix("torch.")
    write_atomic(Path(__file__).with_name(f"backends-{arithmetic}.json"), json.dumps(result, indent=1) + "\n")
    print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main(*sys.argv[1:])
