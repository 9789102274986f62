"""AdaBN: only the channels' statistics are adapted to photos, or, without batch normalisation, made to match."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sstl.errors import SstlError
from sstl.methods.base import METHODS, train_channels_only
from sstl.methods.supervised import Supervised
from sstl.networks import Network
from sstl.ops.processes import averaged
from sstl.types import PairedBatch, UnpairedBatch


@METHODS.register("adabn")
class AdaBN(Supervised):
    """Adapt the statistics of the channels to photos, and nothing else (AdaBN, Li et al., 2016); a baseline.

    With batch normalisation (ddn, idcgan): the running means and variances become those of the photos, averaged over
    the run; nothing is learned. The supervised branch is against its nature and off unless ``supervised`` asks for it:
    labelled batches are then normalised by their own statistics, which are not kept. Weight decay must be 0.

    Without (all others but sirr_released): the nearest to it, trained. The mean and deviation of every convolution's
    output channels on photos are drawn to those on the labelled batch, through parameters of one number per channel
    alone. Cheapest wrong solution of this term, ``moments``: channels that are silent on all images; the supervised
    branch, which is on, forbids it. Where the photos have more rain than the pairs, or other scenes, both variants take
    that for a shift of the domain and hide it from the network.

    Args:
        network: any network that does not normalise every image by itself.
        supervised: weight of the supervised branch; None is 0 with batch normalisation and 1 without.
        moments: weight of the matching.
        options: of ``Supervised``.

    Raises:
        SstlError: the network normalises every image by its own statistics (sirr_released, ddn with statistics: batch).
    """

    needs_unpaired = True

    def __init__(
        self, network: Network, supervised: float | None = None, moments: float = 0.01, **options: Any
    ) -> None:
        super().__init__(network, **options)
        self.norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
        if self.norms and not all(norm.track_running_stats for norm in self.norms):
            name = getattr(network, "name", type(network).__name__)
            raise SstlError(
                f"method 'adabn' has nothing to adapt: network '{name}' normalises every image by its own statistics; "
                "use ddn with statistics: running, or another method."
            )
        for norm in self.norms:
            norm.momentum = None  # a mean over all batches, from here on
            assert norm.num_batches_tracked is not None
            norm.num_batches_tracked.zero_()
        self.weight = supervised if supervised is not None else 0.0 if self.norms else 1.0
        self.moments = moments
        train_channels_only(network)

    def forward(self, paired: PairedBatch, unpaired: UnpairedBatch | None = None) -> dict[str, Tensor]:
        """Both branches; batch normalisation takes its statistics from the photos on the way."""
        if unpaired is None:
            raise SstlError("method 'adabn' needs unlabelled photos; give data.unpaired.")
        if self.norms:
            with _unkept(self.norms):
                parts = self.supervised(paired)
            with torch.no_grad():
                self.network(unpaired.rainy)
            return {**parts, "loss": self.weight * parts["loss"]}
        with _watched(self.network) as pairs:
            parts = self.supervised(paired)
        with _watched(self.network) as photos:
            self.network(unpaired.rainy)
        moments = torch.stack([_mismatch(*both) for both in zip(photos, pairs, strict=True)]).mean()
        return {**parts, "moments": moments, "loss": self.weight * parts["loss"] + self.moments * moments}


class Moments(NamedTuple):
    """Mean and deviation of each channel over a batch, both (C,)."""

    mean: Tensor
    deviation: Tensor


@contextmanager
def _watched(network: nn.Module) -> Iterator[list[Moments]]:
    """Collect the moments of what each convolution gives, in the order in which they run."""
    collected: list[Moments] = []

    def collect(_: nn.Module, __: Any, output: Tensor) -> None:
        variance, own = torch.var_mean(output.float(), dim=(0, 2, 3), correction=0)
        mean = averaged(own)
        variance = averaged(variance + (own - mean.detach()).square())
        collected.append(Moments(mean, (variance + 1e-8).sqrt()))

    convolutions = (m for m in network.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d))
    handles = [convolution.register_forward_hook(collect) for convolution in convolutions]
    try:
        yield collected
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _unkept(norms: Sequence[nn.BatchNorm2d]) -> Iterator[None]:
    """Within the block, training batches are normalised by their statistics, which leave no trace."""
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


def _mismatch(photos: Moments, pairs: Moments) -> Tensor:
    """Mean over channels of the squared shift, in deviations, and of the squared log ratio of the deviations."""
    mean, deviation = pairs.mean.detach(), pairs.deviation.detach()
    # A channel that is all but silent on the pairs must not outweigh all others.
    floor = 0.1 * deviation.mean()
    shift = (photos.mean - mean) / (deviation + floor)
    ratio = ((photos.deviation + floor) / (deviation + floor)).log()
    return (shift.square() + ratio.square()).mean()
