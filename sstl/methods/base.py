"""What every training method is: the one module that Accelerate wraps, with both branches in one forward."""

from __future__ import annotations

from dataclasses import make_dataclass
from typing import Any, get_type_hints

import torch
from torch import Tensor, nn

from sstl.config import from_tree, to_tree
from sstl.errors import SstlError
from sstl.networks import Network
from sstl.registry import Registry
from sstl.types import PairedBatch, Restoration, UnpairedBatch


class Noting(nn.Module):
    """A module that notes in ``forward`` what it will learn about its own state after the optimiser's step.

    Attributes:
        noted: one entry for each part of a step (``accumulation``); who learns from them empties the list, and so does
            the training loop before each step, because a step that is dropped teaches nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.noted: list[Any] = []


class Method(Noting):
    """Networks x losses x the method's own state.

    Attributes:
        network: what is trained and shipped.
        needs_unpaired: whether ``forward`` needs unlabelled images.

    ``forward`` must change no state, so that a step whose loss is not finite can be dropped without trace; what is to
    be learned about the state (a mixture's statistics, a teacher) it puts into ``noted``, and ``after_step`` applies
    it. State lives in buffers, so that ``state_dict`` is the checkpoint.
    """

    needs_unpaired = False

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, paired: PairedBatch, unpaired: UnpairedBatch | None = None) -> dict[str, Tensor]:
        """Return ``{"loss": total, part: value, ...}``; ``loss`` carries the gradient, the parts are for the log."""
        raise NotImplementedError

    def begin_step(self) -> None:
        """Forget what was noted in a step that was dropped."""
        for module in self.modules():
            if isinstance(module, Noting):
                module.noted.clear()

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Return the trained parameters in groups, each of which gets an optimiser of its own; by default one."""
        return {"network": [p for p in self.parameters() if p.requires_grad]}

    def after_step(self, step: int) -> None:
        """Update the method's own state after optimiser step number ``step`` (from 1); by default nothing."""


METHODS: Registry[type[Method]] = Registry("method")


def create_method(name: str, network: Network, **options: Any) -> Method:
    """Build a training method around a network, for example ``create_method("sirr", network, likelihood=0.5)``.

    Raises:
        SstlError: the name is unknown, an option does not exist, or its value is of the wrong type.
    """
    factory = METHODS[name]
    # As strict as a configuration file, where most options come from.
    schema = make_dataclass("Options", [(key, hint, None) for key, hint in option_types(factory).items()])
    checked: Any = from_tree(schema, to_tree(options), where=f"method '{name}'")
    return factory(network, **{key: getattr(checked, key) for key in options})


def option_types(factory: type[Method]) -> dict[str, Any]:
    """Return the type of every option of a method, those that its bases take by ``**options`` too."""
    hints: dict[str, Any] = {}
    for owner in reversed(factory.__mro__):
        hints |= get_type_hints(vars(owner).get("__init__", object.__init__))
    return {key: hint for key, hint in hints.items() if key not in ("network", "options", "return")}


def list_methods(pattern: str = "*") -> list[str]:
    """Return the names of the methods that match a shell pattern, sorted."""
    return METHODS.names(pattern)


def every_stage(restored: Restoration) -> tuple[Restoration, ...]:
    """Return the earlier stages and the final restoration, first to last."""
    return (*restored.stages, restored)


@torch.no_grad()
def trial(network: Network) -> Restoration:
    """Restore a small black image, to see what a network gives; the network is as it was before."""
    training = network.training
    restored: Restoration = network.eval()(torch.zeros(1, 3, 16, 16, device=next(network.parameters()).device))
    network.train(training)
    return restored


def train_channels_only(network: Network) -> None:
    """Freeze all parameters but those of one number per channel: biases, affine parameters, slopes of activations.

    Raises:
        SstlError: the network has none.
    """
    for parameter in network.parameters():
        parameter.requires_grad_(parameter.ndim <= 1)
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise SstlError(f"network '{getattr(network, 'name', type(network).__name__)}' has no parameter per channel.")
