"""Consistency alone: a mean teacher that exchanges no rain."""

from __future__ import annotations

from typing import Any

from sstl.methods.base import METHODS
from sstl.methods.mean_teacher import MeanTeacher
from sstl.networks import Network


@METHODS.register("consistency")
class Consistency(MeanTeacher):
    """``mean_teacher`` without exchange and with every consistency term, to tell what these are worth alone.

    All of them agree with "remove nothing"; the supervised branch alone forbids it. See ``MeanTeacher``.
    """

    name = "consistency"

    def __init__(
        self,
        network: Network,
        exchange: float = 0.0,
        equivariance: float = 0.1,
        stage_agreement: float = 0.1,
        rerain: float = 0.1,
        **options: Any,
    ) -> None:
        super().__init__(
            network,
            exchange=exchange,
            equivariance=equivariance,
            stage_agreement=stage_agreement,
            rerain=rerain,
            **options,
        )
