"""The default of ``sstl adapt``: streak transfer that leaves clear photographs as they are."""

from __future__ import annotations

from typing import Any

from sstl.methods.base import METHODS
from sstl.methods.streak_transfer import StreakTransfer
from sstl.networks import Network


@METHODS.register("default")
class Default(StreakTransfer):
    """``streak_transfer`` with two fifths of the pairs left dry, and without the veil.

    The veil is off because with few clean photographs it taught a network to darken whatever is not among them
    (``experiments/finetune_real``); ``veil: true`` lays it.

    The combination that won ``experiments/shift`` on the domains that it was developed on; see ``StreakTransfer``.
    """

    name = "default"

    def __init__(self, network: Network, dry: float = 0.4, veil: bool = False, **options: Any) -> None:
        super().__init__(network, dry=dry, veil=veil, **options)
