"""What every network is, and the table of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import torch.nn.functional as F
from torch import Tensor, nn

from sstl.errors import SstlError, WeightsError
from sstl.registry import Registry
from sstl.types import Restoration


class Network(nn.Module):
    """A module ``rainy (B, 3, H, W) in [0, 1] -> Restoration`` for any H, W >= 1.

    Attributes:
        name, config: the arguments of ``create_network`` that rebuild it; set there.
        stride: tiles that start at multiples of it see the same sampling grid as the whole image.
        receptive_radius: how many pixels an output pixel can see to each side, or None if unbounded.
        latent: dotted name of the module whose output (B, C, h, w) is the latent; None: see ``sstl.networks.latent``.
        loaded: a fingerprint of the weights that ``from_pretrained`` loaded, and what is known of them.
    """

    name: str
    config: dict[str, Any]
    stride: int = 1
    receptive_radius: int | None = None
    latent: str | None = None
    loaded: tuple[str, dict[str, Any]] | None = None

    def __init__(self) -> None:
        super().__init__()
        self.register_forward_pre_hook(_check_shape)

    def forward(self, rainy: Tensor) -> Restoration:
        """Restore a batch; each family defines it."""
        raise NotImplementedError

    @classmethod
    def from_pretrained(cls, name: str | Path, **options: Any) -> Self:
        """Load a folder, a weights file, shipped weights or ``ORG/NAME``; see ``sstl.networks.hub.from_pretrained``."""
        from sstl.networks.hub import from_pretrained

        network = from_pretrained(name, **options)
        if not isinstance(network, cls):
            raise WeightsError(f"{name}: holds network '{network.name}', which is no {cls.__name__}; load a Network.")
        return network

    def save_pretrained(self, folder: str | Path, **options: Any) -> Path:
        """Write weights, configuration and a card into a folder; see ``sstl.networks.hub.save_pretrained``."""
        from sstl.networks.hub import save_pretrained

        return save_pretrained(self, folder, **options)

    def push_to_hub(self, repo: str, **options: Any) -> str:
        """Upload them to ``ORG/NAME`` and return the address; see ``sstl.networks.hub.push_to_hub``."""
        from sstl.networks.hub import push_to_hub

        return push_to_hub(self, repo, **options)


def _check_shape(network: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    rainy = inputs[0]
    if rainy.ndim != 4 or rainy.size(1) != 3 or 0 in rainy.shape:
        name = getattr(network, "name", type(network).__name__)
        raise SstlError(f"network '{name}': images of shape {tuple(rainy.shape)}; give (batch, 3, height, width).")


NETWORKS: Registry[Callable[..., Network]] = Registry("network")


def create_network(name: str, pretrained: bool | str | Path = False, **config: Any) -> Network:
    """Build a network by name, for example ``create_network("joint", size="tiny")``.

    >>> import sstl
    >>> sstl.create_network("joint", size="tiny").config
    {'size': 'tiny'}

    Args:
        name: see ``list_networks``.
        pretrained: False for fresh weights; True for the shipped ones; or weights by name, file or ``hub:ORG/NAME``.
        config: options of the network; with ``pretrained``, which brings its own, they must be the same.

    Raises:
        SstlError: the name is unknown (the nearest known one is told), or the configuration does not fit.
        WeightsError: there are no such weights, or they are of another network.
    """
    factory = NETWORKS[name]
    if pretrained is not False:
        from sstl.networks.weights import load_pretrained

        return load_pretrained(name, config, pretrained)
    try:
        network = factory(**config)
    except (TypeError, ValueError, IndexError) as error:
        raise SstlError(f"network '{name}': {error}; see 'sstl networks show {name}'.") from None
    network.name, network.config = name, dict(config)
    return network


def list_networks(pattern: str = "*") -> list[str]:
    """Return the names of the networks that match a shell pattern, sorted.

    >>> import sstl
    >>> sstl.list_networks("jorder*")
    ['jorder', 'jorder_e', 'jorder_e_practical', 'jorder_r', 'jorder_r_deveil']
    """
    return NETWORKS.names(pattern)


def undetected(rainy: Tensor, background: Tensor, stages: tuple[Restoration, ...] = ()) -> Restoration:
    """Return the Restoration of a network that restores without detecting: its streak is O - B^, it has no map."""
    return Restoration(background, rainy - background, None, stages)


def check_counts(network: str, **counts: int) -> None:
    """Raise SstlError, naming the argument, unless every count (widths, stages, blocks) is a whole number from 1 up."""
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int):
            raise SstlError(f"{network}: {name} is {value!r}; it must be a whole number.")
        if value < 1:
            raise SstlError(f"{network}: {name} is {value}; it must be at least 1.")


def pad_to_multiple(image: Tensor, multiple: int) -> Tensor:
    """Repeat the last row and column until height and width are multiples of ``multiple``; works from 1x1 up."""
    height, width = image.shape[-2:]
    # Written so that an export, where the sizes are symbols, can tell that the result is a multiple.
    full_height, full_width = (multiple * ((side + multiple - 1) // multiple) for side in (height, width))
    return F.pad(image, (0, full_width - width, 0, full_height - height), mode="replicate")
