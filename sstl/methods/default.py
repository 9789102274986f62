"""The default of ``sstl adapt``: streak transfer that leaves clear photographs as they are."""

from __future__ import annotations

from typing import Any

from sstl.methods.base import METHODS
from sstl.methods.streak_transfer import StreakTransfer
from sstl.networks import Network


@METHODS.register("default")
class Default(StreakTransfer):
    """``streak_transfer`` with a quarter of the labelled pairs dry, so that clear photographs stay clear, and no veil.

    The veil is off: with few clean photographs to lay it over, a network learns to darken whatever is not among them.
    ``veil: 1`` lays it. See ``StreakTransfer``; how it fares is in ``experiments/shift``.
    """

    name = "default"

    def __init__(self, network: Network, dry: float = 0.25, veil: float = 0.0, **options: Any) -> None:
        super().__init__(network, dry=dry, veil=veil, **options)
