"""Weights files: safetensors with the network's name and configuration inside; shipped ones and the hub's by name."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize

from sstl.errors import SstlError, WeightsError, did_you_mean
from sstl.networks.base import Network, create_network
from sstl.ops.files import write_atomic

FORMAT = "sstl-weights-1"
SHIPPED = Path(__file__).resolve().parent.parent / "weights"
DEFAULT = "joint-small"
_MOST = 4096
PRETRAINED = {"joint": DEFAULT}  # network -> the shipped weights for general use
HUB, HUB_FILE = "hub:", "model.safetensors"


@dataclass(frozen=True)
class Weights:
    """A loaded network with where it came from.

    Attributes:
        network: in evaluation mode, float32.
        name: the shipped name, or the file's stem.
        path: the file.
        info: what was saved with it: training data, steps, figures.
    """

    network: Network
    name: str
    path: Path
    info: dict[str, Any]


def list_weights() -> list[str]:
    """Return the names of the weights inside the package, sorted."""
    return sorted(path.stem for path in SHIPPED.glob("*.safetensors"))


def save_weights(
    path: str | Path, network: Network, info: dict[str, Any] | None = None, dtype: torch.dtype = torch.float32
) -> Path:
    """Write a network's parameters and buffers, atomically; ``dtype`` float16 halves the file."""
    tensors = {
        name: (t.to(dtype) if t.is_floating_point() else t).detach().cpu().contiguous()
        for name, t in network.state_dict().items()
    }
    metadata = {
        "format": FORMAT,
        "network": network.name,
        "config": json.dumps(network.config),
        "info": json.dumps(info or {}),
    }
    return write_atomic(Path(path), serialize(tensors, metadata))


def read_info(name_or_path: str | Path) -> dict[str, Any]:
    """Return ``{"name", "path", "network", "config", "info"}`` of a weights file without building the network."""
    path = _resolve(name_or_path)
    return {"name": path.stem, "path": str(path), **_read(path)[0]}


def load_weights(name_or_path: str | Path = DEFAULT) -> Weights:
    """Build a network from shipped weights (by name), a weights file, a folder with one, or ``hub:ORG/NAME``.

    Raises:
        WeightsError: there is no such name or file, it is not an sstl weights file (a pickle is never opened), or its
            tensors do not fit the network that it names.
    """
    path = _resolve(name_or_path)
    notes, tensors = _read(path)
    try:
        with torch.device("meta"):  # takes no memory: how large the network is, is only the file's word so far
            expected = {
                name: t.shape for name, t in create_network(notes["network"], **notes["config"]).state_dict().items()
            }
    except (SstlError, TypeError, ValueError, RuntimeError) as error:
        raise WeightsError(f"{path}: its network cannot be built: {' '.join(str(error).split())}") from None
    if expected != {name: t.shape for name, t in tensors.items()}:
        raise WeightsError(f"{path}: its tensors are not those of network '{notes['network']}'; save it again.")
    with torch.random.fork_rng([]):  # first weights are drawn, and replaced: whoever loads must draw as who does not
        network = create_network(notes["network"], **notes["config"])
    network.load_state_dict({name: t.float() if t.is_floating_point() else t for name, t in tensors.items()})
    return Weights(network.eval(), path.stem, path, notes["info"])


def load_pretrained(network: str, config: dict[str, Any], pretrained: bool | str | Path = True) -> Network:
    """Return a network with weights; for ``True`` the shipped ones, else those of that name, file or ``hub:ORG/NAME``.

    Raises:
        WeightsError: there are none, or they are of another network or of another configuration than ``config`` asks.
    """
    if isinstance(pretrained, bool) and network not in PRETRAINED:
        known = ", ".join(sorted(PRETRAINED))
        raise WeightsError(
            f"no weights of network '{network}' are shipped (only of {known}); train it, or import some."
        )
    found = load_weights(PRETRAINED[network] if isinstance(pretrained, bool) else pretrained)
    own = found.network
    if own.name != network or {**own.config, **config} != own.config:
        raise WeightsError(
            f"{found.path}: holds {own.name} {own.config}, not {network} {config}; leave the options out, or train it."
        )
    return own


def _resolve(name_or_path: str | Path) -> Path:
    if str(name_or_path).startswith(HUB):
        # Imported where it is needed: what is on this disk shall not wait for the hub's library.
        from sstl.networks.hub import download

        return download(str(name_or_path)) / HUB_FILE
    shipped = SHIPPED / f"{name_or_path}.safetensors"
    if str(name_or_path) in list_weights():
        return shipped
    path = Path(name_or_path)
    for name in ("weights.safetensors", HUB_FILE):
        if (path / name).is_file():
            path = path / name
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights file or name.{did_you_mean(str(name_or_path), list_weights())}")
    return path


def _check_counts(path: Path, value: Any) -> None:
    """Refuse numbers of widths, blocks or stages that would take for ever to count to."""
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check_counts(path, part)
    if isinstance(value, int) and value > _MOST:
        raise WeightsError(f"{path}: its network cannot be built: it has {value:.3g} of something, more than {_MOST}.")


def _read(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT or {"network", "config", "info"} - set(metadata):
                raise WeightsError(f"{path}: a safetensors file, but not sstl weights; give one that sstl has written.")
            notes = {"network": metadata["network"], **{key: json.loads(metadata[key]) for key in ("config", "info")}}
            if not (isinstance(notes["config"], dict) and isinstance(notes["info"], dict)):
                raise ValueError("config and info are mappings")
            if "pretrained" in notes["config"]:  # a file brings its own tensors, and shall make nobody fetch others
                raise ValueError("pretrained is no option of a network")
            _check_counts(path, notes["config"])
            return notes, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError, ValueError):
        raise WeightsError(f"{path}: not a safetensors file, or a damaged one; sstl opens no pickles.") from None
