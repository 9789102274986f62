"""Workarounds for other people's packages, each with its reason."""

from __future__ import annotations

import importlib
from typing import Any


def import_torchvision_user(name: str) -> Any:
    """Import a module that imports torchvision (timm does), also where torchvision's binary does not fit torch.

    torchvision's wheels on PyPI are built for CUDA. Beside a CPU-only torch their operators do not load, and
    torchvision then fails to import for want of two operators that sstl never calls. Declaring them is enough.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        import torch

        for operator in ("nms", "qnms"):
            torch.library.define(
                f"torchvision::{operator}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            )
    return importlib.import_module(name)
