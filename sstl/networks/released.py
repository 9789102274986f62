"""Plain state dicts: read without running code and renamed from their authors' names to ours; and written."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor, nn

from sstl.errors import WeightsError
from sstl.networks.base import Network, create_network
from sstl.networks.ddn import BRANCHES, DetailNetwork
from sstl.networks.jorder_e import JorderE
from sstl.networks.prenet import Progressive
from sstl.ops.files import write_atomic

Tensors = dict[str, Tensor]
SUFFIXES = (".pth", ".pt", ".npz", ".safetensors")
WRAPPERS = ("state_dict", "model_state_dict", "params", "model")  # under which a training saves its network


def import_weights(path: str | Path, name: str, options: Mapping[str, Any] | None = None) -> Network:
    """Build a network from a state dict that was saved elsewhere, in its authors' names or in ours.

    Known authors' names: PReNet and PRN (csdwren/PReNet), JORDER-E and its practical size (flyywh/JORDER-E), SIRR's
    TensorFlow variables (wwzjer/Semi-supervised-IRR) for ``sirr_released`` and, its supervised branch alone, ``ddn``.

    Args:
        path: ``.pth`` or ``.pt`` (read by torch with ``weights_only``), ``.npz`` (``|`` or ``/`` in the names) or
            ``.safetensors``. Nothing else is opened, and nothing that would run code.
        name: the network.
        options: of the network; released JORDER-E and SIRR weights bring those that they need.

    Raises:
        WeightsError: the file cannot be read, or its tensors are not those of the network.
    """
    path, options = Path(path), dict(options or {})
    tensors = read_tensors(path)
    network = create_network(name, **options)
    try:
        translated = _translate(network, tensors)
    except RuntimeError:  # tensors of known names, but of other shapes
        raise WeightsError(
            f"{path}: not the weights of network '{name}' (shapes that do not fit each other)."
        ) from None
    if translated is not None:
        tensors, needed = translated
        network = create_network(name, **{**needed, **options})
    _check_fit(path, name, network.state_dict(), tensors)
    network.load_state_dict({key: tensors[key].to(t.dtype) for key, t in network.state_dict().items()})
    return network.eval()


def export_weights(path: str | Path, network: Network) -> Path:
    """Write a network's plain state dict, in our names, as ``.pth``, ``.npz`` or ``.safetensors``, atomically."""
    path = Path(path)
    tensors = {key: t.detach().cpu().contiguous() for key, t in network.state_dict().items()}
    if path.suffix == ".safetensors":
        return write_atomic(path, serialize(tensors))
    buffer = io.BytesIO()
    if path.suffix in (".pth", ".pt"):
        torch.save(tensors, buffer)
    elif path.suffix == ".npz":
        np.savez(buffer, **{key: t.numpy() for key, t in tensors.items()})
    else:
        raise WeightsError(f"{path}: unknown kind of file; give a name that ends in {', '.join(SUFFIXES)}.")
    return write_atomic(path, buffer.getvalue())


def read_tensors(path: Path) -> Tensors:
    """Return the named tensors of a file; WeightsError if it is of another kind, damaged, or holds anything else."""
    if path.suffix not in SUFFIXES:
        raise WeightsError(f"{path}: cannot be imported; give a file that ends in {', '.join(SUFFIXES)}.")
    if not path.is_file():
        raise WeightsError(f"{path}: no such file; check the path.")
    try:
        found = _READERS[path.suffix](path)
    except Exception as error:  # a damaged file makes the readers raise anything
        reason = " ".join(str(error).split())[:120]
        raise WeightsError(f"{path}: damaged, or more than tensors, which sstl does not open ({reason}).") from None
    for wrapper in WRAPPERS:
        if isinstance(found.get(wrapper), Mapping):
            found = found[wrapper]
    tensors = {str(key).removeprefix("module."): value for key, value in found.items()}
    if not tensors or not all(_is_plain(value) for value in tensors.values()):
        raise WeightsError(f"{path}: holds something other than named tensors; give a state dict.")
    return tensors


def _is_plain(value: Any) -> bool:
    """Whether it is a tensor that a network may have: dense, real, and with its numbers there."""
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.device.type != "cpu":
        return False
    return not (value.is_complex() or value.is_quantized)


def _read_torch(path: Path) -> Mapping[str, Any]:
    found = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(found, Mapping):
        raise ValueError(f"it is a {type(found).__name__}")
    return found


def _read_npz(path: Path) -> Mapping[str, Any]:
    if not zipfile.is_zipfile(path):
        raise ValueError("it is no archive")
    # Opened here, as numpy leaves a damaged file open.
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return {key.replace("/", "|"): torch.from_numpy(arrays[key]) for key in arrays.files}


