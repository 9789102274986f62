"""The default of ``sstl adapt``: streak transfer that leaves clear photographs as they are."""

from __future__ import annotations

from typing import Any

from sstl.methods.base import METHODS
from sstl.methods.streak_transfer import StreakTransfer
from sstl.networks import Network


@METHODS.register("default")
class Default(StreakTransfer):
    """``streak_transfer`` that forgets little and leaves clear photographs clear.

    Three in ten labelled pairs are dry, and small errors, which are theirs, weigh more than usual (``balance``). Few
    samples of the photos' rain are enough, and more of them make a network forget: the made pairs count a quarter, and
    of the labelled ones every tenth wears rain that was matched to the photos (by ``sstl adapt``), which a network
    learns even if it is blind to that rain and finds none to lay. The veil is off: with few clean photographs to lay it
    over, a network learns to darken whatever is not among them; ``veil: 1`` lays it. See ``StreakTransfer``; how it
    fares is in ``experiments/shift``.
    """

    name = "default"

    def __init__(
        self,
        network: Network,
        dry: float = 0.3,
        transfer: float = 0.25,
        balance: float = 0.003,
        veil: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(network, dry=dry, transfer=transfer, balance=balance, veil=veil, **options)
