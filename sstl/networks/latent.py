"""The latent of any network, as one vector per image; the only place that decides where a network keeps it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from sstl.errors import SstlError
from sstl.networks.base import Network


@contextmanager
def watch_latent(network: Network) -> Iterator[Callable[[], Tensor]]:
    """Within the block, the yielded function returns the latent vectors of the network's last forward.

    The latent is the output of the module that the network names in ``Network.latent``; where none is named, the input
    of the convolution that ran last, which is what the image is made of. Of a recurrent network it is that of the last
    recurrence, of a network around another that of the inner one if it names its own. The vector is each channel's mean
    and standard deviation over the pixels: as long for every image size, and blind to where in the picture things are.

    Yields:
        A function that returns (B, 2 * channels), float32, with its graph.

    Raises:
        SstlError: (by that function) the network has no convolution and names no module.
    """
    features: list[Tensor] = []

    def keep(value: Tensor) -> None:
        features[:] = [value]

    named = _named(network)
    if named is None:
        convolutions = (module for module in network.modules() if isinstance(module, nn.Conv2d))
        handles = [conv.register_forward_pre_hook(lambda _, inputs: keep(inputs[0])) for conv in convolutions]
    else:
        handles = [named.register_forward_hook(lambda _, __, output: keep(output))]

    def latent() -> Tensor:
        if not features:
            name = getattr(network, "name", type(network).__name__)
            raise SstlError(f"network '{name}' has no latent; name the module that gives it in its 'latent'.")
        return _pooled(features[0])

    try:
        yield latent
    finally:
        for handle in handles:
            handle.remove()


def _named(network: Network) -> nn.Module | None:
    for module in network.modules():
        if isinstance(module, Network) and module.latent is not None:
            return module.get_submodule(module.latent)
    return None


def _pooled(features: Tensor) -> Tensor:
    variance, mean = torch.var_mean(features.float(), dim=(2, 3), correction=0)
    return torch.cat([mean, (variance + 1e-8).sqrt()], dim=1)  # the root has no slope at 0