def _read_safetensors(path: Path) -> Mapping[str, Any]:
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise ValueError(str(error)) from None


_READERS: dict[str, Callable[[Path], Mapping[str, Any]]] = {
    ".pth": _read_torch,
    ".pt": _read_torch,
    ".npz": _read_npz,
    ".safetensors": _read_safetensors,
}


def _check_fit(path: Path, name: str, expected: Mapping[str, Tensor], found: Tensors) -> None:
    missing, surplus = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    if missing or surplus:
        what = f"'{missing[0]}' is missing" if missing else f"'{surplus[0]}' is unknown"
        raise WeightsError(f"{path}: not the weights of network '{name}' with these options ({what}).")
    for key, tensor in expected.items():
        if tensor.shape != found[key].shape:
            shapes = f"{tuple(found[key].shape)}, not {tuple(tensor.shape)}"
            raise WeightsError(f"{path}: not the weights of network '{name}' with these options ('{key}' is {shapes}).")


def _translate(network: nn.Module, tensors: Tensors) -> tuple[Tensors, dict[str, Any]] | None:
    """Return the tensors in our names and the options that they need; None if they are in no known author's names."""
    if isinstance(network, Progressive) and "conv0.0.weight" in tensors:
        return _from_prenet(network, tensors), {}
    if isinstance(network, JorderE) and "jorder1.encoder.weight" in tensors:
        return {_from_jorder_e(key): value for key, value in tensors.items()}, {"peak": 255.0}
    if isinstance(network, DetailNetwork) and "conv_1|weights_1" in tensors:
        return _from_sirr(network, tensors), {} if network.branches > 1 else {"statistics": "batch"}
    return None


def _from_prenet(network: Progressive, tensors: Tensors) -> Tensors:
    names = {"conv0.0": "stem", "conv.0": "head"}
    ours = {}
    for key, value in tensors.items():
        layer, _, kind = key.rpartition(".")
        if block := re.fullmatch(r"res_conv(\d+)\.(0|2)", layer):
            layer = f"blocks.{int(block[1]) - 1}.{'first' if block[2] == '0' else 'second'}"
        ours[f"{names.get(layer, layer)}.{kind}"] = value
    if network.memory is not None:  # one convolution for the four gates
        for kind in ("weight", "bias"):
            gates = [ours.pop(f"conv_{gate}.0.{kind}", None) for gate in "ifgo"]
            if all(gate is not None for gate in gates):
                ours[f"memory.gates.{kind}"] = torch.cat([gate for gate in gates if gate is not None])
    return ours


def _from_jorder_e(key: str) -> str:
    """``jorder1.updater.res2.conv3.weight`` -> ``recurrences.0.blocks.1.paths.1.0.weight``, and so on."""
    rules: tuple[tuple[str, Callable[[re.Match[str]], str]], ...] = (
        (r"jorder(\d)\.", lambda m: f"recurrences.{int(m[1]) - 1}."),
        (r"updater\.res(\d+)\.", lambda m: f"blocks.{int(m[1]) - 1}."),
        (r"\.conv(\d)\.", lambda m: f".paths.{(int(m[1]) - 1) // 2}.{2 * ((int(m[1]) - 1) % 2)}."),
        (r"(mask|level)_estimator(\d)", lambda m: f"{m[1]}.{int(m[2]) - 1}"),
        (r"(mask|level)_F_w_encoder(\d)", lambda m: f"by_{m[1]}.factor.{2 * (int(m[2]) - 1)}"),
        (r"(mask|level)_F_b_encoder(\d)", lambda m: f"by_{m[1]}.offset.{2 * (int(m[2]) - 1)}"),
    )
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key, count=1)
    return key


def _from_sirr(network: DetailNetwork, tensors: Tensors) -> Tensors:
    kinds = {"biases": "biases.{}", "scale": "norms.{}.weight", "beta": "norms.{}.bias"}
    ours = {}
    for key, value in tensors.items():
        match = re.fullmatch(r"conv_(\d+)(_1)?\|(weights|biases|scale|beta)_\1", key)
        if match is None:
            ours[key] = value  # told as unknown
            continue
        layer, branch = f"layers.{int(match[1]) - 1}", BRANCHES.index("real" if match[2] else "supervised")
        if match[3] == "weights":
            ours[f"{layer}.kernel"] = value.permute(3, 2, 0, 1).contiguous()  # from (H, W, in, out)
        elif branch < network.branches:
            ours[f"{layer}.{kinds[match[3]].format(branch)}"] = value
    return ours
