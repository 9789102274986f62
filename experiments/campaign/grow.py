"""A larger `joint` that computes what a smaller one does (Net2Net, Chen et al., ICLR 2016), by channels not yet read.

Where Net2Net copies channels and breaks the tie by noise, ours are new: nothing that the smaller network computes
reads them yet, and blocks that it lacks begin as the identity. Both learn from the first step on.
"""

from __future__ import annotations

import torch
from torch import nn

from sstl.networks.blocks import ResidualBlock
from sstl.networks.joint import ContextBlock, Joint


@torch.no_grad()
def grow(smaller: Joint, larger: Joint) -> Joint:
    """Give ``larger``, as it was created, the smaller one's layers, and return it.

    Both must have the same stages, rates, bottleneck (``contextual``) and heads, and ``larger`` at least as many
    channels and blocks. Changed in place.
    """
    known = dict(smaller.named_modules())
    features = smaller.stem.out_channels
    for name, layer in larger.named_modules():
        if name not in known and isinstance(layer, ResidualBlock):
            _silence(layer.second)
        elif name not in known and isinstance(layer, ContextBlock):
            for path in layer.paths:
                _silence(path[2])  # type: ignore[index, arg-type]
        elif name in known and isinstance(layer, nn.Conv2d):
            # What a head sees beside the features (map, streaks, the subtraction) comes after all features.
            beside = max(known[name].in_channels - features, 0) if name.startswith("head_") else 0
            _embed(known[name], layer, beside)  # type: ignore[arg-type]
    return larger


def _silence(layer: nn.Conv2d) -> None:
    layer.weight.zero_()
    assert layer.bias is not None
    layer.bias.zero_()


def _embed(old: nn.Conv2d, new: nn.Conv2d, beside: int) -> None:
    """The first outputs of ``new`` become those of ``old``: they see its inputs, the last ``beside`` of them last."""
    outputs, features = old.out_channels, old.in_channels - beside
    new.weight[:outputs] = 0
    new.weight[:outputs, :features] = old.weight[:, :features]
    new.weight[:outputs, new.in_channels - beside :] = old.weight[:, features:]
    assert old.bias is not None
    assert new.bias is not None
    new.bias[:outputs] = old.bias
